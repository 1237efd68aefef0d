//! What it costs to understand a statement: one that was seen before, one that
//! differs from another in its literals only, and one that is new altogether.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that goes wrong must stop"
)]

use std::cell::Cell;

use divan::Bencher;
use openbox_sidecar::protocols::sql::{Analyses, Analysis, Dialect};

/// As applications send them; `{}` is a number that is another each time.
const STATEMENTS: [(&str, &str); 6] = [
    ("select 1", "SELECT {}"),
    (
        "point select",
        "SELECT abalance FROM pgbench_accounts WHERE aid = {};",
    ),
    (
        "update",
        "UPDATE pgbench_accounts SET abalance = abalance + 17 WHERE aid = {};",
    ),
    (
        "insert",
        "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 2, {}, 4, CURRENT_TIMESTAMP);",
    ),
    (
        "join",
        "SELECT o.id, o.total, c.name, p.title FROM orders o JOIN customers c ON c.id = o.customer_id \
         LEFT JOIN products p ON p.id = o.product_id WHERE o.created_at > '2026-01-01' AND o.total > {} \
         AND c.region IN ('north', 'south') ORDER BY o.created_at DESC LIMIT 50 OFFSET 10",
    ),
    ("in 10 kB", "SELECT id FROM t WHERE id IN ({}, @)"),
];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn names() -> impl Iterator<Item = &'static str> {
    STATEMENTS.iter().map(|(name, _)| *name)
}

fn template(name: &str) -> String {
    let (_, text) = STATEMENTS.iter().find(|(known, _)| *known == name).unwrap();
    text.replace('@', &vec!["1234567"; 1_100].join(", "))
}

/// Seen before, in these very words.
#[divan::bench(args = names())]
fn known(bencher: Bencher<'_, '_>, name: &str) {
    let known = Analyses::new(16 << 20);
    let text = template(name).replace("{}", "7");
    bencher.bench_local(|| known.of(&text, Dialect::POSTGRES));
}

/// Seen before with another number.
#[divan::bench(args = names())]
fn alike(bencher: Bencher<'_, '_>, name: &str) {
    let known = Analyses::new(16 << 20);
    let (template, next) = (template(name), Cell::new(1_000_000_u32));
    bencher
        .with_inputs(|| {
            next.set(next.get().wrapping_add(1));
            template.replace("{}", &next.get().to_string())
        })
        .bench_local_refs(|text| known.of(text, Dialect::POSTGRES));
}

/// Never seen before.
#[divan::bench(args = names())]
fn new(bencher: Bencher<'_, '_>, name: &str) {
    let text = template(name).replace("{}", "7");
    bencher.bench_local(|| Analysis::of(&text, Dialect::POSTGRES));
}
