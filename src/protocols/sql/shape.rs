//! What is left of a text without its literals: two texts of one shape are the
//! same words around other values, and mean the same to everybody here.
//!
//! Nothing in this folder looks into a literal, other than at which kind of one
//! it is. So what was understood of one text holds for all of its shape; and the
//! second reader is given the shape, too, or the value that stood in the first
//! text would decide for all others.

use super::lexer::{Kind, Token};
use super::redaction;
use super::words::Words;

/// Longest shape by which a text is remembered, bytes.
pub(super) const SHAPE_BYTES_MAX: usize = 32 << 10;

/// The words with a mark for each literal that no text can contain; `None`
/// where that is longer than is remembered, and where a literal is a statement.
pub(super) fn key(words: Words<'_>) -> Option<Box<str>> {
    if redaction::text_of_a_statement(words).is_some() {
        return None;
    }
    written(words, ["\0t", "\0n"], SHAPE_BYTES_MAX).map(Into::into)
}

/// The words as a statement, with another literal of the same kind for each;
/// `None` where that is longer than `bytes_max`.
pub(super) fn statement(words: Words<'_>, bytes_max: usize) -> Option<String> {
    written(words, ["'x'", "1"], bytes_max)
}

/// Whether a space stands between the two where literals are others: also behind a number
/// that ends without one, as others do not (`1e0FROM`).
pub(super) fn apart(one: Token, next: Token) -> bool {
    one.end < next.start || (one.kind == Kind::Number && next.kind == Kind::Word)
}

/// One space for whatever stood between two words: white space and comments.
fn written(words: Words<'_>, [text, number]: [&str; 2], bytes_max: usize) -> Option<String> {
    let mut out = String::with_capacity(words.text.len().min(bytes_max));
    let mut before: Option<Token> = None;
    for word in words.words {
        let token = word.token;
        if before.is_some_and(|before| apart(before, token)) {
            out.push(' ');
        }
        before = Some(token);
        out.push_str(match token.kind {
            Kind::Text => text,
            Kind::Number => number,
            _ => token.of(words.text),
        });
        if out.len() > bytes_max {
            return None;
        }
    }
    Some(out)
}
