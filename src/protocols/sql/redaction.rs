//! A text without what somebody wrote into it: its literals.

use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::shape::apart;
use super::words::{Words, contains_ignoring_case};

/// Longest redacted text kept, bytes.
const REDACTED_BYTES_MAX: usize = 16 << 10;

/// The text with each literal and parameter replaced by `?`, lists of those
/// collapsed, one space where there was any, and without comments.
pub(super) fn redacted(words: Words<'_>) -> String {
    let mut out = String::with_capacity(words.text.len().min(REDACTED_BYTES_MAX));
    let mut before = None;
    for word in words.words {
        if before.is_some_and(|before| apart(before, word.token)) {
            out.push(' ');
        }
        before = Some(word.token);
        match word.token.kind {
            Kind::Text | Kind::Number | Kind::Parameter => literal(&mut out),
            Kind::Mark(b')') => {
                out.push(')');
                row(&mut out);
            }
            _ => out.push_str(word.token.of(words.text)),
        }
        if out.len() > REDACTED_BYTES_MAX {
            out.truncate(out.floor_char_boundary(REDACTED_BYTES_MAX));
            break;
        }
    }
    out
}

/// `?, ?, ?` is `?`.
fn literal(out: &mut String) {
    let shape = out.trim_end_matches(' ');
    if let Some(list) = shape.strip_suffix(',')
        && list.trim_end_matches(' ').ends_with('?')
    {
        let kept = list.trim_end_matches(' ').len();
        out.truncate(kept);
        return;
    }
    out.push('?');
}

/// `(?), (?)` is `(?)`.
fn row(out: &mut String) {
    let Some(before) = out.strip_suffix("(?)") else {
        return;
    };
    let before = before.trim_end_matches(' ');
    if let Some(rows) = before.strip_suffix(',')
        && rows.trim_end_matches(' ').ends_with("(?)")
    {
        let kept = rows.trim_end_matches(' ').len();
        out.truncate(kept);
    }
}

/// Whether a literal in it may be somebody's password.
pub(super) fn sets_a_password(words: Words<'_>) -> bool {
    words.has(K::Password)
        || text_of_a_statement(words).is_some_and(has_a_secret)
        || words.words.iter().any(|word| {
            let text = word.token.of(words.text);
            word.token.kind == Kind::Word
                && (["identified", "dblink_connect", "dblink", "mapping"]
                    .iter()
                    .any(|secret| text.eq_ignore_ascii_case(secret))
                    || (!words.dialect.is_postgres() && is_secret(text)))
        })
}

/// The literal of MySQL's `PREPARE s FROM '…'` and `EXECUTE IMMEDIATE '…'`. What it says is
/// part of what the statement is: such a one is not remembered by its shape.
pub(super) fn text_of_a_statement(words: Words<'_>) -> Option<&str> {
    let from = words.is(0, K::Prepare) && words.is(2, K::From);
    let immediate = words.is(0, K::Execute) && words.of(1).eq_ignore_ascii_case("immediate");
    let at = match (from, immediate) {
        (true, _) => 3,
        (_, true) => 2,
        _ => return None,
    };
    let is_text = !words.dialect.is_postgres() && words.kind(at) == Some(Kind::Text);
    is_text.then(|| words.of(at))
}

fn has_a_secret(text: &str) -> bool {
    let words = text.split(|one: char| !one.is_ascii_alphanumeric() && one != '_');
    words
        .into_iter()
        .any(|word| is_secret(word) || word.eq_ignore_ascii_case("identified"))
}

/// Whether a word of MySQL stands before somebody's password: `MASTER_PASSWORD =`,
/// `OLD_PASSWORD(…)`, and `CONNECTION = 'mysql://user:password@host'`.
fn is_secret(word: &str) -> bool {
    contains_ignoring_case(word, "password") || word.eq_ignore_ascii_case("connection")
}
