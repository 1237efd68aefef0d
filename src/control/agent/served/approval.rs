//! `POST /api/v1/governance/approval`: where the approval of an activity stands.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

use crate::domain::{ActivityRef, Context, JsonText, Timestamp, Verdict};
use crate::gate::HoldView;
use crate::gate::hold;
use crate::policy::ApprovalState;
use crate::policy::core::served::PolledAnswer;
use crate::policy::core::told::{self, Polled};
use crate::session::RunKey;

use super::super::super::problem::json;
use super::super::Shared;
use super::Complaint;

/// Longest wait for Core's own word on a poll; without it, what was known before
/// is answered.
const CORE_WITHIN: Duration = Duration::from_millis(500);

/// Answers a poll.
pub(super) async fn poll(
    State(api): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Complaint> {
    let text = api.taken(request).await?;
    let polled = told::polled(&text)?;
    let context = context(&polled);
    if let Some(view) = api.api.gate.approval_of(&context, CORE_WITHIN).await {
        return Ok(json(StatusCode::OK, &known(&api, &polled, &view)));
    }
    // One that was opened before this sidecar started.
    match api.api.gate.approval_in_core(&context).await {
        Some(Ok(state)) => Ok(json(StatusCode::OK, &in_core(&state))),
        Some(Err(error)) => {
            let message = format!("no such approval is known here, and {error}");
            Err(unknown(message))
        }
        None => Err(unknown(
            "no such approval is known; it may have expired long ago",
        )),
    }
}

fn unknown(message: impl Into<String>) -> Complaint {
    Complaint::new(StatusCode::NOT_FOUND, "unknown_approval", message)
}

fn context(polled: &Polled) -> Context {
    Context {
        workflow_id: polled.workflow_id.clone(),
        run_id: polled.run_id.clone(),
        workflow_type: "".into(),
        task_queue: "".into(),
        // Only its id is looked at.
        activity: Some(ActivityRef {
            id: polled.activity_id.clone(),
            kind: "".into(),
            attempt: 1,
            input: JsonText::empty_array(),
        }),
    }
}

fn known<'a>(api: &Shared, polled: &Polled, view: &'a HoldView) -> PolledAnswer<'a> {
    let (action, reason, expires_at) = match &view.state {
        hold::State::Pending => (
            Verdict::RequireApproval,
            view.reason.as_ref(),
            Some(view.expires_at),
        ),
        hold::State::Granted | hold::State::Consumed => (Verdict::Allow, None, None),
        hold::State::Rejected(reason) => (Verdict::Block, Some(reason), None),
        hold::State::Cancelled(reason) => {
            let key = RunKey {
                workflow_id: polled.workflow_id.clone(),
                run_id: polled.run_id.clone(),
            };
            let run = api.api.gate.registry().run(&key);
            let halted = run.is_some_and(|run| run.latch.reason().is_some());
            let action = match halted {
                true => Verdict::Halt,
                false => Verdict::Block,
            };
            (action, Some(reason), None)
        }
        hold::State::Expired => (Verdict::RequireApproval, None, Some(view.expires_at)),
    };
    PolledAnswer {
        id: Some(&view.id.0),
        action,
        reason: reason.map(|reason| &*reason.0),
        approval_expiration_time: expires_at,
        expired: view.state == hold::State::Expired,
    }
}

fn in_core(state: &ApprovalState) -> PolledAnswer<'_> {
    let answer = |action, expires_at: Option<Timestamp>| PolledAnswer {
        id: None,
        action,
        reason: None,
        approval_expiration_time: expires_at,
        expired: false,
    };
    match state {
        ApprovalState::Pending { expires_at } => answer(Verdict::RequireApproval, *expires_at),
        ApprovalState::Granted => answer(Verdict::Allow, None),
        ApprovalState::Rejected(reason) => PolledAnswer {
            reason: Some(&reason.0),
            ..answer(Verdict::Block, None)
        },
        ApprovalState::Expired => PolledAnswer {
            expired: true,
            ..answer(Verdict::RequireApproval, None)
        },
    }
}
