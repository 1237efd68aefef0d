//! The laws of messages: one ends where it says, what is written is what is
//! read, and a startup packet means the same behind the sidecar.

use bytes::BytesMut;

use crate::protocols::laws::{Choices, pieces};

use super::super::binding;
use super::super::startup::{self, First, PACKET_BYTES_MAX};
use super::super::wire::{Cursor, Fields, HEAD, TEXT_CHARS_MAX, WireError, head, message, rows};

/// All that must hold.
pub(in crate::protocols) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let what = choices.below(4);
    let sizes = choices.below(6);
    let sizes = choices.bytes(sizes);
    match what {
        0 => startup(choices.all(), sizes),
        1 => parameters(choices),
        2 => messages(choices.all()),
        _ => bodies(choices.all()),
    }
}

type Started = Result<Option<First>, WireError>;

/// What a client begins with whose bytes come like this, and what is left.
fn first(pieces: &[&[u8]]) -> (Started, BytesMut) {
    let mut input = BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        let before = input.len();
        match startup::first(&mut input) {
            Ok(None) => assert!(input.len() == before && before < PACKET_BYTES_MAX),
            decided => return (decided, input),
        }
    }
    (Ok(None), input)
}

fn startup(bytes: &[u8], sizes: &[u8]) {
    let (whole, left) = first(&[bytes]);
    let (cut, cut_left) = first(&pieces(bytes, sizes));
    assert_eq!(cut, whole);
    assert!(left.starts_with(&cut_left) || cut_left.starts_with(&left));
    if let Ok(Some(First::Start(start))) = whole {
        forwarded(&start);
    }
}

/// The server reads what was read here, less what is left out.
fn forwarded(start: &startup::Start) {
    let (packet, negotiated) = start.forwarded();
    let Ok(Some(First::Start(again))) = startup::first(&mut BytesMut::from(&packet[..])) else {
        panic!("{packet:?} is no startup packet");
    };
    for name in ["user", "database", "options", "application_name"] {
        assert_eq!(again.get(name), start.get(name), "{name}");
    }
    assert_eq!(again.database(), start.database());
    assert_eq!(again.replicates(), start.replicates());
    assert!(again.strict_settings().eq(start.strict_settings()));
    let (twice, nothing) = again.forwarded();
    assert_eq!(
        (twice, nothing.told(None)),
        (packet, None),
        "nothing is left to leave out"
    );
    if let Some(told) = negotiated.told(None) {
        assert_eq!(head(&told, "x"), Ok(Some((b'v', told.len() - HEAD))));
    }
}

/// A start with parameters of these names, as a client writes it.
fn parameters(mut choices: Choices<'_>) {
    const NAMES: &[&str] = &[
        "user",
        "database",
        "options",
        "replication",
        "_pq_.a",
        "application_name",
        "DateStyle",
        "role",
        "_pq_.",
        "",
        "é",
    ];
    let minor = u32::from(choices.byte());
    let mut body = (0x3_0000 | minor).to_be_bytes().to_vec();
    while choices.are_left() {
        body.extend_from_slice(choices.pick(NAMES).as_bytes());
        body.push(0);
        let length = choices.below(12);
        let value = String::from_utf8_lossy(choices.bytes(length)).replace('\0', "");
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    startup(&[&length.to_be_bytes()[..], &body].concat(), &[]);
}

/// A run of messages is cut where their lengths say, whatever is in them.
fn messages(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((tag, body))) = head(rest, "x") {
        let Some(inside) = rest.get(HEAD..HEAD.saturating_add(body)) else {
            return;
        };
        assert_eq!(message(tag, &[inside]), &rest[..HEAD + body]);
        rest = &rest[HEAD + body..];
    }
}

/// Bodies that are read within their bounds or not at all.
fn bodies(bytes: &[u8]) {
    let fields = Fields::of(bytes);
    assert!(fields.code.chars().count() <= 5 && fields.text.chars().count() <= TEXT_CHARS_MAX);
    let mut again = Vec::new();
    for (kind, text) in [(b'C', &fields.code), (b'M', &fields.text)] {
        again.push(kind);
        again.extend_from_slice(text.as_bytes());
        again.push(0);
    }
    let read = Fields::of(&again);
    assert_eq!((read.code, read.text), (fields.code, fields.text));
    if let Some(rows) = rows(bytes) {
        let text = String::from_utf8_lossy(bytes);
        let last = text.trim_end_matches('\0').rsplit(' ').next();
        assert!(
            last.is_some_and(|last| last.trim_start_matches(['0', '+']).len() <= 20),
            "{rows}"
        );
    }
    if let Some(without) = binding::without(bytes) {
        let (tag, body) = head(&without, "x").unwrap().unwrap();
        assert!(tag == b'R' && body == without.len() - HEAD && body < bytes.len());
        assert_eq!(
            binding::without(&without[HEAD..]),
            None,
            "nothing is left to leave out"
        );
    }
    let mut cursor = Cursor::new(bytes, "x");
    let mut read = 0;
    while let Ok(text) = cursor.text() {
        assert!(!text.contains(&0));
        read += text.len() + 1;
    }
    assert_eq!(cursor.rest(), &bytes[read..]);
}
