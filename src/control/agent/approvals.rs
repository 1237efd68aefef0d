//! Where an approval stands, for an agent that waits for it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::ApprovalId;
use crate::gate::hold;

use super::super::body::{InPath, InQuery};
use super::super::problem::{Problem, Problems, json};
use super::super::text::{self, rfc3339};
use super::{Shared, Wait};

/// Where an approval stands: the agent sees this, and nothing of what the
/// person sees.
#[derive(Serialize, ToSchema)]
#[schema(as = Approval)]
pub(super) struct Shown<'a> {
    approval_id: &'a str,
    /// `pending`, `granted`, `consumed`, `rejected`, `expired` or `cancelled`.
    state: &'static str,
    expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// What an agent is told to wait before it asks again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Where an approval stands: answers when it is decided, or after `?wait=`.
#[utoipa::path(get, operation_id = "show_approval", path = "/v1/approvals/{id}", tag = "approvals", params(("id" = String, Path,), Wait),
    responses((status = 200, body = Shown<'static>), Problems))]
pub(super) async fn show(
    State(api): State<Arc<Shared>>,
    InPath(id): InPath<String>,
    InQuery(wait): InQuery<Wait>,
) -> Result<Response, Problem> {
    let at_most = api.api.settings.wait_max;
    let within = text::wait(wait.wait.as_deref(), Duration::ZERO, at_most)?;
    let id = ApprovalId(id.into());
    let Some(view) = api.api.gate.approval_within(&id, within).await else {
        let detail = "no such approval is known; it may have expired long ago";
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown_approval",
            detail,
        ));
    };
    let reason = match &view.state {
        hold::State::Rejected(reason) | hold::State::Cancelled(reason) => Some(&*reason.0),
        hold::State::Pending
        | hold::State::Granted
        | hold::State::Consumed
        | hold::State::Expired => None,
    };
    let shown = Shown {
        approval_id: &view.id.0,
        state: view.state.as_str(),
        expires_at: rfc3339(view.expires_at),
        reason,
        retry_after: (view.state == hold::State::Pending).then_some(RETRY_AFTER_SECONDS),
    };
    Ok(json(StatusCode::OK, &shown))
}
