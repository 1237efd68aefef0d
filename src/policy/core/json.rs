//! JSON as Core's own clients write it: compact, and ASCII only.

use crate::domain::JsonText;

/// Writes one JSON text from front to back. Commas come by themselves; that
/// brackets match is up to the caller.
#[derive(Debug)]
pub(super) struct Json(Vec<u8>);

impl Json {
    /// Room for about `bytes` bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn open(&mut self, bracket: Bracket) {
        self.0.push(match bracket {
            Bracket::Object => b'{',
            Bracket::Array => b'[',
        });
    }

    pub(super) fn close(&mut self, bracket: Bracket) {
        self.0.push(match bracket {
            Bracket::Object => b'}',
            Bracket::Array => b']',
        });
    }

    /// A member's name; its value comes next.
    pub(super) fn name(&mut self, name: &str) {
        if !matches!(self.0.last(), Some(b'{' | b'[') | None) {
            self.0.push(b',');
        }
        self.string(name);
        self.0.push(b':');
    }

    pub(super) fn string(&mut self, text: &str) {
        self.0.push(b'"');
        self.string_part(text);
        self.0.push(b'"');
    }

    /// A string made of several parts.
    pub(super) fn joined<'a>(&mut self, parts: impl Iterator<Item = &'a str>, between: &str) {
        self.0.push(b'"');
        for (n, part) in parts.enumerate() {
            if n > 0 {
                self.string_part(between);
            }
            self.string_part(part);
        }
        self.0.push(b'"');
    }

    fn string_part(&mut self, mut text: &str) {
        let is_plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
        while let Some(at) = text.bytes().position(|b| !is_plain(b)) {
            let (plain, rest) = text.split_at(at);
            self.0.extend_from_slice(plain.as_bytes());
            let mut chars = rest.chars();
            if let Some(c) = chars.next() {
                self.escaped(c);
            }
            text = chars.as_str();
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    fn escaped(&mut self, c: char) {
        let short = match c {
            '"' | '\\' => c,
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            _ => return self.escaped_as_units(c),
        };
        self.0.push(b'\\');
        self.0.extend(u8::try_from(short));
    }

    fn escaped_as_units(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            self.0.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                let digit = u32::from(*unit >> shift) & 0xf;
                let digit = char::from_digit(digit, 16).unwrap_or('0');
                self.0.extend(u8::try_from(digit));
            }
        }
    }

    pub(super) fn number(&mut self, number: impl Into<u64>) {
        self.0
            .extend_from_slice(number.into().to_string().as_bytes());
    }

    /// A number, or `null`.
    pub(super) fn number_or_null(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => self.word(Word::Null),
        }
    }

    /// JSON from elsewhere, or `null`.
    pub(super) fn json_or_null(&mut self, json: Option<&JsonText>) {
        match json {
            Some(json) => self.json(json),
            None => self.word(Word::Null),
        }
    }

    /// `true`, `false` or `null`.
    pub(super) fn word(&mut self, word: Word) {
        self.0.extend_from_slice(match word {
            Word::True => b"true",
            Word::Null => b"null",
        });
    }

    /// A string, or `null`.
    pub(super) fn string_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.word(Word::Null),
        }
    }

    /// JSON from elsewhere: white space goes, what is not ASCII is escaped.
    pub(super) fn json(&mut self, json: &JsonText) {
        let mut place = Place::Between;
        for c in json.0.chars() {
            place = match (place, c) {
                (Place::Between, ' ' | '\n' | '\r' | '\t') => continue,
                (Place::Between, '"') | (Place::AfterBackslash, _) => Place::InString,
                (Place::InString, '"') => Place::Between,
                (Place::InString, '\\') => Place::AfterBackslash,
                (Place::InString | Place::Between, _) => place,
            };
            match c {
                ' '..='~' => self.0.extend(u8::try_from(c)),
                _ => self.escaped_as_units(c),
            }
        }
    }
}

/// The two kinds of nesting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bracket {
    Object,
    Array,
}

/// Values without a content of their own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    True,
    Null,
}

#[derive(Clone, Copy)]
enum Place {
    Between,
    InString,
    AfterBackslash,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::with_capacity(0);
        write(&mut json);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn strings_are_ascii_and_mean_what_they_meant() {
        // What Python's json.dumps writes for each.
        let table = [
            ("plain", r#""plain""#),
            ("", r#""""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\r\t\u{8}\u{c}\u{1}\u{7f}", r#""\n\r\t\b\f\u0001\u007f""#),
            ("ä€", r#""\u00e4\u20ac""#),
            ("😀!", r#""\ud83d\ude00!""#),
        ];
        for (text, json) in table {
            assert_eq!(written(|j| j.string(text)), json);
            assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
        }
    }

    #[test]
    fn foreign_json_is_compacted_outside_its_strings_only() {
        let table = [
            (r#" { "a" : [ 1 , 2.50 ] } "#, r#"{"a":[1,2.50]}"#),
            (r#"["a  b", "\" , \\" , "c"]"#, r#"["a  b","\" , \\","c"]"#),
            (r#""ä😀""#, r#""\u00e4\ud83d\ude00""#),
            ("[\n\t]", "[]"),
        ];
        for (given, expected) in table {
            let json = written(|j| j.json(&JsonText(given.into())));
            assert_eq!(json, expected);
            let mean = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(mean(&json), mean(given));
        }
    }
}
