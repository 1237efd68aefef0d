//! CONNECT: looks at the first bytes inside the tunnel. TLS is opened with a
//! certificate of ours, plain HTTP is governed as HTTP, anything else is
//! refused, unless its host is on the passthrough list; then the tunnel itself
//! is judged, and its content passes.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::domain::{Completion, OperationId, Outcome, Refusal};
use crate::gate::{Decision, Held, Permit, Refused};
use crate::metrics::Passage;
use crate::net::client_socket::ClientSocket;
use crate::net::tls::Speaks;
use crate::process::{clock, spawn_named};
use crate::session::Claim;

use super::authority::Target;
use super::failed::{self, Asked};
use super::line::Line;
use super::outgoing::Outgoing;
use super::rewind::Rewind;
use super::sentinel::Sentinel;
use super::settings::Leads;
use super::unserved::{Came, Why};
use super::upstream::UpstreamError;
use super::{describe, halt, multiplexed, raw, refuse, serve};

/// Answers CONNECT and goes on inside the tunnel.
pub(super) async fn open(
    line: &Arc<Line>,
    mut request: Request<Incoming>,
    user: Option<Box<str>>,
) -> Response<Outgoing> {
    let client = hyper::upgrade::on(&mut request);
    let target = match Target::of_connect(&request) {
        Ok(target) => target,
        Err(wrong) => return refuse::last_problem(wrong.status, wrong.code, wrong.detail),
    };
    let line = &match line.proxy.upstream.dialer().passed(request.headers()) {
        Ok(passed) => line.passed(passed),
        Err(circle) => {
            let status = StatusCode::LOOP_DETECTED;
            return refuse::last_problem(status, "proxy_loop", circle.words());
        }
    };
    match line.proxy.settings.leads(&target.host, target.port) {
        Leads::Refused => {
            let detail = "http.connect_ports does not name the port of this CONNECT";
            return refuse::last_problem(StatusCode::FORBIDDEN, "port_refused", detail);
        }
        Leads::Unread => return pass_through(line, client, target, user).await,
        Leads::Read => {}
    }
    line.shared.tunnel_follows();
    let line = line.clone();
    drop(spawn_named("tunnel", async move {
        match client.await {
            Ok(upgraded) => inside(line, upgraded, target, user).await,
            Err(error) => tracing::debug!(%error, "a tunnel was not opened"),
        }
    }));
    Response::new(Outgoing::empty())
}

async fn inside(line: Arc<Line>, upgraded: Upgraded, target: Target, user: Option<Box<str>>) {
    match socket_of(upgraded) {
        Some((socket, first)) => carried(line, socket, first, target, user).await,
        None => tracing::error!("a tunnel came over a connection that is not ours"),
    }
}

/// Serves whatever the tunnel turns out to carry; `first` was read from it before.
pub(super) async fn carried(
    line: Arc<Line>,
    mut socket: ClientSocket,
    mut first: Bytes,
    target: Target,
    user: Option<Box<str>>,
) {
    let within = line.proxy.settings.first_byte_within;
    if first.is_empty() {
        let mut space = BytesMut::with_capacity(4096);
        let reading = socket.read_buf(&mut space);
        match tokio::time::timeout(within, reading).await {
            Ok(Ok(read)) if read > 0 => first = space.freeze(),
            Ok(_) => return,
            Err(_) => {
                unserved(&line, &target, &Why::Silent);
                return;
            }
        }
    }
    match first.first() {
        Some(&raw::HANDSHAKE) => intercept(line, Rewind::new(socket, first), target, user).await,
        Some(byte) if byte.is_ascii_alphabetic() => {
            let target = Target {
                scheme: "http",
                ..target
            };
            plain(line.inside(target, user), socket, first).await;
        }
        Some(_) | None => {
            unserved(&line, &target, &Why::Foreign);
        }
    }
}

/// Serves who speaks HTTP in the clear, of either version.
pub(super) async fn plain(line: Arc<Line>, mut socket: ClientSocket, mut first: Bytes) {
    let within = line.proxy.settings.first_byte_within;
    let telling = multiplexed::is_spoken(&mut first, &mut socket);
    match tokio::time::timeout(within, telling).await {
        Ok(true) => multiplexed::connection(Rewind::new(socket, first), line).await,
        Ok(false) | Err(_) => serve::connection(socket, first, line).await,
    }
}

async fn intercept(
    line: Arc<Line>,
    stream: Rewind<ClientSocket>,
    target: Target,
    user: Option<Box<str>>,
) {
    // What the host speaks, if it is known: nothing is dialed before a request is
    // allowed, and a client that speaks HTTP/2 to us is served by either.
    let prefers = line.proxy.upstream.speaks(&target, &line.asker);
    let told = target.clone();
    match line.proxy.mint.accept(stream, &target.host, prefers).await {
        Ok((stream, speaks)) => {
            let inner = line.inside(target, user);
            match speaks {
                Speaks::Http1 => serve::connection(stream, Bytes::new(), inner).await,
                Speaks::Http2 => multiplexed::connection(stream, inner).await,
            }
        }
        Err(error) => {
            unserved(&line, &told, &Why::Tls(&error));
        }
    }
}

fn unserved(line: &Line, target: &Target, why: &Why<'_>) {
    super::unserved::tell(line, (&target.host, target.port), Came::Named, why);
}

fn socket_of(upgraded: Upgraded) -> Option<(ClientSocket, Bytes)> {
    let parts = upgraded
        .downcast::<TokioIo<Sentinel<ClientSocket>>>()
        .ok()?;
    let (socket, pending) = parts.io.into_inner().into_parts();
    if pending.is_empty() {
        return Some((socket, parts.read_buf));
    }
    let first = [parts.read_buf.as_ref(), pending.as_ref()].concat();
    Some((socket, first.into()))
}

/// Why a tunnel leads nowhere.
pub(super) enum NotReached {
    /// The client left meanwhile.
    Left,
    /// It may not.
    Refused(Box<Refused>),
    /// It may, and there is no connection, which is reported.
    Failed(OperationId, UpstreamError),
}

/// Judges the tunnel as an operation of its own, then lets its content pass.
async fn pass_through(
    line: &Arc<Line>,
    client: OnUpgrade,
    target: Target,
    user: Option<Box<str>>,
) -> Response<Outgoing> {
    let (permit, upstream) = match reach(line, &target, user.as_deref()).await {
        Ok(reached) => reached,
        Err(NotReached::Left) => return Response::new(Outgoing::empty()),
        Err(NotReached::Refused(refused)) => return refuse::closing(refuse::refusal(&refused)),
        Err(NotReached::Failed(id, error)) => {
            let method = &Method::CONNECT;
            return refuse::closing(failed::unreached(Asked { id, method }, &error));
        }
    };
    // Not before it is decided: what is refused ends as any connection does.
    line.shared.tunnel_follows();
    let line = line.clone();
    drop(spawn_named("passthrough", async move {
        let client = async { client.await.map(TokioIo::new).map_err(io::Error::other) };
        carry(&line, permit, client, (upstream, Some(&target.host))).await;
    }));
    Response::new(Outgoing::empty())
}

/// Has the tunnel judged, and connects it.
///
/// # Errors
/// It may not be opened, or cannot.
pub(super) async fn reach(
    line: &Line,
    target: &Target,
    user: Option<&str>,
) -> Result<(Permit, TcpStream), NotReached> {
    let started_at = clock::now();
    let claim = Claim {
        proxy_user: user,
        callers: line.watch.callers(),
        ..Claim::default()
    };
    let Some(session) = line.proxy.gate.registry().attribute(&claim, started_at) else {
        return Err(NotReached::Refused(Box::new(Refused::unasked(
            Refusal::Unattributed,
            clock::operation_id(started_at),
        ))));
    };
    let operation = describe::tunnel(target, &session, started_at);
    let id = operation.id;
    let settings = &line.proxy.settings;
    let treatment = settings.treatment(Method::CONNECT.as_str(), &target.host, "");
    let terms = treatment.terms(&Method::CONNECT);
    let decision = tokio::select! {
        biased;
        decision = line.proxy.gate.admit(operation, session, &terms) => decision,
        () = line.watch.hung_up() => return Err(NotReached::Left),
    };
    let permit = match decision {
        Decision::Proceed(permit) => permit,
        Decision::Refuse(refused) => return Err(NotReached::Refused(refused.into())),
        Decision::Replay(_) => return Err(NotReached::Left),
    };
    let cleared = Held::new(id, target).release(&permit);
    let target = cleared.ok_or(NotReached::Left)?.into_inner();
    let dialer = line.proxy.upstream.dialer();
    let dialed = dialer.dial_for(&target.host, target.port, &line.asker);
    match dialed.await {
        Ok(upstream) => Ok((permit, upstream)),
        Err(error) => {
            let error = UpstreamError::Dial(error);
            failed::report(permit, &error.to_string(), None);
            Err(NotReached::Failed(id, error))
        }
    }
}

/// Lets the content of a tunnel pass, until it ends or its run is halted. Where it was judged by a
/// name that the client has said, and its content begins with TLS, that must be for this name.
pub(super) async fn carry<S>(
    line: &Line,
    permit: Permit,
    client: impl Future<Output = io::Result<S>>,
    (upstream, judged): (TcpStream, Option<&str>),
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let tunnel = raw::Tunnel {
        passage: Passage::Passthrough,
        idle_within: line.proxy.settings.treatment_of(&permit).idle_within,
        metrics: line.proxy.gate.metrics(),
    };
    let carried = async {
        let client = client.await?;
        match judged {
            Some(host) => tunnel.relay_to(client, upstream, host).await,
            None => tunnel.relay(client, upstream).await,
        }
    };
    let ended = tokio::select! {
        ended = carried => ended.map_err(|error| error.to_string()),
        reason = halt::of_run(&permit) => Err(halt::in_words(&reason)),
    };
    permit.report(Completion {
        ended_at: clock::now(),
        outcome: if ended.is_ok() {
            Outcome::Answered
        } else {
            Outcome::Failed
        },
        answer: None,
        error: ended.err().map(Into::into),
    });
}
