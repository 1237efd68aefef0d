//! Where an approval stands, as Core tells it.

use http::StatusCode;
use serde_json::Value;

use crate::domain::{Reason, Timestamp, Verdict};

use super::wire::{Said, object};
use super::{Answered, answer, time};
use crate::policy::{ApprovalState, PolicyError};

/// Reads the answer to a poll. Only an explicit word decides; everything else
/// is pending, and an expiry in the past outdoes a grant.
pub(super) fn state(answered: &Answered, now: Timestamp) -> Result<ApprovalState, PolicyError> {
    if answered.status != StatusCode::OK {
        return Err(answer::poll_refused(answered));
    }
    let said: Said = object(&answered.body).map_err(|why| answer::unreadable(&why))?;
    let expires_at = answer::text(&said.approval_expiration_time).and_then(time::read);
    let is_expired = said.expired == Some(Value::Bool(true))
        || expires_at.is_some_and(|expires_at| expires_at <= now);
    match decision(&said)? {
        Decision::Rejected => Ok(ApprovalState::Rejected(
            answer::text(&said.reason)
                .map_or(Reason::from("no reason was given"), Reason::from_peer),
        )),
        _ if is_expired => Ok(ApprovalState::Expired),
        Decision::Granted => Ok(ApprovalState::Granted),
        Decision::Pending => Ok(ApprovalState::Pending { expires_at }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Pending,
    Granted,
    Rejected,
}

/// `action` speaks first; `verdict` where there is no action. Two decisions
/// that differ are none.
fn decision(said: &Said) -> Result<Decision, PolicyError> {
    let action = said.action.as_ref().map(decided);
    let verdict = said.verdict.as_ref().map(decided);
    match (action, verdict) {
        (Some(Decision::Granted), Some(Decision::Rejected))
        | (Some(Decision::Rejected), Some(Decision::Granted)) => Err(answer::unreadable(
            "it says both that the approval was granted and that it was rejected",
        )),
        (Some(decision), _) | (None, Some(decision)) => Ok(decision),
        (None, None) => Ok(Decision::Pending),
    }
}

fn decided(word: &Value) -> Decision {
    match word.as_str().and_then(answer::word_of) {
        Some(Verdict::Allow) => Decision::Granted,
        Some(Verdict::Block | Verdict::Halt) => Decision::Rejected,
        Some(Verdict::Constrain | Verdict::RequireApproval) | None => Decision::Pending,
    }
}
