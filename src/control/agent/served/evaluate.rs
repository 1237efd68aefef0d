//! `POST /api/v1/governance/evaluate`: lifecycle events and hooks.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

use crate::domain::{ActivityRef, Context, EventKind, Refusal, Verdict};
use crate::gate::{Gate, Noted};
use crate::policy::core::served::{Evaluated, Guarded, raw};
use crate::policy::core::told::{self, Told, ToldActivity, ToldRun, What};
use crate::policy::{Ruling, Side};
use crate::session::RunKey;

use super::super::super::problem::json;
use super::super::{Shared, answer};
use super::{Complaint, hooks};

/// Takes one event and answers it with its verdict.
pub(super) async fn evaluate(
    State(api): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Complaint> {
    let text = api.taken(request).await?;
    let told = told::told(&text)?;
    drop(text);
    let context = context(&api, &told);
    Ok(match told.what {
        What::Lifecycle(kind, fields) => {
            let (event, noted) = api.note(kind, context, fields, Duration::ZERO).await;
            let side = match kind {
                EventKind::ActivityCompleted | EventKind::WorkflowCompleted => Side::Output,
                EventKind::WorkflowStarted
                | EventKind::WorkflowFailed
                | EventKind::SignalReceived
                | EventKind::ActivityStarted
                | EventKind::Handoff => Side::Input,
            };
            let mut said = Said::noted(event.id.to_string(), noted);
            if said.is_stopped_by_guardrails() {
                // As Core says it: SDKs stop an activity for what they find in
                // `guardrails_result`, and tell it apart from a BLOCK of policy.
                said.verdict = Verdict::Allow;
            }
            said.answer(&api.api.gate, side)
        }
        What::Hook(hook) => {
            if context.activity.as_ref().is_none_or(|a| a.kind.is_empty()) {
                let message = "`activity_type` is missing, and no open activity has this id";
                return Err(Complaint::new(
                    StatusCode::BAD_REQUEST,
                    "missing_field",
                    message,
                ));
            }
            let said = hooks::judge(&api, context, *hook).await;
            said.answer(&api.api.gate, Side::Input)
        }
    })
}

/// The run and activity as the event tells them, else as they were opened, else
/// as our own.
fn context(api: &Shared, told: &Told) -> Arc<Context> {
    let registry = api.api.gate.registry();
    let Some(ToldRun {
        workflow_id,
        run_id,
    }) = told.run.clone()
    else {
        // A handoff, which is the agent's and not one run's.
        return registry.own().context.clone();
    };
    let run = registry.run(&RunKey {
        workflow_id: workflow_id.clone(),
        run_id: run_id.clone(),
    });
    let known = run
        .as_ref()
        .map_or(&registry.own().context, |run| &run.context);
    let kind_of = |id: &str| {
        let open = run.as_ref()?.activity(id)?;
        open.context
            .activity
            .as_ref()
            .map(|named| named.kind.clone())
    };
    let activity = told.activity.as_ref().map(|activity| {
        let ToldActivity {
            id,
            kind,
            attempt,
            input,
        } = activity.clone();
        ActivityRef {
            kind: kind.or_else(|| kind_of(&id)).unwrap_or_default(),
            id,
            attempt,
            input,
        }
    });
    Arc::new(Context {
        workflow_id,
        run_id,
        workflow_type: told
            .workflow_type
            .clone()
            .unwrap_or_else(|| known.workflow_type.clone()),
        task_queue: told
            .task_queue
            .clone()
            .unwrap_or_else(|| known.task_queue.clone()),
        activity,
    })
}

/// What became of an event, on its way to the SDK.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) event: String,
    pub(super) verdict: Verdict,
    pub(super) refusal: Option<Refusal>,
    pub(super) ruling: Option<Arc<Ruling>>,
    pub(super) by_fail_mode: bool,
    /// The policy that decided, where the ruling is not at hand.
    pub(super) policy: Option<Arc<str>>,
}

impl Said {
    pub(super) fn noted(event: String, noted: Noted) -> Self {
        Self {
            event,
            verdict: noted.verdict,
            refusal: noted.refusal,
            ruling: noted.ruling,
            by_fail_mode: noted.by_fail_mode,
            policy: None,
        }
    }

    pub(super) fn refused(event: String, refusal: Refusal) -> Self {
        Self {
            event,
            verdict: refusal.verdict(),
            by_fail_mode: matches!(refusal, Refusal::PolicyUnavailable(_)),
            refusal: Some(refusal),
            ruling: None,
            policy: None,
        }
    }

    /// Whether guardrails, and nothing else, are why it may not go on.
    fn is_stopped_by_guardrails(&self) -> bool {
        let failed = |ruling: &Arc<Ruling>| {
            let guardrails = ruling.guardrails.as_ref();
            guardrails.is_some_and(|guardrails| !guardrails.passed)
        };
        matches!(self.refusal, Some(Refusal::Blocked(_)))
            && self.ruling.as_ref().is_some_and(failed)
    }

    /// Whatever came of it is an answer with a verdict, also where nobody could
    /// judge: an SDK that fails open takes an error for a yes.
    fn answer(&self, gate: &Gate, side: Side) -> Response {
        let ruling = self.ruling.as_deref();
        let refusal = self.refusal.as_ref();
        let approval = refusal.and_then(Refusal::approval);
        let evaluated = Evaluated {
            governance_event_id: ruling
                .and_then(|ruling| ruling.event_id.as_deref())
                .unwrap_or(&self.event),
            verdict: self.verdict,
            action: self.verdict,
            risk_score: 0.0,
            trust_tier: None,
            reason: answer::reason(gate, refusal, ruling),
            policy_id: ruling
                .and_then(|ruling| ruling.policy.as_deref())
                .or(self.policy.as_deref()),
            behavioral_violations: ruling.map_or(&[], |ruling| &ruling.violations),
            constraints: ruling.map_or(&[], |ruling| &ruling.constraints),
            approval_id: approval.map(|approval| &*approval.0),
            approval_expiration_time: approval
                .and_then(|approval| gate.approval(approval))
                .map(|view| view.expires_at),
            fallback_used: self.by_fail_mode,
            guardrails_result: ruling.and_then(|ruling| Guarded::new(side, ruling)),
            patch: raw(ruling.and_then(|ruling| ruling.patch.as_ref())),
            age_result: raw(ruling.and_then(|ruling| ruling.age.as_ref())),
        };
        json(StatusCode::OK, &evaluated)
    }
}
