//! Values of events: what the agent sent, as the wire contract wants it.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::domain::{JsonText, Timestamp};
use crate::policy::core::value;
pub(super) use crate::policy::core::value::{array, or_null, string};

use super::super::problem::Problem;

/// `error` in the form of today's SDKs: an object with `type` and `message`.
pub(super) fn error(value: &RawValue) -> Result<JsonText, Problem> {
    told_error(value::error(Some(value)))
}

/// The same of one that is in that form or in none.
pub(super) fn told_error(error: JsonText) -> Result<JsonText, Problem> {
    let has_message = serde_json::from_str::<serde_json::Value>(&error.0).is_ok_and(|error| {
        error
            .get("message")
            .is_some_and(serde_json::Value::is_string)
    });
    if has_message {
        return Ok(error);
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
