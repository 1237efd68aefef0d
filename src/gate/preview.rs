//! Asking what policy would say, for an operation that nobody means to do now.

use crate::domain::{Operation, Refusal, Verdict};
use crate::policy::{ApprovalsAt, Judging, PolicyError, Question};
use crate::session::Session;

use super::admit::Trail;
use super::{Gate, Noted};

impl Gate {
    /// What `operation` would be decided, now. Nothing is held, written down,
    /// counted or halted. `None` where policy is remote: it takes every
    /// question for something that happens.
    pub fn preview(&self, operation: &Operation, session: &Session) -> Option<Noted> {
        let backend = &self.inner.parts.backend;
        if backend.approvals_at() == ApprovalsAt::Core {
            return None;
        }
        if let Some(reason) = session.halted() {
            return Some(Noted::new(Some(Refusal::Halted(reason)), Trail::default()));
        }
        if let Some(reason) = session.aborted() {
            let refusal = Refusal::ActivityAborted(reason);
            return Some(Noted::new(Some(refusal), Trail::default()));
        }
        let Judging::Now(answer) = backend.judge(Question::Started(operation)) else {
            return None;
        };
        let mut trail = Trail::default();
        let refusal = match answer {
            Ok(ruling) => {
                let refusal = match ruling.verdict {
                    Verdict::Block => Some(Refusal::Blocked(ruling.reason_or_default())),
                    Verdict::Halt => Some(Refusal::Halted(ruling.reason_or_default())),
                    Verdict::Allow | Verdict::Constrain | Verdict::RequireApproval => None,
                };
                trail.ruling = Some(ruling);
                refusal
            }
            Err(PolicyError::Unavailable(reason)) => Some(Refusal::PolicyUnavailable(reason)),
            Err(PolicyError::Unjudgeable(reason)) => Some(Refusal::Unjudgeable(reason)),
        };
        let wants_a_person = trail
            .ruling
            .as_ref()
            .is_some_and(|ruling| ruling.verdict == Verdict::RequireApproval);
        let mut noted = Noted::new(refusal, trail);
        if wants_a_person {
            noted.verdict = Verdict::RequireApproval;
        }
        Some(noted)
    }
}
