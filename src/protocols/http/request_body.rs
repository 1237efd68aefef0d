//! A request body on its way to the origin: what was gathered of it, then what streams.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::domain::Room;
use crate::metrics::{Metrics, Passage};

use super::body::{BodyError, End, Gathered, length, longer};
use super::expect::Expectation;
use super::fields;
use super::replace;
use super::silence::Silence;
use super::spill::FromFile;

/// A request body on its way to the origin.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// What was gathered, before what streams.
    first: VecDeque<Frame<Bytes>>,
    first_bytes: u64,
    /// The room that it has.
    room: Room,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    from: Source,
    /// Bytes that come and policy was shown.
    shown: u64,
    /// Bytes that were gathered and policy was not shown: the last piece may
    /// have brought more than the cap.
    unshown: u64,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    /// Its client waits to be asked for it.
    expectation: Option<Expectation>,
    /// Longest time that it may take in all.
    within: Option<Duration>,
    /// When that is over, once it has begun.
    term: Option<Silence>,
}

/// How a body streams, for whoever waits for the answer.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    late: AtomicBool,
}

impl Progress {
    /// Bytes streamed so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it was given up for taking too long.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }
}

impl Rest {
    fn new(from: Source, (shown, unshown): (u64, u64), metrics: &Arc<Metrics>) -> Self {
        Self {
            from,
            shown,
            unshown,
            metrics: metrics.clone(),
            progress: Arc::default(),
            expectation: None,
            within: None,
            term: None,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(expectation) = &mut self.expectation {
            ready!(expectation.poll(cx));
            self.expectation = None;
        }
        let polled = self.from.poll_frame(cx);
        let error = match self.within {
            Some(within) => {
                let term = self.term.get_or_insert_with(|| Silence::term(within));
                match &polled {
                    Poll::Ready(Some(_)) => term.passed(),
                    Poll::Ready(None) => None,
                    Poll::Pending => match term.poll(cx) {
                        Poll::Ready(error) => Some(error),
                        Poll::Pending => None,
                    },
                }
            }
            None => None,
        };
        if let Some(error) = error {
            self.progress.late.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(error.into())));
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.count(length(data));
        }
        polled
    }

    fn count(&mut self, data: u64) {
        let came = data.saturating_add(std::mem::take(&mut self.unshown));
        let shown = came.min(self.shown);
        self.shown = self.shown.saturating_sub(shown);
        let tail = came.saturating_sub(shown);
        self.metrics.passed(Passage::RequestTail, tail);
        self.progress.bytes.fetch_add(data, Ordering::Relaxed);
    }
}

/// Where the rest of a body comes from.
#[derive(Debug)]
enum Source {
    Client(Incoming),
    File(Box<FromFile>),
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Client(body) => {
                let polled = Pin::new(body).poll_frame(cx).map_err(Into::into);
                polled.map_ok(fields::travelling)
            }
            Self::File(file) => file.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::File(file) => file.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::File(file) => file
                .exact_left()
                .map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

impl RequestBody {
    /// What was gathered, then the rest of `body` where there is one.
    /// Of what was gathered, policy was shown at most `shown_max` bytes.
    pub(super) fn new(
        gathered: Gathered,
        room: Room,
        shown_max: usize,
        body: Incoming,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let first_bytes = length(&gathered.data);
        let unshown = length(gathered.data.get(shown_max..).unwrap_or_default());
        let mut first = VecDeque::new();
        if !gathered.data.is_empty() {
            first.push_back(Frame::data(gathered.data));
        }
        if let Some(trailers) = gathered.trailers {
            first.push_back(Frame::trailers(trailers));
        }
        let rest = (gathered.end != End::Finished)
            .then(|| Rest::new(Source::Client(body), (0, unshown), metrics));
        Self {
            first,
            first_bytes,
            room,
            rest,
        }
    }

    /// All of it from a file, of which policy was shown the beginning.
    pub(super) fn of_file(file: FromFile, shown: u64, room: Room, metrics: &Arc<Metrics>) -> Self {
        Self {
            first: VecDeque::new(),
            first_bytes: 0,
            room,
            rest: Some(Rest::new(Source::File(Box::new(file)), (shown, 0), metrics)),
        }
    }
}

impl RequestBody {
    /// Puts `data` in the place of all of it; says whether it has trailers.
    pub(super) fn replace(&mut self, data: Bytes) -> bool {
        self.rest = None;
        let trailers = self.first.pop_back().and_then(|f| f.into_trailers().ok());
        self.first.clear();
        self.first_bytes = length(&data);
        if !data.is_empty() {
            self.first.push_back(Frame::data(data));
        }
        let has_trailers = trailers.is_some();
        if let Some(mut trailers) = trailers {
            replace::remove_digests(&mut trailers);
            self.first.push_back(Frame::trailers(trailers));
        }
        has_trailers
    }

    /// The same once more, if all of it is here.
    pub(super) fn again(&self) -> Option<Self> {
        let copy = |frame: &Frame<Bytes>| match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Some(Frame::data(data.clone())),
            (None, trailers) => trailers.cloned().map(Frame::trailers),
        };
        self.rest.is_none().then(|| Self {
            first: self.first.iter().filter_map(copy).collect(),
            first_bytes: self.first_bytes,
            room: self.room.clone(),
            rest: None,
        })
    }

    /// Does not ask its client for what is not here before `expectation` is met.
    pub(super) fn wait_for(&mut self, expectation: Expectation) {
        if let Some(rest) = &mut self.rest {
            rest.expectation = Some(expectation);
        }
    }

    /// Gives up what is not here where it takes longer, from when it is first wanted.
    pub(super) fn take_at_most(&mut self, within: Option<Duration>) {
        if let Some(rest) = &mut self.rest {
            rest.within = within;
        }
    }

    /// How it streams; `None` where all of it is here already.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.rest.as_ref().map(|rest| rest.progress.clone())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(frame) = this.first.pop_front() {
            if let Some(data) = frame.data_ref() {
                this.first_bytes = this.first_bytes.saturating_sub(length(data));
            }
            // What streams behind it needs no room.
            if this.first.is_empty() && this.rest.is_some() {
                this.room = Room::default();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut this.rest {
            Some(rest) => rest.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty()
            && self
                .rest
                .as_ref()
                .is_none_or(|rest| rest.from.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let trailers = self.first.iter().any(Frame::is_trailers);
        match &self.rest {
            None if !trailers => SizeHint::with_exact(self.first_bytes),
            // Without an exact size the body is sent in chunks, which trailers need.
            None => SizeHint::new(),
            Some(rest) => longer(&rest.from.size_hint(), self.first_bytes),
        }
    }
}
