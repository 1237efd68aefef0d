//! The `completed` stage: exactly one completion per admitted operation.

use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::{Completion, JsonText, Outcome, Reason, Refusal, Stage, Verdict};
use crate::journal::{self, Record};
use crate::metrics::{Decided, LimitHit};
use crate::policy::{ApprovalsAt, PolicyError, Question, Ruling, Untold};
use crate::process::clock;
use crate::session::OnItsWay;

use super::admit::{Trail, counted_as, log_refusal};
use super::hold::{Covers, Hold, Parked};
use super::judge::Judged;
use super::permit::{Admitted, Permit};
use super::wait::{RETRY_AFTER, Waited, Waiter};
use super::{FailMode, Inner, Noted, Refused, Terms, fingerprint};

/// What to do with an answer that was withheld for its verdict.
#[derive(Debug)]
#[must_use = "an answer that was not released must not be handed out"]
pub enum After {
    /// Hand it out, or, where policy redacted it, this in its place.
    Release(Option<JsonText>),
    /// Hand out the refusal instead. With a [`Parking`], set the answer aside
    /// there: the identical retry gets it once a person agrees.
    Withhold(Refused, Option<Parking>),
}

/// A place for an answer that a person has not decided about. Dropping it
/// gives the answer up, and ends what the person was asked.
#[derive(Debug)]
pub struct Parking {
    gate: Arc<Inner>,
    hold: Option<Arc<Hold>>,
}

impl Parking {
    /// Sets `answer` aside.
    pub fn park(mut self, answer: Parked) {
        if let Some(hold) = self.hold.take() {
            hold.park(answer);
        }
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.gate.lose_answer(&hold);
        }
    }
}

/// Where the answer is whose outcome is judged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whereabouts<'a> {
    /// Here: what policy says can be applied to it, on these terms.
    Here(&'a Terms),
    /// It has gone out.
    Out,
    /// It was withheld, and nobody is there any more to get it.
    Dropped,
}

/// An outcome whose answer is not here any more. Dropped before it is judged,
/// it is recorded all the same.
#[derive(Debug)]
pub(super) struct Report {
    admitted: Option<Box<Admitted>>,
    completion: Completion,
    answer: Whereabouts<'static>,
    /// Until it is judged, what follows in the activity waits.
    _untold: Option<OnItsWay>,
}

impl Report {
    /// The answer of a policy that has one at once.
    fn judge_now(&self) -> Option<Judged> {
        let admitted = self.admitted.as_ref()?;
        let question = Question::Completed(&admitted.operation, &self.completion);
        admitted.gate.judge_now(question)
    }

    fn judged(mut self, judged: Judged) {
        if let Some(admitted) = &self.admitted {
            drop(admitted.observed(judged, &self.completion, self.answer));
        }
        self.admitted = None;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(admitted) = self.admitted.take() {
            tracing::error!(event_id = %admitted.operation.id, "policy was not told of this outcome: it is in the journal, to be told later");
            let trail = Trail {
                unheard: true,
                ..Trail::default()
            };
            admitted.record(&self.completion, "unreported", Decided::Refused, &trail);
        }
    }
}

impl Permit {
    /// Judges an outcome whose answer is withheld until this returns.
    ///
    /// Cancel-safe: if the future is dropped, the outcome is reported as
    /// [`Permit::report`] does.
    pub async fn complete(mut self, completion: Completion, terms: &Terms) -> After {
        self.apart();
        let Some(admitted) = &self.admitted else {
            return After::Release(None);
        };
        // Kept in the permit while judging, so that dropping us reports it.
        self.ended = Some(Box::new(completion));
        self.answer = Whereabouts::Dropped;
        let Some(completion) = &self.ended else {
            return After::Release(None);
        };
        let judged = match admitted.judged_unless_halted(completion).await {
            Ok(judged) => judged,
            // Nobody gets the answer, so nobody waits: dropping us reports it.
            Err(refused) => return After::Withhold(refused, None),
        };
        let mut trail = judged.trail();
        let end = match admitted.outcome(judged.answer, &mut trail, Whereabouts::Here(terms)) {
            Ended::Released => After::Release(trail.redacted()),
            Ended::Refused(refusal) => After::Withhold(admitted.refused(refusal, &trail), None),
            Ended::Held(ruling) => {
                let judged = self.judged.insert(Box::new(trail));
                let held = admitted.hold_outcome(&ruling, judged, completion, terms);
                let end = Box::pin(held).await;
                trail = self.judged.take().map_or_else(Trail::default, |t| *t);
                end
            }
        };
        let (word, decided) = match &end {
            After::Release(_) => ("release", trail.released_as()),
            After::Withhold(refused, _) => {
                admitted.gate.count_withheld();
                (refused.refusal.code(), counted_as(&refused.refusal))
            }
        };
        admitted.record(completion, word, decided, &trail);
        self.admitted = None;
        end
    }

    /// Withholds an answer for `reason`, whatever policy says of it: that is asked for what it
    /// marks, the activity or the run, and a refusal of its own comes first.
    ///
    /// Cancel-safe: as [`Permit::complete`].
    pub async fn withhold(mut self, completion: Completion, reason: Reason) -> Refused {
        self.apart();
        let Some(admitted) = &self.admitted else {
            // A bug in its protocol: it is completed already. The answer stays there all the same.
            let event = clock::operation_id(clock::now());
            return Refused {
                stage: Stage::Completed,
                ..Refused::unasked(Refusal::OutcomeBlocked(reason), event)
            };
        };
        // Kept in the permit while judging, so that dropping us reports it.
        let completion = self.ended.insert(Box::new(completion));
        self.answer = Whereabouts::Dropped;
        let judged = match admitted.judged_unless_halted(completion).await {
            Ok(judged) => judged,
            Err(refused) => return refused,
        };
        let mut trail = judged.trail();
        let refused = match admitted.outcome(judged.answer, &mut trail, Whereabouts::Dropped) {
            Ended::Refused(refusal) => admitted.refused(refusal, &trail),
            // No policy says so, and there is nothing that a person could let go.
            Ended::Released | Ended::Held(_) => {
                admitted.refused(Refusal::OutcomeBlocked(reason), &Trail::default())
            }
        };
        admitted.gate.count_withheld();
        let (word, decided) = (refused.refusal.code(), counted_as(&refused.refusal));
        admitted.record(completion, word, decided, &trail);
        self.admitted = None;
        refused
    }

    /// Judges an outcome whose answer has gone out, and says what came of it.
    ///
    /// Cancel-safe: if the future is dropped, the outcome is reported as
    /// [`Permit::report`] does.
    pub async fn account(mut self, completion: Completion) -> Noted {
        self.apart();
        let Some(admitted) = &self.admitted else {
            return Noted::new(None, Trail::default());
        };
        // Kept in the permit while judging, so that dropping us reports it.
        let completion = self.ended.insert(Box::new(completion));
        admitted.asking(completion).await;
        let question = Question::Completed(&admitted.operation, completion);
        let judged = admitted.gate.judge(question, &admitted.session).await;
        let noted = admitted.observed(judged, completion, Whereabouts::Out);
        self.admitted = None;
        noted
    }

    /// Reports an outcome whose answer has gone out, or needs no verdict.
    pub fn report(mut self, completion: Completion) {
        self.settle(completion);
    }
}

enum Ended {
    Released,
    Refused(Refusal),
    Held(Arc<Ruling>),
}

impl Admitted {
    /// What policy says of an outcome whose answer is here; the refusal, where the run is halted
    /// before or meanwhile.
    async fn judged_unless_halted(&self, completion: &Completion) -> Result<Judged, Refused> {
        self.asking(completion).await;
        let question = Question::Completed(&self.operation, completion);
        let halted = self.session.halted();
        tokio::select! {
            biased;
            judged = self.gate.judge(question, &self.session), if halted.is_none() => Ok(judged),
            reason = self.session.until_halted() => {
                self.gate.count_withheld();
                Err(self.refused(Refusal::Halted(reason), &Trail::default()))
            }
        }
    }

    /// What an answer of policy about the outcome means. Marks activity and run.
    fn outcome(
        &self,
        answer: Result<Arc<Ruling>, PolicyError>,
        trail: &mut Trail,
        whereabouts: Whereabouts<'_>,
    ) -> Ended {
        let ruling = match answer {
            Ok(ruling) => ruling,
            Err(PolicyError::Unjudgeable(reason)) => {
                return Ended::Refused(Refusal::Unjudgeable(reason));
            }
            Err(PolicyError::Unavailable(reason)) => {
                trail.unanswered = self.unanswered;
                return match self.gate.fail_mode(trail) {
                    FailMode::Open => self.released(),
                    FailMode::Closed => Ended::Refused(Refusal::PolicyUnavailable(reason)),
                };
            }
        };
        trail.ruling = Some(ruling.clone());
        let constrained = match whereabouts {
            Whereabouts::Here(terms) => self.gate.constrained(&ruling, terms),
            Whereabouts::Out => self.redacted_too_late(&ruling),
            // What nobody got needs nothing in its place.
            Whereabouts::Dropped => Ok(()),
        };
        match ruling.verdict {
            Verdict::Allow | Verdict::Constrain => match constrained {
                Ok(()) => self.released(),
                Err(refusal) => Ended::Refused(refusal),
            },
            Verdict::RequireApproval => match constrained {
                Ok(()) => Ended::Held(ruling),
                Err(refusal) => Ended::Refused(refusal),
            },
            Verdict::Block => {
                let reason = ruling.reason_or_default();
                if let Some(activity) = &self.session.activity {
                    self.gate.abort_activity(activity, &reason);
                }
                Ended::Refused(Refusal::OutcomeBlocked(reason))
            }
            Verdict::Halt => {
                let reason = ruling.reason_or_default();
                self.gate.halt(&self.session.run, &reason, "policy");
                Ended::Refused(Refusal::Halted(reason))
            }
        }
    }

    /// A redaction of what has gone out cannot be made up for, only not be built on. What
    /// a hook tells, policy answers to whoever sent it.
    fn redacted_too_late(&self, ruling: &Ruling) -> Result<(), Refusal> {
        if ruling.redacted.is_none() || self.operation.reported.is_some() {
            return Ok(());
        }
        let reason = Reason::from("policy redacted an answer that had gone out already");
        if let Some(activity) = &self.session.activity {
            self.gate.abort_activity(activity, &reason);
        }
        Err(Refusal::ConstraintNotApplicable(reason))
    }

    /// The latch again: the answer of a halted run stays here.
    fn released(&self) -> Ended {
        match self.session.halted() {
            Some(reason) => Ended::Refused(Refusal::Halted(reason)),
            None => Ended::Released,
        }
    }

    /// Holds an outcome whose answer is still here.
    async fn hold_outcome(
        &self,
        ruling: &Arc<Ruling>,
        trail: &mut Trail,
        completion: &Completion,
        terms: &Terms,
    ) -> After {
        let mut opening =
            self.gate
                .opening(&self.operation, Stage::Completed, ruling, Covers::Once);
        if opening.fingerprint.is_none() {
            opening.fingerprint = fingerprint::of_operation(&self.operation);
        }
        opening.summary = format!("answer to {}", opening.summary).into();
        let hold = match self.gate.open_hold(Hold::new(opening), &self.session) {
            Ok((hold, _)) => hold,
            Err(refusal) => return After::Withhold(self.refused(refusal, trail), None),
        };
        trail.approval = Some(hold.id.0.clone());
        // The answer lives in our caller: if it goes away before it is parked,
        // there is nothing left for a person to release.
        let place = Parking {
            gate: self.gate.clone(),
            hold: Some(hold.clone()),
        };
        let now = Instant::now();
        let until = now.checked_add(terms.hold_within).unwrap_or(now);
        let waited = self
            .gate
            .wait(&hold, Waiter::Owner, &self.session, until)
            .await;
        trail.held_for = now.elapsed();
        trail.decided_by = hold.decided_by.get().cloned();
        let refusal = match waited {
            Waited::Granted => match self.still_stands(&hold, completion, trail, terms).await {
                None => return After::Release(trail.redacted()),
                Some(refusal) => refusal,
            },
            Waited::Ended(refusal @ Refusal::ApprovalPending { .. }) => {
                if self.gate.holds.is_joinable(&hold) {
                    return After::Withhold(self.refused(refusal, trail), Some(place));
                }
                // No retry can come for it, and a retry would do it again.
                Refusal::ApprovalExpired(hold.id.clone())
            }
            Waited::Ended(refusal) => refusal,
            Waited::Used => Refusal::ApprovalExpired(hold.id.clone()),
        };
        After::Withhold(self.refused(refusal, trail), None)
    }

    /// Looks again at what may have changed while a person decided.
    async fn still_stands(
        &self,
        hold: &Hold,
        completion: &Completion,
        trail: &mut Trail,
        terms: &Terms,
    ) -> Option<Refusal> {
        if self.gate.parts.backend.generation() != hold.ruling.generation {
            let question = Question::Completed(&self.operation, completion);
            let judged = self.gate.judge(question, &self.session).await;
            trail.policy_took = trail.policy_took.saturating_add(judged.took);
            let here = Whereabouts::Here(terms);
            if let Ended::Refused(refusal) = self.outcome(judged.answer, trail, here) {
                return Some(refusal);
            }
        }
        self.session.halted().map(Refusal::Halted)
    }

    fn refused(&self, refusal: Refusal, trail: &Trail) -> Refused {
        log_refusal(
            self.operation.id,
            self.operation.attribution,
            Stage::Completed,
            &refusal,
        );
        Refused {
            refusal,
            stage: Stage::Completed,
            event: self.operation.id,
            policy: trail.ruling.as_ref().and_then(|r| r.policy.clone()),
            ruling: trail.ruling.clone(),
        }
    }

    /// What a process after this one tells policy of the outcome, if this one
    /// dies while it is asking.
    fn untold(&self, completion: &Completion) -> Option<Untold> {
        let question = Question::Completed(&self.operation, completion);
        let asks = self.gate.left_out(question).is_none();
        asks.then(|| self.gate.parts.backend.untold(question))
            .flatten()
    }

    /// Writes down that a remote policy is about to be asked.
    async fn asking(&self, completion: &Completion) {
        let Some(untold) = self.untold(completion) else {
            return;
        };
        let written = match self
            .gate
            .parts
            .journal
            .append_together(&self.asked(&untold))
        {
            Ok(pending) => pending.written().await,
            Err(error) => Err(error),
        };
        self.asked_anyway(written);
    }

    fn asked<'a>(&'a self, untold: &'a Untold) -> Record<'a> {
        Record::Asking {
            at: clock::now(),
            operation: &self.operation,
            untold,
        }
    }

    fn asked_anyway(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::error!(%error, event_id = %self.operation.id, "the journal does not take what policy is being asked: killed now, policy is not told of this outcome");
        }
    }

    /// Judges and records an outcome whose answer is not withheld: at once where
    /// policy answers at once, else through the bounded queue of reports.
    pub(super) fn settle_observed(
        self: Box<Self>,
        completion: Completion,
        answer: Whereabouts<'static>,
    ) {
        let gate = self.gate.clone();
        let remote = gate.parts.backend.approvals_at() == ApprovalsAt::Core;
        if let Some(untold) = self.untold(&completion) {
            self.asked_anyway(gate.parts.journal.append(&self.asked(&untold)));
        }
        let activity = self.session.activity.as_ref().filter(|_| remote);
        let report = Report {
            _untold: activity.map(|activity| activity.untold.add()),
            admitted: Some(self),
            completion,
            answer,
        };
        // What panics may be policy itself: a second time here would end the
        // process, and in a task of its own it ends that task.
        let here = !remote && !std::thread::panicking();
        if let Some(judged) = here.then(|| report.judge_now()).flatten() {
            report.judged(judged);
            return;
        }
        if gate.reports.try_send(report).is_err() {
            gate.parts.metrics.limit_hit(LimitHit::Reports);
        }
    }

    /// Records an outcome that waited for a person when the agent went away.
    pub(super) fn record_unclaimed(&self, completion: &Completion, trail: &Trail) {
        self.record(completion, "cancelled", Decided::RequireApproval, trail);
    }

    fn observed(
        &self,
        judged: Judged,
        completion: &Completion,
        answer: Whereabouts<'static>,
    ) -> Noted {
        let mut trail = judged.trail();
        let (word, decided, refusal) = match self.outcome(judged.answer, &mut trail, answer) {
            Ended::Released => ("observed", trail.released_as(), None),
            Ended::Refused(refusal) => {
                log_refusal(
                    self.operation.id,
                    self.operation.attribution,
                    Stage::Completed,
                    &refusal,
                );
                (refusal.code(), counted_as(&refusal), Some(refusal))
            }
            Ended::Held(ruling) => {
                let refusal = self.hold_later_operations(&ruling, &mut trail);
                ("require_approval", Decided::RequireApproval, refusal)
            }
        };
        self.record(completion, word, decided, &trail);
        Noted::new(refusal, trail)
    }

    /// The answer has gone out, so what can still wait is what comes after it.
    fn hold_later_operations(&self, ruling: &Arc<Ruling>, trail: &mut Trail) -> Option<Refusal> {
        let Some(activity) = &self.session.activity else {
            tracing::warn!(event_id = %self.operation.id, "policy wants a person for an answer that has gone out, and no activity can wait for it");
            return None;
        };
        let mut opening = self
            .gate
            .opening(&self.operation, Stage::Completed, ruling, Covers::All);
        opening.activity = Some(activity.clone());
        match self.gate.open_hold(Hold::new(opening), &self.session) {
            Ok((hold, _)) => {
                trail.approval = Some(hold.id.0.clone());
                activity.wait_for(hold.id.clone());
                // Somebody may have been faster than we were to say so.
                self.gate.tell_activity(&hold);
                Some(Refusal::ApprovalPending {
                    approval: hold.id.clone(),
                    retry_after: RETRY_AFTER,
                })
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                self.gate.abort_activity(activity, &reason.as_str().into());
                Some(refusal)
            }
        }
    }

    fn record(&self, completion: &Completion, word: &str, decided: Decided, trail: &Trail) {
        let protocol = self.operation.protocol();
        self.gate.count(protocol, Stage::Completed, decided, trail);
        let question = Question::Completed(&self.operation, completion);
        let backend = &self.gate.parts.backend;
        let untold = trail.unheard.then(|| backend.untold(question)).flatten();
        let record = Record::Completion {
            operation: &self.operation,
            admitted_at: self.at,
            completion,
            series: self.series,
            decided: journal::record::Decided {
                untold: untold.as_ref(),
                ..trail.as_record(word, None)
            },
        };
        let journal = &self.gate.parts.journal;
        // An outcome that policy lets stand confirms what was decided before
        // the operation left; any other is a decision of its own.
        let written = match decided {
            Decided::Allow if completion.outcome == Outcome::Answered && !trail.by_fail_mode => {
                journal.append_soon(&record)
            }
            Decided::Allow
            | Decided::Constrain
            | Decided::RequireApproval
            | Decided::Block
            | Decided::Halt
            | Decided::Refused => journal.append(&record),
        };
        if let Err(error) = written {
            tracing::error!(%error, event_id = %self.operation.id, "a completion could not be written to the journal");
        }
    }
}

impl Trail {
    /// What policy put in the place of what it judged.
    fn redacted(&self) -> Option<JsonText> {
        self.ruling.as_ref()?.redacted.clone()
    }

    /// The metric label of an outcome that stands.
    fn released_as(&self) -> Decided {
        let verdict = self.ruling.as_ref().map(|ruling| ruling.verdict);
        match verdict {
            Some(_) if self.approval.is_some() => Decided::RequireApproval,
            Some(Verdict::Constrain) => Decided::Constrain,
            Some(_) | None => Decided::Allow,
        }
    }
}

/// Judges reports, several at a time: policy is a round trip away.
pub(super) async fn judge_reports(mut reports: tokio::sync::mpsc::Receiver<Report>) {
    const AT_ONCE: usize = 32;
    let mut judging = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            report = reports.recv(), if judging.len() < AT_ONCE => match report {
                Some(report) => {
                    judging.spawn(judge_report(report));
                }
                None => break,
            },
            Some(_) = judging.join_next() => {}
        }
    }
    while judging.join_next().await.is_some() {}
}

async fn judge_report(report: Report) {
    let Some(admitted) = &report.admitted else {
        return;
    };
    let question = Question::Completed(&admitted.operation, &report.completion);
    let judged = admitted.gate.judge(question, &admitted.session).await;
    report.judged(judged);
}
