//! Runs: their beginning, their end, and what they are told.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{Context, EventKind, JsonText};
use crate::process::clock;

use super::super::body::{InPath, InQuery, Json};
use super::super::described::{Fault, Id};
use super::super::problem::{Problem, Problems};
use super::super::text::{optional, required};
use super::answer::Verdicts;
use super::{Shared, Wait, answer, fields};

/// A run that starts.
#[derive(Deserialize, ToSchema)]
#[schema(as = StartRun)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    #[schema(value_type = Option<Id>)]
    workflow_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    run_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    workflow_type: Option<String>,
    #[schema(value_type = Option<Id>)]
    task_queue: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    input: Option<Box<RawValue>>,
}

/// Starts a run. Ids left out are made up and returned; a start that waits for
/// a person is tried again with the ids that were returned.
#[utoipa::path(post, operation_id = "start_run", path = "/v1/workflows", tag = "runs", params(Wait), request_body = Start,
    responses(Verdicts, Problems))]
pub(super) async fn start(
    State(api): State<Arc<Shared>>,
    InQuery(wait): InQuery<Wait>,
    Json(start): Json<Start>,
) -> Result<Response, Problem> {
    let own = &api.api.gate.registry().own().context;
    let fresh = || clock::operation_id(clock::now()).to_string().into();
    let context = Context {
        workflow_id: optional("workflow_id", start.workflow_id.as_deref())?.unwrap_or_else(fresh),
        run_id: optional("run_id", start.run_id.as_deref())?.unwrap_or_else(fresh),
        workflow_type: optional("workflow_type", start.workflow_type.as_deref())?
            .unwrap_or_else(|| own.workflow_type.clone()),
        task_queue: optional("task_queue", start.task_queue.as_deref())?
            .unwrap_or_else(|| own.task_queue.clone()),
        activity: None,
    };
    api.not_started(&context.workflow_id, &context.run_id)?;
    let input = start.input.as_deref();
    let fields = input.map(|input| ("activity_input", fields::array(Some(input))));
    let fields = fields.into_iter().collect();
    judge(
        &api,
        EventKind::WorkflowStarted,
        context.into(),
        fields,
        &wait,
    )
    .await
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct RunInPath {
    workflow_id: String,
    run_id: String,
}

/// What came of a run.
#[derive(Deserialize, ToSchema)]
#[schema(as = CompleteRun)]
#[serde(deny_unknown_fields)]
pub(super) struct Complete {
    #[schema(value_type = Option<serde_json::Value>)]
    output: Option<Box<RawValue>>,
}

/// Ends a run well.
#[utoipa::path(post, operation_id = "complete_run", path = "/v1/workflows/{workflow_id}/runs/{run_id}/complete", tag = "runs", params(RunInPath, Wait), request_body = Complete,
    responses(Verdicts, Problems))]
pub(super) async fn complete(
    State(api): State<Arc<Shared>>,
    InPath(path): InPath<RunInPath>,
    InQuery(wait): InQuery<Wait>,
    Json(complete): Json<Complete>,
) -> Result<Response, Problem> {
    let run = api.run(&path.workflow_id, &path.run_id)?;
    let output = fields::or_null(complete.output.as_deref());
    let fields = vec![("workflow_output", output)];
    judge(
        &api,
        EventKind::WorkflowCompleted,
        run.context.clone(),
        fields,
        &wait,
    )
    .await
}

/// Why a run failed.
#[derive(Deserialize, ToSchema)]
#[schema(as = FailRun)]
#[serde(deny_unknown_fields)]
pub(super) struct Fail {
    /// Must be said: a text, or an object with a text as `message`.
    #[schema(value_type = Fault, required = true)]
    error: Option<Box<RawValue>>,
}

/// Ends a run that failed.
#[utoipa::path(post, operation_id = "fail_run", path = "/v1/workflows/{workflow_id}/runs/{run_id}/fail", tag = "runs", params(RunInPath, Wait), request_body = Fail,
    responses(Verdicts, Problems))]
pub(super) async fn fail(
    State(api): State<Arc<Shared>>,
    InPath(path): InPath<RunInPath>,
    InQuery(wait): InQuery<Wait>,
    Json(fail): Json<Fail>,
) -> Result<Response, Problem> {
    let run = api.run(&path.workflow_id, &path.run_id)?;
    let Some(error) = fail.error else {
        let example = "\"error\": \"no such order\"";
        return Err(Problem::missing_field("error", example));
    };
    let fields = vec![("error", fields::error(&error)?)];
    judge(
        &api,
        EventKind::WorkflowFailed,
        run.context.clone(),
        fields,
        &wait,
    )
    .await
}

/// A signal: `user_input`, `agent_output`, `resume`, or another.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Signal {
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    workflow_id: Option<String>,
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    run_id: Option<String>,
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    signal_name: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    signal_args: Option<Box<RawValue>>,
}

/// Tells what a run was told.
#[utoipa::path(post, operation_id = "signal_run", path = "/v1/signals", tag = "runs", params(Wait), request_body = Signal,
    responses(Verdicts, Problems))]
pub(super) async fn signal(
    State(api): State<Arc<Shared>>,
    InQuery(wait): InQuery<Wait>,
    Json(signal): Json<Signal>,
) -> Result<Response, Problem> {
    let workflow_id = required("workflow_id", signal.workflow_id.as_deref())?;
    let run_id = required("run_id", signal.run_id.as_deref())?;
    let name = required("signal_name", signal.signal_name.as_deref())?;
    let run = api.open_run(&workflow_id, &run_id)?;
    let fields = vec![
        ("signal_args", fields::array(signal.signal_args.as_deref())),
        ("signal_name", fields::string(&name)),
    ];
    judge(
        &api,
        EventKind::SignalReceived,
        run.context.clone(),
        fields,
        &wait,
    )
    .await
}

async fn judge(
    api: &Shared,
    kind: EventKind,
    context: Arc<Context>,
    fields: Vec<(&'static str, JsonText)>,
    wait: &Wait,
) -> Result<Response, Problem> {
    let within = api.hold_within(wait)?;
    let (event, noted) = api.note(kind, context, fields, within).await;
    Ok(answer::answer(&api.api.gate, &event, &noted, None))
}
