//! What is selected from, and what is changed.

use super::level::{At, Does, Inside};
use super::{K, Kind, Walk};
use crate::protocols::sql::analysis::{Access, Class};

impl Walk<'_, '_> {
    pub(super) fn item(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        match self.words.keyword(at) {
            // Names of tables, in MySQL.
            K::Only if self.words.dialect.is_postgres() => return next,
            K::Lateral if self.words.dialect.is_postgres() || self.words.is_mark(next, b'(') => {
                return next;
            }
            K::Only | K::Lateral => {}
            K::Rows if self.words.is(next, K::From) => {
                let open = next.saturating_add(1);
                self.level.at = At::ItemTail;
                if !self.words.is_mark(open, b'(') {
                    self.found.give_up("it selects from what is not known");
                }
                self.open(Inside::Value, At::Expression);
                return open.saturating_add(1);
            }
            K::Other => {}
            word if word.calls_nothing() || word.begins_query() => {
                self.found.give_up("it selects from what is not known");
                return next;
            }
            _ => {}
        }
        if self.words.is_mark(at, b'(') {
            self.level.at = At::ItemTail;
            self.open(Inside::Items, At::Start);
            return next;
        }
        let Some((name, next)) = self.words.dotted(at) else {
            self.found.give_up("it selects from what is not known");
            return next;
        };
        self.level.at = At::ItemTail;
        if self.words.is_mark(next, b'(') {
            // In MySQL, `JSON_TABLE`; behind a comma that ends what is selected from, any
            // other.
            self.found.function(&name);
            self.open(Inside::Value, At::Start);
            return next.saturating_add(1);
        }
        if self.words.is_mark(next, b'.') {
            self.found.give_up("it selects from what is not known");
        }
        let hidden = matches!(&*name, [only] if self.known.contains(only));
        if !hidden {
            self.joins(&name, at, next);
        }
        next
    }

    pub(super) fn target(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        let mysql = !self.words.dialect.is_postgres();
        match (self.level.does, self.words.keyword(at)) {
            (Does::Insert | Does::Merge, K::Into) | (Does::Delete, K::From) => return next,
            (Does::Update | Does::Delete | Does::Merge, K::Only) if !mysql => return next,
            (_, K::Low | K::Delayed | K::High | K::Ignore) if mysql => return next,
            (Does::Delete, K::Quick) if mysql && !self.is_behind_from(at) => return next,
            (Does::Update, _) if mysql => return self.updates(at),
            (_, K::Only | K::Quick) if mysql => {}
            (_, word) if word.calls_nothing() || word.begins_query() => {
                self.found.give_up("what it changes is not known");
                return next;
            }
            _ => {}
        }
        // `ONLY (t)`.
        let wrapped = self.words.is_mark(at, b'(')
            && at
                .checked_sub(1)
                .is_some_and(|before| self.words.is(before, K::Only));
        let first = at.saturating_add(usize::from(wrapped));
        let Some((name, mut next)) = self.words.dotted(first) else {
            self.found.give_up("what it changes is not known");
            return next;
        };
        if wrapped {
            if !self.words.is_mark(next, b')') {
                self.found.give_up("what it changes is not known");
            }
            next = next.saturating_add(1);
        }
        let all = next.saturating_add(1);
        if mysql && self.level.does == Does::Delete {
            self.deletes_from(at);
            // `a.*`
            if self.words.is_mark(next, b'.') && self.words.of(all) == "*" {
                next = all.saturating_add(1);
            }
        } else {
            self.found.relation(&name, Access::Write);
        }
        if self.words.is_mark(next, b'.') {
            self.found.give_up("what it changes is not known");
        }
        self.level.at = At::TargetTail;
        next
    }

    /// Whether word `at` stands where a table is named.
    fn is_behind_from(&self, at: usize) -> bool {
        at.checked_sub(1).is_some_and(|before| {
            self.words.is(before, K::From) || self.words.is_mark(before, b',')
        })
    }

    pub(super) fn target_tail(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        let word = self.words.keyword(at);
        let mysql = !self.words.dialect.is_postgres();
        match (self.level.does, word) {
            (Does::Insert, K::Select | K::Values) => {
                self.level.at = At::Expression;
                if word == K::Select {
                    self.found.verb("SELECT", Class::Read);
                }
            }
            (Does::Insert, _) if self.is_value(at) => self.level.at = At::Expression,
            (Does::Insert, K::With | K::Table) => return self.start(at),
            (Does::Insert, K::Default | K::Set | K::On | K::Returning) => {
                self.level.at = At::Expression;
                // `ON CONFLICT` and the like are read as clauses.
                return if word == K::On {
                    at.saturating_add(1)
                } else {
                    next
                };
            }
            (Does::Delete, K::Using | K::From) if mysql => self.deletes_among(),
            (Does::Delete, _) if mysql && self.words.is_mark(at, b',') => {
                self.level.at = At::Target;
            }
            (Does::Delete, K::Using) | (Does::Merge, K::Using) => {
                (self.level.from, self.level.at) = (true, At::Item);
            }
            (Does::Update, K::Set) => self.level.at = At::Expression,
            (Does::Update | Does::Delete, K::Where | K::Returning | K::Order | K::Limit) => {
                self.level.at = At::Expression;
                return self.expression(at);
            }
            // `AS` and an alias.
            (_, K::As) => return next.saturating_add(1),
            (_, K::Other) if self.words.name(at).is_some() => {}
            _ if self.words.of(at) == "*" => {}
            _ if self.words.is_mark(at, b'(') && self.level.does == Does::Insert => {
                let begins = self.words.keyword(next);
                let values =
                    begins == K::Values && !self.words.is_mark(next.saturating_add(1), b'(');
                if (begins.begins_query() && !values) || self.words.is_mark(next, b'(') {
                    self.level.at = At::Expression;
                    self.open(Inside::Value, At::Start);
                } else {
                    self.open_names();
                }
            }
            // `PARTITION (p)`.
            (Does::Delete, _) if mysql && self.words.is_mark(at, b'(') => {
                self.open_names();
            }
            _ if mysql => self.found.give_up("it has a clause that is not known"),
            // `OVERRIDING SYSTEM VALUE` and other words of no region.
            (Does::Insert, _) if self.words.kind(at) == Some(Kind::Word) => {}
            _ => self.found.give_up("it has a clause that is not known"),
        }
        next
    }
}
