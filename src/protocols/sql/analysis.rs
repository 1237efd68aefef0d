//! What a text is: its statements, and what each does.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::lexer::Kind;
use super::words::{Unreadable, Word, Words, words};
use super::{Dialect, commands, redaction, second, tags};

/// Longest text that is understood, bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most statements of one text that are understood.
const STATEMENTS_MAX: usize = 200;

/// What a statement may change, mildest first. The mildest that is true of all
/// that its text says; functions, triggers, rules and views may do more than
/// their names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing but the session: `BEGIN`, `SET`, `LISTEN`.
    Session,
    /// Nothing: it reads.
    Read,
    /// Rows.
    Write,
    /// What there is: tables, views, functions.
    Schema,
    /// Who may do what, the server itself, its files and programs.
    Admin,
    /// It is not understood: the worst must be assumed.
    Opaque,
}

impl Class {
    /// The word of policy input and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Read => "read",
            Self::Write => "write",
            Self::Schema => "schema",
            Self::Admin => "admin",
            Self::Opaque => "opaque",
        }
    }
}

/// What is done to a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Its rows are read.
    Read,
    /// Its rows are changed.
    Write,
    /// It is made, changed or dropped.
    Schema,
}

impl Access {
    /// The word of policy input.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Schema => "schema",
        }
    }
}

/// A table or view that a statement names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// Its name as the server looks it up, with its schema where that is written.
    pub name: Box<str>,
    /// What is done to it.
    pub access: Access,
}

/// What else is to be known of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own in policy input"
)]
pub struct Flags {
    /// An `UPDATE` or `DELETE` in it has no `WHERE`.
    pub no_where: bool,
    /// It reads or writes files of the server.
    pub server_file: bool,
    /// It runs a program on the server.
    pub program: bool,
    /// It locks the rows it reads.
    pub for_update: bool,
}

impl Flags {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            no_where: self.no_where || other.no_where,
            server_file: self.server_file || other.server_file,
            program: self.program || other.program,
            for_update: self.for_update || other.for_update,
        }
    }
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands in the text.
    pub range: Range<usize>,
    /// What it says it does, upper case, the one it begins with first:
    /// `WITH x AS (DELETE …) SELECT` has `SELECT` and `DELETE`.
    pub verbs: Vec<&'static str>,
    /// What it may change.
    pub class: Class,
    /// The tables and views it names, sorted. All that its text names, unless
    /// its class is [`Class::Schema`] or worse.
    pub relations: Vec<Relation>,
    /// The functions it calls, sorted.
    pub functions: Vec<Box<str>>,
    /// See [`Flags`].
    pub flags: Flags,
    /// Why it is [`Class::Opaque`]; absent for every other.
    pub opaque: Option<&'static str>,
}

/// What a whole text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// Its statements; none for an empty or comment-only text, and one of class
    /// [`Class::Opaque`] for a text that cannot be cut.
    pub statements: Vec<Statement>,
    /// The text with its literals replaced by `?`, lists of them collapsed, and
    /// without its comments; empty for a text that cannot be cut.
    pub redacted: Box<str>,
    /// The same for every text of one shape: the first half of the SHA-256 of
    /// the redacted text.
    pub digest: [u8; 16],
    /// What a trailing sqlcommenter comment says.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// Whether it sets a password, so that its literals are shown to nobody.
    pub secret: bool,
}

impl Analysis {
    /// Reads `text` by the rules of `dialect`. Time and memory are bounded by
    /// the length of the text, whatever it says.
    pub fn of(text: &str, dialect: Dialect) -> Self {
        if text.len() > TEXT_BYTES_MAX {
            return Self::unreadable(text, "it is too long to be understood");
        }
        let words = match words(text, dialect) {
            Ok(words) => words,
            Err(why) => return Self::unreadable(text, why.as_str()),
        };
        let all = Words {
            text,
            words: &words,
            dialect,
        };
        let redacted = redaction::redacted(all);
        let statements = match statements(all) {
            Some(statements) => statements,
            None => vec![Statement::opaque(
                0..text.len(),
                "it has too many statements",
            )],
        };
        Self {
            digest: digest(&redacted),
            redacted: redacted.into(),
            secret: redaction::sets_a_password(all),
            tags: tags::trailing(text, dialect),
            statements,
        }
    }

    fn unreadable(text: &str, why: &'static str) -> Self {
        Self {
            statements: vec![Statement::opaque(0..text.len(), why)],
            redacted: "".into(),
            digest: digest(text),
            tags: Vec::new(),
            // Nobody can tell.
            secret: true,
        }
    }

    /// The strictest class of its statements.
    pub fn class(&self) -> Class {
        let classes = self.statements.iter().map(|statement| statement.class);
        classes.max().unwrap_or(Class::Session)
    }

    /// The verb of its strictest statement, the first of several.
    pub fn verb(&self) -> &'static str {
        let class = self.class();
        let strictest = self.statements.iter().find(|one| one.class == class);
        let verb = strictest.and_then(|statement| statement.verbs.first());
        verb.copied().unwrap_or("")
    }

    /// What is to be known of any of its statements.
    pub fn flags(&self) -> Flags {
        let flags = self.statements.iter().map(|statement| statement.flags);
        flags.fold(Flags::default(), Flags::and)
    }

    /// Bytes it keeps, about.
    pub(super) fn weight(&self) -> usize {
        let statements = self.statements.iter().map(|statement| {
            let relations = statement.relations.iter();
            let functions = statement.functions.iter();
            let names: usize = relations
                .map(|relation| relation.name.len().saturating_add(24))
                .chain(functions.map(|name| name.len().saturating_add(16)))
                .sum();
            names.saturating_add(160)
        });
        let tags = self
            .tags
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(32));
        let parts: usize = statements.chain(tags).sum();
        parts
            .saturating_add(self.redacted.len())
            .saturating_add(160)
    }
}

impl Statement {
    pub(super) fn opaque(range: Range<usize>, why: &'static str) -> Self {
        Self {
            range,
            verbs: Vec::new(),
            class: Class::Opaque,
            relations: Vec::new(),
            functions: Vec::new(),
            flags: Flags::default(),
            opaque: Some(why),
        }
    }
}

impl Unreadable {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unterminated => "a literal, name or comment in it does not end",
            Self::Stray => "it has a NUL byte",
            Self::TooMany => "it has too many words to be understood",
            Self::Conditional => "it has a comment that some servers execute",
        }
    }
}

fn digest(text: &str) -> [u8; 16] {
    let whole = Sha256::digest(text.as_bytes());
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(whole) {
        *to = from;
    }
    half
}

/// Cuts at every semicolon. `BEGIN ATOMIC … END` of an SQL function holds some
/// that end no statement; what is cut there is at least as strict as the whole,
/// since that begins with `CREATE`. `None`: too many.
fn statements(all: Words<'_>) -> Option<Vec<Statement>> {
    let mut statements = Vec::new();
    let ends = |word: &Word| word.token.kind == Kind::Mark(b';');
    for words in all.words.split(ends) {
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            continue;
        };
        if statements.len() >= STATEMENTS_MAX {
            return None;
        }
        let range = first.token.start..last.token.end;
        let words = Words { words, ..all };
        let mut statement = commands::read(words, range);
        second::opinion(words, &mut statement);
        statements.push(statement);
    }
    Some(statements)
}
