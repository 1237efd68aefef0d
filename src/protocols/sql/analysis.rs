//! What a text is: its statements, and what each does.

use sha2::{Digest, Sha256};

use crate::domain::JsonText;

use super::lexer::Kind;
use super::words::{Unreadable, Word, Words, words};
use super::{Dialect, commands, named, redaction, second, tags, told};

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
    /// Whether its schema is written. Where not, which relation it is depends on
    /// the session: on `search_path`, on what is temporary, on the database.
    pub resolved: bool,
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
    /// Behind it another role does what is done.
    pub sets_role: bool,
    /// Behind it a name without a schema may mean another relation or function.
    pub sets_path: bool,
}

impl Flags {
    /// All that can be true of a session.
    pub const UNCERTAIN: Self = Self {
        no_where: false,
        server_file: false,
        program: false,
        for_update: false,
        sets_role: true,
        sets_path: true,
    };

    /// What of it holds for the statements behind it, too.
    #[must_use]
    pub fn lasting(self) -> Self {
        Self {
            sets_role: self.sets_role,
            sets_path: self.sets_path,
            ..Self::default()
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            no_where: self.no_where || other.no_where,
            server_file: self.server_file || other.server_file,
            program: self.program || other.program,
            for_update: self.for_update || other.for_update,
            sets_role: self.sets_role || other.sets_role,
            sets_path: self.sets_path || other.sets_path,
        }
    }
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
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
    /// Whether a statement of it gives, uses or forgets a name: see [`named`].
    pub by_name: bool,
    /// What policy is told of it: see [`told`].
    pub told: JsonText,
}

impl Analysis {
    /// Reads `text` by the rules of `dialect`. Time and memory are bounded by
    /// the length of the text, whatever it says.
    pub fn of(text: &str, dialect: Dialect) -> Self {
        let one = Self::of_one(text, dialect);
        if !dialect.has_conditions(text) || text.len() > TEXT_BYTES_MAX {
            return one;
        }
        match dialect.readings(text) {
            Some(all) => all
                .into_iter()
                .fold(one, |one, other| one.or(Self::of_one(text, other))),
            None => Self::unreadable(text, "it has comments for too many versions of servers"),
        }
    }

    fn of_one(text: &str, dialect: Dialect) -> Self {
        match cut(text, dialect) {
            Ok(words) => Self::of_words(Words {
                text,
                words: &words,
                dialect,
            })
            .tagged(tags::trailing(text, dialect)),
            Err(why) => Self::unreadable(text, why),
        }
    }

    /// Reads a text that was cut into words. Nothing of it depends on a literal
    /// or a comment: see [`super::shape`].
    pub(super) fn of_words(all: Words<'_>) -> Self {
        let redacted = redaction::redacted(all);
        let statements = statements(all);
        Self {
            digest: digest(&redacted),
            redacted: redacted.into(),
            secret: redaction::sets_a_password(all),
            ..Self::of_statements(statements)
        }
    }

    pub(super) fn unreadable(text: &str, why: &'static str) -> Self {
        Self {
            digest: digest(text),
            // Nobody can tell.
            secret: true,
            ..Self::of_statements(vec![Statement::opaque(why)])
        }
    }

    fn of_statements(statements: Vec<Statement>) -> Self {
        let mut analysis = Self {
            by_name: named::any(&statements),
            statements,
            redacted: "".into(),
            digest: [0; 16],
            tags: Vec::new(),
            secret: false,
            told: JsonText("".into()),
        };
        analysis.told = told::of(&analysis, None, Flags::default());
        analysis
    }

    /// The same where it does this, and looks like this without its literals.
    pub(super) fn replaced(
        &self,
        statements: Vec<Statement>,
        redacted: String,
        secret: bool,
    ) -> Self {
        Self {
            digest: digest(&redacted),
            redacted: redacted.into(),
            secret: self.secret || secret,
            tags: self.tags.clone(),
            by_name: self.by_name,
            ..Self::of_statements(statements)
        }
    }

    /// What is true of it where it may be either: all statements of both.
    fn or(mut self, other: Self) -> Self {
        let known = self.statements.len();
        for statement in other.statements {
            if !self.statements.contains(&statement) {
                self.statements.push(statement);
            }
        }
        if self.statements.len() > known {
            self.told = told::of(&self, None, Flags::default());
        }
        self.secret |= other.secret;
        self.by_name |= other.by_name;
        self
    }

    /// The same with these tags.
    pub(super) fn tagged(self, tags: Vec<(Box<str>, Box<str>)>) -> Self {
        Self { tags, ..self }
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
            .saturating_add(self.told.0.len())
            .saturating_add(200)
    }
}

impl Statement {
    fn opaque(why: &'static str) -> Self {
        Self {
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
            Self::Unterminated => {
                "a literal, name or comment in it does not end, or is not understood"
            }
            Self::Stray => "it has a NUL byte",
            Self::TooMany => "it has too many words to be understood",
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

/// The words of a text, or why it cannot be understood.
pub(super) fn cut(text: &str, dialect: Dialect) -> Result<Vec<Word>, &'static str> {
    if text.len() > TEXT_BYTES_MAX {
        return Err("it is too long to be understood");
    }
    words(text, dialect).map_err(Unreadable::as_str)
}

/// The words of each statement; none where nothing stands between semicolons.
pub(super) fn pieces(all: Words<'_>) -> impl Iterator<Item = Words<'_>> {
    let ends = |word: &Word| word.token.kind == Kind::Mark(b';');
    let pieces = all.words.split(ends).filter(|words| !words.is_empty());
    pieces.map(move |words| Words { words, ..all })
}

/// Cuts at every semicolon. `BEGIN ATOMIC … END` of an SQL function holds some
/// that end no statement; what is cut there is at least as strict as the whole,
/// since that begins with `CREATE`.
fn statements(all: Words<'_>) -> Vec<Statement> {
    let mut statements = Vec::new();
    for words in pieces(all) {
        if statements.len() >= STATEMENTS_MAX {
            return vec![Statement::opaque("it has too many statements")];
        }
        let mut statement = commands::read(words);
        second::opinion(words, &mut statement);
        statements.push(statement);
    }
    statements
}
