//! What an event is answered: its verdict, in the words of the wire contract.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{ApprovalId, Event, Refusal};
use crate::gate::{Gate, Noted};
use crate::policy::Ruling;

use super::super::problem::json;

/// Field names are part of the product.
#[derive(Serialize)]
struct Answer<'a> {
    verdict: &'static str,
    action: &'static str,
    event_id: String,
    workflow_id: &'a str,
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    constraints: &'a [Box<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_input: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<bool>,
}

/// Answers `event`. `registered` says whether the contexts that came with it
/// name it from now on, if any came.
pub(super) fn answer(
    gate: &Gate,
    event: &Event,
    noted: &Noted,
    registered: Option<bool>,
) -> Response {
    let refusal = noted.refusal.as_ref();
    let ruling = noted.ruling.as_deref();
    let verdict = noted.verdict.as_str();
    let redacted = ruling.and_then(|ruling| ruling.redacted.as_ref());
    let context = &event.context;
    let answer = Answer {
        verdict,
        // As Core does: the older name of the same word.
        action: verdict,
        event_id: event.id.to_string(),
        workflow_id: &context.workflow_id,
        run_id: &context.run_id,
        activity_id: context.activity.as_ref().map(|activity| &*activity.id),
        reason: reason(gate, refusal, ruling),
        code: refusal.map(Refusal::code),
        retryable: refusal.map(Refusal::is_retryable),
        approval_id: refusal.and_then(Refusal::approval).map(|id| &*id.0),
        retry_after: refusal.and_then(Refusal::retry_after),
        constraints: ruling.map_or(&[], |ruling| &ruling.constraints),
        redacted_input: redacted.and_then(|json| serde_json::from_str(&json.0).ok()),
        policy: ruling.and_then(|ruling| ruling.policy.as_deref()),
        fail_mode: noted.by_fail_mode.then_some(match refusal {
            None => "open",
            Some(_) => "closed",
        }),
        registered,
    };
    json(StatusCode::OK, &answer)
}

/// The words of whoever decided, where somebody did; our own otherwise.
pub(super) fn reason(
    gate: &Gate,
    refusal: Option<&Refusal>,
    ruling: Option<&Ruling>,
) -> Option<String> {
    match refusal {
        None => ruling
            .and_then(|ruling| ruling.reason.as_ref())
            .map(ToString::to_string),
        Some(
            Refusal::Blocked(reason)
            | Refusal::OutcomeBlocked(reason)
            | Refusal::Halted(reason)
            | Refusal::ActivityAborted(reason)
            | Refusal::Rejected { reason, .. },
        ) => Some(reason.to_string()),
        Some(refusal @ Refusal::ApprovalPending { approval, .. }) => {
            Some(match why_asked(gate, approval) {
                Some(why) => format!("{refusal}: {why}"),
                None => refusal.to_string(),
            })
        }
        Some(
            refusal @ (Refusal::ApprovalExpired(_)
            | Refusal::PolicyUnavailable(_)
            | Refusal::Unjudgeable(_)
            | Refusal::ConstraintNotApplicable(_)
            | Refusal::Unattributed
            | Refusal::NotRecorded
            | Refusal::Overloaded(_)
            | Refusal::ShuttingDown),
        ) => Some(refusal.to_string()),
    }
}

fn why_asked(gate: &Gate, approval: &ApprovalId) -> Option<String> {
    let reason = gate.approval(approval)?.reason?;
    Some(reason.to_string())
}
