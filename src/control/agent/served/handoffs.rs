//! `POST /api/v1/handoffs`: the agent hands over to another one, and proves that
//! it is the one that does.
//!
//! No policy sees a handoff (contract §8.1), but a halted sidecar hands nothing
//! over, and all is recorded. Behind a Core it is Core's to take, under our
//! identity, or under the agent's where we have none; no fail mode takes it in
//! Core's place.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use crate::domain::{Event, EventKind, Refusal};
use crate::policy::core::served::Handed;
use crate::policy::core::{Checked, PROOF, told};
use crate::policy::{HandedOver, HandingOver, Handoff};
use crate::process::clock;

use super::super::super::problem::json;
use super::super::Shared;
use super::{Complaint, Taken};

/// Takes one handoff.
pub(super) async fn hand_over(
    State(api): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Complaint> {
    let Taken {
        head,
        text,
        checked,
    } = api.taken_whole(request).await?;
    let at = clock::now();
    let event = Event {
        id: clock::operation_id(at),
        kind: EventKind::Handoff,
        context: api.api.gate.registry().own().context.clone(),
        at,
        fields: told::handoff(&text)?,
    };
    let proof = (checked == Checked::Signed).then(|| proof(&head));
    let handoff = Handoff {
        id: event.id,
        text: &text,
        proof: proof.as_deref(),
    };
    match (api.api.gate.handing_over(handoff), checked) {
        (HandingOver::Unproven, _) | (HandingOver::Here, Checked::Unsigned) => Err(unproven()),
        (HandingOver::Here, Checked::Signed) => here(&api, &event).await,
        (HandingOver::Later(asked), _) => {
            let handed = api.api.gate.hand_over(&event, asked).await;
            handed.map_err(refused).and_then(passed_on)
        }
    }
}

/// The headers by which the agent signed.
fn proof(head: &Parts) -> Vec<(&'static str, Box<str>)> {
    let shown = PROOF.iter().filter_map(|name| {
        let value = head.headers.get(*name)?.to_str().ok()?;
        Some((*name, value.into()))
    });
    shown.collect()
}

/// Without a Core it is noted here. All handoffs of one run share a session, so
/// that one that is sent again finds the same.
async fn here(api: &Shared, event: &Event) -> Result<Response, Complaint> {
    let noted = api.api.gate.note(event, Duration::ZERO).await;
    if let Some(refusal) = noted.refusal {
        return Err(refused(refusal));
    }
    let handed = Handed {
        status: "ok",
        session_id: &event.context.run_id,
        multi_agent_session_id: format!("mas:{}", event.context.run_id),
    };
    Ok(json(StatusCode::OK, &handed))
}

/// Core's answer in Core's words.
fn passed_on(handed: HandedOver) -> Result<Response, Complaint> {
    let status = StatusCode::from_u16(handed.status).map_err(|_| {
        let message = format!("OpenBox Core answered with a status of {}", handed.status);
        Complaint::new(StatusCode::BAD_GATEWAY, "not_judgeable", message)
    })?;
    let kind = HeaderValue::from_static("application/json");
    Ok((status, [(CONTENT_TYPE, kind)], handed.text).into_response())
}

/// As SDKs refuse it by themselves, before they ask anybody.
fn unproven() -> Complaint {
    Complaint::new(
        StatusCode::UNAUTHORIZED,
        "signature_invalid",
        "a handoff must prove which agent hands over, and this one is not signed: let the agent sign (and set sdk.agent_did and sdk.agent_public_key to check it), or give the sidecar an identity to show to OpenBox Core (core.agent_did)",
    )
}

/// An SDK takes any status from 400 for a failure.
fn refused(refusal: Refusal) -> Complaint {
    let status = match &refusal {
        Refusal::PolicyUnavailable(_) | Refusal::NotRecorded => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Unjudgeable(_) => StatusCode::BAD_GATEWAY,
        Refusal::Halted(_)
        | Refusal::Blocked(_)
        | Refusal::OutcomeBlocked(_)
        | Refusal::ActivityAborted(_)
        | Refusal::ApprovalPending { .. }
        | Refusal::Rejected { .. }
        | Refusal::ApprovalExpired(_)
        | Refusal::ConstraintNotApplicable(_)
        | Refusal::Unattributed
        | Refusal::Overloaded(_)
        | Refusal::ShuttingDown => StatusCode::CONFLICT,
    };
    Complaint::new(status, refusal.code(), refusal.to_string())
}
