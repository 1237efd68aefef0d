//! Speaking HTTP/2 with the agent, inside a tunnel. Every stream is a request
//! of its own, judged like any; a stream that is reset, and a connection that is
//! lost, drop what they were waiting for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time;

use crate::metrics::LimitHit;
use crate::net::http2::Tasks;

use super::line::Line;
use super::outgoing::Outgoing;
use super::pace::Paces;
use super::{exchange, grpc, refuse, serve};

/// What a client sends first that knows HTTP/2 to be spoken (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most requests at once on one connection.
const STREAMS_MAX: u32 = 100;

/// Most streams that were reset by the client and are not forgotten yet, before
/// the connection ends (CVE-2023-44487), and most that we had to reset.
const RESETS_MAX: usize = 32;

/// Bytes of a request body that a client may send ahead, for one stream and for
/// all together.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Most bytes of one answer that wait for the client.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// How long a request may take to be told that its run is halted, before the
/// connection says so.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// How long a connection that is being closed may be quiet.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Whether `first`, or what follows it on `stream`, is [`PREFACE`]. Reads no
/// more than it takes to tell; what was read is in `first`.
pub(super) async fn is_spoken<S>(first: &mut Bytes, stream: &mut S) -> bool
where
    S: AsyncRead + Unpin,
{
    let mut read = BytesMut::new();
    while first.len() < PREFACE.len() && PREFACE.starts_with(first) {
        read.clear();
        read.extend_from_slice(first);
        match stream.read_buf(&mut read).await {
            Ok(more) if more > 0 => *first = Bytes::copy_from_slice(&read),
            Ok(_) | Err(_) => return false,
        }
    }
    first.starts_with(PREFACE)
}

/// Serves the inside of a tunnel until it ends, its run is halted, or we are. Boxed, since
/// what serves a tunnel is what opened it.
pub(super) fn connection<S>(stream: S, line: Arc<Line>) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(serve(stream, line))
}

async fn serve<S>(stream: S, line: Arc<Line>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &line.proxy.settings;
    let head_bytes_max = u32::try_from(settings.head_bytes_max).unwrap_or(u32::MAX);
    let (streams, paces) = (line.clone(), Arc::new(Paces::default()));
    let paced = paces.clone();
    let connection = http2::Builder::new(Tasks)
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_header_list_size(head_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BYTES_MAX)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer(streams.clone(), paced.clone(), request)),
        );
    let mut connection = std::pin::pin!(connection);
    let mut over = std::pin::pin!(over(&line));
    let mut halted = std::pin::pin!(halted_and_told(&line));
    let mut closing = None;
    loop {
        let quiet_for = match closing {
            Some(_) => CLOSE_WITHIN.min(settings.idle_within),
            None => settings.idle_within,
        };
        let found = tokio::select! {
            // First, so that an answer that is the last goes out before the end.
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a tunnel ended early");
                }
                return;
            }
            () = over.as_mut(), if closing.is_none() => Some(Closing::Finished),
            () = halted.as_mut(), if closing != Some(Closing::Hurried) => Some(Closing::Hurried),
            () = paces.overdue(), if closing != Some(Closing::Hurried) => Some(Closing::Hurried),
            () = time::sleep(quiet_for) => {
                let stuck_for = match closing {
                    Some(Closing::Hurried) => quiet_for,
                    Some(Closing::Finished) | None => settings.idle_within,
                };
                let moves = line.shared.was_busy() && !paces.is_any_stuck_for(stuck_for);
                if !moves && closing.is_some() {
                    return;
                }
                (!moves).then_some(Closing::Finished)
            }
        };
        if found.is_some() {
            closing = found;
            // What is under way gets its answer; then the tunnel closes.
            connection.as_mut().graceful_shutdown();
        }
    }
}

/// Why a connection takes no more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Its run was halted, or an answer took longer than it may: what is under way has
    /// [`CLOSE_WITHIN`].
    Hurried,
    /// Nothing follows, or we are to end: what is under way has its time.
    Finished,
}

/// Until an answer said that no other follows, or we are to end.
async fn over(line: &Line) {
    let mut drain = line.drain.clone();
    tokio::select! {
        () = line.shared.last_answer() => {}
        () = drain.begun() => {}
    }
}

/// Until the run was halted, and whoever has a request under way could be told.
async fn halted_and_told(line: &Line) {
    serve::halted(line).await;
    time::sleep(TOLD_WITHIN).await;
}

/// Answers one stream. What says in HTTP/1.1 that a connection ends is said
/// otherwise here, and only where it is about more than this request.
async fn answer(
    line: Arc<Line>,
    paces: Arc<Paces>,
    request: Request<Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let is_call = grpc::is_call(request.headers());
    let mut response = if has_room_for(&line, request.headers()) {
        exchange::answer(line.clone(), request).await?
    } else {
        line.proxy.gate.metrics().limit_hit(LimitHit::TooLarge);
        refuse::problem(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too_many_fields",
            "the request has more header fields than are accepted",
            None,
        )
    };
    if refuse::is_last(&response) {
        response.body_mut().end_after_this();
    }
    let term = response.body().term();
    response.body_mut().tell(paces.begin(term));
    response.headers_mut().remove(header::CONNECTION);
    if is_call {
        grpc::speak_as(&mut response);
    }
    Ok(response)
}

fn has_room_for(line: &Line, headers: &HeaderMap) -> bool {
    headers.len() <= line.proxy.settings.head_fields_max
}
