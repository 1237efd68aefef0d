//! Approvals, listed and decided.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::ApprovalId;
use crate::gate::hold;
use crate::gate::{DecideError, HoldView, Scope, ScopeError};

use super::super::body::{InPath, InQuery, Json};
use super::super::described::{Id, LivesText, Why};
use super::super::problem::{Problem, Problems, json};
use super::super::text::{self, rfc3339};
use super::{OperatorApi, by, why};

/// An approval as the operator sees it. Field names are part of the product.
#[derive(Serialize, ToSchema)]
#[schema(as = Approval)]
pub(super) struct Shown<'a> {
    approval_id: &'a str,
    /// `pending`, `granted`, `consumed`, `rejected`, `expired` or `cancelled`.
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

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
enum InState {
    Pending,
    Granted,
    Consumed,
    Rejected,
    Expired,
    Cancelled,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those in this state.
    #[param(inline, value_type = Option<InState>)]
    status: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Approvals)]
pub(super) struct All<'a> {
    approvals: Vec<Shown<'a>>,
}

/// What waits for a person, and what was decided lately, oldest first.
#[utoipa::path(get, operation_id = "list_approvals", path = "/v1/approvals", tag = "approvals", params(Which),
    responses((status = 200, body = All<'static>), Problems))]
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

/// One approval.
#[utoipa::path(get, operation_id = "show_approval", path = "/v1/approvals/{id}", tag = "approvals", params(("id" = String, Path,)),
    responses((status = 200, body = Shown<'static>), Problems))]
pub(super) async fn show(
    State(api): State<Arc<OperatorApi>>,
    InPath(id): InPath<String>,
) -> Result<Response, Problem> {
    let view = api.gate.approval(&ApprovalId(id.into()));
    let view = view.ok_or_else(unknown)?;
    Ok(json(StatusCode::OK, &shown(&view)))
}

/// What a decision is about.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum About {
    /// The operation that was asked about.
    #[default]
    Once,
    /// What the same rule asks in the same activity, while it is open.
    Activity,
    /// What the same rule asks in the same run, while it is open.
    Run,
}

/// How long a decision about more than one operation counts, unless it says.
const COUNTS_FOR: Duration = Duration::from_secs(30 * 60);

/// Longest it may count.
const COUNTS_FOR_MAX: Duration = Duration::from_secs(24 * 3600);

fn scope(about: Option<About>, ttl: Option<&str>) -> Result<Scope, Problem> {
    let lives = text::duration("ttl", ttl, COUNTS_FOR, COUNTS_FOR_MAX)?;
    match about.unwrap_or_default() {
        About::Activity => Ok(Scope::Activity(lives)),
        About::Run => Ok(Scope::Run(lives)),
        About::Once if ttl.is_some() => Err(Problem::invalid_field(
            "`ttl` is for decisions about more than one operation; say `\"scope\": \"activity\"` or `\"run\"`, or leave it out",
        )),
        About::Once => Ok(Scope::Once),
    }
}

/// A yes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approve {
    /// Why, for the log.
    reason: Option<String>,
    scope: Option<About>,
    /// How long it counts with a `scope` beyond `once`: `30m` unless said, at most `24h`.
    #[schema(value_type = Option<LivesText>)]
    ttl: Option<String>,
    /// Who decides; `operator` unless said.
    #[schema(value_type = Option<Id>)]
    by: Option<String>,
}

/// Lets what is held go on. A second decision is answered 409 with the first.
#[utoipa::path(post, path = "/v1/approvals/{id}/approve", tag = "approvals", params(("id" = String, Path,)),
    request_body = Approve, responses((status = 200, body = Shown<'static>), Problems))]
pub(super) async fn approve(
    State(api): State<Arc<OperatorApi>>,
    InPath(id): InPath<String>,
    Json(approve): Json<Approve>,
) -> Result<Response, Problem> {
    let by = by(approve.by.as_deref())?;
    let scope = scope(approve.scope, approve.ttl.as_deref())?;
    let outcome = api.gate.approve_all_of(&ApprovalId(id.into()), scope, &by);
    if let (Ok(view), Some(_)) = (&outcome, &approve.reason) {
        let reason = why(approve.reason.as_deref())?;
        tracing::info!(approval_id = %view.id, %by, %reason, "approved for a reason");
    }
    decided(outcome)
}

/// A no.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reject {
    /// Why; the agent is told. Must be there.
    #[schema(value_type = Why, required = true)]
    reason: Option<String>,
    scope: Option<About>,
    /// How long it counts with a `scope` beyond `once`: `30m` unless said, at most `24h`.
    #[schema(value_type = Option<LivesText>)]
    ttl: Option<String>,
    /// Who decides; `operator` unless said.
    #[schema(value_type = Option<Id>)]
    by: Option<String>,
}

/// Refuses what is held. A second decision is answered 409 with the first.
#[utoipa::path(post, path = "/v1/approvals/{id}/reject", tag = "approvals", params(("id" = String, Path,)),
    request_body = Reject, responses((status = 200, body = Shown<'static>), Problems))]
pub(super) async fn reject(
    State(api): State<Arc<OperatorApi>>,
    InPath(id): InPath<String>,
    Json(reject): Json<Reject>,
) -> Result<Response, Problem> {
    let by = by(reject.by.as_deref())?;
    let reason = why(reject.reason.as_deref())?;
    let scope = scope(reject.scope, reject.ttl.as_deref())?;
    let id = ApprovalId(id.into());
    decided(api.gate.reject_all_of(&id, reason, scope, &by))
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
        Err(DecideError::Scope(error)) => Err(too_wide(error)),
        Err(DecideError::Already(view)) => {
            let state = view.state.as_str();
            let detail = format!("approval {} was decided before: it is {state}", view.id);
            let recorded = serde_json::to_value(shown(&view)).unwrap_or(Value::Null);
            let problem = Problem::new(StatusCode::CONFLICT, "already_decided", detail);
            Err(problem.about(recorded))
        }
    }
}

fn too_wide(error: ScopeError) -> Problem {
    let (code, detail) = match error {
        ScopeError::NoActivity => (
            "no_activity",
            "what was asked about is in no open activity; decide with scope `once` or `run`",
        ),
        ScopeError::NoRun => (
            "no_run",
            "what was asked about is in no open run; decide with scope `once`",
        ),
        ScopeError::Outcome => (
            "scope_not_applicable",
            "it is about an answer, and each answer is another; decide with scope `once`",
        ),
        ScopeError::Full => {
            return Problem::overloaded("decisions about more than one operation");
        }
    };
    Problem::new(StatusCode::CONFLICT, code, detail)
}

fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_approval",
        "no such approval is known; GET /v1/approvals lists them",
    )
}
