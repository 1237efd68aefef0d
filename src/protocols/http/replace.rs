//! What policy redacted, in the place of the body, message or event that it judged: a text
//! that was here whole. What stood for the old bytes (length, encoding, digests, validators) is made to
//! stand for the new ones, or left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, response};
use sha2::{Digest, Sha256};

use crate::domain::{Capture, Captured, JsonText};
use crate::policy::{Side, redaction};

use super::body::Gathered;
use super::events::Ends;
use super::request_body::RequestBody;

/// Digests of RFC 9530, of its predecessor, and one whose algorithm nobody should rely on.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// What a protocol that replaces request bodies can put in place of one.
pub(super) fn of_request(redacted: &JsonText) -> bool {
    redaction::body(redacted, Side::Input).is_some()
}

/// The same of the bodies of answers.
pub(super) fn of_answer(redacted: &JsonText) -> bool {
    redaction::body(redacted, Side::Output).is_some()
}

/// What stands in the place of a message that the agent says.
pub(super) fn said(redacted: &JsonText) -> Option<String> {
    redaction::body(redacted, Side::Input)
}

/// The same of one that the server says.
pub(super) fn heard(redacted: &JsonText) -> Option<String> {
    redaction::body(redacted, Side::Output)
}

/// What can be put in place of an event of an event stream.
pub(super) fn of_event(redacted: &JsonText) -> bool {
    as_event(redacted).is_some()
}

/// The same of a line of JSON.
pub(super) fn of_line(redacted: &JsonText) -> bool {
    as_line(redacted).is_some()
}

/// What stands in the place of the event `judged`, and ends as that does.
pub(super) fn event(redacted: &JsonText, judged: &[u8], ends: Ends) -> Option<Bytes> {
    let breaks = judged.iter().rev().take_while(|byte| is_break(**byte));
    let (said, end) = judged.split_at_checked(judged.len().saturating_sub(breaks.count()))?;
    let mut event = match ends {
        Ends::BlankLine => as_event(redacted)?.into_bytes(),
        Ends::Line => {
            let line = as_line(redacted)?;
            let has_mark = said.starts_with(RECORD.as_bytes()) && !line.starts_with(RECORD);
            let mark = if has_mark { RECORD } else { "" };
            format!("{mark}{line}").into_bytes()
        }
    };
    event.extend_from_slice(end);
    Some(event.into())
}

/// What policy put in the place of an event, without what ends it. Policy is shown events as
/// they came, so what has fields (or is a comment) is an event as it stands; any other text is
/// what an event says, and nothing else of the event that was goes on, neither its name nor
/// its id. `None` where it would be several events.
fn as_event(redacted: &JsonText) -> Option<String> {
    let text = redaction::body(redacted, Side::Output)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.trim_end_matches('\n');
    if text.split('\n').any(is_field) {
        let event = text.trim_start_matches('\n');
        return (!event.contains("\n\n")).then(|| event.to_owned());
    }
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| format!("data: {line}"))
        .collect();
    Some(lines.join("\n"))
}

/// Whether a line is one that readers of event streams know (WHATWG HTML §9.2.6), or a comment.
fn is_field(line: &str) -> bool {
    let name = line.split_once(':').map(|(name, _)| name);
    matches!(name, Some("" | "data" | "event" | "id" | "retry"))
}

/// What begins a text of a JSON text sequence (RFC 7464).
const RECORD: &str = "\u{1e}";

/// What policy put in the place of a line of JSON, without what ends it; `None` where it is no
/// JSON, or more than a line.
fn as_line(redacted: &JsonText) -> Option<String> {
    let text = redaction::body(redacted, Side::Output)?;
    let line = text.trim_end_matches(['\r', '\n']);
    let json = line.strip_prefix(RECORD).unwrap_or(line);
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok();
    (is_json && !line.bytes().any(is_break)).then(|| line.to_owned())
}

fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether another text can stand in the place of a body: what policy read is all of it,
/// byte for byte, or what those bytes decode to.
pub(super) fn is_replaceable(body: &Capture) -> bool {
    body.state == Captured::Whole && body.text.is_some() && body.digest.is_none()
}

/// The same of an answer: a part of something (206) is a part of what it was.
pub(super) fn is_answer_replaceable(status: u16, body: &Capture) -> bool {
    status != StatusCode::PARTIAL_CONTENT.as_u16() && is_replaceable(body)
}

/// Replaces the body of `request`; says whether it could.
pub(super) fn request(request: &mut Request<RequestBody>, redacted: &JsonText) -> bool {
    let Some(text) = redaction::body(redacted, Side::Input) else {
        return false;
    };
    let data = Bytes::from(text);
    let has_trailers = request.body_mut().replace(data.clone());
    reframe(request.headers_mut(), &data);
    if has_trailers {
        // Trailers need chunks.
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }
    true
}

/// Replaces the body of an answer; says whether it could.
pub(super) fn answer(
    parts: &mut response::Parts,
    gathered: &mut Gathered,
    redacted: &JsonText,
) -> bool {
    let Some(text) = redaction::body(redacted, Side::Output) else {
        return false;
    };
    gathered.data = Bytes::from(text);
    reframe(&mut parts.headers, &gathered.data);
    if let Some(trailers) = &mut gathered.trailers {
        remove_digests(trailers);
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    // They name bytes that are not these, and parts of those may be asked for by them.
    for validator in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
        parts.headers.remove(validator);
    }
    true
}

fn reframe(headers: &mut HeaderMap, data: &[u8]) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(data.len()));
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(CONTENT_MD5);
    let sum = || STANDARD.encode(Sha256::digest(data));
    for name in [CONTENT_DIGEST, REPR_DIGEST] {
        anew(headers, name, || format!("sha-256=:{}:", sum()));
    }
    anew(headers, DIGEST, || format!("SHA-256={}", sum()));
}

/// Says a field that is there in other words.
fn anew(headers: &mut HeaderMap, name: HeaderName, value: impl FnOnce() -> String) {
    if headers.remove(&name).is_some()
        && let Ok(value) = HeaderValue::try_from(value())
    {
        headers.insert(name, value);
    }
}

/// Of the body that was, in its trailers.
pub(super) fn remove_digests(trailers: &mut HeaderMap) {
    for name in [CONTENT_DIGEST, REPR_DIGEST, DIGEST, CONTENT_MD5] {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_redacted_is_one_event_of_the_same_stream_or_none() {
        use Ends::{BlankLine, Line};
        #[rustfmt::skip]
        let table = [
            // judged                        ends       said                               goes on
            ("id: 1\ndata: ann\n\n",         BlankLine, "id: 1\ndata: <X>\n\n",            Some("id: 1\ndata: <X>\n\n")),
            ("data: ann\r\n\r\n",           BlankLine, "data: <X>\r\n\r\n",              Some("data: <X>\r\n\r\n")),
            ("data: a\rdata: b\r\r",         BlankLine, "data: a\rdata: <X>\r\r",          Some("data: a\ndata: <X>\r\r")),
            ("event: x\ndata: ann\n\n",      BlankLine, "hello\n\nworld",                  Some("data: hello\ndata: \ndata: world\n\n")),
            ("data: ann\n\n",                BlankLine, "<X>\n\n",                         Some("data: <X>\n\n")),
            ("data: ann\n\n",                BlankLine, "{\"id\": 1}",                     Some("data: {\"id\": 1}\n\n")),
            ("data: ann\n\n",                BlankLine, "",                                Some("data: \n\n")),
            ("\u{feff}data: ann\n\n",        BlankLine, "\u{feff}data: <X>\n\n",          Some("data: <X>\n\n")),
            (": ann\n\n",                    BlankLine, ": <X>\n\n",                       Some(": <X>\n\n")),
            ("data: ann",                    BlankLine, "data: <X>",                       Some("data: <X>")),
            ("data: ann\n\n",                BlankLine, "data: a\n\ndata: b\n\n",          None),
            ("data: ann\n\n",                BlankLine, "data: a\r\rdata: b",              None),
            ("{\"a\":\"ann\"}\n",            Line,      "{\"a\":\"<X>\"}\n",              Some("{\"a\":\"<X>\"}\n")),
            ("{\"a\":\"ann\"}\r\n",          Line,      "{\"a\": 1}",                      Some("{\"a\": 1}\r\n")),
            ("\u{1e}{\"a\":\"ann\"}\n",      Line,      "\u{1e}{\"a\":\"<X>\"}\n",        Some("\u{1e}{\"a\":\"<X>\"}\n")),
            ("\u{1e}{\"a\":\"ann\"}\n",      Line,      "{\"a\": 1}",                      Some("\u{1e}{\"a\": 1}\n")),
            ("{\"a\":\"ann\"}\n",            Line,      "{\"a\":\n1}",                     None),
            ("{\"a\":\"ann\"}\n",            Line,      "{\"a\":1}\n{\"b\":2}\n",          None),
            ("{\"a\":\"ann\"}\n",            Line,      "hidden",                          None),
        ];
        for (judged, ends, said, expected) in table {
            let redacted = redaction::of_body(Side::Output, said);
            let can = match ends {
                BlankLine => of_event(&redacted),
                Line => of_line(&redacted),
            };
            assert_eq!(can, expected.is_some(), "{judged:?}: {said:?}");
            let found = event(&redacted, judged.as_bytes(), ends);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{said:?}");
        }
        let of_a_request = redaction::of_body(Side::Input, "data: x");
        assert!(!of_event(&of_a_request) && !of_line(&of_a_request));
    }

    #[test]
    fn what_stood_for_the_old_bytes_stands_for_the_new() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "1000"),
            ("content-encoding", "gzip"),
            ("content-md5", "x"),
            ("content-digest", "sha-512=:x:, sha-256=:y:"),
            ("digest", "SHA-512=x"),
            ("content-type", "text/plain"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        reframe(&mut headers, b"hello");
        let mut found: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                (
                    "content-digest",
                    "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
                ),
                ("content-length", "5"),
                ("content-type", "text/plain"),
                (
                    "digest",
                    "SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
                ),
            ]
        );
    }
}
