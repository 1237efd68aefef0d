//! Errors of the local APIs: RFC 9457 problem details with a stable `code`.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoResponses, ToSchema};

use crate::process::clock;

/// What went wrong with a request, for programs and for people.
#[derive(Debug)]
pub(in crate::control) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retryable: bool,
    approval: Option<Value>,
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(in crate::control) struct Shown<'a> {
    /// Always `about:blank`: `code` says what it is.
    r#type: &'static str,
    /// The words of the status.
    title: &'a str,
    /// The status.
    status: u16,
    /// What went wrong, for programs; stays.
    code: &'static str,
    /// What went wrong and what to do, for people; may change.
    detail: &'a str,
    /// Whether the identical request may succeed later.
    retryable: bool,
    /// Names this answer in the sidecar's log.
    event_id: String,
    /// The approval it is about, as it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    approval: Option<&'a Value>,
}

/// What any request may be answered with instead.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
pub(in crate::control) enum Problems {
    /// The request cannot be taken as it is.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Client(#[to_schema] Shown<'static>),
    /// Not now.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Server(#[to_schema] Shown<'static>),
}

impl Problem {
    /// `code` is for programs and stays; `detail` is for people and may change.
    pub(in crate::control) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retryable: [
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::SERVICE_UNAVAILABLE,
            ]
            .contains(&status),
            approval: None,
        }
    }

    /// A field that has a value we cannot take.
    pub(in crate::control) fn invalid_field(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_field", detail)
    }

    /// A field that must be there.
    pub(in crate::control) fn missing_field(name: &str, example: &str) -> Self {
        let detail = format!("`{name}` is missing; expected, for example, {example}");
        Self::new(StatusCode::BAD_REQUEST, "missing_field", detail)
    }

    /// A bound of the sidecar was reached.
    pub(in crate::control) fn overloaded(what: &str) -> Self {
        let detail = format!("too many {what} at once; try again when some have ended");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    /// Adds the approval it is about.
    #[must_use]
    pub(in crate::control) fn about(mut self, approval: Value) -> Self {
        self.approval = Some(approval);
        self
    }

    /// Says that the identical request may succeed later.
    #[must_use]
    pub(in crate::control) fn for_now(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// How people are told what went wrong.
    pub(in crate::control) fn into_parts(self) -> (StatusCode, &'static str, String) {
        (self.status, self.code, self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let event = clock::operation_id(clock::now());
        tracing::debug!(event_id = %event, code = self.code, status = self.status.as_u16(), "a request was refused: {}", self.detail);
        let shown = Shown {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            retryable: self.retryable,
            event_id: event.to_string(),
            approval: self.approval.as_ref(),
        };
        let mut response = json(self.status, &shown);
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.retryable {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// `body` as a JSON response.
pub(in crate::control) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(mut text) => {
            text.push(b'\n');
            let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            (status, kind, text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Answers a path that is not there.
pub(in crate::control) async fn unknown_route(method: Method, uri: Uri) -> Problem {
    let detail = format!("there is no {method} {} here", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "unknown_route", detail)
}

/// Answers a method that a path does not have.
pub(in crate::control) async fn unknown_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
