//! Everything that happens, as it happens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::super::problem::{Problem, Problems};
use super::super::stream;
use super::OperatorApi;

/// The records of the journal as server-sent events, from now on or after
/// `Last-Event-ID`; the id is the record's number.
#[utoipa::path(get, path = "/v1/stream", tag = "journal",
    responses((status = 200, body = String, content_type = "text/event-stream"), Problems))]
pub(super) async fn stream(
    State(api): State<Arc<OperatorApi>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream::stream(&api.gate, &headers, |_, line| Some(line.text.clone())).await
}
