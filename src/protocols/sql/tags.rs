//! What a trailing comment in the format of sqlcommenter says: hints of whose
//! statement it is. Nothing of it is trusted.

use super::Dialect;
use super::lexer::{Kind, Lexer};

/// Most tags of a comment, and most bytes of it, that are read.
const TAGS_MAX: usize = 16;
const COMMENT_BYTES_MAX: usize = 2 << 10;

/// The tags of the comment that ends `text`, if one does.
pub(super) fn trailing(text: &str, dialect: Dialect) -> Vec<(Box<str>, Box<str>)> {
    let end = text.trim_end_matches([' ', '\n', '\r', '\t', ';']);
    if !end.ends_with("*/") {
        return Vec::new();
    }
    let mut last = None;
    for token in Lexer::new(text, dialect) {
        match token.kind {
            Kind::Comment => last = Some(token),
            Kind::Space | Kind::Mark(b';') => {}
            _ => last = None,
        }
    }
    let comment = last.map_or("", |token| token.of(text));
    let inner = comment
        .strip_prefix("/*")
        .and_then(|comment| comment.strip_suffix("*/"));
    match inner {
        Some(inner) if inner.len() <= COMMENT_BYTES_MAX => pairs(inner),
        Some(_) | None => Vec::new(),
    }
}

/// `key='value',key='value'`, both URL-encoded, quotes escaped by a backslash.
/// Some clients leave the quotes out.
fn pairs(comment: &str) -> Vec<(Box<str>, Box<str>)> {
    let pairs = comment.split(',').take(TAGS_MAX).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let quoted = value
            .strip_prefix('\'')
            .and_then(|value| value.strip_suffix('\''));
        let value = quoted.unwrap_or(value).replace("\\'", "'");
        let known = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.%".contains(&byte));
        (known && !name.is_empty()).then(|| (decoded(name).into(), decoded(&value).into()))
    });
    pairs.collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| {
            let hex = std::str::from_utf8(hex).ok()?;
            u8::from_str_radix(hex, 16).ok()
        });
        rest = match (first, hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                tail.get(2..).unwrap_or_default()
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_12_only_a_comment_that_ends_the_text_is_read() {
        let trace = "traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'";
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (text, expected) in [
            (
                format!("SELECT 1 /*{trace}*/"),
                &[("traceparent", value)][..],
            ),
            (
                format!("SELECT 1 /* a='1' */ /*{trace}*/ ; "),
                &[("traceparent", value)],
            ),
            (format!("SELECT 1 /*{trace}*/ + 1"), &[]),
            (format!("SELECT '/*{trace}*/"), &[]),
            (format!("SELECT '/*{trace}*/'"), &[]),
            (
                "SELECT 1 /*a%20b='c%2Cd',e=f,'g*/".to_owned(),
                &[("a b", "c,d"), ("e", "f")],
            ),
            ("SELECT 1 /*a='it\\'s'*/".to_owned(), &[("a", "it's")]),
            ("SELECT 1 -- a='b'".to_owned(), &[]),
        ] {
            let found = trailing(&text, Dialect::POSTGRES);
            let found: Vec<_> = found.iter().map(|(n, v)| (&**n, &**v)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
