//! One waiter on one hold, and opening holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::domain::{ApprovalId, Context, Fingerprint, Operation, Refusal, Stage};
use crate::journal::Record;
use crate::metrics::LimitHit;
use crate::policy::{self, ApprovalState, ApprovalsAt, Ruling};
use crate::process::{clock, spawn_named};
use crate::session::Session;

use super::admit::ended_as;
use super::hold::{Covers, EndsFrom, Hold, Opened, Opening, State};
use super::scope::By;
use super::{Govern, Inner, fingerprint};

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

/// How old a look may be to count as a waiter's last one: however many wait,
/// Core is not asked all the time.
const LOOK_FRESH: Duration = Duration::from_millis(500);

/// What a waiter that gave up is told to wait before it tries again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Inner {
    /// Waits until `hold` is decided, at most until `until`. Cancel-safe: the
    /// hold stays, and so does its decision.
    pub(super) async fn wait(
        &self,
        hold: &Hold,
        waiter: Waiter,
        session: &Session,
        until: Instant,
    ) -> Waited {
        let until = until.min(hold.deadline);
        let within = until.saturating_duration_since(Instant::now());
        let last_look = until
            .checked_sub(LAST_LOOK.min(within.checked_div(2).unwrap_or_default()))
            .unwrap_or(until);
        let mut closing = self.closing.subscribe();
        let mut looked = false;
        loop {
            // First, so that nothing that happens from here on is missed.
            let changed = hold.state.changed();
            // Before the grant is taken, so that a halt does not use it up.
            if let Some(reason) = session.halted() {
                return Waited::Ended(Refusal::Halted(reason));
            }
            if let Some(waited) = self.settled(hold, waiter) {
                return waited;
            }
            let wake = if looked { until } else { last_look };
            tokio::select! {
                biased;
                reason = session.until_halted() => return Waited::Ended(Refusal::Halted(reason)),
                _ = closing.wait_for(|closing| *closing) => return Waited::Ended(Refusal::ShuttingDown),
                () = changed => {}
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
            State::Granted if self.holds.consume(hold) => {
                if hold.covers == Covers::All {
                    return Some(Waited::Granted);
                }
                // A grant that a restart would give once more is none.
                if !self.record_hold(hold, &State::Consumed, None) {
                    return Some(Waited::Ended(Refusal::NotRecorded));
                }
                Some(Waited::Granted)
            }
            State::Granted | State::Consumed => Some(Waited::Used),
            // The answer went away with whoever asked for it: ask anew.
            State::Cancelled(_) if joins_outcome => Some(Waited::Used),
            State::Expired => {
                // Told once: the next retry asks anew.
                self.holds.forget_fingerprint(hold);
                ended_as(hold, State::Expired).map(Waited::Ended)
            }
            other @ (State::Rejected(_) | State::Cancelled(_)) => {
                ended_as(hold, other).map(Waited::Ended)
            }
        }
    }

    fn gave_up(&self, hold: &Hold, waiter: Waiter) -> Waited {
        if hold.deadline <= Instant::now() {
            self.end_hold(hold, EndsFrom::Pending, State::Expired, None);
        }
        self.settled(hold, waiter)
            .unwrap_or_else(|| pending(hold, RETRY_AFTER))
    }

    /// Ends `hold` as `to`, unless it is past `from`, and tells everybody whom
    /// it concerns. Written down before anybody can act on it.
    pub(super) fn end_hold(
        &self,
        hold: &Hold,
        from: EndsFrom,
        to: State,
        by: Option<By<'_>>,
    ) -> bool {
        let forget = matches!(to, State::Cancelled(_));
        let first = self.holds.end(hold, from, to, |to| {
            if let Some(by) = by {
                // The first to decide is the only one.
                drop(hold.decided_by.set(by.who.into()));
            }
            self.record_hold(hold, to, by);
        });
        if first {
            if forget {
                self.holds.forget_fingerprint(hold);
            }
            self.tell_activity(hold);
            self.parts.metrics.holds_open(self.holds.pending());
        }
        first
    }

    /// Ends a hold on an answer that is lost.
    pub(super) fn lose_answer(&self, hold: &Hold) {
        let lost = "the agent went away, and the answer with it";
        self.end_hold(hold, EndsFrom::Unused, State::Cancelled(lost.into()), None);
    }

    /// What a hold on `operation` is opened with.
    pub(super) fn opening(
        &self,
        operation: &Operation,
        stage: Stage,
        ruling: &Arc<Ruling>,
        covers: Covers,
    ) -> Opening {
        let fingerprint = match covers {
            Covers::Once => operation.fingerprint,
            Covers::All => None,
        };
        Opening {
            summary: operation.summary().into(),
            fingerprint,
            twin: self.twin_on_the_wire(operation, stage),
            stage,
            covers,
            context: policy::core::subject(operation),
            ..self.bare_opening(operation.context.clone(), ruling)
        }
    }

    fn twin_on_the_wire(&self, operation: &Operation, stage: Stage) -> Option<Fingerprint> {
        let joins = self.parts.settings.govern == Govern::Both
            && operation.reported.is_some()
            && stage == Stage::Started;
        joins
            .then(|| fingerprint::of_twin(operation, Stage::Started))
            .flatten()
    }

    /// An opening of a hold that nothing but its id is recognised by.
    pub(super) fn bare_opening(&self, context: Arc<Context>, ruling: &Arc<Ruling>) -> Opening {
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
            ruling: ruling.clone(),
            context,
            opened_at,
            expires_at: opened_at.after(lives),
            deadline: now.checked_add(lives).unwrap_or(now),
            fingerprint: None,
            twin: None,
            covers: Covers::Once,
            activity: None,
        }
    }

    /// Registers `hold`, or joins the twin that an identical operation opened
    /// meanwhile.
    ///
    /// # Errors
    /// Nobody is to be asked, the bound of open holds is reached, or the session is halted: a hold is
    /// either seen by the halt that ends all holds, or sees it.
    pub(super) fn open_hold(
        self: &Arc<Self>,
        hold: Hold,
        session: &Session,
    ) -> Result<(Arc<Hold>, Waiter), Refusal> {
        let unheld = &self.parts.settings.unheld;
        if let Some(refusal) = unheld.refusal(&hold.context, hold.stage) {
            return Err(refusal);
        }
        let Some((hold, opened)) = self.holds.open(hold, self.parts.settings.holds_max) else {
            self.parts.metrics.limit_hit(LimitHit::Holds);
            return Err(Refusal::Overloaded("held operations"));
        };
        if opened == Opened::Before {
            return Ok((hold, Waiter::Joiner));
        }
        self.record_hold(&hold, &State::Pending, None);
        self.parts.metrics.holds_open(self.holds.pending());
        if let Some(reason) = session.halted() {
            let cancelled = State::Cancelled(reason.clone());
            self.end_hold(&hold, EndsFrom::Unused, cancelled, None);
            return Err(Refusal::Halted(reason));
        }
        tracing::info!(approval_id = %hold.id, "waiting for a person: {}", hold.summary);
        self.poll(&hold);
        Ok((hold, Waiter::Owner))
    }

    /// Looks after an approval that Core keeps, until it is decided.
    pub(super) fn poll(self: &Arc<Self>, hold: &Arc<Hold>) {
        if self.parts.backend.approvals_at() == ApprovalsAt::Core {
            let (gate, hold) = (Arc::downgrade(self), hold.clone());
            drop(spawn_named("approval-poll", async move {
                poll(&gate, &hold).await;
            }));
        }
    }

    /// Writes that `hold` stands, or is about to stand, at `state`. `false` if
    /// a restart would forget it.
    fn record_hold(&self, hold: &Hold, state: &State, by: Option<By<'_>>) -> bool {
        let reason = match state {
            State::Rejected(reason) | State::Cancelled(reason) => Some(reason),
            State::Pending | State::Granted | State::Consumed | State::Expired => {
                hold.ruling.reason.as_ref()
            }
        };
        let written = self.parts.journal.append(&Record::Approval {
            at: clock::now(),
            approval: &hold.id.0,
            context: &hold.context,
            state: state.as_str(),
            summary: &hold.summary,
            by: by.map(|by| by.who),
            scope: by.and_then(|by| by.scope.wider()),
            reason: reason.map(|reason| &*reason.0),
        });
        if let Err(error) = written {
            tracing::error!(%error, approval_id = %hold.id, "an approval could not be written to the journal");
        }
        self.keep_hold(hold, state)
    }

    /// Later operations of an activity go on by a grant and by nothing else.
    pub(super) fn tell_activity(&self, hold: &Hold) {
        let Some(activity) = &hold.activity else {
            return;
        };
        match hold.state() {
            State::Pending => {}
            State::Granted | State::Consumed => activity.waits_no_longer(&hold.id),
            State::Rejected(reason) | State::Cancelled(reason) => {
                self.abort_activity(activity, &reason);
            }
            State::Expired => {
                let reason = Refusal::ApprovalExpired(hold.id.clone()).to_string();
                self.abort_activity(activity, &reason.as_str().into());
            }
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
    let mut next = after(Instant::now(), pause);
    let mut looked: Option<Instant> = None;
    loop {
        let wake = next.min(hold.deadline);
        tokio::select! {
            biased;
            () = hold.state.decided() => return,
            () = time::sleep_until(wake) => {}
            () = hold.nudge.notified() => {
                if looked.is_some_and(|at| at.elapsed() < LOOK_FRESH) {
                    continue;
                }
            }
        }
        let Some(gate) = gate.upgrade() else { return };
        let now = Instant::now();
        if hold.deadline <= now {
            gate.end_hold(hold, EndsFrom::Pending, State::Expired, None);
            return;
        }
        looked = Some(now);
        if let Some(end) = gate.look(hold).await {
            gate.end_hold(hold, EndsFrom::Pending, end, Some("core".into()));
            return;
        }
        // A waiter's last look comes on top of the schedule.
        if next <= now {
            pause = pause.saturating_mul(2).min(POLL_MAX);
            next = after(Instant::now(), pause);
        }
    }
}

fn after(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}

impl Inner {
    /// Asks Core once; `None` while nobody has decided.
    async fn look(&self, hold: &Hold) -> Option<State> {
        let answer = self.parts.backend.approval(&hold.context);
        match time::timeout(self.parts.settings.judge_within, answer).await {
            Ok(Ok(ApprovalState::Granted)) => Some(State::Granted),
            Ok(Ok(ApprovalState::Rejected(reason))) => Some(State::Rejected(reason)),
            Ok(Ok(ApprovalState::Expired)) => Some(State::Expired),
            Ok(Ok(ApprovalState::Pending { .. })) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, approval_id = %hold.id, "approval not read, still pending");
                None
            }
            Err(_) => {
                tracing::debug!(approval_id = %hold.id, "approval not read in time, still pending");
                None
            }
        }
    }
}
