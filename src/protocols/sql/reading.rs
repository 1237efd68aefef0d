//! What a query or a change of rows names: a walk over its words, without
//! recursion, that knows in which region of the statement each of them stands.
//!
//! It does not check grammar: a server does. What it cannot place makes the
//! statement opaque, never "names nothing".

mod expression;
mod found;
mod hints;
mod joins;
mod level;
mod only_mysql;
mod places;
mod tables;

use super::analysis::Class;
use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::words::Words;

pub(super) use found::Found;
use joins::Changed;
use level::{At, Does, Inside, Joined, Level};

/// Deepest nesting of parentheses that is understood.
const DEPTH_MAX: usize = 200;

/// Walks over the words of a query or change.
pub(super) fn walk(words: Words<'_>, found: &mut Found) {
    walk_from(Level::new(Inside::Statement, At::Start, 0), words, found);
}

/// Walks over words that are an expression, as the arguments of a call are.
pub(super) fn walk_expression(words: Words<'_>, found: &mut Found) {
    walk_from(Level::new(Inside::Value, At::Expression, 0), words, found);
}

fn walk_from(level: Level, words: Words<'_>, found: &mut Found) {
    let mut walk = Walk {
        words,
        found,
        outer: Vec::new(),
        level,
        known: Vec::new(),
        cte: Vec::new(),
        changed: Changed::default(),
    };
    let mut at = 0_usize;
    while at < words.len() && walk.found.opaque.is_none() {
        at = walk.step(at).max(at.saturating_add(1));
    }
    if walk.found.opaque.is_none() {
        walk.finish();
    }
}

struct Walk<'a, 'f> {
    words: Words<'a>,
    found: &'f mut Found,
    outer: Vec<Level>,
    level: Level,
    /// Names of common table expressions that hide tables here.
    known: Vec<String>,
    /// Names of those whose bodies are being walked over, innermost last.
    cte: Vec<String>,
    /// Of MySQL's changes of several tables.
    changed: Changed,
}

impl Walk<'_, '_> {
    /// Takes word `at`, and perhaps more; returns the next.
    fn step(&mut self, at: usize) -> usize {
        if self.words.is_mark(at, b')') {
            self.close();
            return at.saturating_add(1);
        }
        match self.level.at {
            At::Start => self.start(at),
            At::Expression | At::ItemTail => self.expression(at),
            At::Item => self.item(at),
            At::Target => self.target(at),
            At::TargetTail => self.target_tail(at),
            At::CteName => self.cte_name(at),
            At::CteHead => self.cte_head(at),
            At::CteTail => self.cte_tail(at),
        }
    }

    fn open(&mut self, inside: Inside, at: At) {
        if self.outer.len() >= DEPTH_MAX {
            return self.found.give_up("it nests too deeply");
        }
        let mut level = Level::new(inside, at, self.known.len());
        // `UPDATE (a, b) SET`: a query in parentheses says so where it begins.
        if inside == Inside::Items {
            level.joined = self.level.joined;
        }
        self.outer.push(std::mem::replace(&mut self.level, level));
    }

    fn close(&mut self) {
        let Some(outer) = self.outer.pop() else {
            return self.found.give_up("a parenthesis in it opens nowhere");
        };
        let closed = std::mem::replace(&mut self.level, outer);
        self.ended(&closed);
        self.known.truncate(closed.known);
        if closed.body
            && let Some(name) = self.cte.pop()
            && !self.level.recursive
        {
            self.known.push(name);
        }
    }

    fn finish(&mut self) {
        if !self.outer.is_empty() {
            self.found.give_up("a parenthesis in it does not close");
        }
        let level = self.level;
        self.ended(&level);
        self.deletes();
    }

    fn ended(&mut self, level: &Level) {
        match level.at {
            At::Start if level.inside == Inside::Statement => {
                self.found.give_up("a part of it is missing");
            }
            At::Item | At::Target | At::CteName | At::CteHead | At::CteTail => {
                self.found.give_up("a part of it is missing");
            }
            At::Start | At::Expression | At::ItemTail | At::TargetTail => {}
        }
        match level.does {
            Does::Update | Does::Delete if !level.has_where => self.found.flags.no_where = true,
            Does::Nothing
            | Does::Select
            | Does::Insert
            | Does::Update
            | Does::Delete
            | Does::Merge => {}
        }
    }

    fn begins(&mut self, does: Does, verb: &'static str, class: Class, at: At) {
        self.found.verb(verb, class);
        self.level.joined = Joined::Read;
        // The query of an INSERT belongs to it.
        if self.level.does != Does::Insert {
            self.level.does = does;
        }
        self.level.at = at;
    }

    fn start(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        let changes = self.level.inside == Inside::Statement;
        match self.words.keyword(at) {
            K::Select => self.begins(Does::Select, "SELECT", Class::Read, At::Expression),
            K::Values => self.begins(Does::Select, "SELECT", Class::Read, At::Expression),
            K::Table => {
                self.begins(Does::Select, "SELECT", Class::Read, At::Item);
                self.level.from = true;
            }
            K::With => {
                self.level.recursive = self.words.is(next, K::Recursive);
                self.level.at = At::CteName;
                return next.saturating_add(usize::from(self.level.recursive));
            }
            K::Insert if changes => {
                self.begins(Does::Insert, "INSERT", Class::Write, At::Target);
            }
            K::Replace if changes && !self.words.dialect.is_postgres() => {
                self.begins(Does::Insert, "REPLACE", Class::Write, At::Target);
            }
            K::Update if changes => {
                self.begins(Does::Update, "UPDATE", Class::Write, At::Target);
            }
            K::Delete if changes => {
                self.begins(Does::Delete, "DELETE", Class::Write, At::Target);
            }
            K::Merge if changes => self.begins(Does::Merge, "MERGE", Class::Write, At::Target),
            _ if self.words.is_mark(at, b'(') => {
                let inside = match self.level.inside {
                    Inside::Items => Inside::Items,
                    Inside::Statement | Inside::Value | Inside::Columns => Inside::Value,
                };
                if inside == Inside::Items {
                    (self.level.at, self.level.from) = (At::ItemTail, true);
                } else {
                    self.level.at = At::Expression;
                    // `(SELECT …) UNION SELECT …`: it goes on as a query.
                    if self.level.inside == Inside::Statement && self.level.does == Does::Nothing {
                        self.level.does = Does::Select;
                    }
                }
                self.open(inside, At::Start);
            }
            _ => match self.level.inside {
                Inside::Statement => self.found.give_up("it begins with an unknown word"),
                Inside::Items => {
                    (self.level.at, self.level.from) = (At::Item, true);
                    return self.item(at);
                }
                Inside::Value | Inside::Columns => {
                    self.level.at = At::Expression;
                    return self.expression(at);
                }
            },
        }
        next
    }
}
