//! A request that was admitted and comes to nothing for the client, although no verdict says so: what is recorded of it,
//! and what the client is told of trying again.

use http::{Method, Response, StatusCode};

use crate::domain::{
    Answer, Capture, Captured, Completion, Headers, HttpAnswer, OperationId, Outcome,
};
use crate::gate::Permit;
use crate::process::clock;

use super::outgoing::Outgoing;
use super::refuse;
use super::upstream::UpstreamError;

/// The request that came to nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) id: OperationId,
    pub(super) method: &'a Method,
}

impl Asked<'_> {
    /// A failure of it where it may have been carried out: only what is idempotent may be sent again (RFC 9110 §9.2.2).
    fn problem(self, status: StatusCode, code: &str, detail: &str) -> Response<Outgoing> {
        match self.method.is_idempotent() {
            true => refuse::problem(status, code, detail, Some(self.id)),
            false => refuse::unrepeatable(status, code, detail, self.id),
        }
    }
}

/// What is known of an answer by its head.
pub(super) fn head(status: StatusCode, headers: Headers) -> HttpAnswer {
    HttpAnswer {
        status: status.as_u16(),
        headers,
        body: Capture {
            state: Captured::Skipped,
            ..Capture::default()
        },
    }
}

/// Records that a request failed for `why`, with what its origin had answered by then.
pub(super) fn report(permit: Permit, why: &str, answer: Option<HttpAnswer>) {
    permit.report(Completion {
        ended_at: clock::now(),
        outcome: Outcome::Failed,
        answer: answer.map(Answer::Http),
        error: Some(why.into()),
    });
}

/// The origin gave no answer.
pub(super) fn unanswered(
    permit: Permit,
    asked: Asked<'_>,
    error: &UpstreamError,
) -> Response<Outgoing> {
    report(permit, &error.to_string(), None);
    unreached(asked, error)
}

/// What its client is told.
pub(super) fn unreached(asked: Asked<'_>, error: &UpstreamError) -> Response<Outgoing> {
    let (status, code) = error.answer();
    let words = error.to_string();
    let response = match error.may_have_arrived() {
        true => asked.problem(status, code, &words),
        false => refuse::problem(status, code, &words, Some(asked.id)),
    };
    match error {
        // The rest of the body would be taken for the next request.
        UpstreamError::Slow => refuse::closing(response),
        UpstreamError::Dial(_)
        | UpstreamError::Tls(_)
        | UpstreamError::Broke(_)
        | UpstreamError::Silent(_)
        | UpstreamError::Others(_) => response,
    }
}

/// The origin broke off within its answer, of which nothing has gone out.
pub(super) fn broke_off(
    permit: Permit,
    asked: Asked<'_>,
    error: String,
    answer: HttpAnswer,
) -> Response<Outgoing> {
    let error = UpstreamError::Broke(error);
    report(permit, &error.to_string(), Some(answer));
    unreached(asked, &error)
}

/// The origin answered with what nobody had asked for, and what cannot be handed out.
pub(super) fn unasked(
    permit: Permit,
    asked: Asked<'_>,
    (code, why): (&str, &str),
    answer: HttpAnswer,
) -> Response<Outgoing> {
    report(permit, why, Some(answer));
    asked.problem(StatusCode::BAD_GATEWAY, code, why)
}

/// There is no room to have the answer judged, and it must not go out unjudged.
pub(super) fn no_room(permit: Permit, id: OperationId, answer: HttpAnswer) -> Response<Outgoing> {
    const DETAIL: &str = "the request was carried out, and too many bodies wait here for its answer to be read (http.bodies_bytes_max): do not repeat it, report it";
    let known = HttpAnswer {
        // There is none for what was read of it either.
        body: Capture {
            bytes: answer.body.bytes,
            state: Captured::Skipped,
            ..Capture::default()
        },
        ..answer
    };
    report(permit, DETAIL, Some(known));
    // Clients send again what is answered 503, without being told to.
    refuse::unrepeatable(StatusCode::FORBIDDEN, "answer_not_read", DETAIL, id)
}
