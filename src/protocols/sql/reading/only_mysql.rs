//! Clauses and lists that only MySQL and MariaDB have, or have in a way of their own.

use super::level::{At, Does, Inside};
use super::{K, Kind, Walk};
use crate::protocols::sql::analysis::{Access, Class};

impl Walk<'_, '_> {
    /// Opens parentheses in which names stand, and in PostgreSQL types.
    ///
    /// MySQL has no types there: what looks like a call is one, so that it is read as an
    /// expression. A name that is only a name says nothing there either.
    pub(super) fn open_names(&mut self) {
        match self.words.dialect.is_postgres() {
            true => self.open(Inside::Columns, At::Expression),
            false => self.open(Inside::Value, At::Start),
        }
    }

    /// Whether the name at word `at`, in front of a parenthesis behind what is selected
    /// from, has a list of names in it: in MySQL, the alias of what is in parentheses, and
    /// `PARTITION (p)`. All others call something.
    pub(super) fn lists_names(&self, at: usize) -> bool {
        if self.words.dialect.is_postgres() {
            return true;
        }
        let before = at.checked_sub(1);
        let is_alias = before
            .is_some_and(|before| self.words.is_mark(before, b')') || self.words.is(before, K::As));
        is_alias || self.is_word(at, "PARTITION")
    }

    /// Whether word `at` is this one, outside quotes, in whatever case.
    fn is_word(&self, at: usize, word: &str) -> bool {
        self.words.kind(at) == Some(Kind::Word) && self.words.of(at).eq_ignore_ascii_case(word)
    }

    /// Whether `VALUE` stands for `VALUES` at word `at`: no table has an alias there.
    pub(super) fn is_value(&self, at: usize) -> bool {
        let next = at.saturating_add(1);
        !self.words.dialect.is_postgres()
            && self.is_word(at, "VALUE")
            && (self.words.is_mark(next, b'(') || self.words.is(next, K::Row))
    }

    /// Whether `ON DUPLICATE KEY` is at word `at`; the last of these is reserved.
    pub(super) fn is_on_duplicate_key(&self, at: usize) -> bool {
        let next = at.saturating_add(1);
        !self.words.dialect.is_postgres()
            && self.level.does == Does::Insert
            && self.is_word(next, "DUPLICATE")
            && self.words.is(next.saturating_add(1), K::Key)
    }

    /// Whether `RETURNING` at word `at` ends what an `INSERT` selects from, as in MariaDB.
    /// In MySQL it is an alias: behind that stand other words than an expression begins
    /// with. What joins more, behind either, is read as that.
    pub(super) fn is_returning(&self, at: usize) -> bool {
        let next = at.saturating_add(1);
        let is_alias = match self.words.keyword(next) {
            K::Other => {
                let ends = matches!(self.words.kind(next), None | Some(Kind::Mark(b',' | b')')));
                ends || self.is_word(next, "FORCE")
            }
            K::Join | K::Straight | K::On | K::Using | K::Use | K::Ignore | K::Where => true,
            K::Group | K::Order | K::Having | K::Limit | K::Window | K::For | K::Lock => true,
            K::Union | K::Intersect | K::Except | K::Into => true,
            _ => false,
        };
        // Behind it a parenthesis may be names of columns, and what is selected from goes on.
        let is_open = self.words.is_mark(next, b'(');
        !self.words.dialect.is_postgres()
            && self.level.does == Does::Insert
            && !is_alias
            && !is_open
    }

    /// Whether `WINDOW w AS (` is at word `at`: behind an alias no such words stand.
    pub(super) fn is_window(&self, at: usize) -> bool {
        let name = at.saturating_add(1);
        let by = name.saturating_add(1);
        let query = self.level.does != Does::Nothing;
        query
            && self.words.name(name).is_some()
            && self.words.is(by, K::As)
            && self.words.is_mark(by.saturating_add(1), b'(')
    }

    /// Whether word `at` is of MariaDB's `FOR SYSTEM_TIME AS OF x`, behind a table: what
    /// follows is an expression, up to what joins more.
    pub(super) fn is_system_time(&self, at: usize) -> bool {
        !self.words.dialect.is_postgres() && self.level.from && self.is_word(at, "SYSTEM_TIME")
    }

    /// Whether `LOCK IN SHARE MODE` is at word `at`.
    pub(super) fn is_share_mode(&self, at: usize) -> bool {
        let next = at.saturating_add(1);
        !self.words.dialect.is_postgres()
            && self.words.is(next, K::In)
            && self.words.is(next.saturating_add(1), K::Share)
    }

    /// MariaDB's `NEXT VALUE FOR s` and `PREVIOUS VALUE FOR s` at word `at`; the word behind
    /// it.
    pub(super) fn sequence(&mut self, at: usize) -> Option<usize> {
        let next = at.saturating_add(1);
        let by = next.saturating_add(1);
        // `SELECT next value FOR UPDATE` has an alias.
        let begins = self.is_word(next, "VALUE")
            && self.words.is(by, K::For)
            && !self.words.is(by.saturating_add(1), K::Update);
        if self.words.dialect.is_postgres() || !begins {
            return None;
        }
        let takes = self.is_word(at, "NEXT");
        if !takes && !self.is_word(at, "PREVIOUS") {
            return None;
        }
        let (name, behind) = self.words.dotted(by.saturating_add(1))?;
        self.draws(&name, takes);
        Some(behind)
    }

    /// `nextval(s)` and its kin of MariaDB name their sequence at word `at`, as a table is
    /// named.
    pub(super) fn of_sequence(&mut self, function: &[String], at: usize) {
        let [function] = function else { return };
        let is = |name: &str| function.eq_ignore_ascii_case(name);
        let takes = is("nextval") || is("setval");
        if self.words.dialect.is_postgres() || !(takes || is("lastval")) {
            return;
        }
        if let Some((name, _)) = self.words.dotted(at) {
            self.draws(&name, takes);
        }
    }

    fn draws(&mut self, sequence: &[String], takes: bool) {
        let access = match takes {
            true => Access::Write,
            false => Access::Read,
        };
        self.found.relation(sequence, access);
        let class = match takes {
            true => Class::Write,
            false => Class::Read,
        };
        self.found.class = self.found.class.max(class);
    }
}
