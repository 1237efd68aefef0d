//! The kill switch: everything halted at once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::super::body::Json;
use super::super::problem::{Problem, json};
use super::{OperatorApi, by, why};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    engaged: Option<bool>,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    engaged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `GET /v1/killswitch`.
pub(super) async fn show(State(api): State<Arc<OperatorApi>>) -> Response {
    shown(&api)
}

/// `PUT /v1/killswitch`: halts everything, or ends that. Runs that are halted by
/// themselves stay so.
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
