//! What a command looks like to policy: its name, its keys, and nothing of
//! its values.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::{
    Action, Capture, Captured, DatabaseCall, JsonText, Operation, Timestamp, Told, TraceId,
};
use crate::process::clock;
use crate::session::Session;

use super::Upstream;
use super::commands::{Access, Arguments, Class, Row, lookup};
use super::request;
use super::scripts::Scripts;

/// Most bytes of a statement that policy sees.
const SHOWN_BYTES_MAX: usize = 64 << 10;
/// Most keys that policy sees; a command with more is opaque.
const KEYS_MAX: usize = 1_024;

/// Words of options that are shown, in their order: no value is told apart from
/// one of them, but then it tells nothing.
const OPTIONS: &[&str] = &[
    "AFTER",
    "AGGREGATE",
    "ALPHA",
    "AND",
    "ANY",
    "ASC",
    "ASYNC",
    "BEFORE",
    "BLOCK",
    "BY",
    "BYBOX",
    "BYLEX",
    "BYRADIUS",
    "BYSCORE",
    "CH",
    "COUNT",
    "DB",
    "DESC",
    "ENTRIESREAD",
    "EX",
    "EXAT",
    "FIELDS",
    "FREQ",
    "FROMLONLAT",
    "FROMMEMBER",
    "FT",
    "FULL",
    "GET",
    "GROUP",
    "GT",
    "ID",
    "IDLE",
    "IDLETIME",
    "IDX",
    "INCR",
    "KEEPTTL",
    "KEYS",
    "KM",
    "LEFT",
    "LEN",
    "LIMIT",
    "LT",
    "M",
    "MATCH",
    "MAX",
    "MAXLEN",
    "MI",
    "MIN",
    "MINID",
    "MINMATCHLEN",
    "MKSTREAM",
    "NOACK",
    "NOMKSTREAM",
    "NOT",
    "NX",
    "OR",
    "PERSIST",
    "PX",
    "PXAT",
    "REPLACE",
    "REV",
    "RIGHT",
    "STORE",
    "STOREDIST",
    "STREAMS",
    "SUM",
    "SYNC",
    "TYPE",
    "WEIGHTS",
    "WITHCOORD",
    "WITHDIST",
    "WITHHASH",
    "WITHMATCHLEN",
    "WITHSCORES",
    "WITHVALUES",
    "XOR",
    "XX",
];

/// None of them is longer.
const OPTION_BYTES_MAX: usize = 12;

/// A command as policy reads it.
#[derive(Clone, Debug)]
pub(super) struct Described {
    name: Box<str>,
    pub(super) class: Class,
    /// It runs a script that nobody here has seen.
    pub(super) unseen_script: bool,
    statement: String,
    state: Captured,
    pub(super) digest: Option<[u8; 32]>,
    reading: JsonText,
    told: Told,
}

/// What is known of a command besides its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) row: Option<&'static Row>,
    pub(super) scripts: &'a Scripts,
    /// All bytes of the command; `None` where they are not all there.
    pub(super) whole: Option<&'a [u8]>,
    /// Why nobody can say what it does, besides what is seen here.
    pub(super) opaque: Option<&'static str>,
    /// Whether an SDK's hook may tell the same, in the same trace.
    pub(super) traced: bool,
}

impl Described {
    /// Reads a command.
    pub(super) fn of(arguments: &impl Arguments, known: Known<'_>) -> Self {
        let mut opaque = known.opaque;
        let keys = match known.row.map(|row| row.keys(arguments)) {
            Some(Ok(keys)) => keys,
            Some(Err(_)) => {
                opaque = opaque.or(Some("its keys are too far behind its name"));
                Vec::new()
            }
            None => {
                opaque = opaque.or(Some("the command is not known"));
                Vec::new()
            }
        };
        if keys.len() > KEYS_MAX {
            opaque = opaque.or(Some("it has more keys than are shown"));
        }
        let name = name(arguments, known.row);
        let mut unseen_script = false;
        let script = match script(arguments, &name, known.scripts) {
            Script::None => None,
            Script::Text(text) => Some(text),
            Script::Unknown => {
                unseen_script = name.starts_with("EVALSHA");
                opaque = opaque.or(Some("the text of the script is not known"));
                None
            }
        };
        let class = match (opaque, known.row) {
            (None, Some(row)) => row.class,
            _ => Class::Opaque,
        };
        let function = match name.starts_with("FCALL") {
            true => arguments.argument(1).map(String::from_utf8_lossy),
            false => None,
        };
        let shown = keys.get(..keys.len().min(KEYS_MAX)).unwrap_or_default();
        let reading = reading(Reading {
            class,
            name: &name,
            keys: shown
                .iter()
                .filter_map(|(at, access)| Some((arguments.argument(*at)?, *access))),
            function: function.as_deref(),
            row: known.row,
            opaque,
        });
        let told = match known.traced && known.whole.is_some() {
            true => told(arguments, &name, shown),
            false => Told::Unknown,
        };
        let (statement, whole) = statement(arguments, &name, shown, script.as_deref());
        Self {
            class,
            unseen_script,
            state: match whole && known.whole.is_some() {
                true => Captured::Whole,
                false => Captured::Partial,
            },
            statement,
            digest: known.whole.map(|bytes| Sha256::digest(bytes).into()),
            reading,
            told,
            name,
        }
    }

    /// Whether policy is shown the same of both. Their values may differ.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let shown = |of: &Self| (of.class, of.unseen_script, of.state, of.told);
        self.name == other.name
            && self.statement == other.statement
            && self.reading == other.reading
            && shown(self) == shown(other)
    }

    /// The operation that it is.
    pub(super) fn operation(
        self,
        upstream: &Upstream,
        database: Option<u32>,
        session: &Session,
        trace: Option<TraceId>,
        started_at: Timestamp,
    ) -> Box<Operation> {
        let call = DatabaseCall {
            system: "redis".into(),
            name: database.map(|number| number.to_string().into()),
            user: None,
            operation: self.name,
            statement: Capture {
                trailers: None,
                bytes: u64::try_from(self.statement.len()).unwrap_or(u64::MAX),
                text: Some(self.statement),
                digest: self.digest,
                state: self.state,
                ..Capture::default()
            },
            server_address: Some(upstream.host.clone()),
            server_port: Some(upstream.port),
            reading: Some(self.reading),
            told: self.told,
        };
        Box::new(Operation {
            id: clock::operation_id(started_at),
            trace: trace.unwrap_or_else(clock::trace_id),
            span: clock::span_id(),
            parent: None,
            started_at,
            context: session.context.clone(),
            attribution: session.attribution,
            fingerprint: None,
            action: Action::Database(call),
            reported: None,
        })
    }
}

/// A command as it is typed into `redis-cli`, as policy sees it: name,
/// statement, reading. `None` where its quotes do not end.
#[must_use]
pub fn as_seen(statement: &str) -> Option<(Box<str>, String, JsonText)> {
    let words = request::words(statement.as_bytes())?;
    let scripts = Scripts::new(0);
    let known = Known {
        row: lookup(words.first()?, words.get(1).map(|word| &**word)),
        scripts: &scripts,
        whole: Some(statement.as_bytes()),
        opaque: None,
        traced: false,
    };
    let described = Described::of(&words, known);
    Some((described.name, described.statement, described.reading))
}

/// The name, where it looks like one.
fn name(arguments: &impl Arguments, row: Option<&'static Row>) -> Box<str> {
    if let Some(row) = row {
        return row.name.clone();
    }
    let first = arguments.argument(0).unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let text = std::str::from_utf8(first).unwrap_or_default();
    match text.len() {
        1..=40 if first.iter().all(plain) => text.to_ascii_uppercase().into(),
        _ => "UNKNOWN".into(),
    }
}

/// How an SDK's hook tells it: all words behind one another, values as they
/// are. Where a name holds a space nobody can say where it ends there.
fn told(arguments: &impl Arguments, name: &str, keys: &[(usize, Access)]) -> Told {
    let mut hash = Sha256::new();
    for at in 0..arguments.count() {
        let Some(argument) = arguments.argument(at) else {
            return Told::Unknown;
        };
        let is_key = keys.iter().any(|(key, _)| *key == at);
        if (at == 0 || is_key || is_named(name, at)) && argument.contains(&b' ') {
            return Told::Unknown;
        }
        if at > 0 {
            hash.update(b" ");
        }
        hash.update(argument);
    }
    Told::Digest(hash.finalize().into())
}

enum Script {
    None,
    Text(Arc<str>),
    Unknown,
}

fn script(arguments: &impl Arguments, name: &str, scripts: &Scripts) -> Script {
    let text = |at: usize| match arguments.argument(at).map(std::str::from_utf8) {
        Some(Ok(text)) => Script::Text(text.into()),
        Some(Err(_)) | None => Script::Unknown,
    };
    match name {
        "EVAL" | "EVAL_RO" => text(1),
        "SCRIPT LOAD" => text(2),
        "FUNCTION LOAD" => text(arguments.count().saturating_sub(1)),
        "EVALSHA" | "EVALSHA_RO" => {
            let known = arguments.argument(1).and_then(|name| scripts.text(name));
            known.map_or(Script::Unknown, Script::Text)
        }
        _ => Script::None,
    }
}

/// The command with its keys, options and scripts, and `?` for everything
/// else; and whether that is all of it.
fn statement(
    arguments: &impl Arguments,
    name: &str,
    keys: &[(usize, Access)],
    script: Option<&str>,
) -> (String, bool) {
    let mut line = String::with_capacity(64);
    line.push_str(name);
    let begin = 1_usize.saturating_add(name.bytes().filter(|byte| *byte == b' ').count());
    let mut keys = Cow::Borrowed(keys);
    if !keys.is_sorted_by_key(|(at, _)| *at) {
        keys.to_mut().sort_unstable_by_key(|(at, _)| *at);
    }
    let mut keys = keys.iter().peekable();
    let mut hidden = 0_usize;
    for at in begin..arguments.seen() {
        while keys.peek().is_some_and(|(key, _)| *key < at) {
            keys.next();
        }
        let is_key = keys.peek().is_some_and(|(key, _)| *key == at);
        let argument = arguments.argument(at).unwrap_or_default();
        let shown = match script {
            Some(text) if is_script(name, at, arguments.count()) => Shown::Text(text),
            _ if is_key || is_named(name, at) => Shown::Name,
            _ => option(argument).map_or(Shown::Hidden, Shown::Text),
        };
        match shown {
            Shown::Text(text) => {
                line.push(' ');
                line.push_str(text);
            }
            Shown::Name => {
                line.push(' ');
                named(&mut line, argument);
            }
            Shown::Hidden if hidden < 2 => line.push_str(" ?"),
            Shown::Hidden if hidden == 2 => line.push_str(" …"),
            Shown::Hidden => {}
        }
        hidden = match shown {
            Shown::Hidden => hidden.saturating_add(1),
            Shown::Text(_) | Shown::Name => 0,
        };
        if line.len() > SHOWN_BYTES_MAX {
            line.truncate(line.floor_char_boundary(SHOWN_BYTES_MAX));
            return (line, false);
        }
    }
    if arguments.seen() < arguments.count() && hidden <= 2 {
        line.push_str(" …");
    }
    (line, true)
}

enum Shown<'a> {
    Text(&'a str),
    Name,
    Hidden,
}

fn is_script(name: &str, at: usize, count: usize) -> bool {
    match name {
        "SCRIPT LOAD" => at == 2,
        "FUNCTION LOAD" => at.saturating_add(1) == count,
        _ => at == 1,
    }
}

/// Whether an argument is the name of something, and no value.
fn is_named(name: &str, at: usize) -> bool {
    match name {
        "EVAL" | "EVAL_RO" | "EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => at <= 2,
        "CONFIG SET" => at.is_multiple_of(2),
        "CONFIG GET" | "INFO" | "CLIENT KILL" | "CLIENT UNBLOCK" => true,
        "ACL SETUSER" | "ACL GETUSER" | "ACL DELUSER" => at == 2,
        _ => false,
    }
}

fn option(argument: &[u8]) -> Option<&'static str> {
    let mut space = [0; OPTION_BYTES_MAX];
    let word = space.get_mut(..argument.len())?;
    word.copy_from_slice(argument);
    word.make_ascii_uppercase();
    let at = OPTIONS.binary_search_by(|option| option.as_bytes().cmp(word));
    OPTIONS.get(at.ok()?).copied()
}

/// A name as it is, where that cannot be misread; else in quotes.
fn named(line: &mut String, name: &[u8]) {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'?');
    if let (false, true, Ok(text)) = (
        name.is_empty(),
        name.iter().all(plain),
        std::str::from_utf8(name),
    ) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for chunk in name.utf8_chunks() {
        for one in chunk.valid().chars() {
            match one {
                '"' | '\\' => line.extend(['\\', one]),
                one if one.is_control() => line.extend(one.escape_default()),
                one => line.push(one),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _written = write!(line, "\\x{byte:02x}");
        }
    }
    line.push('"');
}

struct Reading<'a, K> {
    class: Class,
    name: &'a str,
    keys: K,
    function: Option<&'a str>,
    row: Option<&'static Row>,
    opaque: Option<&'static str>,
}

/// Written by hand: most of it is known words, and there is one for every
/// command.
fn reading<'k>(of: Reading<'_, impl Iterator<Item = (&'k [u8], Access)>>) -> JsonText {
    let mut text = String::with_capacity(192);
    text.push_str(r#"{"class":""#);
    text.push_str(of.class.as_str());
    text.push_str(r#"","verbs":["#);
    json(&mut text, of.name);
    text.push_str(r#"],"relations":["#);
    for (index, (key, access)) in of.keys.enumerate() {
        text.push_str(if index > 0 { "," } else { "" });
        text.push_str(r#"{"name":"#);
        json(&mut text, &String::from_utf8_lossy(key));
        text.push_str(r#","access":""#);
        text.push_str(access.as_str());
        text.push_str(r#""}"#);
    }
    text.push_str(r#"],"functions":["#);
    if let Some(function) = of.function {
        json(&mut text, function);
    }
    text.push_str(r#"],"flags":["#);
    text.push_str(match of.row.map(|row| (row.dangerous, row.blocking)) {
        Some((true, true)) => r#""dangerous","blocking""#,
        Some((true, false)) => r#""dangerous""#,
        Some((false, true)) => r#""blocking""#,
        Some((false, false)) | None => "",
    });
    text.push_str(r#"],"opaque":"#);
    match of.opaque {
        Some(why) => json(&mut text, why),
        None => text.push_str("null"),
    }
    text.push('}');
    JsonText(text.into())
}

/// A text as JSON. Most have nothing in them that is written in another way.
fn json(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(words: &[&str]) -> Described {
        let scripts = Scripts::new(1_000);
        scripts.seen(b"return 1");
        let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let second = words.get(1).map(|word| &**word);
        let known = Known {
            row: lookup(&words[0], second),
            scripts: &scripts,
            whole: Some(b"all of it"),
            opaque: None,
            traced: false,
        };
        Described::of(&words, known)
    }

    #[test]
    fn c_7_values_are_never_shown_and_names_always_are() {
        for (words, expected) in [
            (&["set", "k", "secret", "ex", "10"][..], "SET k ? EX ?"),
            (&["MSET", "a", "x", "b c", "y"], "MSET a ? \"b c\" ?"),
            (&["LPUSH", "k", "1", "2", "3", "4"], "LPUSH k ? ? …"),
            (
                &["CONFIG", "SET", "requirepass", "secret"],
                "CONFIG SET requirepass ?",
            ),
            (&["ACL", "SETUSER", "bob", ">secret"], "ACL SETUSER bob ?"),
            (&["EVAL", "return 1", "1", "k", "v"], "EVAL return 1 1 k ?"),
            (
                &["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"],
                "EVALSHA return 1 0",
            ),
            (&["json.set", "k", "secret"], "JSON.SET ? ?"),
            (&["GET", "a\"b?\n"], "GET \"a\\\"b?\\n\""),
            (&["PUBLISH", "c", "secret"], "PUBLISH c ?"),
        ] {
            assert_eq!(described(words).statement, expected);
        }
    }

    #[test]
    fn c_5_c_6_what_it_does_is_said_and_what_nobody_knows_is_opaque() {
        for (words, expected) in [
            (
                &["GET", "k"][..],
                r#"{"class":"read","verbs":["GET"],"relations":[{"name":"k","access":"read"}],"functions":[],"flags":[],"opaque":null}"#,
            ),
            (
                &["BLPOP", "a", "0"],
                r#"{"class":"write","verbs":["BLPOP"],"relations":[{"name":"a","access":"write"}],"functions":[],"flags":["blocking"],"opaque":null}"#,
            ),
            (
                &["FCALL", "f", "0"],
                r#"{"class":"write","verbs":["FCALL"],"relations":[],"functions":["f"],"flags":[],"opaque":null}"#,
            ),
            (
                &["EVALSHA", "0000", "0"],
                r#"{"class":"opaque","verbs":["EVALSHA"],"relations":[],"functions":[],"flags":[],"opaque":"the text of the script is not known"}"#,
            ),
            (
                &["MODULE.THING", "k"],
                r#"{"class":"opaque","verbs":["MODULE.THING"],"relations":[],"functions":[],"flags":[],"opaque":"the command is not known"}"#,
            ),
        ] {
            let read = described(words).reading;
            assert_eq!(&*read.0, expected);
            serde_json::from_str::<serde_json::Value>(&read.0).unwrap();
        }
    }

    #[test]
    fn options_are_found_in_any_case_and_nothing_else_is() {
        assert!(OPTIONS.is_sorted());
        for word in OPTIONS {
            assert!(word.len() <= OPTION_BYTES_MAX, "{word}");
            assert_eq!(option(word.to_ascii_lowercase().as_bytes()), Some(*word));
        }
        for word in ["", "A", "MATCHX", "WITHMATCHLENS", "\u{7f}", "secret"] {
            assert_eq!(option(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn a_name_of_any_bytes_is_json() {
        for name in ["a\"b", "a\\b", "a\nb\u{1}", "\u{7f}ü", "\u{2028}", ""] {
            let read = described(&["GET", name]).reading;
            let read: serde_json::Value = serde_json::from_str(&read.0).unwrap();
            assert_eq!(read["relations"][0]["name"], name);
        }
    }

    #[test]
    fn a_case_of_a_policy_test_is_read_as_a_command_that_comes() {
        let (name, statement, reading) = as_seen("set 'a b' secret EX 10").unwrap();
        assert_eq!((&*name, &*statement), ("SET", "SET \"a b\" ? EX ?"));
        assert!(reading.0.contains(r#""class":"write""#), "{}", reading.0);
        assert!(as_seen("GET \"a").is_none() && as_seen("").is_none());
    }
}
