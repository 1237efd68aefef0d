//! Runs, listed, halted and resumed.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::session::{Registry, Run};

use super::super::body::{InPath, Json};
use super::super::described::{Id, Why};
use super::super::problem::{Problem, Problems, json};
use super::super::text::rfc3339;
use super::{OperatorApi, by, why};

/// Names the sidecar's own session, whatever its run is called.
pub(super) const OWN: &str = "own";

/// A run as the operator sees it. Field names are part of the product.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
pub(super) struct Shown<'a> {
    workflow_id: &'a str,
    run_id: &'a str,
    workflow_type: &'a str,
    task_queue: &'a str,
    own: bool,
    open: bool,
    activities_open: usize,
    opened_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    halted: Option<String>,
}

fn shown<'a>(run: &'a Run, registry: &Registry) -> Shown<'a> {
    let context = &run.context;
    Shown {
        workflow_id: &context.workflow_id,
        run_id: &context.run_id,
        workflow_type: &context.workflow_type,
        task_queue: &context.task_queue,
        own: std::ptr::eq(run, &*registry.own().run),
        open: !run.is_closed(),
        activities_open: run.activities_open(),
        opened_at: rfc3339(run.opened_at),
        halted: run.latch.reason().map(|reason| reason.to_string()),
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Runs)]
pub(super) struct All<'a> {
    runs: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everything_halted: Option<String>,
}

/// The runs that are known, the sidecar's own first.
#[utoipa::path(get, operation_id = "list_runs", path = "/v1/runs", tag = "runs", responses((status = 200, body = All<'static>), Problems))]
pub(super) async fn list(State(api): State<Arc<OperatorApi>>) -> Response {
    let registry = api.gate.registry();
    let mut runs = registry.all_runs();
    if let Some(others) = runs.get_mut(1..) {
        others.sort_by_key(|run| run.opened_at);
    }
    let all = All {
        runs: runs.iter().map(|run| shown(run, registry)).collect(),
        everything_halted: registry.everything_halted().map(|r| r.to_string()),
    };
    json(StatusCode::OK, &all)
}

/// Why a run is to stop.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Halt {
    /// Why; the agent is told. Must be there.
    #[schema(value_type = Why, required = true)]
    reason: Option<String>,
    workflow_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    by: Option<String>,
}

/// Refuses everything that a run does from now on; `own` is the sidecar's.
#[utoipa::path(post, operation_id = "halt_run", path = "/v1/runs/{run_id}/halt", tag = "runs", params(("run_id" = String, Path,)),
    request_body = Halt, responses((status = 200, body = Shown<'static>), Problems))]
pub(super) async fn halt(
    State(api): State<Arc<OperatorApi>>,
    InPath(run_id): InPath<String>,
    Json(halt): Json<Halt>,
) -> Result<Response, Problem> {
    let by = by(halt.by.as_deref())?;
    let reason = why(halt.reason.as_deref())?;
    let registry = api.gate.registry();
    let run = find(registry, &run_id, halt.workflow_id.as_deref())?;
    api.gate.halt(&run, &reason, &by);
    Ok(json(StatusCode::OK, &shown(&run, registry)))
}

/// Which run is to go on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    workflow_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    by: Option<String>,
}

/// A run, and whether it was halted.
#[derive(Serialize, ToSchema)]
pub(super) struct Resumed<'a> {
    /// Whether anything was halted.
    resumed: bool,
    #[serde(flatten)]
    run: Shown<'a>,
}

/// Lets a halted run go on.
#[utoipa::path(post, operation_id = "resume_run", path = "/v1/runs/{run_id}/resume", tag = "runs", params(("run_id" = String, Path,)),
    request_body = Resume, responses((status = 200, body = Resumed<'static>), Problems))]
pub(super) async fn resume(
    State(api): State<Arc<OperatorApi>>,
    InPath(run_id): InPath<String>,
    Json(resume): Json<Resume>,
) -> Result<Response, Problem> {
    let by = by(resume.by.as_deref())?;
    let registry = api.gate.registry();
    let run = find(registry, &run_id, resume.workflow_id.as_deref())?;
    let resumed = api.gate.resume(&run, &by);
    let run = shown(&run, registry);
    Ok(json(StatusCode::OK, &Resumed { resumed, run }))
}

/// The run called `run_id`. Its id is enough where only one workflow has it.
fn find(registry: &Registry, run_id: &str, workflow_id: Option<&str>) -> Result<Arc<Run>, Problem> {
    if run_id == OWN && workflow_id.is_none() {
        return Ok(registry.own().run.clone());
    }
    let mut found = registry.all_runs().into_iter().filter(|run| {
        *run.context.run_id == *run_id
            && workflow_id.is_none_or(|id| *run.context.workflow_id == *id)
    });
    let Some(run) = found.next() else {
        let detail = "no such run is known; GET /v1/runs lists them, and `own` is the sidecar's";
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_run", detail));
    };
    if found.next().is_some() {
        let detail = "several workflows have a run of this id; say `workflow_id` too";
        return Err(Problem::new(StatusCode::CONFLICT, "ambiguous_run", detail));
    }
    Ok(run)
}
