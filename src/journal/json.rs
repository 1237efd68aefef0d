//! JSON as `serde_json` writes it, quicker where records are what they are:
//! maps of short texts that need no escaping. Every request has two records,
//! and looking at their texts byte by byte took longer than policy does.

use std::fmt::Display;
use std::io::Write;

use serde::ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::{Error, Result};

/// Appends `record` to `out`.
///
/// # Errors
/// A value of a kind that no record has (tuples, enums with content), or one
/// that says so itself.
pub(super) fn write(record: &impl Serialize, out: &mut Vec<u8>) -> Result<()> {
    record.serialize(Json { out })
}

struct Json<'a> {
    out: &'a mut Vec<u8>,
}

/// Whether `text` stands in JSON as it is.
fn is_plain(text: &[u8]) -> bool {
    let (eights, rest) = text.as_chunks::<8>();
    // To the end whatever comes: what needs an escape is rare.
    let found = eights
        .iter()
        .fold(0, |found, eight| found | escapes(*eight));
    let found = match text.last_chunk::<8>() {
        // Some of them once more is quicker than the rest one by one.
        Some(last) => found | escapes(*last),
        None => rest.iter().fold(found, |found, byte| {
            found | u64::from((*byte < 0x20) | (*byte == b'"') | (*byte == b'\\'))
        }),
    };
    found == 0
}

/// Not 0 where one of `eight` bytes needs an escape: below the space, a quote, a
/// backslash. Subtracting takes a byte's top bit from 0 to 1 only where it was smaller,
/// up to the first one of which that is true.
fn escapes(eight: [u8; 8]) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const TOP: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |bytes: u64, than: u64| bytes.wrapping_sub(than) & !bytes & TOP;
    let bytes = u64::from_le_bytes(eight);
    let quote = bytes ^ u64::from_le_bytes([b'"'; 8]);
    let backslash = bytes ^ u64::from_le_bytes([b'\\'; 8]);
    below(bytes, u64::from_le_bytes([b' '; 8])) | below(quote, EACH) | below(backslash, EACH)
}

fn none_in_records<T>() -> Result<T> {
    Err(Error::custom("no record has a value of this kind"))
}

/// What `serde_json` writes just as quickly.
macro_rules! as_serde_json_does {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<()> {
            serde_json::Serializer::new(self.out).$method(value)
        })*
    };
}

impl<'a> Serializer for Json<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = List<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = List<'a>;
    type SerializeStruct = List<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    as_serde_json_does!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_f32: f32, serialize_f64: f64, serialize_char: char,
        serialize_bytes: &[u8]
    );

    fn serialize_str(self, text: &str) -> Result<()> {
        if !is_plain(text.as_bytes()) {
            return serde_json::to_writer(self.out, text);
        }
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
        Ok(())
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<()> {
        let begin = self.out.len();
        self.out.push(b'"');
        write!(self.out, "{value}").map_err(Error::custom)?;
        let text = begin.saturating_add(1);
        if self.out.get(text..).is_some_and(is_plain) {
            self.out.push(b'"');
            return Ok(());
        }
        self.out.truncate(begin);
        serde_json::Serializer::new(self.out).collect_str(value)
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<()> {
        none_in_records()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>> {
        Ok(List::begin(self.out, b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Impossible<(), Error>> {
        none_in_records()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Impossible<(), Error>> {
        none_in_records()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>> {
        none_in_records()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<List<'a>> {
        Ok(List::begin(self.out, b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<List<'a>> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>> {
        none_in_records()
    }
}

/// What stands between two brackets, with commas.
struct List<'a> {
    out: &'a mut Vec<u8>,
    close: u8,
    empty: bool,
}

impl<'a> List<'a> {
    fn begin(out: &'a mut Vec<u8>, open: u8, close: u8) -> Self {
        out.push(open);
        Self {
            out,
            close,
            empty: true,
        }
    }

    fn next(&mut self) -> Json<'_> {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        Json { out: self.out }
    }
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(self.next())
    }

    fn end(self) -> Result<()> {
        self.out.push(self.close);
        Ok(())
    }
}

/// Keys are texts.
impl SerializeMap for List<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        key.serialize(self.next())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.out.push(b':');
        value.serialize(Json { out: self.out })
    }

    fn end(self) -> Result<()> {
        SerializeSeq::end(self)
    }
}

impl SerializeStruct for List<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<()> {
        self.serialize_entry(key, value)
    }

    fn end(self) -> Result<()> {
        SerializeSeq::end(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes itself by way of `Display`.
    struct Shown<'a>(&'a str);

    impl Serialize for Shown<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            serializer.collect_str(self.0)
        }
    }

    #[derive(Serialize)]
    struct Sample<'a> {
        text: &'a str,
        shown: Shown<'a>,
        list: Vec<&'a str>,
        none: Option<u64>,
        some: Option<u64>,
        flag: bool,
        number: f64,
        small: u16,
        negative: i64,
        unit: (),
        nested: std::collections::BTreeMap<&'a str, u64>,
    }

    #[test]
    fn everything_is_written_as_serde_json_writes_it() {
        let every: String = (0..=0x17f).filter_map(char::from_u32).collect();
        let mut texts = vec![
            String::new(),
            every.clone(),
            "http://a.test/x?y=1".to_owned(),
        ];
        // Each character alone, too, at each place: one must not hide another.
        for before in 0..9 {
            let before = "x".repeat(before);
            texts.extend(every.chars().map(|one| format!("{before}{one} after")));
            texts.extend(every.chars().map(|one| format!("{before}{one}")));
        }
        for text in &texts {
            let sample = Sample {
                text,
                shown: Shown(text),
                list: vec![text, "b", ""],
                none: None,
                some: Some(u64::MAX),
                flag: true,
                number: 1.5,
                small: 7,
                negative: -3,
                unit: (),
                nested: [(text.as_str(), 1), ("zz", 2)].into(),
            };
            let mut written = Vec::new();
            write(&sample, &mut written).unwrap();
            let written = String::from_utf8(written).unwrap();
            assert_eq!(written, serde_json::to_string(&sample).unwrap());
        }
        let mut written = Vec::new();
        write(&Vec::<u8>::new(), &mut written).unwrap();
        assert_eq!(written, b"[]");
    }

    #[test]
    fn what_no_record_has_is_an_error_and_not_a_broken_line() {
        assert!(write(&(1, 2), &mut Vec::new()).is_err());
    }
}
