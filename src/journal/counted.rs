//! What is recorded of executions that have no record of their own.

use std::time::Duration;

use serde::ser::SerializeMap;

use super::chain::hex;
use crate::domain::Timestamp;

/// How many were admitted, and how they ended, since the record before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    admitted: u64,
    /// When the first and the last of them were.
    between: Option<(Timestamp, Timestamp)>,
    /// Those that ended without an error, and that policy lets stand.
    answered: u64,
    /// Those whose end has a record of its own.
    apart: u64,
    /// The rows of those that were answered, where the server said how many.
    rows: Option<u64>,
    /// Time until the answer, of all and of the slowest.
    took: Duration,
    longest: Duration,
}

impl Counted {
    /// One more was admitted.
    pub fn admitted(&mut self, at: Timestamp) {
        self.admitted = self.admitted.saturating_add(1);
        let first = self.between.map_or(at, |(first, _)| first);
        self.between = Some((first, at));
    }

    /// One was answered, `took` after it was admitted.
    pub fn answered(&mut self, rows: Option<u64>, took: Duration) {
        self.answered = self.answered.saturating_add(1);
        if let Some(more) = rows {
            self.rows = Some(self.rows.unwrap_or(0).saturating_add(more));
        }
        self.took = self.took.saturating_add(took);
        self.longest = self.longest.max(took);
    }

    /// The end of one has a record of its own.
    pub fn ended_apart(&mut self) {
        self.apart = self.apart.saturating_add(1);
    }

    /// Whether there is nothing to record.
    pub fn is_empty(&self) -> bool {
        self.admitted == 0 && self.answered == 0 && self.apart == 0
    }

    pub(super) fn write<M: SerializeMap>(
        &self,
        line: &mut M,
        digests: &[u8; 32],
    ) -> Result<(), M::Error> {
        line.serialize_entry("admitted", &self.admitted)?;
        if let Some((first, last)) = self.between {
            line.serialize_entry("first_ns", &first.0)?;
            line.serialize_entry("last_ns", &last.0)?;
            line.serialize_entry("statements_sha256", &hex(digests))?;
        }
        line.serialize_entry("answered", &self.answered)?;
        line.serialize_entry("ended_apart", &self.apart)?;
        if let Some(rows) = self.rows {
            line.serialize_entry("rows", &rows)?;
        }
        line.serialize_entry("took_us", &super::record::micros(self.took))?;
        line.serialize_entry("longest_us", &super::record::micros(self.longest))
    }
}
