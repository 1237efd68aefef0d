//! Bodies on their way through: looked at up to a cap or a deadline, then
//! streamed on, byte for byte.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, SizeHint};
use sha2::{Digest, Sha256};

use crate::domain::{Capture, Captured, Room};

use super::budget::{Budget, Share};
use super::decode::{self, Coding, Decoded};
use super::fields::Reading;
use super::grpc::messages;

/// What can go wrong with a body.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The beginning of a body, as far as it was waited for.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// All data read so far, in one piece.
    pub(super) data: Bytes,
    /// The trailers, if the body ended and had some.
    pub(super) trailers: Option<HeaderMap>,
    /// Why gathering stopped.
    pub(super) end: End,
}

/// Why gathering stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// The body is over.
    #[default]
    Finished,
    /// More than the cap was read.
    Cap,
    /// The deadline passed.
    Deadline,
}

/// Reads the beginning of `body`: all of it, more than `bytes_max`, or what
/// comes `within` the time. Cancel-safe only in that nothing read is sent on.
pub(super) async fn gather<B>(
    body: &mut B,
    bytes_max: usize,
    within: Duration,
) -> Result<Gathered, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut pieces = Pieces::default();
    let deadline = tokio::time::sleep(within);
    let mut deadline = std::pin::pin!(deadline);
    let end = loop {
        if body.is_end_stream() {
            break End::Finished;
        }
        let next = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            // Asked only when the body has nothing, so that bodies which are
            // there already never touch the timer.
            Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
        });
        match next.await {
            None => break End::Deadline,
            Some(None) => break End::Finished,
            Some(Some(frame)) => match frame?.into_data() {
                Ok(data) => {
                    pieces.push(data);
                    if pieces.len() > bytes_max {
                        break End::Cap;
                    }
                }
                Err(frame) => pieces.trailers = frame.into_trailers().ok(),
            },
        }
    };
    Ok(Gathered {
        data: pieces.data.into_bytes(),
        trailers: pieces.trailers,
        end,
    })
}

#[derive(Default)]
struct Pieces {
    data: Data,
    trailers: Option<HeaderMap>,
}

/// Most bodies come in one piece, which then need not be copied.
enum Data {
    One(Bytes),
    Many(BytesMut),
}

impl Default for Data {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Data {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        match &mut self.data {
            Data::One(one) if one.is_empty() => *one = piece,
            Data::One(one) => {
                let mut many = BytesMut::with_capacity(one.len().saturating_add(piece.len()));
                many.extend_from_slice(one);
                many.extend_from_slice(&piece);
                self.data = Data::Many(many);
            }
            Data::Many(many) => many.extend_from_slice(&piece),
        }
    }

    fn len(&self) -> usize {
        match &self.data {
            Data::One(one) => one.len(),
            Data::Many(many) => many.len(),
        }
    }
}

/// What policy is shown of a gathered body that is text, once decoded.
pub(super) fn capture(gathered: &Gathered, reading: &Reading, bytes_max: usize) -> Capture {
    let whole = gathered.end == End::Finished;
    if whole && gathered.data.is_empty() {
        return Capture::default();
    }
    match reading {
        Reading::Text => text_capture(gathered, bytes_max),
        Reading::Encoded(codings) => decoded(&gathered.data, codings, whole, bytes_max)
            .unwrap_or_else(|| binary_capture(gathered)),
        Reading::Messages(kind) => messages::capture(&gathered.data, *kind, whole, bytes_max)
            .unwrap_or_else(|| binary_capture(gathered)),
        Reading::Not => binary_capture(gathered),
    }
}

/// What policy is shown of compressed text; `None` where nobody can read it.
fn decoded(data: &[u8], codings: &[Coding], whole: bool, bytes_max: usize) -> Option<Capture> {
    let (shown, whole) = match decode::decoded(data, codings, whole, bytes_max) {
        Decoded::Whole(text) => (text, true),
        Decoded::Beginning(text) => (text, false),
        Decoded::Not => return None,
    };
    let capture = text(&shown, data, whole);
    Some(Capture {
        bytes: length(data),
        ..capture
    })
}

/// What policy is shown of a gathered text body.
pub(super) fn text_capture(gathered: &Gathered, bytes_max: usize) -> Capture {
    let shown = gathered.data.get(..bytes_max).unwrap_or(&gathered.data);
    // The last piece may have brought the end together with more than the cap.
    let whole = gathered.end == End::Finished && shown.len() == gathered.data.len();
    if whole && shown.is_empty() {
        return Capture::default();
    }
    text(shown, &gathered.data, whole)
}

/// What policy is shown of a gathered body that is not text: its digest.
pub(super) fn binary_capture(gathered: &Gathered) -> Capture {
    let whole = gathered.end == End::Finished;
    Capture {
        bytes: length(&gathered.data),
        digest: whole.then(|| Sha256::digest(&gathered.data).into()),
        state: if whole {
            Captured::WholeBinary
        } else {
            Captured::Skipped
        },
        ..Capture::default()
    }
}

fn text(shown: &[u8], all: &[u8], whole: bool) -> Capture {
    // Text in UTF-16 or UTF-32 has a zero beside each letter of ASCII: its reader finds words in it, and a rule does not.
    let state = match whole && !shown.contains(&0) {
        true => Captured::Whole,
        false => Captured::Partial,
    };
    let (text, digest) = match std::str::from_utf8(shown) {
        Ok(text) => (text.to_owned(), None),
        // Cut inside a character.
        Err(error) if error.error_len().is_none() && !whole => {
            let valid = shown.get(..error.valid_up_to()).unwrap_or_default();
            (String::from_utf8_lossy(valid).into_owned(), None)
        }
        // One invalid byte must not hide the rest from policy; and since the
        // text is then no longer the body, a retry is known by the digest.
        Err(_) => {
            let digest = whole.then(|| Sha256::digest(all).into());
            (String::from_utf8_lossy(shown).into_owned(), digest)
        }
    };
    Capture {
        trailers: None,
        text: Some(text),
        bytes: length(all),
        digest,
        state,
        room: Room::default(),
    }
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The size of a body with `first` bytes before it.
pub(super) fn longer(streamed: &SizeHint, first: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(streamed.lower().saturating_add(first));
    if let Some(upper) = streamed.upper() {
        hint.set_upper(upper.saturating_add(first));
    }
    hint
}

/// Text at the beginning of a body that streams by, as far as there is room for it.
#[derive(Debug)]
pub(super) struct Tee {
    shown: Vec<u8>,
    bytes_max: usize,
    bytes: u64,
    /// How policy may read it.
    reading: Reading,
    /// Of which it has the room that it takes.
    budget: Arc<Budget>,
    share: Share,
    /// For how many bytes there is room.
    room: usize,
}

/// What each may show without room of its own, bytes: never is nothing seen of an answer.
const UNCOUNTED: usize = 4 * 1_024;

impl Tee {
    pub(super) fn new(reading: Reading, bytes_max: usize, budget: &Arc<Budget>) -> Self {
        Self {
            shown: Vec::new(),
            bytes_max,
            bytes: 0,
            reading,
            budget: budget.clone(),
            share: Share::default(),
            room: 0,
        }
    }

    /// Sees `data`; returns how many bytes of it were not captured.
    pub(super) fn see(&mut self, data: &[u8]) -> u64 {
        self.bytes = self.bytes.saturating_add(length(data));
        if !self.reading.is_text() {
            return length(data);
        }
        self.make_room(self.shown.len().saturating_add(data.len()));
        let room = self.room.saturating_sub(self.shown.len());
        let seen = data.get(..room).unwrap_or(data);
        self.shown.extend_from_slice(seen);
        length(data).saturating_sub(length(seen))
    }

    /// Sees what was gathered beforehand, and takes over its room.
    pub(super) fn see_first(&mut self, first: &[u8], share: Share) -> u64 {
        if self.reading.is_text() {
            self.share = share;
            let bytes = first.len().min(self.bytes_max);
            self.budget.lower_to_spare(&mut self.share, bytes);
        }
        self.see(first)
    }

    /// Has room for so many bytes, or, from then on, for no more than there is.
    fn make_room(&mut self, bytes: usize) {
        let wanted = bytes.min(self.bytes_max);
        if wanted <= self.room {
            return;
        }
        // Twice as much each time, so that what all share is rarely looked at.
        let more = self.room.saturating_mul(2).clamp(wanted, self.bytes_max);
        self.room = self.room.max(self.room_for(more));
        if self.room < wanted {
            // What follows what was not seen is not seen either.
            self.budget.was_short();
            self.bytes_max = self.room;
        }
        let added = self.room.saturating_sub(self.shown.len());
        self.shown.reserve_exact(added);
    }

    /// For how many of so many bytes there is room.
    fn room_for(&mut self, bytes: usize) -> usize {
        if bytes <= UNCOUNTED {
            return bytes;
        }
        let room = self.budget.grow_where_spare(&mut self.share, bytes);
        room.clamp(UNCOUNTED, bytes)
    }

    /// What was seen, once the body is over or broke off. It keeps the room that its text takes.
    pub(super) fn capture(mut self, ended: bool) -> Capture {
        let mut capture = self.seen(ended);
        let mut room = 0;
        if let Some(text) = &mut capture.text {
            // Decompressed, it may be longer than what was seen.
            room = self.room_for(text.len());
            if room < text.len() {
                self.budget.was_short();
                text.truncate(text.floor_char_boundary(room));
                capture.state = Captured::Partial;
            }
        }
        self.share.shrink(room);
        capture.room = self.share.into_room();
        capture
    }

    fn seen(&self, ended: bool) -> Capture {
        if self.bytes == 0 && ended {
            return Capture::default();
        }
        let whole = ended && self.bytes == length(&self.shown);
        let seen = match &self.reading {
            Reading::Text => Some(text(&self.shown, &self.shown, whole)),
            Reading::Encoded(codings) => decoded(&self.shown, codings, whole, self.bytes_max),
            Reading::Messages(kind) => messages::capture(&self.shown, *kind, whole, self.bytes_max),
            Reading::Not => None,
        };
        Capture {
            bytes: self.bytes,
            ..seen.unwrap_or(Capture {
                state: Captured::Skipped,
                ..Capture::default()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use pieces::frames;

    use crate::metrics::{LimitHit, Metrics};

    use super::*;

    /// A body of these frames, one a poll.
    mod pieces {
        use std::collections::VecDeque;
        use std::convert::Infallible;
        use std::pin::Pin;
        use std::task::{Context, Poll};

        use bytes::Bytes;
        use http_body::{Body, Frame};

        pub(super) struct Frames(VecDeque<Bytes>, bool);

        /// `endless` bodies fall silent instead of ending.
        pub(super) fn frames(pieces: &[&'static str], endless: bool) -> Frames {
            Frames(
                pieces
                    .iter()
                    .map(|p| Bytes::from_static(p.as_bytes()))
                    .collect(),
                endless,
            )
        }

        impl Body for Frames {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                let this = self.get_mut();
                match this.0.pop_front() {
                    Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                    None if this.1 => Poll::Pending,
                    None => Poll::Ready(None),
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gathering_ends_at_the_end_the_cap_or_the_deadline() {
        #[rustfmt::skip]
        let table: [(&[&'static str], bool, End, &str, Captured); 7] = [
            // pieces              endless  end            text      state
            (&[],                  false,   End::Finished, "",       Captured::Empty),
            (&["ab", "cd"],        false,   End::Finished, "abcd",   Captured::Whole),
            // Of another reader's words.
            (&["a\0", "b\0"],      false,   End::Finished, "a\0b\0", Captured::Partial),
            (&["ab", "cdef"],      false,   End::Cap,      "abcde",  Captured::Partial),
            (&["ab", "cd"],        true,    End::Deadline, "abcd",   Captured::Partial),
            (&["abcdä"],           false,   End::Cap,      "abcd",   Captured::Partial),
            (&[],                  true,    End::Deadline, "",       Captured::Partial),
        ];
        for (pieces, endless, end, text, state) in table {
            let mut body = frames(pieces, endless);
            let gathered = gather(&mut body, 5, Duration::from_secs(1)).await.unwrap();
            let capture = text_capture(&gathered, 5);
            let found = (
                gathered.end,
                capture.text.as_deref().unwrap_or(""),
                capture.state,
            );
            assert_eq!(found, (end, text, state), "{pieces:?}");
        }
    }

    #[test]
    fn what_ends_beyond_the_cap_is_not_shown_as_if_that_were_all() {
        let gathered = Gathered {
            data: Bytes::from_static(b"abcdef"),
            ..Gathered::default()
        };
        let states = [5, 6].map(|cap| text_capture(&gathered, cap).state);
        assert_eq!(states, [Captured::Partial, Captured::Whole]);
    }

    #[test]
    fn an_invalid_byte_does_not_hide_text_from_policy() {
        let gathered = Gathered {
            data: Bytes::from_static(b"drop\xff table"),
            ..Gathered::default()
        };
        let capture = text_capture(&gathered, 64);
        assert_eq!(capture.text.as_deref(), Some("drop\u{fffd} table"));
        assert!(capture.digest.is_some());
    }

    fn budget(bytes: usize) -> Arc<Budget> {
        let metrics = Arc::new(Metrics::new().unwrap());
        Arc::new(Budget::new(bytes, LimitHit::Bodies, metrics))
    }

    #[test]
    fn a_tee_shows_the_beginning_and_counts_the_rest() {
        let budget = budget(65_536);
        let tee = || Tee::new(Reading::Text, 3, &budget);
        let mut seeing = tee();
        assert_eq!(seeing.see(b"ab"), 0);
        assert_eq!(seeing.see(b"cd"), 1);
        let capture = seeing.capture(true);
        assert_eq!((capture.text.as_deref(), capture.bytes), (Some("abc"), 4));
        assert_eq!(capture.state, Captured::Partial);
        assert_eq!(tee().capture(true).state, Captured::Empty);
        assert_eq!(tee().capture(false).state, Captured::Partial);
    }

    #[test]
    fn tees_together_hold_no_more_than_they_are_left_and_see_the_whole_length() {
        const KIB: usize = 1_024;
        let budget = budget(64 * KIB);
        let tees = || (0..20).map(|_| Tee::new(Reading::Text, 16 * KIB, &budget));
        let mut tees: Vec<_> = tees().collect();
        for _ in 0..10 {
            for tee in &mut tees {
                tee.see(&[b'x'; 2 * KIB]);
                assert!(budget.taken() <= 32 * KIB, "{}", budget.taken());
            }
        }
        let held: usize = tees.iter().map(|tee| tee.shown.capacity()).sum();
        let uncounted = tees.len() * UNCOUNTED;
        assert!((30 * KIB..=32 * KIB + uncounted).contains(&held), "{held}");
        let seen: Vec<_> = tees.into_iter().map(|tee| tee.capture(true)).collect();
        for capture in &seen {
            let shown = capture.text.as_ref().unwrap().len();
            assert!(shown >= UNCOUNTED, "{shown}");
            let found = (capture.bytes, capture.state);
            assert_eq!(found, (20_480, Captured::Partial));
        }
        // What was seen has its room for as long as it is there.
        assert_eq!(budget.taken(), 32 * KIB);
        drop(seen);
        assert_eq!(budget.taken(), 0);
        // What is no text needs no room.
        let mut binary = Tee::new(Reading::Not, 16 * KIB, &budget);
        binary.see(&[0; KIB]);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_tee_takes_over_the_room_of_what_was_gathered_for_it() {
        const KIB: usize = 1_024;
        let budget = budget(64 * KIB);
        let mut share = Share::default();
        assert!(budget.fit(&mut share, 32 * KIB));
        let mut tee = Tee::new(Reading::Text, 32 * KIB, &budget);
        assert_eq!(tee.see_first(&[b'x'; 40 * KIB], share), 8 * 1_024);
        assert_eq!(budget.taken(), 32 * KIB);
        let text = tee.capture(true).text;
        assert_eq!(text.map(|text| text.len()), Some(32 * KIB));
        // What may not be kept is given back.
        let mut share = Share::default();
        assert!(budget.fit(&mut share, 60 * KIB));
        let mut tee = Tee::new(Reading::Text, 64 * KIB, &budget);
        assert_eq!(tee.see_first(&[b'x'; 60 * KIB], share), 28 * 1_024);
        assert_eq!(budget.taken(), 32 * KIB);
    }

    #[test]
    fn what_swells_to_more_than_there_is_room_for_is_shown_as_far_as_there_is() {
        const KIB: usize = 1_024;
        let budget = budget(64 * KIB);
        let mut other = Share::default();
        assert!(budget.fit(&mut other, 20 * KIB));
        let text: String = (0..4_000).map(|at| format!("{at:04}ä")).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
        let mut tee = Tee::new(
            Reading::Encoded(Box::new([Coding::Gzip])),
            64 * KIB,
            &budget,
        );
        assert_eq!(tee.see(&gzip.finish().unwrap()), 0);
        let capture = tee.capture(true);
        assert_eq!(capture.state, Captured::Partial);
        assert!(text.starts_with(capture.text.as_deref().unwrap()));
        assert_eq!(budget.taken(), 32 * KIB);
    }
}
