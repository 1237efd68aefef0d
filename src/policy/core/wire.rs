//! JSON of Core's wire contract: the only place that knows its field names.
//!
//! Fields, their order and their explicit nulls are those of
//! `openbox-sdk-python` 1.4.0 under `requests`; the vectors in
//! `tests/golden/contract` hold them still.

pub mod served;
mod span;
pub mod told;
mod told_span;
pub mod value;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::{
    Action, Completion, Context, Event, EventKind, JsonText, Operation, Reason, Timestamp,
};
use crate::policy::Finding;

use super::json::{Bracket, Json, Word};
use super::{subject, time};

const SOURCE: &str = "workflow-telemetry";
/// What a hook is, wherever it happens: the wire has no other event for it.
const HOOK_EVENT: EventKind = EventKind::ActivityStarted;
/// Room for everything but bodies and headers.
const ENVELOPE_BYTES: usize = 1_536;

/// The wire's word for what an operation does, also its `activity_type`
/// outside any activity.
pub(super) fn hook_type(operation: &Operation) -> &'static str {
    match operation.action {
        Action::Http(_) => "http_request",
        Action::Database(_) => "db_query",
        Action::File(_) => "file_operation",
        Action::Function(_) => "function_call",
    }
}

/// A lifecycle event.
pub(super) fn event(event: &Event) -> Vec<u8> {
    let payload: usize = event.fields.iter().map(|(_, json)| json.0.len()).sum();
    let mut json = Json::with_capacity(payload.saturating_add(ENVELOPE_BYTES));
    json.open(Bracket::Object);
    source(&mut json, event.kind);
    // A handoff is between agents: it names no run.
    if event.kind != EventKind::Handoff {
        run(&mut json, &event.context);
    }
    let activity = event.context.activity.as_ref();
    let activity = activity.filter(|_| event.kind.is_of_activity());
    let has_input = event.fields.iter().any(|(name, _)| *name == INPUT);
    if let Some(activity) = activity
        && event.kind == EventKind::ActivityStarted
        && !has_input
    {
        json.name(INPUT);
        json.json(&activity.input);
    }
    for (name, value) in &event.fields {
        json.name(name);
        json.json(value);
    }
    if let Some(activity) = activity {
        json.name("attempt");
        json.number(activity.attempt);
        json.name("activity_id");
        json.string(&activity.id);
        json.name("activity_type");
        json.string(&activity.kind);
    }
    timestamp(&mut json, event.at);
    json.close(Bracket::Object);
    json.into_bytes()
}

const INPUT: &str = "activity_input";

/// The input that Core's guardrails see with `event`, if it carries one.
pub(super) fn input_of(event: &Event) -> Option<&JsonText> {
    let (_, sent) = event.fields.iter().find(|(name, _)| *name == INPUT)?;
    Some(sent)
}

/// An operation at one of its stages; `completion` makes it `completed`.
pub(super) fn operation(operation: &Operation, completion: Option<&Completion>) -> Vec<u8> {
    let mut json =
        Json::with_capacity(ENVELOPE_BYTES.saturating_add(span::payload(operation, completion)));
    let context = subject(operation);
    json.open(Bracket::Object);
    source(&mut json, HOOK_EVENT);
    run(&mut json, &context);
    if let Some(activity) = &context.activity {
        json.name("activity_id");
        json.string(&activity.id);
        json.name("activity_type");
        json.string(&activity.kind);
        json.name(INPUT);
        json.json(&activity.input);
        let told = operation.reported.as_ref().map(|told| &*told.envelope);
        for (name, value) in told.unwrap_or_default() {
            json.name(name);
            json.json(value);
        }
        json.name("attempt");
        json.number(activity.attempt);
    }
    json.name("hook_trigger");
    json.word(Word::True);
    json.name("spans");
    json.open(Bracket::Array);
    span::written(&mut json, operation, completion);
    json.close(Bracket::Array);
    json.name("span_count");
    json.number(1_u64);
    timestamp(
        &mut json,
        completion.map_or(operation.started_at, |c| c.ended_at),
    );
    json.close(Bracket::Object);
    json.into_bytes()
}

/// The question where an approval stands. `None` outside any activity: Core
/// knows approvals by the activity's id.
pub(super) fn approval(context: &Context) -> Option<Vec<u8>> {
    let activity = context.activity.as_ref()?;
    let mut json = Json::with_capacity(256);
    json.open(Bracket::Object);
    json.name("workflow_id");
    json.string(&context.workflow_id);
    json.name("run_id");
    json.string(&context.run_id);
    json.name("activity_id");
    json.string(&activity.id);
    json.close(Bracket::Object);
    Some(json.into_bytes())
}

fn source(json: &mut Json, kind: EventKind) {
    json.name("source");
    json.string(SOURCE);
    json.name("event_type");
    json.string(kind.as_str());
}

fn run(json: &mut Json, context: &Context) {
    json.name("workflow_id");
    json.string(&context.workflow_id);
    json.name("run_id");
    json.string(&context.run_id);
    json.name("workflow_type");
    json.string(&context.workflow_type);
    json.name("task_queue");
    json.string(&context.task_queue);
}

fn timestamp(json: &mut Json, at: Timestamp) {
    json.name("timestamp");
    json.string(&time::written(at));
}

/// What Core answers to an evaluation and to a poll, before anybody has judged
/// whether it makes sense. A name that occurs twice is an error.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    pub(super) verdict: Option<Value>,
    pub(super) action: Option<Value>,
    pub(super) reason: Option<Value>,
    pub(super) policy_id: Option<Value>,
    pub(super) governance_event_id: Option<Value>,
    pub(super) constraints: Option<Value>,
    pub(super) behavioral_violations: Option<Value>,
    pub(super) approval_id: Option<Value>,
    pub(super) approval_expiration_time: Option<Value>,
    pub(super) expired: Option<Value>,
    #[serde(alias = "guardrails")]
    pub(super) guardrails_result: Option<Box<RawValue>>,
    pub(super) patch: Option<Box<RawValue>>,
    pub(super) age_result: Option<Box<RawValue>>,
}

/// What guardrails made of the input or output.
#[derive(Debug, Deserialize)]
pub(super) struct Guardrails {
    #[serde(default = "passed")]
    pub(super) validation_passed: bool,
    pub(super) input_type: Option<Value>,
    pub(super) redacted_input: Option<Box<RawValue>>,
    pub(super) reasons: Option<Value>,
}

fn passed() -> bool {
    true
}

impl Guardrails {
    /// The findings, in their own words.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let reasons = self.reasons.as_ref().and_then(Value::as_array);
        reasons.into_iter().flatten().filter_map(|finding| {
            let text = |name| finding.get(name).and_then(Value::as_str);
            let kept = |name| Box::from(&*Reason::from_peer(text(name).unwrap_or_default()).0);
            Some(Finding {
                kind: kept("type"),
                field: kept("field"),
                reason: text("reason").map(|_| kept("reason"))?,
            })
        })
    }

    /// Whether it is the outcome that was looked at, not the input.
    pub(super) fn is_about_output(&self) -> bool {
        self.input_type.as_ref().and_then(Value::as_str) == Some("activity_output")
    }
}

/// What Core answers with an error status.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Complaint {
    pub(super) reason_code: Option<Value>,
    pub(super) code: Option<Value>,
    pub(super) reason: Option<Value>,
    pub(super) message: Option<Value>,
    /// What identity providers say instead.
    pub(super) error: Option<Value>,
}

/// What Core answers when it is shown a key.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Introduced {
    pub(super) valid: Option<Value>,
}

/// Reads a JSON object, and nothing but an object.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    // Without this, serde reads an array as the fields in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
