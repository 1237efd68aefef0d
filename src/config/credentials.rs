//! A credential of the HTTP proxy from its line: a place, a file, and how it is shown there.

use std::path::PathBuf;

use crate::protocols::http::Place;
use crate::protocols::http::credentials::{
    Credential, DEFAULT_HEADER, DEFAULT_PREFIX, InClear, credential_header,
};

use super::problem::quoted;
use super::value::{self, Wrong};

const EXAMPLE: &str = "api.example.com file=/run/secrets/example-token";

/// `HOST[:PORT][/PATH] file=FILE [header=NAME] [prefix="TEXT"] [plain]`, whose file can be used now; a host
/// that passes unread, by `passthrough`, is none.
pub(super) fn credential(text: &str, passthrough: &[String]) -> Result<Credential, Wrong> {
    let words = words(text)?;
    let Some((place, said)) = words.split_first().filter(|(place, _)| !is_said(place)) else {
        let expected = "a place, file=FILE, and perhaps header=NAME, prefix=\"TEXT\" and plain";
        return Err(Wrong::is_not(text, "a credential", expected, EXAMPLE));
    };
    let (place, port) = place_and_port(place)?;
    let Said {
        file,
        header,
        prefix,
        in_clear,
    } = Said::of(said)?;
    let file = file.filter(|file| !file.is_empty()).ok_or_else(|| {
        let found = format!("{}: no file is said", quoted(text));
        Wrong::new(found, "file=FILE, with the credential in it", EXAMPLE)
    })?;
    let header = match header {
        Some(name) => credential_header(&name).ok_or_else(|| {
            let expected = "a header, and none that frames or routes a request";
            Wrong::is_not(
                &name,
                "a header of a credential",
                expected,
                "header=x-api-key",
            )
        })?,
        None => DEFAULT_HEADER,
    };
    let prefix = prefix.unwrap_or_else(|| match header == DEFAULT_HEADER {
        true => DEFAULT_PREFIX.to_owned(),
        false => String::new(),
    });
    if in_clear == InClear::ToLoopback && place.is_within(passthrough) {
        let found = format!(
            "{}: http.passthrough lets the host pass unread",
            quoted(text)
        );
        let expected = "a host whose requests are read: to no other a credential can be added";
        return Err(Wrong::new(found, expected, EXAMPLE));
    }
    let credential = Credential {
        place,
        port,
        file: PathBuf::from(&file),
        header,
        prefix: prefix.into(),
        in_clear,
    };
    match credential.check() {
        Ok(_) => Ok(credential),
        Err(unusable) => {
            let expected = "a file with the credential and nothing else";
            Err(Wrong::new(format!("{file}: {unusable}"), expected, EXAMPLE))
        }
    }
}

/// Whether `word` is no place, but what stands behind one.
fn is_said(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| ["file", "header", "prefix"].contains(&name))
}

/// `HOST[:PORT][/PATH]`, with an IPv6 address before a port in brackets.
fn place_and_port(text: &str) -> Result<(Place, Option<u16>), Wrong> {
    let end = text.find('/').unwrap_or(text.len());
    let (host, path) = text.split_at_checked(end).unwrap_or((text, ""));
    let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => match host.split_once(':') {
            Some((name, port)) if !port.is_empty() && !port.contains(':') => (name, Some(port)),
            Some(_) | None => (host, None),
        },
    };
    let port = port.map(value::port).transpose()?;
    Ok((value::place(&[host, path].concat())?, port))
}

/// What a line says behind its place.
#[derive(Debug)]
struct Said {
    file: Option<String>,
    header: Option<String>,
    prefix: Option<String>,
    in_clear: InClear,
}

impl Said {
    fn of(words: &[String]) -> Result<Self, Wrong> {
        let mut all = Self {
            file: None,
            header: None,
            prefix: None,
            in_clear: InClear::ToLoopback,
        };
        for word in words {
            let said = match word.split_once('=') {
                Some(("file", file)) => all.file.replace(file.to_owned()),
                Some(("header", header)) => all.header.replace(header.to_owned()),
                Some(("prefix", prefix)) => all.prefix.replace(prefix.to_owned()),
                None if word == "plain" => {
                    all.in_clear = InClear::Everywhere;
                    None
                }
                Some(_) | None => {
                    let expected = "file=FILE, header=NAME, prefix=\"TEXT\" or plain";
                    let what = "what a credential can say";
                    return Err(Wrong::is_not(word, what, expected, EXAMPLE));
                }
            };
            if said.is_some() {
                let name = word.split_once('=').map_or("", |(name, _)| name);
                let found = format!("{name} is said twice");
                return Err(Wrong::new(found, "each of them once", EXAMPLE));
            }
        }
        Ok(all)
    }
}

/// What stands between spaces, where spaces between `"` and `"` are none.
fn words(text: &str) -> Result<Vec<String>, Wrong> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quotes = false;
    for letter in text.chars() {
        match letter {
            '"' => {
                quotes = !quotes;
                word.get_or_insert_default();
            }
            space if space.is_whitespace() && !quotes => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    if quotes {
        let found = format!("{}: a quotation mark has no end", quoted(text));
        return Err(Wrong::new(found, "two of them", "prefix=\"Bearer \""));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_line_says_where_and_how_a_credential_is_shown() {
        let file = file("hush");
        let path = file.path().display();
        let read = |rest: &str| credential(&format!("a.test/x* file={path}{rest}"), &[]).unwrap();
        #[rustfmt::skip]
        let table = [
            // said                               header           prefix     plain
            ("",                                  "authorization", "Bearer ", InClear::ToLoopback),
            (" prefix=\"\"",                      "authorization", "",        InClear::ToLoopback),
            (" prefix=\"token \" plain",          "authorization", "token ",  InClear::Everywhere),
            (" header=X-Api-Key",                 "x-api-key",     "",        InClear::ToLoopback),
            ("  plain  header=x prefix=\"a  b\"", "x",             "a  b",    InClear::Everywhere),
        ];
        for (rest, header, prefix, in_clear) in table {
            let found = read(rest);
            let found = (
                found.header.as_str().to_owned(),
                found.prefix,
                found.in_clear,
            );
            assert_eq!(
                found,
                (header.to_owned(), prefix.into(), in_clear),
                "{rest}"
            );
        }
    }

    #[test]
    fn a_line_may_say_a_port_and_a_path_with_anything_in_it() {
        let file = file("hush");
        let read = |place: &str| {
            let line = format!("{place} file={}", file.path().display());
            let found = credential(&line, &[]).map(|found| (found.place, found.port));
            found.map_err(|wrong| wrong.found)
        };
        #[rustfmt::skip]
        let table = [
            ("a.test",               Ok(("a.test",    None,        None))),
            ("a.test:8443/x*",       Ok(("a.test",    Some("/x*"), Some(8443)))),
            ("localhost:8200",       Ok(("localhost", None,        Some(8200)))),
            ("[::1]:8200/x",         Ok(("::1",       Some("/x"),  Some(8200)))),
            ("::1",                  Ok(("::1",       None,        None))),
            ("[::1]",                Ok(("::1",       None,        None))),
            ("a.test/Items(Id=1)*",  Ok(("a.test",    Some("/Items(Id=1)*"), None))),
            ("a.test:0",             Err("is not a port")),
            ("a.test:x",             Err("is not a port")),
        ];
        for (place, expected) in table {
            match (read(place), expected) {
                (Ok(found), Ok((host, path, port))) => {
                    assert_eq!(found, (Place::new(host, path), port), "{place}");
                }
                (Err(found), Err(told)) => assert!(found.ends_with(told), "{place}: {found}"),
                (found, _) => panic!("{place}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_credential_is_told_without_what_is_in_the_file() {
        let (good, two) = (file("hush"), file("hush\nhush"));
        let (good, two) = (good.path().display(), two.path().display());
        let passthrough = ["*.pinned.test".to_owned(), "pinned.test".to_owned()];
        #[rustfmt::skip]
        let table = [
            (String::new(),                                     "is not a credential"),
            (format!("file={good}"),                            "is not a credential"),
            ("a.test".to_owned(),                               "no file is said"),
            ("a.test file=".to_owned(),                         "no file is said"),
            (format!("https://a.test file={good}"),             "is not a place"),
            (format!("a.test file={good} file={good}"),         "file is said twice"),
            (format!("a.test file={good} secret=x"),            "is not what a credential can say"),
            (format!("a.test file={good} header=host"),         "is not a header of a credential"),
            (format!("a.test file={good} prefix=\"Bearer "),    "a quotation mark has no end"),
            (format!("a.test file={good} prefix=\"schlüssel \""), "cannot stand in a header"),
            (format!("a.test file={two}"),                      "cannot stand in a header"),
            ("a.test file=/nowhere/x".to_owned(),               "No such file or directory (os error 2)"),
            (format!("pinned.test file={good}"),                "lets the host pass unread"),
            (format!("x.pinned.test/y file={good}"),            "lets the host pass unread"),
            (format!("*.x.pinned.test file={good}"),            "lets the host pass unread"),
        ];
        for (text, told) in table {
            let wrong = credential(&text, &passthrough).unwrap_err();
            assert!(wrong.found.ends_with(told), "{text}: {wrong:?}");
            assert!(!wrong.found.contains("hush"), "{text}: {wrong:?}");
        }
        for text in [
            format!("*.test file={good}"),
            format!("* file={good}"),
            format!("x.test file={good}"),
            // Over HTTP in the clear it can be added.
            format!("pinned.test file={good} plain"),
        ] {
            assert!(credential(&text, &passthrough).is_ok(), "{text}");
        }
        let below = format!("*.pinned.test file={good}");
        let apart = ["pinned.test".to_owned(), "*.x.pinned.test".to_owned()];
        assert!(credential(&below, &apart).is_ok());
    }
}
