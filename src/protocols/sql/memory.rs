//! Analyses of texts seen before, by their exact text, bounded in bytes.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::{Analysis, Dialect};

/// Longest text that is remembered, bytes.
const REMEMBERED_BYTES_MAX: usize = 32 << 10;

/// Remembered analyses. Cloning is sharing, by way of an `Arc` around it.
pub struct Analyses {
    known: Cache<Key, Arc<Analysis>, Weight>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    dialect: Dialect,
    text: Box<str>,
}

/// A key that borrows its text; hashes as [`Key`] does.
#[derive(Hash)]
struct Asked<'a> {
    dialect: Dialect,
    text: &'a str,
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.dialect == key.dialect && *self.text == *key.text
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Analysis>> for Weight {
    fn weight(&self, key: &Key, analysis: &Arc<Analysis>) -> u64 {
        let bytes = key.text.len().saturating_add(analysis.weight());
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl std::fmt::Debug for Analyses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analyses")
            .field("known", &self.known.len())
            .field("bytes", &self.known.weight())
            .finish()
    }
}

impl Analyses {
    /// At most `bytes_max` bytes of them, about.
    pub fn new(bytes_max: usize) -> Self {
        let weight = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        // A statement of an application is some hundred bytes.
        Self {
            known: Cache::with_weighter(bytes_max >> 10, weight, Weight),
        }
    }

    /// What `text` is: remembered, or read now.
    pub fn of(&self, text: &str, dialect: Dialect) -> Arc<Analysis> {
        if text.len() > REMEMBERED_BYTES_MAX {
            return Arc::new(Analysis::of(text, dialect));
        }
        if let Some(known) = self.known.get(&Asked { dialect, text }) {
            return known;
        }
        let analysis = Arc::new(Analysis::of(text, dialect));
        let text = text.into();
        self.known.insert(Key { dialect, text }, analysis.clone());
        analysis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Dialect = Dialect::Postgres {
        standard_conforming_strings: false,
    };

    #[test]
    fn a_known_text_is_read_once_for_each_dialect() {
        let known = Analyses::new(1 << 20);
        let text = r"SELECT 'a\' ; DROP TABLE t; --'";
        let first = known.of(text, Dialect::POSTGRES);
        assert!(Arc::ptr_eq(&first, &known.of(text, Dialect::POSTGRES)));
        let other = known.of(text, OFF);
        assert_eq!((first.statements.len(), other.statements.len()), (2, 1));
    }

    #[test]
    fn c_8_what_is_remembered_is_bounded_in_bytes_whatever_the_texts() {
        let known = Analyses::new(64 << 10);
        for number in 0..2_000 {
            drop(known.of(
                &format!("SELECT a{number} FROM t{number}"),
                Dialect::POSTGRES,
            ));
        }
        let long = format!("SELECT {}", "a, ".repeat(20_000));
        drop(known.of(&long, Dialect::POSTGRES));
        assert!(known.known.weight() <= 64 << 10, "{known:?}");
        assert!(known.known.len() > 10, "{known:?}");
    }
}
