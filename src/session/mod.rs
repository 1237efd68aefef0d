//! Who is on the line: runs and activities the agent opened, their halt
//! latches, and whose operation an operation is.

pub mod activity;
pub mod claim;
pub mod latch;
pub mod registry;
pub mod run;
pub mod untold;

use std::sync::Arc;

use crate::domain::{Attribution, Context, Reason};

pub use activity::Activity;
pub use claim::{Claim, trace_of};
pub use latch::Latch;
pub use registry::{Limit, Registry, RunKey, Settings, Signs};
pub use run::Run;
pub use untold::{OnItsWay, Untold};

/// Whose an operation is, resolved once an operation. Holding one keeps the run
/// registered, so a halt that comes while policy is asked is seen afterwards.
#[derive(Clone, Debug)]
pub struct Session {
    /// The run.
    pub run: Arc<Run>,
    /// The activity inside it, if any.
    pub activity: Option<Arc<Activity>>,
    /// The ids that go with the operation.
    pub context: Arc<Context>,
    /// Which evidence said so.
    pub attribution: Attribution,
    pub(in crate::session) registry: Arc<registry::Halts>,
}

impl Session {
    /// Why nothing of this session may proceed: its run is halted, everything
    /// is, or some run is and nothing says that this operation is not its.
    pub fn halted(&self) -> Option<Reason> {
        if !self.registry.any() {
            return None;
        }
        if let Some(reason) = self.registry.everything.reason() {
            return Some(reason);
        }
        if let Some(reason) = self.run.latch.reason() {
            return Some(reason);
        }
        let unattributed = self.attribution == Attribution::OwnSession;
        (unattributed && self.registry.runs() > 0).then(|| {
            Reason::from(
                "another run is halted, and nothing says that this operation is not part of it",
            )
        })
    }

    /// Resolves with the reason once [`Self::halted`] has one. Cancel-safe.
    pub async fn until_halted(&self) -> Reason {
        let mut changes = self.registry.changes();
        loop {
            changes.mark_unchanged();
            if let Some(reason) = self.halted() {
                return reason;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why operations of this activity are refused without asking, if they are.
    pub fn aborted(&self) -> Option<Reason> {
        self.activity.as_ref()?.aborted()
    }
}
