//! A whole event in the field names of the wire contract, as SDKs build them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::value::RawValue;

use crate::domain::{ActivityRef, Context, EventKind, JsonText};
use crate::policy::core::told::{self, Told, Unfit, What};
use crate::session::RunKey;

use super::super::body::{InQuery, Json};
use super::super::problem::{Problem, Problems};
use super::super::text::required;
use super::activities::{self, Ending, Names};
use super::answer::Verdicts;
use super::subject::inside;
use super::{Shared, Wait, answer, fields};

type Fields = Vec<(&'static str, JsonText)>;

/// Takes a whole event, in the field names of the wire contract. An
/// ActivityStarted opens the run it names if nothing did
/// before, for SDKs can be told to leave WorkflowStarted out.
#[utoipa::path(post, operation_id = "take_event", path = "/v1/events", tag = "runs", params(Wait), request_body = told::Whole,
    responses(Verdicts, Problems))]
pub(super) async fn take(
    State(api): State<Arc<Shared>>,
    InQuery(wait): InQuery<Wait>,
    Json(whole): Json<Box<RawValue>>,
) -> Result<Response, Problem> {
    let within = api.hold_within(&wait)?;
    let mut told = told::told(whole.get().as_bytes())?;
    match &mut told.what {
        What::Hook(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "hook_event",
            "this is a hook event, and only lifecycle events are taken here; POST /api/v1/governance/evaluate takes both",
        )),
        What::Lifecycle(kind, fields) => {
            let (kind, fields) = (*kind, std::mem::take(fields));
            api.lifecycle(told, kind, fields, within).await
        }
    }
}

impl Shared {
    async fn lifecycle(
        &self,
        told: Told,
        kind: EventKind,
        fields: Fields,
        within: Duration,
    ) -> Result<Response, Problem> {
        let Some(key) = key(&told)? else {
            // A handoff: it is the session of this sidecar's own that hands over.
            let context = self.api.gate.registry().own().context.clone();
            return Ok(self.noted(kind, context, fields, within).await);
        };
        match kind {
            EventKind::WorkflowStarted => self.not_started(&key.workflow_id, &key.run_id)?,
            EventKind::ActivityStarted => {
                let context = inside(&self.told_run(&told, key), activity(told)?);
                let names = Names::default();
                return Ok(activities::begin(self, context, fields, &names, within).await);
            }
            EventKind::ActivityCompleted => {
                let id = told.activity.as_ref().map(|activity| &*activity.id);
                let id = required("activity_id", id)?;
                let known = self.activity(&id, Some(&key.workflow_id), Some(&key.run_id))?;
                return Ok(activities::end(self, known, ending(fields)?, within).await);
            }
            EventKind::SignalReceived => drop(self.open_run(&key.workflow_id, &key.run_id)?),
            EventKind::WorkflowFailed => {
                drop(self.run(&key.workflow_id, &key.run_id)?);
                failure(&fields)?;
            }
            EventKind::WorkflowCompleted | EventKind::Handoff => {
                drop(self.run(&key.workflow_id, &key.run_id)?);
            }
        }
        let context = Arc::new(self.told_run(&told, key));
        Ok(self.noted(kind, context, fields, within).await)
    }

    async fn noted(
        &self,
        kind: EventKind,
        context: Arc<Context>,
        fields: Fields,
        within: Duration,
    ) -> Response {
        let (event, noted) = self.note(kind, context, fields, within).await;
        answer::answer(&self.api.gate, &event, &noted, None)
    }

    /// The run as the event tells it, else as it was opened, else as our own.
    fn told_run(&self, told: &Told, key: RunKey) -> Context {
        let registry = self.api.gate.registry();
        let known = registry.run(&key).map(|run| run.context.clone());
        let known = known.unwrap_or_else(|| registry.own().context.clone());
        Context {
            workflow_id: key.workflow_id,
            run_id: key.run_id,
            workflow_type: told
                .workflow_type
                .clone()
                .unwrap_or_else(|| known.workflow_type.clone()),
            task_queue: told
                .task_queue
                .clone()
                .unwrap_or_else(|| known.task_queue.clone()),
            activity: None,
        }
    }
}

/// Whose event it is, by ids that the other routes take too.
fn key(told: &Told) -> Result<Option<RunKey>, Problem> {
    let what_hands_over = matches!(told.what, What::Lifecycle(EventKind::Handoff, _));
    let Some(run) = told.run.as_ref().filter(|_| !what_hands_over) else {
        return Ok(None);
    };
    Ok(Some(RunKey {
        workflow_id: required("workflow_id", Some(&run.workflow_id))?,
        run_id: required("run_id", Some(&run.run_id))?,
    }))
}

fn activity(told: Told) -> Result<ActivityRef, Problem> {
    let activity = told.activity;
    let id = activity.as_ref().map(|activity| &*activity.id);
    let kind = activity
        .as_ref()
        .and_then(|activity| activity.kind.as_deref());
    Ok(ActivityRef {
        id: required("activity_id", id)?,
        kind: required("activity_type", kind)?,
        attempt: activity.as_ref().map_or(1, |activity| activity.attempt),
        input: activity.map_or_else(JsonText::empty_array, |activity| activity.input),
    })
}

/// How an activity ended, of the fields of its completion: when it began and
/// what its input was is known here.
fn ending(mut fields: Fields) -> Result<Ending, Problem> {
    let error = take_field(&mut fields, "error").filter(|error| &*error.0 != "null");
    let status = take_field(&mut fields, "status");
    let status: Option<Box<str>> = status
        .map(|status| serde_json::from_str(&status.0))
        .transpose()
        .map_err(|_| Problem::invalid_field("`status` must be a text"))?;
    Ok(Ending {
        output: take_field(&mut fields, "activity_output").unwrap_or_else(|| fields::or_null(None)),
        error: error.map(fields::told_error).transpose()?,
        status: activities::status(status.as_deref())?,
    })
}

fn take_field(fields: &mut Fields, name: &str) -> Option<JsonText> {
    let at = fields.iter().position(|(of, _)| *of == name)?;
    Some(fields.swap_remove(at).1)
}

/// A run that failed says why.
fn failure(fields: &Fields) -> Result<(), Problem> {
    let error = fields.iter().find(|(name, _)| *name == "error");
    match error.filter(|(_, error)| &*error.0 != "null") {
        Some((_, error)) => fields::told_error(error.clone()).map(drop),
        None => {
            let example = "\"error\": {\"type\": \"ValueError\", \"message\": \"no\"}";
            Err(Problem::missing_field("error", example))
        }
    }
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        Self::new(StatusCode::BAD_REQUEST, unfit.code, unfit.message)
    }
}
