//! What keeps each rule of the table in `main.rs` is there.

use std::fs;
use std::path::Path;

const ROWS: usize = 25;

/// The last column of each row, by its number.
fn rows() -> Vec<(usize, &'static str)> {
    let lines = include_str!("main.rs").lines();
    let rows = lines.filter_map(|line| {
        let mut cells = line.strip_prefix("//! |")?.split(" | ");
        let number = cells.next()?.trim().parse().ok()?;
        Some((number, cells.nth(1)?.trim_end_matches(" |")))
    });
    rows.collect()
}

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.ends_with("target") || path.ends_with("node_modules") => {}
            _ if path.is_dir() => sources(&path, all),
            Some(extension) if extension == "rs" => {
                all.push_str(&fs::read_to_string(&path).unwrap());
            }
            _ => {}
        }
    }
}

/// With one space where there are any, so that a sentence may be broken anywhere.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_rule_of_the_table_has_a_test_or_a_sentence_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["src", "tests"] {
        sources(&root.join(folder), &mut code);
    }
    let readme = in_one_line(&fs::read_to_string(root.join("README.md")).unwrap());
    let rows = rows();
    let numbers: Vec<_> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
    for (number, kept_by) in rows {
        // Sentences first: there may be code in one.
        let said: Vec<_> = kept_by.split('"').skip(1).step_by(2).collect();
        let unsaid = kept_by.split('"').step_by(2).collect::<String>();
        let tests: Vec<_> = unsaid.split('`').skip(1).step_by(2).collect();
        assert!(!said.is_empty() || !tests.is_empty(), "{number}");
        for sentence in said {
            assert!(readme.contains(sentence), "{number}: {sentence}");
        }
        for test in tests {
            assert!(code.contains(&format!("fn {test}(")), "{number}: {test}");
        }
    }
}
