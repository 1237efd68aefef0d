//! What a client has prepared, as far as it is known: the text behind a name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocols::sql::{Analyses, Analysis, Class, Dialect, Read};

/// Most statements, and most portals, of one session that are remembered; one
/// that is not counts as unknown, and so as opaque.
const NAMES_MAX: usize = 4_096;
/// Most bytes of their texts.
const TEXT_BYTES_MAX: usize = 8 << 20;

/// A text, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// As sent; lossy where it is not UTF-8. `None`: nobody here has seen it.
    pub(super) text: Option<Arc<str>>,
    /// Absent where it cannot be read, with `why`.
    pub(super) analysis: Option<Arc<Analysis>>,
    /// Why it is opaque though it may look like something.
    pub(super) why: Option<&'static str>,
}

impl Text {
    /// A statement or portal of a name that nobody here has seen prepared.
    pub(super) fn unknown() -> Self {
        Self {
            text: None,
            analysis: None,
            why: Some("it was prepared out of sight"),
        }
    }

    /// A text of which not all was read.
    pub(super) fn too_long() -> Self {
        Self {
            why: Some("it is too long to be understood"),
            ..Self::unknown()
        }
    }

    fn read(&self) -> Option<Read<'_>> {
        Some(Read(self.text.as_ref()?, self.analysis.as_ref()?))
    }

    /// Whether it is the same text, read in the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.why == other.why && self.read().is_some_and(|read| Some(read) == other.read())
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.why.is_some()
            || self
                .analysis
                .as_ref()
                .is_none_or(|analysis| analysis.class() == Class::Opaque)
    }

    /// Whether it gives, uses or forgets names by SQL: what those mean is looked up
    /// when it is executed.
    pub(super) fn goes_by_name(&self) -> bool {
        self.why.is_none() && self.analysis.as_ref().is_some_and(|found| found.by_name)
    }

    /// Whether it has no statement at all.
    pub(super) fn is_empty(&self) -> bool {
        self.why.is_none()
            && self
                .analysis
                .as_ref()
                .is_some_and(|analysis| analysis.statements.is_empty())
    }

    fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.len())
    }
}

/// How the server reads texts of this session, as it last reported it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    known: Arc<Analyses>,
    conforming: bool,
    /// Of the encodings in which a letter may end in a backslash.
    ambiguous: bool,
}

impl Reading {
    pub(super) fn new(known: Arc<Analyses>) -> Self {
        Self {
            known,
            conforming: true,
            ambiguous: false,
        }
    }

    /// A `ParameterStatus`.
    pub(super) fn reported(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => self.conforming = value != b"off",
            b"client_encoding" => {
                let value = value.to_ascii_uppercase();
                self.ambiguous = matches!(
                    &*value,
                    b"SJIS" | b"SHIFT_JIS_2004" | b"BIG5" | b"GBK" | b"UHC" | b"GB18030" | b"JOHAB"
                );
            }
            _ => {}
        }
    }

    /// What `text` is as the server reads it now, and by which rules.
    pub(super) fn again(&self, text: &str) -> (Arc<Analysis>, Dialect) {
        let dialect = dialect(self.conforming);
        (self.known.of(text, dialect), dialect)
    }

    /// What `text` is. Where answers are still owed, one of them may change how
    /// the server reads what follows: then both readings must agree.
    pub(super) fn read(&self, text: &[u8], unsettled: bool) -> Text {
        let Ok(text) = std::str::from_utf8(text) else {
            return Text {
                text: Some(String::from_utf8_lossy(text).into()),
                analysis: None,
                why: Some("it is not valid UTF-8"),
            };
        };
        let analysis = self.known.of(text, dialect(self.conforming));
        let backslash = memchr::memchr(b'\\', text.as_bytes()).is_some();
        let why = if !text.is_ascii() && (self.ambiguous || (unsettled && backslash)) {
            Some("its encoding is not known for certain")
        } else if unsettled
            && backslash
            && *self.known.of(text, dialect(!self.conforming)) != *analysis
        {
            Some("how the server reads its backslashes is not known for certain")
        } else {
            None
        };
        Text {
            text: Some(text.into()),
            analysis: Some(analysis),
            why,
        }
    }
}

fn dialect(standard_conforming_strings: bool) -> Dialect {
    Dialect::Postgres {
        standard_conforming_strings,
    }
}

/// Texts by name, bounded.
#[derive(Debug)]
pub(super) struct Names<T> {
    known: HashMap<Box<[u8]>, T>,
    bytes: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            bytes: 0,
        }
    }
}

/// What stands behind a name.
pub(super) trait Named {
    /// Its text.
    fn text(&self) -> &Text;
}

impl<T: Named> Names<T> {
    pub(super) fn get(&self, name: &[u8]) -> Option<&T> {
        self.known.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        self.known.get_mut(name)
    }

    pub(super) fn put(&mut self, name: Box<[u8]>, what: T) {
        drop(self.take(&name));
        let bytes = name.len().saturating_add(what.text().bytes());
        let all = self.bytes.saturating_add(bytes);
        if self.known.len() < NAMES_MAX && all <= TEXT_BYTES_MAX {
            self.bytes = all;
            self.known.insert(name, what);
        }
    }

    pub(super) fn take(&mut self, name: &[u8]) -> Option<T> {
        let (name, what) = self.known.remove_entry(name)?;
        let bytes = name.len().saturating_add(what.text().bytes());
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(what)
    }

    /// All of them.
    pub(super) fn into_all(self) -> impl Iterator<Item = (Box<[u8]>, T)> {
        self.known.into_iter()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }

    /// Forgets all that have a name.
    pub(super) fn clear_named(&mut self) {
        let unnamed = self.take(b"");
        self.clear();
        if let Some(unnamed) = unnamed {
            self.put(Box::default(), unnamed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for Text {
        fn text(&self) -> &Text {
            self
        }
    }

    fn reading() -> Reading {
        Reading::new(Arc::new(Analyses::new(1 << 20)))
    }

    #[test]
    fn pg_24_pg_25_what_may_be_read_in_two_ways_is_opaque() {
        let backslash = br"SELECT '\'; DROP TABLE t; --'".as_slice();
        let letters = "SELECT E'é\\'".as_bytes();
        let mut sjis = reading();
        sjis.reported(b"client_encoding", b"SJIS");
        for (reading, text, unsettled, expected) in [
            (reading(), backslash, false, Some(Class::Schema)),
            (reading(), backslash, true, None),
            (reading(), br"SELECT 'a\b'", true, Some(Class::Read)),
            (reading(), "SELECT 'é'".as_bytes(), true, Some(Class::Read)),
            (reading(), letters, true, None),
            (reading(), b"SELECT '\xff'", false, None),
            (sjis.clone(), "SELECT 'é'".as_bytes(), false, None),
            (sjis, b"SELECT 1", false, Some(Class::Read)),
        ] {
            let text = reading.read(text, unsettled);
            let class = text.analysis.as_ref().map(|analysis| analysis.class());
            let found = if text.is_opaque() { None } else { class };
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_remembered_of_a_session_is_bounded() {
        let mut names = Names::default();
        let text = || Text {
            text: Some("x".repeat(1 << 20).into()),
            ..Text::unknown()
        };
        for name in 0..20_u8 {
            names.put([name].into(), text());
        }
        assert_eq!(names.known.len(), 7);
        assert!(names.take(&[0]).is_some() && names.take(&[19]).is_none());
        names.put([30].into(), text());
        assert!(names.get(&[30]).is_some());
        names.put(Box::default(), Text::unknown());
        names.clear_named();
        assert_eq!((names.known.len(), names.bytes), (1, 0));
    }
}
