//! Accepting connections, up to the start of a session.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::domain::{Process, Protocol, Refusal};
use crate::gate::Refused;
use crate::metrics::Unaccepted;
use crate::net::client_socket::ClientSocket;
use crate::net::listen_at::Listening;
use crate::net::maybe_tls::MaybeTls;
use crate::process::{Drain, clock};
use crate::protocols::accept::Accepting;
use crate::protocols::captured::Led;
use crate::session::Claim;

use super::startup::{self, NotStarted};
use super::{Agent, MysqlRelay, Server, Shared, refuse, session};

impl MysqlRelay {
    /// Serves `server` on its listener, and who is `led` to it, until `drain` begins, then ends what
    /// is idle and lets the rest finish. Returns when the last connection of
    /// this listener has ended.
    pub async fn run(self, listener: Listening, led: Led, server: Server, drain: Drain) {
        let Self { shared } = self;
        let server = Arc::new(server);
        let (of_session, mut begun) = (drain.clone(), drain);
        let accepting = Accepting {
            name: "mysql",
            workers: &shared.workers,
            places: &shared.places,
            metrics: shared.gate.metrics(),
            callers: shared.gate.registry().callers(),
        };
        let serve = {
            let shared = shared.clone();
            move |socket: ClientSocket| async move {
                connection(&shared, &server, socket, of_session).await;
            }
        };
        tokio::select! {
            () = begun.begun() => {}
            () = accepting.from(&listener, led, serve) => {}
        }
    }
}

async fn connection(shared: &Arc<Shared>, server: &Server, client: ClientSocket, drain: Drain) {
    let now = Instant::now();
    let until = now.checked_add(shared.settings.login_within).unwrap_or(now);
    let watch = client.watch();
    let mut client = Some(MaybeTls::Plain(client));
    if let Some(told) = refused_at_once(shared, watch.callers()) {
        return end(client, &told).await;
    }
    let started = async {
        tokio::select! {
            started = startup::start(shared, server, &mut client, until) => started,
            // Nobody waits for the server that is being reached.
            () = watch.hung_up() => Err(NotStarted::Left),
        }
    };
    let unaccepted = |cause| shared.gate.metrics().unaccepted(Protocol::Mysql, cause);
    match tokio::time::timeout_at(until, started).await {
        Ok(Ok(started)) => {
            let Some(client) = client else { return };
            // Boxed: what starts must not carry what relays.
            let session = session::serve(shared, server, client, started, until, drain);
            Box::pin(session).await;
        }
        Ok(Err(NotStarted::Server(cause, told, why))) => {
            unaccepted(cause);
            let (host, port) = (&server.upstream.host, server.upstream.port);
            tracing::warn!(%host, port, "a connection for MySQL did not start: {why}");
            end(client, &told).await;
        }
        Ok(Err(NotStarted::Client(cause, told, why))) => {
            unaccepted(cause);
            tracing::info!("a connection for MySQL was refused: {why}");
            end(client, &told).await;
        }
        Ok(Err(NotStarted::Left)) => {}
        Err(_) => {
            unaccepted(Unaccepted::Slow);
            tracing::info!("a connection for MySQL was refused: it did not begin in time");
        }
    }
}

/// What a client hears that may not even begin.
fn refused_at_once(shared: &Shared, callers: &[Process]) -> Option<Bytes> {
    let now = clock::now();
    let claim = Claim {
        callers,
        ..Claim::default()
    };
    let session = shared.gate.registry().attribute(&claim, now)?;
    let reason = session.halted()?;
    Some(refuse::instead_of_greeting(&Refused::unasked(
        Refusal::Halted(reason),
        clock::operation_id(now),
    )))
}

/// Says `last` and closes.
async fn end(client: Option<Agent>, last: &[u8]) {
    // There is none where a handshake failed.
    let Some(mut client) = client else { return };
    let said = async {
        client.write_all(last).await?;
        client.shutdown().await
    };
    match tokio::time::timeout(session::ENDS_WITHIN, said).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!("a refused client did not hear why"),
    }
    client
        .socket()
        .watch()
        .linger(64 << 10, session::ENDS_WITHIN)
        .await;
}
