//! What CONSTRAIN asks of an execution, and what this protocol does about it.
//!
//! - `max_rows:N`: no more than so many rows of each result of a `SELECT` reach
//!   the client; the others are dropped here, and the end of the result follows.
//! - `read_only`: holds for a text that only reads and calls no function; it is
//!   contradicted by one that changes something or is not understood.
//!
//! Everything else is recorded, or refused where constraints are enforced.

use std::time::Duration;

use crate::gate::{Permit, Terms, Unanswered};
use crate::protocols::sql::{Class, Statement};

use super::statement::Text;

const READ_ONLY: &str = "read_only";
const MAX_ROWS: &str = "max_rows:";

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
    }
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

/// The rows of a result that `permit` leaves to an execution of `text`.
pub(super) fn row_limit(permit: &Permit, text: &Text) -> Option<u64> {
    let asked = permit.constraints().iter().filter_map(|name| rows(name));
    asked.min().filter(|_| selects(text))
}
