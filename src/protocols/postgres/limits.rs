//! What CONSTRAIN asks of an execution, and what this protocol does about it.
//!
//! - `max_rows:N`: no more than so many rows of a query reach the client. Applied
//!   where a driver executes a prepared `SELECT`: the server is asked for no more,
//!   and that there were more looks like the end. A simple `Query` has no place
//!   for a number of rows, and its text is not rewritten.
//! - `read_only`: holds for a text that only reads and calls no function; it is
//!   contradicted by one that changes something or is not understood.
//!
//! Everything else is recorded, or refused where constraints are enforced.

use std::time::Duration;

use bytes::Bytes;

use crate::gate::{Permit, Terms};
use crate::protocols::sql::{Class, Statement};

use super::conversation::Kind;
use super::statement::Text;

const READ_ONLY: &str = "read_only";
const MAX_ROWS: &str = "max_rows:";

/// What this protocol brings to a decision about `text`, sent as `kind`.
pub(super) fn terms(kind: &Kind, text: &Text, hold_within: Duration) -> Terms {
    let (class, reads) = class(text);
    let contradicts: fn(&str) -> bool = if class > Class::Read {
        |name| name == READ_ONLY
    } else {
        |_| false
    };
    let applies: fn(&str) -> bool = match (reads, has_row_limit(kind, text)) {
        (true, true) => |name| name == READ_ONLY || rows(name).is_some(),
        (true, false) => |name| name == READ_ONLY,
        (false, true) => |name| rows(name).is_some(),
        (false, false) => |_| false,
    };
    Terms {
        hold_within,
        applies,
        contradicts,
    }
}

/// The class of `text`, and whether it is sure to change nothing.
fn class(text: &Text) -> (Class, bool) {
    let known = text.analysis.as_ref().filter(|_| !text.is_opaque());
    let Some(analysis) = known else {
        return (Class::Opaque, false);
    };
    let class = analysis.class();
    let calls = |one: &Statement| !one.functions.is_empty();
    let reads = class <= Class::Read && !analysis.statements.iter().any(calls);
    (class, reads)
}

/// Whether the server can be asked for so many rows and no more: one `SELECT`,
/// whose answer is known to end with `SELECT n`.
fn has_row_limit(kind: &Kind, text: &Text) -> bool {
    let statements = text.analysis.as_ref().map(|found| &*found.statements);
    matches!(kind, Kind::Execute(_) | Kind::Bind(_) | Kind::Parse(_))
        && !text.is_opaque()
        && matches!(statements, Some([one]) if one.class == Class::Read && one.verbs == ["SELECT"])
}

/// The rows of a `max_rows:N`.
fn rows(name: &str) -> Option<u32> {
    let rows = name.strip_prefix(MAX_ROWS)?.trim().parse().ok()?;
    // The protocol's number is signed, and none means all.
    (1..=i32::MAX.unsigned_abs())
        .contains(&rows)
        .then_some(rows)
}

/// The rows that `permit` leaves to an execution of `text`.
pub(super) fn row_limit(permit: &Permit, kind: &Kind, text: &Text) -> Option<RowLimit> {
    let asked = permit.constraints().iter().filter_map(|name| rows(name));
    let left = asked.min().filter(|_| has_row_limit(kind, text))?;
    Some(RowLimit { left, asked: 0 })
}

/// How many rows an execution may still bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowLimit {
    left: u32,
    /// By the `Execute` under way.
    asked: u32,
}

impl RowLimit {
    /// `execute` with no more rows than are left.
    pub(super) fn fit(&mut self, execute: &Bytes) -> Bytes {
        let Some((front, last)) = execute.split_last_chunk::<4>() else {
            return execute.clone();
        };
        let wanted = u32::try_from(i32::from_be_bytes(*last)).unwrap_or(0);
        self.asked = match wanted {
            0 => self.left,
            some => some.min(self.left),
        };
        [front, &self.asked.to_be_bytes()].concat().into()
    }

    /// The `Execute` under way brought all it asked for. What that were, where no
    /// more may come.
    pub(super) fn reached(&mut self) -> Option<u32> {
        self.left = self.left.saturating_sub(self.asked);
        (self.left == 0).then_some(self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_9_a_row_limit_is_a_number_that_the_protocol_has() {
        for (name, expected) in [
            ("max_rows:10", Some(10)),
            ("max_rows: 10", Some(10)),
            ("max_rows:2147483647", Some(2_147_483_647)),
            ("max_rows:2147483648", None),
            ("max_rows:0", None),
            ("max_rows:-1", None),
            ("max_rows:", None),
            ("max_rows", None),
            ("read_only", None),
        ] {
            assert_eq!(rows(name), expected, "{name}");
        }
    }

    #[test]
    fn c_9_rows_are_counted_over_all_parts_of_a_portal() {
        let execute =
            |rows: u32| Bytes::from([&b"E\0\0\0\x09\0"[..], &rows.to_be_bytes()[..]].concat());
        let mut limit = RowLimit { left: 5, asked: 0 };
        for (wanted, sent, reached) in [(2, 2, None), (2, 2, None), (0, 1, Some(1))] {
            assert_eq!(limit.fit(&execute(wanted)), execute(sent));
            assert_eq!(limit.reached(), reached, "{wanted}");
        }
        let mut whole = RowLimit { left: 5, asked: 0 };
        assert_eq!(
            whole.fit(&execute(u32::MAX)),
            execute(5),
            "less than none is all"
        );
        assert_eq!(whole.reached(), Some(5));
    }
}
