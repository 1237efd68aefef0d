//! What is read of a request's body before policy is asked: within the room there is for
//! bodies, up to the cap or a deadline; or all of it, into a file, where the route says so.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use crate::domain::{Capture, Captured, Room};
use crate::metrics::{Metrics, OverCap as Met};

use super::body::{self, End, Gathered, length};
use super::budget::{Budget, Share};
use super::fields::{self, Reading};
use super::grpc::messages;
use super::line::Line;
use super::outgoing::Outgoing;
use super::refuse;
use super::request_body::RequestBody;
use super::routes::Treatment;
use super::settings::OverCap;
use super::spill::{self, Bounds, Collected, FromFile, Uncollected};
use super::unseen::Unseen;

/// What was read of a body, to go on.
#[derive(Debug)]
pub(super) enum Seen {
    /// What is in memory, before what the client still sends.
    Memory(Gathered, Room),
    /// All of it is in a file; so many bytes were shown to policy.
    File(FromFile, u64, Room),
}

impl Seen {
    /// Whether nothing was read, and something is to come.
    pub(super) fn is_with_client(&self) -> bool {
        match self {
            Self::Memory(gathered, _) => gathered.end == End::Cap && gathered.data.is_empty(),
            Self::File(..) => false,
        }
    }

    /// The body on its way, with what is left of the client's.
    pub(super) fn goes_on(
        self,
        client: Incoming,
        shown_max: usize,
        metrics: &Arc<Metrics>,
    ) -> RequestBody {
        match self {
            Self::Memory(gathered, room) => {
                RequestBody::new(gathered, room, shown_max, client, metrics)
            }
            Self::File(file, shown, room) => RequestBody::of_file(file, shown, room, metrics),
        }
    }
}

/// How long the first message of a gRPC call may take to begin: a client that waits for its server first sends none.
pub(super) const MESSAGE_BEGINS_WITHIN: Duration = Duration::from_millis(100);

type Refused = Box<Response<Outgoing>>;

/// Reads as much of the request body as policy is to see. Whoever waits for
/// `100 Continue` gets it here, from us.
pub(super) async fn of_request(
    line: &Line,
    request: &mut Request<Incoming>,
    treatment: &Treatment,
) -> Result<(Seen, Capture), Refused> {
    if request.body().is_end_stream() {
        let nothing = Seen::Memory(Gathered::default(), Room::default());
        return Ok((nothing, Capture::default()));
    }
    // Boxed: a held request must not carry what it needed to get there.
    Box::pin(of_body(line, request, treatment)).await
}

async fn of_body(
    line: &Line,
    request: &mut Request<Incoming>,
    treatment: &Treatment,
) -> Result<(Seen, Capture), Refused> {
    let reading = fields::reading(request.headers());
    let body = request.body_mut();
    let cap = treatment.capture_bytes_max;
    let known = body.size_hint().exact();
    let fits = known.is_some_and(|length| usize::try_from(length).is_ok_and(|l| l <= cap));
    let text = reading.is_text() && cap > 0;
    let whole = treatment.refuses_over_cap();
    if whole && known.is_some() && !fits {
        return Err(Box::new(unseen(line, Unseen::TooLarge)));
    }
    if !text && !fits && !whole {
        // Not text and not small: nothing of it is waited for.
        let nothing = Gathered {
            end: End::Cap,
            ..Gathered::default()
        };
        let capture = Capture {
            state: Captured::Skipped,
            ..Capture::default()
        };
        return Ok((Seen::Memory(nothing, Room::default()), capture));
    }
    let in_messages = matches!(reading, Reading::Messages(_));
    if text && !in_messages && treatment.over_cap == OverCap::Spill {
        return Box::pin(spilled(line, body, &reading, cap)).await;
    }
    let share = room(line, &line.proxy.requests, known, cap).await;
    let share = share.ok_or_else(|| Box::new(busy(BODIES_FULL)))?;
    gathered(line, body, text.then_some(&reading), (treatment, share)).await
}

/// Room in `budget` for a body of this length, as far as policy sees it.
pub(super) async fn room(
    line: &Line,
    budget: &Budget,
    known: Option<u64>,
    cap: usize,
) -> Option<Share> {
    let known = known.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let bytes = known.unwrap_or(usize::MAX).min(cap);
    let within = line.proxy.settings.capture_within;
    budget.share(bytes, within).await
}

async fn gathered(
    line: &Line,
    body: &mut Incoming,
    reading: Option<&Reading>,
    (treatment, share): (&Treatment, Share),
) -> Result<(Seen, Capture), Refused> {
    let within = line.proxy.settings.capture_within;
    let cap = treatment.capture_bytes_max;
    let whole = treatment.refuses_over_cap();
    let gathered = match reading {
        Some(Reading::Messages(_)) if !whole => {
            messages::gather(body, cap, (MESSAGE_BEGINS_WITHIN, within)).await
        }
        Some(_) | None => body::gather(body, cap, within).await,
    };
    let mut gathered = gathered.map_err(|error| Box::new(broken(line, &error)))?;
    gathered.trailers = gathered.trailers.and_then(fields::strip_trailers);
    let capture = match reading {
        Some(reading) => body::capture(&gathered, reading, cap),
        None => body::binary_capture(&gathered),
    };
    let mut capture = with_trailers(capture, gathered.trailers.as_ref());
    let why = Unseen::of(gathered.end, &capture, cap);
    if let Some(why) = why.filter(|_| whole) {
        return Err(Box::new(unseen(line, why)));
    }
    if capture.state == Captured::Partial {
        line.proxy.gate.metrics().over_cap(Met::Partial);
    }
    kept(line, share, &gathered.data, &mut capture)?;
    let room = capture.room.clone();
    Ok((Seen::Memory(gathered, room), capture))
}

/// What is shown of a body and of the fields behind it.
pub(super) fn with_trailers(capture: Capture, trailers: Option<&HeaderMap>) -> Capture {
    Capture {
        trailers: fields::shown_trailers(trailers),
        ..capture
    }
}

/// Gives `capture` room for what is held of its body: the bytes or, where those were compressed, the text, whichever is
/// more. Says whether there was any; it lasts as long as either.
pub(super) fn keeps(budget: &Budget, mut share: Share, data: &[u8], capture: &mut Capture) -> bool {
    let text = capture.text.as_ref().map_or(0, String::len);
    let has_room = budget.fit(&mut share, data.len().max(text));
    capture.room = share.into_room();
    has_room
}

/// As [`keeps`], of a request, which is refused where there is no room.
fn kept(line: &Line, share: Share, data: &[u8], capture: &mut Capture) -> Result<(), Refused> {
    match keeps(&line.proxy.requests, share, data, capture) {
        true => Ok(()),
        false => Err(Box::new(busy(BODIES_FULL))),
    }
}

async fn spilled(
    line: &Line,
    body: &mut Incoming,
    reading: &Reading,
    cap: usize,
) -> Result<(Seen, Capture), Refused> {
    let settings = &line.proxy.settings;
    let bounds = Bounds {
        memory_max: cap,
        memory: &line.proxy.requests,
        memory_within: settings.capture_within,
        room: &line.proxy.spills,
        folder: &line.proxy.spill_folder,
        idle: settings.idle_within,
        total: settings.spill_within,
    };
    let collected = spill::collect(body, bounds).await;
    match collected.map_err(|why| Box::new(uncollected(line, why)))? {
        Collected::Memory(gathered, share) => {
            let capture = body::capture(&gathered, reading, cap);
            let mut capture = with_trailers(capture, gathered.trailers.as_ref());
            kept(line, share, &gathered.data, &mut capture)?;
            let room = capture.room.clone();
            Ok((Seen::Memory(gathered, room), capture))
        }
        Collected::File(spilled) => {
            line.proxy.gate.metrics().over_cap(Met::Spilled);
            let shown = length(&spilled.first);
            let beginning = Gathered {
                data: spilled.first,
                trailers: None,
                end: End::Cap,
            };
            // Not all of it is shown, and all of it is known.
            let capture = Capture {
                bytes: spilled.bytes,
                digest: Some(spilled.digest),
                ..body::capture(&beginning, reading, cap)
            };
            let mut capture = with_trailers(capture, spilled.file.trailers());
            kept(line, spilled.share, &[], &mut capture)?;
            let room = capture.room.clone();
            Ok((Seen::File(spilled.file, shown, room), capture))
        }
    }
}

fn uncollected(line: &Line, why: Uncollected<hyper::Error>) -> Response<Outgoing> {
    match why {
        Uncollected::Broken(error) => broken(line, &error),
        Uncollected::Slow => refuse::last_problem(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            "the body came too slowly (http.spill_within, http.idle_within), and http.over_cap is spill: all of it must be here before it goes on",
        ),
        Uncollected::Full => busy(
            "there is no room for another body that is to be here whole (http.spill_bytes_max)",
        ),
        Uncollected::NoMemory => busy(BODIES_FULL),
        Uncollected::Disk(error) => {
            tracing::error!(%error, "a body could not be spilled to a file: the request is refused");
            busy("the body could not be written to a file, and http.over_cap is spill")
        }
    }
}

/// Policy must see all of it, and does not.
fn unseen(line: &Line, why: Unseen) -> Response<Outgoing> {
    why.count(line.proxy.gate.metrics());
    refuse::last_problem(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large_to_judge",
        why.of_body(),
    )
}

const BODIES_FULL: &str =
    "too many bodies wait here for their requests to be judged (http.bodies_bytes_max)";

/// Nothing was read or asked; later there may be room.
fn busy(detail: &str) -> Response<Outgoing> {
    let mut response = refuse::last_problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn broken(line: &Line, error: &hyper::Error) -> Response<Outgoing> {
    match line.shared.malformed() {
        Some(malformed) => {
            refuse::last_problem(StatusCode::BAD_REQUEST, malformed.code, malformed.detail)
        }
        None => {
            let detail = format!("the request body broke off: {error}");
            refuse::last_problem(StatusCode::BAD_REQUEST, "broken_body", &detail)
        }
    }
}
