//! Approvals, listed and decided.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::ApprovalId;
use crate::gate::hold;
use crate::gate::{DecideError, HoldView};

use super::super::body::{InPath, InQuery, Json};
use super::super::problem::{Problem, json};
use super::super::text::rfc3339;
use super::{OperatorApi, by, why};

/// An approval as the operator sees it. Field names are part of the product.
#[derive(Serialize)]
struct Shown<'a> {
    approval_id: &'a str,
    state: &'static str,
    /// Whether the operation may leave, or its outcome may be handed out.
    stage: &'static str,
    summary: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    /// What the person said who rejected it, or why it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_reason: Option<&'a str>,
    workflow_id: &'a str,
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity_id: Option<&'a str>,
    opened_at: String,
    expires_at: String,
}

fn shown(view: &HoldView) -> Shown<'_> {
    Shown {
        approval_id: &view.id.0,
        state: view.state.as_str(),
        stage: view.stage.as_str(),
        summary: &view.summary,
        reason: view.reason.as_ref().map(|reason| &*reason.0),
        policy: view.policy.as_deref(),
        decision_reason: match &view.state {
            hold::State::Rejected(reason) | hold::State::Cancelled(reason) => Some(&reason.0),
            hold::State::Pending
            | hold::State::Granted
            | hold::State::Consumed
            | hold::State::Expired => None,
        },
        workflow_id: &view.workflow_id,
        run_id: &view.run_id,
        activity_id: view.activity_id.as_deref(),
        opened_at: rfc3339(view.opened_at),
        expires_at: rfc3339(view.expires_at),
    }
}

/// The states an approval may be asked for by.
const STATES: [&str; 6] = [
    "pending",
    "granted",
    "consumed",
    "rejected",
    "expired",
    "cancelled",
];

#[derive(Deserialize)]
pub(super) struct Which {
    status: Option<String>,
}

#[derive(Serialize)]
struct All<'a> {
    approvals: Vec<Shown<'a>>,
}

/// `GET /v1/approvals?status=pending`, oldest first.
pub(super) async fn list(
    State(api): State<Arc<OperatorApi>>,
    InQuery(which): InQuery<Which>,
) -> Result<Response, Problem> {
    if let Some(status) = &which.status
        && !STATES.contains(&status.as_str())
    {
        let detail = format!("`status` must be one of {}", STATES.join(", "));
        return Err(Problem::invalid_field(detail));
    }
    let views = api.gate.approvals();
    let wanted = |view: &&HoldView| {
        let status = which.status.as_deref();
        status.is_none_or(|status| status == view.state.as_str())
    };
    let approvals = views.iter().filter(wanted).map(shown).collect();
    Ok(json(StatusCode::OK, &All { approvals }))
}

/// `GET /v1/approvals/{id}`.
pub(super) async fn show(
    State(api): State<Arc<OperatorApi>>,
    InPath(id): InPath<String>,
) -> Result<Response, Problem> {
    let view = api.gate.approval(&ApprovalId(id.into()));
    let view = view.ok_or_else(unknown)?;
    Ok(json(StatusCode::OK, &shown(&view)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approve {
    by: Option<String>,
}

/// `POST /v1/approvals/{id}/approve`.
pub(super) async fn approve(
    State(api): State<Arc<OperatorApi>>,
    InPath(id): InPath<String>,
    Json(approve): Json<Approve>,
) -> Result<Response, Problem> {
    let by = by(approve.by.as_deref())?;
    decided(api.gate.approve(&ApprovalId(id.into()), &by))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reject {
    reason: Option<String>,
    by: Option<String>,
}

/// `POST /v1/approvals/{id}/reject`.
pub(super) async fn reject(
    State(api): State<Arc<OperatorApi>>,
    InPath(id): InPath<String>,
    Json(reject): Json<Reject>,
) -> Result<Response, Problem> {
    let by = by(reject.by.as_deref())?;
    let reason = why(reject.reason.as_deref())?;
    decided(api.gate.reject(&ApprovalId(id.into()), reason, &by))
}

fn decided(outcome: Result<HoldView, DecideError>) -> Result<Response, Problem> {
    match outcome {
        Ok(view) => Ok(json(StatusCode::OK, &shown(&view))),
        Err(DecideError::Unknown) => Err(unknown()),
        Err(DecideError::InCore) => Err(Problem::new(
            StatusCode::CONFLICT,
            "decided_in_core",
            "approvals are decided in OpenBox Core, not here; open the dashboard of your organisation",
        )),
        Err(DecideError::Already(view)) => {
            let state = view.state.as_str();
            let detail = format!("approval {} was decided before: it is {state}", view.id);
            let recorded = serde_json::to_value(shown(&view)).unwrap_or(Value::Null);
            let problem = Problem::new(StatusCode::CONFLICT, "already_decided", detail);
            Err(problem.about(recorded))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_approval",
        "no such approval is known; GET /v1/approvals lists them",
    )
}
