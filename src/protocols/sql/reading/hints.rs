//! MySQL's hints which of its indexes a table is read by: words of clauses stand in them
//! that are none of the statement's.

use super::level::At;
use super::{K, Kind, Walk};

impl Walk<'_, '_> {
    /// Whether one begins at word `at`: `USE`, `FORCE` or `IGNORE`, and `INDEX` or `KEY`.
    /// All of them are reserved, so they name nothing.
    pub(super) fn is_index_hint(&self, at: usize) -> bool {
        let second = self.words.keyword(at.saturating_add(1));
        if self.words.dialect.is_postgres() || !matches!(second, K::Index | K::Key) {
            return false;
        }
        match self.words.keyword(at) {
            K::Use | K::Ignore => true,
            K::Other => {
                self.words.kind(at) == Some(Kind::Word)
                    && self.words.of(at).eq_ignore_ascii_case("force")
            }
            _ => false,
        }
    }

    /// Those at word `at`, behind a table; the word behind them.
    pub(super) fn index_hints(&mut self, at: usize) -> usize {
        let mut at = at;
        if self.level.at != At::ItemTail {
            self.found.give_up("it has a hint where none is expected");
        }
        while self.is_index_hint(at) {
            let Some(behind) = self.index_hint(at) else {
                self.found
                    .give_up("a hint for an index in it is not understood");
                return at.saturating_add(1);
            };
            // A table behind a comma is never called so.
            let next = behind.saturating_add(1);
            let another = self.words.is_mark(behind, b',') && self.is_index_hint(next);
            at = if another { next } else { behind };
        }
        at
    }

    /// `USE INDEX [FOR JOIN | FOR ORDER BY | FOR GROUP BY] (a, b)`: the word behind it.
    fn index_hint(&self, at: usize) -> Option<usize> {
        let mut at = at.saturating_add(2);
        if self.words.is(at, K::For) {
            at = at.saturating_add(1);
            let by = self.words.is(at.saturating_add(1), K::By);
            at = match self.words.keyword(at) {
                K::Join => at.saturating_add(1),
                K::Order | K::Group if by => at.saturating_add(2),
                _ => return None,
            };
        }
        self.names_in_parentheses(at)
    }

    /// Behind `(a, b)` at word `at`, which has nothing but names in it.
    pub(super) fn names_in_parentheses(&self, at: usize) -> Option<usize> {
        if !self.words.is_mark(at, b'(') {
            return None;
        }
        let mut at = at.saturating_add(1);
        while !self.words.is_mark(at, b')') {
            if !self.words.is_mark(at, b',') {
                self.words.name(at)?;
            }
            at = at.saturating_add(1);
        }
        Some(at.saturating_add(1))
    }
}
