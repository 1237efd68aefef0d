//! What an event or operation is answered: its verdict, in the words of the
//! wire contract.

use axum::response::Response;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{IntoResponses, ToSchema};

use crate::domain::{ApprovalId, Context, Event, Refusal, Verdict};
use crate::gate::{Gate, Noted};
use crate::policy::{Guardrails, Ruling, Side};

use super::super::idempotency::ForNow;
use super::super::problem::json;

/// A verdict. Field names are part of the product.
#[derive(Serialize, ToSchema)]
pub(super) struct Answer<'a> {
    /// `allow`, `constrain`, `require_approval`, `block` or `halt`: only the
    /// first two let it happen.
    verdict: &'static str,
    /// The older name of the same word.
    action: &'static str,
    /// Names it in journal and log, and an operation at its completion.
    event_id: String,
    workflow_id: &'a str,
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity_id: Option<&'a str>,
    /// Why, in words of whoever decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Why it may not go on, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Whether the identical request may be answered differently later.
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    /// What a person was asked under.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<&'a str>,
    /// Seconds to wait before the same request is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// With `constrain`: what the agent is asked to keep to.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<String>)]
    constraints: &'a [Box<str>],
    /// What to use in place of the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    redacted_input: Option<&'a RawValue>,
    /// What to use in place of the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    redacted_output: Option<&'a RawValue>,
    /// What guardrails found, if any looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    guardrails: Option<Guarded<'a>>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    /// `open` or `closed`, where policy gave no answer and this decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    fail_mode: Option<&'static str>,
    /// Whether the names that came with it stand for it from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<bool>,
    /// Which rule said whose operation it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    attribution: Option<&'static str>,
    /// The trace of an operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    /// Its span.
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    /// Said where nothing was decided, and nothing may be done by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
}

/// What a question is answered with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
pub(super) enum Verdicts {
    /// It was decided: whether it may happen says `verdict`.
    #[response(status = 200)]
    Decided(#[to_schema] Answer<'static>),
    /// A person decides. The identical request joins the wait; `Location` says
    /// where the approval stands.
    #[response(status = 202)]
    Pending(#[to_schema] Answer<'static>),
}

/// What guardrails found.
#[derive(Serialize, ToSchema)]
struct Guarded<'a> {
    /// Whether it may stand.
    passed: bool,
    findings: Vec<Finding<'a>>,
}

/// One thing a guardrail found.
#[derive(Serialize, ToSchema)]
struct Finding<'a> {
    /// The kind of guardrail.
    kind: &'a str,
    /// Where.
    field: &'a str,
    /// What.
    reason: &'a str,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) event_id: String,
    pub(super) context: &'a Context,
    pub(super) verdict: Verdict,
    pub(super) refusal: Option<&'a Refusal>,
    pub(super) ruling: Option<&'a Ruling>,
    pub(super) by_fail_mode: bool,
    /// The policy that decided, where the ruling is not at hand.
    pub(super) policy: Option<&'a str>,
    pub(super) also: Also<'a>,
}

/// What only some answers have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Also<'a> {
    pub(super) registered: Option<bool>,
    pub(super) attribution: Option<&'static str>,
    pub(super) trace_id: Option<&'a str>,
    pub(super) span_id: Option<&'a str>,
    pub(super) dry_run: Option<bool>,
}

impl<'a> Given<'a> {
    /// What was noted of `context`.
    pub(super) fn noted(event_id: String, context: &'a Context, noted: &'a Noted) -> Self {
        Self {
            event_id,
            context,
            verdict: noted.verdict,
            refusal: noted.refusal.as_ref(),
            ruling: noted.ruling.as_deref(),
            by_fail_mode: noted.by_fail_mode,
            policy: None,
            also: Also::default(),
        }
    }

    /// 200 with the verdict; 202 while a person decides.
    pub(super) fn response(&self, gate: &Gate) -> Response {
        let (ruling, refusal) = (self.ruling, self.refusal);
        let guardrails = ruling.and_then(|ruling| ruling.guardrails.as_deref());
        let redacted = ruling.and_then(|ruling| ruling.redacted.as_ref());
        let redacted = redacted.and_then(|json| serde_json::from_str(&json.0).ok());
        let (redacted_input, redacted_output) = match guardrails.map(|found| found.side) {
            Some(Side::Output) => (None, redacted),
            Some(Side::Input) | None => (redacted, None),
        };
        let verdict = self.verdict.as_str();
        let answer = Answer {
            verdict,
            action: verdict,
            event_id: self.event_id.clone(),
            workflow_id: &self.context.workflow_id,
            run_id: &self.context.run_id,
            activity_id: self.context.activity.as_ref().map(|a| &*a.id),
            reason: reason(gate, refusal, ruling),
            code: refusal.map(Refusal::code),
            retryable: refusal.map(Refusal::is_retryable),
            approval_id: refusal.and_then(Refusal::approval).map(|id| &*id.0),
            retry_after: refusal.and_then(Refusal::retry_after),
            constraints: ruling.map_or(&[], |ruling| &ruling.constraints),
            redacted_input,
            redacted_output,
            guardrails: guardrails.map(Guarded::from),
            policy: ruling
                .and_then(|ruling| ruling.policy.as_deref())
                .or(self.policy),
            fail_mode: self.by_fail_mode.then_some(match refusal {
                None => "open",
                Some(_) => "closed",
            }),
            registered: self.also.registered,
            attribution: self.also.attribution,
            trace_id: self.also.trace_id,
            span_id: self.also.span_id,
            dry_run: self.also.dry_run,
        };
        answered(&answer, refusal)
    }
}

fn answered(answer: &Answer<'_>, refusal: Option<&Refusal>) -> Response {
    let pending = match refusal {
        Some(Refusal::ApprovalPending { approval, .. }) => Some(approval),
        Some(_) | None => None,
    };
    let status = match pending {
        Some(_) => StatusCode::ACCEPTED,
        None => StatusCode::OK,
    };
    let mut response = json(status, answer);
    if refusal.is_some_and(Refusal::is_retryable) {
        response.extensions_mut().insert(ForNow);
    }
    let headers = response.headers_mut();
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    let place = pending.map(|approval| format!("/v1/approvals/{approval}"));
    if let Some(place) = place.and_then(|place| place.parse().ok()) {
        headers.insert(LOCATION, place);
    }
    response
}

impl<'a> From<&'a Guardrails> for Guarded<'a> {
    fn from(found: &'a Guardrails) -> Self {
        let findings = found.findings.iter();
        Self {
            passed: found.passed,
            findings: findings
                .map(|finding| Finding {
                    kind: &finding.kind,
                    field: &finding.field,
                    reason: &finding.reason,
                })
                .collect(),
        }
    }
}

/// Answers `event`. `registered` says whether the contexts that came with it
/// name it from now on, if any came.
pub(super) fn answer(
    gate: &Gate,
    event: &Event,
    noted: &Noted,
    registered: Option<bool>,
) -> Response {
    let mut given = Given::noted(event.id.to_string(), &event.context, noted);
    given.also.registered = registered;
    given.response(gate)
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
