//! Server-sent events: the journal as it grows, with its own numbers as ids, so
//! that a client which comes back misses nothing and hears nothing twice.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::gate::Gate;
use crate::journal::follow::{Follower, Line};
use crate::process::spawn_named;

use super::problem::Problem;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How often the journal is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often a stream that has nothing to say shows that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Most pieces that wait for a client that reads slowly; then nothing is read
/// for it.
pub(in crate::control) const PIECES_MAX: usize = 4;

/// What of a record is shown, if any of it is; `None` leaves it out.
pub(in crate::control) type Show = fn(&Value, &Line) -> Option<String>;

/// Answers with a stream that begins now, or after `Last-Event-ID`.
pub(in crate::control) async fn stream(
    gate: &Gate,
    headers: &HeaderMap,
    show: Show,
) -> Result<Response, Problem> {
    let after = match headers.get(LAST_EVENT_ID) {
        None => None,
        Some(value) => {
            let number = value.to_str().ok().and_then(|text| text.parse().ok());
            Some(number.ok_or_else(|| {
                let detail = "Last-Event-ID must be the `id` of an event of this stream, a number";
                Problem::new(StatusCode::BAD_REQUEST, "invalid_last_event_id", detail)
            })?)
        }
    };
    let journal = gate.journal().clone();
    let follower = match after {
        None => Ok(Follower::from_now(journal)),
        Some(number) => blocking(move || Follower::after(journal, number)).await,
    };
    let follower = follower.map_err(|error| {
        tracing::error!(%error, "the journal cannot be read");
        let detail = "the journal cannot be read";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "journal", detail)
    })?;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let gate = gate.clone();
    drop(spawn_named("stream", async move {
        tokio::select! {
            () = send(follower, after, show, sender) => {}
            // What is not sent yet is sent when the client comes back.
            () = gate.closed() => {}
        }
    }));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::new(Pieces(receiver))).into_response())
}

async fn send(
    mut follower: Follower,
    mut after: Option<u64>,
    show: Show,
    pieces: mpsc::Sender<Bytes>,
) {
    // At once: a client knows by it that the stream has begun.
    if pieces
        .send(Bytes::from_static(b": begun\n\n"))
        .await
        .is_err()
    {
        return;
    }
    let mut told = Instant::now();
    loop {
        if !follower.is_behind() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = pieces.closed() => return,
            }
            if told.elapsed() >= ALIVE_EVERY {
                told = Instant::now();
                if pieces.send(Bytes::from_static(b":\n\n")).await.is_err() {
                    return;
                }
            }
            continue;
        }
        let lines;
        (follower, lines) = match more(follower).await {
            Ok(read) => read,
            Err(error) => {
                return tracing::error!(%error, "a stream ends: the journal cannot be read");
            }
        };
        let mut text = String::new();
        for line in &lines {
            if let Some(gap) = after.and_then(|after| gap(after, line.number)) {
                text.push_str(&gap);
            }
            after = Some(line.number);
            text.extend(event(line, show));
        }
        if !text.is_empty() {
            told = Instant::now();
            if pieces.send(text.into()).await.is_err() {
                return;
            }
        }
    }
}

/// Reads on where `follower` is, and gives it back.
pub(in crate::control) async fn more(
    mut follower: Follower,
) -> std::io::Result<(Follower, Vec<Line>)> {
    blocking(move || {
        let lines = follower.more()?;
        Ok((follower, lines))
    })
    .await
}

pub(in crate::control) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(std::io::Error::other(error)),
    }
}

/// Says that records between the two are deleted, if some are. It has no id: who
/// comes back after it names a record.
fn gap(after: u64, next: u64) -> Option<String> {
    let first = after.saturating_add(1);
    (next > first).then(|| {
        let last = next.saturating_sub(1);
        format!(
            "event: gap\ndata: {{\"record\":\"gap\",\"first\":{first},\"last\":{last},\"reason\":\"these records are deleted: journal.keep_for, journal.keep_bytes or journal.on_full\"}}\n\n"
        )
    })
}

/// One event of the stream. What only holds the journal together is left out.
fn event(line: &Line, show: Show) -> Option<String> {
    let record: Value = serde_json::from_str(&line.text).ok()?;
    let name = record.get("record")?.as_str()?;
    if ["segment", "checkpoint", "asking"].contains(&name) {
        return None;
    }
    let data = show(&record, line)?;
    Some(format!(
        "id: {}\nevent: {name}\ndata: {data}\n\n",
        line.number
    ))
}

/// A body of pieces as they come.
pub(in crate::control) struct Pieces(pub(in crate::control) mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
