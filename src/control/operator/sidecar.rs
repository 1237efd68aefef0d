//! The sidecar itself: what it was told, and its end.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::body::Json;
use super::super::problem::{Problem, Problems, json};
use super::{OperatorApi, by};

/// What the sidecar was told.
#[derive(Serialize, ToSchema)]
pub(super) struct Config<'a> {
    /// Each setting with its `value` and `from` whom: `flag`, `variable`, `file` or `default`. Passwords are masked.
    #[schema(value_type = Object)]
    settings: &'a Value,
}

/// Every setting as it was resolved, secrets masked.
#[utoipa::path(get, path = "/v1/config", tag = "sidecar", responses((status = 200, body = Config<'static>), Problems))]
pub(super) async fn config(State(api): State<Arc<OperatorApi>>) -> Response {
    let settings = &*api.config;
    json(StatusCode::OK, &Config { settings })
}

/// Who ends it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Shutdown)]
pub(super) struct End {
    /// Who; `operator` unless said.
    by: Option<String>,
}

/// The end has begun.
#[derive(Serialize, ToSchema)]
pub(super) struct Ending {
    ending: bool,
}

/// Ends the sidecar in good order: nothing new is taken, what runs may finish within `drain_within`.
#[utoipa::path(post, path = "/v1/shutdown", tag = "sidecar", request_body = End,
    responses((status = 202, body = Ending), Problems))]
pub(super) async fn shutdown(
    State(api): State<Arc<OperatorApi>>,
    Json(end): Json<End>,
) -> Result<Response, Problem> {
    let by = by(end.by.as_deref())?;
    tracing::warn!(%by, "told to end by the operator API");
    api.shutdown.begin();
    Ok(json(StatusCode::ACCEPTED, &Ending { ending: true }))
}
