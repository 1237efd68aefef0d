//! The kill switch: everything halted at once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::body::Json;
use super::super::described::{Id, Why};
use super::super::problem::{Problem, Problems, json};
use super::{OperatorApi, by, why};

/// What becomes of the kill switch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetKillSwitch)]
pub(super) struct Set {
    /// Must be there.
    #[schema(required = true, nullable = false)]
    engaged: Option<bool>,
    /// Why; the agent is told. Must be there where it is engaged.
    #[schema(value_type = Option<Why>)]
    reason: Option<String>,
    /// Who decides; `operator` unless said.
    #[schema(value_type = Option<Id>)]
    by: Option<String>,
}

/// The kill switch.
#[derive(Serialize, ToSchema)]
#[schema(as = KillSwitch)]
pub(super) struct Shown {
    engaged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Whether everything is halted, and why.
#[utoipa::path(get, operation_id = "show_killswitch", path = "/v1/killswitch", tag = "runs", responses((status = 200, body = Shown), Problems))]
pub(super) async fn show(State(api): State<Arc<OperatorApi>>) -> Response {
    shown(&api)
}

/// Halts everything, or ends that. Runs that are halted by themselves stay so.
#[utoipa::path(put, operation_id = "set_killswitch", path = "/v1/killswitch", tag = "runs", request_body = Set,
    responses((status = 200, body = Shown), Problems))]
pub(super) async fn set(
    State(api): State<Arc<OperatorApi>>,
    Json(set): Json<Set>,
) -> Result<Response, Problem> {
    let by = by(set.by.as_deref())?;
    match set.engaged {
        Some(true) => {
            let reason = why(set.reason.as_deref())?;
            api.gate.halt_everything(&reason, &by);
        }
        Some(false) => {
            // Not needed, but if it is said it is one.
            if let Some(reason) = &set.reason {
                why(Some(reason))?;
            }
            api.gate.resume_everything(&by);
        }
        None => return Err(Problem::missing_field("engaged", "\"engaged\": true")),
    }
    Ok(shown(&api))
}

fn shown(api: &OperatorApi) -> Response {
    let reason = api.gate.registry().everything_halted();
    let shown = Shown {
        engaged: reason.is_some(),
        reason: reason.map(|reason| reason.to_string()),
    };
    json(StatusCode::OK, &shown)
}
