//! Analyses of texts seen before, bounded in bytes: by their exact text, and by
//! their shape, as most texts differ from others in their literals only.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::analysis::cut;
use super::words::Words;
use super::{Analysis, Dialect, shape, tags};

/// Longest text that is remembered, bytes.
const REMEMBERED_BYTES_MAX: usize = 32 << 10;

/// Remembered analyses. Cloning is sharing, by way of an `Arc` around it.
pub struct Analyses {
    known: Cache<Key, Arc<Analysis>, Weight>,
}

/// A text and its reading, to be told from others: texts are equal if their bytes are,
/// readings if they are one.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a>(pub &'a Arc<str>, pub &'a Arc<Analysis>);

impl PartialEq for Read<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same_text = Arc::ptr_eq(self.0, other.0) || self.0 == other.0;
        same_text && Arc::ptr_eq(self.1, other.1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Text,
    Shape,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    by: By,
    dialect: Dialect,
    text: Box<str>,
}

/// A key that borrows its text; hashes as [`Key`] does.
#[derive(Hash)]
struct Asked<'a> {
    by: By,
    dialect: Dialect,
    text: &'a str,
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.by == key.by && self.dialect == key.dialect && *self.text == *key.text
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
        if let Some(known) = self.get(By::Text, text, dialect) {
            return known;
        }
        if dialect.has_conditions(text) {
            let analysis = Arc::new(Analysis::of(text, dialect));
            self.put(By::Text, text.into(), dialect, &analysis);
            return analysis;
        }
        let analysis = match cut(text, dialect) {
            Ok(words) => self.by_shape(Words {
                text,
                words: &words,
                dialect,
            }),
            Err(why) => Arc::new(Analysis::unreadable(text, why)),
        };
        self.put(By::Text, text.into(), dialect, &analysis);
        analysis
    }

    fn by_shape(&self, all: Words<'_>) -> Arc<Analysis> {
        let known = shape::key(all).map(|shape| {
            self.get(By::Shape, &shape, all.dialect).unwrap_or_else(|| {
                let analysis = Arc::new(Analysis::of_words(all));
                self.put(By::Shape, shape, all.dialect, &analysis);
                analysis
            })
        });
        let known = known.unwrap_or_else(|| Arc::new(Analysis::of_words(all)));
        // Tags stand in a comment, which is in no shape.
        let tags = tags::trailing(all.text, all.dialect);
        if tags.is_empty() {
            return known;
        }
        Arc::new(Analysis::clone(&known).tagged(tags))
    }

    fn get(&self, by: By, text: &str, dialect: Dialect) -> Option<Arc<Analysis>> {
        self.known.get(&Asked { by, dialect, text })
    }

    fn put(&self, by: By, text: Box<str>, dialect: Dialect, analysis: &Arc<Analysis>) {
        self.known
            .insert(Key { by, dialect, text }, analysis.clone());
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
    fn what_is_remembered_by_shape_is_what_reading_the_text_says() {
        let known = Analyses::new(1 << 20);
        for (alike, shared) in [
            (
                [
                    "SELECT a FROM t WHERE b = 1",
                    "SELECT a FROM t WHERE b = 22.5e3",
                ],
                true,
            ),
            (
                ["SELECT 'a''b'", "SELECT /* ; */ $$ ; DROP TABLE t $$ -- x"],
                true,
            ),
            (["SELECT E'\\''", "SELECT U&'a' UESCAPE '!'"], false),
            (["COPY t FROM '/a'", "COPY t FROM $$/b$$"], true),
            (["SELECT 1", "SELECT '1'"], false),
            (["SELECT f(1)", "SELECT f (1)"], false),
            (["SELECT \"1\"", "SELECT \"2\""], false),
            (
                ["DELETE FROM a WHERE x = $1", "DELETE FROM a WHERE x = $2"],
                false,
            ),
            (
                ["DELETE FROM a WHERE x = 'x", "DELETE FROM a WHERE x = 'y"],
                false,
            ),
            (["SELECT @a", "SELECT @b"], false),
            (["SELECT 1; DROP TABLE t", "SELECT 2; DROP TABLE t"], true),
        ] {
            for dialect in [Dialect::POSTGRES, OFF, Dialect::MYSQL] {
                let all = alike.map(|text| known.of(text, dialect));
                for (text, read) in alike.iter().zip(&all) {
                    assert_eq!(**read, Analysis::of(text, dialect), "{text}");
                }
                if dialect == Dialect::POSTGRES {
                    assert_eq!(Arc::ptr_eq(&all[0], &all[1]), shared, "{alike:?}");
                }
            }
        }
    }

    #[test]
    fn tags_are_those_of_the_text_whatever_is_remembered_of_its_shape() {
        let known = Analyses::new(1 << 20);
        for value in ["a", "b"] {
            let text = format!("SELECT 1 /*controller='{value}'*/");
            let read = known.of(&text, Dialect::POSTGRES);
            assert_eq!(read.tags, [("controller".into(), value.into())]);
        }
        assert_eq!(known.of("SELECT 2", Dialect::POSTGRES).tags, []);
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
