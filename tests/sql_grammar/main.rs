//! Over PostgreSQL's own regression tests: nothing that its grammar sees in a
//! statement is missed by the sidecar, and few statements are not understood.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a grammar has hundreds of nodes, most of which hold nothing but others"
)]
mod rows;
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "what is not named changes the schema, at the least"
)]
mod says;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use openbox_sidecar::protocols::sql::{Access, Analysis, Class, Dialect};
use says::{Says, statements};

/// Most lines of one statement of the tests that is looked for.
const LINES_MAX: usize = 250;

#[test]
fn pg_25_nothing_that_the_grammar_sees_is_missed() {
    let mut missed = Vec::new();
    let (mut all, mut dml, mut complete) = (0, 0, 0);
    let mut opaque: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for text in texts() {
        let Some(cut) = statements(&text) else {
            continue;
        };
        for one in cut {
            let Some(analysis) = analysis(one.text) else {
                continue;
            };
            all += 1;
            let is_opaque = analysis.class() == Class::Opaque;
            dml += usize::from(one.says.is_dml);
            complete += usize::from(one.says.is_dml && !is_opaque);
            if one.says.is_dml && is_opaque {
                let why = analysis.statements.iter().find_map(|one| one.opaque);
                opaque
                    .entry(why.unwrap_or(""))
                    .or_default()
                    .push(one.text.to_owned());
            }
            for what in differences(&analysis, &one.says) {
                missed.push(format!("{what}: {}", one.text.trim()));
            }
        }
    }
    let show = std::env::var_os("SHOW").is_some();
    for (why, texts) in &opaque {
        println!("opaque, {}: {why}", texts.len());
        for text in texts.iter().filter(|_| show) {
            println!("    {}", text.trim().replace('\n', "\n    "));
        }
    }
    println!("{all} statements; of {dml} that read or change rows, {complete} are complete");
    assert!(all > 30_000 && dml > 15_000, "{all} {dml}");
    assert!(
        missed.is_empty(),
        "{}\n{} missed",
        missed.join("\n"),
        missed.len()
    );
    // Opaque is safe, and useless when it is everything.
    assert!(complete * 100 > dml * 97, "{complete} of {dml}");
}

#[test]
fn pg_21_pg_25_texts_are_cut_where_the_grammar_cuts_them() {
    let (mut all, mut inside) = (0, 0);
    for texts in texts().chunks(40) {
        // The semicolons within these end nothing; the sidecar cuts there, too, and
        // the strictest of the pieces counts.
        let (within, plain): (Vec<_>, Vec<_>) = texts.iter().partition(|text| {
            let text = text.to_ascii_lowercase();
            text.contains("begin atomic") || text.contains(" rule ")
        });
        let together = plain.into_iter().map(|text| format!("{text} /* ; */;\n;"));
        let together = together.collect::<String>();
        let cut = statements(&together).unwrap();
        let analysis = Analysis::of(&together, Dialect::POSTGRES);
        assert_eq!(analysis.statements.len(), cut.len(), "{together}");
        all += cut.len();
        for text in within {
            let cut = statements(text).unwrap().len();
            let analysis = Analysis::of(text, Dialect::POSTGRES);
            assert!(analysis.statements.len() >= cut, "{text}");
            inside += usize::from(analysis.statements.len() > cut);
        }
    }
    println!("{all} statements are cut alike; {inside} have others within");
    assert!(all > 30_000 && inside > 0, "{all} {inside}");
}

/// What the sidecar reads of a statement; `None` for one that is empty.
fn analysis(text: &str) -> Option<Analysis> {
    let analysis = Analysis::of(text, Dialect::POSTGRES);
    (!analysis.statements.is_empty()).then_some(analysis)
}

/// What `analysis` says less of than the grammar; nothing where it says that it
/// does not know.
fn differences(analysis: &Analysis, says: &Says) -> Vec<String> {
    if analysis.class() == Class::Opaque {
        return Vec::new();
    }
    let mut found = Vec::new();
    let Some(class) = says.class else {
        return vec!["is not opaque".to_owned()];
    };
    if analysis.class() < class {
        found.push(format!("{:?} is less than {class:?}", analysis.class()));
    }
    let relations = || analysis.statements.iter().flat_map(|one| &one.relations);
    let with = |access| {
        let with = relations().filter(move |one| one.access == access);
        with.map(|one| one.name.to_string())
            .collect::<BTreeSet<_>>()
    };
    let (writes, reads) = (with(Access::Write), with(Access::Read));
    if writes != says.writes {
        found.push(format!("writes {writes:?}, not {:?}", says.writes));
    }
    if analysis.class() <= Class::Write {
        found.extend(less("reads", &says.reads, &reads));
        // A name that is used before it is given counts as a table, too.
        if !says.is_recursive {
            found.extend(less("does not read", &reads, &says.reads));
        }
    }
    let all = || analysis.statements.iter();
    let verbs = all()
        .flat_map(|one| &one.verbs)
        .map(|verb| (*verb).to_owned());
    let expected: BTreeSet<_> = says.verbs.iter().map(|verb| (*verb).to_owned()).collect();
    found.extend(less("verbs", &expected, &verbs.collect()));
    let functions = all().flat_map(|one| &one.functions);
    let functions = functions.map(|name| name.trim_start_matches("pg_catalog.").to_owned());
    found.extend(less("functions", &says.functions, &functions.collect()));
    let flags = analysis.flags();
    for (name, is, expected) in [
        ("no_where", flags.no_where, says.no_where),
        ("program", flags.program, says.program),
        ("server_file", flags.server_file, says.server_file),
    ] {
        if expected && !is {
            found.push(format!("is not {name}"));
        }
    }
    found
}

fn less(what: &str, expected: &BTreeSet<String>, found: &BTreeSet<String>) -> Option<String> {
    let less: Vec<_> = expected.difference(found).collect();
    (!less.is_empty()).then(|| format!("{what} {less:?}"))
}

/// The statements of all regression tests, each as the grammar takes it.
fn texts() -> Vec<String> {
    let mut texts = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(corpus()).unwrap().collect();
    files.sort_by_key(|file| file.as_ref().unwrap().path());
    for file in files {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = lines(&text);
        let mut at = 0;
        while at < lines.len() {
            match taken(&lines[at..]) {
                Some(count) => {
                    texts.push(lines[at..at + count].concat());
                    at += count;
                }
                // One that the tests mean to be refused.
                None => at += 1,
            }
        }
    }
    texts
}

/// How many of `lines` the grammar takes, the fewest.
fn taken(lines: &[String]) -> Option<usize> {
    let mut text = String::new();
    for (at, line) in lines.iter().take(LINES_MAX).enumerate() {
        text += line;
        let ends = line.contains(';');
        if (ends || at + 1 == lines.len()) && statements(&text).is_some() {
            return Some(at + 1);
        }
    }
    None
}

/// The lines of a file of psql's, without what is meant for psql.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut data = false;
    for line in text.lines() {
        let is_end = line == "\\.";
        if data || is_end {
            data = data && !is_end;
            continue;
        }
        let lower = line.to_ascii_lowercase();
        data = lower.starts_with("copy") && lower.contains("from stdin");
        if line.starts_with('\\') {
            continue;
        }
        let line = line.replace(":'", "'").replace(" :\"", " \"");
        // `\gset` and its like end a statement, too.
        let line = match line.find(" \\g").or_else(|| line.find("\\;")) {
            Some(at) => format!("{};", &line[..at]),
            None => line,
        };
        lines.push(line + "\n");
    }
    lines
}

/// Where the tests of the crate with the grammar are.
fn corpus() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let at = text.find("/pg_raw_parse-").unwrap();
    let start = text[..at].rfind('"').unwrap() + 1;
    let end = at + 1 + text[at + 1..].find('/').unwrap();
    Path::new(&text[start..end]).join("libpg_query/test/sql/postgres_regress")
}
