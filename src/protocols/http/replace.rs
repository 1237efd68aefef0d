//! What policy redacted, in the place of the body that it judged: a text that was here
//! whole. What stood for the old bytes (length, encoding, digests, validators) is made to
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
