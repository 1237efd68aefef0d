//! One thing that is seen twice: an SDK's hook tells of it, and the wire shows
//! it. The later of both joins the evaluation of the earlier.
//!
//! Both must be in the same activity and trace, and about the same method and
//! URL, or statement. Before it leaves, its content must be the same too, or an
//! agent could tell one thing and do another. Afterwards, what a hook tells of
//! an answer that the wire has shown adds nothing; what the wire shows joins only
//! what a hook told exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{
    Completion, Fingerprint, Operation, OperationId, Outcome, SpanId, Stage, Verdict,
};
use crate::policy::{Question, Ruling};
use crate::process::Kept;

use super::fingerprint::{self, Content};

/// How long an evaluation may be joined.
const KEPT_WITHIN: Duration = Duration::from_secs(30);

/// Most evaluations that may be joined; beyond it the oldest may not, and its
/// twin is asked about.
const KEPT_MAX: usize = 10_000;

/// Evaluations that their twins may join.
#[derive(Debug)]
pub(super) struct Joins {
    /// Whether a hook was ever told: without hooks, nothing here costs anything.
    told: AtomicBool,
    kept: Kept<Fingerprint, Earlier>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Hook,
    Wire,
}

impl Side {
    fn of(operation: &Operation) -> Self {
        match operation.reported {
            Some(_) => Self::Hook,
            None => Self::Wire,
        }
    }
}

#[derive(Debug)]
struct Earlier {
    side: Side,
    /// Of an answer.
    said: Option<Said>,
    twin: Twin,
}

/// How it went, as one side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    outcome: Outcome,
    status: Option<u16>,
    content: Content,
}

/// An evaluation that was joined.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    /// Whose it is.
    pub(super) event: OperationId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) ruling: Arc<Ruling>,
    /// The approval it was admitted by.
    pub(super) approval: Option<Arc<str>>,
}

impl Default for Joins {
    fn default() -> Self {
        Self {
            told: AtomicBool::new(false),
            kept: Kept::new(KEPT_WITHIN, KEPT_MAX),
        }
    }
}

impl Joins {
    /// Lets the twin of an operation that was admitted join it.
    pub(super) fn admitted(
        &self,
        operation: &Operation,
        ruling: &Arc<Ruling>,
        approval: Option<&Arc<str>>,
    ) {
        if !self.concerns(operation) {
            return;
        }
        if let Some(key) = fingerprint::of_twin(operation, Stage::Started) {
            self.keep(key, operation, ruling, approval, None);
        }
    }

    /// Lets the twin of an outcome that was judged join it. One that waits for
    /// a person is asked about anew.
    pub(super) fn judged(
        &self,
        operation: &Operation,
        completion: &Completion,
        ruling: &Arc<Ruling>,
    ) {
        if !self.concerns(operation) || ruling.verdict == Verdict::RequireApproval {
            return;
        }
        if let Some(key) = fingerprint::of_twin(operation, Stage::Completed) {
            self.keep(key, operation, ruling, None, Some(said(completion)));
        }
    }

    /// Whether anything on the wire may have a twin: whether a hook was ever told.
    pub(super) fn any(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// The evaluation that `question` may join, by the policy of `generation`.
    pub(super) fn join(&self, question: Question<'_>, generation: u64) -> Option<Twin> {
        let (operation, stage, now_said) = match question {
            Question::Started(operation) => (operation, Stage::Started, None),
            Question::Completed(operation, completion) => {
                (operation, Stage::Completed, Some(completion))
            }
            Question::Event(_) => return None,
        };
        if !self.concerns(operation) {
            return None;
        }
        let key = fingerprint::of_twin(operation, stage)?;
        let side = Side::of(operation);
        let now_said = now_said.map(said);
        let earlier = self.kept.take(&key, Instant::now(), |earlier| {
            earlier.side != side
                && earlier.twin.ruling.generation == generation
                && agree(earlier, now_said)
        })?;
        Some(earlier.twin)
    }

    fn concerns(&self, operation: &Operation) -> bool {
        match Side::of(operation) {
            Side::Hook => {
                self.told.store(true, Ordering::Relaxed);
                true
            }
            Side::Wire => self.any(),
        }
    }

    fn keep(
        &self,
        key: Fingerprint,
        operation: &Operation,
        ruling: &Arc<Ruling>,
        approval: Option<&Arc<str>>,
        said: Option<Said>,
    ) {
        let earlier = Earlier {
            side: Side::of(operation),
            said,
            twin: Twin {
                event: operation.id,
                span: operation.span,
                parent: operation.parent,
                ruling: ruling.clone(),
                approval: approval.cloned(),
            },
        };
        drop(self.kept.keep(key, earlier, Instant::now()));
    }
}

fn said(completion: &Completion) -> Said {
    let answer = completion.answer.as_ref();
    let http = answer.and_then(crate::domain::Answer::http);
    Said {
        outcome: completion.outcome,
        status: http.map(|http| http.status),
        content: http.map_or(Content::Empty, |http| Content::of(&http.body)),
    }
}

/// Whether both sides may speak of the same answer.
fn agree(earlier: &Earlier, later: Option<Said>) -> bool {
    let (Some(earlier_said), Some(later)) = (earlier.said, later) else {
        return earlier.said.is_none() && later.is_none();
    };
    let same = earlier_said.outcome == later.outcome && earlier_said.status == later.status;
    let content = match (earlier.side, earlier_said.content, later.content) {
        // A hook that tells no body has not seen it.
        (Side::Wire, _, Content::Empty | Content::Unknown) => true,
        (Side::Wire, Content::Unknown, _) => true,
        (Side::Wire, seen, told) => seen == told,
        (Side::Hook, Content::Unknown, _) | (Side::Hook, _, Content::Unknown) => false,
        (Side::Hook, told, seen) => told == seen,
    };
    same && content
}
