//! Values of events: what the agent sent, as the wire contract wants it.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::{JsonText, Timestamp};

use super::super::problem::Problem;

/// What the agent sent, byte by byte.
pub(super) fn as_sent(value: &RawValue) -> JsonText {
    JsonText(value.get().into())
}

/// What the agent sent, or `null`.
pub(super) fn or_null(value: Option<&RawValue>) -> JsonText {
    value.map_or_else(|| JsonText("null".into()), as_sent)
}

/// An array: what the agent sent if that is one, else one around it.
pub(super) fn array(value: Option<&RawValue>) -> JsonText {
    match value.map(RawValue::get) {
        None => JsonText::empty_array(),
        Some(text) if text.starts_with('[') => JsonText(text.into()),
        Some(text) => JsonText(format!("[{text}]").into()),
    }
}

/// A JSON string.
pub(super) fn string(text: &str) -> JsonText {
    JsonText(serde_json::Value::from(text).to_string().into())
}

/// `error` in the form of today's SDKs: an object with `type` and `message`.
pub(super) fn error(value: &RawValue) -> Result<JsonText, Problem> {
    let text = value.get();
    if text.starts_with('"') {
        return Ok(JsonText(
            format!("{{\"type\":\"Exception\",\"message\":{text}}}").into(),
        ));
    }
    let has_message = serde_json::from_str::<serde_json::Value>(text).is_ok_and(|error| {
        error
            .get("message")
            .is_some_and(serde_json::Value::is_string)
    });
    if has_message {
        return Ok(as_sent(value));
    }
    Err(Problem::invalid_field(
        "`error` must be a text, or an object with a text as `message`, for example {\"type\":\"ValueError\",\"message\":\"no such order\"}",
    ))
}

/// Seconds since the epoch.
pub(super) fn seconds(at: Timestamp) -> JsonText {
    number(Duration::from_nanos(at.0).as_secs_f64())
}

/// Milliseconds.
pub(super) fn millis(took: Duration) -> JsonText {
    number(took.as_secs_f64() * 1_000.0)
}

fn number(number: f64) -> JsonText {
    JsonText(serde_json::Value::from(number).to_string().into())
}
