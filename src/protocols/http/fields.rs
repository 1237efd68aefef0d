//! Header fields on their way through: which are ours, which end at this hop,
//! and which secrets policy and journal never see.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use sha2::{Digest, Sha256};

use crate::domain::{Headers, Trailers};
use crate::redact;

use super::decode::{self, Coding};
use super::events::Ends;
use super::framing;
use super::grpc::messages::{self, Messages};

/// Fields of this hop (RFC 9110 §7.6.1) and of our own vocabulary. None of them
/// leaves, in either direction.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One look at the names there are costs less than looking for each of ours.
    let ours: Vec<Ours> = headers.keys().filter_map(Ours::of).collect();
    if ours.contains(&Ours::Hop(header::CONNECTION)) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    for name in ours {
        match name {
            Ours::Hop(name) | Ours::Own(name) => drop(headers.remove(name)),
            Ours::Te => keep_only_trailers(headers),
            Ours::Baggage => strip_own_baggage(headers),
        }
    }
}

/// The same of the fields behind a body, of which those do not travel on either that have no place
/// there: the sentinel refuses them in HTTP/1.1. `None` where none is left.
pub(super) fn strip_trailers(mut trailers: HeaderMap) -> Option<HeaderMap> {
    strip_hop_by_hop(&mut trailers);
    let is_none = |name: &&HeaderName| framing::is_no_trailer(name.as_str().as_bytes());
    let none: Vec<HeaderName> = trailers.keys().filter(is_none).cloned().collect();
    for name in none {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// A frame of a body on its way, with no more than the trailers that travel on.
pub(super) fn travelling(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::trailers(strip_trailers(trailers).unwrap_or_default()),
        Err(data) => data,
    }
}

/// Whether a field of this name is of this hop or our own, or frames or routes a message: none that
/// may be added to one.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    const FRAMES: [HeaderName; 6] = [
        header::ACCEPT_ENCODING,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::HOST,
        header::TRAILER,
    ];
    let shakes_hands = name.as_str().starts_with("sec-websocket-");
    Ours::of(name).is_some() || FRAMES.contains(name) || shakes_hands
}

/// A field that does not travel on as it is.
#[derive(PartialEq, Eq)]
enum Ours {
    Hop(HeaderName),
    Own(HeaderName),
    Te,
    Baggage,
}

impl Ours {
    fn of(name: &HeaderName) -> Option<Self> {
        match name.as_str() {
            "connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings" => Some(Self::Hop(name.clone())),
            "te" => Some(Self::Te),
            "baggage" => Some(Self::Baggage),
            own if own.starts_with("x-openbox-") || own.starts_with("openbox-") => {
                Some(Self::Own(name.clone()))
            }
            _ => None,
        }
    }
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Nominating these would cut what frames or routes the message; `TE` has to be nominated
        // (RFC 9110 §10.1.4), and what stays of it is seen to by itself.
        .filter(|name| ![header::HOST, header::CONTENT_LENGTH, header::TE].contains(name))
        .collect()
}

/// `TE` is a field of this hop, but `trailers` is a promise about the client
/// that stays true behind us.
fn keep_only_trailers(headers: &mut HeaderMap) {
    let Some(te) = headers.remove(header::TE) else {
        return;
    };
    let keeps = te.to_str().is_ok_and(|te| {
        te.split(',')
            .any(|part| part.trim().eq_ignore_ascii_case("trailers"))
    });
    if keeps {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Our members of W3C baggage stay here; the others travel on.
fn strip_own_baggage(headers: &mut HeaderMap) {
    let kept: Vec<String> = headers
        .get_all("baggage")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|member| !member.trim_start().starts_with("openbox."))
        .map(str::to_owned)
        .collect();
    headers.remove("baggage");
    if let Ok(value) = HeaderValue::try_from(kept.join(","))
        && !kept.is_empty()
    {
        headers.insert("baggage", value);
    }
}

/// The fields as policy sees them.
pub(super) fn captured(headers: &HeaderMap) -> Headers {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()))
        .sum();
    let mut captured = Headers::with_capacity(headers.len(), bytes);
    for (name, value) in headers {
        if redact::is_secret_header(name.as_str()) {
            captured.push(name.as_str(), redact::REDACTED);
        } else {
            let value = String::from_utf8_lossy(value.as_bytes());
            captured.push(name.as_str(), &value);
        }
    }
    captured
}

/// The fields behind a body as policy sees them; `None` where there are none.
pub(super) fn shown_trailers(trailers: Option<&HeaderMap>) -> Option<Box<Trailers>> {
    let trailers = trailers.filter(|trailers| !trailers.is_empty())?;
    let mut hash = Sha256::new();
    for (name, value) in trailers {
        // No name or value has a line's end in it.
        hash.update(name.as_str());
        hash.update(b"\n");
        hash.update(value.as_bytes());
        hash.update(b"\n");
    }
    let lines: Vec<String> = captured(trailers)
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    Some(Box::new(Trailers {
        text: lines.join("\n").into(),
        digest: hash.finalize().into(),
    }))
}

/// How policy may read a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As it comes.
    Text,
    /// Decoded by these, outermost last.
    Encoded(Box<[Coding]>),
    /// Message by message, each out of its frame.
    Messages(Messages),
    /// Not at all.
    Not,
}

impl Reading {
    /// Whether it is text, once decoded.
    pub(super) fn is_text(&self) -> bool {
        match self {
            Self::Text | Self::Encoded(_) | Self::Messages(_) => true,
            Self::Not => false,
        }
    }
}

/// How policy may read a body with these fields: text by the SDKs' markers, or without a
/// type at all.
pub(super) fn reading(headers: &HeaderMap) -> Reading {
    let messages = messages::of(headers);
    let text = messages.is_some() || is_text_by_type(headers);
    match decode::codings(headers).filter(|_| text) {
        // Each is compressed by itself; a body that is, nobody reads.
        Some(codings) if codings.is_empty() => messages.map_or(Reading::Text, Reading::Messages),
        Some(_) if messages.is_some() => Reading::Not,
        Some(codings) => Reading::Encoded(codings.into()),
        None => Reading::Not,
    }
}

/// Whether a body with these fields says that it is text or messages, be it readable here or not.
pub(super) fn says_text(headers: &HeaderMap) -> bool {
    messages::of(headers).is_some() || is_text_by_type(headers)
}

fn is_text_by_type(headers: &HeaderMap) -> bool {
    const MARKERS: [&str; 7] = [
        "json",
        "text",
        "xml",
        "javascript",
        "urlencoded",
        "yaml",
        "graphql",
    ];
    media_type(headers).is_none_or(|kind| MARKERS.iter().any(|marker| kind.contains(marker)))
}

/// What ends the events of a body with these fields, if it comes in events that must
/// not wait for one another.
pub(super) fn event_stream(headers: &HeaderMap) -> Option<Ends> {
    const STREAMS: [(&str, Ends); 4] = [
        ("event-stream", Ends::BlankLine),
        ("ndjson", Ends::Line),
        ("jsonl", Ends::Line),
        ("json-seq", Ends::Line),
    ];
    let kind = media_type(headers)?;
    let found = STREAMS.iter().find(|(stream, _)| kind.contains(stream));
    found.map(|(_, ends)| *ends)
}

fn media_type(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let kind = headers.get(header::CONTENT_TYPE)?;
    // Types we cannot even read are not text.
    let kind = kind.to_str().unwrap_or("unreadable");
    // Its parameters make nothing of it that it is not.
    let kind = kind.split(';').next().unwrap_or(kind).trim();
    Some(match kind.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => kind.to_ascii_lowercase().into(),
        false => kind.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn what_belongs_to_this_hop_stays_here() {
        let mut headers = map(&[
            (
                "connection",
                "close, X-Private, host, content-length, TE, Upgrade, HTTP2-Settings",
            ),
            ("x-private", "1"),
            ("host", "a.test"),
            ("content-length", "0"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic eDp5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers, deflate"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("x-openbox-run-id", "r"),
            ("openbox-verdict", "allow"),
            ("baggage", "a=1,openbox.run=r , b=2"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let kept: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(
            kept,
            [
                ("accept", "*/*"),
                ("baggage", "a=1, b=2"),
                ("content-length", "0"),
                ("host", "a.test"),
                ("te", "trailers"),
            ]
        );
    }

    #[test]
    fn of_trailers_stays_here_what_of_headers_does_and_what_has_no_place_there() {
        let trailers = strip_trailers(map(&[
            ("x-end", "yes"),
            ("openbox-verdict", "allow"),
            ("x-openbox-run-id", "r"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("content-length", "4"),
            ("authorization", "Bearer x"),
            ("grpc-status", "0"),
        ]));
        let trailers = trailers.unwrap();
        let mut kept: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["grpc-status", "x-end"]);
        assert_eq!(strip_trailers(map(&[("openbox-verdict", "allow")])), None);
    }

    #[test]
    fn trailers_are_shown_redacted_and_known_by_what_they_were() {
        let shown = |key: &str| {
            let trailers = map(&[("x-api-key", key), ("x-end", "yes")]);
            shown_trailers(Some(&trailers)).unwrap()
        };
        let (one, other) = (shown("a"), shown("b"));
        assert_eq!(&*one.text, "x-api-key: [REDACTED]\nx-end: yes");
        assert_eq!(one.text, other.text);
        assert_ne!(one.digest, other.digest);
        assert_eq!(shown_trailers(Some(&HeaderMap::new())), None);
        assert_eq!(shown_trailers(None), None);
    }

    #[test]
    fn secrets_are_shown_as_redacted() {
        let headers = map(&[
            ("authorization", "Bearer x"),
            ("cookie", "a=1"),
            ("accept", "text/html"),
        ]);
        let shown = captured(&headers);
        assert_eq!(shown.last("authorization"), Some("[REDACTED]"));
        assert_eq!(shown.last("cookie"), Some("[REDACTED]"));
        assert_eq!(shown.last("accept"), Some("text/html"));
    }

    #[test]
    fn a_parameter_of_a_type_makes_nothing_of_it() {
        let of = |kind| map(&[("content-type", kind)]);
        for kind in ["text/plain; x=event-stream", "text/plain;x=NDJSON"] {
            assert_eq!(event_stream(&of(kind)), None, "{kind}");
        }
        let kind = "Text/Event-Stream; charset=utf-8";
        assert_eq!(event_stream(&of(kind)), Some(Ends::BlankLine));
        for kind in ["image/png; x=text", "multipart/form-data; boundary=json"] {
            assert_eq!(reading(&of(kind)), Reading::Not, "{kind}");
        }
    }

    #[test]
    fn text_is_what_the_sdks_take_for_text_also_where_it_is_compressed() {
        let encoded = |codings: &[Coding]| Reading::Encoded(codings.into());
        use Coding::{Brotli, Gzip};
        use Reading::{Not, Text};
        #[rustfmt::skip]
        let table: [(&[(&str, &str)], Reading); 13] = [
            (&[],                                                                 Text),
            (&[("content-type", "application/json; charset=utf-8")],             Text),
            (&[("content-type", "text/plain")],                                   Text),
            (&[("content-type", "application/vnd.x+XML")],                        Text),
            (&[("content-type", "application/x-www-form-urlencoded")],            Text),
            (&[("content-type", "application/grpc"), ("content-encoding", "gzip")], Not),
            (&[("content-type", "application/octet-stream")],                     Not),
            (&[("content-type", "multipart/form-data; boundary=x")],              Not),
            (&[("content-type", "text/plain"), ("content-encoding", "identity")], Text),
            (&[("content-type", "text/plain"), ("content-encoding", "gzip")],     encoded(&[Gzip])),
            (&[("content-encoding", "br"), ("content-encoding", "X-GZIP")],       encoded(&[Brotli, Gzip])),
            (&[("content-encoding", "aes128gcm")],                                Not),
            (&[("content-type", "image/png"), ("content-encoding", "gzip")],      Not),
        ];
        for (fields, expected) in table {
            assert_eq!(reading(&map(fields)), expected, "{fields:?}");
        }
    }
}
