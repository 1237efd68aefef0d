//! What an agent may know of its sidecar.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::body::InQuery;
use super::super::problem::{Problem, Problems, json};
use super::{Format, Shared};

/// The sidecar's own session.
#[derive(Serialize, ToSchema)]
pub(super) struct Session<'a> {
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

/// The sidecar's own session.
#[utoipa::path(get, path = "/v1/session", tag = "sidecar", responses((status = 200, body = Session<'static>), Problems))]
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

/// Asked of `/v1/env`.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Written {
    /// How it is written; `sh` if left out.
    #[param(inline)]
    format: Option<Format>,
}

/// The environment that sends a program through this sidecar.
#[utoipa::path(get, path = "/v1/env", tag = "sidecar", params(Written),
    responses((status = 200, content((String = "text/plain"), (std::collections::BTreeMap<String, Option<String>> = "application/json"))), Problems))]
pub(super) async fn environment(
    State(api): State<Arc<Shared>>,
    InQuery(written): InQuery<Written>,
) -> Result<Response, Problem> {
    let format = written.format.unwrap_or(Format::Sh);
    let kind = HeaderValue::from_static(match format {
        Format::Json => "application/json",
        Format::Sh | Format::Dotenv => "text/plain; charset=utf-8",
    });
    match (api.api.environment.0)(format) {
        Ok(text) => Ok(([(CONTENT_TYPE, kind)], text).into_response()),
        Err(why) => Err(Problem::new(StatusCode::CONFLICT, "no_environment", why)),
    }
}

/// The certificate of the authority that this sidecar intercepts TLS with.
#[utoipa::path(get, path = "/v1/ca.pem", tag = "sidecar",
    responses((status = 200, body = String, content_type = "application/x-pem-file"), Problems))]
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
