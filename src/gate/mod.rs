//! The one place where an operation becomes permitted or refused.
//!
//! [`Gate::admit`] goes, in this order: halt latch, aborted activity, a hold or
//! grant of the identical operation, judge within the deadline, fail mode,
//! hold, latch again, journal, grant. It is cancel-safe: dropping it abandons
//! the question, never the answer, and never an approval.

mod admit;
mod everything;
mod fingerprint;
pub mod hold;
mod join;
mod judge;
mod kept;
mod late;
mod line;
mod note;
mod operate;
mod options;
mod outcome;
mod permit;
mod piece;
mod preview;
mod scope;
mod series;
#[cfg(test)]
mod tests;
mod wait;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::domain::{JsonText, OperationId, Refusal, Stage};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::policy::{PolicyBackend, Ruling};
use crate::session::Registry;
use crate::state::Store;

pub use self::admit::{Now, Undecided};
use self::hold::{Holds, Parked};
use self::join::Joins;
pub use self::line::InLine;
pub use self::note::Noted;
pub use self::operate::{DecideError, HoldView, Tally};
pub use self::options::{Unasked, Unheld};
pub use self::outcome::{After, Parking};
pub use self::permit::{Cleared, Held, Permit};
pub use self::scope::{Scope, ScopeError};
pub use self::series::Repeats;

/// What the caller must now do. There is no fourth way.
#[derive(Debug)]
#[must_use = "an undecided operation must not move"]
pub enum Decision {
    /// Do it, then complete the permit.
    Proceed(Permit),
    /// It was done before and its answer was held; a person has agreed. Hand
    /// out what was parked, and do nothing else.
    Replay(Replay),
    /// Tell the agent no.
    Refuse(Refused),
}

/// An answer that was set aside, and is now free.
pub struct Replay {
    /// What the protocol parked.
    pub parked: Parked,
    /// The operation whose answer it is asked for by.
    pub event: OperationId,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// A refusal and what a protocol needs to render it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What it keeps back: at `completed`, the answer of what was carried out.
    pub stage: Stage,
    /// The id to quote.
    pub event: OperationId,
    /// The policy that decided, if one did.
    pub policy: Option<Arc<str>>,
    /// What it said; absent when it gave no answer or was not asked.
    pub ruling: Option<Arc<Ruling>>,
}

impl Refused {
    /// A refusal of something that has not left, which policy was not asked about.
    pub fn unasked(refusal: Refusal, event: OperationId) -> Self {
        Self {
            refusal,
            stage: Stage::Started,
            event,
            policy: None,
            ruling: None,
        }
    }

    /// Whether the same operation may succeed later, and is not done twice by that.
    pub fn is_retryable(&self) -> bool {
        match self.stage {
            Stage::Started => self.refusal.is_retryable(),
            // The retry gets the answer that was set aside.
            Stage::Completed => matches!(self.refusal, Refusal::ApprovalPending { .. }),
        }
    }

    /// When it may be tried again, in whole seconds from 1: said exactly where that may help.
    pub fn retry_after(&self) -> Option<u64> {
        self.refusal.retry_after().filter(|_| self.is_retryable())
    }
}

/// What an unusable backend means. The operator chooses; covers only
/// [`crate::policy::PolicyError::Unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailMode {
    /// Refuse.
    Closed,
    /// Proceed, and say so in journal, metric and log.
    Open,
}

/// What an answer that policy does not give means to one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// What [`Settings::fail_mode`] says.
    #[default]
    AsSet,
    /// This, whatever the settings say.
    By(FailMode),
}

/// Whether constraints that a protocol cannot apply are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraints {
    /// Recorded and continued, as the SDKs do.
    Advisory,
    /// Refused.
    Enforce,
}

/// What is asked at all: an agent with an SDK tells of much that the wire shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Govern {
    /// Only what goes over the wire.
    Boundary,
    /// Only what hooks tell.
    Hooks,
    /// Both; what is seen twice is asked about once.
    Both,
}

/// What HALT stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltScope {
    /// The run, and what nothing attributes to another run.
    Run,
    /// Everything of this sidecar.
    Agent,
}

/// Durations, bounds and choices. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest wait for one answer of policy.
    pub judge_within: Duration,
    /// How long an approval that the sidecar keeps stays open; in Core mode,
    /// when Core does not say.
    pub approval_lives: Duration,
    /// Most approvals open at once.
    pub holds_max: usize,
    /// Most outcomes waiting to be judged after their answer has gone out.
    pub reports_max: usize,
    /// See [`FailMode`].
    pub fail_mode: FailMode,
    /// Classes of database statements that are refused without an answer although
    /// the fail mode is open: the words of `class` in what is told of them.
    pub fail_closed_for: Box<[Box<str>]>,
    /// See [`Constraints`].
    pub constraints: Constraints,
    /// See [`HaltScope`].
    pub halt_scope: HaltScope,
    /// See [`Govern`].
    pub govern: Govern,
    /// See [`Unasked`].
    pub unasked: Unasked,
    /// See [`Unheld`].
    pub unheld: Unheld,
    /// How many identical executions in a row, on one connection, have records of their
    /// own before further ones are counted (see [`Repeats`]); `None`: all have.
    pub count_after: Option<NonZeroU32>,
}

/// What a protocol brings to a decision.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Longest wait for a person on the open connection.
    pub hold_within: Duration,
    /// See [`Unanswered`].
    pub unanswered: Unanswered,
    /// Whether the protocol applies a constraint called this, or the operation
    /// is within it anyway.
    pub applies: fn(&str) -> bool,
    /// Whether the operation is just what a constraint called this forbids;
    /// then it is refused, however constraints are taken.
    pub contradicts: fn(&str) -> bool,
    /// Whether the protocol puts this, which policy redacted, in the place of what
    /// is judged.
    pub replaces: fn(&JsonText) -> bool,
}

/// What the gate is built from.
#[derive(Debug)]
pub struct Parts {
    /// Who decides.
    pub backend: Arc<dyn PolicyBackend>,
    /// Where it is written down.
    pub journal: Arc<Journal>,
    /// What is remembered for the next start.
    pub state: Store,
    /// Whose it is.
    pub registry: Arc<Registry>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// See [`Settings`].
    pub settings: Settings,
}

/// Judges operations and events. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    holds: Holds,
    joins: Joins,
    series: series::AllSeries,
    words: scope::Words,
    reports: mpsc::Sender<outcome::Report>,
    /// True once the process ends: holds are answered with a retryable refusal.
    closing: watch::Sender<bool>,
    counts: [AtomicU64; Tally::KINDS],
}

/// The work of a gate that is not a caller's: polling, expiring, reporting.
/// Runs until the gate is dropped.
#[must_use = "nothing expires and no outcome is reported unless this runs"]
#[derive(Debug)]
pub struct Housekeeping {
    gate: std::sync::Weak<Inner>,
    reports: mpsc::Receiver<outcome::Report>,
}

impl Gate {
    /// A gate, and the work that must run beside it.
    pub fn new(parts: Parts) -> (Self, Housekeeping) {
        let (reports, received) = mpsc::channel(parts.settings.reports_max.max(1));
        let inner = Arc::new(Inner {
            parts,
            holds: Holds::default(),
            joins: Joins::default(),
            series: series::AllSeries::default(),
            words: scope::Words::default(),
            reports,
            closing: watch::Sender::new(false),
            counts: Default::default(),
        });
        let housekeeping = Housekeeping {
            gate: Arc::downgrade(&inner),
            reports: received,
        };
        (Self { inner }, housekeeping)
    }

    /// The runs and activities this gate knows.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.parts.registry
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.parts.metrics
    }

    /// Where it is written down.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.inner.parts.journal
    }

    /// Resolves once the gate is closed. Cancel-safe.
    pub async fn closed(&self) {
        let mut closing = self.inner.closing.subscribe();
        // An error means that the gate is gone.
        drop(closing.wait_for(|closing| *closing).await);
    }

    /// Answers every hold with [`Refusal::ShuttingDown`], now and from now on.
    pub fn close(&self) {
        self.inner.closing.send_replace(true);
    }
}
