//! A whole event in the field names of the wire contract, as SDKs build them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{ActivityRef, Context, EventKind, JsonText};
use crate::session::RunKey;

use super::super::body::{InQuery, Json};
use super::super::problem::{Problem, Problems};
use super::super::text::{optional, required};
use super::activities::{self, Ending, Names};
use super::answer::Verdicts;
use super::subject::inside;
use super::{Shared, Wait, answer, fields};

/// A whole event. Fields nobody knows are ignored, as Core ignores them.
#[derive(Deserialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct Whole {
    event_type: Option<String>,
    workflow_id: Option<String>,
    run_id: Option<String>,
    workflow_type: Option<String>,
    task_queue: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    parent_workflow_id: Option<Box<RawValue>>,
    #[schema(value_type = Option<serde_json::Value>)]
    multi_agent_session_id: Option<Box<RawValue>>,
    #[schema(value_type = Option<serde_json::Value>)]
    metadata: Option<Box<RawValue>>,
    activity_id: Option<String>,
    activity_type: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    activity_input: Option<Box<RawValue>>,
    #[schema(value_type = Option<serde_json::Value>)]
    activity_output: Option<Box<RawValue>>,
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<Box<RawValue>>,
    attempt: Option<u32>,
    status: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    error: Option<Box<RawValue>>,
    #[schema(value_type = Option<serde_json::Value>)]
    workflow_output: Option<Box<RawValue>>,
    signal_name: Option<String>,
    from_agent_did: Option<String>,
    #[schema(value_type = Option<serde_json::Value>)]
    signal_args: Option<Box<RawValue>>,
    hook_trigger: Option<bool>,
}

/// Takes a whole event, in the field names of the wire contract. An
/// ActivityStarted opens the run it names if nothing did
/// before, for SDKs can be told to leave WorkflowStarted out.
#[utoipa::path(post, path = "/v1/events", tag = "runs", params(Wait), request_body = Whole,
    responses(Verdicts, Problems))]
pub(super) async fn take(
    State(api): State<Arc<Shared>>,
    InQuery(wait): InQuery<Wait>,
    Json(whole): Json<Whole>,
) -> Result<Response, Problem> {
    let within = api.hold_within(&wait)?;
    if whole.hook_trigger == Some(true) {
        let detail = "this is a hook event, and only lifecycle events are taken here; POST /api/v1/governance/evaluate takes both";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "hook_event", detail));
    }
    let kind = whole.kind()?;
    if kind == EventKind::Handoff {
        // Between agents: it is the session of this sidecar's own that hands over.
        let context = api.api.gate.registry().own().context.clone();
        let (event, noted) = api.note(kind, context, whole.handoff()?, within).await;
        return Ok(answer::answer(&api.api.gate, &event, &noted, None));
    }
    let workflow_id = required("workflow_id", whole.workflow_id.as_deref())?;
    let run_id = required("run_id", whole.run_id.as_deref())?;
    match kind {
        EventKind::WorkflowStarted => api.not_started(&workflow_id, &run_id)?,
        EventKind::Handoff => {}
        EventKind::ActivityStarted => {
            let context = inside(&whole.run(&api, workflow_id, run_id)?, whole.activity()?);
            let fields = whole.extra();
            return Ok(activities::begin(&api, context, fields, &Names::default(), within).await);
        }
        EventKind::ActivityCompleted => {
            let id = required("activity_id", whole.activity_id.as_deref())?;
            let known = api.activity(&id, Some(&workflow_id), Some(&run_id))?;
            return Ok(activities::end(&api, known, whole.ending()?, within).await);
        }
        EventKind::SignalReceived => drop(api.open_run(&workflow_id, &run_id)?),
        EventKind::WorkflowCompleted | EventKind::WorkflowFailed => {
            drop(api.run(&workflow_id, &run_id)?);
        }
    }
    let context = Arc::new(whole.run(&api, workflow_id, run_id)?);
    let fields = whole.fields(kind)?;
    let (event, noted) = api.note(kind, context, fields, within).await;
    Ok(answer::answer(&api.api.gate, &event, &noted, None))
}

impl Whole {
    fn kind(&self) -> Result<EventKind, Problem> {
        let word = required("event_type", self.event_type.as_deref())?;
        let known = EventKind::ALL.into_iter().find(|k| k.as_str() == &*word);
        known.ok_or_else(|| {
            let all = EventKind::ALL.map(EventKind::as_str).join(", ");
            let detail = format!("event_type is \"{word}\"; expected one of {all}");
            Problem::new(StatusCode::BAD_REQUEST, "unknown_event_type", detail)
        })
    }

    /// The run as the event tells it, else as it was opened, else as our own.
    fn run(
        &self,
        api: &Shared,
        workflow_id: Arc<str>,
        run_id: Arc<str>,
    ) -> Result<Context, Problem> {
        let registry = api.api.gate.registry();
        let key = RunKey {
            workflow_id,
            run_id,
        };
        let known = registry.run(&key).map(|run| run.context.clone());
        let known = known.unwrap_or_else(|| registry.own().context.clone());
        Ok(Context {
            workflow_id: key.workflow_id,
            run_id: key.run_id,
            workflow_type: optional("workflow_type", self.workflow_type.as_deref())?
                .unwrap_or_else(|| known.workflow_type.clone()),
            task_queue: optional("task_queue", self.task_queue.as_deref())?
                .unwrap_or_else(|| known.task_queue.clone()),
            activity: None,
        })
    }

    fn activity(&self) -> Result<ActivityRef, Problem> {
        Ok(ActivityRef {
            id: required("activity_id", self.activity_id.as_deref())?,
            kind: required("activity_type", self.activity_type.as_deref())?,
            attempt: activities::attempt(self.attempt)?,
            input: fields::array(self.activity_input.as_deref()),
        })
    }

    fn ending(&self) -> Result<Ending, Problem> {
        // Older SDKs say `result`, which Core does not keep.
        let output = self.activity_output.as_deref().or(self.result.as_deref());
        Ok(Ending {
            output: fields::or_null(output),
            error: self.error.as_deref().map(fields::error).transpose()?,
            status: activities::status(self.status.as_deref())?,
        })
    }

    fn fields(&self, kind: EventKind) -> Result<Vec<(&'static str, JsonText)>, Problem> {
        let mut all = self.extra();
        match kind {
            EventKind::WorkflowStarted => {
                let input = self.activity_input.as_deref();
                all.extend(input.map(|input| ("activity_input", fields::array(Some(input)))));
            }
            EventKind::WorkflowCompleted => {
                let output = fields::or_null(self.workflow_output.as_deref());
                all.push(("workflow_output", output));
            }
            EventKind::WorkflowFailed => {
                let Some(error) = self.error.as_deref() else {
                    let example = "\"error\": {\"type\": \"ValueError\", \"message\": \"no\"}";
                    return Err(Problem::missing_field("error", example));
                };
                all.push(("error", fields::error(error)?));
            }
            EventKind::SignalReceived => {
                let name = required("signal_name", self.signal_name.as_deref())?;
                all.push(("signal_args", fields::array(self.signal_args.as_deref())));
                all.push(("signal_name", fields::string(&name)));
            }
            EventKind::ActivityStarted | EventKind::ActivityCompleted | EventKind::Handoff => {}
        }
        Ok(all)
    }

    fn handoff(&self) -> Result<Vec<(&'static str, JsonText)>, Problem> {
        let from = required("from_agent_did", self.from_agent_did.as_deref())?;
        let session = self.multi_agent_session_id.as_deref();
        let session: Option<String> = session
            .map(|session| serde_json::from_str(session.get()))
            .transpose()
            .map_err(|_| Problem::invalid_field("`multi_agent_session_id` must be a text"))?;
        let session = required("multi_agent_session_id", session.as_deref())?;
        Ok(vec![
            ("from_agent_did", fields::string(&from)),
            ("multi_agent_session_id", fields::string(&session)),
        ])
    }

    /// What any event may carry.
    fn extra(&self) -> Vec<(&'static str, JsonText)> {
        let all = [
            ("parent_workflow_id", &self.parent_workflow_id),
            ("multi_agent_session_id", &self.multi_agent_session_id),
            ("metadata", &self.metadata),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, fields::as_sent(value.as_deref()?))))
            .collect()
    }
}
