//! Everything that happens, as it happens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;

use super::super::problem::Problem;
use super::super::stream;
use super::OperatorApi;

/// `GET /v1/stream`: the records of the journal as server-sent events; the id is
/// the record's number, and `Last-Event-ID` goes on after it.
pub(super) async fn stream(
    State(api): State<Arc<OperatorApi>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream::stream(&api.gate, &headers, |_, line| Some(line.text.clone())).await
}
