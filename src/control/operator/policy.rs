//! The policy loaded again, and how things stand.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::gate::{Tally, hold};

use super::super::problem::{Problem, Problems, json};
use super::OperatorApi;

/// What is live now.
#[derive(Serialize, ToSchema)]
pub(super) struct Reloaded {
    policy: String,
}

/// Loads the policy again; where that fails, the last good one stays.
#[utoipa::path(post, operation_id = "reload_policy", path = "/v1/policy/reload", tag = "sidecar", responses((status = 200, body = Reloaded), Problems))]
pub(super) async fn reload(State(api): State<Arc<OperatorApi>>) -> Result<Response, Problem> {
    let reload = api.reload.clone();
    // It reads files and compiles them.
    let outcome = tokio::task::spawn_blocking(move || reload()).await;
    let why = match outcome {
        Ok(Ok(policy)) => return Ok(json(StatusCode::OK, &Reloaded { policy })),
        Ok(Err(why)) => why,
        Err(_) => "the reload broke off".to_owned(),
    };
    let detail = format!("the last good policy stays: {why}");
    Err(Problem::new(
        StatusCode::CONFLICT,
        "policy_not_loaded",
        detail,
    ))
}

/// How things stand.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    version: &'static str,
    policy: String,
    operations: Operations,
    approvals_pending: usize,
    runs_open: usize,
    runs_halted: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    everything_halted: Option<String>,
}

/// Operations by what was decided, since the start.
#[derive(Serialize, ToSchema)]
#[schema(as = Tally)]
pub(super) struct Operations {
    allowed: u64,
    constrained: u64,
    approvals: u64,
    blocked: u64,
    halted: u64,
    refused: u64,
    withheld: u64,
}

impl From<Tally> for Operations {
    fn from(tally: Tally) -> Self {
        Self {
            allowed: tally.allowed,
            constrained: tally.constrained,
            approvals: tally.approvals,
            blocked: tally.blocked,
            halted: tally.halted,
            refused: tally.refused,
            withheld: tally.withheld,
        }
    }
}

/// How things stand.
#[utoipa::path(get, path = "/v1/status", tag = "sidecar", responses((status = 200, body = Status), Problems))]
pub(super) async fn status(State(api): State<Arc<OperatorApi>>) -> Response {
    let registry = api.gate.registry();
    let runs = registry.all_runs();
    let approvals = api.gate.approvals();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        policy: (api.describe)(),
        operations: api.gate.tally().into(),
        approvals_pending: approvals
            .iter()
            .filter(|approval| approval.state == hold::State::Pending)
            .count(),
        runs_open: runs.iter().filter(|run| !run.is_closed()).count(),
        runs_halted: runs
            .iter()
            .filter(|run| run.latch.reason().is_some())
            .count(),
        everything_halted: registry.everything_halted().map(|r| r.to_string()),
    };
    json(StatusCode::OK, &status)
}
