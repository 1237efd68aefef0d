//! Names for runs and activities that a request can carry: the user of proxy
//! credentials, and W3C trace ids. They attribute; they grant nothing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{ActivityRef, JsonText, Process, SpanId, TraceId};
use crate::net::caller::{self, Callers};
use crate::process::clock;
use crate::session::{Limit, Signs};

use super::super::body::{InPath, Json, whole_number};
use super::super::described::{Id, LivesText, TraceIdText, TraceParent};
use super::super::problem::{Problem, Problems, json};
use super::super::text::{self, id, optional, required};
use super::Shared;
use super::subject::inside;

/// What a context stands for, and what else stands for it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    workflow_id: Option<String>,
    /// Must be said.
    #[schema(value_type = Id, required = true)]
    run_id: Option<String>,
    /// Without one it stands for the run.
    #[schema(value_type = Option<Id>)]
    activity_id: Option<String>,
    /// A trace whose requests are its.
    #[schema(value_type = Option<TraceIdText>)]
    trace_id: Option<String>,
    /// The same, as W3C trace context; one of the two.
    #[schema(value_type = Option<TraceParent>)]
    traceparent: Option<String>,
    /// What its database sessions call themselves, where that is not `name`.
    #[schema(value_type = Option<Id>)]
    application_name: Option<String>,
    /// A process whose connections are its, and those of the processes that it
    /// starts; needs `session.by_process`.
    #[schema(minimum = 1, maximum = 4294967295_u32)]
    #[serde(default, deserialize_with = "whole_number")]
    pid: Option<u32>,
    /// How long it stands for that: `10m`; at most, and by default,
    /// `session.context_lives`.
    #[schema(value_type = Option<LivesText>)]
    expires_in: Option<String>,
}

/// What stands for what now.
#[derive(Serialize, ToSchema)]
pub(super) struct Registered<'a> {
    /// The user name of proxy credentials, and the name of database sessions.
    proxy_user: &'a str,
    workflow_id: &'a str,
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    expires_at: String,
}

/// Lets a name, and what else is said, stand for a run or activity, until that
/// ends or the name expires.
#[utoipa::path(put, operation_id = "register_context", path = "/v1/contexts/{name}", tag = "contexts", params(("name" = inline(Id), Path,)),
    request_body = Register, responses((status = 200, body = Registered<'static>), Problems))]
pub(super) async fn register(
    State(api): State<Arc<Shared>>,
    InPath(name): InPath<String>,
    Json(register): Json<Register>,
) -> Result<Response, Problem> {
    let name = id("name", &name)?;
    let registry = api.api.gate.registry();
    let lives_at_most = registry.context_lives();
    let lives = text::duration(
        "expires_in",
        register.expires_in.as_deref(),
        lives_at_most,
        lives_at_most,
    )?;
    let workflow_id = required("workflow_id", register.workflow_id.as_deref())?;
    let run_id = required("run_id", register.run_id.as_deref())?;
    let activity_id = optional("activity_id", register.activity_id.as_deref())?;
    let trace = match (&register.trace_id, &register.traceparent) {
        (Some(id), None) => Some(trace_id(id)?),
        (None, Some(parent)) => Some(traceparent(parent)?),
        (None, None) => None,
        (Some(_), Some(_)) => {
            let detail = "`trace_id` and `traceparent` say the same thing; send one of them";
            return Err(Problem::invalid_field(detail));
        }
    };
    let run = api.open_run(&workflow_id, &run_id)?;
    let context = match &activity_id {
        None => run.context.clone(),
        // Only its id is looked at.
        Some(id) => inside(
            &run.context,
            ActivityRef {
                id: id.clone(),
                kind: "".into(),
                attempt: 1,
                input: JsonText::empty_array(),
            },
        ),
    };
    let application = optional("application_name", register.application_name.as_deref())?;
    let signs = Signs {
        trace,
        application: application.clone(),
        process: register.pid.map(|pid| api.process(pid)).transpose()?,
    };
    let now = clock::now();
    accepted(
        registry.register(&name, &signs, &context, now, lives),
        activity_id.as_deref(),
    )?;
    let registered = Registered {
        proxy_user: &name,
        workflow_id: &workflow_id,
        run_id: &run_id,
        activity_id: activity_id.as_deref(),
        trace_id: trace.map(|trace| trace.to_string()),
        application_name: application.as_deref(),
        pid: register.pid,
        expires_at: text::rfc3339(now.after(lives)),
    };
    Ok(json(StatusCode::OK, &registered))
}

impl Shared {
    /// The process that may stand for a run or activity.
    ///
    /// # Errors
    /// None may, or we do not see this one.
    fn process(&self, id: u32) -> Result<Process, Problem> {
        match self.api.gate.registry().callers() {
            Callers::Unknown => {
                let detail = "this sidecar does not look which process a connection comes from; set `session.by_process`, or leave `pid` out";
                Err(Problem::new(
                    StatusCode::CONFLICT,
                    "processes_not_looked_at",
                    detail,
                ))
            }
            Callers::Identified => caller::process(id).ok_or_else(|| {
                let detail = format!(
                    "the sidecar sees no process {id}; in a pod, containers must share their processes (shareProcessNamespace), and the id must be the one that is seen there"
                );
                Problem::new(StatusCode::NOT_FOUND, "unknown_process", detail)
            }),
        }
    }
}

fn accepted(outcome: Result<bool, Limit>, activity_id: Option<&str>) -> Result<(), Problem> {
    match outcome {
        Ok(true) => Ok(()),
        Err(limit) => Err(Problem::overloaded(limit.0)),
        Ok(false) => Err(match activity_id {
            Some(id) => {
                let detail = format!("no activity \"{id}\" is open in this run");
                Problem::new(StatusCode::NOT_FOUND, "unknown_activity", detail)
            }
            None => Problem::new(StatusCode::NOT_FOUND, "unknown_run", "the run has ended"),
        }),
    }
}

/// Forgets a context, and what was registered with it.
#[utoipa::path(delete, operation_id = "forget_context", path = "/v1/contexts/{name}", tag = "contexts", params(("name" = inline(Id), Path,)),
    responses((status = 204, description = "It is forgotten"), Problems))]
pub(super) async fn forget(
    State(api): State<Arc<Shared>>,
    InPath(name): InPath<String>,
) -> Result<Response, Problem> {
    if api.api.gate.registry().forget_name(&name) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_context",
        "no context of this name is registered",
    ))
}

/// A trace id: 32 lower-case hex digits, not all zero.
fn trace_id(text: &str) -> Result<TraceId, Problem> {
    let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    Some(text)
        .filter(|text| text.len() == 32 && text.bytes().all(digits))
        .and_then(|text| u128::from_str_radix(text, 16).ok())
        .filter(|id| *id != 0)
        .map(TraceId)
        .ok_or_else(|| {
            Problem::invalid_field("a trace id must be 32 lower-case hex digits, not all zero")
        })
}

/// The trace id of a `traceparent`.
pub(super) fn traceparent(text: &str) -> Result<TraceId, Problem> {
    traceparent_and_span(text).map(|(trace, _)| trace)
}

/// The trace and span of a `traceparent` (W3C Trace Context §3.2). Versions to
/// come may add fields behind the four known ones.
pub(super) fn traceparent_and_span(text: &str) -> Result<(TraceId, Option<SpanId>), Problem> {
    let mut parts = text.split('-');
    let hex = |text: &str, length: usize| {
        let mut bytes = text.bytes();
        text.len() == length && bytes.all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
    };
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(version), Some(trace), Some(span), Some(flags))
            if hex(version, 2) && version != "ff" && hex(span, 16) && hex(flags, 2) =>
        {
            let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0);
            Ok((trace_id(trace)?, span.map(SpanId)))
        }
        _ => Err(Problem::invalid_field(
            "`traceparent` is not a W3C trace context; expected, for example, 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )),
    }
}
