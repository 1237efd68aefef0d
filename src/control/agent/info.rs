//! What an agent may know of its sidecar.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::super::problem::{Problem, json};
use super::Shared;

#[derive(Serialize)]
struct Session<'a> {
    version: &'static str,
    workflow_id: &'a str,
    run_id: &'a str,
    workflow_type: &'a str,
    task_queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    halted: Option<String>,
}

/// `GET /v1/session`.
pub(super) async fn session(State(api): State<Arc<Shared>>) -> Response {
    let own = api.api.gate.registry().own();
    let session = Session {
        version: env!("CARGO_PKG_VERSION"),
        workflow_id: &own.context.workflow_id,
        run_id: &own.context.run_id,
        workflow_type: &own.context.workflow_type,
        task_queue: &own.context.task_queue,
        proxy_url: api.api.proxy_url.as_deref(),
        ca_path: api
            .api
            .ca_path
            .as_ref()
            .map(|path| path.display().to_string()),
        halted: own.halted().map(|reason| reason.to_string()),
    };
    json(StatusCode::OK, &session)
}

/// `GET /v1/ca.pem`.
pub(super) async fn ca(State(api): State<Arc<Shared>>) -> Result<Response, Problem> {
    let kind = HeaderValue::from_static("application/x-pem-file");
    match &api.api.ca_pem {
        Some(pem) => Ok(([(CONTENT_TYPE, kind)], pem.to_string()).into_response()),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_ca",
            "this sidecar does not intercept TLS, so it has no CA",
        )),
    }
}
