//! A real PostgreSQL says whether what is read from a text is true: where its
//! statements end, and which tables it reads and changes.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use openbox_sidecar::protocols::sql::{Access, Analysis, Class, Dialect};
use support::postgres::{Client, Server};

/// Random numbers, the same at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

#[test]
fn pg_21_pg_25_texts_are_cut_where_the_server_cuts_them() {
    let server = Server::start();
    let pieces = [
        "SELECT 1",
        "SELECT 1",
        "SELECT ",
        ";SELECT 2;",
        "; ",
        ";",
        ";\n",
        "'",
        "'",
        "''",
        "\"",
        "\\",
        "\\'",
        "E'",
        "U&'",
        "B'1'",
        "$$",
        "$a$",
        "$1",
        "/*",
        "*/",
        "/* ; */",
        "--",
        "-- ;\n",
        "\n",
        " ",
        "AS x",
        "||",
        "a$$",
        "'a'",
        "\r",
    ];
    for conforming in [true, false] {
        let mut client = Client::connect(server.port, &[("user", "postgres")]);
        let setting = if conforming { "on" } else { "off" };
        client.query(&format!("SET standard_conforming_strings = {setting}"));
        let dialect = Dialect::Postgres {
            standard_conforming_strings: conforming,
        };
        let (mut dice, mut accepted, mut several) = (Dice(3), 0, 0);
        for _ in 0..12_000 {
            let mut text = "SELECT '".to_owned();
            for _ in 0..=dice.below(9) {
                text += dice.pick(&pieces);
            }
            let answer = client.query(&text);
            // What the server refuses it may refuse after the first statements.
            if answer.iter().any(|message| message.tag == 'E') {
                continue;
            }
            let executed = answer.iter().filter(|message| message.tag == 'C').count();
            let analysis = Analysis::of(&text, dialect);
            assert_eq!(analysis.statements.len(), executed, "{text:?}");
            assert_ne!(analysis.class(), Class::Session, "{text:?}");
            accepted += 1;
            several += usize::from(executed > 1);
        }
        assert!(accepted > 300 && several > 30, "{accepted} {several}");
    }
}

const TABLES: &str = "
    CREATE TABLE a (id int PRIMARY KEY, x int, y text);
    CREATE TABLE b (id int PRIMARY KEY, x int, y text);
    CREATE TABLE c (id int PRIMARY KEY, x int, y text);
    CREATE TABLE d (id int PRIMARY KEY, x int, y text);
    CREATE SCHEMA s; CREATE TABLE s.e (id int PRIMARY KEY, x int, y text);
    CREATE TABLE \"My\" (id int PRIMARY KEY, x int, y text)";

/// The tables that the server locks to read (false) and to change (true).
fn locked(client: &mut Client, statement: &str) -> Option<BTreeSet<(String, bool)>> {
    client.query("BEGIN");
    let answer = client.query(&format!("PREPARE oracle AS {statement}"));
    let refused = answer.iter().find(|message| message.tag == 'E');
    let locks = match refused {
        Some(_) => None,
        None => Some(client.rows(
            "SELECT DISTINCT ltrim(n.nspname || '.', 'public.') || c.relname, l.mode
             FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND c.oid >= 16384",
        )),
    };
    client.query("ROLLBACK");
    client.query("DEALLOCATE ALL");
    let locks = locks?.into_iter();
    Some(
        locks
            .map(|lock| (lock[0].clone(), lock[1] == "RowExclusiveLock"))
            .collect(),
    )
}

fn named(analysis: &Analysis) -> BTreeSet<(String, bool)> {
    let relations = analysis.statements.iter().flat_map(|one| &one.relations);
    relations
        .map(|relation| {
            let name = relation.name.trim_start_matches("public.");
            (name.to_owned(), relation.access == Access::Write)
        })
        .collect()
}

/// Writes statements that the server accepts, and some that it does not.
struct Writer {
    dice: Dice,
    depth: usize,
}

impl Writer {
    fn table(&mut self) -> &'static str {
        self.dice.pick(&[
            "a", "b", "c", "d", "s.e", "public.a", "\"My\"", "A", "\"b\"",
        ])
    }

    fn value(&mut self) -> String {
        if self.depth > 3 {
            return "1".to_owned();
        }
        self.depth += 1;
        let value = match self.dice.below(9) {
            0 => format!("(SELECT max(x) FROM {})", self.table()),
            1 => format!(
                "(SELECT count(*) FROM {} q WHERE q.x > {})::int",
                self.items(),
                self.value()
            ),
            2 => format!(
                "CASE WHEN EXISTS ({}) THEN 1 ELSE {} END",
                self.query(),
                self.value()
            ),
            3 => format!("coalesce({}, 2)", self.value()),
            4 => "extract(year FROM now())::int".to_owned(),
            5 => format!("(ARRAY(SELECT x FROM {}))[1]", self.table()),
            6 => "('/* FROM d */' || $$ FROM c $$)::varchar(9)::int".to_owned(),
            7 => format!("(1 IS DISTINCT FROM {})::int", self.value()),
            _ => "length(trim(both ' ' FROM 'x'))".to_owned(),
        };
        self.depth -= 1;
        value
    }

    /// One thing to select from, without alias.
    fn items(&mut self) -> String {
        if self.depth > 3 {
            return self.table().to_owned();
        }
        self.depth += 1;
        let items = match self.dice.below(8) {
            0 => format!("({})", self.query()),
            1 => format!("ONLY {}", self.table()),
            2 => format!("ONLY ({})", self.table()),
            3 => format!(
                "(SELECT l.x FROM {} l JOIN {} r ON l.x = CASE WHEN true THEN {} END, {} z)",
                self.items(),
                self.items(),
                self.value(),
                self.table()
            ),
            4 => format!("LATERAL (SELECT {} AS x)", self.value()),
            5 => format!("generate_series(1, {})", self.value()),
            _ => self.table().to_owned(),
        };
        self.depth -= 1;
        items
    }

    fn query(&mut self) -> String {
        self.depth += 1;
        let query = match self.dice.below(7) {
            0 => format!(
                "SELECT x FROM {} UNION ALL (SELECT 1 FROM {})",
                self.table(),
                self.table()
            ),
            1 => format!(
                "WITH w AS (SELECT x FROM {}), a AS (SELECT 1 AS x FROM a) SELECT w.x FROM w, a, {} n",
                self.table(),
                self.items()
            ),
            2 => format!(
                "SELECT n.x AS from FROM {} n CROSS JOIN ({} m NATURAL JOIN {} k) WHERE {} > 0 ORDER BY 1",
                self.items(),
                self.table(),
                self.table(),
                self.value()
            ),
            3 => format!("VALUES ({}), (2)", self.value()),
            4 => format!(
                "SELECT n.x FROM {} n JOIN {} m USING (x) GROUP BY n.x HAVING count(*) > {} LIMIT 3 OFFSET 0",
                self.items(),
                self.table(),
                self.value()
            ),
            5 => format!(
                "SELECT DISTINCT ON (n.x) n.x FROM ROWS FROM (generate_series(1, 2), lower('x')) AS n(x, t), {} m",
                self.items()
            ),
            _ => format!("SELECT {} AS x", self.value()),
        };
        self.depth -= 1;
        query
    }

    fn statement(&mut self) -> String {
        let (table, value, query) = (self.table(), self.value(), self.query());
        match self.dice.below(9) {
            0 => format!(
                "INSERT INTO {table} (id, x) SELECT 1, q.x::int FROM ({query}) q(x), {} z ON CONFLICT (id) DO UPDATE SET x = 1, y = {value}",
                self.table()
            ),
            1 => format!("INSERT INTO {table} AS t (id) ({query}) RETURNING {value}, id"),
            2 => format!(
                "UPDATE {table} AS t SET x = {value}, y = 'FROM d' FROM {} q, {} r WHERE true",
                self.items(),
                self.table()
            ),
            3 => format!(
                "DELETE FROM ONLY {table} USING {} q WHERE {value} > 1 RETURNING 1",
                self.items()
            ),
            4 => format!(
                "WITH n AS (DELETE FROM {table} RETURNING id), m AS (INSERT INTO {} (id) VALUES (1) RETURNING *) SELECT {value} FROM n, m, {} o",
                self.table(),
                self.table()
            ),
            5 => format!(
                "MERGE INTO {table} t USING ({query}) q(x) ON t.x = q.x::int WHEN MATCHED AND {value} > 1 THEN UPDATE SET y = 'a' WHEN NOT MATCHED THEN INSERT (id, x) VALUES (1, 2)"
            ),
            6 => format!(
                "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT r.x + 1 FROM r, {table} u WHERE r.x < 3) INSERT INTO {} (id) SELECT x FROM r",
                self.table()
            ),
            _ => query,
        }
    }
}

#[test]
fn the_tables_read_and_changed_are_those_that_the_server_locks() {
    let server = Server::start();
    let mut client = Client::connect(server.port, &[("user", "postgres")]);
    client.query(TABLES);
    let mut writer = Writer {
        dice: Dice(5),
        depth: 0,
    };
    let (mut accepted, mut understood) = (0, 0);
    for _ in 0..3_000 {
        let statement = writer.statement();
        let Some(locks) = locked(&mut client, &statement) else {
            continue;
        };
        accepted += 1;
        let analysis = Analysis::of(&statement, Dialect::POSTGRES);
        if analysis.class() == Class::Opaque {
            continue;
        }
        understood += 1;
        assert_eq!(named(&analysis), locks, "{statement}");
    }
    println!("{understood} of {accepted} statements understood");
    assert!(accepted > 1_000, "{accepted}");
    // Opaque is safe, and useless when it is everything.
    assert!(
        understood * 100 >= accepted * 97,
        "{understood} of {accepted}"
    );
}
