//! Calls of tools: asked about without doing them, done, and told.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::body::{InQuery, Json};
use super::super::described::{Id, TraceParent};
use super::super::problem::{Problem, Problems};
use super::super::text::required;
use super::answer::{Answer, Given, Verdicts};
use super::evaluate::{self, Asked};
use super::spans::{Span, Tool};
use super::whose::{Heard, Named};
use super::{Shared, Wait};

/// A call of a tool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    /// The tool; must be said.
    #[schema(value_type = Id, required = true)]
    name: Option<String>,
    /// The MCP server it is a tool of; without one it is a function of the agent.
    server: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    arguments: Option<Box<RawValue>>,
    /// Whose it is; without any of these it is attributed as traffic is.
    #[schema(value_type = Option<Id>)]
    workflow_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    run_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    activity_id: Option<String>,
    /// A context of `PUT /v1/contexts/{name}`.
    #[schema(value_type = Option<Id>)]
    context: Option<String>,
    /// W3C trace context.
    #[schema(value_type = Option<TraceParent>)]
    traceparent: Option<String>,
}

/// Says what a call would be answered, and decides nothing: nothing is held or
/// recorded, and nothing may be done by it. Only the embedded policy can be
/// asked so; OpenBox Core takes every question for something that happens.
#[utoipa::path(post, operation_id = "check_tool", path = "/v1/tools:check", tag = "tools", request_body = Call,
    responses((status = 200, body = Answer<'static>), Problems))]
pub(super) async fn check(
    State(api): State<Arc<Shared>>,
    heard: Heard,
    Json(call): Json<Call>,
) -> Result<Response, Problem> {
    let Asked {
        operation, session, ..
    } = api.call(&heard, call)?;
    let gate = &api.api.gate;
    let noted = gate.preview(&operation, &session).ok_or_else(|| {
        let detail = "OpenBox Core judges here, and would take the question for a call that happens; POST /v1/tools:submit asks when it is meant";
        Problem::new(StatusCode::CONFLICT, "no_dry_run", detail)
    })?;
    let mut given = Given::noted(operation.id.to_string(), &operation.context, &noted);
    given.also.dry_run = Some(true);
    given.also.attribution = Some(operation.attribution.as_str());
    Ok(given.response(gate))
}

/// Asks before a call. Where it is let go, its outcome is told to
/// `/v1/tools:complete`.
#[utoipa::path(post, operation_id = "submit_tool", path = "/v1/tools:submit", tag = "tools", params(Wait), request_body = Call,
    responses(Verdicts, Problems))]
pub(super) async fn submit(
    State(api): State<Arc<Shared>>,
    heard: Heard,
    InQuery(wait): InQuery<Wait>,
    Json(call): Json<Call>,
) -> Result<Response, Problem> {
    let within = api.hold_within(&wait)?;
    let asked = api.call(&heard, call)?;
    Ok(evaluate::start(&api, asked, within).await)
}

/// How a call went.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// The `event_id` that its submission was answered with; must be said.
    #[schema(value_type = Id, required = true)]
    event_id: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Box<RawValue>>,
    /// What went wrong.
    error: Option<String>,
}

/// Tells how a call went.
#[utoipa::path(post, operation_id = "complete_tool", path = "/v1/tools:complete", tag = "tools", request_body = Done,
    responses((status = 200, body = Answer<'static>), Problems))]
pub(super) async fn complete(
    State(api): State<Arc<Shared>>,
    Json(done): Json<Done>,
) -> Result<Response, Problem> {
    let event_id = required("event_id", done.event_id.as_deref())?;
    let outcome = Span::of_call(done.result, done.error);
    evaluate::complete(&api, &event_id, outcome).await
}

impl Shared {
    fn call(&self, heard: &Heard, call: Call) -> Result<Asked, Problem> {
        let tool = Tool {
            name: required("name", call.name.as_deref())?.to_string(),
            server: call.server,
            arguments: call.arguments,
        };
        let named = Named {
            workflow_id: call.workflow_id,
            run_id: call.run_id,
            activity_id: call.activity_id,
            context: call.context,
            traceparent: call.traceparent,
        };
        let (kind, span) = tool.span();
        self.asked(heard, &named, kind, span)
    }
}
