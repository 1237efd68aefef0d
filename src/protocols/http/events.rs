//! Answers that come in events, each judged before it is handed out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body::{Body, Frame};
use memchr::memchr2;
use tokio::time::Instant;

use crate::domain::{
    Answer, Captured, Completion, Headers, HttpAnswer, Outcome, Reason, Refusal, Stage,
};
use crate::gate::{After, Refused};
use crate::metrics::Passage;
use crate::process::clock;

use super::answer_body::AnswerBody;
use super::body::{self, BodyError, End, Gathered, length};
use super::halt;
use super::line::Line;
use super::outgoing::Watched;
use super::refuse;
use super::replace;
use super::routes::Treatment;
use super::settings::Completed;
use super::silence;
use super::unseen::Unseen;
use super::withhold;

/// How long the event that says why a stream is cut has to get out.
const LAST_WORD_WITHIN: Duration = Duration::from_millis(100);

/// What ends an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// A blank line: an event stream of HTML.
    BlankLine,
    /// Each line: JSON lines.
    Line,
}

/// A body of judged events. Cancelled, the event that is being judged is reported
/// all the same, and the whole is abandoned.
pub(super) struct Events {
    step: Pin<Box<dyn Future<Output = (Box<Reader>, Step)> + Send>>,
    /// Nothing comes any more.
    over: bool,
    term: Option<Instant>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// What comes next.
enum Step {
    Frame(Frame<Bytes>),
    Broke(BodyError),
    Over,
}

impl Events {
    pub(super) fn new(
        line: Arc<Line>,
        treatment: Treatment,
        body: AnswerBody,
        watched: Watched,
        ends: Ends,
    ) -> Self {
        let term = silence::term(treatment.body_within);
        let reader = Box::new(Reader {
            line,
            treatment,
            body,
            splitter: Splitter::new(ends),
            watched: Some(watched),
            trailers: None,
            term,
            ended: false,
            refused: false,
        });
        Self {
            step: Box::pin(reader.step()),
            over: false,
            term,
        }
    }

    /// When it is over, whatever its client takes of it.
    pub(super) fn term(&self) -> Option<Instant> {
        self.term
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready((reader, step)) = self.step.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        match step {
            Step::Frame(frame) => {
                self.step = Box::pin(reader.step());
                Poll::Ready(Some(Ok(frame)))
            }
            Step::Broke(error) => {
                self.over = true;
                Poll::Ready(Some(Err(error)))
            }
            Step::Over => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }
}

struct Reader {
    line: Arc<Line>,
    treatment: Treatment,
    body: AnswerBody,
    splitter: Splitter,
    watched: Option<Watched>,
    trailers: Option<HeaderMap>,
    /// When it is over whatever the origin says.
    term: Option<Instant>,
    /// The origin has said everything.
    ended: bool,
    /// An event was refused: nothing more is handed out.
    refused: bool,
}

impl Reader {
    async fn step(mut self: Box<Self>) -> (Box<Self>, Step) {
        let watch = self.line.watch.clone();
        let step = tokio::select! {
            biased;
            step = self.next() => step,
            () = watch.hung_up() => {
                let gone = "the client closed the connection";
                self.end(Outcome::Abandoned, None);
                Step::Broke(gone.into())
            }
        };
        (self, step)
    }

    async fn next(&mut self) -> Step {
        let cap = self.treatment.capture_bytes_max;
        loop {
            if self.refused {
                // A body that fails takes with it what was not sent yet.
                tokio::time::sleep(LAST_WORD_WITHIN).await;
                return Step::Broke("an event was refused".into());
            }
            if let Some(piece) = self.splitter.next(cap, self.ended) {
                return match piece {
                    Piece::Rest(bytes) => {
                        self.hand_out(&bytes);
                        let metrics = self.line.proxy.gate.metrics();
                        metrics.passed(Passage::ResponseTail, length(&bytes));
                        Step::Frame(Frame::data(bytes))
                    }
                    Piece::Event(event) => self.judged(event).await,
                };
            }
            if self.ended {
                self.end(Outcome::Answered, None);
                let trailers = self.trailers.take().map(Frame::trailers);
                return trailers.map_or(Step::Over, Step::Frame);
            }
            if let Err(error) = self.read().await {
                self.end(Outcome::Failed, Some(&error.to_string()));
                return Step::Broke(error);
            }
        }
    }

    async fn read(&mut self) -> Result<(), BodyError> {
        let idle = self.treatment.idle_within;
        let left = |term: Instant| term.saturating_duration_since(Instant::now());
        let left = self.term.map_or(idle, left);
        if left.is_zero() {
            return Err(silence::TOO_LONG.into());
        }
        let body = &mut self.body;
        let reading = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let watched = self.watched.as_ref();
        let halted = async {
            match watched {
                Some(watched) => halt::of_run(&watched.permit).await,
                None => std::future::pending().await,
            }
        };
        let read = tokio::select! {
            biased;
            read = tokio::time::timeout(idle.min(left), reading) => read,
            reason = halted => return Err(halt::in_words(&reason).into()),
        };
        let Ok(frame) = read else {
            return Err(match left < idle {
                true => silence::TOO_LONG.into(),
                false => silence::TOO_SILENT.into(),
            });
        };
        match frame {
            None => self.ended = true,
            Some(frame) => match frame?.into_data() {
                Ok(data) => self.splitter.came.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
        }
        Ok(())
    }

    /// Has one event judged, and hands it out, or why not.
    async fn judged(&mut self, event: Gathered) -> Step {
        let ends = self.splitter.ends;
        let asked = match &self.watched {
            Some(whole) => ask(&self.line, self.treatment, whole, &event, ends).await,
            None => Ok(event.data),
        };
        match asked {
            Ok(data) => {
                self.hand_out(&data);
                Step::Frame(Frame::data(data))
            }
            Err(refused) => {
                self.refused = true;
                self.end(Outcome::Failed, Some(&refused.refusal.to_string()));
                Step::Frame(Frame::data(refuse::event(&refused, ends)))
            }
        }
    }

    /// The whole is what was handed out: of what was redacted, what stands in its place.
    fn hand_out(&mut self, data: &[u8]) {
        if let Some(watched) = &mut self.watched {
            watched.tee.see(data);
        }
    }

    fn end(&mut self, outcome: Outcome, error: Option<&str>) {
        if let Some(watched) = self.watched.take() {
            watched.report(outcome, error);
        }
    }
}

/// Judges `event`, a piece of the answer that is `whole`; returns what may be handed out.
async fn ask(
    line: &Line,
    treatment: Treatment,
    whole: &Watched,
    event: &Gathered,
    ends: Ends,
) -> Result<Bytes, Refused> {
    let piece = whole.permit.piece().await?;
    let id = piece.id();
    let body = body::text_capture(event, treatment.capture_bytes_max);
    let body = whole.mask.capture(body);
    let mut terms = treatment.terms(&Method::GET);
    if replace::is_answer_replaceable(whole.status, &body) {
        terms.replaces = match ends {
            Ends::BlankLine => replace::of_event,
            Ends::Line => replace::of_line,
        };
    }
    let partial = body.state == Captured::Partial;
    let answer = HttpAnswer {
        status: whole.status,
        headers: Headers::default(),
        body,
    };
    if partial && treatment.withholds_over_cap() {
        return Err(withhold::unseen(line, piece, answer, Unseen::TooLarge).await);
    }
    let completion = Completion {
        ended_at: clock::now(),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(answer)),
        error: None,
    };
    if treatment.completed == Completed::Observe {
        piece.report(completion);
        return Ok(event.data.clone());
    }
    match piece.complete(completion, &terms).await {
        After::Release(None) => Ok(event.data.clone()),
        After::Release(Some(redacted)) => {
            let event = replace::event(&redacted, &event.data, ends);
            // A bug in this program (`Terms::replaces`); the event stays here.
            event.ok_or_else(|| {
                let why = Reason::from("the redaction is of something else");
                let event = id.unwrap_or_else(|| clock::operation_id(clock::now()));
                Refused {
                    stage: Stage::Completed,
                    ..Refused::unasked(Refusal::Unjudgeable(why), event)
                }
            })
        }
        After::Withhold(refused, _) => Err(refused),
    }
}

/// What a stream is cut into.
#[derive(Debug)]
enum Piece {
    /// An event, or the beginning of a large one.
    Event(Gathered),
    /// More of an event whose beginning was given out, or what stands between events.
    Rest(Bytes),
}

/// Cuts a stream into events (WHATWG HTML §9.2.6). No more than one event, or its
/// beginning up to a cap, is kept.
#[derive(Debug)]
struct Splitter {
    ends: Ends,
    came: BytesMut,
    /// Where the line begins that is being looked at, and whether what came begins
    /// with a line.
    line: usize,
    fresh: bool,
    /// The beginning of the event was given out.
    begun: bool,
}

impl Splitter {
    fn new(ends: Ends) -> Self {
        Self {
            ends,
            came: BytesMut::new(),
            line: 0,
            fresh: true,
            begun: false,
        }
    }

    fn next(&mut self, cap: usize, ended: bool) -> Option<Piece> {
        if let Some(end) = self.end_of_event() {
            return Some(self.piece(end, End::Finished));
        }
        if self.came.is_empty() {
            return None;
        }
        if ended {
            return Some(self.piece(self.came.len(), End::Finished));
        }
        // A carriage return may be half of a line's end.
        let half = usize::from(self.came.ends_with(b"\r"));
        let whole = self.came.len().saturating_sub(half);
        let large = whole > cap || (self.begun && whole > 0);
        large.then(|| self.piece(whole, End::Cap))
    }

    fn piece(&mut self, bytes: usize, end: End) -> Piece {
        self.fresh = self.line == bytes;
        self.line = self.line.saturating_sub(bytes);
        let data = self.came.split_to(bytes).freeze();
        let begun = std::mem::replace(&mut self.begun, end == End::Cap);
        let says_nothing = data.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if begun || says_nothing {
            return Piece::Rest(data);
        }
        Piece::Event(Gathered {
            data,
            trailers: None,
            end,
        })
    }

    fn end_of_event(&mut self) -> Option<usize> {
        loop {
            let rest = self.came.get(self.line..)?;
            let at = memchr2(b'\n', b'\r', rest)?;
            let blank = at == 0 && (self.line > 0 || self.fresh);
            let ends = blank || self.ends == Ends::Line;
            let line_end = match rest.get(at..) {
                Some([b'\r', b'\n', ..]) => 2,
                Some([b'\r']) if !ends => return None,
                Some(_) | None => 1,
            };
            self.line = self.line.saturating_add(at).saturating_add(line_end);
            if ends {
                return Some(self.line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of `stream`, read in pieces of `chunk`, and all that was given out.
    fn cut(ends: Ends, stream: &[u8], chunk: usize, cap: usize) -> (Vec<String>, Vec<u8>) {
        let mut splitter = Splitter::new(ends);
        let (mut events, mut out) = (Vec::new(), Vec::new());
        let mut see = |piece| match piece {
            Piece::Rest(bytes) => out.extend_from_slice(&bytes),
            Piece::Event(event) => {
                out.extend_from_slice(&event.data);
                let text = String::from_utf8_lossy(&event.data);
                let more = if event.end == End::Cap { "…" } else { "" };
                events.push(format!("{}{more}", text.trim()));
            }
        };
        for chunk in stream.chunks(chunk) {
            splitter.came.extend_from_slice(chunk);
            while let Some(piece) = splitter.next(cap, false) {
                see(piece);
            }
        }
        while let Some(piece) = splitter.next(cap, true) {
            see(piece);
        }
        (events, out)
    }

    #[test]
    fn events_end_with_a_blank_line_however_lines_end_and_bytes_are_cut() {
        #[rustfmt::skip]
        let table: [(&str, &[&str]); 8] = [
            ("data: a\n\ndata: b\n\n",               &["data: a", "data: b"]),
            ("data: a\r\n\r\ndata: b\r\n\r\n",       &["data: a", "data: b"]),
            ("data: a\r\rdata: b\r\r",               &["data: a", "data: b"]),
            ("data: a\n\r\ndata: b\r\n\n",           &["data: a", "data: b"]),
            ("\n\ndata: a\n\n\n\ndata: b\n\n",       &["data: a", "data: b"]),
            ("event: x\ndata: a\ndata: b\n\n",       &["event: x\ndata: a\ndata: b"]),
            (": a comment\n\ndata: a",               &[": a comment", "data: a"]),
            ("",                                     &[]),
        ];
        for (stream, expected) in table {
            for chunk in 1..20 {
                let (events, out) = cut(Ends::BlankLine, stream.as_bytes(), chunk, 100);
                assert_eq!(events, expected, "{stream:?} in pieces of {chunk}");
                assert_eq!(out, stream.as_bytes(), "{stream:?} in pieces of {chunk}");
            }
        }
    }

    #[test]
    fn lines_of_json_are_events_of_their_own() {
        for chunk in 1..20 {
            let stream = b"{\"a\":1}\n{\"b\":2}\r\n\n{\"c\":3}";
            let (events, out) = cut(Ends::Line, stream, chunk, 100);
            assert_eq!(events, ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"], "{chunk}");
            assert_eq!(out, stream);
        }
    }

    #[test]
    fn a_large_event_is_known_by_its_beginning_and_ends_where_it_ends() {
        let large = format!("data: {}\ndata: more\n\ndata: b\n\n", "x".repeat(300));
        for chunk in 1..60 {
            let (events, out) = cut(Ends::BlankLine, large.as_bytes(), chunk, 20);
            assert_eq!(events.len(), 2, "{events:?} in pieces of {chunk}");
            assert!(events[0].starts_with("data: xxx") && events[0].ends_with('…'));
            assert!(events[0].len() <= 20 + chunk + 3, "{chunk}");
            assert_eq!(events[1], "data: b");
            assert_eq!(out, large.as_bytes());
        }
    }
}
