//! How a session starts: whether it may at all, and with which settings.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::domain::{Completion, OperationId, Outcome, Protocol, Refusal};
use crate::gate::{Decision, Permit, Refused, Terms, Unanswered};
use crate::metrics::Unaccepted;
use crate::net::client_socket::Watch;
use crate::net::listen_at::At;
use crate::process::{Drain, clock};
use crate::protocols::postgres::describe::{self, Place};
use crate::protocols::postgres::login::{self, Unproved};
use crate::protocols::postgres::reach::{self, Reached};
use crate::protocols::postgres::startup::Start;
use crate::protocols::postgres::{
    Replication, Server, Shared, Upstream, limits, refuse, serve as accepting,
};
use crate::session::Claim;

use super::{Relay, ToClient};

/// Dials the server and relays until one side ends.
pub(in crate::protocols::postgres) async fn serve(
    shared: &Arc<Shared>,
    server: &Server,
    mut client: ToClient,
    mut start: Start,
    mut input: BytesMut,
    login_until: Instant,
    drain: Drain,
) {
    let Upstream {
        host, port, login, ..
    } = &server.upstream;
    if let Some(role) = login.as_ref().and_then(|login| login.role.as_ref()) {
        start.impose("user", role.to_string());
    }
    let place = Place {
        host: host.clone(),
        port: *port,
        database: start.database().into(),
        user: start.user().map(Into::into),
    };
    let metrics = shared.gate.metrics();
    let watch = client.socket().watch();
    let admitted = match proved(shared, server, &mut client, &mut input, login_until).await {
        Ok(()) => may_start(shared, &place, &mut start, &watch).await,
        Err(refused) => Err(refused),
    };
    let told = match admitted {
        Ok(replicates) => match reach::reach(&shared.dialer, server).await {
            Ok(mut reached) => {
                let greeting = tokio::select! {
                    biased;
                    greeting = logged_in(server, &mut reached, &start, login_until) => greeting,
                    () = watch.hung_up() => return,
                };
                let greeting = match greeting {
                    Ok(greeting) => greeting,
                    Err((cause, told)) => {
                        metrics.unaccepted(Protocol::Postgresql, cause);
                        return tell(&mut client, &told).await;
                    }
                };
                let mut session =
                    Relay::new(shared, place, client, reached, &start, input, greeting);
                if let Some(permit) = replicates {
                    session.replicates(permit);
                }
                session.run(login_until, drain).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%host, port, "PostgreSQL could not be reached: {error}");
                metrics.unaccepted(Protocol::Postgresql, error.cause());
                refuse::fatal("08001", &error.to_string())
            }
        },
        Err(Some((cause, told))) => {
            metrics.unaccepted(Protocol::Postgresql, cause);
            told
        }
        Err(None) => return,
    };
    tell(&mut client, &told).await;
}

async fn tell(client: &mut ToClient, told: &[u8]) {
    if let Err(error) = accepting::end(client, told).await {
        tracing::debug!(%error, "a refused client did not hear why");
    }
}

/// Logs in where that is not the agent's to do: what the server has said to it.
async fn logged_in(
    server: &Server,
    reached: &mut Reached,
    start: &Start,
    until: Instant,
) -> Result<Option<BytesMut>, (Unaccepted, Bytes)> {
    let upstream = &server.upstream;
    let Some(login) = &upstream.login else {
        return Ok(None);
    };
    // Boxed: hardly any session does.
    let proved = Box::pin(login::log_in(reached, upstream, login, start));
    match tokio::time::timeout_at(until, proved).await {
        Ok(Ok(greeting)) => Ok(Some(greeting)),
        Ok(Err(wrong)) => {
            let Upstream { host, port, .. } = upstream;
            tracing::warn!(%host, port, "{wrong}");
            let told = refuse::fatal(wrong.code(), &wrong.to_string());
            Err((wrong.cause(), told))
        }
        Err(_) => Err((Unaccepted::Slow, refuse::late())),
    }
}

/// Has the agent prove the token where the sidecar logs in for it, unless it came by a path, which not everybody can
/// open. `Err(None)`: the client left.
async fn proved(
    shared: &Shared,
    server: &Server,
    client: &mut ToClient,
    input: &mut BytesMut,
    until: Instant,
) -> Result<(), Option<(Unaccepted, Bytes)>> {
    let upstream = &server.upstream;
    if upstream.login.is_none() || matches!(upstream.listen, At::Unix(_)) {
        return Ok(());
    }
    let Some(token) = &shared.token else {
        tracing::error!("the sidecar has no token to ask agents for");
        let told = refuse::fatal("XX000", "the sidecar failed");
        return Err(Some((Unaccepted::Refused, told)));
    };
    let proving = Box::pin(login::prove(client, input, token));
    match tokio::time::timeout_at(until, proving).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(unproved)) => {
            let cause = match unproved {
                Unproved::Wire(_) => Unaccepted::Malformed,
                Unproved::Gone | Unproved::Wrong => Unaccepted::Credentials,
            };
            Err(unproved.told().map(|told| (cause, told)))
        }
        Err(_) => Err(Some((Unaccepted::Slow, refuse::late()))),
    }
}

/// Whether a session may start like this; by which permit, where it replicates.
/// `Err(None)`: the client left.
async fn may_start(
    shared: &Shared,
    place: &Place,
    start: &mut Start,
    watch: &Watch,
) -> Result<Option<Permit>, Option<(Unaccepted, Bytes)>> {
    let no = |told| Err(Some((Unaccepted::Refused, told)));
    if start.user().is_none() {
        let text = "no PostgreSQL user name specified in startup packet";
        let told = refuse::fatal("28000", text);
        return Err(Some((Unaccepted::Credentials, told)));
    }
    let replicates = start.replicates();
    if replicates && shared.settings.replication == Replication::Refuse {
        let text = "replication is not allowed here: see the sidecar's postgres.replication";
        return no(refuse::fatal("42501", text));
    }
    let now = clock::now();
    let claim = Claim {
        database_hint: start.get("application_name"),
        callers: watch.callers(),
        ..Claim::default()
    };
    let Some(session) = shared.gate.registry().attribute(&claim, now) else {
        let refused = unattributed(clock::operation_id(now));
        return no(refuse::refusal(&refused, true));
    };
    if let Some(reason) = session.halted() {
        let refused = Refused::unasked(Refusal::Halted(reason), clock::operation_id(now));
        return no(refuse::refusal(&refused, true));
    }
    let mut line = String::new();
    for (name, value) in start.strict_settings() {
        describe::setting(&mut line, name, value);
    }
    if line.is_empty() && !replicates {
        return Ok(None);
    }
    let verb = if replicates {
        line.push_str("REPLICATION");
        "REPLICATION"
    } else {
        "SET"
    };
    let operation = describe::session(verb, line, place, &session, now);
    let terms = Terms {
        hold_within: shared.settings.hold_within,
        unanswered: Unanswered::AsSet,
        applies: match replicates {
            true => |_| false,
            false => |name| limits::session_setting(name).is_some(),
        },
        contradicts: |_| false,
        replaces: |_| false,
    };
    let admitted = shared.gate.admit(operation, session, &terms);
    tokio::select! {
        biased;
        decision = admitted => match decision {
            Decision::Proceed(permit) if replicates => Ok(Some(permit)),
            Decision::Proceed(permit) => {
                let asked = permit.constraints().iter();
                for (name, value) in asked.filter_map(|name| limits::session_setting(name)) {
                    start.impose(name, value);
                }
                permit.report(Completion {
                    ended_at: clock::now(),
                    outcome: Outcome::Answered,
                    answer: None,
                    error: None,
                });
                Ok(None)
            }
            Decision::Refuse(refused) => no(refuse::refusal(&refused, true)),
            Decision::Replay(_) => Err(None),
        },
        () = watch.hung_up() => Err(None),
    }
}

pub(super) fn unattributed(event: OperationId) -> Refused {
    Refused::unasked(Refusal::Unattributed, event)
}
