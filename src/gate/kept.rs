//! What the gate remembers for the next start, and takes up again then.

use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::{
    ActivityRef, ApprovalId, Context, Fingerprint, JsonText, Reason, Stage, Timestamp, Verdict,
};
use crate::policy::{ApprovalsAt, Ruling};
use crate::process::clock;
use crate::session::{Activity, RunKey};
use crate::state::{Change, KeptApproval, KeptState, Restored};

use super::hold::{Covers, EndsFrom, Hold, Opening, State};
use super::{Gate, Inner};

/// A generation that no policy has: whoever uses a grant of an earlier process
/// is judged again, for the policy may be another one now.
const OF_AN_EARLIER_PROCESS: u64 = u64::MAX;

impl Gate {
    /// Takes up what an earlier process left. Must be called before anything is
    /// judged, and inside a runtime: approvals of Core are polled from here on.
    pub fn restore(&self, restored: Restored) {
        let inner = &self.inner;
        let registry = &inner.parts.registry;
        for (context, opened_at) in &restored.runs {
            if registry.open_run(context, *opened_at).is_err() {
                inner.keep(&Change::RunClosed(context));
            }
        }
        for kept in &restored.activities {
            if registry
                .open_activity(&kept.context, kept.opened_at)
                .is_err()
            {
                inner.keep(&Change::ActivityClosed(&kept.context));
            } else if let (Some(reason), Some(activity)) =
                (&kept.aborted, registry.session_of(&kept.context).activity)
            {
                activity.abort(reason);
            }
        }
        for (context, reason) in &restored.halts {
            self.halt_again(context, reason, &restored.runs);
        }
        if let Some(reason) = &restored.everything {
            registry.halt_everything(reason);
        }
        let approvals = restored.approvals.len();
        for kept in restored.approvals {
            inner.hold_again(&kept);
        }
        inner.parts.metrics.holds_open(inner.holds.pending());
        if approvals > 0 || !restored.halts.is_empty() || !restored.runs.is_empty() {
            tracing::info!(
                approvals,
                runs = restored.runs.len(),
                activities = restored.activities.len(),
                halts = restored.halts.len(),
                "taken up from an earlier process"
            );
        }
    }

    fn halt_again(&self, context: &Context, reason: &Reason, open: &[(Context, Timestamp)]) {
        let registry = &self.inner.parts.registry;
        let key = RunKey::of(context);
        let known = registry.run(&key);
        let run = match known {
            Some(run) => Ok(run),
            None => registry.open_run(context, clock::now()),
        };
        let Ok(run) = run else {
            // Too many runs for the bound of now: nothing says whose an
            // operation is that would be this run's, so nothing may pass.
            registry.halt_everything(reason);
            return;
        };
        registry.halt(&run, reason);
        let is_open = open.iter().any(|(other, _)| RunKey::of(other) == key);
        if !is_open {
            registry.close_run(context);
        }
    }
}

impl Inner {
    /// Remembers `change` for the next start. `false`, and loud, where that
    /// fails: what is to survive a restart then does not.
    pub(super) fn keep(&self, change: &Change<'_>) -> bool {
        let kept = self.parts.state.put(change);
        if let Err(error) = &kept {
            tracing::error!(%error, ?change, "this would be forgotten by a restart");
        }
        kept.is_ok()
    }

    /// Remembers that `hold` stands at `state`, or that it is over.
    pub(super) fn keep_hold(&self, hold: &Hold, state: &State) -> bool {
        // An answer set aside does not survive the process, so neither does
        // what a person is asked about it.
        if hold.stage == Stage::Completed && hold.covers == Covers::Once {
            return true;
        }
        let kept = match (state, hold.covers) {
            (State::Pending, _) => KeptState::Pending,
            (State::Granted, Covers::Once) => KeptState::Granted,
            (State::Rejected(reason), Covers::Once) => KeptState::Rejected(reason.to_string()),
            // The activity has been told, and that is kept with the activity.
            (State::Granted | State::Rejected(_), Covers::All)
            | (State::Consumed | State::Expired | State::Cancelled(_), _) => {
                return self.keep(&Change::ApprovalOver(&hold.id));
            }
        };
        let in_core = self.parts.backend.approvals_at() == ApprovalsAt::Core;
        self.keep(&Change::Approval(&row(hold, kept, in_core)))
    }

    /// Refuses later operations of `activity`, also after a restart.
    pub(super) fn abort_activity(&self, activity: &Activity, reason: &Reason) {
        activity.abort(reason);
        self.keep(&Change::ActivityAborted(&activity.context, reason));
    }

    fn hold_again(self: &Arc<Self>, kept: &KeptApproval) {
        let id = ApprovalId((*kept.id).into());
        let core = self.parts.backend.approvals_at() == ApprovalsAt::Core;
        let Some(opening) = self.opening_again(kept).filter(|_| kept.in_core == core) else {
            tracing::warn!(approval_id = %id, "an approval of an earlier process cannot be decided any more: {}", kept.summary);
            self.keep(&Change::ApprovalOver(&id));
            return;
        };
        let activity = opening.activity.clone();
        // The bound was kept when it was opened.
        let Some((hold, _)) = self.holds.open(Hold::new(opening), usize::MAX) else {
            return;
        };
        if let Some(by) = &kept.decided_by {
            // It is new: nobody has said so yet.
            drop(hold.decided_by.set((**by).into()));
        }
        if let Some(activity) = activity {
            activity.wait_for(hold.id.clone());
        }
        let decided = match &kept.state {
            KeptState::Pending => None,
            KeptState::Granted => Some(State::Granted),
            KeptState::Rejected(reason) => Some(State::Rejected(Reason::from(&**reason))),
        };
        match decided {
            Some(state) => {
                self.holds.end(&hold, EndsFrom::Pending, state, |_| {});
            }
            None => self.poll(&hold),
        }
    }

    /// `None` if nobody can use it any more.
    fn opening_again(&self, kept: &KeptApproval) -> Option<Opening> {
        let context = Arc::new(context(kept));
        let (stage, covers, activity) = if kept.of_outcome {
            let session = self.parts.registry.session_of(&context);
            (Stage::Completed, Covers::All, Some(session.activity?))
        } else {
            (Stage::Started, Covers::Once, None)
        };
        let expires_at = Timestamp(kept.expires_at);
        let opened_at = Timestamp(kept.opened_at);
        // A clock that was set back must not lengthen its life.
        let lives = expires_at
            .since(clock::now())
            .min(expires_at.since(opened_at));
        let now = Instant::now();
        Some(Opening {
            id: ApprovalId((*kept.id).into()),
            stage,
            summary: (*kept.summary).into(),
            ruling: Arc::new(self.ruling_again(kept)),
            context,
            opened_at,
            expires_at,
            deadline: now.checked_add(lives).unwrap_or(now),
            fingerprint: kept.fingerprint.as_deref().and_then(fingerprint),
            twin: kept.twin.as_deref().and_then(fingerprint),
            covers,
            activity,
        })
    }

    fn ruling_again(&self, kept: &KeptApproval) -> Ruling {
        let generation = if kept.in_core {
            // Never asked again: that would overwrite the person's decision.
            self.parts.backend.generation()
        } else {
            OF_AN_EARLIER_PROCESS
        };
        Ruling {
            reason: kept.reason.as_deref().map(Reason::from),
            policy: kept.policy.as_deref().map(Into::into),
            event_id: kept.event_id.as_deref().map(Into::into),
            constraints: kept.constraints.iter().map(|c| (**c).into()).collect(),
            redacted: kept.redacted.as_deref().map(|text| JsonText(text.into())),
            ..Ruling::new(Verdict::RequireApproval, generation)
        }
    }
}

fn row(hold: &Hold, state: KeptState, in_core: bool) -> KeptApproval {
    // Whole, so that what is new in a ruling is kept too, or left out knowingly.
    let Ruling {
        verdict: _,
        reason,
        policy,
        // What a person is asked says why.
        violations: _,
        event_id,
        constraints,
        approval: _,
        redacted,
        // What was found tells why; what stands in its place is kept.
        guardrails: _,
        patch: _,
        age: _,
        generation: _,
    } = &*hold.ruling;
    KeptApproval {
        id: hold.id.0.to_string(),
        state,
        of_outcome: hold.stage == Stage::Completed,
        summary: hold.summary.to_string(),
        reason: reason.as_ref().map(ToString::to_string),
        policy: policy.as_deref().map(str::to_owned),
        event_id: event_id.as_deref().map(str::to_owned),
        constraints: constraints.iter().map(|c| c.to_string()).collect(),
        redacted: redacted.as_ref().map(|json| json.0.to_string()),
        in_core,
        workflow_id: hold.context.workflow_id.to_string(),
        run_id: hold.context.run_id.to_string(),
        activity_id: hold.context.activity.as_ref().map(|a| a.id.to_string()),
        opened_at: hold.opened_at.0,
        expires_at: hold.expires_at.0,
        fingerprint: hold.fingerprint.map(|print| print.to_string()),
        twin: hold.twin.map(|print| print.to_string()),
        decided_by: hold.decided_by.get().map(|by| by.to_string()),
    }
}

/// The ids alone: what else an activity has is told by the retry itself.
fn context(kept: &KeptApproval) -> Context {
    Context {
        workflow_id: (*kept.workflow_id).into(),
        run_id: (*kept.run_id).into(),
        workflow_type: "".into(),
        task_queue: "".into(),
        activity: kept.activity_id.as_deref().map(|id| ActivityRef {
            id: id.into(),
            kind: "".into(),
            attempt: 1,
            input: JsonText::empty_array(),
        }),
    }
}

fn fingerprint(hex: &str) -> Option<Fingerprint> {
    let number = u128::from_str_radix(hex, 16).ok()?;
    Some(Fingerprint(number.to_be_bytes()))
}
