//! The dependency rules, as data. Change the tables before you change an import.

#![cfg(test)] // So that clippy's allow-*-in-tests reaches the helpers below.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails the test, which is its job"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. A module may import only from rows above its own; modules of
/// one row are peers and do not know each other.
const LAYERS: &[&[&str]] = &[
    &["domain"],
    &["redact", "metrics", "process"],
    &["net"],
    &["policy", "session"],
    &["journal", "state"],
    &["gate"],
    &["protocols", "control", "health"],
    &["config"],
    &["app"],
    &["cli"],
    &["main"],
];

/// External crate, and the only files and folders under `src` that may name it.
const CONTAINED: &[(&str, &[&str])] = &[
    ("prometheus", &["metrics.rs"]),
    ("dashmap", &["session/registry.rs"]),
    (
        "aws_lc_rs",
        &[
            "journal/sign.rs",
            "net",
            "policy/core/asserted.rs",
            "policy/core/asserted",
            "policy/core/identity.rs",
            "policy/core/rsa.rs",
            "policy/core/rsa",
            "policy/core/verify.rs",
            "protocols/mysql/whole_password.rs",
        ],
    ),
    ("redb", &["state"]),
    ("regorus", &["policy/local"]),
    ("notify", &["policy/local"]),
    ("rcgen", &["net"]),
    ("x509_parser", &["net"]),
    ("rustls", &["net"]),
    ("rustls_native_certs", &["net"]),
    ("tokio_rustls", &["net", "protocols/http"]),
    ("socket2", &["net"]),
    ("sqlparser", &["protocols/sql"]),
    (
        "postgres_protocol",
        &["protocols/postgres/login.rs", "protocols/postgres/login"],
    ),
    ("hmac", &["protocols/postgres/login"]),
    ("json_patch", &["cli/k8s"]),
    ("serde_norway", &["config", "policy/local", "cli/k8s"]),
    ("regex", &["policy/local/rules"]),
    ("schemars", &["config"]),
    ("clap", &["cli", "main.rs"]),
    (
        "rustix",
        &[
            "cli/child.rs",
            "cli/dumps.rs",
            "cli/privileges.rs",
            "control/operator/live_tests.rs",
            "net",
            "process/cpu.rs",
        ],
    ),
    ("mimalloc", &["main.rs"]),
    ("tracing_subscriber", &["cli/logs.rs", "config"]),
    ("axum", &["control", "health.rs", "app.rs", "app"]),
    ("utoipa", &["control", "policy/core/wire/told.rs"]),
    ("utoipa_axum", &["control"]),
];

/// What the nouns may name besides themselves: nothing but the standard library.
const PURE: &str = "domain";

#[test]
fn imports_point_downwards() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let from = top(&path);
        // The crate's root lists the modules and is none.
        if from == "lib" {
            continue;
        }
        let from_layer = layer(&from)
            .unwrap_or_else(|| panic!("{}: {from} has no row in LAYERS", path.display()));
        for to in imported(&text) {
            let to_layer = layer(&to)
                .unwrap_or_else(|| panic!("{}: {to} has no row in LAYERS", path.display()));
            if to != from && from_layer <= to_layer {
                broken.push(format!("{}: {from} imports {to}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn crates_stay_where_they_belong() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let inside = path.strip_prefix("src").unwrap();
        for (krate, homes) in CONTAINED {
            let at_home = homes.iter().any(|home| inside.starts_with(home));
            if !at_home && names(&text, krate) {
                broken.push(format!("{}: names {krate}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_nouns_know_nothing_but_the_standard_library() {
    let crates = dependencies();
    assert!(crates.len() > 20, "{crates:?}");
    for (path, text) in sources() {
        for krate in crates.iter().filter(|_| top(&path) == PURE) {
            assert!(!names(&text, krate), "{}: names {krate}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! ") && first.len() > 12,
            "{}: the first line must say what this file is for",
            path.display()
        );
    }
}

#[test]
fn the_rules_are_about_what_is_there() {
    assert!(sources().len() > 40);
    let crates = dependencies();
    for (krate, _) in CONTAINED {
        let known = crates.iter().any(|known| known == krate);
        assert!(known, "{krate} is no dependency");
    }
}

#[test]
fn what_is_compiled_for_tests_only_is_left_out_and_nothing_else() {
    let text =
        "a();\n#[cfg(test)]\nmod tests;\nb();\n#[cfg(test)]\nmod more {\n    c();\n}\nd();\n";
    assert_eq!(production(text), "a();\nb();\nd();\n");
}

#[test]
fn a_forbidden_import_is_seen_in_every_spelling() {
    for (line, expected) in [
        ("use crate::gate::Gate;", &["gate"][..]),
        (
            "use crate::{gate, journal, net::dial};",
            &["gate", "journal", "net"],
        ),
        (
            "use crate::{\n    gate::{self, Permit},\n    session,\n};",
            &["gate", "session"],
        ),
        ("let x = crate::net::dial::f();", &["net"]),
        ("pub(in crate::session) struct A;", &["session"]),
        ("use openbox_sidecar::cli::{self, Cli};", &["cli"]),
        ("// use crate::gate::Gate;", &[]),
        ("/// See [`crate::gate`].", &[]),
        ("use super::gate;", &[]),
    ] {
        assert_eq!(imported(line), expected, "{line}");
    }
    assert!(names("use rustls::pki_types::X;", "rustls"));
    assert!(names("use rustls;", "rustls"));
    assert!(names("let x = ::rustls::f();", "rustls"));
    assert!(!names("use tokio_rustls::X;", "rustls"));
    assert!(!names("use my::rustls_like::X;", "rustls"));
    assert!(!names("// rustls::X", "rustls"));
}

/// Top-level modules of this crate that `text` names, in order.
fn imported(text: &str) -> Vec<String> {
    let code = production(text);
    let mut found = Vec::new();
    for rest in code
        .split("crate::")
        .skip(1)
        .chain(code.split("openbox_sidecar::").skip(1))
    {
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_words(list)),
            None => found.push(first_word(rest)),
        }
    }
    found
}

/// The first segment of every path of a `{…}` list, nested lists left out.
fn first_words(list: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut item = String::new();
    let mut items = Vec::new();
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    items.push(item);
    let words = items.iter().map(|item| first_word(item.trim_start()));
    words
        .filter(|word| !word.is_empty() && word != "self")
        .collect()
}

/// Whether `text` names the external crate, as `krate::` or `use krate;`.
fn names(text: &str, krate: &str) -> bool {
    let code = production(text);
    code.match_indices(krate).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + krate.len()..];
        // `self::krate` and `a::krate` are something else; `::krate` is it.
        let path_before = code[..at].strip_suffix("::");
        let nested =
            path_before.is_some_and(|p| p.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let word_before = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let used = code[..at].ends_with("use ") && after.starts_with(';');
        !word_before && !nested && (after.starts_with("::") || used)
    })
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn first_word(rest: &str) -> String {
    rest.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn top(path: &Path) -> String {
    let name = path
        .strip_prefix("src")
        .unwrap_or(path)
        .components()
        .next()
        .unwrap();
    name.as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// What is compiled into the product: without comments and without what
/// `#[cfg(test)]` stands above, at the margin.
fn production(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            // Up to the end of the item: its only line, or its closing brace.
            let item = lines.find(|line| !line.starts_with("#["));
            if item.is_some_and(|item| item.ends_with('{')) {
                lines.find(|line| *line == "}");
            }
        } else if !line.trim_start().starts_with("//") {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// Names of the crates we link, as Rust spells them.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let lines = section.split("\n[").next().unwrap().lines();
    lines
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}
