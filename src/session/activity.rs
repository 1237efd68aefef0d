//! One activity of a run, from an allowed ActivityStarted to its completion.

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{ApprovalId, Context, Reason, Timestamp};

use super::untold::Untold;

/// An open activity.
#[derive(Debug)]
pub struct Activity {
    /// Ids of the run and of this activity.
    pub context: Arc<Context>,
    /// When it was opened here.
    pub opened_at: Timestamp,
    /// What it did and policy has not judged yet.
    pub untold: Arc<Untold>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    aborted: Option<Reason>,
    waits_for: Vec<ApprovalId>,
}

impl Activity {
    /// An activity nothing has been refused in. `context` names it.
    pub(super) fn new(context: Arc<Context>, opened_at: Timestamp) -> Self {
        Self {
            context,
            opened_at,
            untold: Arc::default(),
            state: Mutex::default(),
        }
    }

    pub(super) fn attempt(&self) -> Option<u32> {
        self.context.activity.as_ref().map(|named| named.attempt)
    }

    /// Why later operations are refused without asking, if they are.
    pub fn aborted(&self) -> Option<Reason> {
        self.lock().aborted.clone()
    }

    /// Refuses later operations; the first reason stays.
    pub fn abort(&self, reason: &Reason) {
        self.lock().aborted.get_or_insert_with(|| reason.clone());
    }

    /// The oldest approval that later operations wait for, if any: an earlier
    /// outcome needs a person's consent after it had already gone out.
    pub fn waits_for(&self) -> Option<ApprovalId> {
        self.lock().waits_for.first().cloned()
    }

    /// Makes later operations wait for `approval` too. As many as there may be
    /// approvals at once, at most.
    pub fn wait_for(&self, approval: ApprovalId) {
        self.lock().waits_for.push(approval);
    }

    /// Makes later operations wait for `approval` no longer.
    pub fn waits_no_longer(&self, approval: &ApprovalId) {
        self.lock().waits_for.retain(|known| known != approval);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
