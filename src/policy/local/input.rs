//! The input document of a question, in the words of the wire contract.
//!
//! Built as the engine's own values: going through JSON text would cost more
//! than most evaluations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regorus::Value;

use crate::domain::{Event, EventKind, Headers, JsonText};
use crate::policy::Question;

use super::fields::{
    FIELDS, Place, REQUEST_HEADERS, RESPONSE_HEADERS, Raw, SOURCE, Subject, read, rfc3339,
};
use super::reads::Reads;

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
type Entries = Vec<(Value, Value)>;

/// The objects of a document while they are made.
#[derive(Default)]
struct Parts {
    top: Entries,
    span: Entries,
    attributes: Entries,
    status: Entries,
}

/// Made of a list at once: the table is sorted nearly as the engine sorts, so
/// this costs far less than inserting one by one.
fn object(entries: Entries) -> Value {
    if entries.is_empty() {
        return Value::new_object();
    }
    Value::from(Map::from_iter(entries))
}

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
    ///
    /// With `reads`, the document of an operation has only what they name: it
    /// is proved that nothing else is looked at, and making a document costs
    /// more than judging by it.
    pub(super) fn document(
        &mut self,
        question: Question<'_>,
        facts: &Facts,
        reads: Option<&Reads>,
    ) -> Result<Value, String> {
        match (question, Subject::of(question, facts)) {
            (Question::Event(event), _) => event_document(event, facts),
            (_, Some(subject)) => {
                // What a hook told may be read under any name.
                let told = subject.operation.reported.is_some();
                self.operation(&subject, reads.filter(|_| !told))
            }
            (Question::Started(_) | Question::Completed(..), None) => {
                Err("an operation without a subject".to_owned())
            }
        }
    }

    fn operation(&mut self, subject: &Subject<'_>, reads: Option<&Reads>) -> Result<Value, String> {
        let mut parts = Parts::default();
        if let Some(reported) = &subject.operation.reported {
            parts.attributes = told("attributes", &reported.attributes)?;
        }
        match reads {
            Some(reads) => {
                for row in &reads.rows {
                    self.put(*row, subject, &mut parts)?;
                }
            }
            None => {
                for row in 0..FIELDS.len() {
                    self.put(row, subject, &mut parts)?;
                }
            }
        }
        let Parts {
            mut top,
            mut span,
            attributes,
            status,
        } = parts;
        span.push((self.attributes.clone(), object(attributes)));
        span.push((self.status.clone(), object(status)));
        if let Some(call) = subject.call() {
            let named = reads.map(|reads| &reads.request_headers);
            span.push((self.request_headers.clone(), headers(&call.headers, named)));
        }
        if let Some(answer) = subject.answer() {
            let named = reads.map(|reads| &reads.response_headers);
            span.push((
                self.response_headers.clone(),
                headers(&answer.headers, named),
            ));
        }
        top.push((self.spans.clone(), Value::from(vec![object(span)])));
        Ok(object(top))
    }

    /// Adds one row of the table, if it has a value here.
    fn put(&mut self, row: usize, subject: &Subject<'_>, to: &mut Parts) -> Result<(), String> {
        let (Some((place, key_name, field)), Some(key)) = (FIELDS.get(row), self.keys.get(row))
        else {
            return Ok(());
        };
        let key = key.clone();
        let Some(value) = self.value(key_name, read(*field, subject))? else {
            return Ok(());
        };
        match place {
            Place::Top => to.top.push((key, value)),
            Place::Span => to.span.push((key, value)),
            Place::Attribute => to.attributes.push((key, value)),
            Place::Status => to.status.push((key, value)),
        }
        Ok(())
    }

    fn value(&mut self, name: &str, raw: Raw<'_>) -> Result<Option<Value>, String> {
        Ok(Some(match raw {
            Raw::Absent => return Ok(None),
            Raw::Null => Value::Null,
            Raw::Bool(yes) => Value::from(yes),
            Raw::Int(number) => Value::from(number),
            Raw::Text(text) => Value::from(text),
            Raw::Made(text) => Value::from(text),
            Raw::Json(json) => self.json(name, json)?,
        }))
    }

    fn json(&mut self, name: &str, json: &JsonText) -> Result<Value, String> {
        match &self.parsed {
            Some((text, value)) if Arc::ptr_eq(text, &json.0) => Ok(value.clone()),
            Some(_) | None => {
                let value = parse(name, json)?;
                self.parsed = Some((Arc::clone(&json.0), value.clone()));
                Ok(value)
            }
        }
    }
}

/// The members of a JSON object that a hook told.
fn told(key: &str, json: &JsonText) -> Result<Entries, String> {
    let value = parse(key, json)?;
    let members = value
        .as_object()
        .map_err(|_| format!("{key} is no JSON object"))?;
    Ok(members
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect())
}

fn parse(key: &str, json: &JsonText) -> Result<Value, String> {
    if &*json.0 == "[]" {
        return Ok(Value::new_array());
    }
    // The parser's own words may quote the payload, which is the agent's.
    Value::from_json_str(&json.0).map_err(|_| format!("{key} is not JSON"))
}

/// Lower-case names; the values of a repeated name are joined as RFC 9110
/// §5.2 joins them. Only the `named` ones, if any are named.
fn headers(headers: &Headers, named: Option<&BTreeSet<String>>) -> Value {
    if named.is_some_and(BTreeSet::is_empty) {
        return Value::new_object();
    }
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter() {
        let name = name.to_ascii_lowercase();
        if named.is_some_and(|named| !named.contains(&name)) {
            continue;
        }
        map.entry(name)
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(value);
            })
            .or_insert_with(|| value.to_owned());
    }
    object(
        map.into_iter()
            .map(|(name, value)| (Value::from(name), Value::from(value)))
            .collect(),
    )
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
    if event.kind.is_of_activity()
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
        EventKind::WorkflowCompleted | EventKind::WorkflowFailed | EventKind::Handoff => false,
    }
}
