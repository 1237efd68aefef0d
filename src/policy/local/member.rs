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
    look(object.trim(), name).unwrap_or(Member::Unclear)
}

fn look<'a>(object: &'a str, name: &str) -> Option<Member<'a>> {
    let mut rest = object.strip_prefix('{')?.trim_start();
    let mut found = Member::Absent;
    if rest == "}" {
        return Some(found);
    }
    loop {
        let (key, behind) = string(rest)?;
        if key.contains('\\') {
            return None;
        }
        let value = behind.trim_start().strip_prefix(':')?.trim_start();
        let (text, behind) = value.split_at_checked(length(value)?)?;
        if key == name {
            if found != Member::Absent {
                return None;
            }
            found = Member::Found(text.trim_end());
        }
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind == "}" => return Some(found),
            None => return None,
        };
    }
}

/// A string without its quotes, and what is behind it.
fn string(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut at = 0_usize;
    loop {
        let next = memchr::memchr2(b'"', b'\\', inside.as_bytes().get(at..)?)?;
        at = at.checked_add(next)?;
        let (before, behind) = inside.split_at_checked(at)?;
        if let Some(behind) = behind.strip_prefix('"') {
            return Some((before, behind));
        }
        // The escape and what is escaped.
        at = at.checked_add(2)?;
    }
}

/// How long the value at the beginning of `text` is, with the space behind it:
/// up to the comma or the bracket that is not its own.
fn length(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0_usize;
    loop {
        let rest = text.get(at..)?;
        match rest.as_bytes().first()? {
            b'"' => {
                let (_, behind) = string(rest)?;
                at = text.len().checked_sub(behind.len())?;
                continue;
            }
            b'{' | b'[' => depth = depth.checked_add(1)?,
            b'}' | b']' | b',' if depth == 0 => return Some(at),
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at = at.checked_add(1)?;
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
