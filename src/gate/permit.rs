//! Proof that the gate said yes.
//!
//! A [`Permit`] cannot be made outside the gate:
//!
//! ```compile_fail,E0451
//! let permit = openbox_sidecar::gate::Permit { admitted: None, again: None, ended: None, judged: None, answer: todo!() };
//! ```
//!
//! nor copied:
//!
//! ```compile_fail,E0599
//! use openbox_sidecar::gate::Permit;
//! fn twice(permit: Permit) -> (Permit, Permit) {
//!     (permit.clone(), permit)
//! }
//! ```
//!
//! what is [`Held`] cannot be taken without one:
//!
//! ```compile_fail,E0616
//! use openbox_sidecar::gate::Held;
//! fn peek(held: Held<Vec<u8>>) -> Vec<u8> { held.content }
//! ```
//!
//! and nothing is [`Cleared`] that was not held:
//!
//! ```compile_fail,E0423
//! use openbox_sidecar::gate::Cleared;
//! let cleared = Cleared(b"DELETE".to_vec());
//! ```

use std::sync::Arc;

use crate::domain::{Completion, Operation, OperationId, Outcome, Timestamp};
use crate::policy::Ruling;
use crate::process::clock;
use crate::session::Session;

use super::admit::Trail;
use super::outcome::Whereabouts;
use super::series::Again;
use super::{Inner, Unanswered};

/// One admitted operation. Complete it once; dropping it completes it as
/// abandoned.
#[derive(Debug)]
#[must_use = "an admitted operation must be completed"]
pub struct Permit {
    pub(super) admitted: Option<Box<Admitted>>,
    /// In its place, where it was admitted as one of a series.
    pub(super) again: Option<Box<Again>>,
    /// How it ended, while that is being judged: if the judging is cancelled,
    /// this is still what gets reported.
    pub(super) ended: Option<Box<Completion>>,
    /// Where its answer is by then.
    pub(super) answer: Whereabouts<'static>,
    /// What came of judging it, while a person is waited for: then it was
    /// judged, and must not be again.
    pub(super) judged: Option<Box<Trail>>,
}

/// What was admitted, by which ruling.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) gate: Arc<Inner>,
    pub(super) operation: Box<Operation>,
    pub(super) session: Session,
    /// When it was admitted.
    pub(super) at: Timestamp,
    /// Absent when the fail mode admitted it.
    pub(super) ruling: Option<Arc<Ruling>>,
    /// Nothing but the ruling admitted it: no person, no twin.
    pub(super) plain: bool,
    /// The series it was admitted in, by the event that is the first of it.
    pub(super) series: Option<OperationId>,
    /// Holds for its outcome, too.
    pub(super) unanswered: Unanswered,
}

impl Permit {
    pub(super) fn grant(
        gate: Arc<Inner>,
        operation: Box<Operation>,
        session: Session,
        trail: &Trail,
    ) -> Self {
        let admitted = Admitted {
            gate,
            operation,
            session,
            at: clock::now(),
            ruling: trail.ruling.clone(),
            plain: !trail.by_fail_mode && trail.approval.is_none() && trail.joined.is_none(),
            series: None,
            unanswered: trail.unanswered,
        };
        Self {
            admitted: Some(Box::new(admitted)),
            again: None,
            ended: None,
            answer: Whereabouts::Out,
            judged: None,
        }
    }

    pub(super) fn again(again: Again) -> Self {
        Self {
            admitted: None,
            again: Some(Box::new(again)),
            ended: None,
            answer: Whereabouts::Out,
            judged: None,
        }
    }

    /// Its one completion, unless it has had that.
    pub(super) fn settle(&mut self, completion: Completion) {
        let (admitted, again) = (self.admitted.take(), self.again.take());
        match (admitted, again, self.judged.take()) {
            (Some(admitted), _, Some(trail)) => admitted.record_unclaimed(&completion, &trail),
            (Some(admitted), _, None) => admitted.settle_observed(completion, self.answer),
            (None, Some(again), _) => (*again).settle(completion),
            (None, None, _) => {}
        }
    }

    /// One of a series is from now on as if it had been admitted by itself.
    pub(super) fn apart(&mut self) {
        if let Some(again) = self.again.take() {
            self.admitted = Some((*again).alone());
        }
    }

    /// The operation it admits; of one of a series, the one that the others are like.
    pub fn operation(&self) -> Option<&Operation> {
        let of_series = self.again.as_deref().map(Again::like);
        let admitted = self.admitted.as_deref();
        admitted.map(|one| &*one.operation).or(of_series)
    }

    /// What CONSTRAIN asked for; empty for every other verdict.
    pub fn constraints(&self) -> &[Box<str>] {
        self.ruling().map_or(&[], |ruling| &ruling.constraints)
    }

    /// The ruling that admitted it; `None` when the fail mode did.
    pub fn ruling(&self) -> Option<&Ruling> {
        match (&self.again, &self.admitted) {
            (Some(again), _) => Some(again.ruling()),
            (None, admitted) => admitted.as_ref()?.ruling.as_deref(),
        }
    }

    /// The session it was admitted in, to end it when that is halted.
    pub fn session(&self) -> Option<&Session> {
        let of_series = self.again.as_deref().map(Again::session);
        self.admitted.as_ref().map(|one| &one.session).or(of_series)
    }

    /// The id of what it admits, and of nothing else.
    pub fn id(&self) -> Option<OperationId> {
        match &self.again {
            Some(again) => Some(again.id()),
            None => self.operation().map(|operation| operation.id),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.admitted.is_none() && self.again.is_none() {
            return;
        }
        let abandoned = || Completion {
            ended_at: clock::now(),
            outcome: Outcome::Abandoned,
            answer: None,
            error: None,
        };
        let ended = self.ended.take().map(|ended| *ended);
        self.settle(ended.unwrap_or_else(abandoned));
    }
}

/// What may not move until the operation it carries is admitted.
#[derive(Debug, PartialEq, Eq)]
pub struct Held<T> {
    operation: OperationId,
    content: T,
}

/// What may move now. Whatever sends takes only this.
#[derive(Debug)]
pub struct Cleared<T>(T);

impl<T> Held<T> {
    /// Locks `content` until `operation` is admitted.
    pub fn new(operation: OperationId, content: T) -> Self {
        Self { operation, content }
    }

    /// Opens the lock; `None` if `permit` is for another operation.
    pub fn release(self, permit: &Permit) -> Option<Cleared<T>> {
        (permit.id() == Some(self.operation)).then_some(Cleared(self.content))
    }
}

impl<T> Cleared<T> {
    /// Changes it before it moves: what policy redacted is put in its place, a credential added.
    pub fn amend<A>(&mut self, change: impl FnOnce(&mut T) -> A) -> A {
        change(&mut self.0)
    }

    /// What was held.
    pub fn into_inner(self) -> T {
        self.0
    }
}
