//! What must hold of the reading of any text: see [`crate::protocols::laws`].

#![allow(
    clippy::indexing_slicing,
    reason = "a law that is broken panics: that is how it is told"
)]

use crate::protocols::laws::Choices;

use super::analysis::cut;
use super::words::Words;
use super::{Analyses, Analysis, Class, Conditional, Dialect, Kind, Lexer, Token, shape};

/// What texts are made of, besides arbitrary bytes.
const PIECES: &[&str] = &[
    "SELECT ",
    "FROM ",
    "a",
    "b.c",
    ", ",
    "(",
    ")",
    " WHERE ",
    "x = ",
    "1",
    "'x'",
    "$1",
    "?",
    ";",
    "; ",
    "INSERT INTO a ",
    "VALUES ",
    "UPDATE a SET x = ",
    "DELETE FROM a",
    "WITH w AS (",
    "MERGE ",
    "USING ",
    "UNION ALL ",
    "AS ",
    " JOIN ",
    " ON ",
    "COPY a ",
    "TO ",
    "PROGRAM ",
    "EXPLAIN ANALYZE ",
    "CASE ",
    "WHEN ",
    "THEN ",
    "END ",
    "ARRAY[",
    "]",
    "::",
    "int",
    "f(",
    "LATERAL ",
    "ONLY ",
    "CREATE ",
    "TABLE ",
    "DROP ",
    "ALTER ROLE r PASSWORD ",
    "SET ROLE ",
    "PREPARE p AS ",
    "EXECUTE p",
    "BEGIN",
    "RETURNING ",
    "FOR UPDATE",
    "'",
    "''",
    "\\",
    "\\'",
    "\"",
    "\"q\"",
    "`",
    "E'",
    "U&'",
    "U&\"",
    "B'",
    "N'",
    "$$",
    "$t$",
    "/*",
    "*/",
    "/*!",
    "/*!50000 ",
    "/*a='b'*/",
    "--",
    "-- ",
    "#",
    "\n",
    " ",
    "\r",
    "\t",
    "\0",
    "é",
    "0x1F",
    "1.5e3",
    ".5",
    "1..2",
    "1_000",
    "@",
    "@@x",
    "||",
    "->>",
    "~*",
    "<>",
    "!",
    "e",
    "_",
    ".",
    "0b",
    "UESCAPE '!'",
    "pg_read_file(",
    "nextval(",
    "LOAD DATA INFILE ",
    "INTO OUTFILE ",
];

/// What stands for every literal of a text, and in no other text.
const TEXT: &str = "sq7secret";
const NUMBER: &str = "7304519";

/// The text of a case, and whose rules it is read by.
pub fn text(bytes: &[u8]) -> (String, Dialect) {
    let mut choices = Choices::new(bytes);
    let first = choices.byte();
    let (one, two) = (first & 2 != 0, first & 4 != 0);
    let dialect = match first & 1 == 0 {
        true => Dialect::Postgres {
            standard_conforming_strings: !one,
        },
        false => Dialect::Mysql {
            ansi_quotes: one,
            no_backslash_escapes: two,
            conditional: Conditional::Executed,
        },
    };
    if first & 8 == 0 {
        return (String::from_utf8_lossy(choices.all()).into_owned(), dialect);
    }
    let mut text = String::new();
    while choices.are_left() {
        text += choices.pick(PIECES);
    }
    (text, dialect)
}

/// All that must hold.
pub fn check(bytes: &[u8]) {
    let (text, dialect) = text(bytes);
    tokens_are_the_text(&text, dialect);
    let analysis = Analysis::of(&text, dialect);
    an_analysis_agrees_with_itself(&analysis);
    what_is_remembered_is_what_is_read(&text, dialect, &analysis);
    literals_change_nothing_and_are_not_shown(&text, dialect, &analysis);
    a_longer_text_is_no_milder(&text, dialect, &analysis);
}

fn tokens_are_the_text(text: &str, dialect: Dialect) {
    let mut at = 0;
    for token in Lexer::new(text, dialect) {
        assert!(token.start == at && token.end > at, "{token:?} of {text:?}");
        assert!(
            text.get(token.start..token.end).is_some(),
            "{token:?} of {text:?}"
        );
        at = token.end;
        // What does not end has nothing behind it.
        assert!(
            token.kind != Kind::Unterminated || at == text.len(),
            "{text:?}"
        );
    }
    assert_eq!(at, text.len(), "{text:?}");
}

fn an_analysis_agrees_with_itself(analysis: &Analysis) {
    for statement in &analysis.statements {
        let opaque = statement.class == Class::Opaque;
        assert_eq!(opaque, statement.opaque.is_some(), "{statement:?}");
        assert!(statement.relations.is_sorted(), "{statement:?}");
    }
    let told: Result<serde_json::Value, _> = serde_json::from_str(&analysis.told.0);
    let class = told.map(|told| told["class"].clone());
    assert_eq!(
        class.ok(),
        Some(analysis.class().as_str().into()),
        "{analysis:?}"
    );
}

fn what_is_remembered_is_what_is_read(text: &str, dialect: Dialect, analysis: &Analysis) {
    let known = Analyses::new(1 << 20);
    for _ in 0..2 {
        assert_eq!(*known.of(text, dialect), *analysis, "{text:?}");
    }
    if let Some(other) = with_other_literals(text, dialect) {
        assert_eq!(
            *known.of(&other, dialect),
            Analysis::of(&other, dialect),
            "{other:?}"
        );
    }
}

/// The law of redaction, and of the digest: literals are not part of either.
fn literals_change_nothing_and_are_not_shown(text: &str, dialect: Dialect, analysis: &Analysis) {
    // Where an executable comment ends for those who do not execute it, literals say.
    if dialect.has_conditions(text) {
        return;
    }
    let Some(other) = with_other_literals(text, dialect) else {
        return;
    };
    let read = Analysis::of(&other, dialect);
    let shown = [&*read.redacted, &*read.told.0];
    for shown in shown {
        assert!(
            !shown.contains(TEXT) && !shown.contains(NUMBER),
            "{other:?} shows {shown:?}"
        );
    }
    assert_eq!(read.statements, analysis.statements, "{text:?} {other:?}");
    assert_eq!(read.secret, analysis.secret, "{text:?} {other:?}");
    let (Some(one), Some(two)) = (key(text, dialect), key(&other, dialect)) else {
        return;
    };
    assert_eq!(one, two, "{text:?} {other:?}");
    assert_eq!(read.redacted, analysis.redacted, "{text:?} {other:?}");
    assert_eq!(read.digest, analysis.digest, "{text:?} {other:?}");
}

fn key(text: &str, dialect: Dialect) -> Option<Box<str>> {
    let words = cut(text, dialect).ok()?;
    shape::key(Words {
        text,
        words: &words,
        dialect,
    })
}

/// The same with another value for each literal; `None` where that cannot be
/// written, or where what stands for them stands there already.
fn with_other_literals(text: &str, dialect: Dialect) -> Option<String> {
    if text.contains(TEXT) || text.contains(NUMBER) {
        return None;
    }
    let mut other = String::new();
    for token in Lexer::new(text, dialect) {
        let own = token.of(text);
        match token.kind {
            Kind::Text => literal(own, &mut other),
            // The point may belong to what stands before it, too.
            Kind::Number if own.starts_with('.') => other += &format!(".{NUMBER}"),
            Kind::Number => other += NUMBER,
            Kind::Unterminated => return None,
            _ => other += own,
        }
    }
    // What stands beside a literal may become part of it.
    skeleton(text, dialect)
        .eq(skeleton(&other, dialect))
        .then_some(other)
}

/// The tokens, and what each says that is no literal.
fn skeleton(text: &str, dialect: Dialect) -> impl Iterator<Item = (Kind, &str)> {
    Lexer::new(text, dialect).map(move |token: Token| match token.kind {
        Kind::Text | Kind::Number => (token.kind, ""),
        kind => (kind, token.of(text)),
    })
}

/// Its prefix, and its quotes, with something else between them.
fn literal(own: &str, out: &mut String) {
    let Some(at) = own.find(['\'', '"', '$']) else {
        return;
    };
    let behind = &own[at..];
    let quote = match behind.strip_prefix('$').and_then(|tail| tail.find('$')) {
        Some(tag) => &behind[..tag.saturating_add(2)],
        None => &behind[..1],
    };
    *out += &format!("{}{quote}{TEXT}{quote}", &own[..at]);
}

fn a_longer_text_is_no_milder(text: &str, dialect: Dialect, analysis: &Analysis) {
    let ends = |token: Token| !matches!(token.kind, Kind::Unterminated | Kind::Stray);
    let comments = |token: Token| !matches!(token.kind, Kind::Executable | Kind::ExecutableEnd);
    let mut tokens = Lexer::new(text, dialect);
    if !tokens.all(|token| ends(token) && comments(token)) || analysis.statements.len() > 100 {
        return;
    }
    let longer = format!("{text}\n; DROP TABLE zz");
    let read = Analysis::of(&longer, dialect);
    assert_eq!(
        read.class(),
        analysis.class().max(Class::Schema),
        "{longer:?}"
    );
    let both = analysis.statements.len().saturating_add(1);
    assert_eq!(read.statements.len(), both, "{longer:?}");
}
