//! What the operator does at the gate: decide approvals, halt, resume; and the
//! gate's own housekeeping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time;

use crate::domain::{ApprovalId, Context, Protocol, Reason, Stage, Timestamp};
use crate::journal::Record;
use crate::metrics::Decided;
use crate::policy::{ApprovalState, ApprovalsAt, PolicyError};
use crate::process::clock;
use crate::session::{Run, RunKey};
use crate::state::Change;

use super::admit::Trail;
use super::hold::{EndsFrom, Hold, State};
use super::scope::{By, Said, Scope, ScopeError, Word};
use super::{Gate, HaltScope, Housekeeping, Inner, fingerprint, outcome};

/// How often deadlines are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A hold as the operator sees it.
#[derive(Clone, Debug)]
pub struct HoldView {
    /// What it is decided under.
    pub id: ApprovalId,
    /// Whether the operation may leave, or its outcome may be handed out.
    pub stage: Stage,
    /// One line about what is asked.
    pub summary: Box<str>,
    /// Why policy wants a person.
    pub reason: Option<Reason>,
    /// Which policy wants a person.
    pub policy: Option<Arc<str>>,
    /// Ids of run and activity.
    pub workflow_id: Arc<str>,
    /// See [`Self::workflow_id`].
    pub run_id: Arc<str>,
    /// See [`Self::workflow_id`].
    pub activity_id: Option<Arc<str>>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: State,
}

/// An approval that cannot be decided.
#[derive(Clone, Debug)]
pub enum DecideError {
    /// No such approval is known.
    Unknown,
    /// It was decided before, like this.
    Already(Box<HoldView>),
    /// It is decided in Core, not here.
    InCore,
    /// It cannot be decided about more than the operation itself.
    Scope(ScopeError),
}

/// How many operations were decided how, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Admitted without conditions.
    pub allowed: u64,
    /// Admitted with constraints.
    pub constrained: u64,
    /// Admitted after a person agreed, or refused for want of one.
    pub approvals: u64,
    /// Refused by policy.
    pub blocked: u64,
    /// Refused because of a halt.
    pub halted: u64,
    /// Refused without a verdict.
    pub refused: u64,
    /// Answers withheld at `completed`.
    pub withheld: u64,
}

impl Tally {
    pub(super) const KINDS: usize = 7;
}

impl Gate {
    /// Every approval still known, oldest first.
    pub fn approvals(&self) -> Vec<HoldView> {
        self.inner
            .holds
            .all()
            .iter()
            .map(|hold| view(hold))
            .collect()
    }

    /// One approval.
    pub fn approval(&self, id: &ApprovalId) -> Option<HoldView> {
        self.inner.holds.by_id(id).map(|hold| view(&hold))
    }

    /// The newest approval of the activity that `context` names. Where the
    /// approval is Core's, Core is asked now, and has at most `within` to answer.
    pub async fn approval_of(&self, context: &Context, within: Duration) -> Option<HoldView> {
        let subject = fingerprint::of_subject(context)?;
        let hold = self.inner.holds.by_subject(subject)?;
        match self.inner.parts.backend.approvals_at() {
            ApprovalsAt::Sidecar => Some(view(&hold)),
            ApprovalsAt::Core => {
                hold.nudge.notify_one();
                self.approval_within(&hold.id, within).await
            }
        }
    }

    /// Where the approval of the activity that `context` names stands in Core,
    /// for one that was not opened here. `None` where approvals are kept here.
    ///
    /// # Errors
    /// Core gave no answer, or knows no such approval.
    pub async fn approval_in_core(
        &self,
        context: &Context,
    ) -> Option<Result<ApprovalState, PolicyError>> {
        let parts = &self.inner.parts;
        if parts.backend.approvals_at() == ApprovalsAt::Sidecar {
            return None;
        }
        let within = parts.settings.judge_within;
        let answer = time::timeout(within, parts.backend.approval(context)).await;
        Some(answer.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", within.as_secs_f32());
            Err(PolicyError::Unavailable(Reason(text.into())))
        }))
    }

    /// One approval, once it is decided, the gate closes, or `within` is over.
    /// Cancel-safe.
    pub async fn approval_within(&self, id: &ApprovalId, within: Duration) -> Option<HoldView> {
        let hold = self.inner.holds.by_id(id)?;
        let mut closing = self.inner.closing.subscribe();
        if !within.is_zero() {
            tokio::select! {
                () = hold.state.decided() => {}
                _ = closing.wait_for(|closing| *closing) => {}
                () = time::sleep(within) => {}
            }
        }
        Some(view(&hold))
    }

    /// Lets the held operation go, once. `by` names who decided.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn approve(&self, id: &ApprovalId, by: &str) -> Result<HoldView, DecideError> {
        self.approve_all_of(id, Scope::Once, by)
    }

    /// The same, and what else is in `scope`.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn approve_all_of(
        &self,
        id: &ApprovalId,
        scope: Scope,
        by: &str,
    ) -> Result<HoldView, DecideError> {
        self.decide(id, State::Granted, (scope, Said::Yes), by)
    }

    /// Refuses the held operation. `by` names who decided.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn reject(
        &self,
        id: &ApprovalId,
        reason: Reason,
        by: &str,
    ) -> Result<HoldView, DecideError> {
        self.reject_all_of(id, reason, Scope::Once, by)
    }

    /// The same, and what else is in `scope`.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn reject_all_of(
        &self,
        id: &ApprovalId,
        reason: Reason,
        scope: Scope,
        by: &str,
    ) -> Result<HoldView, DecideError> {
        let no = Said::No(reason.clone());
        self.decide(id, State::Rejected(reason), (scope, no), by)
    }

    fn decide(
        &self,
        id: &ApprovalId,
        to: State,
        (scope, said): (Scope, Said),
        by: &str,
    ) -> Result<HoldView, DecideError> {
        let inner = &self.inner;
        let hold = inner.holds.by_id(id).ok_or(DecideError::Unknown)?;
        if inner.parts.backend.approvals_at() == ApprovalsAt::Core {
            return Err(DecideError::InCore);
        }
        if hold.state() != State::Pending {
            return Err(DecideError::Already(Box::new(view(&hold))));
        }
        let word = Word::about(&hold, scope, said, by, &inner.parts.registry);
        let word = word.map_err(DecideError::Scope)?;
        let wider = word.is_some();
        // Before it is decided: what comes right after it must find it.
        if let Some(word) = word {
            inner.words.keep(word).map_err(DecideError::Scope)?;
        }
        let who = By { who: by, scope };
        if !inner.end_hold(&hold, EndsFrom::Pending, to, Some(who)) {
            if wider {
                inner.words.take_back(id);
            }
            return Err(DecideError::Already(Box::new(view(&hold))));
        }
        tracing::info!(approval_id = %hold.id, by, ?scope, "approval {}", hold.state().as_str());
        Ok(view(&hold))
    }

    /// Halts `run`, and everything where the halt scope is the agent.
    pub fn halt(&self, run: &Run, reason: &Reason, by: &str) {
        self.inner.halt(run, reason, by);
    }

    /// Resumes `run`. Returns whether anything was halted.
    pub fn resume(&self, run: &Run, by: &str) -> bool {
        let parts = &self.inner.parts;
        let was = parts.registry.resume(run);
        if was {
            tracing::warn!(run_id = %run.context.run_id, by, "run resumed");
            let written = parts.journal.append(&Record::Resume {
                at: clock::now(),
                workflow_id: &run.context.workflow_id,
                run_id: &run.context.run_id,
                by,
            });
            if let Err(error) = written {
                tracing::error!(%error, "a resume could not be written to the journal");
            }
            self.inner.keep(&Change::Resumed(&run.context));
        }
        was
    }

    /// Decisions since the start.
    pub fn tally(&self) -> Tally {
        let [
            allowed,
            constrained,
            approvals,
            blocked,
            halted,
            refused,
            withheld,
        ] = self
            .inner
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        Tally {
            allowed,
            constrained,
            approvals,
            blocked,
            halted,
            refused,
            withheld,
        }
    }
}

impl Inner {
    /// Latches, writes it down, and ends what is held.
    pub(super) fn halt(&self, run: &Run, reason: &Reason, by: &str) {
        let registry = &self.parts.registry;
        let everything = self.parts.settings.halt_scope == HaltScope::Agent;
        let run_first = registry.halt(run, reason);
        let all_first = everything && registry.halt_everything(reason);
        if !(run_first || all_first) {
            return;
        }
        tracing::warn!(run_id = %run.context.run_id, by, %reason, "run halted");
        let written = self.parts.journal.append(&Record::Halt {
            at: clock::now(),
            workflow_id: &run.context.workflow_id,
            run_id: &run.context.run_id,
            by,
            reason: &reason.0,
        });
        if let Err(error) = written {
            tracing::error!(%error, "a halt could not be written to the journal");
        }
        if all_first {
            self.keep(&Change::EverythingHalted(reason));
        }
        // The own run is part of everything, and each command has another.
        let is_own = RunKey::of(&run.context) == RunKey::of(&registry.own().context);
        if !(everything && is_own) {
            self.keep(&Change::Halted(&run.context, reason));
        }
        for hold in self.holds.all() {
            let of_run = hold.context.run_id == run.context.run_id
                && hold.context.workflow_id == run.context.workflow_id;
            if everything || of_run {
                let cancelled = State::Cancelled(reason.clone());
                self.end_hold(&hold, EndsFrom::Pending, cancelled, None);
            }
        }
    }

    pub(super) fn count(&self, protocol: Protocol, stage: Stage, decided: Decided, trail: &Trail) {
        self.parts
            .metrics
            .decided(protocol, stage, decided, trail.policy_took);
        let kind = match (stage, decided) {
            (Stage::Started, Decided::Allow) => 0,
            (Stage::Started, Decided::Constrain) => 1,
            (Stage::Started, Decided::RequireApproval) => 2,
            (Stage::Started, Decided::Block) => 3,
            (Stage::Started, Decided::Halt) => 4,
            (Stage::Started, Decided::Refused) => 5,
            // Counted where the answer is withheld: most outcomes are judged
            // after it has gone out.
            (Stage::Completed, _) => return,
        };
        self.tally(kind);
    }

    pub(super) fn count_withheld(&self) {
        self.tally(6);
    }

    fn tally(&self, kind: usize) {
        if let Some(count) = self.counts.get(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Housekeeping {
    /// Runs until the gate is dropped.
    pub async fn run(self) {
        let Self { gate, reports } = self;
        let expire = async {
            let mut tick = time::interval(SWEEP_EVERY);
            loop {
                tick.tick().await;
                let Some(gate) = gate.upgrade() else { return };
                let now = time::Instant::now();
                gate.series.sweep(now);
                let swept = gate.holds.sweep(now);
                for hold in swept.overdue {
                    gate.end_hold(&hold, EndsFrom::Unused, State::Expired, None);
                }
                for rejected in swept.rejected {
                    gate.keep(&Change::ApprovalOver(&rejected));
                }
                gate.parts.metrics.holds_open(gate.holds.pending());
            }
        };
        tokio::join!(expire, outcome::judge_reports(reports));
    }
}

fn view(hold: &Hold) -> HoldView {
    HoldView {
        id: hold.id.clone(),
        stage: hold.stage,
        summary: hold.summary.clone(),
        reason: hold.ruling.reason.clone(),
        policy: hold.ruling.policy.clone(),
        workflow_id: hold.context.workflow_id.clone(),
        run_id: hold.context.run_id.clone(),
        activity_id: hold.context.activity.as_ref().map(|a| a.id.clone()),
        opened_at: hold.opened_at,
        expires_at: hold.expires_at,
        state: hold.state(),
    }
}
