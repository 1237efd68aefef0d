//! The child's environment as text, for the `env` verb: to be evaluated by a shell, read as a dotenv file, or
//! parsed as JSON.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use super::child_env::Change;

/// How the environment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `export NAME='value'` and `unset NAME`, for every POSIX shell.
    Sh,
    /// `NAME='value'`, one a line; what is to be taken out is a comment.
    Dotenv,
    /// One object; what is to be taken out is `null`.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sh" => Ok(Self::Sh),
            "dotenv" => Ok(Self::Dotenv),
            "json" => Ok(Self::Json),
            other => Err(format!(
                "\"{other}\" is not a format; expected sh, dotenv or json"
            )),
        }
    }
}

/// The changes as text, ending with a line feed.
///
/// # Errors
///
/// When a value is not UTF-8; no text could carry it unchanged.
pub fn render(changes: &[Change], format: Format) -> Result<String, NotText> {
    let mut text = String::new();
    let mut object = serde_json::Map::new();
    for change in changes {
        let name = utf8(&change.name, &change.name)?;
        let value = change
            .value
            .as_deref()
            .map(|value| utf8(value, &change.name))
            .transpose()?;
        // What the parent had under a name that is no identifier, no shell could have set or can unset.
        if format != Format::Json && !is_identifier(name) {
            continue;
        }
        match (format, value) {
            (Format::Json, value) => {
                object.insert(name.into(), value.into());
            }
            (Format::Sh, Some(value)) => {
                line(&mut text, &["export ", name, "=", &sh_quoted(value)])
            }
            (Format::Sh, None) => line(&mut text, &["unset ", name]),
            (Format::Dotenv, Some(value)) => line(&mut text, &[name, "=", &dotenv_quoted(value)]),
            (Format::Dotenv, None) => line(&mut text, &["# to be taken out: ", name]),
        }
    }
    if format == Format::Json {
        // Alternate: indented.
        text = format!("{:#}\n", serde_json::Value::Object(object));
    }
    Ok(text)
}

fn line(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied().chain(["\n"]));
}

fn utf8<'a>(value: &'a OsStr, name: &OsStr) -> Result<&'a str, NotText> {
    value.to_str().ok_or_else(|| NotText {
        name: name.to_string_lossy().into(),
    })
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `value` as one word of a shell's.
#[must_use]
pub fn sh_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Single quotes are literal to every reader of dotenv files; what they cannot hold is escaped in double ones.
fn dotenv_quoted(value: &str) -> String {
    if !value.contains(['\'', '\n', '\r']) {
        return format!("'{value}'");
    }
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A variable that cannot be written as text.
#[derive(Debug, PartialEq, Eq)]
pub struct NotText {
    /// The variable.
    pub name: String,
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the value of {} is not UTF-8 and cannot be written as text; choose a --state-dir whose path is",
            self.name
        )
    }
}

impl std::error::Error for NotText {}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    use super::*;

    fn change(name: &str, value: Option<&str>) -> Change {
        Change {
            name: name.into(),
            value: value.map(Into::into),
        }
    }

    #[test]
    fn each_format_sets_and_takes_out() {
        let changes = [
            change("A", Some("it's $5")),
            change("B", None),
            change("C", Some("x y")),
        ];
        let rows = [
            (
                Format::Sh,
                "export A='it'\\''s $5'\nunset B\nexport C='x y'\n",
            ),
            (
                Format::Dotenv,
                "A=\"it's \\$5\"\n# to be taken out: B\nC='x y'\n",
            ),
            (
                Format::Json,
                "{\n  \"A\": \"it's $5\",\n  \"B\": null,\n  \"C\": \"x y\"\n}\n",
            ),
        ];
        for (format, expected) in rows {
            assert_eq!(render(&changes, format).unwrap(), expected);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        for value in [
            "",
            "a b",
            "it's",
            "\"$HOME\" `id` \\",
            "two\nlines",
            "';id;'",
        ] {
            let text = render(&[change("OBX_X", Some(value))], Format::Sh).unwrap();
            let script = format!("{text}printf %s \"$OBX_X\"");
            let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }

    #[test]
    fn a_name_that_is_no_identifier_cannot_become_a_command() {
        let changes = [
            change("X; id", None),
            change("1X", None),
            change("OK_1", None),
        ];
        assert_eq!(render(&changes, Format::Sh).unwrap(), "unset OK_1\n");
        assert!(
            render(&changes, Format::Json)
                .unwrap()
                .contains("\"X; id\": null")
        );
    }

    #[test]
    fn a_value_that_is_not_text_is_an_error_and_not_altered() {
        let odd = Change {
            name: "CA".into(),
            value: Some(OsString::from_vec(vec![0xff])),
        };
        for format in [Format::Sh, Format::Dotenv, Format::Json] {
            let error = render(std::slice::from_ref(&odd), format).unwrap_err();
            assert!(error.to_string().contains("CA"));
        }
    }
}
