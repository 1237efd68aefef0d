//! An admitted execution, from its permit to its one completion.

use std::collections::VecDeque;

use crate::domain::{Answer, Completion, DatabaseAnswer, Outcome};
use crate::gate::Permit;
use crate::process::clock;

use super::super::limits::{RowCut, RowLimit};
use super::super::wire::{Fields, TEXT_CHARS_MAX};
use super::named::Change;

/// An admitted execution, and what is known of how it goes.
#[derive(Debug)]
pub(super) struct Running {
    permit: Permit,
    rows: Option<u64>,
    error: Option<Box<str>>,
    /// What CONSTRAIN leaves it.
    pub(super) limit: Option<RowLimit>,
    /// The same where rows are left out of its answer.
    pub(super) cut: Option<RowCut>,
    /// Its data has ended already, with so many `Sync`s sent before.
    pub(super) data_ended: Option<usize>,
    /// What it does to names, as far as the server has not done it.
    pub(super) changes: Option<VecDeque<Change>>,
}

impl Running {
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            permit,
            rows: None,
            error: None,
            limit: None,
            cut: None,
            data_ended: None,
            changes: None,
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

/// A message of the server without what somebody wrote. Names and values stand in
/// quotes, in those of its language; a value may have quotes of its own, so
/// everything from the first to the last is left out.
fn masked(text: &str) -> String {
    const QUOTES: [char; 11] = ['"', '\'', '`', '«', '»', '„', '“', '”', '‚', '‘', '’'];
    let Some(first) = text.find(QUOTES) else {
        return text.to_owned();
    };
    let last = text.rfind(QUOTES).filter(|last| *last > first);
    // What does not end was cut.
    let behind = last.filter(|_| text.chars().count() < TEXT_CHARS_MAX);
    let behind = behind.and_then(|last| text.get(last..)).unwrap_or_default();
    let before = text.get(..first).unwrap_or_default();
    let behind = behind.trim_start_matches(QUOTES);
    format!("{before}\"…\"{behind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_the_messages_of_errors_are_left_out_whatever_their_quotes() {
        let cut = format!("{:x<500}", "bad: \"a\" secret");
        for (text, expected) in [
            ("division by zero", "division by zero"),
            (
                "relation \"orders\" does not exist",
                "relation \"…\" does not exist",
            ),
            (
                "invalid input syntax: \"a\" secret \"b\"",
                "invalid input syntax: \"…\"",
            ),
            (
                "ungültige Eingabe: „secret“ hier",
                "ungültige Eingabe: \"…\" hier",
            ),
            ("syntaxe invalide : « secret »", "syntaxe invalide : \"…\""),
            ("it's over", "it\"…\""),
            (&cut, "bad: \"…\""),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }
}
