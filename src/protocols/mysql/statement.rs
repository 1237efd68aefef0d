//! Texts as the server of one session reads them, and those that it has prepared.

use std::collections::HashMap;
use std::sync::Arc;

use crate::protocols::sql::{
    Analyses, Analysis, Class, Conditional, Dialect, Kind, Lexer, Read, TEXT_BYTES_MAX, Token,
    contains_ignoring_case,
};

use super::dynamic;

/// Most prepared statements of one session that are remembered; one that is not
/// is opaque.
const STATEMENTS_MAX: usize = 4_096;
/// Most bytes of their texts.
const STATEMENTS_BYTES_MAX: usize = 8 << 20;

/// Most failures in a row behind which the server is asked again how it reads texts.
const FAILURES_MAX: u8 = 16;

/// What asks a server how it reads texts, and which database is current: in digits, which
/// say the same in all encodings but those that nothing is read in. Its limit is its own:
/// a session may have another for statements that have none (`sql_select_limit`).
pub(super) const PROBE: &str = "SELECT @@character_set_client, @@sql_mode, HEX(DATABASE()) LIMIT 1";

/// Why a text is opaque that the server was asked about in vain.
const NOWHERE: &str = "which database is current is not known for certain";

/// Why a text is opaque that is read in more ways than one.
const UNCERTAIN: &str = "how the server reads it is not known for certain";

/// Why a text is opaque of which the beginning alone may have been seen.
pub(super) const TOO_LONG: &str = "it is too long to be understood";

/// A text, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// As it was sent, or what is meant by it; lossy where it cannot be decoded.
    /// `None`: nobody here has seen it.
    pub(super) text: Option<Arc<str>>,
    /// Absent where it cannot be read, with `why`.
    pub(super) analysis: Option<Arc<Analysis>>,
    /// Why it is opaque though it may look like something.
    pub(super) why: Option<&'static str>,
    /// The database that all of it runs in, where its own `USE` says that.
    pub(super) within: Option<Box<str>>,
}

impl Text {
    /// A statement of a number that nobody here has seen prepared.
    pub(super) fn unknown() -> Self {
        Self {
            text: None,
            analysis: None,
            why: Some("it was prepared out of sight"),
            within: None,
        }
    }

    /// A text that is shown and not understood.
    pub(super) fn opaque(shown: &[u8], why: &'static str) -> Self {
        Self {
            text: Some(String::from_utf8_lossy(shown).into()),
            analysis: None,
            why: Some(why),
            within: None,
        }
    }

    /// As it was sent, where how a server reads it matters.
    pub(super) fn ambiguous(&self) -> Option<&[u8]> {
        let text = self.text.as_deref()?.as_bytes();
        (!is_plain(text)).then_some(text)
    }

    fn read(&self) -> Option<Read<'_>> {
        Some(Read(self.text.as_ref()?, self.analysis.as_ref()?))
    }

    /// It runs in a database that nobody knows, unless it says so itself.
    pub(super) fn nowhere(mut self) -> Self {
        let says = self.within.is_some() || self.one("USE").is_some();
        self.why = self.why.or((!says).then_some(NOWHERE));
        self
    }

    /// Whether what it does hangs on variables of the session (`@name`, `@@name`), whose values nobody here knows.
    pub(super) fn has_variables(&self) -> bool {
        let text = self.text.as_deref().unwrap_or_default();
        let is_one = |token: Token| token.of(text).starts_with('@');
        memchr::memchr(b'@', text.as_bytes()).is_some()
            && (!is_plain(text.as_bytes()) || Lexer::new(text, Dialect::MYSQL).any(is_one))
    }

    /// Whether it is the same text, read in the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.why == other.why && self.read().is_some_and(|read| Some(read) == other.read())
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.class() == Class::Opaque
    }

    pub(super) fn class(&self) -> Class {
        match (&self.analysis, self.why) {
            (Some(analysis), None) => analysis.class(),
            (_, _) => Class::Opaque,
        }
    }

    /// As it was sent, where it is one statement of this verb.
    fn one(&self, verb: &str) -> Option<&str> {
        let statements = &*self.analysis.as_ref()?.statements;
        let is_one = matches!(statements, [one] if one.verbs.first() == Some(&verb));
        self.text.as_deref().filter(|_| is_one)
    }

    fn has_verb(&self, wanted: &str) -> bool {
        let analysis = self.analysis.as_ref();
        analysis.is_some_and(|analysis| {
            let mut verbs = analysis.statements.iter().flat_map(|one| &one.verbs);
            verbs.any(|verb| *verb == wanted)
        })
    }

    /// What it has prepared by a name, as executing that is to be read; `None` where it does
    /// more then than what its text says.
    pub(super) fn prepared(&self) -> Option<Self> {
        let inner = dynamic::literal(self.text.as_deref()?, Dialect::MYSQL)?;
        let understood = !self.is_opaque() && !self.has_verb("USE");
        understood.then(|| Self {
            text: Some(inner.into()),
            analysis: self.analysis.clone(),
            why: None,
            within: None,
        })
    }

    /// Whether, once it has run, the server may read texts in another way.
    pub(super) fn changes_reading(&self) -> bool {
        if self.is_opaque() {
            return true;
        }
        self.has_verb("SET")
            && self.text.as_deref().is_none_or(|text| {
                let lower = text.to_ascii_lowercase();
                // Names of settings are compared without accents.
                !text.is_ascii()
                    || ["mode", "names", "char"]
                        .iter()
                        .any(|part| lower.contains(part))
            })
    }

    /// What the first `executed` of its statements make of the current database, which is
    /// `current`, as far as the text tells.
    pub(super) fn used_database(&self, executed: usize, current: Option<&str>) -> Uses {
        let text = self.text.as_deref().unwrap_or_default();
        let has = |word: &str| contains_ignoring_case(text, word);
        if self.is_opaque() {
            let unseen = self.text.is_none() || self.why == Some(TOO_LONG);
            let may = unseen || has("use") || self.has_verb("EXECUTE");
            return if may { Uses::Unknown } else { Uses::None };
        }
        if self.has_verb("DROP") && current.is_some_and(has) && (has("database") || has("schema")) {
            return Uses::Unknown;
        }
        match self.has_verb("USE") {
            true => self.uses(text, executed),
            false => Uses::None,
        }
    }

    fn uses(&self, text: &str, executed: usize) -> Uses {
        let tokens = Lexer::new(text, Dialect::MYSQL).filter(|token| !token.kind.is_blank());
        let all: Vec<_> = tokens.collect();
        // Not every server executes what is in it; and where a quote ends depends on the
        // session, but for `USE name;` alone.
        let begins = |word: &str| {
            let first = all.first();
            first.is_some_and(|first| first.of(text).eq_ignore_ascii_case(word))
        };
        let alone = begins("USE") && all.len() <= 3;
        let quotes = memchr::memchr3(b'"', b'\\', b'[', text.as_bytes()).is_some();
        if (quotes && !alone)
            || begins("EXECUTE")
            || all.iter().any(|token| token.kind == Kind::Executable)
        {
            return Uses::Unknown;
        }
        let statements = all.split(|token| token.kind == Kind::Mark(b';'));
        let begun = statements.filter(|tokens| !tokens.is_empty());
        let used = begun.take(executed).filter_map(|tokens| match tokens {
            [verb, names @ ..] if verb.of(text).eq_ignore_ascii_case("USE") => Some(names),
            _ => None,
        });
        used.last().map_or(Uses::None, |names| named(text, names))
    }

    /// The one database that its statements run in, where some stand behind a `USE`; the
    /// statements themselves change none.
    fn runs_in(&self, text: &str, dialect: Dialect) -> Uses {
        if !self.has_verb("USE") {
            return Uses::None;
        }
        let tokens = Lexer::new(text, dialect).filter(|token| !token.kind.is_blank());
        let all: Vec<_> = tokens.collect();
        if all.iter().any(|token| token.kind == Kind::Executable) {
            return Uses::Unknown;
        }
        let statements = all.split(|token| token.kind == Kind::Mark(b';'));
        let (mut now, mut run_in) = (Uses::None, None);
        for tokens in statements.filter(|tokens| !tokens.is_empty()) {
            match tokens {
                [verb, names @ ..] if verb.of(text).eq_ignore_ascii_case("USE") => {
                    now = named(text, names);
                }
                _ if run_in.get_or_insert_with(|| now.clone()) != &now => return Uses::Unknown,
                _ => {}
            }
        }
        run_in.unwrap_or(Uses::None)
    }

    /// The connection that it ends, or ends the statement of; `given` is its parameter.
    pub(super) fn killed(&self, given: impl FnOnce() -> Option<u32>) -> Option<u32> {
        let text = self.one("KILL")?;
        let tokens = Lexer::new(text, Dialect::MYSQL)
            .filter(|token| !token.kind.is_blank() && token.kind != Kind::Mark(b';'));
        let words: Vec<_> = tokens.map(|token| token.of(text)).collect();
        let (number, before) = words.split_last()?;
        let of_connection = ["KILL", "HARD", "SOFT", "CONNECTION", "QUERY"];
        // `KILL QUERY ID 5` is about a query of that number, on whichever connection.
        let all = before.iter().all(|word| {
            let mut known = of_connection.iter();
            known.any(|known| word.eq_ignore_ascii_case(known))
        });
        let number = match *number {
            "?" => given(),
            number => number.parse().ok(),
        };
        number.filter(|_| all)
    }

    /// The file that `LOAD DATA LOCAL` names; `None` where that is not one literal. Whether
    /// its backslashes escape is what the server said when the text was read.
    pub(super) fn local_file(&self, no_backslash_escapes: bool) -> Option<String> {
        let text = self.one("LOAD")?;
        let dialect = Dialect::Mysql {
            ansi_quotes: false,
            no_backslash_escapes,
            conditional: Conditional::Executed,
        };
        let mut tokens = Lexer::new(text, dialect).filter(|token| !token.kind.is_blank());
        tokens.find(|token| token.of(text).eq_ignore_ascii_case("infile"))?;
        let file = tokens
            .next()
            .filter(|token| token.kind == Kind::Text)?
            .of(text);
        let quote = file.chars().next().filter(|quote| "'\"".contains(*quote))?;
        let inner = file.strip_prefix(quote)?.strip_suffix(quote)?;
        Some(match no_backslash_escapes {
            true => inner.replace(&format!("{quote}{quote}"), &quote.to_string()),
            false => unescaped(inner, quote),
        })
    }
}

/// What stands within these quotes, where a backslash escapes.
fn unescaped(inner: &str, quote: char) -> String {
    let mut said = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(letter) = rest.next() {
        if letter == quote {
            // Twice, it is one.
            rest.next();
        }
        if letter != '\\' {
            said.push(letter);
            continue;
        }
        match rest.next() {
            Some('0') => said.push('\0'),
            Some('b') => said.push('\u{8}'),
            Some('n') => said.push('\n'),
            Some('r') => said.push('\r'),
            Some('t') => said.push('\t'),
            Some('Z') => said.push('\u{1a}'),
            // Of a pattern, which keeps it.
            Some(sign @ ('%' | '_')) => said.extend(['\\', sign]),
            Some(other) => said.push(other),
            None => said.push('\\'),
        }
    }
    said
}

/// The database that these words behind `USE` name.
fn named(text: &str, names: &[Token]) -> Uses {
    let [name] = names else { return Uses::Unknown };
    let word = name.of(text);
    let quoted = word
        .strip_prefix('`')
        .and_then(|word| word.strip_suffix('`'));
    match (name.kind, quoted) {
        (Kind::Word, _) => Uses::Database(word.into()),
        (Kind::Name, Some(name)) => Uses::Database(name.replace("``", "`").into()),
        _ => Uses::Unknown,
    }
}

/// What a text makes of the current database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    /// Nothing.
    None,
    /// It is this one.
    Database(Box<str>),
    /// Nobody can tell.
    Unknown,
}

/// A charset of a client, by how its bytes are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charset {
    Utf8,
    /// UTF-8 of at most three bytes.
    Utf8Short,
    /// Each byte above 127 is one of a letter, or of a sign.
    Bytes,
    /// A letter may end in a quote or a backslash.
    Ambiguous,
}

impl Charset {
    fn of(name: &[u8]) -> Self {
        match name {
            b"utf8mb4" => Self::Utf8,
            b"utf8" | b"utf8mb3" => Self::Utf8Short,
            b"ascii" | b"armscii8" | b"binary" | b"cp1250" | b"cp1251" | b"cp1256" | b"cp1257"
            | b"cp850" | b"cp852" | b"cp866" | b"dec8" | b"eucjpms" | b"euckr" | b"gb2312"
            | b"geostd8" | b"greek" | b"hebrew" | b"hp8" | b"keybcs2" | b"koi8r" | b"koi8u"
            | b"latin1" | b"latin2" | b"latin5" | b"latin7" | b"macce" | b"macroman"
            | b"tis620" | b"ujis" => Self::Bytes,
            _ => Self::Ambiguous,
        }
    }
}

/// How the server reads texts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// The server has to be asked.
    Stale,
    /// It could not say: it is asked again once it has done something.
    Failed,
    /// It did not say.
    Unknown,
    Known {
        charset: Charset,
        ansi_quotes: bool,
        no_backslash_escapes: bool,
        /// MariaDB's `MSSQL`: `[…]` is a name.
        brackets: bool,
    },
}

/// How the server of a session reads texts.
#[derive(Debug)]
pub(super) struct Reading {
    known: Arc<Analyses>,
    rules: Rules,
    /// What the server said last that they are.
    before: Option<Rules>,
    /// How often in a row the server could not say.
    failures: u8,
}

/// Whether a text means the same whatever the rules are.
pub(super) fn is_plain(text: &[u8]) -> bool {
    text.is_ascii() && memchr::memchr3(b'"', b'\\', b'[', text).is_none()
}

/// Whether `text` is in this kind of UTF-8, or only bytes in its literals are not. Those are
/// each taken for itself: none of them makes a quote, a backslash or a letter behind it part
/// of something else, neither with MySQL nor with MariaDB, which look at whole letters alone.
fn is_utf8_but_in_literals(text: &[u8], decoded: &str, charset: Charset, dialect: Dialect) -> bool {
    let is_long = |letter: char| charset == Charset::Utf8Short && letter > '\u{ffff}';
    let is_utf8 = text == decoded.as_bytes();
    let is_other =
        |letter: char| is_long(letter) || (!is_utf8 && letter == char::REPLACEMENT_CHARACTER);
    if !decoded.contains(is_other) {
        return true;
    }
    let mut all = Lexer::new(decoded, dialect);
    all.all(|one| one.kind == Kind::Text || !one.of(decoded).contains(is_other))
}

impl Reading {
    pub(super) fn new(known: Arc<Analyses>) -> Self {
        Self {
            known,
            rules: Rules::Stale,
            before: None,
            failures: 0,
        }
    }

    /// Something may have changed the rules.
    pub(super) fn stale(&mut self) {
        self.rules = Rules::Stale;
    }

    /// [`PROBE`] ended in an error: somebody's `KILL QUERY` was about it, or nothing runs
    /// before a password is changed.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.rules = match self.failures > FAILURES_MAX {
            true => Rules::Unknown,
            false => Rules::Failed,
        };
    }

    /// Something has run: whether the server can be asked again what it could not say.
    pub(super) fn can_ask_again(&mut self) -> bool {
        let failed = self.rules == Rules::Failed;
        if failed {
            self.rules = Rules::Stale;
        }
        failed
    }

    /// What the server said to [`PROBE`]; nothing where it said something else.
    pub(super) fn said(&mut self, values: Option<&[&[u8]]>) {
        // In another encoding (`character_set_results`) they would not be recognised.
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',');
        let values = values.filter(|values| values.iter().all(|one| one.iter().all(is_name)));
        let Some([charset, modes]) = values else {
            self.rules = Rules::Unknown;
            return;
        };
        self.failures = 0;
        let has = |wanted: &[u8]| modes.split(|byte| *byte == b',').any(|mode| mode == wanted);
        self.rules = Rules::Known {
            charset: Charset::of(charset),
            ansi_quotes: has(b"ANSI_QUOTES"),
            no_backslash_escapes: has(b"NO_BACKSLASH_ESCAPES"),
            brackets: has(b"MSSQL"),
        };
    }

    /// Whether the server has said what they are.
    fn are_known(&self) -> bool {
        matches!(self.rules, Rules::Known { .. })
    }

    /// Whether the rules are others than when the server said them before.
    pub(super) fn have_changed(&mut self) -> bool {
        // Where it could not say them, they need not be others.
        let before = match self.are_known() {
            true => self.before.replace(self.rules),
            false => None,
        };
        before.is_some_and(|before| before != self.rules)
    }

    /// A text that was read under the rules of before, as it is understood under those of now.
    pub(super) fn still(&self, mut text: Text) -> Text {
        let may_differ = text.ambiguous().is_some() && !self.are_known();
        text.why = text.why.or(may_differ.then_some(UNCERTAIN));
        text
    }

    /// Whether the server must be asked before `text` can be read.
    pub(super) fn must_ask(&self, text: &[u8]) -> bool {
        self.rules == Rules::Stale && text.len() <= TEXT_BYTES_MAX && !is_plain(text)
    }

    /// What `text` is; `no_backslash_escapes` as the server last reported it.
    pub(super) fn read(&self, text: &[u8], no_backslash_escapes: bool) -> Text {
        if text.len() > TEXT_BYTES_MAX {
            return Text::opaque(text, TOO_LONG);
        }
        if is_plain(text) {
            // All of it is ASCII.
            let text = std::str::from_utf8(text).unwrap_or_default();
            return self.understood(text, Dialect::MYSQL);
        }
        let Rules::Known {
            charset,
            ansi_quotes,
            no_backslash_escapes: said,
            brackets,
        } = self.rules
        else {
            return Text::opaque(text, UNCERTAIN);
        };
        if brackets && memchr::memchr(b'[', text).is_some() {
            return Text::opaque(text, "its brackets are quotes in this sql_mode (MSSQL)");
        }
        if said != no_backslash_escapes {
            return Text::opaque(
                text,
                "how the server reads its backslashes is not known for certain",
            );
        }
        let dialect = Dialect::Mysql {
            ansi_quotes,
            no_backslash_escapes,
            conditional: Conditional::Executed,
        };
        match charset {
            _ if text.is_ascii() => {
                let text = std::str::from_utf8(text).unwrap_or_default();
                self.understood(text, dialect)
            }
            Charset::Utf8 | Charset::Utf8Short => {
                let decoded = String::from_utf8_lossy(text);
                match is_utf8_but_in_literals(text, &decoded, charset, dialect) {
                    true => self.understood(&decoded, dialect),
                    false => Text::opaque(text, "it is not in the encoding it claims"),
                }
            }
            Charset::Bytes => {
                // Whichever letters they are: only in quotes they end nothing.
                let decoded: String = text.iter().map(|byte| char::from(*byte)).collect();
                let mut all = Lexer::new(&decoded, dialect);
                // A name would be told in letters that are not its own.
                let bare = |kind| {
                    matches!(
                        kind,
                        Kind::Word | Kind::Name | Kind::Mark(_) | Kind::Operator
                    )
                };
                match all.any(|one| bare(one.kind) && !one.of(&decoded).is_ascii()) {
                    true => Text::opaque(
                        text,
                        "it has letters of its encoding in a name, or outside quotes",
                    ),
                    false => self.understood(&decoded, dialect),
                }
            }
            Charset::Ambiguous => {
                Text::opaque(text, "a letter of its encoding may look like a quote")
            }
        }
    }

    /// A text that we have written, with a name in it that was sent.
    pub(super) fn names(&self, text: &str) -> Text {
        let is_utf8 = matches!(
            self.rules,
            Rules::Known {
                charset: Charset::Utf8 | Charset::Utf8Short,
                ..
            }
        );
        if !text.is_ascii() && !is_utf8 {
            let why = "it names something in letters of an encoding that is not read";
            return Text::opaque(text.as_bytes(), why);
        }
        self.understood(text, Dialect::MYSQL)
    }

    fn understood(&self, text: &str, dialect: Dialect) -> Text {
        let literal = dynamic::literal(text, dialect);
        let analysis = self.known.of(literal.unwrap_or(text), dialect);
        let mut read = Text {
            text: Some(text.into()),
            analysis: Some(analysis),
            why: None,
            within: None,
        };
        let count = read.analysis.as_ref().map_or(0, |all| all.statements.len());
        let several = count > 1;
        if several && read.changes_reading() && !is_plain(text.as_bytes()) {
            read.why = Some("a part of it changes how the server reads the rest");
        }
        if literal.is_some() && count != 1 {
            read.why = Some("what it executes is not one statement");
        } else if several {
            match read.runs_in(text, dialect) {
                Uses::None => {}
                Uses::Database(name) => read.within = Some(name),
                Uses::Unknown => {
                    read.why = Some("a part of it changes the database of the rest");
                }
            }
        }
        read
    }
}

/// What a session has prepared, by the server's number, bounded.
#[derive(Debug, Default)]
pub(super) struct Statements {
    known: HashMap<u32, Prepared>,
    /// Rows that may still be fetched of cursors, where somebody has limited that.
    limits: HashMap<u32, u64>,
    bytes: usize,
    /// The one that was prepared last, while there is one.
    last: Option<u32>,
}

/// A text, and where it was prepared: what its names mean there it goes on meaning, whatever the
/// current database is when it is executed.
#[derive(Debug)]
struct Prepared {
    text: Text,
    database: Option<Box<str>>,
}

/// The number by which MariaDB means the statement that was prepared last.
const LAST: u32 = u32::MAX;

impl Statements {
    /// A statement was prepared in this database, or could not be.
    pub(super) fn prepared(
        &mut self,
        number: Option<u32>,
        (text, database): (Text, Option<Box<str>>),
    ) {
        self.last = number;
        let Some(number) = number else { return };
        self.close(number);
        self.last = Some(number);
        let bytes = self.bytes.saturating_add(weight(&text));
        if self.known.len() < STATEMENTS_MAX && bytes <= STATEMENTS_BYTES_MAX {
            self.bytes = bytes;
            self.known.insert(number, Prepared { text, database });
        }
    }

    /// The statement of this number, and the database that it was prepared in.
    pub(super) fn get(&self, number: u32) -> (Text, Option<Box<str>>) {
        let known = self
            .number(number)
            .and_then(|number| self.known.get(&number));
        match known {
            Some(known) => (known.text.clone(), known.database.clone()),
            None => (Text::unknown(), None),
        }
    }

    /// The statement of this number is executed, and no more than so many rows of it
    /// are fetched.
    pub(super) fn executes(&mut self, number: u32, limit: Option<u64>) {
        self.limits.remove(&number);
        let place = self.limits.len() < STATEMENTS_MAX;
        if let Some(limit) = limit.filter(|_| place) {
            self.limits.insert(number, limit);
        }
    }

    /// Rows that may be fetched of it now.
    pub(super) fn limit(&self, number: u32) -> Option<u64> {
        self.limits.get(&self.number(number)?).copied()
    }

    /// So many rows of it were fetched.
    pub(super) fn fetched(&mut self, number: u32, rows: u64) {
        let number = self.number(number);
        if let Some(left) = number.and_then(|number| self.limits.get_mut(&number)) {
            *left = left.saturating_sub(rows);
        }
    }

    /// The number that the server knows a statement by.
    pub(super) fn number(&self, number: u32) -> Option<u32> {
        match number {
            LAST => self.last,
            other => Some(other),
        }
    }

    pub(super) fn close(&mut self, number: u32) {
        let Some(number) = self.number(number) else {
            return;
        };
        self.limits.remove(&number);
        if let Some(known) = self.known.remove(&number) {
            self.bytes = self.bytes.saturating_sub(weight(&known.text));
        }
        self.last = self.last.filter(|last| *last != number);
    }

    /// How the server reads texts has changed: one that it prepares anew means another.
    pub(super) fn doubt(&mut self) {
        for Prepared { text, .. } in self.known.values_mut() {
            if text.ambiguous().is_some() {
                text.why = Some("how the server reads it has changed since it was prepared");
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn weight(text: &Text) -> usize {
    text.text
        .as_ref()
        .map_or(0, |text| text.len())
        // With the name of a database, of 64 characters at most.
        .saturating_add(320)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(charset: &str, modes: &str) -> Reading {
        let mut reading = Reading::new(Arc::new(Analyses::new(1 << 20)));
        reading.said(Some(&[charset.as_bytes(), modes.as_bytes()]));
        reading
    }

    #[test]
    fn my_26_what_may_be_read_in_two_ways_is_opaque() {
        let none = "";
        for (charset, modes, text, expected) in [
            (
                "utf8mb4",
                none,
                &b"SELECT '\\'; DROP TABLE a; -- '"[..],
                Class::Read,
            ),
            (
                "utf8mb4",
                "NO_BACKSLASH_ESCAPES",
                b"SELECT '\\'; DROP TABLE a; -- '",
                Class::Schema,
            ),
            (
                "utf8mb4",
                "ANSI_QUOTES,STRICT_ALL_TABLES",
                b"SELECT \"load_file\"('a')",
                Class::Admin,
            ),
            ("utf8mb4", none, "SELECT 'é' FROM ñ".as_bytes(), Class::Read),
            ("utf8mb4", none, b"SELECT '\xff'", Class::Read),
            (
                "utf8mb4",
                none,
                b"SELECT _binary'\\\xe2', '\xf0\x9f', 1",
                Class::Read,
            ),
            (
                "utf8mb4",
                none,
                b"SELECT '\xe2'; DROP TABLE a; -- '",
                Class::Schema,
            ),
            ("utf8mb4", none, b"SELECT `\xff` FROM a", Class::Opaque),
            ("utf8mb4", none, b"SELECT 1 /* \xff */", Class::Opaque),
            ("utf8mb4", none, b"SELECT 1 FROM a\xff", Class::Opaque),
            ("utf8mb4", "ANSI_QUOTES", b"SELECT \"\xff\"", Class::Opaque),
            ("utf8mb3", none, "SELECT '😀'".as_bytes(), Class::Read),
            (
                "utf8mb3",
                none,
                "SELECT 1 AS `😀`".as_bytes(),
                Class::Opaque,
            ),
            ("latin1", none, b"SELECT '\xe9'", Class::Read),
            ("latin1", none, b"SELECT 1 FROM\xa0secret", Class::Opaque),
            // Other letters than these bytes are in UTF-8.
            (
                "cp1251",
                none,
                b"SELECT 1 FROM `\xf1\xe5\xea\xf0\xe5\xf2`",
                Class::Opaque,
            ),
            (
                "latin1",
                "ANSI_QUOTES",
                b"SELECT 1 FROM \"\xe9\"",
                Class::Opaque,
            ),
            (
                "latin1",
                none,
                b"SELECT 1 --\xa0, load_file('a')",
                Class::Opaque,
            ),
            (
                "gbk",
                none,
                b"SELECT '\xbf\\'; DROP TABLE a; -- '",
                Class::Opaque,
            ),
            ("gbk", none, b"SELECT '\\''", Class::Read),
            ("sjis", none, b"SELECT 1", Class::Read),
            ("unheard", none, b"SELECT '\xe9'", Class::Opaque),
            (
                "utf8mb4",
                none,
                b"SET sql_mode = 'ANSI_QUOTES'; SELECT \"a\"",
                Class::Opaque,
            ),
            (
                "utf8mb4",
                none,
                b"SET autocommit = 0; SELECT \"a\"",
                Class::Read,
            ),
            (
                "utf8mb4",
                "ANSI_QUOTES,MSSQL",
                b"SELECT 1 AS [ ' ], load_file('/a') AS [ ' ]",
                Class::Opaque,
            ),
            ("utf8mb4", none, b"SELECT '[1]'", Class::Read),
            ("utf8mb4", "A\0N\0S\0I", b"SELECT \"a\"", Class::Opaque),
        ] {
            let reads = modes.contains("NO_BACKSLASH_ESCAPES");
            let read = reading(charset, modes).read(text, reads);
            assert_eq!(read.class(), expected, "{charset} {modes} {text:?}");
        }
        let mut unknown = reading("utf8mb4", none);
        assert!(
            unknown.read(b"SELECT '\\'", true).is_opaque(),
            "the status says otherwise"
        );
        unknown.stale();
        assert!(unknown.must_ask(b"SELECT \"a\"") && !unknown.must_ask(b"SELECT 'a'"));
        unknown.said(None);
        assert!(!unknown.must_ask(b"SELECT \"a\""));
        assert!(unknown.read(b"SELECT \"a\"", false).is_opaque());
        assert!(!unknown.read(b"SELECT 'a'", false).is_opaque());
    }

    #[test]
    fn my_26_a_server_that_could_not_say_is_asked_again_once_something_has_run() {
        let mut reading = reading("utf8mb4", "");
        let quoted = b"SELECT \"a\"";
        for _ in 0..FAILURES_MAX {
            reading.failed();
            assert!(reading.read(quoted, false).is_opaque() && !reading.must_ask(quoted));
            assert!(reading.can_ask_again() && reading.must_ask(quoted));
            assert!(!reading.can_ask_again());
        }
        // But not for ever.
        reading.failed();
        assert!(!reading.can_ask_again() && !reading.must_ask(quoted));
        reading.said(Some(&[b"utf8mb4", b""]));
        reading.failed();
        assert!(reading.can_ask_again());
        // What it said, and nobody understands, it would say again.
        reading.said(None);
        assert!(!reading.can_ask_again());
    }

    #[test]
    fn my_26_names_of_commands_are_read_in_utf_8_or_not_at_all() {
        for (charset, name, expected) in [
            ("utf8mb4", "USE `é`", false),
            ("utf8mb3", "USE `é`", false),
            ("latin1", "USE `é`", true),
            ("gbk", "USE `é`", true),
            ("latin1", "USE `e`", false),
        ] {
            let read = reading(charset, "").names(name);
            assert_eq!(read.is_opaque(), expected, "{charset} {name}");
        }
        let mut stale = reading("utf8mb4", "");
        stale.stale();
        assert!(stale.must_ask("USE `é`".as_bytes()) && stale.names("USE `é`").is_opaque());
    }

    #[test]
    fn what_a_text_changes_for_those_behind_it_is_known() {
        let read = |text: &str| reading("utf8mb4", "").read(text.as_bytes(), false);
        for (text, expected) in [
            ("SET NAMES gbk", true),
            ("SET @@SESSION.Sql_Mode = 'x'", true),
            ("SET @@character_set_client = gbk", true),
            ("SET autocommit = 0", false),
            ("SET sql_möde = ''", true),
            ("CALL p()", true),
            ("EXECUTE s", true),
            ("SELECT 1", false),
        ] {
            assert_eq!(read(text).changes_reading(), expected, "{text}");
        }
        let several = "USE `a b` -- c\n; USE d /* e */; SELECT f FROM g";
        let between = "SELECT 1; USE d; SELECT 2";
        let is = |name: &str| Uses::Database(name.into());
        for (text, executed, expected) in [
            ("use `a``b`;", 1, is("a`b")),
            ("SELECT 1", 1, Uses::None),
            (several, 1, is("a b")),
            (several, 2, is("d")),
            (several, 3, is("d")),
            ("SELECT 1; USE d", 1, Uses::None),
            (between, 1, Uses::Unknown),
            ("/*! USE secret */", 1, Uses::Unknown),
            ("EXECUTE s", 1, Uses::Unknown),
            ("EXECUTE IMMEDIATE 'USE secret'", 1, Uses::Unknown),
            ("CALL p()", 1, Uses::None),
            ("DROP SCHEMA shop", 1, Uses::Unknown),
            ("DROP DATABASE other", 1, Uses::None),
            // Whose quotes are whose, the session says.
            ("USE \"secret\"", 1, Uses::Unknown),
            ("USE `a\"b`", 1, is("a\"b")),
            ("USE a.b", 1, Uses::Unknown),
        ] {
            assert_eq!(
                read(text).used_database(executed, Some("shop")),
                expected,
                "{text}"
            );
        }
        let reads = reading("utf8mb4", "NO_BACKSLASH_ESCAPES");
        let two = reads.read(b"SELECT '\\'; USE a; -- '", true);
        assert_eq!(two.used_database(2, Some("shop")), Uses::Unknown);
        // What was not seen may be anything.
        for text in [
            Text::opaque(b"INSERT INTO t VALUES", TOO_LONG),
            Text::unknown(),
        ] {
            assert_eq!(text.used_database(1, Some("shop")), Uses::Unknown);
        }
        for (text, expected) in [
            ("DELETE FROM t WHERE a = @b", true),
            ("SELECT @@version", true),
            ("SELECT \"a@b\"", true),
            ("SELECT 'a@b' -- @", false),
            ("SELECT 1", false),
        ] {
            assert_eq!(read(text).has_variables(), expected, "{text}");
        }
        for (text, expected) in [
            ("KILL QUERY 7 ;", Some(7)),
            ("KILL HARD CONNECTION 7 -- now", Some(7)),
            ("KILL QUERY ID 7", None),
            ("KILL 2+3", None),
            ("KILL QUERY ?", Some(9)),
            ("KILL QUERY ID ?", None),
            ("KILL USER bob", None),
        ] {
            assert_eq!(read(text).killed(|| Some(9)), expected, "{text}");
        }
        for (text, file) in [
            ("LOAD DATA LOCAL INFILE '/a b' INTO TABLE t", Some("/a b")),
            (
                "LOAD DATA LOCAL INFILE /* x */ \"/a\" INTO TABLE t",
                Some("/a"),
            ),
            (
                "LOAD DATA LOCAL INFILE '/a\\'b''\\\\\"\\_\\q\\n' INTO TABLE t",
                Some("/a'b'\\\"\\_q\n"),
            ),
            (
                "LOAD DATA LOCAL INFILE \"a\"\"''b\" INTO TABLE t",
                Some("a\"''b"),
            ),
            ("LOAD DATA LOCAL INFILE N'/a' INTO TABLE t", None),
            ("SELECT 'INFILE' '/a'", None),
        ] {
            assert_eq!(read(text).local_file(false).as_deref(), file, "{text}");
        }
        let load = br"LOAD DATA LOCAL INFILE 'C:\a''b\' INTO TABLE t";
        let load = reads.read(load, true).local_file(true);
        assert_eq!(load.as_deref(), Some(r"C:\a'b\"));
    }

    #[test]
    fn my_28_what_is_executed_of_a_plain_literal_is_read() {
        for (text, expected) in [
            ("EXECUTE IMMEDIATE 'SELECT 1'", Class::Read),
            ("execute /* x */ immediate 'DROP TABLE a' ;", Class::Schema),
            ("EXECUTE IMMEDIATE 'CALL p()'", Class::Opaque),
            ("EXECUTE IMMEDIATE 'EXECUTE IMMEDIATE @v'", Class::Opaque),
            ("EXECUTE IMMEDIATE 'SELECT 1; SELECT 2'", Class::Opaque),
            ("EXECUTE IMMEDIATE 'SELECT ''a'''", Class::Opaque),
            ("EXECUTE IMMEDIATE 'SELECT \\'a\\''", Class::Opaque),
            ("EXECUTE IMMEDIATE \"SELECT 1\"", Class::Opaque),
            ("EXECUTE IMMEDIATE 'SELECT ' '1'", Class::Opaque),
            ("EXECUTE IMMEDIATE 'SELECT ?' USING 1", Class::Opaque),
            ("EXECUTE IMMEDIATE @v", Class::Opaque),
            ("EXECUTE IMMEDIATE 'SELECT 1'; DROP TABLE a", Class::Opaque),
            ("/*! EXECUTE IMMEDIATE 'SELECT 1' */", Class::Opaque),
        ] {
            let read = reading("utf8mb4", "").read(text.as_bytes(), false);
            assert_eq!(read.class(), expected, "{text}");
        }
    }

    #[test]
    fn my_17_what_stands_behind_a_use_is_read_in_that_database_or_not_at_all() {
        let opaque = Some("a part of it changes the database of the rest");
        for (text, within, why) in [
            ("USE a; SELECT 1", Some("a"), None),
            ("use `a``b`; SELECT 'x'; SELECT \"y\"", Some("a`b"), None),
            ("USE a; USE b; SELECT 1; SELECT 2", Some("b"), None),
            ("SELECT 1; USE a", None, None),
            ("USE a; USE b", None, None),
            ("USE a", None, None),
            ("SELECT ';'; SELECT 'USE a'", None, None),
            ("SELECT 1; USE a; SELECT 2", None, opaque),
            ("USE a; SELECT 1; USE b; SELECT 2", None, opaque),
            ("/*! USE a; */ SELECT 1", None, opaque),
            ("USE a.b; SELECT 1", None, opaque),
            ("USE \"a\"; SELECT 1", None, opaque),
        ] {
            let read = reading("utf8mb4", "").read(text.as_bytes(), false);
            assert_eq!((read.within.as_deref(), read.why), (within, why), "{text}");
        }
    }

    #[test]
    fn my_13_what_is_remembered_of_a_session_is_bounded_and_the_last_has_a_number() {
        let mut all = Statements::default();
        let long = || Text::opaque(&[b'x'; 1 << 20], "long");
        for number in 0..20 {
            all.prepared(Some(number), (long(), None));
        }
        assert_eq!(all.known.len(), 7);
        assert!(all.get(0).0.text.is_some() && all.get(19).0.text.is_none());
        all.close(0);
        all.prepared(Some(30), (long(), None));
        assert!(all.get(LAST).0.text.is_some());
        all.prepared(None, (Text::unknown(), None));
        assert_eq!((all.number(LAST), all.number(30)), (None, Some(30)));
        all.prepared(Some(31), (Text::unknown(), None));
        all.close(31);
        assert_eq!(all.number(LAST), None);
        all.prepared(Some(32), (Text::unknown(), None));
        all.close(LAST);
        assert_eq!((all.number(LAST), all.known.len()), (None, 7));
        all.clear();
        assert_eq!((all.known.len(), all.bytes), (0, 0));
    }

    #[test]
    fn my_26_what_was_prepared_under_other_rules_is_opaque_where_they_matter() {
        let mut reading = reading("utf8mb4", "");
        assert!(!reading.have_changed(), "nobody had asked before");
        let mut all = Statements::default();
        all.prepared(Some(1), (reading.read(b"SELECT \"a\"", false), None));
        all.prepared(Some(2), (reading.read(b"SELECT 'a'", false), None));
        assert!(!all.get(1).0.is_opaque());
        reading.stale();
        reading.said(Some(&[b"utf8mb4", b"ANSI_QUOTES"]));
        assert!(reading.have_changed() && !reading.have_changed());
        all.doubt();
        assert!(all.get(1).0.is_opaque() && !all.get(2).0.is_opaque());
        // That nobody can say what they are is no change, and nothing is read until then.
        let mut reading = self::reading("utf8mb4", "");
        assert!(!reading.have_changed());
        all.prepared(Some(1), (reading.read(b"SELECT \"a\"", false), None));
        reading.failed();
        assert!(!reading.have_changed());
        assert!(reading.still(all.get(1).0).is_opaque());
        assert!(!reading.still(all.get(2).0).is_opaque());
        reading.said(Some(&[b"utf8mb4", b""]));
        assert!(!reading.have_changed() && !reading.still(all.get(1).0).is_opaque());
        reading.said(None);
        reading.said(Some(&[b"utf8mb4", b"ANSI_QUOTES"]));
        assert!(reading.have_changed(), "since it was said");
    }
}
