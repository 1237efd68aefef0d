//! The body of a response on its way to the agent: whole, or streamed by and
//! reported when it ends, however it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::domain::{Answer, Completion, Headers, HttpAnswer, Outcome, Room};
use crate::gate::Permit;
use crate::metrics::{Metrics, Passage};
use crate::net::client_socket::Watch;
use crate::process::clock;

use super::answer_body::AnswerBody;
use super::body::{BodyError, Tee, length, longer};
use super::budget::Share;
use super::events::Events;
use super::halt::{self, Halt};
use super::mask::Mask;
use super::pace::Paced;
use super::sentinel::Busy;
use super::silence::Silence;

/// The body of a response.
#[derive(Debug)]
pub(super) struct Outgoing {
    kind: Kind,
    /// The exchange is under way until its body has gone out.
    busy: Option<Busy>,
    /// The room that a body has which is all here.
    room: Room,
    /// Whether its client takes it, where nothing else tells.
    paced: Option<Paced>,
}

#[derive(Debug)]
enum Kind {
    Whole {
        data: Option<Bytes>,
        trailers: Option<Box<HeaderMap>>,
    },
    Observed(Box<Observed>),
    Events(Box<Events>),
}

impl Outgoing {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new(), None)
    }

    /// All of it at once.
    pub(super) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self {
            kind: Kind::Whole {
                data: (!data.is_empty()).then_some(data),
                trailers: trailers.map(Box::new),
            },
            busy: None,
            room: Room::default(),
            paced: None,
        }
    }

    /// A body that streams by.
    pub(super) fn observed(observed: Observed) -> Self {
        Self {
            kind: Kind::Observed(Box::new(observed)),
            busy: None,
            room: Room::default(),
            paced: None,
        }
    }

    /// Leaves all of it out; the exchange goes on until that has gone out.
    pub(super) fn clear(&mut self) {
        self.say(Bytes::new());
    }

    /// Says `data` in its place; the exchange goes on until that has gone out.
    pub(super) fn say(&mut self, data: Bytes) {
        self.kind = Self::whole(data, None).kind;
    }

    /// No answer follows this one.
    pub(super) fn end_after_this(&mut self) {
        if let Some(busy) = &mut self.busy {
            busy.end_after_this();
        }
    }

    /// A body whose events are judged.
    pub(super) fn events(events: Events) -> Self {
        Self {
            kind: Kind::Events(Box::new(events)),
            busy: None,
            room: Room::default(),
            paced: None,
        }
    }

    /// When it is over, whatever its client takes of it.
    pub(super) fn term(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Whole { .. } => None,
            Kind::Observed(observed) => observed.term,
            Kind::Events(events) => events.term(),
        }
    }

    /// Keeps the room that it has until it has gone out.
    pub(super) fn in_room(&mut self, room: Room) {
        self.room = room;
    }

    /// Tells `paced` who is waited for, until the body has gone out.
    pub(super) fn tell(&mut self, paced: Paced) {
        self.paced = Some(paced);
    }

    /// Keeps `busy` until the body has gone out.
    pub(super) fn keep(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Whole { data, trailers } => {
                let data = data.take().map(Frame::data);
                let next = data.or_else(|| trailers.take().map(|t| Frame::trailers(*t)));
                Poll::Ready(next.map(Ok))
            }
            Kind::Observed(observed) => observed.poll_frame(cx),
            Kind::Events(events) => events.poll_frame(cx),
        };
        if let Some(paced) = &this.paced {
            match polled {
                Poll::Ready(_) => paced.waits_for_client(),
                Poll::Pending => paced.waits_for_origin(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole { data, trailers } => data.is_none() && trailers.is_none(),
            Kind::Observed(observed) => observed.is_over(),
            Kind::Events(events) => events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole {
                trailers: Some(_), ..
            } => SizeHint::new(),
            Kind::Whole { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| length(data)))
            }
            Kind::Observed(observed) => observed.size_hint(),
            Kind::Events(_) => SizeHint::new(),
        }
    }
}

/// A response body that goes out while it is looked at. Its permit is completed
/// when it ends, fails, or is dropped, whichever comes first.
#[derive(Debug)]
pub(super) struct Observed {
    /// Gathered before it was clear that it streams, and its room.
    first: Option<(Bytes, Share)>,
    body: AnswerBody,
    watched: Option<Watched>,
    /// Longest time the origin may send nothing.
    idle_within: Duration,
    /// When it is over whatever the origin sends.
    term: Option<Instant>,
    silence: Silence,
    gone: Gone,
    halt: Halt,
    metrics: Arc<Metrics>,
}

/// Notices that the client has gone, asked only while there is nothing to send.
struct Gone {
    watch: Watch,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Gone {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let watch = &self.watch;
        let waiting = self.waiting.get_or_insert_with(|| {
            let watch = watch.clone();
            Box::pin(async move { watch.hung_up().await })
        });
        waiting.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gone")
    }
}

/// What is needed to report the end of a body.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) permit: Permit,
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) tee: Tee,
    /// What must not be seen of it.
    pub(super) mask: Mask,
}

impl Watched {
    /// The body has ended like this.
    pub(super) fn report(self, outcome: Outcome, error: Option<&str>) {
        let answer = HttpAnswer {
            status: self.status,
            headers: self.headers,
            body: self
                .mask
                .capture(self.tee.capture(outcome == Outcome::Answered)),
        };
        self.permit.report(Completion {
            ended_at: clock::now(),
            outcome,
            answer: Some(Answer::Http(answer)),
            error: error.map(Into::into),
        });
    }
}

impl Observed {
    pub(super) fn new(
        (first, share): (Bytes, Share),
        body: AnswerBody,
        watched: Watched,
        (idle_within, term): (Duration, Option<Instant>),
        watch: Watch,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            first: (!first.is_empty()).then_some((first, share)),
            body,
            halt: Halt::of(&watched.permit),
            watched: Some(watched),
            idle_within,
            term,
            silence: Silence::new(idle_within).ending(term),
            gone: Gone {
                watch,
                waiting: None,
            },
            metrics,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Before anything is handed out, also where there is always more of it.
        if self.watched.is_some()
            && let Poll::Ready(reason) = self.halt.poll(cx)
        {
            let error = halt::in_words(&reason);
            self.end(Outcome::Failed, Some(&error));
            return Poll::Ready(Some(Err(error.into())));
        }
        if let Some((first, share)) = self.first.take() {
            self.see(|tee| tee.see_first(&first, share));
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.poll_nothing(cx),
            Poll::Ready(None) => {
                self.end(Outcome::Answered, None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(Outcome::Failed, Some(&error.to_string()));
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(error) = self.silence.passed() {
                    self.end(Outcome::Failed, Some(&error.to_string()));
                    return Poll::Ready(Some(Err(error.into())));
                }
                self.silence.allow(self.idle_within);
                if let Some(data) = frame.data_ref() {
                    self.see(|tee| tee.see(data));
                }
                if self.body.is_end_stream() {
                    // Whoever sends a body of known length may not ask again.
                    self.end(Outcome::Answered, None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    /// The origin has nothing for now: it may be silent for too long, or the
    /// client may leave.
    fn poll_nothing(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.gone.poll(cx).is_ready() {
            self.end(Outcome::Abandoned, None);
            return Poll::Ready(Some(Err("the client closed the connection".into())));
        }
        match self.silence.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(error) => {
                self.end(Outcome::Failed, Some(&error.to_string()));
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn see(&mut self, how: impl FnOnce(&mut Tee) -> u64) {
        if let Some(watched) = &mut self.watched {
            let unseen = how(&mut watched.tee);
            if unseen > 0 {
                self.metrics.passed(Passage::ResponseTail, unseen);
            }
        }
    }

    fn end(&mut self, outcome: Outcome, error: Option<&str>) {
        if let Some(watched) = self.watched.take() {
            watched.report(outcome, error);
        }
    }

    fn is_over(&self) -> bool {
        self.first.is_none() && self.watched.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |(first, _)| length(first));
        longer(&self.body.size_hint(), first)
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if self.body.is_end_stream() && self.first.is_none() {
            self.end(Outcome::Answered, None);
        }
        match self.halt.reason().filter(|_| self.watched.is_some()) {
            Some(reason) => self.end(Outcome::Failed, Some(&halt::in_words(&reason))),
            None => self.end(Outcome::Abandoned, None),
        }
    }
}
