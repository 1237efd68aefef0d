//! The kill switch: everything of this sidecar halted at once, and let go.

use crate::domain::Reason;
use crate::journal::Record;
use crate::process::clock;
use crate::state::Change;

use super::Gate;
use super::hold::{EndsFrom, State};

/// Stands for every workflow and run in the journal's record of it.
const EVERYTHING: &str = "*";

impl Gate {
    /// Halts everything, also after a restart, and ends what is held. Returns
    /// whether it was not halted before.
    pub fn halt_everything(&self, reason: &Reason, by: &str) -> bool {
        let inner = &self.inner;
        if !inner.parts.registry.halt_everything(reason) {
            return false;
        }
        tracing::warn!(by, %reason, "everything halted");
        let written = inner.parts.journal.append(&Record::Halt {
            at: clock::now(),
            workflow_id: EVERYTHING,
            run_id: EVERYTHING,
            by,
            reason: &reason.0,
        });
        if let Err(error) = written {
            tracing::error!(%error, "a halt could not be written to the journal");
        }
        inner.keep(&Change::EverythingHalted(reason));
        for hold in inner.holds.all() {
            let cancelled = State::Cancelled(reason.clone());
            inner.end_hold(&hold, EndsFrom::Pending, cancelled, None);
        }
        true
    }

    /// Ends a halt of everything; runs that are halted by themselves stay so.
    /// Returns whether everything was halted.
    pub fn resume_everything(&self, by: &str) -> bool {
        let inner = &self.inner;
        if !inner.parts.registry.resume_everything() {
            return false;
        }
        tracing::warn!(by, "everything resumed");
        let written = inner.parts.journal.append(&Record::Resume {
            at: clock::now(),
            workflow_id: EVERYTHING,
            run_id: EVERYTHING,
            by,
        });
        if let Err(error) = written {
            tracing::error!(%error, "a resume could not be written to the journal");
        }
        inner.keep(&Change::EverythingResumed);
        true
    }
}
