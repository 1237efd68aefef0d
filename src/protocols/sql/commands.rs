//! What a statement is, from the word it begins with.

use super::analysis::{Access, Class, Statement};
use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::mysql;
use super::named::BY_NAME;
use super::reading::{Found, walk, walk_expression};
use super::words::Words;

/// Reads one statement.
pub(super) fn read(words: Words<'_>) -> Statement {
    let mut found = Found::default();
    command(words, &mut found);
    found.into_statement()
}

pub(super) fn command(words: Words<'_>, found: &mut Found) {
    if !words.dialect.is_postgres() && mysql::command(words, found) {
        return;
    }
    match words.keyword(0) {
        K::Select
        | K::Values
        | K::Table
        | K::With
        | K::Insert
        | K::Update
        | K::Delete
        | K::Merge => walk(words, found),
        K::Replace if !words.dialect.is_postgres() => walk(words, found),
        K::Other if words.is_mark(0, b'(') => walk(words, found),
        K::Copy => copy(words, found),
        K::Explain => explain(words, found),
        K::Declare => cursor(words, found),
        // `PREPARE TRANSACTION 'name'`.
        K::Prepare if words.kind(2) == Some(Kind::Text) => found.verb("PREPARE", Class::Session),
        K::Prepare => prepare(words, found),
        K::Execute => {
            // The arguments; the name in front of them is no function.
            walk_expression(words.from(2), found);
            by_name(words, found, "EXECUTE", BY_NAME);
        }
        K::Call => by_name(
            words,
            found,
            "CALL",
            "what a procedure does is not in the text",
        ),
        K::Do => by_name(words, found, "DO", "it runs a body of another language"),
        K::Fetch => by_name(words, found, "FETCH", BY_NAME),
        K::Move => by_name(words, found, "MOVE", BY_NAME),
        K::Show => found.verb("SHOW", Class::Read),
        K::Begin => found.verb("BEGIN", Class::Session),
        K::Start => found.verb("START", Class::Session),
        K::Commit => found.verb("COMMIT", Class::Session),
        K::End => found.verb("END", Class::Session),
        K::Rollback => found.verb("ROLLBACK", Class::Session),
        K::Abort => found.verb("ABORT", Class::Session),
        K::Savepoint => found.verb("SAVEPOINT", Class::Session),
        K::Release => found.verb("RELEASE", Class::Session),
        K::Close => found.verb("CLOSE", Class::Session),
        K::Deallocate => found.verb("DEALLOCATE", Class::Session),
        K::Discard => found.verb("DISCARD", Class::Session),
        K::Listen => found.verb("LISTEN", Class::Session),
        K::Unlisten => found.verb("UNLISTEN", Class::Session),
        K::Use if !words.dialect.is_postgres() => found.verb("USE", Class::Session),
        K::Notify => found.verb("NOTIFY", Class::Write),
        K::Set => setting(words, found, "SET"),
        K::Reset => setting(words, found, "RESET"),
        K::Lock => lock(words, found),
        K::Truncate => truncate(words, found),
        K::Refresh => refresh(words, found),
        K::Vacuum => found.verb("VACUUM", Class::Admin),
        K::Analyze | K::Analyse => found.verb("ANALYZE", Class::Write),
        K::Cluster => found.verb("CLUSTER", Class::Admin),
        K::Reindex => found.verb("REINDEX", Class::Admin),
        K::Checkpoint => found.verb("CHECKPOINT", Class::Admin),
        K::Kill => found.verb("KILL", Class::Admin),
        K::Load => {
            found.verb("LOAD", Class::Admin);
            found.flags.server_file = true;
        }
        K::Grant => found.verb("GRANT", Class::Admin),
        K::Revoke => found.verb("REVOKE", Class::Admin),
        K::Reassign => found.verb("REASSIGN", Class::Admin),
        K::Security => found.verb("SECURITY", Class::Admin),
        K::Import => found.verb("IMPORT", Class::Schema),
        K::Comment => found.verb("COMMENT", Class::Schema),
        K::Create => definition(words, found, "CREATE"),
        K::Alter => definition(words, found, "ALTER"),
        K::Drop => definition(words, found, "DROP"),
        _ => found.give_up("it begins with an unknown word"),
    }
}

fn by_name(words: Words<'_>, found: &mut Found, verb: &'static str, why: &'static str) {
    if verb == "CALL" {
        walk_expression(words.from(1), found);
    }
    found.verb(verb, Class::Opaque);
    found.give_up(why);
}

/// `COPY t | (query) FROM | TO 'file' | PROGRAM 'command' | STDIN | STDOUT …`.
fn copy(words: Words<'_>, found: &mut Found) {
    found.verb("COPY", Class::Read);
    let mut at = 1_usize;
    if words.is_mark(at, b'(') {
        let Some(end) = closing(words, at) else {
            return found.give_up("a parenthesis in it does not close");
        };
        let query = words.words.get(at.saturating_add(1)..end);
        let query = Words {
            words: query.unwrap_or_default(),
            ..words
        };
        walk(query, found);
        at = end.saturating_add(1);
        if !words.is(at, K::To) {
            return found.give_up("where it copies to is not known");
        }
    } else {
        let Some((name, next)) = words.dotted(at) else {
            return found.give_up("what it copies is not known");
        };
        at = next;
        if words.is_mark(at, b'(') {
            let Some(end) = closing(words, at) else {
                return found.give_up("a parenthesis in it does not close");
            };
            at = end.saturating_add(1);
        }
        match words.keyword(at) {
            K::From => {
                found.class = found.class.max(Class::Write);
                found.relation(&name, Access::Write);
            }
            K::To => found.relation(&name, Access::Read),
            _ => return found.give_up("which way it copies is not known"),
        }
    }
    at = at.saturating_add(1);
    match words.keyword(at) {
        K::Stdin | K::Stdout => {}
        K::Program => {
            found.class = found.class.max(Class::Admin);
            found.flags.program = true;
        }
        _ if words.kind(at) == Some(Kind::Text) => {
            found.class = found.class.max(Class::Admin);
            found.flags.server_file = true;
        }
        _ => return found.give_up("where it copies to is not known"),
    }
    // Options, and the WHERE of a COPY FROM, which may call functions.
    walk_expression(words.from(at.saturating_add(1)), found);
}

/// The word of the parenthesis that closes the one at `open`.
fn closing(words: Words<'_>, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for at in open..words.len() {
        if words.is_mark(at, b'(') {
            depth = depth.saturating_add(1);
        } else if words.is_mark(at, b')') {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

/// Only `ANALYZE` executes; but what is planned may already run functions
/// declared immutable, so those count always.
fn explain(words: Words<'_>, found: &mut Found) {
    found.verb("EXPLAIN", Class::Read);
    let mut at = 1_usize;
    let mut executes = false;
    if words.is_mark(at, b'(') {
        let Some(end) = closing(words, at) else {
            return found.give_up("a parenthesis in it does not close");
        };
        // `(ANALYZE false)` counts too: the stricter reading.
        executes = (at..end).any(|at| matches!(words.keyword(at), K::Analyze | K::Analyse));
        // A query in parentheses looks the same.
        if words.keyword(at.saturating_add(1)).begins_query()
            || words.is_mark(at.saturating_add(1), b'(')
        {
            return inner(words, at, executes, found);
        }
        at = end.saturating_add(1);
    }
    loop {
        match words.keyword(at) {
            K::Analyze | K::Analyse => executes = true,
            K::Verbose => {}
            _ => break,
        }
        at = at.saturating_add(1);
    }
    inner(words, at, executes, found);
}

pub(super) fn inner(words: Words<'_>, at: usize, executes: bool, found: &mut Found) {
    let mut inside = Found::default();
    match words.keyword(at) {
        // Not a third time, and so on.
        K::Explain | K::Prepare => inside.give_up("it explains what cannot be explained"),
        _ => command(words.from(at), &mut inside),
    }
    if let Some(why) = inside.opaque {
        found.give_up(why);
    }
    found.functions = inside.functions;
    let called = found.functions.iter().filter_map(|name| {
        let last = name.rsplit('.').next().unwrap_or_default();
        super::functions::effect(&last.to_ascii_lowercase())
    });
    let called: Vec<_> = called.collect();
    for effect in called {
        found.class = found.class.max(effect.class());
        found.flags = found.flags.and(effect.flags());
    }
    for mut relation in inside.relations {
        if !executes {
            relation.access = Access::Read;
        }
        if !found.relations.contains(&relation) {
            found.relations.push(relation);
        }
    }
    if executes {
        found.flags = found.flags.and(inside.flags);
        for verb in inside.verbs {
            found.verb(verb, inside.class);
        }
        found.class = found.class.max(inside.class);
    }
}

/// `DECLARE name … CURSOR … FOR query`.
fn cursor(words: Words<'_>, found: &mut Found) {
    found.verb("DECLARE", Class::Read);
    match (0..words.len()).find(|at| words.is(*at, K::For)) {
        Some(at) => walk(words.from(at.saturating_add(1)), found),
        None => found.give_up("the query of its cursor is missing"),
    }
}

/// `PREPARE name [(types)] AS statement`: judged as if it were executed, since
/// `EXECUTE` names it only.
fn prepare(words: Words<'_>, found: &mut Found) {
    found.verb("PREPARE", Class::Session);
    let mut at = 2_usize;
    if words.is_mark(at, b'(') {
        match closing(words, at) {
            Some(end) => at = end.saturating_add(1),
            None => return found.give_up("a parenthesis in it does not close"),
        }
    }
    if words.is(at, K::As) {
        walk(words.from(at.saturating_add(1)), found);
    } else {
        found.give_up("what it prepares is not in the text");
    }
}

/// Who one is, and what the server checks, are more than a setting.
fn setting(words: Words<'_>, found: &mut Found, verb: &'static str) {
    let mut at = 1_usize;
    while matches!(words.keyword(at), K::Local | K::Session | K::Global) {
        if words.is(at, K::Global) {
            found.class = Class::Admin;
        }
        at = at.saturating_add(1);
    }
    let name = words.name(at).unwrap_or_default().to_ascii_lowercase();
    found.flags.sets_role |= matches!(words.keyword(at), K::Role | K::Authorization)
        || matches!(&*name, "role" | "session_authorization");
    // `SET SCHEMA 'x'` is another way to write it.
    found.flags.sets_path |= words.is(at, K::All) || matches!(&*name, "search_path" | "schema");
    let strict = matches!(
        words.keyword(at),
        K::Role | K::Authorization | K::All | K::Password
    ) || matches!(
        &*name,
        "role"
                | "session_authorization"
                | "session_replication_role"
                | "row_security"
                | "sql_log_bin"
                | "foreign_key_checks"
                // Text is read by it: what follows would be read wrongly.
                | "sql_mode"
    ) || words.of(at) == "@"
        || words.of(at).starts_with("@@");
    found.verb(verb, if strict { Class::Admin } else { Class::Session });
    if strict {
        walk_expression(words.from(at), found);
    }
}

fn lock(words: Words<'_>, found: &mut Found) {
    found.verb("LOCK", Class::Write);
    let at = 1_usize.saturating_add(usize::from(words.is(1, K::Table)));
    relations(words, at, Access::Write, found);
}

/// `REFRESH MATERIALIZED VIEW [CONCURRENTLY] name …`.
fn refresh(words: Words<'_>, found: &mut Found) {
    found.verb("REFRESH", Class::Write);
    let at = 3_usize.saturating_add(usize::from(words.is(3, K::Concurrently)));
    relations(words, at, Access::Write, found);
}

fn truncate(words: Words<'_>, found: &mut Found) {
    found.verb("TRUNCATE", Class::Write);
    found.flags.no_where = true;
    let at = 1_usize.saturating_add(usize::from(words.is(1, K::Table)));
    relations(words, at, Access::Write, found);
}

/// A list of names: `[ONLY] a, b *, c`.
pub(super) fn relations(words: Words<'_>, first: usize, access: Access, found: &mut Found) {
    let mut at = first;
    loop {
        at = at.saturating_add(usize::from(words.is(at, K::Only)));
        let Some((name, next)) = words.dotted(at) else {
            return found.give_up("which relations it is about is not known");
        };
        found.relation(&name, access);
        at = next.saturating_add(usize::from(words.of(next) == "*"));
        if !words.is_mark(at, b',') {
            return;
        }
        at = at.saturating_add(1);
    }
}

/// `CREATE`, `ALTER` and `DROP` of anything.
fn definition(words: Words<'_>, found: &mut Found, verb: &'static str) {
    found.verb(verb, Class::Schema);
    // However many parts a name has, it is one of what is said.
    let said = (0..words.len()).filter(|at| {
        let is_behind_point = at.checked_sub(1).is_some_and(|at| words.is_mark(at, b'.'));
        !words.is_mark(*at, b'.') && !is_behind_point
    });
    let mut said = said.filter_map(|at| words.words.get(at));
    if said.by_ref().take(6).any(|word| {
        let text = word.token.of(words.text).to_ascii_lowercase();
        word.token.kind == Kind::Word
            && matches!(
                &*text,
                "role"
                    | "user"
                    | "group"
                    | "database"
                    | "system"
                    | "extension"
                    | "tablespace"
                    | "subscription"
                    | "publication"
                    | "server"
                    | "foreign"
                    | "language"
                    | "policy"
                    | "privileges"
                    | "owned"
                    | "event"
                    | "access"
                    | "cast"
                    | "transform"
                    | "security"
                    | "definer"
                    | "instance"
                    | "resource"
            )
    }) {
        found.class = found.class.max(Class::Admin);
    }
    let of_mysql = !words.dialect.is_postgres();
    if of_mysql {
        mysql::defined(words, found);
    }
    // `OR REPLACE ALGORITHM = x DEFINER = 'a'@'b' SQL SECURITY INVOKER VIEW`.
    let far = if of_mysql { 16 } else { 8 };
    let Some(what) = (1..words.len().min(far)).find(|at| {
        let is_sequence = words.of(*at).eq_ignore_ascii_case("sequence");
        matches!(words.keyword(*at), K::Table | K::View | K::Index)
            || (of_mysql && is_sequence && words.kind(*at) == Some(Kind::Word))
    }) else {
        return;
    };
    let mut at = what.saturating_add(1);
    while matches!(
        words.keyword(at),
        K::If | K::Not | K::Exists | K::Only | K::Concurrently
    ) {
        at = at.saturating_add(1);
    }
    if words.is(what, K::Index) {
        return index(words, at, found);
    }
    let mut names = Found::default();
    relations(words, at, Access::Schema, &mut names);
    found.relations.append(&mut names.relations);
    if of_mysql {
        merged(words, at, found);
    }
    if verb == "CREATE" {
        made_of(words, at, found);
    } else if of_mysql && words.is(what, K::Table) {
        // What a column of an `ALTER` computes, it may compute of the rows there are.
        let mut behind = at;
        for at in at..words.len() {
            if at >= behind && found.opaque.is_none() {
                behind = computed(words, at, found);
            }
        }
    }
}

/// `ENGINE = MERGE UNION = (a, b)`: who may use the table may change these.
fn merged(words: Words<'_>, first: usize, found: &mut Found) {
    for at in (first..words.len()).filter(|at| words.is(*at, K::Union)) {
        let next = at.saturating_add(1);
        let open = next.saturating_add(usize::from(words.of(next) == "="));
        let name = open.saturating_add(1);
        let is_query = words.keyword(name).begins_query() || words.is_mark(name, b'(');
        if words.is_mark(open, b'(') && !words.is_mark(name, b')') && !is_query {
            relations(words, name, Access::Write, found);
        }
    }
}

/// `CREATE INDEX name ON table`: the table is what changes.
fn index(words: Words<'_>, at: usize, found: &mut Found) {
    let on = (at..words.len().min(at.saturating_add(6))).find(|at| words.is(*at, K::On));
    let Some(on) = on else { return };
    let table = on
        .saturating_add(1)
        .saturating_add(usize::from(words.is(on.saturating_add(1), K::Only)));
    if let Some((name, _)) = words.dotted(table) {
        found.relation(&name, Access::Schema);
    }
}

/// `CREATE … AS query`, and what the definitions in front of it compute.
fn made_of(words: Words<'_>, first: usize, found: &mut Found) {
    let mut depth = 0_usize;
    // What is computed has been walked over up to here: to begin again within it would take forever.
    let mut behind = first;
    for at in first..words.len() {
        if words.is_mark(at, b'(') {
            if depth == 0 && begins_bare(words, at) {
                return walk(words.from(at), found);
            }
            depth = depth.saturating_add(1);
        } else if words.is_mark(at, b')') {
            depth = depth.saturating_sub(1);
        } else if depth > 0 {
            if at >= behind && found.opaque.is_none() {
                behind = computed(words, at, found);
            }
        } else if begins_bare(words, at) {
            return walk(words.from(at), found);
        } else if words.is(at, K::As) {
            let next = at.saturating_add(1);
            if words.is(next, K::Execute) {
                return found.give_up(BY_NAME);
            }
            if words.keyword(next).begins_query() || words.is_mark(next, b'(') {
                return walk(words.from(next), found);
            }
        }
    }
}

/// A query without `AS` in front of it, as only MySQL has it; also in parentheses.
fn begins_bare(words: Words<'_>, at: usize) -> bool {
    let next = at.saturating_add(1);
    // `WITH SYSTEM VERSIONING`, and `WITH PARSER`.
    let is_with = words.name(next).is_some()
        && (words.is(next, K::Recursive)
            || words.is(next.saturating_add(1), K::As)
            || words.is_mark(next.saturating_add(1), b'('));
    let begins = match words.keyword(at) {
        K::Select | K::Table => true,
        K::Values => words.is(next, K::Row) || words.is_mark(next, b'('),
        K::With => is_with,
        _ => {
            words.is_mark(at, b'(')
                && (words.keyword(next).begins_query() || words.is_mark(next, b'('))
        }
    };
    begins && !words.dialect.is_postgres()
}

/// The expression of a column that is computed: `AS (x)`; in MySQL, also that of a default
/// or a check. Returns the word behind it, or behind word `at`, where nothing is computed.
fn computed(words: Words<'_>, at: usize, found: &mut Found) -> usize {
    let computes = match words.keyword(at) {
        K::As => true,
        K::Default => !words.dialect.is_postgres(),
        _ => !words.dialect.is_postgres() && words.of(at).eq_ignore_ascii_case("check"),
    };
    let first = at.saturating_add(1);
    let called = first.saturating_add(1);
    // `SET DEFAULT`, of a foreign key.
    let nothing = first >= words.len() || words.is_mark(first, b',') || words.is_mark(first, b')');
    let last = match (words.is_mark(first, b'('), words.is_mark(called, b'(')) {
        _ if !computes || nothing => return first,
        (true, _) => closing(words, first),
        // `DEFAULT f(x)`, and `DEFAULT NEXT VALUE FOR s`.
        (false, true) => closing(words, called),
        (false, false) => (first..words.len()).find(|at| {
            let behind = at.saturating_add(1);
            let ends = words.is_mark(behind, b',') || words.is_mark(behind, b')');
            ends || behind == words.len()
        }),
    };
    match last {
        Some(last) => {
            let inner = words.words.get(first..=last).unwrap_or_default();
            let inner = Words {
                words: inner,
                ..words
            };
            walk_expression(inner, found);
            last.saturating_add(1)
        }
        None => {
            found.give_up("a parenthesis in it does not close");
            words.len()
        }
    }
}
