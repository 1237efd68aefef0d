//! The tokens of one text that say something, each with the keyword it is.

use super::Dialect;
use super::keywords::{Keyword, keyword};
use super::lexer::{Kind, Lexer, Token};

/// Most tokens of a text that is understood.
const TOKENS_MAX: usize = 100_000;

/// Longest name that PostgreSQL knows, bytes: it cuts off the rest.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Whether `part`, which is ASCII, stands in `text` in whatever case; an empty one does not.
pub fn contains_ignoring_case(text: &str, part: &str) -> bool {
    let mut parts = text.as_bytes().windows(part.len().max(1));
    parts.any(|one| one.eq_ignore_ascii_case(part.as_bytes()))
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) token: Token,
    /// [`Keyword::Other`] for what is no word, and for a word that can only be
    /// a name: the one behind a point.
    pub(super) keyword: Keyword,
}

/// Why a text could not be cut into statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It ends within a literal, a name or a comment, or has a comment that is not
    /// understood.
    Unterminated,
    /// It has a byte that no statement has.
    Stray,
    /// It has too many tokens.
    TooMany,
}

/// What says something in `text`, in order.
pub(super) fn words(text: &str, dialect: Dialect) -> Result<Vec<Word>, Unreadable> {
    let is_mysql = !dialect.is_postgres();
    // Most statements have a token each five bytes.
    let mut words: Vec<Word> = Vec::with_capacity(text.len().min(1 << 16) / 5);
    for token in Lexer::new(text, dialect) {
        match token.kind {
            // What is in a comment that is executed is text like any other.
            Kind::Space | Kind::Comment | Kind::Executable | Kind::ExecutableEnd => continue,
            Kind::Unterminated => return Err(Unreadable::Unterminated),
            Kind::Stray => return Err(Unreadable::Stray),
            Kind::Word
            | Kind::Name
            | Kind::EscapedName
            | Kind::Text
            | Kind::Number
            | Kind::Parameter
            | Kind::Mark(_)
            | Kind::Operator => {}
        }
        if words.len() >= TOKENS_MAX {
            return Err(Unreadable::TooMany);
        }
        let named = token.kind == Kind::Word
            && !is_named(words.last(), token, text)
            && !(is_mysql && leads_to_name(token, text));
        words.push(Word {
            token,
            keyword: if named {
                keyword(token.of(text))
            } else {
                Keyword::Other
            },
        });
    }
    Ok(words)
}

/// Whether what stands before makes a word a name: `t.select`, `@select`.
fn is_named(before: Option<&Word>, token: Token, text: &str) -> bool {
    before.is_some_and(|word| match word.token.kind {
        Kind::Mark(mark) => mark == b'.',
        Kind::Operator => word.token.end == token.start && word.token.of(text).ends_with('@'),
        _ => false,
    })
}

/// Whether a point and a name directly behind a word make it a name to MySQL: `limit.id`.
fn leads_to_name(token: Token, text: &str) -> bool {
    let behind = text.as_bytes().get(token.end..).unwrap_or_default();
    match behind {
        [b'.', next, ..] => {
            next.is_ascii_alphanumeric() || matches!(next, b'_' | b'$') || !next.is_ascii()
        }
        _ => false,
    }
}

/// A statement's words, with what they are asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    pub(super) text: &'a str,
    pub(super) words: &'a [Word],
    pub(super) dialect: Dialect,
}

impl<'a> Words<'a> {
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// From word `at` on.
    pub(super) fn from(&self, at: usize) -> Self {
        Self {
            words: self.words.get(at..).unwrap_or_default(),
            ..*self
        }
    }

    pub(super) fn kind(&self, at: usize) -> Option<Kind> {
        self.words.get(at).map(|word| word.token.kind)
    }

    pub(super) fn keyword(&self, at: usize) -> Keyword {
        self.words
            .get(at)
            .map_or(Keyword::Other, |word| word.keyword)
    }

    pub(super) fn is(&self, at: usize, keyword: Keyword) -> bool {
        self.keyword(at) == keyword
    }

    pub(super) fn is_mark(&self, at: usize, mark: u8) -> bool {
        self.kind(at) == Some(Kind::Mark(mark))
    }

    /// Whether anywhere in it stands `keyword`.
    pub(super) fn has(&self, keyword: Keyword) -> bool {
        self.words.iter().any(|word| word.keyword == keyword)
    }

    /// The text of word `at`.
    pub(super) fn of(&self, at: usize) -> &'a str {
        let word = self.words.get(at);
        word.map_or("", |word| word.token.of(self.text))
    }

    /// The name that word `at` is, as the server looks it up; `None` for what
    /// is no name, or one that is not decoded here.
    pub(super) fn name(&self, at: usize) -> Option<String> {
        let mut name = self.whole_name(at)?;
        if self.dialect.is_postgres() && name.len() > NAME_BYTES_MAX {
            name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
        }
        Some(name)
    }

    /// The same where nothing is cut off it.
    pub(super) fn whole_name(&self, at: usize) -> Option<String> {
        let text = self.of(at);
        match self.kind(at)? {
            // Only ASCII: what else a server folds depends on its locale.
            Kind::Word if self.dialect.is_postgres() => Some(text.to_ascii_lowercase()),
            Kind::Word => Some(text.to_owned()),
            Kind::Name => {
                let quote = text.chars().next()?;
                let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
                let one = quote.to_string();
                Some(inner.replace(&one.repeat(2), &one))
            }
            Kind::Space
            | Kind::Comment
            | Kind::EscapedName
            | Kind::Text
            | Kind::Number
            | Kind::Parameter
            | Kind::Mark(_)
            | Kind::Operator
            | Kind::Executable
            | Kind::ExecutableEnd
            | Kind::Unterminated
            | Kind::Stray => None,
        }
    }

    /// The dotted name that begins at word `at`, and the word behind it; `None` also where a point leads to what is
    /// no name.
    pub(super) fn dotted(&self, at: usize) -> Option<(Vec<String>, usize)> {
        let mut parts = vec![self.name(at)?];
        let mut next = at.saturating_add(1);
        while self.is_mark(next, b'.') {
            let part = next.saturating_add(1);
            // `t.*` is no longer name.
            if self.of(part) == "*" {
                break;
            }
            let name = self.name(part)?;
            parts.push(name);
            next = part.saturating_add(1);
            if parts.len() > 4 {
                return None;
            }
        }
        Some((parts, next))
    }
}
