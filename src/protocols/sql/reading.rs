//! What a query or a change of rows names: a walk over its words, without
//! recursion, that knows in which region of the statement each of them stands.
//!
//! It does not check grammar: a server does. What it cannot place makes the
//! statement opaque, never "names nothing".

use super::analysis::{Access, Class, Flags, Relation, Statement};
use super::functions::effect;
use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::words::Words;

/// Deepest nesting of parentheses that is understood.
const DEPTH_MAX: usize = 200;
/// Most relations, and most functions, of one statement that is understood.
const NAMES_MAX: usize = 128;

/// What has been found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) verbs: Vec<&'static str>,
    pub(super) class: Class,
    pub(super) relations: Vec<Relation>,
    pub(super) functions: Vec<Box<str>>,
    pub(super) flags: Flags,
    pub(super) opaque: Option<&'static str>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            verbs: Vec::new(),
            class: Class::Session,
            relations: Vec::new(),
            functions: Vec::new(),
            flags: Flags::default(),
            opaque: None,
        }
    }
}

impl Found {
    pub(super) fn verb(&mut self, verb: &'static str, class: Class) {
        self.class = self.class.max(class);
        if !self.verbs.contains(&verb) {
            self.verbs.push(verb);
        }
    }

    pub(super) fn give_up(&mut self, why: &'static str) {
        self.class = Class::Opaque;
        self.opaque.get_or_insert(why);
    }

    pub(super) fn relation(&mut self, name: &[String], access: Access) {
        if self.relations.len() >= NAMES_MAX {
            return self.give_up("it names too many relations");
        }
        let relation = Relation {
            name: name.join(".").into(),
            access,
        };
        if !self.relations.contains(&relation) {
            self.relations.push(relation);
        }
    }

    fn function(&mut self, name: &[String]) {
        let last = name.last().map(|name| name.to_ascii_lowercase());
        if let Some(effect) = last.as_deref().and_then(effect) {
            self.flags = self.flags.and(effect.flags());
            if effect.class() == Class::Opaque {
                self.give_up("it calls a function that runs a text");
            }
            self.class = self.class.max(effect.class());
        }
        let name: Box<str> = name.join(".").into();
        if self.functions.contains(&name) {
            return;
        }
        if self.functions.len() >= NAMES_MAX {
            return self.give_up("it calls too many functions");
        }
        self.functions.push(name);
    }

    pub(super) fn into_statement(mut self) -> Statement {
        self.relations.sort();
        self.functions.sort();
        Statement {
            verbs: self.verbs,
            class: self.class,
            relations: self.relations,
            functions: self.functions,
            flags: self.flags,
            opaque: self.opaque,
        }
    }
}

/// What a query, or the part of it in one pair of parentheses, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Nothing yet, or it is no query: arguments, a list.
    Nothing,
    Select,
    Insert,
    Update,
    Delete,
    Merge,
}

/// Where in it the walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At its beginning.
    Start,
    /// In an expression, or in a list of them.
    Expression,
    /// Before a thing that is selected from.
    Item,
    /// Behind one.
    ItemTail,
    /// Before the table that is changed.
    Target,
    /// Behind it.
    TargetTail,
    /// Before the name of a common table expression.
    CteName,
    /// Behind it.
    CteHead,
    /// Behind its body.
    CteTail,
}

/// What a pair of parentheses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// The statement itself, or the body of a common table expression.
    Statement,
    /// A query, or an expression.
    Value,
    /// Things that are joined, or a query.
    Items,
    /// Names and types: nothing that is called or read.
    Columns,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    inside: Inside,
    does: Does,
    at: At,
    /// Behind `FROM`: a comma leads to the next thing that is selected from.
    from: bool,
    has_where: bool,
    recursive: bool,
    /// What is selected from is changed too: `UPDATE a, b SET` of MySQL.
    changes: bool,
    /// How many names of common table expressions were known outside.
    known: usize,
    /// The body of a common table expression: its name is known behind it.
    body: bool,
}

impl Level {
    fn new(inside: Inside, at: At, known: usize) -> Self {
        Self {
            inside,
            does: Does::Nothing,
            at,
            from: false,
            has_where: false,
            recursive: false,
            changes: false,
            known,
            body: false,
        }
    }
}

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
        let level = Level::new(inside, at, self.known.len());
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

    fn expression(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
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
    fn clause(&mut self, at: usize, word: K, query: bool) -> usize {
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
            K::Join | K::Straight if joins => {
                (self.level.from, self.level.at) = (true, At::Item);
            }
            K::Join | K::Straight => self.found.give_up("it joins outside a query"),
            K::On | K::Tablesample if self.level.at == At::ItemTail => {
                self.level.at = At::Expression;
            }
            K::Where if query => {
                self.level.has_where = true;
                self.leave_from();
            }
            K::Group | K::Order if query && self.words.is(next, K::By) => self.leave_from(),
            K::Having | K::Limit if query => self.leave_from(),
            // Names of columns, in MySQL.
            K::Window | K::Offset | K::Fetch | K::Returning
                if query && self.words.dialect.is_postgres() =>
            {
                self.leave_from();
            }
            K::Union | K::Intersect | K::Except => return self.set_operation(next),
            K::For if self.level.does == Does::Select => return self.locking(next),
            K::Into if self.level.does == Does::Select => return self.selects_into(next),
            K::Do if self.level.does == Does::Insert => {
                self.leave_from();
                if self.words.is(next, K::Update) {
                    self.found.verb("UPDATE", Class::Write);
                    return next.saturating_add(1);
                }
            }
            K::Then if self.level.does == Does::Merge => return self.merge_action(next),
            K::When if self.level.does == Does::Merge => self.leave_from(),
            K::Select => self.found.give_up("it has a query where none is expected"),
            _ => {
                if self.words.is_mark(next, b'(') && !word.calls_nothing() {
                    return self.named(at);
                }
            }
        }
        next
    }

    fn leave_from(&mut self) {
        self.level.from = false;
        self.level.at = At::Expression;
    }

    /// Behind `UNION` and its kin another query follows.
    fn set_operation(&mut self, at: usize) -> usize {
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
    fn is_distinct_from(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else {
            return false;
        };
        self.words.is(before, K::Distinct)
            && before
                .checked_sub(1)
                .is_some_and(|is| matches!(self.words.keyword(is), K::Is | K::Not))
    }

    fn locking(&mut self, at: usize) -> usize {
        match self.words.keyword(at) {
            K::Update | K::Share | K::No | K::Key => self.found.flags.for_update = true,
            _ => self.found.give_up("it has a clause that is not known"),
        }
        self.leave_from();
        at.saturating_add(1)
    }

    fn selects_into(&mut self, at: usize) -> usize {
        let mut at = at;
        if !self.words.dialect.is_postgres() {
            match self.words.keyword(at) {
                K::Outfile | K::Dumpfile => {
                    self.found.flags.server_file = true;
                    self.found.verb("SELECT", Class::Admin);
                    return at.saturating_add(1);
                }
                // `INTO @variable`.
                _ if self.words.of(at) == "@" => return at.saturating_add(1),
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

    fn merge_action(&mut self, at: usize) -> usize {
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
    fn named(&mut self, at: usize) -> usize {
        let Some((name, next)) = self.words.dotted(at) else {
            if self.words.kind(at) == Some(Kind::EscapedName) {
                self.found.give_up("a name in it has Unicode escapes");
            }
            return at.saturating_add(1);
        };
        if self.words.is_mark(next, b'(') {
            if self.level.inside == Inside::Columns || self.level.at == At::ItemTail {
                // `numeric(10,2)`, or the alias in `f() AS t(a int)`.
                self.open(Inside::Columns, At::Expression);
                return next.saturating_add(1);
            }
            if !self.is_type(at) {
                self.found.function(&name);
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
    fn is_type(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        before.is_some_and(|before| {
            self.words.is(before, K::As)
                || (self.words.is_mark(before, b':')
                    && before
                        .checked_sub(1)
                        .is_some_and(|first| self.words.is_mark(first, b':')))
        })
    }

    fn parenthesis(&mut self, at: usize) {
        let before = at.checked_sub(1);
        let behind = before.map_or(K::Other, |before| self.words.keyword(before));
        if self.level.inside == Inside::Columns {
            return self.open(Inside::Columns, At::Expression);
        }
        if self.level.at == At::ItemTail {
            // `AS t(a, b)`, `USING (a)`, `TABLESAMPLE system (1)`: names, or an
            // argument that may be any expression.
            let sampled = before.and_then(|before| before.checked_sub(1));
            let argument = behind == K::Repeatable
                || sampled.is_some_and(|at| self.words.is(at, K::Tablesample));
            return match argument {
                true => self.open(Inside::Value, At::Start),
                false => self.open(Inside::Columns, At::Expression),
            };
        }
        if behind == K::Using && self.level.from {
            return self.open(Inside::Columns, At::Expression);
        }
        self.open(Inside::Value, At::Start);
    }

    fn item(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        match self.words.keyword(at) {
            K::Only | K::Lateral => return next,
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
            if self.words.dialect.is_postgres() || self.call_like(&name) {
                self.found.function(&name);
                self.open(Inside::Value, At::Start);
                return next.saturating_add(1);
            }
        } else if self.words.is_mark(next, b'.') {
            self.found.give_up("it selects from what is not known");
        }
        let hidden = matches!(&*name, [only] if self.known.contains(only));
        if !hidden {
            let access = if self.level.changes {
                Access::Write
            } else {
                Access::Read
            };
            self.found.relation(&name, access);
            if self.level.changes {
                self.found.relation(&name, Access::Read);
            }
        }
        next
    }

    /// MySQL has few table functions, and none of users.
    fn call_like(&self, name: &[String]) -> bool {
        matches!(name, [one] if one.eq_ignore_ascii_case("json_table"))
    }

    fn target(&mut self, at: usize) -> usize {
        let next = at.saturating_add(1);
        let mysql = !self.words.dialect.is_postgres();
        match (self.level.does, self.words.keyword(at)) {
            (Does::Insert | Does::Merge, K::Into)
            | (Does::Delete, K::From)
            | (Does::Update | Does::Delete | Does::Merge, K::Only) => return next,
            (_, K::Low | K::Delayed | K::High | K::Ignore | K::Quick) if mysql => return next,
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
        if self.words.is_mark(next, b'.') {
            self.found.give_up("what it changes is not known");
        }
        self.found.relation(&name, Access::Write);
        self.level.at = At::TargetTail;
        next
    }

    fn target_tail(&mut self, at: usize) -> usize {
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
            (Does::Delete, K::Using) | (Does::Merge, K::Using) => {
                (self.level.from, self.level.at) = (true, At::Item);
            }
            (Does::Update, K::Set) => {
                self.level.changes = false;
                self.level.at = At::Expression;
            }
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
                    self.open(Inside::Columns, At::Expression);
                }
            }
            // Changes of several tables: which of them is not read here.
            _ if mysql => self.found.give_up("it changes several tables"),
            // `OVERRIDING SYSTEM VALUE` and other words of no region.
            (Does::Insert, _) if self.words.kind(at) == Some(Kind::Word) => {}
            _ => self.found.give_up("it has a clause that is not known"),
        }
        next
    }

    fn cte_name(&mut self, at: usize) -> usize {
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

    fn cte_head(&mut self, at: usize) -> usize {
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
                    self.open(Inside::Columns, At::Expression);
                }
            }
            _ => self
                .found
                .give_up("a common table expression is not understood"),
        }
        next
    }

    fn cte_tail(&mut self, at: usize) -> usize {
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
