//! CONNECT: looks at the first bytes inside the tunnel. TLS is opened with a
//! certificate of ours, plain HTTP is governed as HTTP, anything else is
//! refused, unless its host is on the passthrough list; then the tunnel itself
//! is judged, and its content passes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use crate::domain::{Completion, Outcome, Refusal};
use crate::gate::{Decision, Held, Permit, Refused};
use crate::metrics::Passage;
use crate::net::client_socket::ClientSocket;
use crate::process::{clock, spawn_named};
use crate::session::Claim;

use super::authority::Target;
use super::exchange::upstream_failed;
use super::line::Line;
use super::outgoing::Outgoing;
use super::rewind::Rewind;
use super::sentinel::Sentinel;
use super::upstream::UpstreamError;
use super::{describe, raw, refuse, serve};

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
    line.shared.tunnel_follows();
    if line.proxy.passes_through(&target.host) {
        return pass_through(line, client, target, user).await;
    }
    let line = line.clone();
    drop(spawn_named("tunnel", async move {
        match client.await {
            Ok(upgraded) => inside(line, upgraded, target, user).await,
            Err(error) => tracing::debug!(%error, "a tunnel was not opened"),
        }
    }));
    Response::new(Outgoing::empty())
}

/// Serves whatever the tunnel turns out to carry.
async fn inside(line: Arc<Line>, upgraded: Upgraded, target: Target, user: Option<Box<str>>) {
    let Some((mut socket, mut first)) = socket_of(upgraded) else {
        tracing::error!("a tunnel came over a connection that is not ours");
        return;
    };
    if first.is_empty() {
        let mut space = BytesMut::with_capacity(4096);
        let reading = socket.read_buf(&mut space);
        match tokio::time::timeout(line.proxy.settings.first_byte_within, reading).await {
            Ok(Ok(read)) if read > 0 => first = space.freeze(),
            Ok(_) => return,
            Err(_) => {
                tracing::info!(host = %target.host, port = target.port, "tunnel refused: the client waits for the server to speak first, so it carries neither TLS nor HTTP; put the host on http.passthrough to let it pass unread");
                return;
            }
        }
    }
    match first.first() {
        Some(0x16) => intercept(line, Rewind::new(socket, first), target, user).await,
        Some(byte) if byte.is_ascii_alphabetic() => {
            let target = Target {
                scheme: "http",
                ..target
            };
            let inner = line.inside(target, user);
            serve::connection(socket, first, inner).await;
        }
        Some(_) | None => {
            tracing::info!(host = %target.host, port = target.port, "tunnel refused: its first byte is neither TLS nor HTTP; put the host on http.passthrough to let it pass unread");
        }
    }
}

async fn intercept(
    line: Arc<Line>,
    stream: Rewind<ClientSocket>,
    target: Target,
    user: Option<Box<str>>,
) {
    match line.proxy.mint.accept(stream, &target.host).await {
        Ok(stream) => {
            let inner = line.inside(target, user);
            serve::connection(stream, Bytes::new(), inner).await;
        }
        Err(error) => {
            tracing::info!(host = %target.host, "TLS with the agent failed: {error}");
        }
    }
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

/// Judges the tunnel as an operation of its own, then lets its content pass.
async fn pass_through(
    line: &Arc<Line>,
    client: OnUpgrade,
    target: Target,
    user: Option<Box<str>>,
) -> Response<Outgoing> {
    let started_at = clock::now();
    let claim = Claim {
        proxy_user: user.as_deref(),
        ..Claim::default()
    };
    let Some(session) = line.proxy.gate.registry().attribute(&claim, started_at) else {
        return refuse::refusal(&Refused {
            refusal: Refusal::Unattributed,
            event: clock::operation_id(started_at),
            policy: None,
            ruling: None,
        });
    };
    let operation = describe::tunnel(&target, &session, started_at);
    let id = operation.id;
    let terms = line.proxy.terms(&Method::CONNECT);
    let decision = tokio::select! {
        biased;
        decision = line.proxy.gate.admit(operation, session, &terms) => decision,
        () = line.watch.hung_up() => return Response::new(Outgoing::empty()),
    };
    let permit = match decision {
        Decision::Proceed(permit) => permit,
        Decision::Refuse(refused) => return refuse::closing(refuse::refusal(&refused)),
        Decision::Replay(_) => return Response::new(Outgoing::empty()),
    };
    let Some(cleared) = Held::new(id, target).release(&permit) else {
        return Response::new(Outgoing::empty());
    };
    let target = cleared.into_inner();
    match line
        .proxy
        .upstream
        .dialer()
        .dial(&target.host, target.port)
        .await
    {
        Ok(upstream) => {
            let line = line.clone();
            drop(spawn_named("passthrough", async move {
                carry(&line, permit, client, upstream).await;
            }));
            Response::new(Outgoing::empty())
        }
        Err(error) => refuse::closing(upstream_failed(permit, id, &UpstreamError::Dial(error))),
    }
}

async fn carry(line: &Line, permit: Permit, client: OnUpgrade, upstream: tokio::net::TcpStream) {
    let tunnel = raw::Tunnel {
        passage: Passage::Passthrough,
        idle_within: line.proxy.settings.idle_within,
        metrics: line.proxy.gate.metrics(),
    };
    let carried = async {
        let client = client.await.map_err(std::io::Error::other)?;
        tunnel.relay(TokioIo::new(client), upstream).await
    };
    let halted = async {
        match permit.session() {
            Some(session) => session.until_halted().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = carried => ended.map_err(|error| error.to_string()),
        reason = halted => Err(format!("run halted: {reason}")),
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
