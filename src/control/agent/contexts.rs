//! Names for runs and activities that a request can carry: the user of proxy
//! credentials, and W3C trace ids. They attribute; they grant nothing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::domain::{ActivityRef, JsonText, TraceId};
use crate::process::clock;
use crate::session::Limit;

use super::super::body::{InPath, Json};
use super::super::problem::{Problem, json};
use super::super::text::{id, optional, required};
use super::Shared;
use super::subject::inside;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    workflow_id: Option<String>,
    run_id: Option<String>,
    activity_id: Option<String>,
    trace_id: Option<String>,
    traceparent: Option<String>,
}

#[derive(Serialize)]
struct Registered<'a> {
    proxy_user: &'a str,
    workflow_id: &'a str,
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    activity_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

/// `PUT /v1/contexts/{name}`.
pub(super) async fn register(
    State(api): State<Arc<Shared>>,
    InPath(name): InPath<String>,
    Json(register): Json<Register>,
) -> Result<Response, Problem> {
    let name = id("name", &name)?;
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
    let (registry, now) = (api.api.gate.registry(), clock::now());
    accepted(
        registry.register_name(&name, &context, now),
        activity_id.as_deref(),
    )?;
    if let Some(trace) = trace {
        accepted(
            registry.register_trace(trace, &context, now),
            activity_id.as_deref(),
        )?;
    }
    let registered = Registered {
        proxy_user: &name,
        workflow_id: &workflow_id,
        run_id: &run_id,
        activity_id: activity_id.as_deref(),
        trace_id: trace.map(|trace| trace.to_string()),
    };
    Ok(json(StatusCode::OK, &registered))
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

/// `DELETE /v1/contexts/{name}`. A trace id registered with it lives until it
/// expires or its run ends.
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

/// The trace id of a `traceparent` (W3C Trace Context §3.2). Versions to come
/// may add fields behind the four known ones.
pub(super) fn traceparent(text: &str) -> Result<TraceId, Problem> {
    let mut parts = text.split('-');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(version), Some(trace), Some(span), Some(flags))
            if version.len() == 2 && version != "ff" && span.len() == 16 && flags.len() == 2 =>
        {
            trace_id(trace)
        }
        _ => Err(Problem::invalid_field(
            "`traceparent` is not a W3C trace context; expected, for example, 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )),
    }
}
