//! Why an operation did not happen: the one type every protocol renders.

use std::fmt;
use std::time::Duration;

use super::verdict::{ApprovalId, Reason, Verdict};

/// Closed on purpose: adding a way to refuse must fail to compile in every
/// protocol that has not decided how to say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Policy said no before the operation left.
    Blocked(Reason),
    /// Policy said no to the outcome: the operation happened, its answer is withheld.
    OutcomeBlocked(Reason),
    /// The run was halted, now or earlier.
    Halted(Reason),
    /// A prior refusal aborted the activity it belongs to.
    ActivityAborted(Reason),
    /// A person has not decided yet; the identical operation may be tried again.
    ApprovalPending {
        /// What the person is asked.
        approval: ApprovalId,
        /// When to try again.
        retry_after: Duration,
    },
    /// A person declined.
    Rejected {
        /// What the person was asked.
        approval: ApprovalId,
        /// What the person said.
        reason: Reason,
    },
    /// Nobody decided before the approval expired.
    ApprovalExpired(ApprovalId),
    /// Policy gave no answer and the fail mode is closed.
    PolicyUnavailable(Reason),
    /// Policy cannot judge this, under either fail mode.
    Unjudgeable(Reason),
    /// A constraint or redaction that must be applied cannot be.
    ConstraintNotApplicable(Reason),
    /// Evidence names no open run and `unattributed` is `refuse`.
    Unattributed,
    /// The decision could not be written to the journal.
    NotRecorded,
    /// The sidecar is at a bound of its own.
    Overloaded(&'static str),
    /// The sidecar is shutting down; another one will answer.
    ShuttingDown,
}

impl Refusal {
    /// Stable machine-readable code, part of the public contract.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Blocked(_) => "blocked",
            Self::OutcomeBlocked(_) => "outcome_blocked",
            Self::Halted(_) => "halted",
            Self::ActivityAborted(_) => "activity_aborted",
            Self::ApprovalPending { .. } => "approval_pending",
            Self::Rejected { .. } => "approval_rejected",
            Self::ApprovalExpired(_) => "approval_expired",
            Self::PolicyUnavailable(_) => "policy_unavailable",
            Self::Unjudgeable(_) => "not_judgeable",
            Self::ConstraintNotApplicable(_) => "constraint_not_applicable",
            Self::Unattributed => "unattributed",
            Self::NotRecorded => "not_recorded",
            Self::Overloaded(_) => "overloaded",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Whether the same operation may succeed later without anything changing
    /// but time or a person's mind.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ApprovalPending { .. }
            | Self::PolicyUnavailable(_)
            | Self::NotRecorded
            | Self::Overloaded(_)
            | Self::ShuttingDown => true,
            Self::Blocked(_)
            | Self::OutcomeBlocked(_)
            | Self::Halted(_)
            | Self::ActivityAborted(_)
            | Self::Rejected { .. }
            | Self::ApprovalExpired(_)
            | Self::Unjudgeable(_)
            | Self::ConstraintNotApplicable(_)
            | Self::Unattributed => false,
        }
    }

    /// When the same operation may be tried again, in whole seconds from 1:
    /// said exactly where that may help.
    pub fn retry_after(&self) -> Option<u64> {
        if let Self::ApprovalPending { retry_after, .. } = self {
            return Some(retry_after.as_secs().max(1));
        }
        self.is_retryable().then_some(1)
    }

    /// The one word that an agent acts on.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::ApprovalPending { .. } => Verdict::RequireApproval,
            Self::Halted(_) => Verdict::Halt,
            Self::Blocked(_)
            | Self::OutcomeBlocked(_)
            | Self::ActivityAborted(_)
            | Self::Rejected { .. }
            | Self::ApprovalExpired(_)
            | Self::PolicyUnavailable(_)
            | Self::Unjudgeable(_)
            | Self::ConstraintNotApplicable(_)
            | Self::Unattributed
            | Self::NotRecorded
            | Self::Overloaded(_)
            | Self::ShuttingDown => Verdict::Block,
        }
    }

    /// The approval it is about, if it is about one.
    pub fn approval(&self) -> Option<&ApprovalId> {
        match self {
            Self::ApprovalPending { approval, .. }
            | Self::Rejected { approval, .. }
            | Self::ApprovalExpired(approval) => Some(approval),
            Self::Blocked(_)
            | Self::OutcomeBlocked(_)
            | Self::Halted(_)
            | Self::ActivityAborted(_)
            | Self::PolicyUnavailable(_)
            | Self::Unjudgeable(_)
            | Self::ConstraintNotApplicable(_)
            | Self::Unattributed
            | Self::NotRecorded
            | Self::Overloaded(_)
            | Self::ShuttingDown => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked(reason) => write!(f, "blocked by policy: {reason}"),
            Self::OutcomeBlocked(reason) => write!(f, "answer withheld by policy: {reason}"),
            Self::Halted(reason) => write!(f, "run halted: {reason}"),
            Self::ActivityAborted(reason) => {
                write!(f, "activity aborted by an earlier refusal: {reason}")
            }
            Self::ApprovalPending { approval, .. } => {
                write!(f, "waiting for a person to decide approval {approval}")
            }
            Self::Rejected { approval, reason } => {
                write!(f, "approval {approval} was rejected: {reason}")
            }
            Self::ApprovalExpired(approval) => {
                write!(f, "nobody decided approval {approval} in time")
            }
            Self::PolicyUnavailable(reason) => {
                write!(
                    f,
                    "policy gave no answer ({reason}) and the fail mode is closed"
                )
            }
            Self::Unjudgeable(reason) => write!(f, "policy cannot judge this: {reason}"),
            Self::ConstraintNotApplicable(reason) => {
                write!(f, "a constraint cannot be applied here: {reason}")
            }
            Self::Unattributed => f.write_str("no open run claims this operation"),
            Self::NotRecorded => f.write_str("the decision could not be written to the journal"),
            Self::Overloaded(what) => write!(f, "too many {what} at once"),
            Self::ShuttingDown => f.write_str("the sidecar is shutting down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_help_later_says_when_and_nothing_else_does() {
        let why = || Reason::from("why");
        let approval = || ApprovalId("a".into());
        let pending = |seconds| Refusal::ApprovalPending {
            approval: approval(),
            retry_after: Duration::from_secs(seconds),
        };
        #[rustfmt::skip]
        let table = [
            (pending(0),                               Some(1)),
            (pending(5),                               Some(5)),
            (Refusal::PolicyUnavailable(why()),        Some(1)),
            (Refusal::NotRecorded,                     Some(1)),
            (Refusal::Overloaded("runs"),              Some(1)),
            (Refusal::ShuttingDown,                    Some(1)),
            (Refusal::Blocked(why()),                  None),
            (Refusal::OutcomeBlocked(why()),           None),
            (Refusal::Halted(why()),                   None),
            (Refusal::ActivityAborted(why()),          None),
            (Refusal::Rejected { approval: approval(), reason: why() }, None),
            (Refusal::ApprovalExpired(approval()),     None),
            (Refusal::Unjudgeable(why()),              None),
            (Refusal::ConstraintNotApplicable(why()),  None),
            (Refusal::Unattributed,                    None),
        ];
        for (refusal, seconds) in table {
            assert_eq!(refusal.retry_after(), seconds, "{refusal:?}");
        }
    }
}
