//! Every setting as it was resolved, for people: who said what, without passwords.

use std::collections::BTreeMap;

use super::Resolved;
use super::resolve::Origin;
use super::settings::{Fallback, SETTINGS};

/// What stands in place of a password.
const MASK: &str = "***";

/// Each setting with what was `said`, else its default.
pub(super) fn all(said: &BTreeMap<&'static str, (Origin, Vec<String>)>) -> Vec<Resolved> {
    let rows = SETTINGS.iter().map(|row| match said.get(row.key) {
        Some((origin, texts)) => {
            let texts: Vec<_> = texts.iter().map(|text| masked(text)).collect();
            let from = match origin {
                Origin::Flag => "flag",
                Origin::Env => "variable",
                Origin::File => "file",
            };
            (row.key, texts.join(","), from)
        }
        None => {
            let value = match row.default {
                Fallback::Is(value) | Fallback::Of(value) => value.to_owned(),
                Fallback::Empty => String::new(),
            };
            (row.key, value, "default")
        }
    });
    rows.map(|(key, value, from)| Resolved { key, value, from })
        .collect()
}

/// `text` without the password of a URL in it, be it in front of the host or among the parameters.
fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let ends = rest.find(['?', '#']).unwrap_or(rest.len());
    let (place, parameters) = rest.split_at_checked(ends).unwrap_or((rest, ""));
    // Passwords that were not encoded may have a slash or an at sign in them.
    let place = match place.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{MASK}@{host}"),
            None => format!("{user}@{host}"),
        },
        None => place.to_owned(),
    };
    let parameters: Vec<_> = parameters
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("pass") => {
                format!("{name}={MASK}")
            }
            Some(_) | None => parameter.to_owned(),
        })
        .collect();
    format!("{scheme}://{place}{}", parameters.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_to_nobody() {
        #[rustfmt::skip]
        let table = [
            ("plain",                                     "plain"),
            ("postgres://db:5432/x",                      "postgres://db:5432/x"),
            ("127.0.0.1:1=postgres://u:secret@db/x",      "127.0.0.1:1=postgres://u:***@db/x"),
            ("redis://:se@cr/et@db",                      "redis://:***@db"),
            ("postgres://u@db/x?sslpassword=secret&a=b",  "postgres://u@db/x?sslpassword=***&a=b"),
            ("postgres://db/x?a=b&password=secret",       "postgres://db/x?a=b&password=***"),
        ];
        for (said, shown) in table {
            assert_eq!(masked(said), shown);
        }
    }
}
