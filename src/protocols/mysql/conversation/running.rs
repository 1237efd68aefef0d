//! An admitted execution, from its permit to its one completion.

use crate::domain::{Answer, Completion, DatabaseAnswer, Outcome};
use crate::gate::Permit;
use crate::process::clock;

use super::super::answer::ServerError;

/// An admitted execution, and what is known of how it goes.
#[derive(Debug)]
pub(super) struct Running {
    permit: Permit,
    error: Option<Box<str>>,
}

impl Running {
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            permit,
            error: None,
        }
    }

    /// The server has answered, with so many rows or an error.
    pub(super) fn answered(mut self, rows: Option<u64>, error: Option<&ServerError>) {
        if let Some(ServerError { code, state, text }) = error {
            let text = masked(text);
            let error = format!("error {code} (SQLSTATE {state}): {text}");
            self.error.get_or_insert(error.into());
        }
        self.settle(Outcome::Answered, rows);
    }

    /// It went wrong for this reason, whatever the server says.
    pub(super) fn failed(&mut self, why: &str) {
        self.error.get_or_insert(why.into());
    }

    pub(super) fn lost(self) {
        self.stayed("the server ended the connection");
    }

    /// It has not run, or nobody knows how it went.
    pub(super) fn stayed(mut self, why: &str) {
        self.failed(why);
        self.settle(Outcome::Failed, None);
    }

    fn settle(self, outcome: Outcome, rows: Option<u64>) {
        self.permit.report(Completion {
            ended_at: clock::now(),
            outcome,
            answer: (outcome == Outcome::Answered)
                .then_some(Answer::Database(DatabaseAnswer { rows })),
            error: self.error,
        });
    }
}

/// A message of the server without what somebody wrote: everything from the
/// first quote to the last is left out.
fn masked(text: &str) -> String {
    const QUOTES: [char; 3] = ['\'', '"', '`'];
    let Some(first) = text.find(QUOTES) else {
        return text.to_owned();
    };
    let last = text.rfind(QUOTES).filter(|last| *last > first);
    let behind = last.and_then(|last| text.get(last..)).unwrap_or_default();
    let before = text.get(..first).unwrap_or_default();
    format!("{before}'…'{}", behind.trim_start_matches(QUOTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_7_values_in_the_messages_of_errors_are_left_out() {
        for (text, expected) in [
            ("Division by 0", "Division by 0"),
            (
                "Duplicate entry 'it's a secret' for key 'x'",
                "Duplicate entry '…'",
            ),
            ("near 'secret", "near '…'"),
            ("Table 'a.b' doesn't exist", "Table '…'t exist"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }
}
