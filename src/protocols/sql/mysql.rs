//! What begins a statement of MySQL or MariaDB, and means something else, or
//! nothing, in PostgreSQL.

use super::analysis::{Access, Class};
use super::commands;
use super::keywords::Keyword as K;
use super::lexer::{Kind, STRICT_SETTINGS};
use super::reading::{Found, walk_expression};
use super::words::Words;

/// Reads a statement that only these servers have; whether it is one.
pub(super) fn command(words: Words<'_>, found: &mut Found) -> bool {
    match words.keyword(0) {
        K::Begin => return block(words, found),
        K::Explain | K::Desc | K::Describe => explain(words, found),
        K::Analyze | K::Analyse => analyze(words, found),
        K::Set => setting(words, found),
        K::Reset => found.verb("RESET", Class::Admin),
        K::Start => return start(words, found),
        K::Lock => lock(words, found),
        K::Show => show(words, found),
        K::Load => load(words, found),
        K::Import => {
            found.verb("IMPORT", Class::Admin);
            found.flags.server_file = true;
        }
        K::Do => {
            found.verb("DO", Class::Read);
            walk_expression(words.from(1), found);
        }
        K::Other => return other(words, found),
        _ => return false,
    }
    true
}

/// Statements whose first word no other server gives a meaning.
fn other(words: Words<'_>, found: &mut Found) -> bool {
    if words.kind(0) != Some(Kind::Word) {
        return false;
    }
    let (verb, class) = match &*words.of(0).to_ascii_uppercase() {
        "XA" => ("XA", Class::Session),
        "SIGNAL" => ("SIGNAL", Class::Session),
        "RESIGNAL" => ("RESIGNAL", Class::Session),
        "GET" => ("GET", Class::Session),
        "UNLOCK" => ("UNLOCK", Class::Session),
        "HELP" => ("HELP", Class::Read),
        "HANDLER" => ("HANDLER", Class::Read),
        "CHECK" => ("CHECK", Class::Read),
        "CHECKSUM" => ("CHECKSUM", Class::Read),
        "OPTIMIZE" => ("OPTIMIZE", Class::Schema),
        "REPAIR" => ("REPAIR", Class::Schema),
        "RENAME" => ("RENAME", Class::Schema),
        "FLUSH" => ("FLUSH", Class::Admin),
        "PURGE" => ("PURGE", Class::Admin),
        "CHANGE" => ("CHANGE", Class::Admin),
        "STOP" => ("STOP", Class::Admin),
        "SHUTDOWN" => ("SHUTDOWN", Class::Admin),
        "RESTART" => ("RESTART", Class::Admin),
        "INSTALL" => ("INSTALL", Class::Admin),
        "UNINSTALL" => ("UNINSTALL", Class::Admin),
        "CLONE" => ("CLONE", Class::Admin),
        "BINLOG" => ("BINLOG", Class::Admin),
        "BACKUP" => ("BACKUP", Class::Admin),
        "CACHE" => ("CACHE", Class::Admin),
        _ => return false,
    };
    found.verb(verb, class);
    match verb {
        "HANDLER" => {
            commands::relations(words, 1, Access::Read, found);
            if opens_as_another(words) {
                found.give_up("it gives a table another name");
            }
            // Its WHERE, which may call anything native.
            walk_expression(words.from(2), found);
        }
        "CHECK" | "CHECKSUM" => maintained(words, Access::Read, found),
        "OPTIMIZE" | "REPAIR" => maintained(words, Access::Schema, found),
        "RENAME" if is_one_of(words, 1, &["USER"]) => found.verb(verb, Class::Admin),
        "RENAME" => maintained(words, Access::Schema, found),
        "SIGNAL" | "RESIGNAL" | "GET" | "XA" => walk_expression(words.from(1), found),
        _ => {}
    }
    true
}

fn is_one_of(words: Words<'_>, at: usize, names: &[&str]) -> bool {
    let word = words.of(at);
    words.kind(at) == Some(Kind::Word) && names.iter().any(|name| word.eq_ignore_ascii_case(name))
}

/// What only these servers have in `CREATE`, `ALTER` and `DROP`: schemas that are databases,
/// functions of a library, tables that are a file somewhere on the server.
pub(super) fn defined(words: Words<'_>, found: &mut Found) {
    let what = match words.is(1, K::Or) {
        true => 3,
        false => 1,
    };
    if is_one_of(words, what, &["SCHEMA"]) {
        found.class = found.class.max(Class::Admin);
    }
    for at in what..words.len() {
        let behind = |names: &[&str]| {
            at.checked_sub(1)
                .is_some_and(|at| is_one_of(words, at, names))
        };
        if is_one_of(words, at, &["SONAME"]) {
            found.class = found.class.max(Class::Admin);
            found.flags.program = true;
        }
        if is_one_of(words, at, &["FILE_NAME"])
            || (is_one_of(words, at, &["DIRECTORY"]) && behind(&["DATA", "INDEX"]))
        {
            found.class = found.class.max(Class::Admin);
            found.flags.server_file = true;
        }
    }
}

/// `… [NO_WRITE_TO_BINLOG | LOCAL] TABLE[S] a, b [TO c]`.
fn maintained(words: Words<'_>, access: Access, found: &mut Found) {
    let tables = ["TABLE", "TABLES", "VIEW", "NO_WRITE_TO_BINLOG", "LOCAL"];
    let mut at = 1_usize;
    while is_one_of(words, at, &tables) {
        at = at.saturating_add(1);
    }
    for at in at..words.len() {
        // A name stands at the beginning, behind a comma, and behind `TO`.
        let begins = at.checked_sub(1).is_some_and(|before| {
            before < 1
                || words.is_mark(before, b',')
                || words.is(before, K::To)
                || is_one_of(words, before, &tables)
        });
        if begins && let Some((name, _)) = words.dotted(at) {
            found.relation(&name, access);
        }
    }
    if found.relations.is_empty() {
        found.give_up("which tables it is about is not known");
    }
}

/// `BEGIN [WORK]`; all else that begins so is a body that is run.
fn block(words: Words<'_>, found: &mut Found) -> bool {
    if words.len() == 1 || (words.len() == 2 && is_one_of(words, 1, &["WORK"])) {
        return false;
    }
    found.verb("BEGIN", Class::Opaque);
    found.give_up("it runs a body of several statements");
    true
}

/// Whether what a `HANDLER` opens has another name from then on (`OPEN AS x`, `OPEN x`), which is what it reads by.
fn opens_as_another(words: Words<'_>) -> bool {
    let opens = words.dotted(1).map(|(_, next)| next);
    opens.is_some_and(|at| is_one_of(words, at, &["OPEN"]) && at.saturating_add(1) < words.len())
}

/// `START TRANSACTION`; what else can be started is the server's.
fn start(words: Words<'_>, found: &mut Found) -> bool {
    if is_one_of(words, 1, &["TRANSACTION"]) {
        return false;
    }
    found.verb("START", Class::Admin);
    true
}

/// `EXPLAIN [options] statement | table`, by any of its names.
fn explain(words: Words<'_>, found: &mut Found) {
    let plain = words.is(0, K::Explain);
    found.verb(if plain { "EXPLAIN" } else { "DESCRIBE" }, Class::Read);
    let mut at = 1_usize;
    let mut executes = false;
    loop {
        match words.keyword(at) {
            K::Analyze | K::Analyse => executes = true,
            // `INTO @plan`.
            K::Into => at = at.saturating_add(2),
            K::For if is_one_of(words, at.saturating_add(1), &["CONNECTION"]) => return,
            K::For => return found.give_up("it names the database that it is about"),
            _ if is_one_of(words, at, &["EXTENDED", "PARTITIONS"]) => {}
            _ if is_one_of(words, at, &["FORMAT"]) => at = at.saturating_add(2),
            _ => break,
        }
        at = at.saturating_add(1);
    }
    if is_statement(words, at) {
        return commands::inner(words, at, executes, found);
    }
    match words.dotted(at) {
        Some((name, _)) => found.relation(&name, Access::Read),
        None => found.give_up("what it explains is not known"),
    }
}

/// Whether a statement that can be explained begins at word `at`.
fn is_statement(words: Words<'_>, at: usize) -> bool {
    let word = words.keyword(at);
    word.begins_query() || word.begins_change() || word == K::Replace || words.is_mark(at, b'(')
}

/// `ANALYZE [FORMAT=x] statement`, which executes it, or `ANALYZE TABLE a, b`.
fn analyze(words: Words<'_>, found: &mut Found) {
    let mut at = 1_usize;
    if is_one_of(words, at, &["FORMAT"]) {
        at = at.saturating_add(3);
    }
    let is_table = words.is(at, K::Table);
    if is_statement(words, at) && !is_table {
        found.verb("ANALYZE", Class::Read);
        return commands::inner(words, at, true, found);
    }
    found.verb("ANALYZE", Class::Write);
    maintained(words, Access::Write, found);
}

/// `SET` of variables, of who one is, or for one statement.
fn setting(words: Words<'_>, found: &mut Found) {
    found.verb("SET", Class::Session);
    if is_one_of(words, 1, &["STATEMENT"]) {
        return for_one_statement(words, found);
    }
    settings(words, 1..words.len(), found);
    // It sets to what a query says.
    walk_expression(words.from(1), found);
}

/// The settings among these words, each behind a comma.
fn settings(words: Words<'_>, within: std::ops::Range<usize>, found: &mut Found) {
    let mut begins = true;
    let mut depth = 0_usize;
    for at in within {
        if words.is_mark(at, b'(') {
            depth = depth.saturating_add(1);
        } else if words.is_mark(at, b')') {
            depth = depth.saturating_sub(1);
        }
        if begins && is_strict(words, at) {
            found.verb("SET", Class::Admin);
        }
        begins = depth == 0 && words.is_mark(at, b',');
    }
}

/// Whether the setting that begins at word `at` is more than a setting.
fn is_strict(words: Words<'_>, at: usize) -> bool {
    let scope = words.of(at) == "@@" || words.of(at).ends_with("@@");
    let mut name = at.saturating_add(usize::from(scope));
    if is_one_of(words, name, &["GLOBAL", "PERSIST", "PERSIST_ONLY"]) {
        return true;
    }
    if is_one_of(words, name, &["SESSION", "LOCAL"]) {
        // `SESSION x` and `@@SESSION.x`.
        name = name.saturating_add(1);
        name = name.saturating_add(usize::from(words.is_mark(name, b'.')));
    }
    let of_whom = ["PASSWORD", "ROLE", "DEFAULT", "RESOURCE"];
    if !scope && is_one_of(words, at, &of_whom) {
        return true;
    }
    let named = words.name(name).unwrap_or_default().to_ascii_lowercase();
    // A name that is not plain may be any of them.
    !named.is_ascii() || STRICT_SETTINGS.contains(&&*named)
}

/// `SET STATEMENT a = b, … FOR statement`.
fn for_one_statement(words: Words<'_>, found: &mut Found) {
    let behind = (2..words.len()).find(|at| words.is(*at, K::For));
    match behind {
        Some(at) if !is_one_of(words, at.saturating_add(1), &["SET", "PREPARE", "EXECUTE"]) => {
            settings(words, 2..at, found);
            walk_expression(
                Words {
                    words: words.words.get(2..at).unwrap_or_default(),
                    ..words
                },
                found,
            );
            commands::command(words.from(at.saturating_add(1)), found);
        }
        Some(_) | None => found.give_up("the statement that it sets for is not understood"),
    }
}

/// `LOCK TABLES a [AS x] READ, b WRITE`; `LOCK INSTANCE FOR BACKUP`.
fn lock(words: Words<'_>, found: &mut Found) {
    if is_one_of(words, 1, &["INSTANCE"]) {
        return found.verb("LOCK", Class::Admin);
    }
    found.verb("LOCK", Class::Write);
    maintained(words, Access::Write, found);
}

/// `SHOW …`, which may have a condition with queries in it.
fn show(words: Words<'_>, found: &mut Found) {
    found.verb("SHOW", Class::Read);
    let about = |at: usize| {
        is_one_of(
            words,
            at,
            &["COLUMNS", "FIELDS", "INDEX", "INDEXES", "KEYS"],
        )
    };
    for at in 1..words.len().min(6) {
        let created = words.is(at, K::Create)
            && matches!(words.keyword(at.saturating_add(1)), K::Table | K::View);
        let next = at.saturating_add(1);
        let listed = about(at) && (words.is(next, K::From) || words.is(next, K::In));
        if created || listed {
            if let Some((name, next)) = words.dotted(at.saturating_add(2)) {
                found.relation(&name, Access::Read);
                if listed && matches!(words.keyword(next), K::From | K::In) {
                    found.give_up("it names the database that it is about");
                }
            }
            break;
        }
    }
    walk_expression(words.from(1), found);
}

/// `LOAD DATA | XML [LOW_PRIORITY | CONCURRENT] [LOCAL] INFILE 'file' [REPLACE | IGNORE] INTO
/// TABLE t …`; `LOAD INDEX INTO CACHE`.
fn load(words: Words<'_>, found: &mut Found) {
    if words.is(1, K::Index) {
        return found.verb("LOAD", Class::Admin);
    }
    let file = (2..words.len()).find(|at| is_one_of(words, *at, &["INFILE"]));
    let into = (2..words.len()).find(|at| words.is(*at, K::Into));
    let (Some(file), Some(into)) = (file, into) else {
        found.verb("LOAD", Class::Admin);
        found.flags.server_file = true;
        return found.give_up("what it loads is not known");
    };
    let local = file.checked_sub(1).is_some_and(|at| words.is(at, K::Local));
    if local {
        found.verb("LOAD", Class::Write);
    } else {
        found.verb("LOAD", Class::Admin);
        found.flags.server_file = true;
    }
    let table = into.saturating_add(2);
    match words.dotted(table) {
        Some((name, next)) if words.is(table.saturating_sub(1), K::Table) => {
            found.relation(&name, Access::Write);
            walk_expression(words.from(next), found);
        }
        Some(_) | None => found.give_up("what it loads into is not known"),
    }
}
