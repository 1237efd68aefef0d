//! What CONSTRAIN asks of an execution, and what this protocol does about it.
//!
//! - `max_rows:N`: no more than so many rows of each result of a `SELECT` reach
//!   the client; the others are dropped here, and the end of the result follows.
//! - `read_only`: holds for a text that only reads and calls no function; it is
//!   contradicted by one that changes something or is not understood.
//!
//! Of a session that begins (`mysql.sessions: judge`) they hold for all of it: no more rows of
//! any result come, whatever the text is that has it, but for those that tell of the server
//! and of what is in it (`SHOW`, `EXPLAIN`, …); and its transactions only read until it sets
//! something else. There `max_execution_time:MS` applies, too: of a `SELECT` with MySQL, of any
//! statement with MariaDB, until the session sets another or a statement's hint names one,
//! which policy is told.
//!
//! Everything else is recorded, or refused where constraints are enforced.

use std::time::Duration;

use crate::gate::{Permit, Terms, Unanswered};
use crate::protocols::sql::{Class, Statement};

use super::capability::Flavour;
use super::statement::Text;

const READ_ONLY: &str = "read_only";
const MAX_ROWS: &str = "max_rows:";
const MAX_TIME: &str = "max_execution_time:";

/// What this protocol brings to a decision about `text`.
pub(super) fn terms(text: &Text, hold_within: Duration) -> Terms {
    let contradicts: fn(&str) -> bool = match text.class() > Class::Read {
        true => |name| name == READ_ONLY,
        false => |_| false,
    };
    let applies: fn(&str) -> bool = match (only_reads(text), selects(text)) {
        (true, true) => |name| name == READ_ONLY || rows(name).is_some(),
        (true, false) => |name| name == READ_ONLY,
        (false, true) => |name| rows(name).is_some(),
        (false, false) => |_| false,
    };
    Terms {
        hold_within,
        unanswered: Unanswered::AsSet,
        applies,
        contradicts,
        replaces: |_| false,
    }
}

/// What it brings to a decision about a session.
pub(super) fn terms_of_session(hold_within: Duration) -> Terms {
    Terms {
        hold_within,
        unanswered: Unanswered::AsSet,
        applies: |name| name == READ_ONLY || rows(name).is_some() || milliseconds(name).is_some(),
        contradicts: |_| false,
        replaces: |_| false,
    }
}

/// The statement that sets on a session what `constraints` ask of it.
pub(super) fn of_session(constraints: &[Box<str>], server: Flavour) -> Option<String> {
    let mut all = Vec::new();
    if constraints.iter().any(|name| &**name == READ_ONLY) {
        all.push(match server {
            Flavour::Mariadb => "tx_read_only = 1".to_owned(),
            Flavour::Mysql => "transaction_read_only = 1".to_owned(),
        });
    }
    if let Some(rows) = rows_of_session(constraints) {
        all.push(format!("sql_select_limit = {rows}"));
    }
    let times = constraints.iter().filter_map(|name| milliseconds(name));
    if let Some(milliseconds) = times.min() {
        all.push(match server {
            Flavour::Mariadb => {
                let time = Duration::from_millis(milliseconds.into());
                let (whole, part) = (time.as_secs(), time.subsec_millis());
                format!("max_statement_time = {whole}.{part:03}")
            }
            Flavour::Mysql => format!("max_execution_time = {milliseconds}"),
        });
    }
    (!all.is_empty()).then(|| format!("SET SESSION {}", all.join(", ")))
}

/// The time of a `max_execution_time:MS`; none would mean no limit.
fn milliseconds(name: &str) -> Option<u32> {
    let milliseconds = name.strip_prefix(MAX_TIME)?.trim().parse().ok()?;
    (milliseconds > 0).then_some(milliseconds)
}

/// Whether it is sure to change nothing.
fn only_reads(text: &Text) -> bool {
    let calls = |one: &Statement| !one.functions.is_empty();
    let analysis = text.analysis.as_ref();
    text.class() <= Class::Read
        && analysis.is_some_and(|analysis| !analysis.statements.iter().any(calls))
}

/// Whether all it does is to query: then its rows can be counted.
fn selects(text: &Text) -> bool {
    let analysis = text.analysis.as_ref();
    text.class() == Class::Read
        && analysis.is_some_and(|analysis| {
            let mut all = analysis.statements.iter();
            all.all(|one| one.verbs == ["SELECT"])
        })
}

/// The rows of a `max_rows:N`.
fn rows(name: &str) -> Option<u64> {
    let rows = name.strip_prefix(MAX_ROWS)?.trim().parse().ok()?;
    (rows > 0).then_some(rows)
}

/// The rows of a result that `constraints` leave to a session.
pub(super) fn rows_of_session(constraints: &[Box<str>]) -> Option<u64> {
    constraints.iter().filter_map(|name| rows(name)).min()
}

/// The rows of a result that `permit`, and a session which `most` are left to, leave to an
/// execution of `text`.
pub(super) fn row_limit(permit: &Permit, most: Option<u64>, text: &Text) -> Option<u64> {
    let asked = permit.constraints().iter().filter_map(|name| rows(name));
    let asked = asked.filter(|_| selects(text));
    asked.chain(most.filter(|_| !only_tells(text))).min()
}

/// Whether all its rows are of the server and of what is in it, and none of a table's. All
/// others may be: what calls, what changes and returns, what nobody has read.
fn only_tells(text: &Text) -> bool {
    const TELLS: [&str; 9] = [
        "SHOW", "EXPLAIN", "DESCRIBE", "ANALYZE", "CHECK", "CHECKSUM", "OPTIMIZE", "REPAIR", "HELP",
    ];
    let of_them = |one: &Statement| one.verbs.first().is_some_and(|verb| TELLS.contains(verb));
    let analysis = text.analysis.as_ref().filter(|_| !text.is_opaque());
    analysis.is_some_and(|analysis| analysis.statements.iter().all(of_them))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_9_a_session_is_limited_in_the_words_of_its_server() {
        let of = |names: &[&str], server| {
            let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
            of_session(&names, server).unwrap_or_default()
        };
        let all = [
            "max_rows:7",
            "read_only",
            "max_execution_time:1005",
            "max_rows:9",
        ];
        for (names, mariadb, mysql) in [
            (
                &all[..],
                "SET SESSION tx_read_only = 1, sql_select_limit = 7, max_statement_time = 1.005",
                "SET SESSION transaction_read_only = 1, sql_select_limit = 7, max_execution_time = 1005",
            ),
            (&["max_execution_time:0", "max_rows:x", "other"], "", ""),
            (
                &["max_rows: 5"],
                "SET SESSION sql_select_limit = 5",
                "SET SESSION sql_select_limit = 5",
            ),
        ] {
            assert_eq!(of(names, Flavour::Mariadb), mariadb);
            assert_eq!(of(names, Flavour::Mysql), mysql);
        }
    }
}
