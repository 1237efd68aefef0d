//! Between the server that has let somebody in and the client that is told so:
//! policy is asked about the session, and what it asks of it is set.

use bytes::Bytes;

use crate::gate::Permit;

use super::super::Sessions;
use super::super::answer::{Answer, Form};
use super::super::capability::Flavour;
use super::super::limits;
use super::super::refuse::Answered;
use super::running::Running;
use super::{Conversation, Own, Phase, Purpose, Step};

/// How sessions begin.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Enters {
    pub(in super::super) sessions: Sessions,
    pub(in super::super) server: Flavour,
}

/// A login that the server has taken.
#[derive(Debug)]
pub(super) struct Entering {
    /// What the client is told.
    pub(super) told: Bytes,
    /// The number of that.
    pub(super) number: u8,
    asked: bool,
}

impl Entering {
    pub(super) fn new(told: Bytes, number: u8) -> Self {
        Self {
            told,
            number,
            asked: false,
        }
    }

    /// What is to be done about the session now.
    pub(super) fn step(&mut self) -> Step {
        match std::mem::replace(&mut self.asked, true) {
            true => Step::More,
            false => Step::Enter,
        }
    }
}

impl Conversation {
    /// Whether a session is about to begin that nobody has decided about.
    pub(in super::super) fn is_entering(&self) -> bool {
        matches!(self.phase, Phase::Entering(_))
    }

    /// The session may begin, as `permit` says.
    pub(in super::super) fn entered(&mut self, permit: Permit) -> Step {
        let imposed = limits::of_session(permit.constraints(), self.enters.server);
        self.most_rows = limits::rows_of_session(permit.constraints());
        let running = Running::new(permit);
        let Phase::Entering(entering) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Step::Drop;
        };
        self.imposed = imposed.map(Into::into);
        match self.imposed.clone() {
            None => {
                running.answered(None, None);
                Step::Own(self.probes(entering.told))
            }
            Some(text) => Step::Own(self.imposes(&text, Purpose::Begins(entering, running))),
        }
    }

    /// Has the server set what policy asks of the session.
    fn imposes(&mut self, text: &str, purpose: Purpose) -> Bytes {
        self.phase = Phase::Own(Box::new(Own {
            answer: Answer::new(Form::Results, self.capabilities),
            row: None,
            purpose,
        }));
        self.query(text)
    }

    /// The server has forgotten what was set.
    pub(super) fn imposes_again(&mut self) -> Option<Bytes> {
        let text = self.imposed.clone()?;
        Some(self.imposes(&text, Purpose::Imposes))
    }

    /// Ends a session that the server does not limit as policy asks.
    pub(super) fn unlimited() -> Answered {
        Answered::ending(
            "the server did not set on the session what policy asks of it (max_rows, max_execution_time, read_only)",
        )
    }
}
