//! Activities: their beginning and their end.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{ActivityRef, Context, EventKind, JsonText, Refusal, TraceId};
use crate::process::clock;

use super::super::body::{InPath, InQuery, Json, whole_number};
use super::super::described::{Fault, Id, TraceParent};
use super::super::problem::{Problem, Problems};
use super::super::text::{id, optional, required};
use super::answer::Verdicts;
use super::ended::Known;
use super::subject::inside;
use super::{Shared, Wait, answer, contexts, fields};

/// An activity that starts.
#[derive(Deserialize, ToSchema)]
#[schema(as = StartActivity)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    workflow_id: Option<String>,
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    run_id: Option<String>,
    /// Made up if left out.
    #[schema(value_type = Option<Id>)]
    activity_id: Option<String>,
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    activity_type: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    input: Option<Box<RawValue>>,
    /// From 1.
    #[schema(minimum = 1, maximum = 4294967295_u32)]
    #[serde(default, deserialize_with = "whole_number")]
    attempt: Option<u32>,
    #[schema(value_type = Option<TraceParent>)]
    traceparent: Option<String>,
    #[schema(value_type = Option<Id>)]
    context: Option<String>,
}

/// Starts an activity. `traceparent` and `context` (a proxy user name) name it
/// once it is allowed.
#[utoipa::path(post, operation_id = "start_activity", path = "/v1/activities", tag = "activities", params(Wait), request_body = Start,
    responses(Verdicts, Problems))]
pub(super) async fn start(
    State(api): State<Arc<Shared>>,
    InQuery(wait): InQuery<Wait>,
    Json(start): Json<Start>,
) -> Result<Response, Problem> {
    let within = api.hold_within(&wait)?;
    let workflow_id = required("workflow_id", start.workflow_id.as_deref())?;
    let run_id = required("run_id", start.run_id.as_deref())?;
    let kind = required("activity_type", start.activity_type.as_deref())?;
    let names = Names {
        trace: start
            .traceparent
            .as_deref()
            .map(contexts::traceparent)
            .transpose()?,
        user: optional("context", start.context.as_deref())?,
    };
    let run = api.open_run(&workflow_id, &run_id)?;
    let activity = ActivityRef {
        id: optional("activity_id", start.activity_id.as_deref())?
            .unwrap_or_else(|| clock::operation_id(clock::now()).to_string().into()),
        kind,
        attempt: attempt(start.attempt)?,
        input: fields::array(start.input.as_deref()),
    };
    let context = inside(&run.context, activity);
    Ok(begin(&api, context, Vec::new(), &names, within).await)
}

/// What may name an activity besides its ids.
#[derive(Debug, Default)]
pub(super) struct Names {
    trace: Option<TraceId>,
    user: Option<Arc<str>>,
}

/// Has the beginning of an activity judged.
pub(super) async fn begin(
    api: &Shared,
    context: Arc<Context>,
    fields: Vec<(&'static str, JsonText)>,
    names: &Names,
    within: Duration,
) -> Response {
    let (event, noted) = api
        .note(EventKind::ActivityStarted, context, fields, within)
        .await;
    let registered = match noted.refusal {
        None => register(api, &event.context, names),
        Some(_) => None,
    };
    answer::answer(&api.api.gate, &event, &noted, registered)
}

/// Whether all of `names` stand for the activity now; `None` without any.
fn register(api: &Shared, context: &Context, names: &Names) -> Option<bool> {
    let (registry, now) = (api.api.gate.registry(), clock::now());
    let trace = names
        .trace
        .map(|t| registry.register_trace(t, context, now));
    let user = names.user.as_deref();
    let user = user.map(|name| registry.register_name(name, context, now));
    let outcomes = [trace, user];
    let all = outcomes
        .iter()
        .flatten()
        .all(|outcome| *outcome == Ok(true));
    if !all {
        tracing::warn!(run_id = %context.run_id, "a context could not be registered");
    }
    outcomes.iter().any(Option::is_some).then_some(all)
}

/// How an activity ended, in a word.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
enum EndedAs {
    Completed,
    Failed,
}

/// How an activity ended.
#[derive(Deserialize, ToSchema)]
#[schema(as = CompleteActivity)]
#[serde(deny_unknown_fields)]
pub(super) struct Complete {
    workflow_id: Option<String>,
    run_id: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    output: Option<Box<RawValue>>,
    /// A text, or an object with a text as `message`.
    #[schema(value_type = Option<Fault>)]
    error: Option<Box<RawValue>>,
    /// `completed` or `failed`; by default as the error says.
    #[schema(value_type = Option<EndedAs>)]
    status: Option<String>,
}

/// Ends an activity, with its output or its error.
#[utoipa::path(post, operation_id = "complete_activity", path = "/v1/activities/{activity_id}/complete", tag = "activities", params(("activity_id" = inline(Id), Path,), Wait), request_body = Complete,
    responses(Verdicts, Problems))]
pub(super) async fn complete(
    State(api): State<Arc<Shared>>,
    InPath(activity_id): InPath<String>,
    InQuery(wait): InQuery<Wait>,
    Json(complete): Json<Complete>,
) -> Result<Response, Problem> {
    let within = api.hold_within(&wait)?;
    let activity_id = id("activity_id", &activity_id)?;
    let known = api.activity(
        &activity_id,
        complete.workflow_id.as_deref(),
        complete.run_id.as_deref(),
    )?;
    let ending = Ending {
        output: fields::or_null(complete.output.as_deref()),
        error: complete.error.as_deref().map(fields::error).transpose()?,
        status: status(complete.status.as_deref())?,
    };
    Ok(end(&api, known, ending, within).await)
}

/// How an activity ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) output: JsonText,
    pub(super) error: Option<JsonText>,
    /// `None`: as the error says.
    pub(super) status: Option<&'static str>,
}

/// Has the end of an activity judged.
pub(super) async fn end(api: &Shared, known: Known, ending: Ending, within: Duration) -> Response {
    let now = clock::now();
    let Ending {
        output,
        error,
        status,
    } = ending;
    let status = status.unwrap_or(match error {
        Some(_) => "failed",
        None => "completed",
    });
    let input = known.context.activity.as_ref().map(|a| a.input.clone());
    let fields = vec![
        ("status", fields::string(status)),
        ("start_time", fields::seconds(known.began)),
        ("end_time", fields::seconds(now)),
        ("duration_ms", fields::millis(now.since(known.began))),
        ("span_count", JsonText("0".into())),
        ("spans", JsonText::empty_array()),
        (
            "activity_input",
            input.unwrap_or_else(JsonText::empty_array),
        ),
        ("activity_output", output),
        ("error", error.unwrap_or_else(|| JsonText("null".into()))),
    ];
    let kind = EventKind::ActivityCompleted;
    let (event, noted) = api.note(kind, known.context.clone(), fields, within).await;
    match noted.refusal {
        Some(Refusal::ApprovalPending { .. }) => api.ended.keep(known),
        Some(_) | None => api.ended.forget(&known.context),
    }
    answer::answer(&api.api.gate, &event, &noted, None)
}

/// `attempt`, from 1.
pub(super) fn attempt(attempt: Option<u32>) -> Result<u32, Problem> {
    match attempt {
        Some(0) => Err(Problem::invalid_field("`attempt` is 0; it counts from 1")),
        Some(attempt) => Ok(attempt),
        None => Ok(1),
    }
}

/// `status` of a completion.
pub(super) fn status(status: Option<&str>) -> Result<Option<&'static str>, Problem> {
    match status {
        None => Ok(None),
        Some("completed") => Ok(Some("completed")),
        Some("failed") => Ok(Some("failed")),
        Some(_) => Err(Problem::invalid_field(
            "`status` must be \"completed\" or \"failed\"",
        )),
    }
}
