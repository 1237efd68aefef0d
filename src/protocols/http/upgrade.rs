//! WebSocket: the handshake is judged like any request; what follows the
//! upstream's 101 passes as a named passage, or is judged message by message where
//! a setting says so, until either side ends it, it is silent for too long, or the
//! run is halted.

use std::io;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::domain::{Answer, Capture, Captured, Completion, HttpAnswer, Outcome};
use crate::gate::Permit;
use crate::metrics::Passage;
use crate::process::{clock, spawn_named};

use super::answer_body::AnswerBody;
use super::authority::Target;
use super::failed::{self, Asked};
use super::line::Line;
use super::mask::Mask;
use super::outgoing::Outgoing;
use super::{Proxy, fields, raw, websocket};

/// Whether the request asks for WebSocket (RFC 6455 §4.1). No other upgrade is
/// relayed: the header is stripped, and the request goes on as it is.
pub(super) fn asks_for_websocket<B>(request: &Request<B>) -> bool {
    let is = |name: &header::HeaderName, wanted: &str| {
        request.headers().get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(wanted))
            })
        })
    };
    *request.method() == Method::GET
        && is(&header::UPGRADE, "websocket")
        && is(&header::CONNECTION, "upgrade")
}

/// Puts back what was stripped as belonging to the hop.
pub(super) fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// The client's side of an upgrade that was asked for.
#[derive(Debug)]
pub(super) struct Client {
    side: OnUpgrade,
    messages: Messages,
}

/// What becomes of what follows the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Messages {
    /// It passes unread.
    Pass,
    /// Each message is judged.
    Judged,
}

impl Client {
    /// Takes the client's side out of a request to `target`.
    ///
    /// Where messages are judged no extension is asked for: the one there is compresses,
    /// with a memory that spans messages, and what policy reads must be what the
    /// server reads, without a second decoder that may see it differently.
    pub(super) fn take(proxy: &Proxy, parts: &mut Parts, target: &Target) -> Option<Self> {
        let side = parts.extensions.remove::<OnUpgrade>()?;
        let messages = if proxy.settings.judges_each(&target.host, parts.uri.path()) {
            parts.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
            Messages::Judged
        } else {
            Messages::Pass
        };
        Some(Self { side, messages })
    }
}

/// Answers a 101 of the origin and starts relaying behind it.
pub(super) fn relay(
    line: &Arc<Line>,
    permit: Permit,
    asked: Asked<'_>,
    mut response: Response<AnswerBody>,
    (client, mask): (Option<Client>, Mask),
) -> Response<Outgoing> {
    let unasked = |permit, response: Response<AnswerBody>, why| {
        let (mut parts, _) = response.into_parts();
        fields::strip_hop_by_hop(&mut parts.headers);
        let headers = mask.headers(fields::captured(&parts.headers));
        let answer = failed::head(parts.status, headers);
        failed::unasked(permit, asked, ("unasked_upgrade", why), answer)
    };
    let Some(client) = client else {
        let why = "the origin switched protocols although nobody had asked for it";
        return unasked(permit, response, why);
    };
    let extended = response
        .headers()
        .contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
    if client.messages == Messages::Judged && extended {
        let why = "the origin uses an extension of WebSocket that nobody had asked for";
        return unasked(permit, response, why);
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, body) = response.into_parts();
    drop(body);
    fields::strip_hop_by_hop(&mut parts.headers);
    let headers = mask.headers(fields::captured(&parts.headers));
    ask_for_websocket(&mut parts.headers);
    line.shared.tunnel_follows();
    let task_line = line.clone();
    drop(spawn_named("websocket", async move {
        let busy = task_line.shared.begin();
        let ended = both(&task_line, (&permit, mask), client, upstream).await;
        drop(busy);
        permit.report(Completion {
            ended_at: clock::now(),
            outcome: if ended.is_ok() {
                Outcome::Answered
            } else {
                Outcome::Failed
            },
            answer: Some(Answer::Http(HttpAnswer {
                status: StatusCode::SWITCHING_PROTOCOLS.as_u16(),
                headers,
                body: Capture {
                    bytes: ended.as_ref().copied().unwrap_or(0),
                    state: Captured::Skipped,
                    ..Capture::default()
                },
            })),
            error: ended.err().map(|error| error.to_string().into()),
        });
    }));
    Response::from_parts(parts, Outgoing::empty())
}

async fn both(
    line: &Line,
    (permit, mask): (&Permit, Mask),
    Client { side, messages }: Client,
    upstream: OnUpgrade,
) -> io::Result<u64> {
    let upgraded: Result<(Upgraded, Upgraded), hyper::Error> =
        async { tokio::try_join!(side, upstream) }.await;
    let (client, upstream) = upgraded.map_err(io::Error::other)?;
    if messages == Messages::Judged {
        return Box::pin(websocket::relay(line, (permit, mask), client, upstream)).await;
    }
    let tunnel = raw::Tunnel {
        passage: Passage::WebSocket,
        idle_within: line.proxy.settings.treatment_of(permit).idle_within,
        metrics: line.proxy.gate.metrics(),
    };
    let relayed = tunnel.relay(TokioIo::new(client), TokioIo::new(upstream));
    match permit.session() {
        Some(session) => tokio::select! {
            ended = relayed => ended,
            reason = session.until_halted() => {
                Err(io::Error::other(format!("run halted: {reason}")))
            }
        },
        None => relayed.await,
    }
}
