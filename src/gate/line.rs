//! Between the decision and its permit: the record that has to be written first.

use std::io;
use std::sync::Arc;

use crate::domain::{Attribution, Operation, OperationId, Protocol, Refusal, Stage, Verdict};
use crate::journal::{self, Pending, Record};
use crate::metrics::Decided;
use crate::process::clock;
use crate::session::Session;

use super::admit::{Trail, counted_as, log_refusal, refused_already};
use super::permit::Permit;
use super::{Decision, Govern, Inner, Refused};

/// An operation that is admitted once its record is written.
///
/// The record stands in line: several may, and one write takes all of them.
/// Dropping this completes the operation as abandoned, and its record is written
/// with the next one.
#[derive(Debug)]
#[must_use = "what is not written is not permitted"]
pub struct InLine<'a> {
    // In this order: the decision is disowned before its completion is recorded.
    pending: io::Result<Pending<'a>>,
    permit: Permit,
    gate: &'a Inner,
    event: OperationId,
    protocol: Protocol,
    attribution: Attribution,
    decided: Decided,
    trail: Trail,
}

impl InLine<'_> {
    /// Lets the other tasks of this thread that can run have a turn, so that one
    /// write takes what all of them put in line, and then is [`Self::settle`].
    pub async fn written(self) -> Decision {
        if self.pending.as_ref().is_ok_and(Pending::waits) {
            journal::one_turn().await;
        }
        self.settle()
    }

    /// Writes the record, unless that was done with another, and looks at the
    /// latch again. Blocks for as long as the journal's durability asks.
    pub fn settle(self) -> Decision {
        let Self {
            pending,
            permit,
            gate,
            event,
            protocol,
            attribution,
            decided,
            trail,
        } = self;
        let refusal = match pending.and_then(Pending::settle) {
            // Others had a turn while this was written.
            Ok(()) => permit.session().and_then(refused_already),
            Err(error) => {
                tracing::error!(%error, "the journal takes no decision: refusing");
                Some(Refusal::NotRecorded)
            }
        };
        let Some(refusal) = refusal else {
            gate.count(protocol, Stage::Started, decided, &trail);
            return Decision::Proceed(permit);
        };
        gate.count(protocol, Stage::Started, counted_as(&refusal), &trail);
        // Policy has let it begin, so policy hears that it was abandoned.
        drop(permit);
        log_refusal(event, attribution, Stage::Started, &refusal);
        Decision::Refuse(Refused {
            refusal,
            stage: Stage::Started,
            event,
            policy: trail.ruling.as_ref().and_then(|r| r.policy.clone()),
            ruling: None,
        })
    }
}

impl Inner {
    /// Puts the record of a grant in line to be written.
    ///
    /// # Errors
    /// A halt has landed while policy was asked.
    pub(super) fn into_line(
        self: &Arc<Self>,
        mut operation: Box<Operation>,
        session: Session,
        trail: Trail,
    ) -> Result<InLine<'_>, Refused> {
        if let Some(refusal) = refused_already(&session) {
            return Err(self.refuse(&operation, refusal, trail));
        }
        if let (Some(twin), None) = (&trail.joined, &operation.reported) {
            // One thing has one span, and the hook's is the agent's own.
            (operation.span, operation.parent) = (twin.span, twin.parent);
        }
        let (decided, word) = match &trail.ruling {
            Some(ruling) if ruling.verdict == Verdict::Constrain => {
                (Decided::Constrain, "constrain")
            }
            Some(_) | None if trail.approval.is_some() => (Decided::RequireApproval, "allow"),
            Some(_) | None => (Decided::Allow, "allow"),
        };
        let pending = self.parts.journal.append_together(&Record::Decision {
            at: clock::now(),
            operation: &operation,
            decided: trail.as_record(word, None),
        });
        if let (Some(ruling), None) = (&trail.ruling, &trail.joined)
            && self.parts.settings.govern == Govern::Both
        {
            self.joins
                .admitted(&operation, ruling, trail.approval.as_ref());
        }
        let (event, protocol) = (operation.id, operation.protocol());
        if trail.by_fail_mode {
            tracing::warn!(event_id = %event, "policy gave no answer: passed by the fail mode");
        }
        Ok(InLine {
            pending,
            gate: self,
            event,
            protocol,
            attribution: operation.attribution,
            decided,
            permit: Permit::grant(self.clone(), operation, session, &trail),
            trail,
        })
    }
}
