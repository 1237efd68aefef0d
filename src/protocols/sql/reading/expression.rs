//! Within an expression, or a list of them: what is called, and the clauses
//! that lead out of it.

use super::level::{At, Does, Inside, Joined};
use super::{K, Kind, Walk};
use crate::protocols::sql::analysis::{Access, Class};
use crate::protocols::sql::functions::effect;

impl Walk<'_, '_> {
    pub(super) fn expression(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        if self.is_index_hint(at) {
            return self.index_hints(at);
        }
        let query = self.level.does != Does::Nothing;
        let word = self.words.keyword(at);
        match self.words.kind(at) {
            Some(Kind::Mark(b'(')) => {
                self.parenthesis(at);
                return next;
            }
            Some(Kind::Mark(b',')) if self.level.from => self.level.at = At::Item,
            Some(Kind::Name | Kind::EscapedName) => return self.named(at),
            Some(Kind::Word) if word == K::Other => return self.named(at),
            Some(Kind::Word) => return self.clause(at, word, query),
            _ => {}
        }
        next
    }

    /// A keyword within a query, or within an expression.
    pub(super) fn clause(&mut self, at: usize, word: K, query: bool) -> usize {
        let next = at.saturating_add(1);
        let joins = query || self.level.inside == Inside::Items;
        match word {
            // What follows is a label or an alias, whatever it is called.
            K::As if query && !self.words.is_mark(next, b'(') => {
                return next.saturating_add(1);
            }
            K::From if query => {
                if !self.is_distinct_from(at) {
                    (self.level.from, self.level.at) = (true, At::Item);
                }
            }
            // Before anything is selected from, it is a modifier of the SELECT.
            K::Straight if query && !self.level.from => {}
            K::Join | K::Straight if joins => {
                (self.level.from, self.level.at) = (true, At::Item);
            }
            K::Join | K::Straight => self.found.give_up("it joins outside a query"),
            K::Set if self.level.joined == Joined::Updated => {
                self.level.joined = Joined::Read;
                self.leave_from();
            }
            K::On if self.is_on_duplicate_key(at) => self.leave_from(),
            K::On | K::Tablesample if self.level.at == At::ItemTail => {
                self.level.at = At::Expression;
            }
            K::Where if query => {
                self.level.has_where = true;
                self.leave_from();
            }
            K::Group | K::Order if query && self.words.is(next, K::By) => self.leave_from(),
            K::Having | K::Limit if query => self.leave_from(),
            K::Returning if self.is_returning(at) => self.leave_from(),
            K::Window if self.is_window(at) => self.leave_from(),
            // Names of columns, in MySQL.
            K::Window | K::Offset | K::Fetch | K::Returning
                if query && self.words.dialect.is_postgres() =>
            {
                self.leave_from();
            }
            K::Union | K::Intersect | K::Except => return self.set_operation(next),
            K::For if self.is_system_time(next) => {
                self.level.at = At::Expression;
                return next.saturating_add(1);
            }
            K::For if self.level.does == Does::Select => return self.locking(next),
            K::For if self.level.does == Does::Insert && locks(self.words.keyword(next)) => {
                return self.locking(next);
            }
            K::Lock if query && self.is_share_mode(at) => {
                self.found.flags.for_update = true;
                self.leave_from();
                return next.saturating_add(3);
            }
            K::Into if self.level.does == Does::Select => return self.selects_into(next),
            K::Into if self.level.does == Does::Insert => {
                self.found.give_up("it selects into where nothing can be");
            }
            // `ON CONFLICT DO UPDATE`. In MySQL it may be an alias.
            K::Do if self.level.does == Does::Insert && self.words.dialect.is_postgres() => {
                self.leave_from();
                if self.words.is(next, K::Update) {
                    self.found.verb("UPDATE", Class::Write);
                    return next.saturating_add(1);
                }
            }
            K::Then if self.level.does == Does::Merge => return self.merge_action(next),
            K::When if self.level.does == Does::Merge => self.leave_from(),
            K::Select => self.found.give_up("it has a query where none is expected"),
            // Names of functions like any other, where no clause begins with them.
            K::Set | K::Update | K::Insert
                if matches!(self.level.does, Does::Nothing | Does::Select)
                    && self.words.is_mark(next, b'(') =>
            {
                return self.named(at);
            }
            _ => {
                let calls_nothing = match self.words.dialect.is_postgres() {
                    true => word.calls_nothing(),
                    false => word.calls_nothing_of_mysql(),
                };
                if self.words.is_mark(next, b'(') && !calls_nothing {
                    return self.named(at);
                }
            }
        }
        next
    }

    pub(super) fn leave_from(&mut self) {
        self.level.from = false;
        self.level.at = At::Expression;
    }

    /// Behind `UNION` and its kin another query follows.
    pub(super) fn set_operation(&mut self, at: usize) -> usize {
        match self.level.does {
            Does::Nothing | Does::Select => self.level.does = Does::Select,
            Does::Insert => {}
            Does::Update | Does::Delete | Does::Merge => {
                self.found.give_up("it has a query where none is expected");
            }
        }
        self.leave_from();
        self.level.at = At::Start;
        let all = matches!(self.words.keyword(at), K::All | K::Distinct);
        let operand = at.saturating_add(usize::from(all));
        if !self.words.keyword(operand).begins_query() && !self.words.is_mark(operand, b'(') {
            self.found.give_up("a set operation in it has no query");
        }
        operand
    }

    /// `IS [NOT] DISTINCT FROM` selects from nothing.
    pub(super) fn is_distinct_from(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else {
            return false;
        };
        self.words.is(before, K::Distinct)
            && before
                .checked_sub(1)
                .is_some_and(|is| matches!(self.words.keyword(is), K::Is | K::Not))
    }

    pub(super) fn locking(&mut self, at: usize) -> usize {
        match locks(self.words.keyword(at)) {
            true => self.found.flags.for_update = true,
            false => self.found.give_up("it has a clause that is not known"),
        }
        self.leave_from();
        at.saturating_add(1)
    }

    pub(super) fn selects_into(&mut self, at: usize) -> usize {
        let mut at = at;
        if !self.words.dialect.is_postgres() {
            match self.words.keyword(at) {
                K::Outfile | K::Dumpfile => {
                    self.found.flags.server_file = true;
                    self.found.verb("SELECT", Class::Admin);
                    return at.saturating_add(1);
                }
                // `INTO @variable, @another`.
                _ if self.words.of(at) == "@" => {
                    self.leave_from();
                    return at.saturating_add(1);
                }
                _ => {}
            }
        }
        while matches!(
            self.words.keyword(at),
            K::Temp | K::Temporary | K::Unlogged | K::Local | K::Global | K::Table
        ) {
            at = at.saturating_add(1);
        }
        match self.words.dotted(at) {
            Some((name, next)) => {
                self.found.relation(&name, Access::Schema);
                self.found.verb("SELECT", Class::Schema);
                next
            }
            None => {
                self.found.give_up("what it selects into is not known");
                at
            }
        }
    }

    pub(super) fn merge_action(&mut self, at: usize) -> usize {
        let verb = match self.words.keyword(at) {
            K::Insert => "INSERT",
            K::Update => "UPDATE",
            K::Delete => "DELETE",
            // `DO NOTHING`, and the `THEN` of a `CASE`.
            _ => return at,
        };
        self.found.verb(verb, Class::Write);
        at.saturating_add(1)
    }

    /// A name within an expression: it may be called.
    pub(super) fn named(&mut self, at: usize) -> usize {
        if let Some(next) = self.sequence(at) {
            return next;
        }
        let Some((name, next)) = self.words.dotted(at) else {
            if self.words.kind(at) == Some(Kind::EscapedName) {
                self.found.give_up("a name in it has Unicode escapes");
            }
            return at.saturating_add(1);
        };
        if self.words.is_mark(next, b'(') {
            let lists = self.level.inside == Inside::Columns || self.level.at == At::ItemTail;
            if lists && self.lists_names(at) {
                // `numeric(10,2)`, or the alias in `f() AS t(a int)`.
                self.open_names();
                return next.saturating_add(1);
            }
            if !self.is_type(at) {
                self.found.function(&name);
                self.of_sequence(&name, next.saturating_add(1));
            }
            // The parenthesis itself is next; it opens arguments.
            self.open(Inside::Value, At::Start);
            return next.saturating_add(1);
        }
        // `x.f` calls `f(x)` where no column has that name.
        let behind_point = at
            .checked_sub(1)
            .is_some_and(|at| self.words.is_mark(at, b'.'));
        let last = name.last().map(|name| name.to_ascii_lowercase());
        if (behind_point || name.len() > 1) && last.as_deref().and_then(effect).is_some() {
            self.found.function(&name);
        }
        next
    }

    /// Whether word `at` names a type: `x::numeric(10,2)`.
    pub(super) fn is_type(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        before.is_some_and(|before| {
            self.words.is(before, K::As)
                || (self.words.is_mark(before, b':')
                    && before
                        .checked_sub(1)
                        .is_some_and(|first| self.words.is_mark(first, b':')))
        })
    }

    pub(super) fn parenthesis(&mut self, at: usize) {
        let before = at.checked_sub(1);
        let behind = before.map_or(K::Other, |before| self.words.keyword(before));
        if self.level.inside == Inside::Columns {
            return self.open_names();
        }
        if self.level.at == At::ItemTail {
            // `AS t(a, b)`, `USING (a)`, `TABLESAMPLE system (1)`: names, or an
            // argument that may be any expression.
            let sampled = before.and_then(|before| before.checked_sub(1));
            let argument = behind == K::Repeatable
                || sampled.is_some_and(|at| self.words.is(at, K::Tablesample));
            return match argument {
                true => self.open(Inside::Value, At::Start),
                false => self.open_names(),
            };
        }
        if behind == K::Using && self.level.from {
            return self.open_names();
        }
        self.open(Inside::Value, At::Start);
    }
}

/// Whether rows are locked behind `FOR` and this word.
fn locks(word: K) -> bool {
    matches!(word, K::Update | K::Share | K::No | K::Key)
}
