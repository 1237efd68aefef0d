//! What CONSTRAIN asks of an execution, and what this protocol does about it.
//!
//! - `max_rows:N`: no more than so many rows of a query reach the client. Applied
//!   where a driver executes a prepared `SELECT`: the server is asked for no more,
//!   and that there were more looks like the end. A simple `Query` has no place
//!   for a number of rows, and what `FETCH` and `EXECUTE` bring is theirs to say:
//!   there the rows behind the last are left out as they come.
//! - `read_only`: holds for a text that only reads and calls no function; it is
//!   contradicted by one that changes something or is not understood. Of a session
//!   that starts, its transactions only read unless they are told otherwise.
//! - `statement_timeout:MS`, `lock_timeout:MS`: of a session that starts.
//!
//! Everything else is recorded, or refused where constraints are enforced.

use std::time::Duration;

use bytes::Bytes;

use crate::gate::{Permit, Terms, Unanswered};
use crate::protocols::sql::{Class, Statement};

use super::conversation::Kind;
use super::statement::Text;

const READ_ONLY: &str = "read_only";
const MAX_ROWS: &str = "max_rows:";
/// Constraints of a session, in milliseconds, by the names of the server's settings.
const SESSION_TIMEOUTS: [&str; 2] = ["statement_timeout", "lock_timeout"];

/// What this protocol brings to a decision about `text`, sent as `kind`.
pub(super) fn terms(kind: &Kind, text: &Text, hold_within: Duration) -> Terms {
    let (class, reads) = class(text);
    let contradicts: fn(&str) -> bool = if class > Class::Read {
        |name| name == READ_ONLY
    } else {
        |_| false
    };
    let limited = has_row_limit(kind, text) || has_row_cut(kind, text);
    let applies: fn(&str) -> bool = match (reads, limited) {
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

/// Whether rows may be left out of its answer: one text that only brings rows.
fn has_row_cut(kind: &Kind, text: &Text) -> bool {
    const BRING_ROWS: [&str; 3] = ["SELECT", "FETCH", "EXECUTE"];
    let statements = text.analysis.as_ref().map(|found| &*found.statements);
    let Some([one]) = statements.filter(|_| !text.is_opaque()) else {
        return false;
    };
    matches!(kind, Kind::Query | Kind::Execute(_))
        && one.class == Class::Read
        && one.verbs.contains(&"SELECT")
        && one.verbs.iter().all(|verb| BRING_ROWS.contains(verb))
}

/// What a session is to start with for the sake of `name`.
pub(super) fn session_setting(name: &str) -> Option<(&'static str, String)> {
    if name == READ_ONLY {
        return Some(("default_transaction_read_only", "on".to_owned()));
    }
    let (setting, value) = name.split_once(':')?;
    let setting = SESSION_TIMEOUTS.into_iter().find(|one| *one == setting)?;
    let milliseconds: u32 = value.trim().parse().ok()?;
    // The server's number is signed, and none means no limit.
    (1..=i32::MAX.unsigned_abs())
        .contains(&milliseconds)
        .then(|| (setting, milliseconds.to_string()))
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

/// The rows of `text` that `permit` lets through, where the server is not asked
/// for fewer.
pub(super) fn row_cut(permit: &Permit, kind: &Kind, text: &Text) -> Option<RowCut> {
    if has_row_limit(kind, text) || !has_row_cut(kind, text) {
        return None;
    }
    let asked = permit.constraints().iter().filter_map(|name| rows(name));
    asked.min().map(RowCut::new)
}

/// Which rows of an answer are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowCut {
    left: u32,
    /// Of the answer under way.
    passed: u32,
    cut: bool,
}

impl RowCut {
    fn new(left: u32) -> Self {
        Self {
            left,
            passed: 0,
            cut: false,
        }
    }

    /// Whether the row that comes now is left out.
    pub(super) fn leaves_out(&mut self) -> bool {
        self.cut = self.left == 0;
        if !self.cut {
            self.left = self.left.saturating_sub(1);
            self.passed = self.passed.saturating_add(1);
        }
        self.cut
    }

    /// What comes next is another part of the same rows.
    pub(super) fn goes_on(&mut self) {
        self.passed = 0;
    }

    /// `tag` as if the rows had ended with the last that passed, where some did not.
    pub(super) fn complete(&self, tag: &[u8]) -> Option<Bytes> {
        let end = tag.iter().rposition(|byte| *byte == b' ')?;
        let words = tag.get(..end).filter(|_| self.cut)?;
        let rows = self.passed.to_string();
        Some([words, b" ", rows.as_bytes(), b"\0"].concat().into())
    }
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
    fn c_9_what_a_session_starts_with_is_what_its_server_takes() {
        for (name, expected) in [
            ("read_only", Some(("default_transaction_read_only", "on"))),
            ("statement_timeout:50", Some(("statement_timeout", "50"))),
            ("lock_timeout: 7", Some(("lock_timeout", "7"))),
            ("statement_timeout:0", None),
            ("statement_timeout:2147483648", None),
            ("statement_timeout:5s", None),
            ("statement_timeout", None),
            ("search_path:1", None),
        ] {
            let found = session_setting(name);
            let found = found.as_ref().map(|(name, value)| (*name, value.as_str()));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn c_9_rows_behind_the_last_are_left_out_and_not_counted() {
        let mut cut = RowCut::new(3);
        assert!(!cut.leaves_out() && !cut.leaves_out());
        assert_eq!(cut.complete(b"SELECT 2\0"), None);
        cut.goes_on();
        assert!(!cut.leaves_out() && cut.leaves_out() && cut.leaves_out());
        assert_eq!(cut.complete(b"SELECT 3\0").unwrap(), &b"SELECT 1\0"[..]);
        assert_eq!(cut.complete(b"SHOW\0"), None);
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
