//! Messages out of the bytes of one side: each is kept until it was judged, and
//! control frames go ahead of it. No socket, no clock.

use bytes::{Bytes, BytesMut};

use super::super::body::{End, Gathered, length};
use super::frame::{Head, Kind, Side, Wrong, unmask};

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Next {
    /// More are needed.
    Nothing,
    /// A ping or pong, as it came. It may stand between the frames of a message.
    Control(Bytes),
    /// A Close frame, as it came. Nothing behind it is looked at.
    Close(Bytes),
    /// A message, or the beginning of one.
    Message(Message),
    /// More of a message whose beginning was given out.
    Rest(Run),
}

/// Bytes to be sent on as they came.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) bytes: Bytes,
    /// Whether they end in the middle of a frame.
    pub(super) inside: bool,
}

/// A message to be judged.
#[derive(Debug)]
pub(super) struct Message {
    /// Whether its sender calls it text.
    pub(super) text: bool,
    /// What it says, without frames and mask, and how it ended.
    pub(super) says: Gathered,
    /// Its frames.
    pub(super) raw: Run,
}

/// Takes the bytes of one side apart.
#[derive(Debug)]
pub(super) struct Messages {
    from: Side,
    /// Most bytes of a message that are waited for.
    bytes_max: usize,
    /// What has come and was not looked at yet.
    pub(super) came: BytesMut,
    /// The data frame whose payload is coming.
    frame: Option<Payload>,
    /// The message that its frames belong to.
    open: Option<Open>,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Payload {
    mask: Option<[u8; 4]>,
    last: bool,
    before: u64,
    left: u64,
}

#[derive(Debug)]
enum Open {
    Gathering {
        text: bool,
        says: BytesMut,
        raw: BytesMut,
    },
    /// Its beginning was given out.
    Begun,
}

impl Messages {
    pub(super) fn new(from: Side, bytes_max: usize) -> Self {
        Self {
            from,
            bytes_max,
            came: BytesMut::new(),
            frame: None,
            open: None,
            closed: false,
        }
    }

    /// Whether the beginning of a message is kept, whose end has not come.
    pub(super) fn is_gathering(&self) -> bool {
        matches!(self.open, Some(Open::Gathering { .. }))
    }

    /// What comes next.
    ///
    /// # Errors
    /// The bytes are not WebSocket.
    pub(super) fn next(&mut self) -> Result<Next, Wrong> {
        while !self.closed {
            if let Some(frame) = self.frame {
                match self.payload(frame) {
                    Some(next) => return Ok(next),
                    None if self.frame.is_some() => return Ok(Next::Nothing),
                    None => continue,
                }
            }
            let Some(head) = Head::read(&self.came, self.from)? else {
                return Ok(Next::Nothing);
            };
            if head.kind.is_control() {
                return Ok(self.control(head));
            }
            if let Some(next) = self.begin(head)? {
                return Ok(next);
            }
        }
        Ok(Next::Nothing)
    }

    /// Gives out what there is of a message whose end does not come.
    pub(super) fn give_up_waiting(&mut self) -> Option<Message> {
        self.give_out(End::Deadline)
    }

    fn control(&mut self, head: Head) -> Next {
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        let whole = head.head_bytes.saturating_add(length);
        if self.came.len() < whole {
            return Next::Nothing;
        }
        let frame = self.came.split_to(whole).freeze();
        if head.kind == Kind::Close {
            self.closed = true;
            self.came = BytesMut::new();
            return Next::Close(frame);
        }
        Next::Control(frame)
    }

    /// The head of a data frame.
    fn begin(&mut self, head: Head) -> Result<Option<Next>, Wrong> {
        match (head.kind, &self.open) {
            (Kind::Continuation, None) => {
                return Err(Wrong("a frame goes on with a message that nobody began"));
            }
            (Kind::Text | Kind::Binary, Some(_)) => {
                return Err(Wrong("a message begins inside another"));
            }
            (Kind::Text | Kind::Binary, None) => {
                self.open = Some(Open::Gathering {
                    text: head.kind == Kind::Text,
                    says: BytesMut::new(),
                    raw: BytesMut::new(),
                });
            }
            (Kind::Continuation, Some(_)) | (Kind::Close | Kind::Ping | Kind::Pong, _) => {}
        }
        let bytes = self.came.split_to(head.head_bytes);
        self.frame = Some(Payload {
            mask: head.mask,
            last: head.last,
            before: 0,
            left: head.length,
        });
        match &mut self.open {
            Some(Open::Begun) | None => {
                let inside = head.length > 0;
                if !inside {
                    self.end_frame(head.last);
                }
                let bytes = bytes.freeze();
                Ok(Some(Next::Rest(Run { bytes, inside })))
            }
            Some(Open::Gathering { raw, .. }) => {
                raw.extend_from_slice(&bytes);
                if head.length > 0 {
                    return Ok(None);
                }
                self.end_frame(head.last);
                Ok(self.ready(head.last).map(Next::Message))
            }
        }
    }

    /// Payload of the frame that is coming; `None` where nothing is to be given out.
    fn payload(&mut self, mut frame: Payload) -> Option<Next> {
        if self.came.is_empty() {
            return None;
        }
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let bytes = self.came.split_to(left.min(self.came.len()));
        let taken = length(&bytes);
        let before = frame.before;
        frame.before = before.saturating_add(taken);
        frame.left = frame.left.saturating_sub(taken);
        self.frame = Some(frame);
        let ended = frame.left == 0;
        let next = match &mut self.open {
            Some(Open::Gathering { says, raw, .. }) => {
                raw.extend_from_slice(&bytes);
                let mut plain = bytes;
                if let Some(mask) = frame.mask {
                    unmask(&mut plain, mask, before);
                }
                says.extend_from_slice(&plain);
                None
            }
            Some(Open::Begun) | None => Some(Next::Rest(Run {
                bytes: bytes.freeze(),
                inside: !ended,
            })),
        };
        if ended {
            self.end_frame(frame.last);
        }
        next.or_else(|| self.ready(ended && frame.last).map(Next::Message))
    }

    fn end_frame(&mut self, last: bool) {
        self.frame = None;
        if last && matches!(self.open, Some(Open::Begun)) {
            self.open = None;
        }
    }

    /// The message, if it is `over` or larger than what is waited for.
    fn ready(&mut self, over: bool) -> Option<Message> {
        if over {
            return self.give_out(End::Finished);
        }
        // Frames may be empty, so they are bounded too.
        let raw_max = self.bytes_max.saturating_mul(2).saturating_add(1 << 10);
        let large = match &self.open {
            Some(Open::Gathering { says, raw, .. }) => {
                says.len() > self.bytes_max || raw.len() > raw_max
            }
            Some(Open::Begun) | None => false,
        };
        large.then(|| self.give_out(End::Cap)).flatten()
    }

    fn give_out(&mut self, end: End) -> Option<Message> {
        match self.open.take() {
            Some(Open::Gathering { text, says, raw }) => {
                if end != End::Finished {
                    self.open = Some(Open::Begun);
                }
                Some(Message {
                    text,
                    says: Gathered {
                        data: says.freeze(),
                        trailers: None,
                        end,
                    },
                    raw: Run {
                        bytes: raw.freeze(),
                        inside: self.frame.is_some(),
                    },
                })
            }
            other @ (Some(Open::Begun) | None) => {
                self.open = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a client sends it, or a server.
    fn frame(from: Side, first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        let bit = if from == Side::Client { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => bytes.push(bit | u8::try_from(length).unwrap()),
            length => {
                bytes.push(bit | 126);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        let mut payload = payload.to_vec();
        if from == Side::Client {
            let mask = [7, 1, 200, 90];
            bytes.extend_from_slice(&mask);
            unmask(&mut payload, mask, 0);
        }
        bytes.extend_from_slice(&payload);
        bytes
    }

    /// What was given out, in words, and the bytes to be sent on in their order.
    fn read(from: Side, bytes: &[u8], chunk: usize) -> (Vec<String>, Vec<u8>) {
        let mut messages = Messages::new(from, 10);
        let (mut words, mut sent) = (Vec::<String>::new(), Vec::new());
        for chunk in bytes.chunks(chunk) {
            messages.came.extend_from_slice(chunk);
            loop {
                let (word, bytes) = match messages.next() {
                    Ok(Next::Nothing) => break,
                    Ok(Next::Control(bytes)) => ("control".to_owned(), bytes),
                    Ok(Next::Close(bytes)) => ("close".to_owned(), bytes),
                    Ok(Next::Rest(run)) => ("rest".to_owned(), run.bytes),
                    Ok(Next::Message(message)) => {
                        let text = String::from_utf8_lossy(&message.says.data).into_owned();
                        match message.says.end {
                            End::Finished => (format!("all {text}"), message.raw.bytes),
                            End::Cap | End::Deadline => ("begun".to_owned(), message.raw.bytes),
                        }
                    }
                    Err(wrong) => (wrong.0.to_owned(), Bytes::new()),
                };
                sent.extend_from_slice(&bytes);
                let wrong = bytes.is_empty();
                if !(word == "rest" && words.last().is_some_and(|last| last == "rest")) {
                    words.push(word);
                }
                if wrong {
                    return (words, sent);
                }
            }
        }
        (words, sent)
    }

    #[test]
    fn messages_are_the_same_however_their_bytes_are_cut() {
        for from in [Side::Client, Side::Server] {
            let long = [b'x'; 300];
            let parts = [
                frame(from, 0x81, b"one"),
                frame(from, 0x01, b"t"),
                frame(from, 0x89, b"ping"),
                frame(from, 0x00, b""),
                frame(from, 0x80, b"wo"),
                frame(from, 0x82, &long),
                frame(from, 0x02, &long),
                frame(from, 0x8a, b"pong"),
                frame(from, 0x00, b""),
                frame(from, 0x80, &long),
                frame(from, 0x81, b""),
                frame(from, 0x88, b"\x03\xe8"),
                frame(from, 0x81, b"nobody looks at this"),
            ];
            let bytes = parts.concat();
            let expected = [
                "all one", "control", "all two", "begun", "rest", "begun", "rest", "control",
                "rest", "all ", "close",
            ];
            let ignored = parts.last().unwrap().len();
            for chunk in 1..60 {
                let (words, sent) = read(from, &bytes, chunk);
                assert_eq!(words, expected, "in pieces of {chunk}");
                // The ping went ahead of the message it stood in.
                let mut inside = parts.clone();
                inside.swap(1, 2);
                let mut inside = inside.concat();
                inside.truncate(bytes.len() - ignored);
                assert_eq!(sent, inside, "in pieces of {chunk}");
            }
            // In one piece nothing of a large message is left to come later.
            let (words, _) = read(from, &bytes, bytes.len());
            assert_eq!(words.first().map(String::as_str), Some("all one"));
        }
    }

    #[test]
    fn messages_that_do_not_fit_together_are_wrong() {
        let from = Side::Server;
        for (parts, words) in [
            (vec![frame(from, 0x80, b"x")], "that nobody began"),
            (
                vec![frame(from, 0x01, b"x"), frame(from, 0x81, b"y")],
                "inside another",
            ),
        ] {
            let (found, _) = read(from, &parts.concat(), 1);
            assert!(found.last().unwrap().ends_with(words), "{found:?}");
        }
    }

    #[test]
    fn a_message_of_empty_frames_ends_at_a_bound() {
        let from = Side::Client;
        let mut bytes = frame(from, 0x01, b"");
        for _ in 0..1000 {
            bytes.extend_from_slice(&frame(from, 0x00, b""));
        }
        assert_eq!(read(from, &bytes, 64).0, ["begun", "rest"]);
    }

    #[test]
    fn what_there_is_of_a_slow_message_can_be_had() {
        let mut messages = Messages::new(Side::Server, 10);
        messages.came.extend_from_slice(&[0x81, 5, b'a', b'b']);
        assert!(matches!(messages.next(), Ok(Next::Nothing)));
        assert!(messages.is_gathering());
        let begun = messages.give_up_waiting().unwrap();
        assert_eq!(
            (&begun.says.data[..], begun.says.end),
            (&b"ab"[..], End::Deadline)
        );
        assert!(begun.raw.inside && !messages.is_gathering());
        messages.came.extend_from_slice(b"cde");
        let Ok(Next::Rest(rest)) = messages.next() else {
            panic!()
        };
        assert_eq!((&rest.bytes[..], rest.inside), (&b"cde"[..], false));
    }
}
