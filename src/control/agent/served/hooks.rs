//! Hooks: operations that an SDK tells before and after it lets them happen.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{
    Action, Attribution, Completion, Context, Operation, Outcome, Refusal, Stage, Verdict,
};
use crate::gate::{Decision, Terms, Unanswered};
use crate::policy::core::told::Hook;
use crate::process::clock;
use crate::session::Session;

use super::super::Shared;
use super::evaluate::Said;
use super::open::Opened;

/// An SDK asks again by itself, and applies no constraints.
const TERMS: Terms = Terms {
    hold_within: Duration::ZERO,
    unanswered: Unanswered::AsSet,
    applies: |_| false,
    contradicts: |_| false,
    replaces: |_| false,
};

/// Has a hook judged. `context` names its activity.
pub(super) async fn judge(api: &Shared, context: Arc<Context>, hook: Hook) -> Said {
    let registry = api.api.gate.registry();
    let session = match api.api.gate.session_of_hook(&context) {
        Ok(session) => session,
        Err(refusal) => {
            let now = clock::now();
            return Said::refused(clock::operation_id(now).to_string(), refusal);
        }
    };
    // What goes over the wire meanwhile under the same trace is the activity's.
    // Full is full: what is registered by name matters more.
    if hook.stage == Stage::Started
        && registry
            .register_trace(hook.trace, &context, clock::now())
            .is_err()
    {
        tracing::debug!(run_id = %context.run_id, "no room to remember the trace of a hook");
    }
    match hook.stage {
        Stage::Started => {
            let span = (hook.trace, hook.span);
            let operation = operation(context, hook);
            let (said, opened) = start(api, operation, session).await;
            if let Some(opened) = opened {
                api.served.spans.keep(span, opened);
            }
            said
        }
        Stage::Completed => complete(api, context, session, hook).await,
    }
}

async fn start(
    api: &Shared,
    operation: Box<Operation>,
    session: Session,
) -> (Said, Option<Opened>) {
    let event = operation.id.to_string();
    let asked = operation.clone();
    match api.api.gate.admit(operation, session, &TERMS).await {
        Decision::Proceed(permit) => {
            let said = Said {
                event,
                verdict: match permit.ruling().map(|ruling| ruling.verdict) {
                    Some(Verdict::Constrain) => Verdict::Constrain,
                    Some(_) | None => Verdict::Allow,
                },
                refusal: None,
                by_fail_mode: permit.ruling().is_none(),
                ruling: permit.ruling().cloned().map(Arc::new),
                policy: None,
            };
            (said, Some(Opened::Admitted(permit)))
        }
        // What a hook tells joins nothing that was done before.
        Decision::Replay(replay) => (
            Said::refused(
                replay.event.to_string(),
                Refusal::Unjudgeable("an answer was held that no hook can be given".into()),
            ),
            None,
        ),
        Decision::Refuse(refused) => {
            let opened = matches!(refused.refusal, Refusal::ApprovalPending { .. })
                .then(|| Opened::Asked(asked));
            let said = Said {
                policy: refused.policy,
                ruling: refused.ruling,
                ..Said::refused(event, refused.refusal)
            };
            (said, opened)
        }
    }
}

/// Without a first hook (another sidecar took it, or it is long ago) both
/// stages are judged now. So they are where a person agreed meanwhile: only this
/// says that the agreement was used.
async fn complete(api: &Shared, context: Arc<Context>, session: Session, hook: Hook) -> Said {
    let span = (hook.trace, hook.span);
    let known = api.served.spans.take(span, |operation| {
        is_of_family(&operation.action, &hook.action) && is_about(&operation.action, &hook.action)
    });
    let completion = completion(&hook);
    let operation = match known {
        Some(Opened::Admitted(permit)) => {
            let event = permit.operation().map(|operation| operation.id.to_string());
            let noted = permit.account(completion).await;
            return Said::noted(event.unwrap_or_default(), noted);
        }
        Some(Opened::Asked(operation)) => operation,
        None => operation(context, hook),
    };
    let (said, opened) = start(api, operation, session).await;
    match opened {
        Some(Opened::Admitted(permit)) => {
            let noted = permit.account(completion).await;
            Said::noted(said.event, noted)
        }
        Some(opened @ Opened::Asked(_)) => {
            api.served.spans.keep(span, opened);
            said
        }
        None => said,
    }
}

fn operation(context: Arc<Context>, hook: Hook) -> Box<Operation> {
    let now = clock::now();
    Box::new(Operation {
        id: clock::operation_id(now),
        trace: hook.trace,
        span: hook.span,
        parent: hook.parent,
        started_at: hook.started_at.unwrap_or(now),
        context,
        attribution: Attribution::Headers,
        fingerprint: None,
        action: hook.action,
        reported: Some(Box::new(hook.reported)),
    })
}

/// How what a hook tells of ended.
pub(in crate::control::agent) fn completion(hook: &Hook) -> Completion {
    let outcome = match (&hook.answer, &hook.error) {
        (Some(_), None) => Outcome::Answered,
        // An error status is an answer too.
        (Some(_), Some(_)) if matches!(hook.action, Action::Http(_)) => Outcome::Answered,
        (Some(_) | None, Some(_)) | (None, None) => Outcome::Failed,
    };
    Completion {
        ended_at: hook.ended_at.unwrap_or_else(clock::now),
        outcome,
        answer: hook.answer.clone(),
        error: hook.error.clone(),
    }
}

fn is_of_family(one: &Action, other: &Action) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Whether both are about the same thing, as far as both stages tell it.
fn is_about(one: &Action, other: &Action) -> bool {
    match (one, other) {
        (Action::Http(one), Action::Http(other)) => {
            one.method == other.method && one.url == other.url
        }
        (Action::Database(one), Action::Database(other)) => {
            one.statement.digest == other.statement.digest
        }
        (Action::File(one), Action::File(other)) => {
            one.path == other.path && one.operation == other.operation
        }
        (Action::Function(one), Action::Function(other)) => one.function == other.function,
        (
            Action::Http(_) | Action::Database(_) | Action::File(_) | Action::Function(_),
            Action::Http(_) | Action::Database(_) | Action::File(_) | Action::Function(_),
        ) => false,
    }
}
