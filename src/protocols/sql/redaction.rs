//! A text without what somebody wrote into it: its literals.

use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::words::Words;

/// Longest redacted text kept, bytes.
const REDACTED_BYTES_MAX: usize = 16 << 10;

/// The text with each literal and parameter replaced by `?`, lists of those
/// collapsed, one space where there was any, and without comments.
pub(super) fn redacted(words: Words<'_>) -> String {
    let mut out = String::with_capacity(words.text.len().min(REDACTED_BYTES_MAX));
    let mut end = None;
    for word in words.words {
        let start = word.token.start;
        if end.is_some_and(|end| end < start) {
            out.push(' ');
        }
        end = Some(word.token.end);
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
        || words.words.iter().any(|word| {
            let text = word.token.of(words.text);
            word.token.kind == Kind::Word
                && ["identified", "dblink_connect", "dblink", "mapping"]
                    .iter()
                    .any(|secret| text.eq_ignore_ascii_case(secret))
        })
}
