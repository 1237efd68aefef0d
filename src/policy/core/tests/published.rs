//! Core's own type of a span, as it is published (`SpanData`, contract §3.2): what
//! Core decodes hooks into. Strict here, so that no field of ours is one that
//! Core does not know, or of another type.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

type Text = Option<String>;

/// Zero, where Core reads null.
type Number = Option<i64>;

/// One span; each field with the type that Core gives it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it can be read is what is looked at")]
struct SpanData {
    span_id: String,
    trace_id: String,
    parent_span_id: Text,
    name: String,
    kind: Text,
    start_time: Number,
    end_time: Number,
    duration_ns: Number,
    attributes: Option<Map<String, Value>>,
    status: Option<SpanStatus>,
    events: Option<Vec<SpanEvent>>,
    request_headers: Option<HashMap<String, String>>,
    response_headers: Option<HashMap<String, String>>,
    request_body: Text,
    response_body: Text,
    semantic_type: Text,
    stage: Text,
    data: Option<Value>,
    hook_type: Text,
    attribute_key_identifiers: Option<Vec<String>>,
    error: Text,
    http_method: Text,
    http_url: Text,
    http_status_code: Number,
    db_system: Text,
    db_name: Text,
    db_operation: Text,
    db_statement: Text,
    server_address: Text,
    server_port: Number,
    rowcount: Number,
    file_path: Text,
    file_mode: Text,
    file_operation: Text,
    bytes_read: Number,
    bytes_written: Number,
    lines_count: Number,
    function: Text,
    module: Text,
    args: Option<Value>,
    result: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it can be read is what is looked at")]
struct SpanStatus {
    code: String,
    description: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "that it can be read is what is looked at")]
struct SpanEvent {
    name: String,
    timestamp: i64,
    attributes: Map<String, Value>,
}

/// The one span of the hook `event`, which Core can decode.
pub(super) fn span(event: &[u8]) -> Value {
    let event: Value = serde_json::from_slice(event).unwrap();
    let span = event["spans"][0].clone();
    let read = serde_json::from_value::<SpanData>(span.clone());
    assert!(read.is_ok(), "{read:?}\n{span}");
    span
}
