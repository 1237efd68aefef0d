//! A message of Protocol Buffers as JSON, without its schema: field numbers, and every reading that each value has.
//!
//! Nobody here knows which reading is the server's. A text that is also a message is shown as both, so that nothing can
//! be hidden from policy by making it look like the other.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How deep messages are read in messages: three levels of JSON each, of which readers take 128. What is deeper counts as
/// not shown.
const DEPTH_MAX: usize = 40;
/// How deep groups are read in groups: as deep as the decoders of Protocol Buffers go.
const GROUPS_MAX: usize = 100;
/// Most fields of one message that are read; one with more counts as not all shown.
const FIELDS_MAX: usize = 4_096;
/// Largest number of a field.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// Whether all bytes of a value are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All.
    Whole,
    /// Its end is not.
    Cut,
}

/// JSON that has room for so many bytes.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) text: String,
    bytes_max: usize,
    /// Whether anything was left out.
    pub(super) full: bool,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            text: String::new(),
            bytes_max,
            full: false,
        }
    }

    /// As much of `text` as there is room for.
    pub(super) fn push(&mut self, text: &str) {
        let left = self.bytes_max.saturating_sub(self.text.len());
        let fits = text.floor_char_boundary(left);
        self.full |= fits < text.len();
        self.text.push_str(text.get(..fits).unwrap_or_default());
    }

    fn number(&mut self, number: u64) {
        self.push(&number.to_string());
    }

    fn string(&mut self, text: &str) {
        // Nothing of what is cut off anyway is escaped.
        let left = self.bytes_max.saturating_sub(self.text.len());
        let shown = text.floor_char_boundary(left);
        self.full |= shown < text.len();
        let shown = text.get(..shown).unwrap_or_default();
        self.push(&serde_json::to_string(shown).unwrap_or_default());
    }
}

/// Shows a message, or what stands where one may: `{"text": …}`, `{"fields": {"1": […]}}`, both, or `{"base64": …}`.
pub(super) fn show(bytes: &[u8], extent: Extent, room: &mut Room) {
    value(bytes, extent, 0, room);
}

fn value(bytes: &[u8], extent: Extent, depth: usize, room: &mut Room) {
    if room.full {
        return;
    }
    let fields = match bytes.is_empty() {
        true => None,
        false => fields(bytes, extent),
    };
    if depth >= DEPTH_MAX && fields.is_some() {
        room.full = true;
        return;
    }
    let text = text(bytes, extent);
    room.push("{");
    if let Some(text) = &text {
        room.push("\"text\":");
        room.string(text);
    }
    if let Some(read) = fields {
        room.push(if text.is_some() {
            ",\"fields\":"
        } else {
            "\"fields\":"
        });
        message(read, depth, room);
    } else if text.is_none() {
        room.push("\"base64\":\"");
        room.push(&STANDARD.encode(bytes));
        room.push("\"");
    }
    room.push("}");
}

fn text(bytes: &[u8], extent: Extent) -> Option<Cow<'_, str>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.into()),
        // Cut inside a character.
        Err(error) if extent == Extent::Cut && error.error_len().is_none() => {
            let valid = bytes.get(..error.valid_up_to())?;
            Some(String::from_utf8_lossy(valid))
        }
        Err(_) => None,
    }
}

/// The fields of a message in the order of their numbers, those of one number as they came.
fn message(mut read: Read<'_>, depth: usize, room: &mut Room) {
    room.full |= read.more;
    read.fields.sort_by_key(|field| field.number);
    room.push("{");
    let mut before = None;
    for Field { number, content } in read.fields {
        match before {
            Some(before) if before == number => room.push(","),
            Some(_) => room.push("],"),
            None => {}
        }
        if before != Some(number) {
            room.push("\"");
            room.number(number);
            room.push("\":[");
        }
        before = Some(number);
        show_content(content, depth, room);
        if room.full {
            return;
        }
    }
    room.push(if before.is_some() { "]}" } else { "}" });
}

fn show_content(content: Content<'_>, depth: usize, room: &mut Room) {
    match content {
        Content::Number(number) => room.number(number),
        Content::Fixed32(bits) => {
            let float = f32::from_bits(bits);
            fixed(
                "fixed32",
                u64::from(bits),
                ("float", f64::from(float)),
                room,
            );
        }
        Content::Fixed64(bits) => fixed("fixed64", bits, ("double", f64::from_bits(bits)), room),
        Content::Bytes(bytes, extent) => value(bytes, extent, depth.saturating_add(1), room),
        Content::Group(bytes) => {
            let inside = depth.saturating_add(1);
            room.push("{\"fields\":");
            match fields(bytes, Extent::Whole) {
                Some(read) if inside < DEPTH_MAX => message(read, inside, room),
                Some(_) => room.full = true,
                None => room.push("{}"),
            }
            room.push("}");
        }
    }
}

fn fixed(name: &str, bits: u64, (float, number): (&str, f64), room: &mut Room) {
    room.push("{\"");
    room.push(name);
    room.push("\":");
    room.number(bits);
    if number.is_finite() {
        room.push(",\"");
        room.push(float);
        room.push("\":");
        room.push(&serde_json::to_string(&number).unwrap_or_default());
    }
    room.push("}");
}

/// What was read of a message.
struct Read<'a> {
    fields: Vec<Field<'a>>,
    /// There are more than [`FIELDS_MAX`].
    more: bool,
}

struct Field<'a> {
    number: u64,
    content: Content<'a>,
}

enum Content<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8], Extent),
    /// What stands between the marks of a group, which decoders still skip or read.
    Group(&'a [u8]),
}

/// The fields of `bytes`, if they are a message (Protocol Buffers, "Encoding"); of one that is cut, those that are here.
fn fields(bytes: &[u8], extent: Extent) -> Option<Read<'_>> {
    let mut left = bytes;
    let mut fields = Vec::new();
    while !left.is_empty() {
        match next(left, extent, 0) {
            Ok((Some(field), rest)) if fields.len() < FIELDS_MAX => {
                fields.push(field);
                left = rest;
            }
            Ok((Some(_), _)) => return Some(Read { fields, more: true }),
            Err(Short) if extent == Extent::Cut && !fields.is_empty() => break,
            // The end of a group that has not begun is no field.
            Ok((None, _)) | Err(Short | NoField) => return None,
        }
    }
    Some(Read {
        fields,
        more: false,
    })
}

use Wrong::{NoField, Short};

enum Wrong {
    /// It ends inside a field.
    Short,
    /// It is none.
    NoField,
}

type Next<'a> = Result<(Option<Field<'a>>, &'a [u8]), Wrong>;

/// One field and what stands behind it; no field at the end of a group.
fn next(bytes: &[u8], extent: Extent, depth: usize) -> Next<'_> {
    let (tag, rest) = varint(bytes)?;
    let number = tag >> 3;
    if number == 0 || number > NUMBER_MAX {
        return Err(NoField);
    }
    let (content, rest) = match tag & 7 {
        0 => {
            let (number, rest) = varint(rest)?;
            (Content::Number(number), rest)
        }
        1 => {
            let (bits, rest) = rest.split_first_chunk().ok_or(Short)?;
            (Content::Fixed64(u64::from_le_bytes(*bits)), rest)
        }
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).map_err(|_| NoField)?;
            match rest.split_at_checked(length) {
                Some((value, rest)) => (Content::Bytes(value, Extent::Whole), rest),
                None if extent == Extent::Cut => (Content::Bytes(rest, Extent::Cut), [].as_slice()),
                None => return Err(Short),
            }
        }
        3 => {
            let (inside, rest) = group(rest, number, depth)?;
            (Content::Group(inside), rest)
        }
        4 => return Ok((None, rest)),
        5 => {
            let (bits, rest) = rest.split_first_chunk().ok_or(Short)?;
            (Content::Fixed32(u32::from_le_bytes(*bits)), rest)
        }
        _ => return Err(NoField),
    };
    Ok((Some(Field { number, content }), rest))
}

/// What stands in the group `number`, and behind it.
fn group(bytes: &[u8], number: u64, depth: usize) -> Result<(&[u8], &[u8]), Wrong> {
    if depth >= GROUPS_MAX {
        return Err(NoField);
    }
    let mut left = bytes;
    loop {
        let (field, rest) = next(left, Extent::Whole, depth.saturating_add(1))?;
        if field.is_none() {
            let (tag, _) = varint(left)?;
            let inside = bytes.len().saturating_sub(left.len());
            let inside = bytes.get(..inside).unwrap_or_default();
            return match tag >> 3 == number {
                true => Ok((inside, rest)),
                false => Err(NoField),
            };
        }
        left = rest;
    }
}

/// A number of one to ten bytes. Bits beyond 64 are dropped, as decoders do.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Wrong> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let shift = u32::try_from(at).unwrap_or(0).saturating_mul(7);
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            let behind = at.saturating_add(1);
            return Ok((number, bytes.get(behind..).unwrap_or_default()));
        }
    }
    Err(if bytes.len() < 10 { Short } else { NoField })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8], extent: Extent) -> String {
        let mut room = Room::new(10_000);
        show(bytes, extent, &mut room);
        assert!(!room.full);
        let json: serde_json::Value = serde_json::from_str(&room.text).expect(&room.text);
        assert!(json.is_object());
        room.text
    }

    #[test]
    fn every_value_is_shown_in_every_reading_that_it_has() {
        #[rustfmt::skip]
        let table: [(&[u8], &str); 12] = [
            (b"",                          r#"{"text":""}"#),
            (b"hello",                     r#"{"text":"hello"}"#),
            (b"\xff\xfe",                  r#"{"base64":"//4="}"#),
            (b"\x08\x96\x01",              r#"{"fields":{"1":[150]}}"#),
            (b"\x10\x01\x08\x02\x10\x03",  r#"{"text":"\u0010\u0001\b\u0002\u0010\u0003","fields":{"1":[2],"2":[1,3]}}"#),
            (b"\x0a\x05hello\x10\x80\x01", r#"{"fields":{"1":[{"text":"hello"}],"2":[128]}}"#),
            (b"\x0a\x02hi\x10\x80\x01",    r#"{"fields":{"1":[{"text":"hi","fields":{"13":[105]}}],"2":[128]}}"#),
            (b"\x0d\x00\x00\xc0\x3f",      r#"{"fields":{"1":[{"fixed32":1069547520,"float":1.5}]}}"#),
            (b"\x09\x00\x00\x00\x00\x00\x00\xf8\x7f", r#"{"fields":{"1":[{"fixed64":9221120237041090560}]}}"#),
            // A group, as decoders skip it where they do not know the field.
            (b"\x0b\x10\x96\x01\x0c\x10\x01", r#"{"fields":{"1":[{"fields":{"2":[150]}}],"2":[1]}}"#),
            // The end of another group, field 0, a type that there is not.
            (b"\x0b\x14\xff",              r#"{"base64":"CxT/"}"#),
            (b"\x02\x00\xff",              r#"{"base64":"AgD/"}"#),
        ];
        for (bytes, expected) in table {
            assert_eq!(shown(bytes, Extent::Whole), expected, "{bytes:?}");
        }
    }

    #[test]
    fn of_a_message_that_is_cut_what_is_here_is_shown() {
        #[rustfmt::skip]
        let table: [(&[u8], &str); 3] = [
            (b"\x08\x96\x01\x12\x90\x03hello",        r#"{"fields":{"1":[150],"2":[{"text":"hello"}]}}"#),
            (b"\x08\x96\x01\x12\xff",                 r#"{"fields":{"1":[150]}}"#),
            (b"\x08\x96\x01\x12\x90\x03\x08\x80\x01\x10", r#"{"fields":{"1":[150],"2":[{"fields":{"1":[128]}}]}}"#),
        ];
        for (bytes, expected) in table {
            assert_eq!(shown(bytes, Extent::Cut), expected, "{bytes:?}");
            assert!(!shown(bytes, Extent::Whole).contains("fields"), "{bytes:?}");
        }
    }

    #[test]
    fn messages_are_read_as_deep_as_readers_of_json_go_and_no_text_is_longer_than_its_room() {
        let mut deep = b"\x08\x96\x01".to_vec();
        for _ in 1..DEPTH_MAX {
            deep = inside(&deep);
        }
        let text = shown(&deep, Extent::Whole);
        assert_eq!(text.matches("\"fields\"").count(), DEPTH_MAX);
        for bytes_max in 0..text.len() {
            let mut room = Room::new(bytes_max);
            show(&deep, Extent::Whole, &mut room);
            assert!(room.full && room.text.len() <= bytes_max);
        }
        let many = [0x08, 0x01].repeat(FIELDS_MAX + 1);
        for more in [inside(&deep), many] {
            let mut room = Room::new(1 << 20);
            show(&more, Extent::Whole, &mut room);
            assert!(room.full);
        }
    }

    fn inside(message: &[u8]) -> Vec<u8> {
        let mut outer = vec![0x0a];
        let mut left = message.len();
        while left >= 128 {
            outer.push(u8::try_from(left % 128).unwrap() | 0x80);
            left /= 128;
        }
        outer.push(u8::try_from(left).unwrap());
        outer.extend(message);
        outer
    }
}
