//! A message of Protocol Buffers as JSON, without its schema: field numbers, and every reading that each value has.
//!
//! Nobody here knows which reading is the server's. A text that is also a message is shown as both, so that nothing can
//! be hidden from policy by making it look like the other.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::wire::{self, Content, Extent, Field, Read};

/// How deep messages are read in messages: three levels of JSON each, of which readers take 128. What is deeper counts as
/// not shown.
const DEPTH_MAX: usize = 40;
/// Longest text or message that is also shown as numbers in a row, bytes. Most of them can be read as such a row, which
/// is four times as long: it would soon take the room of all else.
const PACKED_MAX: usize = 64;

/// JSON that has room for so many bytes.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) text: String,
    bytes_max: usize,
    /// Whether there is no more room: something was left out, and nothing follows.
    pub(super) full: bool,
    /// Whether anything was not read, or not all read it like this.
    unread: bool,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            text: String::new(),
            bytes_max,
            full: false,
            unread: false,
        }
    }

    /// Whether this is not all that there is to show.
    pub(super) fn is_partial(&self) -> bool {
        self.full || self.unread
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

    /// The name of a reading behind `before`, which is `,` from then on.
    fn name(&mut self, before: &mut &str, name: &str) {
        self.push(before);
        self.push("\"");
        self.push(name);
        self.push("\":");
        *before = ",";
    }
}

/// Shows a message, or what stands where one may: `{"text": …}`, `{"fields": {"1": […]}}`, both, or `{"base64": …}` with
/// what there is of text in it.
pub(super) fn show(bytes: &[u8], extent: Extent, room: &mut Room) {
    value(bytes, extent, 0, room);
}

fn value(bytes: &[u8], extent: Extent, depth: usize, room: &mut Room) {
    if room.full {
        return;
    }
    let mut fields = match bytes.is_empty() {
        true => None,
        false => wire::fields(bytes, extent),
    };
    if depth >= DEPTH_MAX && fields.take().is_some() {
        room.unread = true;
    }
    let text = text(bytes, extent);
    // A message by itself is not one of the values that a field repeats.
    let packed = depth > 0 && is_packed(bytes, text.as_deref(), fields.is_some());
    let mut before = "{";
    if let Some(text) = &text {
        room.name(&mut before, "text");
        room.string(text);
    } else if fields.is_none() {
        if let Some(legible) = legible(bytes) {
            room.name(&mut before, "text");
            room.string(&legible);
        }
        room.name(&mut before, "base64");
        room.push("\"");
        room.push(&STANDARD.encode(bytes));
        room.push("\"");
    }
    if let Some(read) = fields {
        room.name(&mut before, "fields");
        message(read, depth, room);
    }
    if packed {
        room.name(&mut before, "packed");
        show_numbers(bytes, room);
    }
    room.push("}");
}

/// What can be read as text of what is none, with one `U+FFFD` for whatever stands between; `None` where nothing can.
fn legible(bytes: &[u8]) -> Option<String> {
    let mut legible = String::new();
    let mut push = |character: char| match is_invisible(character) {
        true if legible.ends_with(char::REPLACEMENT_CHARACTER) => {}
        true => legible.push(char::REPLACEMENT_CHARACTER),
        false => legible.push(character),
    };
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(&mut push);
        if !chunk.invalid().is_empty() {
            push(char::REPLACEMENT_CHARACTER);
        }
    }
    let is_any = legible.chars().any(|character| !is_invisible(character));
    is_any.then_some(legible)
}

fn is_invisible(character: char) -> bool {
    let is_control = character.is_control() && !matches!(character, '\t' | '\n' | '\r');
    is_control || character == char::REPLACEMENT_CHARACTER
}

/// Whether a value is shown as numbers in a row, as a field that repeats them has them. Not where it is plain text, whose
/// characters are these numbers, nor where it is text or a message longer than [`PACKED_MAX`].
fn is_packed(bytes: &[u8], text: Option<&str>, is_message: bool) -> bool {
    let is_plain = text.is_some_and(|text| !text.chars().any(is_invisible));
    let is_long = bytes.len() > PACKED_MAX && (text.is_some() || is_message);
    !bytes.is_empty() && !is_plain && !is_long && wire::numbers(bytes).all(|n| n.is_some())
}

fn show_numbers(bytes: &[u8], room: &mut Room) {
    let mut before = "[";
    for number in wire::numbers(bytes).flatten() {
        if room.full {
            return;
        }
        room.push(before);
        integer(number, room);
        before = ",";
    }
    room.push("]");
}

/// The text that `bytes` are; of what is cut, up to its last whole character.
pub(super) fn text(bytes: &[u8], extent: Extent) -> Option<Cow<'_, str>> {
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
    room.unread |= read.partial;
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
            room.number(u64::from(number));
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
        Content::Number(number) => integer(number, room),
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
            match wire::fields(bytes, Extent::Whole) {
                Some(read) if inside < DEPTH_MAX => message(read, inside, room),
                read => {
                    room.unread |= read.is_some();
                    room.push("{}");
                }
            }
            room.push("}");
        }
    }
}

/// A number, and what fields of 32 bits have of it where that is less.
fn integer(number: u64, room: &mut Room) {
    if wire::low(number) == number {
        return room.number(number);
    }
    room.push("{\"uint64\":");
    room.number(number);
    room.push(",\"uint32\":");
    room.number(wire::low(number));
    room.push("}");
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

#[cfg(test)]
mod tests {
    use super::super::wire::FIELDS_MAX;
    use super::*;

    fn shown(bytes: &[u8], extent: Extent) -> String {
        let mut room = Room::new(10_000);
        show(bytes, extent, &mut room);
        assert!(!room.is_partial());
        let json: serde_json::Value = serde_json::from_str(&room.text).expect(&room.text);
        assert!(json.is_object());
        room.text
    }

    #[test]
    fn every_value_is_shown_in_every_reading_that_it_has() {
        #[rustfmt::skip]
        let table: [(&[u8], &str); 21] = [
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
            // What fields of 32 bits have of a number.
            (b"\x08\x85\x80\x80\x80\x10", r#"{"fields":{"1":[{"uint64":4294967301,"uint32":5}]}}"#),
            (b"\x08\xff\xff\xff\xff\x0f", r#"{"fields":{"1":[4294967295]}}"#),
            // Numbers in a row, which may be text or a message too.
            (b"\x0a\x03\x01\x96\x01",     r#"{"fields":{"1":[{"base64":"AZYB","packed":[1,150]}]}}"#),
            (b"\x0a\x02\x08\x05\x10\x80\x01", r#"{"fields":{"1":[{"text":"\b\u0005","fields":{"1":[5]},"packed":[8,5]}],"2":[128]}}"#),
            (b"\x0a\x05\x85\x80\x80\x80\x10", r#"{"fields":{"1":[{"base64":"hYCAgBA=","packed":[{"uint64":4294967301,"uint32":5}]}]}}"#),
            (b"\x0a\x02\x01\xff",         r#"{"fields":{"1":[{"base64":"Af8="}]}}"#),
            (b"\x0a\x06caf\xc3\xa9!",      r#"{"text":"\n\u0006café!","fields":{"1":[{"text":"café!"}]}}"#),
            // What is almost text.
            (b"drop\xff\xfe\0table",       r#"{"text":"drop�table","base64":"ZHJvcP/+AHRhYmxl"}"#),
            (b"\x0a\x05drop\xff",          r#"{"fields":{"1":[{"text":"drop�","base64":"ZHJvcP8="}]}}"#),
        ];
        for (bytes, expected) in table {
            assert_eq!(shown(bytes, Extent::Whole), expected, "{bytes:?}");
        }
    }

    #[test]
    fn only_a_short_text_or_message_is_shown_as_numbers_too() {
        let text = |length| [b"\x1b".as_slice(), &vec![b'a'; length - 1]].concat();
        #[rustfmt::skip]
        let table = [
            ("short text",          text(PACKED_MAX),                  true),
            ("long text",           text(PACKED_MAX + 1),              false),
            ("short message",       [0x08, 0x81, 0x01].repeat(21),     true),
            ("long message",        [0x08, 0x81, 0x01].repeat(22),     false),
            ("neither, and long",   [0x01, 0x96, 0x01].repeat(100),    true),
        ];
        for (name, value, packed) in table {
            let text = shown(&inside(&value), Extent::Whole);
            assert_eq!(text.contains("\"packed\""), packed, "{name}: {text}");
        }
    }

    #[test]
    fn of_a_message_that_is_cut_what_is_here_is_shown() {
        #[rustfmt::skip]
        let table: [(&[u8], &str); 3] = [
            (b"\x08\x96\x01\x12\x90\x03hello",        r#"{"fields":{"1":[150],"2":[{"text":"hello"}]}}"#),
            (b"\x08\x96\x01\x12\xff",                 r#"{"fields":{"1":[150]}}"#),
            (b"\x08\x96\x01\x12\x90\x03\x08\x80\x01\x10", r#"{"fields":{"1":[150],"2":[{"fields":{"1":[128]},"packed":[8,128,16]}]}}"#),
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
        let groups = [[0x0b].repeat(DEPTH_MAX), [0x0c].repeat(DEPTH_MAX)].concat();
        for more in [inside(&deep), many, groups] {
            let mut room = Room::new(1 << 20);
            show(&more, Extent::Whole, &mut room);
            assert!(room.is_partial() && !room.full);
            assert!(serde_json::from_str::<serde_json::Value>(&room.text).is_ok());
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
