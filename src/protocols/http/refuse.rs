//! How HTTP says no: problem details (RFC 9457) that tell an agent what
//! happened, whether trying again helps, and not to try around it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::domain::{OperationId, Refusal, Stage};
use crate::gate::Refused;

use super::events::Ends;
use super::outgoing::Outgoing;

/// The verdict that a refusal comes from, or `error`.
pub(super) const VERDICT: &str = "openbox-verdict";
/// The id to quote.
pub(super) const EVENT_ID: &str = "openbox-event-id";
/// What CONSTRAIN asked for.
pub(super) const CONSTRAINTS: &str = "openbox-constraints";

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    retryable: bool,
}

/// A refusal of the gate as a response.
pub(super) fn refusal(refused: &Refused) -> Response<Outgoing> {
    let refusal = &refused.refusal;
    let status = status_of(refused);
    let (mut response, document) = respond(status, &problem_of(refused));
    if status == StatusCode::FORBIDDEN {
        // What is no verdict is said by its status alone.
        response.extensions_mut().insert(document);
    }
    let headers = response.headers_mut();
    headers.insert(VERDICT, HeaderValue::from_static(verdict(refusal)));
    insert(headers, EVENT_ID, &refused.event.to_string());
    if let Some(seconds) = refused.retry_after() {
        insert(headers, header::RETRY_AFTER.as_str(), &seconds.to_string());
    }
    if matches!(refusal, Refusal::Halted(_) | Refusal::ShuttingDown) {
        // HALT ends the connection after saying so.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response.extensions_mut().insert(Last);
    }
    response
}

/// Marks a refusal after which no request of this connection will be served.
#[derive(Clone, Copy)]
struct Last;

/// Whether no request after the one that is answered so will be served.
pub(super) fn is_last(response: &Response<Outgoing>) -> bool {
    response.extensions().get::<Last>().is_some()
}

/// What an answer of the sidecar's own says, for protocols that have no place for a problem.
#[derive(Clone)]
struct Words(Arc<str>);

/// What `response` says, if it is the sidecar's own.
pub(super) fn words(response: &Response<Outgoing>) -> Option<&str> {
    response.extensions().get::<Words>().map(|words| &*words.0)
}

/// What a refusal says, as JSON, for protocols that have a place of their own for it.
#[derive(Clone)]
struct Document(Bytes);

/// What `response` says, if it is a refusal of the gate.
pub(super) fn document(response: &Response<Outgoing>) -> Option<&[u8]> {
    let document = response.extensions().get::<Document>();
    document.map(|document| &*document.0)
}

/// The same as the last event of a stream whose head has gone out.
pub(super) fn event(refused: &Refused, ends: Ends) -> Bytes {
    let problem = serde_json::to_string(&problem_of(refused)).unwrap_or_default();
    Bytes::from(match ends {
        Ends::BlankLine => format!("event: error\ndata: {problem}\n\n"),
        Ends::Line => format!("{problem}\n"),
    })
}

fn problem_of(refused: &Refused) -> Problem<'_> {
    let refusal = &refused.refusal;
    Problem {
        kind: format!("urn:openbox:refusal:{}", refusal.code()),
        title: title(refusal),
        status: status_of(refused).as_u16(),
        code: refusal.code(),
        detail: detail(refused),
        reason: reason(refusal),
        policy: refused.policy.as_deref(),
        event_id: Some(refused.event.to_string()),
        approval_id: refusal.approval().map(|id| &*id.0),
        retry_after: refused.retry_after(),
        retryable: refused.is_retryable(),
    }
}

/// A problem that is not a verdict: a bad request, or an origin that cannot be
/// reached.
pub(super) fn problem(
    status: StatusCode,
    code: &str,
    detail: &str,
    event: Option<OperationId>,
) -> Response<Outgoing> {
    let again = match status.is_server_error() {
        true => Again::MayHelp,
        false => Again::DoesNotHelp,
    };
    problem_with(status, code, detail, (event, again))
}

/// The same, of a request that may have been carried out: sent again, it may be done twice.
pub(super) fn unrepeatable(
    status: StatusCode,
    code: &str,
    detail: &str,
    event: OperationId,
) -> Response<Outgoing> {
    problem_with(status, code, detail, (Some(event), Again::DoesNotHelp))
}

/// What comes of sending a request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    MayHelp,
    DoesNotHelp,
}

fn problem_with(
    status: StatusCode,
    code: &str,
    detail: &str,
    (event, again): (Option<OperationId>, Again),
) -> Response<Outgoing> {
    let problem = Problem {
        kind: format!("urn:openbox:problem:{code}"),
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        code,
        detail: detail.to_owned(),
        reason: None,
        policy: None,
        event_id: event.map(|event| event.to_string()),
        approval_id: None,
        retry_after: None,
        retryable: again == Again::MayHelp,
    };
    let (mut response, _) = respond(status, &problem);
    let headers = response.headers_mut();
    headers.insert(VERDICT, HeaderValue::from_static("error"));
    if let Some(event) = event {
        insert(headers, EVENT_ID, &event.to_string());
    }
    response
}

/// The same, and the connection ends with it.
pub(super) fn last_problem(status: StatusCode, code: &str, detail: &str) -> Response<Outgoing> {
    closing(problem(status, code, detail, None))
}

/// `response`, and the connection ends with it: bytes that were sent behind a
/// refused CONNECT are not a request.
pub(super) fn closing(mut response: Response<Outgoing>) -> Response<Outgoing> {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn respond(status: StatusCode, problem: &Problem<'_>) -> (Response<Outgoing>, Document) {
    let text = Bytes::from(serde_json::to_vec(problem).unwrap_or_default());
    let mut response = Response::new(Outgoing::whole(text.clone(), None));
    *response.status_mut() = status;
    let words = match &problem.reason {
        Some(reason) => format!("{}: {reason}. {}", problem.title, problem.detail),
        None => problem.detail.clone(),
    };
    response.extensions_mut().insert(Words(words.into()));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (response, Document(text))
}

pub(super) fn insert(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    // Reasons and ids have no control characters; what cannot stand in a header
    // still stands in the body.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn status_of(refused: &Refused) -> StatusCode {
    match &refused.refusal {
        // Clients send again what is answered 503, without being told to.
        _ if refused.stage == Stage::Completed => StatusCode::FORBIDDEN,
        Refusal::NotRecorded | Refusal::Overloaded(_) | Refusal::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Refusal::Blocked(_)
        | Refusal::OutcomeBlocked(_)
        | Refusal::Halted(_)
        | Refusal::ActivityAborted(_)
        | Refusal::ApprovalPending { .. }
        | Refusal::Rejected { .. }
        | Refusal::ApprovalExpired(_)
        | Refusal::PolicyUnavailable(_)
        | Refusal::Unjudgeable(_)
        | Refusal::ConstraintNotApplicable(_)
        | Refusal::Unattributed => StatusCode::FORBIDDEN,
    }
}

fn verdict(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Blocked(_) | Refusal::OutcomeBlocked(_) | Refusal::ActivityAborted(_) => "block",
        Refusal::Halted(_) => "halt",
        Refusal::ApprovalPending { .. }
        | Refusal::Rejected { .. }
        | Refusal::ApprovalExpired(_) => "require_approval",
        Refusal::ConstraintNotApplicable(_) => "constrain",
        Refusal::PolicyUnavailable(_)
        | Refusal::Unjudgeable(_)
        | Refusal::Unattributed
        | Refusal::NotRecorded
        | Refusal::Overloaded(_)
        | Refusal::ShuttingDown => "error",
    }
}

fn title(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Blocked(_) | Refusal::ActivityAborted(_) => "Blocked by policy",
        Refusal::OutcomeBlocked(_) => "Answer withheld by policy",
        Refusal::Halted(_) => "Run halted",
        Refusal::ApprovalPending { .. } => "Waiting for approval",
        Refusal::Rejected { .. } => "Approval rejected",
        Refusal::ApprovalExpired(_) => "Approval expired",
        Refusal::PolicyUnavailable(_) => "Policy unavailable",
        Refusal::Unjudgeable(_) => "Policy cannot judge this request",
        Refusal::ConstraintNotApplicable(_) => "Constraint not applicable",
        Refusal::Unattributed => "Unattributed request",
        Refusal::NotRecorded | Refusal::Overloaded(_) | Refusal::ShuttingDown => {
            "Sidecar unavailable"
        }
    }
}

fn reason(refusal: &Refusal) -> Option<String> {
    match refusal {
        Refusal::Blocked(reason)
        | Refusal::OutcomeBlocked(reason)
        | Refusal::Halted(reason)
        | Refusal::ActivityAborted(reason)
        | Refusal::Rejected { reason, .. }
        | Refusal::PolicyUnavailable(reason)
        | Refusal::Unjudgeable(reason)
        | Refusal::ConstraintNotApplicable(reason) => Some(reason.to_string()),
        Refusal::ApprovalPending { .. }
        | Refusal::ApprovalExpired(_)
        | Refusal::Unattributed
        | Refusal::NotRecorded
        | Refusal::Overloaded(_)
        | Refusal::ShuttingDown => None,
    }
}

/// What happened, and what the agent should do now.
fn detail(refused: &Refused) -> String {
    let refusal = &refused.refusal;
    let now = match refused.stage {
        Stage::Started => now_of_request(refusal),
        Stage::Completed => now_of_answer(refusal),
    };
    format!("{refusal}. {now}")
}

/// After an answer was withheld. A request that was carried out must not be sent again for it,
/// but where its retry gets the answer.
fn now_of_answer(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::ApprovalPending { .. } => now_of_request(refusal),
        Refusal::Halted(_) => {
            "The request was carried out, but its answer is withheld. The whole run is stopped: every further request will be refused. Stop working and report it."
        }
        Refusal::Blocked(_)
        | Refusal::OutcomeBlocked(_)
        | Refusal::ActivityAborted(_)
        | Refusal::Rejected { .. }
        | Refusal::ApprovalExpired(_)
        | Refusal::PolicyUnavailable(_)
        | Refusal::Unjudgeable(_)
        | Refusal::ConstraintNotApplicable(_)
        | Refusal::Unattributed
        | Refusal::NotRecorded
        | Refusal::Overloaded(_)
        | Refusal::ShuttingDown => ANSWER_WITHHELD,
    }
}

const ANSWER_WITHHELD: &str = "The request was carried out, but its answer is withheld. Do not repeat it and do not try to get the answer another way; report it.";

/// After a request was refused.
fn now_of_request(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Blocked(_) | Refusal::ActivityAborted(_) | Refusal::Unjudgeable(_) => {
            "Nothing was sent. This is a decision, not a fault: do not try another way to the same end; report it or change the plan."
        }
        Refusal::OutcomeBlocked(_) => ANSWER_WITHHELD,
        Refusal::Halted(_) => {
            "The whole run is stopped: every further request will be refused. Stop working and report it."
        }
        Refusal::ApprovalPending { .. } => {
            "Send the identical request again after Retry-After; it joins the same approval. Do not change it and do not try another way."
        }
        Refusal::Rejected { .. } => {
            "A person decided against it. Do not try again and do not try another way; report it or change the plan."
        }
        Refusal::ApprovalExpired(_) => {
            "It may be asked for once more by sending the identical request, if it is still needed."
        }
        Refusal::PolicyUnavailable(_) => {
            "Nothing was sent. Try again later; do not try another way."
        }
        Refusal::ConstraintNotApplicable(_) | Refusal::Unattributed => {
            "Nothing was handed out. Report it: the operator has to change the configuration or the policy."
        }
        Refusal::NotRecorded | Refusal::Overloaded(_) | Refusal::ShuttingDown => {
            "Nothing was sent. Try again after Retry-After."
        }
    }
}
