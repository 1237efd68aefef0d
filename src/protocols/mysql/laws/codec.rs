//! The laws of packets: they mean the same however reads cut them, what is
//! written is what is read, and what is passed on is read there as it was here.

use std::sync::Arc;

use crate::protocols::laws::{Choices, World, pieces};
use crate::protocols::sql::{Analyses, Class};

use super::super::Sessions;
use super::super::attributes;
use super::super::capability::{Capabilities, LocalFiles};
use super::super::commands::{self, Code};
use super::super::greeting::{self, First, Greeting};
use super::super::statement::{Reading, Uses};
use super::super::wire::{Cursor, HEADER_BYTES, Header, WireError, packet};
use super::machine::{Between, answer};

/// All that must hold.
pub(in crate::protocols) fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    match choices.below(8) {
        0 => numbers(choices.all()),
        1 => greets(choices.all()),
        2 => greets(&greeting(choices)),
        3 => logs_in(choices),
        4 => changes(choices),
        5 => attributed(choices),
        6 => named(&choices),
        _ => answers(choices),
    }
}

/// Integers, and what is behind one: read within their bounds or not at all.
fn numbers(bytes: &[u8]) {
    let mut at = Cursor::new(bytes);
    while let Some(part) = at.counted() {
        let left = at.rest().len();
        assert!(left + part.len() < bytes.len());
        let written = counted(part);
        assert_eq!(Cursor::new(&written).counted(), Some(part));
    }
    let whole = packet(7, bytes);
    let header = Header::of(&whole).unwrap();
    assert_eq!((header.whole(), header.sequence), (whole.len(), 7));
    assert_eq!(&whole[HEADER_BYTES..], bytes);
}

/// `bytes` behind their number.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let [a, b, c, _] = length.to_le_bytes();
    let mut written = match length {
        0..=0xfa => vec![a],
        0xfb..=0xffff => vec![0xfc, a, b],
        _ => vec![0xfd, a, b, c],
    };
    written.extend_from_slice(bytes);
    written
}

/// Of a greeting only the capabilities change.
fn greets(body: &[u8]) {
    let Ok(read) = Greeting::of(body) else { return };
    let offered = read.capabilities.offered(LocalFiles::Refuse);
    let masked = read.offering(body, offered);
    assert_eq!(masked.len(), body.len());
    let again = Greeting::of(&masked).unwrap();
    assert_eq!(again.capabilities, offered);
    let back = again.offering(&masked, read.capabilities);
    let original = Greeting::of(&back).unwrap();
    assert_eq!(original, read);
}

fn greeting(mut choices: Choices<'_>) -> Vec<u8> {
    let mut body = b"\x0a8.0.1\0\x07\0\0\0nonce678\0".to_vec();
    // Those without which nobody is spoken to, and any others.
    body.extend_from_slice(&[choices.byte(), choices.byte() | 0x82, 45, 2, 0]);
    body.extend_from_slice(&[choices.byte() | 8, choices.byte(), 21]);
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&[choices.byte(), 0, 0, 0]);
    body.extend_from_slice(choices.all());
    body
}

/// The server reads the login that was read here.
fn logs_in(mut choices: Choices<'_>) {
    let mut flags = |more: u32| {
        let bytes = [
            choices.byte(),
            choices.byte(),
            choices.byte(),
            choices.byte(),
        ];
        u32::from_le_bytes(bytes) | more
    };
    let (server, client) = (flags(0x0008_8200), flags(0x200) & !0x0400_0020);
    let offered = Capabilities::from_halves(server, 0).offered(LocalFiles::Judge);
    let added = choices.byte();
    let asked = Capabilities::from_halves(client, if client & 1 == 1 { 0 } else { added.into() });
    let agreed = asked.agreed(offered);
    let mut body = client.to_le_bytes().to_vec();
    body.extend_from_slice(&[0; 24]);
    body.extend_from_slice(&[added, 0, 0, 0]);
    body.extend_from_slice(b"bob\0");
    body.extend_from_slice(&fields(choices));
    let Ok(First::Login(read)) = First::of(&body, offered) else {
        return;
    };
    assert_eq!(read.capabilities, agreed);
    let sent = greeting::agreeing(&body, agreed);
    assert_eq!(sent.len(), body.len());
    let everything = Capabilities(u64::MAX);
    let Ok(First::Login(there)) = First::of(&sent, everything) else {
        panic!("{sent:?} is no login");
    };
    assert_eq!(there.capabilities, agreed);
    assert_eq!((there.plugin, there.who), (read.plugin, read.who));
}

/// Parts of a login, in whatever order.
fn fields(mut choices: Choices<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    while choices.are_left() {
        let length = choices.below(20);
        match choices.below(4) {
            0 => all.extend_from_slice(choices.bytes(length)),
            1 => {
                all.extend_from_slice(choices.bytes(length));
                all.push(0);
            }
            2 => all.extend_from_slice(&counted(choices.bytes(length))),
            _ => all.extend_from_slice(&counted(&[b"\x01a\x02bc", choices.bytes(length)].concat())),
        }
    }
    all
}

/// Who somebody becomes is read to the end, whatever is said.
fn changes(mut choices: Choices<'_>) {
    let flags = [
        choices.byte(),
        choices.byte(),
        choices.byte(),
        choices.byte(),
    ];
    let capabilities = Capabilities::from_halves(u32::from_le_bytes(flags), 0);
    let body = [&b"eve\0"[..], &fields(choices)].concat();
    if let Some((who, _)) = greeting::changed_user(&body, capabilities) {
        assert!(who.attributes.len() <= body.len());
    }
}

/// The text of a query is what stands behind its attributes.
fn attributed(mut choices: Choices<'_>) {
    const FIXED: &[(u8, usize)] = &[(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8)];
    let count = choices.below(20);
    let mut nulls = vec![0_u8; count.div_ceil(8)];
    let (mut types, mut values, mut expected) = (Vec::new(), Vec::new(), None);
    for index in 0..count {
        let name = choices.pick(&[&b"a"[..], b"traceparent", b"TraceParent", b""]);
        let length = choices.below(9);
        let is_text = choices.below(2) == 0;
        let null = choices.below(8) == 0;
        let text = choices.bytes(length);
        let (kind, value) = match is_text {
            true => (0xfe, counted(text)),
            false if length == 8 => (choices.pick(&[7, 10, 11, 12]), vec![2, 0, 0]),
            false => {
                let (kind, bytes) = choices.pick(FIXED);
                (kind, vec![7; bytes])
            }
        };
        types.extend_from_slice(&[kind, choices.pick(&[0, 0x80])]);
        types.extend_from_slice(&counted(name));
        if null {
            nulls[index / 8] |= 1 << (index % 8);
            continue;
        }
        values.extend_from_slice(&value);
        if is_text && name.eq_ignore_ascii_case(b"traceparent") {
            expected = Some(text.to_vec());
        }
    }
    let text = choices.all();
    let mut body = vec![u8::try_from(count).unwrap(), 1];
    if count > 0 {
        body.extend_from_slice(&nulls);
        body.push(1);
        body.extend_from_slice(&types);
        body.extend_from_slice(&values);
    }
    body.extend_from_slice(text);
    let expected = Some((text, expected.as_deref()));
    assert_eq!(attributes::text_behind(&body, b"traceparent"), expected);
    // Whatever else it is, it ends where the packet does.
    if let Some((behind, _)) = attributes::text_behind(text, b"traceparent") {
        assert!(text.ends_with(behind));
    }
}

/// A name is one, whatever letters it has: what is told of a command is one
/// statement about just that.
fn named(choices: &Choices<'_>) {
    let name = choices.clone().all();
    let reading = Reading::new(Arc::new(Analyses::new(1 << 16)));
    for (code, verb) in [
        (Code::INIT_DB, "USE"),
        (Code::CREATE_DB, "CREATE"),
        (Code::DROP_DB, "DROP"),
        (Code::FIELD_LIST, "SHOW"),
    ] {
        let Some(text) = commands::as_statement(code, name) else {
            continue;
        };
        let read = reading.names(&text);
        if read.class() == Class::Opaque {
            continue;
        }
        let analysis = read.analysis.as_ref().unwrap();
        assert_eq!(analysis.statements.len(), 1, "{text}");
        assert_eq!(analysis.statements[0].verbs.first(), Some(&verb), "{text}");
        if code == Code::INIT_DB {
            let name = name.split(|byte| *byte == 0).next().unwrap();
            let name = String::from_utf8_lossy(name);
            assert_eq!(
                read.used_database(1, None),
                Uses::Database((&*name).into()),
                "{text}"
            );
        }
    }
}

type Heard = (Vec<u8>, Vec<u8>, Option<WireError>);

/// What comes of an answer in these pieces: what goes to either side, and what
/// is wrong.
fn heard(world: &World, speaks: Capabilities, command: &[u8], pieces: &[&[u8]]) -> Heard {
    let mut through = Between::new(world, speaks, Sessions::Pass, 0);
    // A login that is over, and nothing about how texts are read.
    through.answered(&packet(2, b"\0\0\0\x02\0\0\0")).unwrap();
    through.answered(&packet(1, b"\xff\x28\x04#HY000")).unwrap();
    through.says(command).unwrap();
    let mut all = pieces.iter();
    let wrong = all.find_map(|piece| through.answered(piece).err());
    through.talk.lost();
    (through.to_client, through.to_server, wrong)
}

/// An answer is the same however it is cut.
fn answers(mut choices: Choices<'_>) {
    let speaks = match choices.below(2) {
        0 => Capabilities::PROTOCOL_41,
        _ => Capabilities::PROTOCOL_41 | Capabilities::DEPRECATE_EOF,
    };
    let command = choices.pick(&[
        &b"\x0e"[..],
        b"\x1c\x01\0\0\0\x02\0\0\0",
        b"\x16SELECT ?",
        b"\x03",
    ]);
    let sizes = choices.below(6);
    let sizes = choices.bytes(sizes);
    let mut said = Vec::new();
    while choices.are_left() {
        said.extend_from_slice(&answer(&mut choices));
    }
    World::with(|world| {
        let command = packet(0, command);
        let whole = heard(world, speaks, &command, &[&said]);
        let cut = heard(world, speaks, &command, &pieces(&said, sizes));
        assert_eq!(cut, whole);
    });
}
