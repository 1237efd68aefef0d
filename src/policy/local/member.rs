//! A member of a JSON object as it stands in its text, found without reading
//! the others: a verdict is remembered under it, for every operation.

/// What [`member`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member<'a> {
    /// Its text.
    Found(&'a str),
    /// The object has none of that name.
    Absent,
    /// Whoever asks must look at all of it: no object, or one that is not read
    /// here (a name with an escape, a name that comes twice).
    Unclear,
}

/// The member `name` of the `object`, whose text is JSON. Two objects whose
/// members are the same text have equal members.
pub(super) fn member<'a>(object: &'a str, name: &str) -> Member<'a> {
    let mut cursor = Cursor {
        text: object,
        at: 0,
    };
    cursor.look(name).unwrap_or(Member::Unclear)
}

/// A place in a text: what is behind it is read byte by byte, as whatever a JSON
/// text is divided by is one.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn look(&mut self, name: &str) -> Option<Member<'a>> {
        let mut found = Member::Absent;
        self.take(b'{')?;
        if self.next()? == b'}' {
            return self.ends().then_some(found);
        }
        loop {
            let key = self.string()?;
            if memchr::memchr(b'\\', key.as_bytes()).is_some() {
                return None;
            }
            self.take(b':')?;
            let value = self.value()?;
            if key == name {
                if found != Member::Absent {
                    return None;
                }
                found = Member::Found(value);
            }
            match self.next()? {
                b',' => self.at = self.at.checked_add(1)?,
                b'}' => return self.ends().then_some(found),
                _ => return None,
            }
        }
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at = self.at.checked_add(1)?,
                byte => return Some(*byte),
            }
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())?;
        self.at = self.at.checked_add(1)?;
        Some(())
    }

    /// Whether the bracket here is the last thing.
    fn ends(&mut self) -> bool {
        self.at = self.at.saturating_add(1);
        self.next().is_none()
    }

    /// A string without its quotes.
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let from = self.at;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let next = memchr::memchr2(b'"', b'\\', rest)?;
            let at = self.at.checked_add(next)?;
            if rest.get(next) == Some(&b'"') {
                self.at = at.checked_add(1)?;
                return self.text.get(from..at);
            }
            // The escape and what is escaped.
            self.at = at.checked_add(2)?;
        }
    }

    /// A value, up to the comma or the bracket that is not its own.
    fn value(&mut self) -> Option<&'a str> {
        self.next()?;
        let from = self.at;
        let mut depth = 0_usize;
        loop {
            match self.text.as_bytes().get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth = depth.checked_add(1)?,
                b'}' | b']' | b',' if depth == 0 => {
                    return Some(self.text.get(from..self.at)?.trim_ascii_end());
                }
                b'}' | b']' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            self.at = self.at.checked_add(1)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_whatever_stands_before_it() {
        use Member::{Absent, Found, Unclear};
        for (object, name, expected) in [
            (
                r#"{"class":"read","flags":[]}"#,
                "class",
                Found(r#""read""#),
            ),
            (r#"{"class":"read","flags":[]}"#, "flags", Found("[]")),
            (r#"{"class":"read","flags":[]}"#, "verbs", Absent),
            ("{}", "class", Absent),
            (r#" { "a" : 1 , "b" : null } "#, "b", Found("null")),
            (r#"{"a":{"class":1},"class":2}"#, "class", Found("2")),
            (r#"{"a":"\",\"class\":3","class":2}"#, "class", Found("2")),
            (r#"{"a":"\\","class":2}"#, "class", Found("2")),
            (
                r#"{"a":["]","}",","],"class":[{}]}"#,
                "class",
                Found("[{}]"),
            ),
            (r#"{"é":"é","class":"é"}"#, "class", Found(r#""é""#)),
            (r#"{"class":1,"class":2}"#, "class", Unclear),
            (r#"{"cl\u0061ss":1}"#, "class", Unclear),
            (r#"{"class":1"#, "class", Unclear),
            (r#"{"class":1}}"#, "class", Unclear),
            (r#"["class"]"#, "class", Unclear),
            ("", "class", Unclear),
        ] {
            assert_eq!(member(object, name), expected, "{object}");
        }
    }

    #[test]
    fn what_is_found_is_what_a_parser_finds() {
        let texts = [r#"a"b"#, "\\", "{", "],", "", "é\u{1}"];
        for one in texts {
            for other in texts {
                let object = serde_json::json!({
                    "first": one, "list": [other, {"class": one}], "class": {one: [other]}, "last": 1.5,
                });
                let text = object.to_string();
                for (name, value) in object.as_object().unwrap() {
                    let Member::Found(found) = member(&text, name) else {
                        panic!("{name} in {text}");
                    };
                    assert_eq!(
                        &serde_json::from_str::<serde_json::Value>(found).unwrap(),
                        value
                    );
                }
            }
        }
    }
}
