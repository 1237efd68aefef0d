//! Values of events: what an SDK or agent sent, as the contract wants it.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::JsonText;

/// What was sent, byte by byte.
pub fn as_sent(value: &RawValue) -> JsonText {
    JsonText(value.get().into())
}

/// What was sent, or `null`.
pub fn or_null(value: Option<&RawValue>) -> JsonText {
    value.map_or_else(null, as_sent)
}

/// `null`.
pub fn null() -> JsonText {
    JsonText("null".into())
}

/// An array: what was sent if it is one, else one around it. Core's own rules
/// fail on anything else.
pub fn array(value: Option<&RawValue>) -> JsonText {
    match value.map(RawValue::get) {
        None => JsonText::empty_array(),
        Some(text) if text.starts_with('[') => JsonText(text.into()),
        Some(text) => JsonText(format!("[{text}]").into()),
    }
}

/// A JSON string.
pub fn string(text: &str) -> JsonText {
    JsonText(Value::from(text).to_string().into())
}

/// An error as today's SDKs tell it, an object with `type` and `message`: older
/// ones send a bare text.
pub fn error(value: Option<&RawValue>) -> JsonText {
    match value.map(RawValue::get) {
        Some(text) if text.starts_with('"') => {
            JsonText(format!("{{\"type\":\"Exception\",\"message\":{text}}}").into())
        }
        Some(text) => JsonText(text.into()),
        None => null(),
    }
}
