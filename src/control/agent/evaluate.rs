//! Explicit hooks: operations that the agent tells before they happen, and
//! again with their outcome.

use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{Operation, Refusal, Verdict};
use crate::gate::{Decision, Terms, Unanswered};
use crate::policy::core::told::Hook;
use crate::process::clock;
use crate::session::Session;

use super::super::body::{InQuery, Json};
use super::super::described::{Id, TraceParent};
use super::super::problem::{Problem, Problems, json};
use super::answer::{Also, Given, Verdicts};
use super::open::Opened;
use super::served::hooks::completion;
use super::spans::{Ids, Kind, Span, When};
use super::whose::{Heard, Named};
use super::{Shared, Wait};

/// Most operations of one batch.
const BATCH_MAX: usize = 100;

/// Largest answer of one of them, bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// One operation, before it happens or with its outcome.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Evaluate {
    kind: Option<Kind>,
    stage: Option<When>,
    /// At `completed`: the `event_id` that its start was answered with.
    event_id: Option<String>,
    /// What happens, and how it went.
    #[serde(default)]
    span: Span,
    /// Whose it is; without any of these it is attributed as traffic is.
    #[schema(value_type = Option<Id>)]
    workflow_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    run_id: Option<String>,
    #[schema(value_type = Option<Id>)]
    activity_id: Option<String>,
    /// A context of `PUT /v1/contexts/{name}`.
    #[schema(value_type = Option<Id>)]
    context: Option<String>,
    /// W3C trace context.
    #[schema(value_type = Option<TraceParent>)]
    traceparent: Option<String>,
}

/// Asks before an operation (`started`), and tells its outcome (`completed`).
///
/// A start that waits for a person is answered 202, and is sent again, unchanged,
/// once the approval is decided.
#[utoipa::path(post, path = "/v1/evaluate", tag = "operations",
    params(Wait), request_body = Evaluate,
    responses(Verdicts, Problems))]
pub(super) async fn evaluate(
    State(api): State<Arc<Shared>>,
    heard: Heard,
    InQuery(wait): InQuery<Wait>,
    Json(evaluate): Json<Evaluate>,
) -> Result<Response, Problem> {
    let within = api.hold_within(&wait)?;
    one(&api, &heard, evaluate, within).await
}

/// Several operations, in their order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    #[schema(value_type = Vec<Evaluate>, required = true, min_items = 1, max_items = 100)]
    operations: Option<Vec<Evaluate>>,
}

/// What each was answered, in the same order.
#[derive(Serialize, ToSchema)]
pub(super) struct Answers {
    results: Vec<One>,
}

/// What one would have been answered alone.
#[derive(Serialize, ToSchema)]
struct One {
    status: u16,
    /// A verdict, or a problem.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
}

/// Evaluates up to 100 operations, in their order, and waits for nobody.
#[utoipa::path(post, operation_id = "evaluate_batch", path = "/v1/evaluate:batch", tag = "operations",
    request_body = Batch, responses((status = 200, body = Answers), Problems))]
pub(super) async fn batch(
    State(api): State<Arc<Shared>>,
    heard: Heard,
    Json(batch): Json<Batch>,
) -> Result<Response, Problem> {
    let operations = batch.operations.unwrap_or_default();
    if operations.is_empty() || operations.len() > BATCH_MAX {
        let count = operations.len();
        let detail = format!("`operations` has {count} entries; expected 1 to {BATCH_MAX}");
        return Err(Problem::invalid_field(detail));
    }
    let mut results = Vec::with_capacity(operations.len());
    let mut for_now = None;
    for operation in operations {
        let answer = one(&api, &heard, operation, Duration::ZERO).await;
        let response = answer.unwrap_or_else(IntoResponse::into_response);
        for_now = for_now.or(response.extensions().get().copied());
        results.push(alone(response).await?);
    }
    let mut response = json(StatusCode::OK, &Answers { results });
    if let Some(mark) = for_now {
        response
            .extensions_mut()
            .insert::<super::super::idempotency::ForNow>(mark);
    }
    Ok(response)
}

async fn alone(response: Response) -> Result<One, Problem> {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
    let text = body.ok().map(|body| body.to_vec());
    let text = text.and_then(|text| String::from_utf8(text).ok());
    let body = text.and_then(|text| RawValue::from_string(text.trim().to_owned()).ok());
    let body = body.ok_or_else(|| {
        let detail = "an answer could not be put into the batch";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    })?;
    Ok(One { status, body })
}

async fn one(
    api: &Shared,
    heard: &Heard,
    evaluate: Evaluate,
    within: Duration,
) -> Result<Response, Problem> {
    match evaluate.stage {
        Some(When::Started) => {
            let Some(kind) = evaluate.kind else {
                return Err(Problem::missing_field(
                    "kind",
                    "\"kind\": \"file_operation\"",
                ));
            };
            let named = Named {
                workflow_id: evaluate.workflow_id,
                run_id: evaluate.run_id,
                activity_id: evaluate.activity_id,
                context: evaluate.context,
                traceparent: evaluate.traceparent,
            };
            let asked = api.asked(heard, &named, kind, evaluate.span)?;
            Ok(start(api, asked, within).await)
        }
        Some(When::Completed) => {
            let Some(event_id) = evaluate.event_id else {
                let example = "\"event_id\": \"…\", which the start was answered with";
                return Err(Problem::missing_field("event_id", example));
            };
            complete(api, &event_id, evaluate.span).await
        }
        None => Err(Problem::missing_field("stage", "\"stage\": \"started\"")),
    }
}

/// An operation that policy is to be asked about.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) operation: Box<Operation>,
    pub(super) session: Session,
    kind: Kind,
    span: Span,
}

impl Shared {
    /// The operation that `span` tells.
    pub(super) fn asked(
        &self,
        heard: &Heard,
        named: &Named,
        kind: Kind,
        span: Span,
    ) -> Result<Asked, Problem> {
        let trace = named.trace(heard)?;
        let session = self.whose(named, trace.map(|(trace, _)| trace), heard)?;
        let ids = Ids {
            trace: trace.map_or_else(clock::trace_id, |(trace, _)| trace),
            span: clock::span_id(),
            parent: trace.and_then(|(_, parent)| parent),
        };
        let Hook {
            action, reported, ..
        } = span.hook(kind, When::Started, ids)?;
        let now = clock::now();
        let operation = Box::new(Operation {
            id: clock::operation_id(now),
            trace: ids.trace,
            span: ids.span,
            parent: ids.parent,
            started_at: now,
            context: session.context.clone(),
            attribution: session.attribution,
            fingerprint: None,
            action,
            reported: Some(Box::new(reported)),
        });
        Ok(Asked {
            operation,
            session,
            kind,
            span,
        })
    }
}

/// Has `asked` judged, and keeps its permit.
pub(super) async fn start(api: &Shared, asked: Asked, within: Duration) -> Response {
    let gate = &api.api.gate;
    let Asked {
        operation,
        session,
        kind,
        span,
    } = asked;
    let event_id = operation.id.to_string();
    let context = operation.context.clone();
    let (trace, span_id) = (operation.trace.to_string(), operation.span.to_string());
    let also = Also {
        attribution: Some(operation.attribution.as_str()),
        trace_id: Some(&trace),
        span_id: Some(&span_id),
        ..Also::default()
    };
    let terms = Terms {
        hold_within: within,
        unanswered: Unanswered::AsSet,
        // What is asked for besides is said, and the agent keeps to it.
        applies: |_| false,
        contradicts: |_| false,
        replaces: |_| false,
    };
    let mut given = Given {
        event_id: event_id.clone(),
        context: &context,
        verdict: Verdict::Allow,
        refusal: None,
        ruling: None,
        by_fail_mode: false,
        policy: None,
        also,
    };
    match gate.admit(operation, session, &terms).await {
        Decision::Proceed(permit) => {
            let ruling = permit.ruling().cloned();
            given.ruling = ruling.as_ref();
            given.by_fail_mode = ruling.is_none();
            if given
                .ruling
                .is_some_and(|r| r.verdict == Verdict::Constrain)
            {
                given.verdict = Verdict::Constrain;
            }
            let response = given.response(gate);
            let begun = span.begun(kind);
            api.operations.keep(&event_id, Opened { permit, begun });
            response
        }
        // What is told joins nothing that was done before.
        Decision::Replay(_) => {
            let text = "an answer was held that no hook can be given";
            let refusal = Refusal::Unjudgeable(text.into());
            given.verdict = refusal.verdict();
            given.refusal = Some(&refusal);
            given.response(gate)
        }
        Decision::Refuse(refused) => {
            given.verdict = refused.refusal.verdict();
            given.by_fail_mode = matches!(refused.refusal, Refusal::PolicyUnavailable(_));
            given.refusal = Some(&refused.refusal);
            given.ruling = refused.ruling.as_deref();
            given.policy = refused.policy.as_deref();
            given.response(gate)
        }
    }
}

/// Has the outcome of the operation that `event_id` names judged.
pub(super) async fn complete(
    api: &Shared,
    event_id: &str,
    outcome: Span,
) -> Result<Response, Problem> {
    let opened = api.operations.take(event_id).ok_or_else(|| {
        let detail = "no operation of this `event_id` waits for its outcome: it was not let go, its outcome was told before, or its start is long ago";
        Problem::new(StatusCode::NOT_FOUND, "completion_without_start", detail)
    })?;
    let Opened { permit, begun } = opened;
    let Some(operation) = permit.operation() else {
        let detail = "this operation is over";
        let code = "completion_without_start";
        return Err(Problem::new(StatusCode::NOT_FOUND, code, detail));
    };
    let ids = Ids {
        trace: operation.trace,
        span: operation.span,
        parent: operation.parent,
    };
    let (context, attribution) = (operation.context.clone(), operation.attribution);
    let hook = begun.completed(outcome, ids)?;
    let noted = permit.account(completion(&hook)).await;
    let mut given = Given::noted(event_id.to_owned(), &context, &noted);
    given.also.attribution = Some(attribution.as_str());
    Ok(given.response(&api.api.gate))
}
