//! OpenBox Core's own routes, so that any OpenBox SDK works with the sidecar as
//! its Core: `/`, `/api/v1/auth/validate`, `/api/v1/governance/evaluate` and
//! `/api/v1/governance/approval`, `/api/v1/handoffs`, and the same in v2 for an
//! Okta AI agent.
//! v3 is Core's alone: nobody else can check a workload's token.
//!
//! What an SDK tells goes through the gate like everything else. It is answered
//! at once: an SDK asks again by itself while a person decides.

mod approval;
mod evaluate;
mod handoffs;
pub(super) mod hooks;
mod open;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri};

use crate::metrics::LimitHit;
use crate::policy::core::served::{Complained, Validated, environment_of};
use crate::policy::core::told::Unfit;
use crate::policy::core::{Checked, Rejection, Signed, Verifier};
use crate::process::clock;

use super::super::auth::{Guard, admitted};
use super::super::body;
use super::super::problem::{Problem, json};
use super::super::rate::Rate;
use super::{AgentApi, Shared};

use open::Spans;

/// Bounds on what SDKs send. Built by `config`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Largest event, bytes.
    pub event_bytes_max: usize,
    /// Most arrays and objects inside each other.
    pub event_depth_max: usize,
    /// Most requests of all SDKs together, a second; what comes faster waits
    /// for its turn, and is turned away when that is far off.
    pub requests_per_second_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            event_bytes_max: 4 * 1024 * 1024,
            event_depth_max: 64,
            requests_per_second_max: 2_000,
        }
    }
}

/// What the served routes share besides the API itself.
#[derive(Debug)]
pub(super) struct Served {
    guard: Guard,
    rate: Arc<Rate>,
    verifier: Verifier,
    /// Operations between their two hooks.
    spans: Spans,
}

impl Served {
    pub(super) fn new(api: &AgentApi, rate: Arc<Rate>) -> Self {
        Self {
            guard: Guard {
                token: api.token.clone(),
                address: api.address,
            },
            rate,
            verifier: Verifier::new(api.signer.clone()),
            spans: Spans::default(),
        }
    }
}

/// The served routes. They guard themselves: their errors are Core's.
pub(super) fn routes(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(hello))
        .route("/api/v1/auth/validate", get(validate))
        .route("/api/v1/governance/evaluate", post(evaluate::evaluate))
        .route("/api/v1/governance/approval", post(approval::poll))
        .route("/api/v1/handoffs", post(handoffs::hand_over))
        .route("/api/v2/auth/validate", get(validate))
        .route("/api/v2/governance/evaluate", post(evaluate::evaluate))
        .route("/api/v2/governance/approval", post(approval::poll))
        .route("/api/v2/handoffs", post(handoffs::hand_over))
        .route("/api/v2/auth/bootstrap", get(okta_bootstrap))
        .route("/api/v3/auth/bootstrap", get(no_workload))
        .route("/api/v3/auth/validate", get(unverified))
        .route("/api/v3/governance/evaluate", post(unverified))
        .route("/api/v3/governance/approval", post(unverified))
        .route("/api/v3/handoffs", post(unverified))
        .method_not_allowed_fallback(unknown_method)
        .with_state(state)
}

/// `GET /`: whether somebody is there.
async fn hello() -> &'static str {
    "hello world"
}

/// `GET /api/v1/auth/validate`.
async fn validate(State(api): State<Arc<Shared>>, request: Request) -> Result<Response, Complaint> {
    drop(api.taken(request).await?);
    let validated = Validated {
        valid: true,
        active: true,
        // Which agent it is only Core knows.
        agent_id: "00000000-0000-0000-0000-000000000000",
        agent_name: &api.api.gate.registry().own().context.workflow_id,
        environment: environment_of(api.api.token.expose()),
        message: "this sidecar knows the key",
    };
    Ok(json(StatusCode::OK, &validated))
}

/// `GET /api/v3/auth/bootstrap`: an SDK then goes on without a workload identity.
async fn no_workload(
    State(api): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Complaint> {
    admitted(&api.served.guard, &request)?;
    Err(Complaint::new(
        StatusCode::CONFLICT,
        "workload_identity_unavailable",
        "the sidecar shows Core who the workload is; the agent need not",
    ))
}

/// `GET /api/v2/auth/bootstrap`: what Core told this sidecar about the agent,
/// whose key both have. Otherwise an SDK says that it cannot start so.
async fn okta_bootstrap(
    State(api): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Complaint> {
    admitted(&api.served.guard, &request)?;
    let okta = api.served.verifier.okta();
    if let Some(okta) = okta.filter(|okta| okta.is_told_by_core()) {
        let text = okta.bootstrap().ok_or_else(|| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let rejection = Rejection::NotToldYet;
            Complaint::new(status, rejection.code(), rejection.to_string())
        })?;
        let kind = HeaderValue::from_static("application/json");
        return Ok(([(CONTENT_TYPE, kind)], text).into_response());
    }
    Err(Complaint::new(
        StatusCode::CONFLICT,
        "identity_method_mismatch",
        "the sidecar shows Core who the agent is; the agent need not (unset OPENBOX_OKTA_AGENT_PRIVATE_KEY), or it sets the six other settings of its identity too",
    ))
}

/// What nobody but Core can check. An SDK that fails open would take anything
/// but a 401 for a yes.
async fn unverified(
    State(api): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Complaint> {
    admitted(&api.served.guard, &request)?;
    Err(Rejection::Workload.into())
}

async fn unknown_method(method: Method, uri: Uri) -> Complaint {
    let message = format!("{} does not take {method}", uri.path());
    Complaint::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}

/// A request that may be answered.
struct Taken {
    head: Parts,
    text: Bytes,
    checked: Checked,
}

impl Shared {
    /// The whole body of a request that may be answered.
    async fn taken(&self, request: Request) -> Result<Bytes, Complaint> {
        self.taken_whole(request).await.map(|taken| taken.text)
    }

    /// The same, with its head and what was found of its signature.
    async fn taken_whole(&self, request: Request) -> Result<Taken, Complaint> {
        let (settings, metrics) = (&self.api.settings.served, self.api.gate.metrics());
        admitted(&self.served.guard, &request)?;
        if self.served.rate.turn().await.is_err() {
            metrics.limit_hit(LimitHit::Requests);
            return Err(Complaint::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "more requests a second than this sidecar takes; try again",
            ));
        }
        let (head, text) = body::whole(request, settings.event_bytes_max)
            .await
            .map_err(Complaint::from)
            .inspect_err(|complaint| {
                if complaint.status == StatusCode::PAYLOAD_TOO_LARGE {
                    metrics.limit_hit(LimitHit::TooLarge);
                }
            })?;
        // Over the bytes as they came, before anything is read into them.
        let signed = Signed {
            method: head.method.as_str(),
            path: head.uri.path(),
            headers: &head.headers,
            body: &text,
        };
        let checked = self.served.verifier.check(signed, clock::now())?;
        if !text.is_empty() {
            body::check(&text, settings.event_depth_max)?;
        }
        Ok(Taken {
            head,
            text,
            checked,
        })
    }
}

/// Why there is no answer, in Core's form.
#[derive(Debug)]
struct Complaint {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Complaint {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }
}

impl From<Problem> for Complaint {
    fn from(problem: Problem) -> Self {
        let (status, code, message) = problem.into_parts();
        match status {
            StatusCode::UNAUTHORIZED => Self::new(status, "invalid_api_key", message),
            // SDKs know what is too large by these words, and send less.
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, code, format!("payload too large: {message}"))
            }
            _ => Self::new(status, code, message),
        }
    }
}

impl From<Rejection> for Complaint {
    fn from(rejection: Rejection) -> Self {
        let message = rejection.to_string();
        Self::new(StatusCode::UNAUTHORIZED, rejection.code(), message)
    }
}

impl From<Unfit> for Complaint {
    fn from(unfit: Unfit) -> Self {
        Self::new(StatusCode::BAD_REQUEST, unfit.code, unfit.message)
    }
}

impl IntoResponse for Complaint {
    fn into_response(self) -> Response {
        let complained = Complained {
            code: self.status.as_u16(),
            message: &self.message,
            reason_code: self.code,
        };
        let mut response = json(self.status, &complained);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests;
