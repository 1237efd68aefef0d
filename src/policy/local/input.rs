//! The input document of a question, in the words of the wire contract.
//!
//! Built as the engine's own values: going through JSON text would cost more
//! than most evaluations.

use std::collections::BTreeMap;
use std::sync::Arc;

use regorus::Value;

use crate::domain::{Event, EventKind, Headers, JsonText};
use crate::policy::Question;

use super::fields::{
    FIELDS, Place, REQUEST_HEADERS, RESPONSE_HEADERS, Raw, SOURCE, Subject, read, rfc3339,
};

/// What the configuration says about the agent; part of every document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// `input.agent_id`.
    pub(super) agent_id: Option<Arc<str>>,
    /// `input.risk_tier`, 1 to 4.
    pub(super) risk_tier: Option<u8>,
}

/// Builds documents for one thread: the keys are made once, and the activity's
/// input, which all operations of an activity share, is parsed once.
#[derive(Debug)]
pub(super) struct Builder {
    keys: Vec<Value>,
    spans: Value,
    attributes: Value,
    status: Value,
    request_headers: Value,
    response_headers: Value,
    parsed: Option<(Arc<str>, Value)>,
}

type Map = BTreeMap<Value, Value>;

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            keys: FIELDS.iter().map(|(_, key, _)| Value::from(*key)).collect(),
            spans: Value::from("spans"),
            attributes: Value::from("attributes"),
            status: Value::from("status"),
            request_headers: Value::from(REQUEST_HEADERS),
            response_headers: Value::from(RESPONSE_HEADERS),
            parsed: None,
        }
    }

    /// The document of `question`, or why there is none: an event's field that
    /// is not JSON.
    pub(super) fn document(
        &mut self,
        question: Question<'_>,
        facts: &Facts,
    ) -> Result<Value, String> {
        match (question, Subject::of(question, facts)) {
            (Question::Event(event), _) => event_document(event, facts),
            (_, Some(subject)) => self.operation(&subject),
            (Question::Started(_) | Question::Completed(..), None) => {
                Err("an operation without a subject".to_owned())
            }
        }
    }

    fn operation(&mut self, subject: &Subject<'_>) -> Result<Value, String> {
        let mut top = Map::new();
        let mut span = Map::new();
        let mut attributes = Map::new();
        let mut status = Map::new();
        for (index, (place, key, field)) in FIELDS.iter().enumerate() {
            let Some(value) = self.value(read(*field, subject))? else {
                continue;
            };
            let key = self
                .keys
                .get(index)
                .cloned()
                .unwrap_or_else(|| Value::from(*key));
            let map = match place {
                Place::Top => &mut top,
                Place::Span => &mut span,
                Place::Attribute => &mut attributes,
                Place::Status => &mut status,
            };
            map.insert(key, value);
        }
        span.insert(self.attributes.clone(), Value::from(attributes));
        span.insert(self.status.clone(), Value::from(status));
        span.insert(
            self.request_headers.clone(),
            headers(&subject.call().headers),
        );
        if let Some(answer) = subject.answer() {
            span.insert(self.response_headers.clone(), headers(&answer.headers));
        }
        let spans = Value::from(vec![Value::from(span)]);
        top.insert(self.spans.clone(), spans);
        Ok(Value::from(top))
    }

    fn value(&mut self, raw: Raw<'_>) -> Result<Option<Value>, String> {
        Ok(Some(match raw {
            Raw::Absent => return Ok(None),
            Raw::Null => Value::Null,
            Raw::Bool(yes) => Value::from(yes),
            Raw::Int(number) => Value::from(number),
            Raw::Text(text) => Value::from(text),
            Raw::Made(text) => Value::from(text),
            Raw::Json(json) => self.json(json)?,
        }))
    }

    fn json(&mut self, json: &JsonText) -> Result<Value, String> {
        match &self.parsed {
            Some((text, value)) if Arc::ptr_eq(text, &json.0) => Ok(value.clone()),
            Some(_) | None => {
                let value = parse("activity_input", json)?;
                self.parsed = Some((Arc::clone(&json.0), value.clone()));
                Ok(value)
            }
        }
    }
}

fn parse(key: &str, json: &JsonText) -> Result<Value, String> {
    if &*json.0 == "[]" {
        return Ok(Value::new_array());
    }
    // The parser's own words may quote the payload, which is the agent's.
    Value::from_json_str(&json.0).map_err(|_| format!("{key} is not JSON"))
}

/// Lower-case names; the values of a repeated name are joined as RFC 9110
/// §5.2 joins them.
fn headers(headers: &Headers) -> Value {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter() {
        map.entry(name.to_ascii_lowercase())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    map.into_iter()
        .map(|(name, value)| (Value::from(name), Value::from(value)))
        .collect::<Map>()
        .into()
}

fn event_document(event: &Event, facts: &Facts) -> Result<Value, String> {
    let context = &event.context;
    let mut top = Map::new();
    let mut put = |key: &str, value: Value| {
        top.insert(Value::from(key), value);
    };
    put("source", Value::from(SOURCE));
    put("event_type", Value::from(event.kind.as_str()));
    put("workflow_id", Value::from(&*context.workflow_id));
    put("run_id", Value::from(&*context.run_id));
    put("workflow_type", Value::from(&*context.workflow_type));
    put("timestamp", Value::from(rfc3339(event.at)));
    if has_task_queue(event.kind) {
        put("task_queue", Value::from(&*context.task_queue));
    }
    if is_of_activity(event.kind)
        && let Some(activity) = &context.activity
    {
        put("activity_id", Value::from(&*activity.id));
        put("activity_type", Value::from(&*activity.kind));
        put("attempt", Value::from(activity.attempt));
        put("activity_input", parse("activity_input", &activity.input)?);
    }
    if event.kind == EventKind::ActivityCompleted {
        put("span_count", Value::from(0_u32));
        put("spans", Value::new_array());
    }
    if let Some(agent) = &facts.agent_id {
        put("agent_id", Value::from(&**agent));
    }
    if let Some(tier) = facts.risk_tier {
        put("risk_tier", Value::from(u32::from(tier)));
    }
    for (key, json) in &event.fields {
        put(key, parse(key, json)?);
    }
    Ok(Value::from(top))
}

fn has_task_queue(kind: EventKind) -> bool {
    match kind {
        EventKind::WorkflowStarted
        | EventKind::SignalReceived
        | EventKind::ActivityStarted
        | EventKind::ActivityCompleted => true,
        EventKind::WorkflowCompleted | EventKind::WorkflowFailed => false,
    }
}

fn is_of_activity(kind: EventKind) -> bool {
    match kind {
        EventKind::ActivityStarted | EventKind::ActivityCompleted => true,
        EventKind::WorkflowStarted
        | EventKind::WorkflowCompleted
        | EventKind::WorkflowFailed
        | EventKind::SignalReceived => false,
    }
}
