//! A body with masks in the place of what guardrails redact, and nothing else
//! changed: of JSON, only the values that hold it are written anew.

use std::ops::Range;

use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::guardrails::{Guardrail, Looked, Matter, look};
use crate::policy::Side;
use crate::process::cpu::Deadline;

/// Guardrails about one side of one matter, for so long.
#[derive(Clone, Copy)]
pub(in crate::policy::local) struct Masks<'a> {
    pub(in crate::policy::local) guardrails: &'a [Guardrail],
    pub(in crate::policy::local) side: Side,
    pub(in crate::policy::local) matter: Matter<'a>,
    pub(in crate::policy::local) until: Deadline,
}

impl Masks<'_> {
    /// `text` with masks; `None` where something would be left that they are to hide:
    /// in the name of a member, say, or across values.
    ///
    /// # Errors
    /// It cannot be checked whole: too long, or not done in time.
    pub(in crate::policy::local) fn body(&self, text: &str) -> Result<Option<String>, String> {
        let masked = match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => self.values(text)?,
            Err(_) => match self.one(Json::String(text.to_owned()))? {
                Some(Json::String(masked)) => masked,
                Some(_) | None => text.to_owned(),
            },
        };
        let left = self.look(&mut seen(&masked))?;
        let clean = left.blocking.is_empty() && left.replaced.is_empty();
        Ok(clean.then_some(masked))
    }

    /// Looks at `value`, leaving masks in it.
    pub(in crate::policy::local) fn look(&self, value: &mut Json) -> Result<Looked, String> {
        look(self.guardrails, self.side, self.matter, value, self.until)
    }

    fn values(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for range in scalars(text) {
            let raw = text.get(range.clone()).unwrap_or_default();
            let Ok(value) = serde_json::from_str(raw) else {
                continue;
            };
            if let Some(masked) = self.one(value)? {
                out.push_str(text.get(from..range.start).unwrap_or_default());
                out.push_str(&masked.to_string());
                from = range.end;
            }
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Ok(out)
    }

    /// What stands in the place of `value`; `None`: it may stay.
    fn one(&self, mut value: Json) -> Result<Option<Json>, String> {
        let looked = self.look(&mut value)?;
        Ok((!looked.replaced.is_empty()).then_some(value))
    }
}

/// A body as guardrails look at it: as text, without its escapes and, where it is JSON, as its
/// values too, for escapes must not hide anything. Whoever gets it may read what this parser
/// does not: numbers beyond a double, half a surrogate pair, the first of two members of one
/// name, lines of JSON.
pub(in crate::policy::local) fn seen(text: &str) -> Json {
    let mut seen = vec![Json::String(text.to_owned())];
    seen.extend(unescaped(text).map(Json::String));
    seen.extend(serde_json::from_str::<Json>(text).ok());
    Json::Array(seen)
}

/// With what the escapes of JSON (RFC 8259 §7) stand for, wherever they are; `None` where there
/// are none.
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('\\');
    let mut units: Vec<u16> = pieces.next()?.encode_utf16().collect();
    let mut any = false;
    while let Some(piece) = pieces.next() {
        any = true;
        let hex = piece.strip_prefix('u').and_then(|rest| rest.get(..4));
        let unit = hex.and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let rest = match (unit, piece.chars().next()) {
            (Some(unit), _) => {
                units.push(unit);
                piece.get(5..).unwrap_or_default()
            }
            // A backslash itself.
            (None, None) => {
                units.push(u16::from(b'\\'));
                pieces.next().unwrap_or_default()
            }
            (None, Some(named)) => {
                let stands_for = match named {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    other => other,
                };
                units.extend_from_slice(stands_for.encode_utf16(&mut [0; 2]));
                piece.get(named.len_utf8()..).unwrap_or_default()
            }
        };
        units.extend(rest.encode_utf16());
    }
    any.then(|| String::from_utf16_lossy(&units))
}

/// Where the strings and numbers of `json` are that are no names of members. It must
/// be JSON.
fn scalars(json: &str) -> Vec<Range<usize>> {
    let bytes = json.as_bytes();
    let mut found = Vec::new();
    let mut at = 0_usize;
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'"' => string_end(bytes, at),
            b'-' | b'0'..=b'9' => number_end(bytes, at),
            _ => {
                at = at.saturating_add(1);
                continue;
            }
        };
        if !is_name(bytes, end) {
            found.push(at..end);
        }
        at = end;
    }
    found
}

/// Behind the quote that ends the string which begins `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at.saturating_add(1);
    loop {
        match bytes.get(end) {
            Some(b'\\') => end = end.saturating_add(2),
            Some(b'"') => return end.saturating_add(1),
            Some(_) => end = end.saturating_add(1),
            None => return bytes.len(),
        }
    }
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    at.saturating_add(rest.iter().take_while(is_part).count())
}

fn is_name(bytes: &[u8], end: usize) -> bool {
    let rest = bytes.get(end..).unwrap_or_default();
    rest.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_hide_nothing_wherever_they_are() {
        let rows = [
            (
                r"a\u0040b \ud83d\ude00 \ud800 x",
                Some("a@b \u{1f600} \u{fffd} x"),
            ),
            (r#"\"\\\/\n\u00zz\"#, Some("\"\\/\nu00zz\\")),
            ("\\\\u0040", Some("\\u0040")),
            ("\\", Some("\\")),
            ("no escape", None),
        ];
        for (text, expected) in rows {
            assert_eq!(unescaped(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_strings_and_numbers_of_json_are_found_and_no_names() {
        let json = r#" {"a" : "b\"c:", "d\\": [-1.5e+3, true, "e" ,{"f":null,"f":"g"}], "h": 12} "#;
        let found: Vec<_> = scalars(json).into_iter().map(|r| &json[r]).collect();
        assert_eq!(found, [r#""b\"c:""#, "-1.5e+3", r#""e""#, r#""g""#, "12"]);
        for json in ["7", r#""x""#] {
            let found: Vec<_> = scalars(json).into_iter().map(|r| &json[r]).collect();
            assert_eq!(found, [json]);
        }
    }
}
