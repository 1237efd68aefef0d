//! The README's table of settings says exactly what the code knows.
//!
//! `UPDATE_GOLDEN=1 cargo test --test readme_settings` rewrites it.

#![cfg(test)]

use std::fmt::Write;
use std::fs;

use openbox_sidecar::config::{Fallback, OUTSIDE, SETTINGS, documented, schema};

const BEGIN: &str = "<!-- settings -->\n";
const END: &str = "<!-- /settings -->";

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let readme = fs::read_to_string("README.md").unwrap();
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("README.md has no <!-- settings -->");
    let (found, after) = rest
        .split_once(END)
        .expect("README.md has no <!-- /settings -->");
    let expected = table();
    if found == expected {
        return;
    }
    if std::env::vars_os().any(|(name, _)| name == "UPDATE_GOLDEN") {
        fs::write(
            "README.md",
            format!("{before}{BEGIN}{expected}{END}{after}"),
        )
        .unwrap();
        return;
    }
    let missing: Vec<_> = expected
        .lines()
        .filter(|line| !found.contains(line))
        .collect();
    let surplus: Vec<_> = found
        .lines()
        .filter(|line| !expected.contains(line))
        .collect();
    panic!(
        "README.md is not what the code knows; UPDATE_GOLDEN=1 rewrites it\nmissing:\n{}\nsurplus:\n{}",
        missing.join("\n"),
        surplus.join("\n")
    );
}

#[test]
fn every_setting_stands_once_in_the_table() {
    let table = table();
    for setting in SETTINGS {
        let cell = format!("| `{}` |", setting.key);
        assert_eq!(table.matches(&cell).count(), 1, "{cell}");
    }
    let columns = table.lines().map(|line| line.matches(" | ").count());
    assert!(columns.clone().all(|count| count == 4), "{table}");
    assert_eq!(columns.count(), 2 + SETTINGS.len() + OUTSIDE.len());
}

fn table() -> String {
    let mut table = String::from(
        "| key | flag | environment | default | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for outside in OUTSIDE {
        row(
            &mut table,
            [
                "",
                outside.flag,
                &code(outside.env),
                outside.default,
                outside.meaning,
            ],
        );
    }
    let schema = schema();
    let meanings = documented(&schema);
    for setting in SETTINGS {
        let meaning = meanings.iter().find(|(key, _)| key == setting.key);
        let meaning = meaning.map_or("", |(_, meaning)| meaning);
        let env: Vec<_> = setting.env.iter().map(|name| code(name)).collect();
        let default = match setting.default {
            Fallback::Is(value) => code(value),
            Fallback::Of(text) => text.to_owned(),
            Fallback::Empty => "none".to_owned(),
        };
        row(
            &mut table,
            [
                setting.key,
                setting.flag,
                &env.join(", "),
                &default,
                meaning,
            ],
        );
    }
    table
}

fn row(table: &mut String, [key, flag, env, default, meaning]: [&str; 5]) {
    let meaning = meaning.replace('\n', " ");
    let (key, flag) = (code(key), code(flag));
    writeln!(table, "| {key} | {flag} | {env} | {default} | {meaning} |").unwrap();
}

fn code(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("`{text}`")
}
