//! What becomes of what the agent does, as it happens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::super::problem::{Problem, Problems};
use super::super::stream;
use super::Shared;

/// What an agent is shown of a record; who decided is the operator's business.
const SHOWN: [&str; 15] = [
    "record",
    "at_ns",
    "event_id",
    "event_type",
    "workflow_id",
    "run_id",
    "activity_id",
    "protocol",
    "stage",
    "decision",
    "admitted",
    "answered",
    "approval_id",
    "state",
    "reason",
];

/// Verdicts, approvals and halts as server-sent events, from now on or after
/// `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/stream", tag = "sidecar",
    responses((status = 200, body = String, content_type = "text/event-stream"), Problems))]
pub(super) async fn stream(
    State(api): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream::stream(&api.api.gate, &headers, |record, _| {
        let mut shown = Map::new();
        for name in SHOWN {
            if let Some(value) = record.get(name) {
                shown.insert(name.to_owned(), value.clone());
            }
        }
        Some(Value::Object(shown).to_string())
    })
    .await
}
