//! Verdicts given before, under everything they depend on.
//!
//! A key is compared whole, never by its hash alone, and a memory lives as long
//! as one generation of the policy: a reload starts with an empty one.

use std::sync::Arc;

use memchr::memmem::Finder;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::domain::{Headers, JsonText, Stage};
use crate::policy::Ruling;

use super::fields::{Field, Raw, Subject, Told, read};
use super::member::{Member, member};
use super::reads::Reads;

/// Longest key kept, bytes; an operation with a longer one is evaluated.
const KEY_BYTES_MAX: usize = 8 << 10;
/// Longest body that may be part of a key, bytes.
const BODY_BYTES_MAX: usize = 4 << 10;
/// What an entry weighs besides its key and its texts, bytes.
const ENTRY_BYTES: usize = 256;

/// Remembered verdicts of one policy generation.
pub(super) struct Memory {
    reads: Reads,
    fields: Vec<Field>,
    /// What is looked for, and in which field.
    searches: Vec<(Field, Finder<'static>)>,
    verdicts: Cache<Box<[u8]>, Arc<Ruling>, Weight>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("reads", &self.reads)
            .field("verdicts", &self.verdicts.len())
            .finish()
    }
}

impl Memory {
    /// At most `bytes_max` bytes of verdicts, about.
    pub(super) fn new(reads: Reads, bytes_max: usize) -> Self {
        let entries = bytes_max.checked_div(ENTRY_BYTES << 1).unwrap_or(0);
        let weight = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        Self {
            fields: reads.keyed().into_iter().collect(),
            searches: reads
                .searched()
                .into_iter()
                .map(|(field, part)| (field, Finder::new(part).into_owned()))
                .collect(),
            reads,
            verdicts: Cache::with_weighter(entries, weight, Weight),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.verdicts.len()
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.verdicts.weight()
    }

    /// Writes the key of `subject` into `key`. `None`: too long to remember, or
    /// told by a hook, whose attributes may be anything.
    pub(super) fn key(&self, subject: &Subject<'_>, key: &mut Vec<u8>) -> Option<()> {
        key.clear();
        if subject.operation.reported.is_some() {
            return None;
        }
        // Which parts a document has at all: policy may ask for that alone.
        key.push(if subject.call().is_some() { b'h' } else { b'o' });
        key.push(match (subject.stage(), subject.answered()) {
            (Stage::Started, _) => b's',
            (Stage::Completed, Some(_)) => b'a',
            (Stage::Completed, None) => b'e',
        });
        for field in &self.fields {
            write(*field, &read(*field, subject), key)?;
        }
        for (field, part) in &self.searches {
            search(*field, part, &read(*field, subject), key)?;
        }
        if !self.reads.whole_reading {
            for name in &self.reads.reading {
                write_member(subject.reading(), name, key)?;
            }
        }
        if let Some(call) = subject.call() {
            for name in &self.reads.request_headers {
                write_header(&call.headers, name, key);
            }
        }
        if let Some(answer) = subject.answer() {
            for name in &self.reads.response_headers {
                write_header(&answer.headers, name, key);
            }
        }
        (key.len() <= KEY_BYTES_MAX).then_some(())
    }

    pub(super) fn recall(&self, key: &[u8]) -> Option<Arc<Ruling>> {
        self.verdicts.get(key)
    }

    pub(super) fn remember(&self, key: Box<[u8]>, ruling: Arc<Ruling>) {
        self.verdicts.insert(key, ruling);
    }
}

/// Values are tagged, and what varies in length says how long it is, so that
/// no two operations can share a key by where one value ends.
fn write(field: Field, value: &Raw<'_>, key: &mut Vec<u8>) -> Option<()> {
    let text = |tag: u8, text: &str, key: &mut Vec<u8>| {
        key.push(tag);
        write_text(text, key);
    };
    match value {
        Raw::Absent => key.push(b'-'),
        Raw::Null => key.push(b'0'),
        Raw::Bool(true) => key.push(b't'),
        Raw::Bool(false) => key.push(b'f'),
        Raw::Int(number) => {
            key.push(b'i');
            key.extend_from_slice(&number.to_le_bytes());
        }
        Raw::Text(value) if is_body(field) && value.len() > BODY_BYTES_MAX => return None,
        Raw::Text(value) => text(b'x', value, key),
        Raw::Made(value) => text(b'x', value, key),
        Raw::Json(value) => text(b'j', &value.0, key),
    }
    (key.len() <= KEY_BYTES_MAX).then_some(())
}

/// Whether `part` stands in a text; what is no text is told whole.
fn search(field: Field, part: &Finder<'_>, value: &Raw<'_>, key: &mut Vec<u8>) -> Option<()> {
    let text: &str = match value {
        Raw::Text(text) => text,
        Raw::Made(text) => text,
        Raw::Absent | Raw::Null | Raw::Bool(_) | Raw::Int(_) | Raw::Json(_) => {
            return write(field, value, key);
        }
    };
    let found = part.find(text.as_bytes()).is_some();
    key.push(if found { b'y' } else { b'n' });
    Some(())
}

fn is_body(field: Field) -> bool {
    let bodies = [
        Field::RequestBody,
        Field::ResponseBody,
        Field::Told(Told::Statement),
    ];
    bodies.contains(&field)
}

fn write_text(text: &str, key: &mut Vec<u8>) {
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    key.extend_from_slice(&length.to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

/// A member of the reading of a statement; all of it, where that is not clear.
fn write_member(reading: Option<&JsonText>, name: &str, key: &mut Vec<u8>) -> Option<()> {
    match reading.map(|reading| (member(&reading.0, name), reading)) {
        None => key.push(b'-'),
        Some((Member::Absent, _)) => key.push(b'n'),
        Some((Member::Found(text), _)) => {
            key.push(b'm');
            write_text(text, key);
        }
        Some((Member::Unclear, reading)) => {
            key.push(b'w');
            write_text(&reading.0, key);
        }
    }
    (key.len() <= KEY_BYTES_MAX).then_some(())
}

fn write_header(headers: &Headers, name: &str, key: &mut Vec<u8>) {
    for (_, value) in headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)) {
        key.push(b'h');
        write_text(value, key);
    }
    key.push(b'.');
}

#[derive(Clone, Copy)]
struct Weight;

impl Weighter<Box<[u8]>, Arc<Ruling>> for Weight {
    fn weight(&self, key: &Box<[u8]>, ruling: &Arc<Ruling>) -> u64 {
        let reason = ruling.reason.as_ref().map_or(0, |reason| reason.0.len());
        let redacted = ruling.redacted.as_ref().map_or(0, |json| json.0.len());
        let constraints: usize = ruling.constraints.iter().map(|word| word.len()).sum();
        let bytes = [key.len(), reason, redacted, constraints]
            .into_iter()
            .fold(ENTRY_BYTES, usize::saturating_add);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
