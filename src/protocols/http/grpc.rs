//! What is gRPC's own: its [`messages`], and how it hears no: a status in place of a body, since its clients look at
//! nothing else (`PROTOCOL-HTTP2.md` of gRPC, "Responses"; `http-grpc-status-mapping.md`).

pub(super) mod messages;
mod protobuf;
mod wire;

use std::fmt::Write as _;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::outgoing::Outgoing;
use super::refuse;

/// Whether these fields are of a call of gRPC: `application/grpc`, and what it is encoded in behind `+`.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Makes an answer of the sidecar's own one that gRPC understands: no body, and status and message in the head
/// ("Trailers-Only"). Answers of origins stay as they are.
pub(super) fn speak_as(response: &mut Response<Outgoing>) {
    let Some(words) = refuse::words(response).map(encoded) else {
        return;
    };
    let status = status_of(response.status());
    *response.status_mut() = StatusCode::OK;
    response.body_mut().clear();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, kind);
    refuse::insert(headers, "grpc-status", status);
    refuse::insert(headers, "grpc-message", &words);
}

/// The status that gRPC has for one of HTTP.
fn status_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "13",                   // INTERNAL
        401 => "16",                   // UNAUTHENTICATED
        403 => "7",                    // PERMISSION_DENIED
        404 => "12",                   // UNIMPLEMENTED
        408 | 413 | 431 => "8",        // RESOURCE_EXHAUSTED: a limit of ours
        429 | 502 | 503 | 504 => "14", // UNAVAILABLE
        _ => "2",                      // UNKNOWN
    }
}

/// `text` as `grpc-message` has it: what is no visible ASCII, and `%`, by its bytes.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            other => drop(write!(encoded, "%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_their_type_and_nothing_like_it() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_call(&headers), expected, "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn a_refusal_is_a_status_and_an_answer_of_an_origin_is_left_alone() {
        let mut ours = refuse::problem(StatusCode::FORBIDDEN, "x", "100 % zu groß", None);
        speak_as(&mut ours);
        assert_eq!(ours.status(), 200);
        assert_eq!(ours.headers()["grpc-status"], "7");
        assert_eq!(ours.headers()["grpc-message"], "100 %25 zu gro%C3%9F");
        assert!(http_body::Body::is_end_stream(ours.body()));

        let mut theirs = Response::new(Outgoing::whole("body".into(), None));
        *theirs.status_mut() = StatusCode::FORBIDDEN;
        speak_as(&mut theirs);
        assert_eq!(theirs.status(), 403);
        assert!(!http_body::Body::is_end_stream(theirs.body()));
    }
}
