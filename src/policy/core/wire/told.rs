//! What an SDK tells Core, read as Core reads it: unknown fields are ignored,
//! nulls are absences, numbers may be integers or floats, and what is wrong is
//! named.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{Action, Answer};
use crate::domain::{EventKind, JsonText, Reported, SpanId, Stage, Timestamp, TraceId};

use super::object;
use super::told_span::{self, Span};
use super::value::{array, as_sent, error, or_null, string};

/// Longest id that is taken, characters: Temporal's own bound is 1,000.
const ID_CHARS_MAX: usize = 1_024;

/// One event, as an SDK tells it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Whose it is; a handoff need not say.
    pub run: Option<ToldRun>,
    /// `workflow_type`, which some events leave out.
    pub workflow_type: Option<Arc<str>>,
    /// `task_queue`, which some events leave out.
    pub task_queue: Option<Arc<str>>,
    /// The activity, where the event is about one.
    pub activity: Option<ToldActivity>,
    /// What happened.
    pub what: What,
}

/// A run, as an SDK names it.
#[derive(Clone, Debug)]
pub struct ToldRun {
    /// `workflow_id`.
    pub workflow_id: Arc<str>,
    /// `run_id`.
    pub run_id: Arc<str>,
}

/// An activity, as an SDK tells it.
#[derive(Clone, Debug)]
pub struct ToldActivity {
    /// `activity_id`.
    pub id: Arc<str>,
    /// `activity_type`, which some completions leave out.
    pub kind: Option<Arc<str>>,
    /// `attempt`, from 1.
    pub attempt: u32,
    /// `activity_input`, always an array.
    pub input: JsonText,
}

/// What an event is about.
#[derive(Clone, Debug)]
pub enum What {
    /// The lifecycle of a run or activity, and the further fields of the event.
    Lifecycle(EventKind, Vec<(&'static str, JsonText)>),
    /// An operation at one of its stages.
    Hook(Box<Hook>),
}

/// An operation, as a hook tells it at one of its stages.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Before it, or after.
    pub stage: Stage,
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Its span; both stages share it.
    pub span: SpanId,
    /// The span around it.
    pub parent: Option<SpanId>,
    /// When it began, if the hook says so.
    pub started_at: Option<Timestamp>,
    /// When it ended, if the hook says so.
    pub ended_at: Option<Timestamp>,
    /// What it does.
    pub action: Action,
    /// What only a hook can tell.
    pub reported: Reported,
    /// What came back.
    pub answer: Option<Answer>,
    /// What went wrong, in the hook's words.
    pub error: Option<Box<str>>,
}

/// An event that cannot be taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Unfit {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn field(message: impl Into<String>) -> Self {
        Self::new("invalid_field", message)
    }
}

/// The names of an approval: exactly what a poll asks with.
#[derive(Clone, Debug)]
pub struct Polled {
    /// `workflow_id`.
    pub workflow_id: Arc<str>,
    /// `run_id`.
    pub run_id: Arc<str>,
    /// `activity_id`.
    pub activity_id: Arc<str>,
}

/// Every field of an event that is looked at. Others are ignored, as Core
/// ignores them.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct Whole {
    #[schema(value_type = Option<String>)]
    event_type: Option<Value>,
    #[schema(value_type = Option<String>)]
    workflow_id: Option<Value>,
    #[schema(value_type = Option<String>)]
    run_id: Option<Value>,
    #[schema(value_type = Option<String>)]
    workflow_type: Option<Value>,
    #[schema(value_type = Option<String>)]
    task_queue: Option<Value>,
    #[schema(value_type = Option<String>)]
    activity_id: Option<Value>,
    #[schema(value_type = Option<String>)]
    activity_type: Option<Value>,
    #[schema(value_type = Option<u32>)]
    attempt: Option<Value>,
    #[schema(value_type = Option<bool>)]
    hook_trigger: Option<Value>,
    #[schema(value_type = Option<String>)]
    signal_name: Option<Value>,
    #[schema(value_type = Option<String>)]
    from_agent_did: Option<Value>,
    #[schema(value_type = Option<Value>)]
    parent_workflow_id: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    multi_agent_session_id: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    metadata: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    agent_name: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    agent_role: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    session_id: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    goal: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    workflow_output: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    signal_args: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    status: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    start_time: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    end_time: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    duration_ms: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    span_count: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    spans: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    activity_input: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    activity_output: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    result: Option<Box<RawValue>>,
    #[schema(value_type = Option<Value>)]
    error: Option<Box<RawValue>>,
}

/// Reads one event.
///
/// # Errors
/// It is no JSON object, lacks what every event has, or is of an unknown type.
pub fn told(text: &[u8]) -> Result<Told, Unfit> {
    let whole: Whole = object(text).map_err(|why| Unfit::new("malformed_json", why))?;
    let kind = whole.kind()?;
    let is_hook = match &whole.hook_trigger {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true) | Value::Object(_)) => true,
        Some(Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return Err(Unfit::field("`hook_trigger` is neither true nor false"));
        }
    };
    Ok(Told {
        run: whole.run(kind)?,
        workflow_type: optional("workflow_type", &whole.workflow_type)?,
        task_queue: optional("task_queue", &whole.task_queue)?,
        activity: if kind.is_of_activity() {
            Some(whole.activity()?)
        } else {
            None
        },
        what: match is_hook {
            true if kind == EventKind::ActivityStarted => What::Hook(Box::new(whole.hook()?)),
            true => {
                let message = "a hook is an ActivityStarted with `hook_trigger`, at both stages";
                return Err(Unfit::field(message));
            }
            false => What::Lifecycle(kind, whole.fields(kind)?),
        },
    })
}

/// Reads one span of a hook.
///
/// # Errors
/// It is no JSON object, or lacks what its family has.
pub fn hook(text: &[u8]) -> Result<Hook, Unfit> {
    let span: Span = object(text).map_err(|why| Unfit::new("malformed_json", why))?;
    told_span::hook(span)
}

/// Reads whose approval is asked for.
///
/// # Errors
/// It is no JSON object, or one of the three ids is missing.
pub fn polled(text: &[u8]) -> Result<Polled, Unfit> {
    let whole: Whole = object(text).map_err(|why| Unfit::new("malformed_json", why))?;
    Ok(Polled {
        workflow_id: required("workflow_id", &whole.workflow_id)?,
        run_id: required("run_id", &whole.run_id)?,
        activity_id: required("activity_id", &whole.activity_id)?,
    })
}

/// Reads a handoff whose source is whoever sends it: its fields, in wire order.
///
/// # Errors
/// It is no JSON object, names no agent, or gives a reason that is no text.
pub fn handoff(text: &[u8]) -> Result<Vec<(&'static str, JsonText)>, Unfit> {
    let handoff: Target = object(text).map_err(|why| Unfit::new("malformed_json", why))?;
    let target = required("target_agent_id", &handoff.target_agent_id)?;
    let mut fields = vec![("target_agent_id", string(&target))];
    match handoff.reason {
        None | Some(Value::Null) => {}
        Some(Value::String(reason)) => fields.push(("reason", string(&reason))),
        Some(_) => return Err(Unfit::field("`reason` is not a text")),
    }
    Ok(fields)
}

#[derive(Debug, Deserialize)]
struct Target {
    target_agent_id: Option<Value>,
    reason: Option<Value>,
}

impl Whole {
    fn kind(&self) -> Result<EventKind, Unfit> {
        let word = required("event_type", &self.event_type)?;
        let known = EventKind::ALL.into_iter().find(|k| k.as_str() == &*word);
        known.ok_or_else(|| {
            let all = EventKind::ALL.map(EventKind::as_str).join(", ");
            let message = format!("`event_type` is \"{word}\"; expected one of {all}");
            Unfit::new("unknown_event_type", message)
        })
    }

    fn run(&self, kind: EventKind) -> Result<Option<ToldRun>, Unfit> {
        if kind == EventKind::Handoff {
            let workflow_id = optional("workflow_id", &self.workflow_id)?;
            let run_id = optional("run_id", &self.run_id)?;
            return Ok(workflow_id
                .zip(run_id)
                .map(|(workflow_id, run_id)| ToldRun {
                    workflow_id,
                    run_id,
                }));
        }
        Ok(Some(ToldRun {
            workflow_id: required("workflow_id", &self.workflow_id)?,
            run_id: required("run_id", &self.run_id)?,
        }))
    }

    fn activity(&self) -> Result<ToldActivity, Unfit> {
        Ok(ToldActivity {
            id: required("activity_id", &self.activity_id)?,
            kind: optional("activity_type", &self.activity_type)?,
            attempt: attempt(&self.attempt)?,
            input: array(self.activity_input.as_deref()),
        })
    }

    fn hook(&self) -> Result<Hook, Unfit> {
        let Some(spans) = self.spans.as_deref() else {
            return Err(Unfit::new("missing_field", "a hook has no `spans`"));
        };
        let spans: Vec<Span> = serde_json::from_str(spans.get())
            .map_err(|why| Unfit::field(format!("`spans` cannot be read: {why}")))?;
        match <[Span; 1]>::try_from(spans) {
            Ok([span]) => {
                let mut hook = told_span::hook(span)?;
                hook.reported.envelope = self.around_hooks();
                Ok(hook)
            }
            Err(spans) => {
                let count = spans.len();
                Err(Unfit::field(format!("a hook has one span, not {count}")))
            }
        }
    }

    /// What SDKs tell beside the span, in their order.
    fn around_hooks(&self) -> Vec<(&'static str, JsonText)> {
        let all = [
            ("agent_name", &self.agent_name),
            ("agent_role", &self.agent_role),
            ("session_id", &self.session_id),
            ("multi_agent_session_id", &self.multi_agent_session_id),
            ("metadata", &self.metadata),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, as_sent(value.as_deref()?))))
            .collect()
    }

    fn fields(&self, kind: EventKind) -> Result<Vec<(&'static str, JsonText)>, Unfit> {
        if kind == EventKind::Handoff {
            return self.handoff();
        }
        let mut all = Vec::new();
        let mut put = |name: &'static str, value: Option<&RawValue>| {
            all.extend(value.map(|value| (name, as_sent(value))));
        };
        put("parent_workflow_id", self.parent_workflow_id.as_deref());
        put(
            "multi_agent_session_id",
            self.multi_agent_session_id.as_deref(),
        );
        put("metadata", self.metadata.as_deref());
        put("goal", self.goal.as_deref());
        match kind {
            EventKind::WorkflowStarted => {
                all.extend(
                    self.activity_input
                        .as_deref()
                        .map(|input| ("activity_input", array(Some(input)))),
                );
            }
            EventKind::ActivityStarted | EventKind::Handoff => {}
            EventKind::WorkflowCompleted => {
                all.push(("workflow_output", or_null(self.workflow_output.as_deref())));
                self.spans_of(&mut all);
            }
            EventKind::WorkflowFailed => {
                all.push(("error", error(self.error.as_deref())));
            }
            EventKind::SignalReceived => {
                let name = required("signal_name", &self.signal_name)?;
                all.push(("signal_args", array(self.signal_args.as_deref())));
                all.push(("signal_name", string(&name)));
                self.spans_of(&mut all);
            }
            EventKind::ActivityCompleted => self.completion(&mut all),
        }
        Ok(all)
    }

    /// Between two agents: who hands over, in which session.
    fn handoff(&self) -> Result<Vec<(&'static str, JsonText)>, Unfit> {
        let from = required("from_agent_did", &self.from_agent_did)?;
        let session = required("multi_agent_session_id", &self.session()?)?;
        let mut all = vec![
            ("from_agent_did", string(&from)),
            ("multi_agent_session_id", string(&session)),
        ];
        let metadata = self.metadata.as_deref();
        all.extend(metadata.map(|metadata| ("metadata", as_sent(metadata))));
        Ok(all)
    }

    fn session(&self) -> Result<Option<Value>, Unfit> {
        let session = self.multi_agent_session_id.as_deref();
        session
            .map(|session| serde_json::from_str(session.get()))
            .transpose()
            .map_err(|why| Unfit::new("malformed_json", why.to_string()))
    }

    fn completion(&self, all: &mut Vec<(&'static str, JsonText)>) {
        let failed = self.error.is_some();
        let status = self.status.as_deref().map(as_sent).unwrap_or_else(|| {
            JsonText(
                if failed {
                    "\"failed\""
                } else {
                    "\"completed\""
                }
                .into(),
            )
        });
        all.push(("status", status));
        for (name, value) in [
            ("start_time", &self.start_time),
            ("end_time", &self.end_time),
            ("duration_ms", &self.duration_ms),
        ] {
            all.extend(value.as_deref().map(|value| (name, as_sent(value))));
        }
        self.spans_of(all);
        all.push(("activity_input", array(self.activity_input.as_deref())));
        // Older SDKs say `result`, which Core does not keep.
        let output = self.activity_output.as_deref().or(self.result.as_deref());
        all.push(("activity_output", or_null(output)));
        all.push(("error", error(self.error.as_deref())));
    }

    fn spans_of(&self, all: &mut Vec<(&'static str, JsonText)>) {
        for (name, value) in [("span_count", &self.span_count), ("spans", &self.spans)] {
            all.extend(value.as_deref().map(|value| (name, as_sent(value))));
        }
    }
}

/// A text that must be there and can stand in a log line.
fn required(name: &str, value: &Option<Value>) -> Result<Arc<str>, Unfit> {
    optional(name, value)?
        .ok_or_else(|| Unfit::new("missing_field", format!("`{name}` is missing")))
}

fn optional(name: &str, value: &Option<Value>) -> Result<Option<Arc<str>>, Unfit> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(Unfit::field(format!("`{name}` is not a text"))),
    };
    let chars = text.chars().count();
    if chars > ID_CHARS_MAX {
        let message = format!("`{name}` has {chars} characters; at most {ID_CHARS_MAX} are taken");
        return Err(Unfit::field(message));
    }
    if text.chars().any(char::is_control) {
        let message = format!("`{name}` has a control character; none is taken");
        return Err(Unfit::field(message));
    }
    Ok(Some(text.as_str().into()))
}

fn attempt(value: &Option<Value>) -> Result<u32, Unfit> {
    let number = match value {
        None | Some(Value::Null) => return Ok(1),
        Some(value) => told_span::whole_number(value),
    };
    number
        .and_then(|number| u32::try_from(number).ok())
        .filter(|attempt| *attempt > 0)
        .ok_or_else(|| Unfit::field("`attempt` is no whole number from 1"))
}
