//! An admitted execution, from its permit to its one completion.

use crate::domain::{Answer, Completion, DatabaseAnswer, Outcome};
use crate::gate::Permit;
use crate::process::clock;

use super::super::wire::Fields;

/// An admitted execution, and what is known of how it goes.
#[derive(Debug)]
pub(super) struct Running {
    permit: Permit,
    rows: Option<u64>,
    error: Option<Box<str>>,
}

impl Running {
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            permit,
            rows: None,
            error: None,
        }
    }

    pub(super) fn counted(&mut self, rows: Option<u64>) {
        if let Some(more) = rows {
            self.rows = Some(self.rows.unwrap_or(0).saturating_add(more));
        }
    }

    pub(super) fn failed(&mut self, fields: &Fields) {
        let text = masked(&fields.text);
        let text = format!("SQLSTATE {}: {text}", fields.code);
        self.error.get_or_insert(text.into());
    }

    pub(super) fn settle(self, outcome: Outcome) {
        let rows = self.rows;
        self.permit.report(Completion {
            ended_at: clock::now(),
            outcome,
            answer: (outcome == Outcome::Answered)
                .then_some(Answer::Database(DatabaseAnswer { rows })),
            error: self.error,
        });
    }

    pub(super) fn skipped(mut self) {
        self.error
            .get_or_insert("skipped: an earlier statement of its batch failed".into());
        self.settle(Outcome::Abandoned);
    }

    pub(super) fn lost(mut self) {
        self.error
            .get_or_insert("the server ended the connection".into());
        self.settle(Outcome::Failed);
    }
}

/// A message of the server without what somebody wrote: values stand in quotes.
fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    for (at, part) in text.split('"').enumerate() {
        if at > 0 {
            masked.push('"');
        }
        // Names stand in pairs of quotes, and so do values.
        masked.push_str(if at % 2 == 0 { part } else { "…" });
    }
    masked
}
