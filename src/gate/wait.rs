//! One waiter on one hold, and opening holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::domain::{ApprovalId, Context, Operation, Refusal, Stage};
use crate::journal::Record;
use crate::policy::{self, ApprovalState, ApprovalsAt, Ruling};
use crate::process::{clock, spawn_named};
use crate::session::Session;

use super::Inner;
use super::admit::ended_as;
use super::hold::{Covers, Hold, Opened, Opening, State};

/// How a wait ended.
#[derive(Debug)]
pub(super) enum Waited {
    /// A person agreed, and this waiter has the grant.
    Granted,
    /// A person agreed, and another waiter has the grant.
    Used,
    /// Otherwise.
    Ended(Refusal),
}

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// Whoever opened the hold, and has what it is about in hand.
    Owner,
    /// An identical retry. It can use a grant of an outcome only once the
    /// owner has set the answer aside.
    Joiner,
}

/// First pause between two looks at an approval in Core, and the longest one
/// (contract §5.3).
const POLL_FIRST: Duration = Duration::from_millis(2_500);
const POLL_MAX: Duration = Duration::from_secs(15);

/// How long before a waiter gives up that Core is asked once more.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What a waiter that gave up is told to wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Inner {
    /// Waits until `hold` is decided, at most `within`. Cancel-safe: the hold
    /// stays, and so does its decision.
    pub(super) async fn wait(
        &self,
        hold: &Hold,
        waiter: Waiter,
        session: &Session,
        within: Duration,
    ) -> Waited {
        let now = Instant::now();
        let until = now
            .checked_add(within)
            .unwrap_or(hold.deadline)
            .min(hold.deadline);
        let last_look = until
            .checked_sub(LAST_LOOK.min(within / 2))
            .unwrap_or(until);
        let mut state = hold.state.subscribe();
        let mut closing = self.closing.subscribe();
        let mut looked = false;
        loop {
            if let Some(waited) = self.settled(hold, waiter) {
                return waited;
            }
            let wake = if looked { until } else { last_look };
            tokio::select! {
                biased;
                reason = session.until_halted() => return Waited::Ended(Refusal::Halted(reason)),
                _ = closing.wait_for(|closing| *closing) => return Waited::Ended(Refusal::ShuttingDown),
                changed = state.changed() => drop(changed),
                () = time::sleep_until(wake) => {
                    if looked {
                        return self.gave_up(hold, waiter);
                    }
                    looked = true;
                    hold.nudge.notify_one();
                }
            }
        }
    }

    fn settled(&self, hold: &Hold, waiter: Waiter) -> Option<Waited> {
        let joins_outcome = waiter == Waiter::Joiner
            && hold.stage == Stage::Completed
            && hold.covers == Covers::Once;
        match hold.state() {
            State::Pending => None,
            State::Granted if joins_outcome && !hold.has_parked() => {
                Some(pending(hold, Duration::from_secs(1)))
            }
            State::Granted if hold.consume() => {
                self.consumed(hold);
                Some(Waited::Granted)
            }
            State::Granted | State::Consumed => Some(Waited::Used),
            other => ended_as(hold, other).map(Waited::Ended),
        }
    }

    fn gave_up(&self, hold: &Hold, waiter: Waiter) -> Waited {
        if hold.deadline <= Instant::now() {
            if self.holds.resolve(hold, State::Expired) {
                self.record_hold(hold, None);
            }
            return self
                .settled(hold, waiter)
                .unwrap_or_else(|| Waited::Ended(Refusal::ApprovalExpired(hold.id.clone())));
        }
        pending(hold, RETRY_AFTER)
    }

    fn consumed(&self, hold: &Hold) {
        if hold.covers == Covers::Once {
            self.holds.forget_fingerprint(hold);
            self.record_hold(hold, None);
        }
    }

    /// What a hold on `operation` is opened with.
    pub(super) fn opening(
        &self,
        operation: &Operation,
        stage: Stage,
        ruling: &Ruling,
        covers: Covers,
    ) -> Opening {
        let fingerprint = match covers {
            Covers::Once => operation.fingerprint,
            Covers::All => None,
        };
        Opening {
            summary: operation.summary().into(),
            fingerprint,
            stage,
            covers,
            context: policy::core::subject(operation),
            ..self.bare_opening(operation.context.clone(), ruling)
        }
    }

    /// An opening of a hold that nothing but its id is recognised by.
    pub(super) fn bare_opening(&self, context: Arc<Context>, ruling: &Ruling) -> Opening {
        let opened_at = clock::now();
        let told = ruling.approval.as_ref();
        let lives = told
            .and_then(|approval| approval.expires_at)
            .map_or(self.parts.settings.approval_lives, |at| at.since(opened_at));
        let now = Instant::now();
        Opening {
            id: told
                .and_then(|approval| approval.id.clone())
                .unwrap_or_else(|| ApprovalId(clock::secret_name("apr_").into())),
            stage: Stage::Started,
            summary: "".into(),
            reason: ruling.reason.clone(),
            policy: ruling.policy.clone(),
            context,
            opened_at,
            expires_at: opened_at.after(lives),
            deadline: now.checked_add(lives).unwrap_or(now),
            fingerprint: None,
            generation: ruling.generation,
            covers: Covers::Once,
        }
    }

    /// Registers `hold`, or joins the twin that an identical operation opened
    /// meanwhile. `None` at the bound.
    pub(super) fn open_hold(self: &Arc<Self>, hold: Hold) -> Option<Arc<Hold>> {
        let (hold, opened) = self.holds.open(hold, self.parts.settings.holds_max)?;
        if opened == Opened::Now {
            self.record_hold(&hold, None);
            tracing::info!(approval_id = %hold.id, "waiting for a person: {}", hold.summary);
            if self.parts.backend.approvals_at() == ApprovalsAt::Core {
                let (gate, hold) = (Arc::downgrade(self), hold.clone());
                drop(spawn_named("approval-poll", async move {
                    poll(&gate, &hold).await;
                }));
            }
        }
        Some(hold)
    }

    /// Writes where `hold` stands.
    pub(super) fn record_hold(&self, hold: &Hold, by: Option<&str>) {
        self.parts.metrics.holds_open(self.holds.pending());
        let state = hold.state();
        let reason = match &state {
            State::Rejected(reason) | State::Cancelled(reason) => Some(reason),
            State::Pending | State::Granted | State::Consumed | State::Expired => {
                hold.reason.as_ref()
            }
        };
        let written = self.parts.journal.append(&Record::Approval {
            at: clock::now(),
            approval: &hold.id.0,
            state: state.as_str(),
            summary: &hold.summary,
            by,
            reason: reason.map(|reason| &*reason.0),
        });
        if let Err(error) = written {
            tracing::error!(%error, approval_id = %hold.id, "an approval could not be written to the journal");
        }
    }
}

fn pending(hold: &Hold, retry_after: Duration) -> Waited {
    Waited::Ended(Refusal::ApprovalPending {
        approval: hold.id.clone(),
        retry_after,
    })
}

/// The one poller of an approval that Core keeps, however many wait for it. An
/// error means that it is still pending: the deadline bounds it, and a blip
/// must not read as a refusal.
async fn poll(gate: &std::sync::Weak<Inner>, hold: &Hold) {
    let mut pause = POLL_FIRST;
    let mut state = hold.state.subscribe();
    loop {
        tokio::select! {
            () = time::sleep(pause) => {}
            () = hold.nudge.notified() => {}
            _ = state.wait_for(|state| *state != State::Pending) => return,
        }
        pause = pause.saturating_mul(2).min(POLL_MAX);
        let Some(gate) = gate.upgrade() else { return };
        let end = match gate.parts.backend.approval(&hold.context).await {
            Ok(ApprovalState::Granted) => State::Granted,
            Ok(ApprovalState::Rejected(reason)) => State::Rejected(reason),
            Ok(ApprovalState::Expired) => State::Expired,
            Ok(ApprovalState::Pending { .. }) => continue,
            Err(error) => {
                tracing::debug!(%error, approval_id = %hold.id, "approval not read, still pending");
                continue;
            }
        };
        if gate.holds.resolve(hold, end) {
            gate.record_hold(hold, Some("core"));
        }
        return;
    }
}
