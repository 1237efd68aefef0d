//! Common table expressions: names for queries that hide tables.

use super::level::{At, Inside};
use super::{K, Walk};

impl Walk<'_, '_> {
    pub(super) fn cte_name(&mut self, at: usize) -> usize {
        match self.words.name(at) {
            Some(name) => {
                if self.level.recursive {
                    self.known.push(name.clone());
                }
                self.cte.push(name);
                self.level.at = At::CteHead;
            }
            None => self.found.give_up("a common table expression has no name"),
        }
        at.saturating_add(1)
    }

    pub(super) fn cte_head(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        match self.words.keyword(at) {
            K::As | K::Not | K::Materialized => {}
            _ if self.words.is_mark(at, b'(') => {
                let before = at
                    .checked_sub(1)
                    .map_or(K::Other, |at| self.words.keyword(at));
                if matches!(before, K::As | K::Materialized) {
                    self.level.at = At::CteTail;
                    self.open(Inside::Statement, At::Start);
                    self.level.body = true;
                } else {
                    self.open_names();
                }
            }
            _ => self
                .found
                .give_up("a common table expression is not understood"),
        }
        next
    }

    pub(super) fn cte_tail(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        match self.words.keyword(at) {
            _ if self.words.is_mark(at, b',') => self.level.at = At::CteName,
            word if word.begins_query()
                || (word.begins_change() && self.level.inside == Inside::Statement) =>
            {
                self.level.at = At::Start;
                return self.start(at);
            }
            _ if self.words.is_mark(at, b'(') => {
                self.level.at = At::Start;
                return self.start(at);
            }
            _ => self
                .found
                .give_up("a common table expression is not understood"),
        }
        next
    }
}
