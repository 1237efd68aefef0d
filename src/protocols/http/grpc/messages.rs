//! The messages of gRPC, read beside what goes on (`PROTOCOL-HTTP2.md` of gRPC, "Length-Prefixed-Message"): a flag, a
//! length, and the message, each compressed by itself. gRPC-Web frames its messages likewise.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{self, HeaderValue};
use http_body::Body;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::domain::{Capture, Captured};

use super::super::body::{End, Gathered, length};
use super::super::decode::{self, Coding, Decoded};
use super::protobuf::{self, Room};
use super::wire::{self, Extent};

/// Bytes before each message.
const PREFIX: usize = 5;
/// The flag of a message that is compressed.
const COMPRESSED: u8 = 1;
/// The flag of what stands for trailers in gRPC-Web.
const TRAILERS: u8 = 0x80;
/// How long the end of a body is waited for once its first message is here: of a call with one message it comes with it,
/// and a stream must not wait for what only an answer brings.
const END_WITHIN: Duration = Duration::from_millis(50);

/// How the messages of a body are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Messages {
    written: Written,
    coding: Option<Coding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// In JSON, as its sender says (`+json`). Servers need not believe it: some that do not know what stands behind `+`
    /// read Protocol Buffers.
    Json,
    /// In Protocol Buffers, or in what only its service knows.
    Binary,
}

/// The messages in a body with these fields; `None` where it has none that can be read.
pub(in super::super) fn of(headers: &HeaderMap) -> Option<Messages> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes)?;
    let kind = kind.to_ascii_lowercase();
    let rest = kind.strip_prefix(b"application/grpc")?;
    let rest = rest.strip_prefix(b"-web").unwrap_or(rest);
    let written = match rest {
        [] | [b';' | b' ', ..] => Written::Binary,
        [b'+', rest @ ..] if rest.starts_with(b"json") => Written::Json,
        [b'+', ..] => Written::Binary,
        _ => return None,
    };
    let coding = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    Some(Messages {
        written,
        coding: coding.and_then(decode::coding),
    })
}

/// Reads the beginning of a body: its first message, and those that come with it.
///
/// Waits `begins_within` for the first byte and `within` for the rest of that message; the other side may be waited for
/// before either comes. Cancel-safe only in that nothing read is sent on.
pub(in super::super) async fn gather<B>(
    body: &mut B,
    bytes_max: usize,
    (begins_within, within): (Duration, Duration),
) -> Result<Gathered, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let began = Instant::now();
    let after = |time: Duration| began.checked_add(time).unwrap_or(began);
    let mut data = BytesMut::new();
    let alarm = tokio::time::sleep_until(after(begins_within.min(within)));
    let mut alarm = std::pin::pin!(alarm);
    let mut has_message = false;
    let (end, trailers) = loop {
        if body.is_end_stream() {
            break (End::Finished, None);
        }
        let next = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
        });
        match next.await {
            None => break (End::Deadline, None),
            Some(None) => break (End::Finished, None),
            Some(Some(frame)) => match frame?.into_data() {
                Err(frame) => break (End::Finished, frame.into_trailers().ok()),
                Ok(more) => data.extend_from_slice(&more),
            },
        }
        if data.len() > bytes_max {
            break (End::Cap, None);
        }
        if !has_message && is_message_here(&data) {
            has_message = true;
            let end = Instant::now().checked_add(END_WITHIN).unwrap_or(began);
            alarm.as_mut().reset(end.min(after(within)));
        } else if !has_message && !data.is_empty() {
            alarm.as_mut().reset(after(within));
        }
    };
    Ok(Gathered {
        data: data.freeze(),
        trailers,
        end,
    })
}

fn is_message_here(data: &[u8]) -> bool {
    matches!(
        split(data),
        Some(Framed {
            extent: Extent::Whole,
            ..
        })
    )
}

/// What policy is shown of a body of which this much is here: each message on a line. `None` where nobody can read it.
pub(in super::super) fn capture(
    data: &[u8],
    messages: Messages,
    ended: bool,
    bytes_max: usize,
) -> Option<Capture> {
    let mut room = Room::new(bytes_max);
    let mut left = data;
    let mut whole = ended;
    while !left.is_empty() && !room.full {
        let framed = split(left).filter(|framed| messages.show(framed, bytes_max, &mut room));
        let Some(framed) = framed else {
            whole = false;
            break;
        };
        whole &= framed.extent == Extent::Whole;
        left = framed.rest;
    }
    whole &= !room.is_partial();
    if room.text.is_empty() && !whole {
        return None;
    }
    Some(Capture {
        trailers: None,
        text: Some(room.text),
        bytes: length(data),
        // The text is not what goes on, so that nothing can be put in its place, and a retry is known by this.
        digest: whole.then(|| Sha256::digest(data).into()),
        state: if whole {
            Captured::Whole
        } else {
            Captured::Partial
        },
        ..Capture::default()
    })
}

struct Framed<'a> {
    flag: u8,
    message: &'a [u8],
    extent: Extent,
    rest: &'a [u8],
}

/// The first message, as far as it is here; `None` where not even its length is.
fn split(data: &[u8]) -> Option<Framed<'_>> {
    let (prefix, behind) = data.split_first_chunk::<PREFIX>()?;
    let [flag, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let framed = match behind.split_at_checked(length) {
        Some((message, rest)) => (message, Extent::Whole, rest),
        None => (behind, Extent::Cut, [].as_slice()),
    };
    let (message, extent, rest) = framed;
    Some(Framed {
        flag,
        message,
        extent,
        rest,
    })
}

impl Messages {
    /// Shows one message; says whether it could be read.
    fn show(self, framed: &Framed<'_>, bytes_max: usize, room: &mut Room) -> bool {
        let whole = framed.extent == Extent::Whole;
        match (framed.flag, self.coding) {
            (0, _) => self.write(framed.message, framed.extent, room),
            (COMPRESSED, Some(coding)) => {
                match decode::decoded(framed.message, &[coding], whole, bytes_max) {
                    Decoded::Whole(message) => self.write(&message, Extent::Whole, room),
                    Decoded::Beginning(message) => {
                        self.write(&message, Extent::Cut, room);
                        room.full = true;
                    }
                    Decoded::Not => return false,
                }
            }
            // They are no message, and answers over HTTP/2 have theirs apart.
            (TRAILERS, _) => {}
            _ => return false,
        }
        true
    }

    fn write(self, message: &[u8], extent: Extent, room: &mut Room) {
        if !room.text.is_empty() {
            room.push("\n");
        }
        let json = match self.written {
            Written::Json => json(message, extent),
            Written::Binary => None,
        };
        match json {
            Some(json) => room.push(&json),
            None => protobuf::show(message, extent, room),
        }
    }
}

/// A message on one line if it is JSON, as far as it is here, and nobody can read it as Protocol Buffers.
fn json(message: &[u8], extent: Extent) -> Option<String> {
    let text = protobuf::text(message, extent)?;
    let is_json = match serde_json::from_str::<IgnoredAny>(&text) {
        Ok(_) => true,
        Err(error) => extent == Extent::Cut && error.is_eof(),
    };
    if !is_json || wire::fields(message, extent).is_some() {
        return None;
    }
    // Where JSON has them, they stand between its tokens.
    Some(text.replace(['\r', '\n'], " "))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut framed = vec![flag];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        framed
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn kind(kind: &'static str, coding: &'static str) -> Option<Messages> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert("grpc-encoding", HeaderValue::from_static(coding));
        of(&headers)
    }

    #[test]
    fn messages_are_told_by_their_type() {
        let (json, binary) = (Written::Json, Written::Binary);
        for (text, expected) in [
            ("application/grpc", Some(binary)),
            ("application/grpc; a=b", Some(binary)),
            ("Application/gRPC+proto", Some(binary)),
            ("application/grpc+json", Some(json)),
            ("application/grpc-web+proto", Some(binary)),
            ("application/grpc-web", Some(binary)),
            ("application/grpc-web-text", None),
            ("application/json", None),
        ] {
            let found = kind(text, "identity").map(|messages| messages.written);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn each_message_is_a_line_whether_it_is_compressed_or_not() {
        let json = kind("application/grpc+json", "gzip").unwrap();
        let body = [
            framed(0, br#"{"a":1}"#),
            framed(1, &gzip(br#"{"b":2}"#)),
            framed(TRAILERS, b"grpc-status: 0"),
        ]
        .concat();
        let seen = capture(&body, json, true, 1_000).unwrap();
        assert_eq!(seen.text.as_deref(), Some("{\"a\":1}\n{\"b\":2}"));
        assert_eq!((seen.state, seen.bytes), (Captured::Whole, length(&body)));
        assert_eq!(seen.digest, Some(Sha256::digest(&body).into()));
        // More may come.
        let seen = capture(&body, json, false, 1_000).unwrap();
        assert_eq!((seen.state, seen.digest), (Captured::Partial, None));
    }

    #[test]
    fn what_is_called_json_is_shown_in_every_reading_unless_it_can_only_be_json() {
        let json = kind("application/grpc+json", "identity").unwrap();
        #[rustfmt::skip]
        let table: [(&[u8], &str); 9] = [
            (br#"{"a":1}"#,               r#"{"a":1}"#),
            (b"{\r\n\"a\":\n\"\\n\"}",   r#"{  "a": "\n"}"#),
            (b"",                         r#"{"text":""}"#),
            (b"drop",                     r#"{"text":"drop"}"#),
            (b"[1,",                      r#"{"text":"[1,"}"#),
            (b"\x0a\x04drop\x10\x80\x01", r#"{"fields":{"1":[{"text":"drop"}],"2":[128]}}"#),
            // JSON and a message.
            (b"  ",                       r#"{"text":"  ","fields":{"4":[32]}}"#),
            (b"         1",               r#"{"text":"         1","fields":{"4":[32,32,32,32,49]}}"#),
            (b"\"\xff\"",                r#"{"text":"\"�\"","base64":"Iv8i"}"#),
        ];
        for (message, line) in table {
            let body = [framed(0, message), framed(0, b""), framed(0, b"[]")].concat();
            let seen = capture(&body, json, true, 1_000).unwrap();
            let expected = format!("{line}\n{{\"text\":\"\"}}\n[]");
            assert_eq!(seen.text, Some(expected), "{message:?}");
            assert_eq!(seen.state, Captured::Whole, "{message:?}");
        }
    }

    #[test]
    fn nothing_counts_as_whole_of_which_a_part_was_not_shown() {
        let json = kind("application/grpc+json", "gzip").unwrap();
        let odd = kind("application/grpc+json", "snappy").unwrap();
        let swollen = gzip(&vec![b'a'; 1 << 20]);
        #[rustfmt::skip]
        let table = [
            ("half a length",       json, [framed(0, b"1"), vec![0, 0, 0]].concat(),          Some(1)),
            ("half a message",      json, framed(0, b"[1,2,3]")[..8].to_vec(),                Some(3)),
            ("nothing of it",       json, framed(0, b"[1,2,3]")[..5].to_vec(),                Some(11)),
            ("half of none",        json, framed(0, b"abcdef")[..8].to_vec(),                 Some(14)),
            ("over the cap",        json, framed(0, &[b'a'; 2_000]),                          Some(1_000)),
            ("swollen",             json, framed(1, &swollen),                                Some(1_000)),
            ("another coding",      odd,  [framed(0, b"1"), framed(1, b"2")].concat(),        Some(1)),
            ("another coding only", odd,  framed(1, b"b"),                                    None),
            ("broken",              json, framed(1, b"not gzip"),                             None),
            ("another flag",        json, framed(2, b"a"),                                    None),
            ("half a gzip",         json, framed(1, &gzip(b"[1,2,3"))[..20].to_vec(),         Some(4)),
            ("read in two ways",    json, framed(0, b"\x8a\x80\x80\x80\x10\x04drop"),         Some(34)),
        ];
        for (name, messages, body, shown) in table {
            let seen = capture(&body, messages, true, 1_000);
            let text = seen.as_ref().map(|s| s.text.as_ref().unwrap().len());
            assert_eq!(text, shown, "{name}");
            let state = seen.map(|seen| seen.state);
            assert_eq!(state, shown.map(|_| Captured::Partial), "{name}");
        }
    }
}
