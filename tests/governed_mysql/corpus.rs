//! What the servers' own test files say, read here and by a real server: nothing that
//! the server sees in a statement is missed.
//!
//! The server is asked to prepare each statement for somebody who may do nothing. What
//! it cannot parse it says so of; else it answers with what that somebody lacks, which
//! names what the statement would do, and to which table.
//!
//! Calls it does not name so: a call is put in the place of a word of the statement, or
//! behind it, that is one with too few arguments. Of that the server says so before it
//! looks at anything else, and only where it takes it for a call.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use openbox_sidecar::protocols::sql::{Access, Analysis, Class, Dialect, Statement};

use crate::calls::Calls;
use crate::support::mysql::{Client, Server};

/// Fewest statements that a server must have understood.
const STATEMENTS_MIN: usize = 20_000;
/// Most that are asked about.
const STATEMENTS_MAX: usize = 60_000;
/// Longest text that is looked for.
const LINES_MAX: usize = 60;

#[test]
fn my_10_my_27_c_5_nothing_that_mariadb_sees_is_missed() {
    let server = Server::start(&[]);
    nothing_is_missed(&server, "mariadb-tests");
}

#[test]
fn my_10_my_27_c_5_nothing_that_oracle_mysql_sees_is_missed() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    nothing_is_missed(&server, "mariadb-tests");
    // What MariaDB does not have.
    if tools("mysql9-tests").exists() {
        nothing_is_missed(&server, "mysql9-tests");
    } else {
        eprintln!("not run: there is no .tools/mysql9-tests");
    }
}

fn tools(folder: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    tools.join(folder)
}

/// Of what the test files of this folder say.
fn nothing_is_missed(server: &Server, folder: &str) {
    // Nothing that a statement needs; without anything the database would not open.
    server.ask("CREATE USER IF NOT EXISTS nobody@'%'; GRANT LOCK TABLES ON shop.* TO nobody@'%'");
    let mut client = Client::connect_as(server.port, "nobody");
    let (mut understood, mut denied) = (0, 0);
    let mut missed = Vec::new();
    let mut opaque: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = Calls::default();
    for text in texts(&tools(folder)) {
        calls.puts(&mut client, &text);
        let Some(says) = says(&mut client, &text) else {
            continue;
        };
        understood += 1;
        denied += usize::from(!matches!(says, Says::Nothing));
        let analysis = Analysis::of(&text, Dialect::MYSQL);
        if let Some(why) = analysis.statements.iter().find_map(|one| one.opaque) {
            *opaque.entry(why).or_default() += 1;
        }
        if analysis.statements.is_empty() {
            // Behind a statement this would be an error.
            let behind = client.prepares(&format!("{text}\nSELECT 1"));
            missed.extend(behind.is_err().then(|| format!("it is something: {text}")));
            continue;
        }
        missed.extend(difference(&analysis, &says).map(|what| format!("{what}: {text}")));
        missed.extend(joined(&text).map(|what| format!("{what}: {text}")));
    }
    calls.all_are_read();
    let all: usize = opaque.values().sum();
    eprintln!("{folder}: {understood} understood, {denied} denied, {all} opaque: {opaque:#?}");
    assert!(understood >= STATEMENTS_MIN, "{understood}");
    assert!(
        missed.is_empty(),
        "{}:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

/// What a server says of a statement that it understands.
#[derive(Debug)]
enum Says {
    /// Nobody needs leave for it, or none that names a table.
    Nothing,
    /// It would do this to this table.
    Needs(Class, String, String),
    /// It is the server's owner's.
    Admin(String),
}

/// `None`: the server does not understand it.
fn says(client: &mut Client, text: &str) -> Option<Says> {
    let number = match client.prepares(text) {
        Ok(number) => {
            client.send(0, &[b"\x19", &number.to_le_bytes()[..]].concat());
            return Some(Says::Nothing);
        }
        Err(answer) => answer,
    };
    let (code, text) = number;
    Some(match code {
        // It cannot be parsed, or cannot be prepared, or is none.
        0 | 1064 | 1065 | 1295 | 1149 | 1300 | 1193 => return None,
        1142 => {
            let text = text.get(6..).unwrap_or_default();
            let what = text.split(" command denied").next().unwrap_or_default();
            let table = text.rsplit(" for table ").next().unwrap_or_default();
            let class = match what {
                _ if what.starts_with("SELECT") => Class::Read,
                // TRUNCATE needs it, too.
                "INSERT" | "UPDATE" | "DELETE" | "DROP" | "DELETE HISTORY" => Class::Write,
                "CREATE" | "ALTER" | "INDEX" | "CREATE VIEW" | "TRIGGER" => Class::Schema,
                _ => return Some(Says::Nothing),
            };
            Says::Needs(class, last_name(table), what.to_owned())
        }
        // Reading what the server does or did needs these.
        1227 if ["PROCESS", "REPLICATION"]
            .iter()
            .any(|word| text.contains(word)) =>
        {
            Says::Nothing
        }
        1227 => Says::Admin(text),
        _ => Says::Nothing,
    })
}

/// The last name of `` `a`.`b` `` or `'b'`.
fn last_name(shown: &str) -> String {
    let shown = shown.get(1..shown.len().saturating_sub(1)).unwrap_or("");
    let last = shown.rsplit("`.`").next().unwrap_or_default();
    last.replace("``", "`")
}

/// What of what the server says is not in `analysis`.
fn difference(analysis: &Analysis, says: &Says) -> Option<String> {
    if analysis.class() == Class::Opaque {
        return None;
    }
    // A body is cut where its statements end, and each is read as if it ran.
    let is_body = |one: &Statement| one.verbs.contains(&"CREATE") || one.verbs == ["ALTER"];
    let one = match &*analysis.statements {
        [one] => one,
        // Where one of them is executed by some servers only, both readings are there.
        [first, rest @ ..] if is_body(first) || rest.iter().all(|one| one == first) => {
            return None;
        }
        several => return Some(format!("it is {} statements", several.len())),
    };
    if one.verbs == ["EXPLAIN"] || one.verbs == ["DESCRIBE"] {
        return None;
    }
    match says {
        Says::Nothing => None,
        Says::Admin(text) => {
            (one.class < Class::Admin).then(|| format!("it is {:?}, and {text}", one.class))
        }
        Says::Needs(class, table, what) => {
            let less = one.class < *class;
            let unseen = !names(one, table, *class);
            (less || unseen).then(|| {
                let relations = &one.relations;
                format!("it is {:?} of {relations:?}, and {what} {table}", one.class)
            })
        }
    }
}

fn names(statement: &Statement, table: &str, class: Class) -> bool {
    let changes = class == Class::Write;
    statement.relations.iter().any(|relation| {
        let name = relation.name.to_ascii_lowercase();
        let behind = name.strip_suffix(&table.to_ascii_lowercase());
        behind.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            && (!changes || relation.access != Access::Read)
    })
}

/// A statement behind `text` is one of its own, whatever `text` is.
fn joined(text: &str) -> Option<&'static str> {
    let both = Analysis::of(&format!("{text}\n;DROP TABLE behind"), Dialect::MYSQL);
    let is_seen = both.class() == Class::Opaque
        || both.statements.last().is_some_and(|last| {
            let behind = |one: &openbox_sidecar::protocols::sql::Relation| &*one.name == "behind";
            last.verbs == ["DROP"] && last.relations.iter().any(behind)
        });
    (!is_seen).then_some("what is behind it is not seen")
}

/// Statements of the server's test files, each once.
fn texts(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    tests(folder, &mut files);
    assert!(!files.is_empty(), "scripts/needs.sh was not run");
    files.sort();
    let mut seen = HashSet::new();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        if let Ok(text) = String::from_utf8(bytes) {
            statements(&text, &mut seen);
        }
    }
    let mut all: Vec<_> = seen.into_iter().collect();
    all.sort();
    let step = all.len().div_ceil(STATEMENTS_MAX).max(1);
    all.into_iter().step_by(step).collect()
}

fn tests(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(all) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in all.map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            tests(&entry, files);
        } else if entry
            .extension()
            .is_some_and(|end| end == "test" || end == "inc")
        {
            files.push(entry);
        }
    }
}

/// What ends at the end of a line. Some of it is no statement: the server says so.
fn statements(file: &str, seen: &mut HashSet<String>) {
    let mut end = ";".to_owned();
    let mut text = String::new();
    for line in file.lines() {
        let trimmed = line.trim();
        let words: Vec<_> = trimmed.split_whitespace().collect();
        if words.first().is_some_and(|word| {
            word.trim_start_matches("--")
                .eq_ignore_ascii_case("delimiter")
        }) {
            let new = words.get(1).copied().unwrap_or(";");
            end = new
                .strip_suffix(&*end)
                .filter(|rest| !rest.is_empty())
                .unwrap_or(new)
                .to_owned();
            text.clear();
            continue;
        }
        if text.is_empty() && (trimmed.starts_with("--") || trimmed.starts_with('#')) {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        if let Some(whole) = text.trim().strip_suffix(&*end) {
            if whole.lines().count() <= LINES_MAX && !whole.is_empty() {
                seen.insert(whole.to_owned());
            }
            text.clear();
        }
    }
}
