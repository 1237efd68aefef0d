//! Refusals as a driver wants to see them.
//!
//! `insufficient_privilege` and `query_canceled`: no driver tries those again,
//! or connects anew because of them.

use bytes::Bytes;

use crate::domain::{OperationId, Refusal};
use crate::gate::Refused;

use super::wire::message;

/// What the server is made to reject stands for, until it has.
#[derive(Clone, Debug)]
pub(super) struct Poison {
    marker: String,
    error: Bytes,
    /// The session ends with it.
    pub(super) ends: bool,
}

impl Poison {
    pub(super) fn of(refused: &Refused) -> Self {
        let halted = matches!(refused.refusal, Refusal::Halted(_) | Refusal::ShuttingDown);
        Self {
            marker: marker(refused.event),
            error: refusal(refused, halted),
            ends: halted,
        }
    }

    /// For a hold that its own client cancelled, or that no longer applies.
    pub(super) fn cancelled(event: OperationId, why: &str) -> Self {
        Self {
            marker: marker(event),
            error: error("ERROR", "57014", why, &format!("Operation {event}."), ""),
            ends: false,
        }
    }

    /// What the server is sure to reject: a portal that cannot exist.
    pub(super) fn execute(&self) -> Bytes {
        message(b'E', &[self.marker.as_bytes(), b"\0\0\0\0\0"])
    }

    /// Whether an error of the server is about it.
    pub(super) fn is_meant(&self, code: &str, text: &str) -> bool {
        code == "34000" && text.contains(&self.marker)
    }

    pub(super) fn error(&self) -> Bytes {
        self.error.clone()
    }
}

fn marker(event: OperationId) -> String {
    format!("openbox:{event}")
}

/// A refusal as an error, or as the end of the session.
pub(super) fn refusal(refused: &Refused, ends: bool) -> Bytes {
    let code = match &refused.refusal {
        Refusal::ApprovalPending { .. } | Refusal::ApprovalExpired(_) => "57014",
        Refusal::Blocked(_)
        | Refusal::OutcomeBlocked(_)
        | Refusal::Halted(_)
        | Refusal::ActivityAborted(_)
        | Refusal::Rejected { .. }
        | Refusal::PolicyUnavailable(_)
        | Refusal::Unjudgeable(_)
        | Refusal::ConstraintNotApplicable(_)
        | Refusal::Unattributed
        | Refusal::NotRecorded
        | Refusal::Overloaded(_)
        | Refusal::ShuttingDown => "42501",
    };
    let severity = if ends { "FATAL" } else { "ERROR" };
    let text = refused.refusal.to_string();
    let detail = format!(
        "Operation {}, refusal code {}.",
        refused.event,
        refused.refusal.code()
    );
    let hint = match (&refused.policy, refused.is_retryable()) {
        (_, true) => "The same statement may be tried again later.".to_owned(),
        (Some(policy), false) => format!("Ask the owner of policy \"{policy}\"."),
        (None, false) => String::new(),
    };
    error(severity, code, &text, &detail, &hint)
}

/// The end of a session before or behind a conversation.
pub(super) fn fatal(code: &str, text: &str) -> Bytes {
    error("FATAL", code, text, "", "")
}

/// The end of what took longer than a login may.
pub(super) fn late() -> Bytes {
    fatal("57014", "the session did not start in time")
}

fn error(severity: &str, code: &str, text: &str, detail: &str, hint: &str) -> Bytes {
    response(b'E', severity, code, text, detail, hint)
}

/// What a client is told while a person is waited for.
pub(super) fn waiting(event: OperationId) -> Bytes {
    let text = "this statement waits for a person to approve it";
    let detail = format!("Operation {event}.");
    response(b'N', "NOTICE", "00000", text, &detail, "")
}

fn response(tag: u8, severity: &str, code: &str, text: &str, detail: &str, hint: &str) -> Bytes {
    let mut body = Vec::new();
    for (kind, value) in [
        (b'S', severity),
        (b'V', severity),
        (b'C', code),
        (b'M', text),
        (b'D', detail),
        (b'H', hint),
    ] {
        if !value.is_empty() {
            body.push(kind);
            body.extend(value.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
    }
    body.push(0);
    message(tag, &[&body])
}
