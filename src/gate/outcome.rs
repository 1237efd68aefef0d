//! The `completed` stage: exactly one completion per admitted operation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Completion, Refusal, Stage, Verdict};
use crate::journal::Record;
use crate::metrics::{Decided, LimitHit};
use crate::policy::{Judging, PolicyError, Question, Ruling};

use super::admit::{Trail, log_refusal};
use super::hold::{Covers, Hold, Parked, State};
use super::judge::Judged;
use super::permit::{Admitted, Permit};
use super::wait::{Waited, Waiter};
use super::{FailMode, Refused, Terms};

/// What to do with an answer that was withheld for its verdict.
#[derive(Debug)]
#[must_use = "an answer that was not released must not be handed out"]
pub enum After {
    /// Hand it out.
    Release,
    /// Hand out the refusal instead. With a [`Parking`], set the answer aside
    /// there: the identical retry gets it once a person agrees.
    Withhold(Refused, Option<Parking>),
}

/// A place for an answer that a person has not decided about.
#[derive(Debug)]
pub struct Parking(Arc<Hold>);

impl Parking {
    /// Sets `answer` aside.
    pub fn park(self, answer: Parked) {
        self.0.park(answer);
    }
}

/// An outcome whose answer has gone out already.
#[derive(Debug)]
pub(super) struct Report {
    admitted: Box<Admitted>,
    completion: Completion,
}

impl Permit {
    /// Judges an outcome whose answer is withheld until this returns.
    ///
    /// Cancel-safe: if the future is dropped, the outcome is reported as
    /// [`Permit::report`] does.
    pub async fn complete(mut self, completion: Completion, terms: &Terms) -> After {
        let Some(admitted) = &self.admitted else {
            return After::Release;
        };
        // Kept in the permit while judging, so that dropping us reports it.
        self.ended = Some(completion);
        let Some(completion) = &self.ended else {
            return After::Release;
        };
        let gate = &admitted.gate;
        let question = Question::Completed(&admitted.operation, completion);
        let Judged { answer, took } = gate.judge(question, &admitted.session).await;
        let mut trail = Trail {
            policy_took: took,
            ..Trail::default()
        };
        let end = match admitted.outcome(answer, &mut trail, Some(terms)) {
            Ended::Released => After::Release,
            Ended::Refused(refusal) => After::Withhold(admitted.refused(refusal, &trail), None),
            Ended::Held(ruling) => {
                Box::pin(admitted.hold_outcome(&ruling, &mut trail, terms)).await
            }
        };
        let word = match &end {
            After::Release => "release",
            After::Withhold(refused, _) => refused.refusal.code(),
        };
        admitted.record(completion, word, &trail);
        self.admitted = None;
        end
    }

    /// Reports an outcome whose answer has gone out, or needs no verdict.
    pub fn report(mut self, completion: Completion) {
        self.ended = Some(completion);
        drop(self);
    }
}

enum Ended {
    Released,
    Refused(Refusal),
    Held(Arc<Ruling>),
}

impl Admitted {
    /// What an answer of policy about the outcome means. Marks activity and run.
    /// Without `terms` the answer has gone out, so nothing can be applied to it.
    fn outcome(
        &self,
        answer: Result<Arc<Ruling>, PolicyError>,
        trail: &mut Trail,
        terms: Option<&Terms>,
    ) -> Ended {
        let ruling = match answer {
            Ok(ruling) => ruling,
            Err(PolicyError::Unjudgeable(reason)) => {
                return Ended::Refused(Refusal::Unjudgeable(reason));
            }
            Err(PolicyError::Unavailable(reason)) => {
                return match self.gate.fail_mode(trail) {
                    FailMode::Open => Ended::Released,
                    FailMode::Closed => Ended::Refused(Refusal::PolicyUnavailable(reason)),
                };
            }
        };
        trail.ruling = Some(ruling.clone());
        let constrained = terms.map_or(Ok(()), |terms| self.gate.constrained(&ruling, terms));
        match ruling.verdict {
            Verdict::Allow | Verdict::Constrain => match constrained {
                Ok(()) => match self.session.halted() {
                    // The latch again: the answer of a halted run stays here.
                    Some(reason) => Ended::Refused(Refusal::Halted(reason)),
                    None => Ended::Released,
                },
                Err(refusal) => Ended::Refused(refusal),
            },
            Verdict::RequireApproval => Ended::Held(ruling),
            Verdict::Block => {
                let reason = ruling.reason_or_default();
                if let Some(activity) = &self.session.activity {
                    activity.abort(&reason);
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

    /// Holds an outcome whose answer is still here.
    async fn hold_outcome(&self, ruling: &Ruling, trail: &mut Trail, terms: &Terms) -> After {
        let mut opening =
            self.gate
                .opening(&self.operation, Stage::Completed, ruling, Covers::Once);
        if opening.fingerprint.is_none() {
            opening.fingerprint = super::fingerprint::of_operation(&self.operation);
        }
        opening.summary = format!("answer to {}", opening.summary).into();
        let Some(hold) = self.gate.open_hold(Hold::new(opening)) else {
            self.gate.parts.metrics.limit_hit(LimitHit::Holds);
            let refusal = Refusal::Overloaded("held operations");
            return After::Withhold(self.refused(refusal, trail), None);
        };
        trail.approval = Some(hold.id.0.clone());
        // The answer lives in our caller: if it goes away before it is parked,
        // there is nothing left for a person to release.
        let unclaimed = CancelOnDrop {
            admitted: self,
            hold: &hold,
        };
        let began = Instant::now();
        let waited = self
            .gate
            .wait(&hold, Waiter::Owner, &self.session, terms.hold_within)
            .await;
        trail.held_for = began.elapsed();
        match waited {
            Waited::Granted => {
                std::mem::forget(unclaimed);
                After::Release
            }
            Waited::Ended(refusal @ Refusal::ApprovalPending { .. }) => {
                std::mem::forget(unclaimed);
                let parking = hold.fingerprint.is_some().then(|| Parking(hold.clone()));
                After::Withhold(self.refused(refusal, trail), parking)
            }
            Waited::Ended(refusal) => After::Withhold(self.refused(refusal, trail), None),
            Waited::Used => {
                let refusal = Refusal::ApprovalExpired(hold.id.clone());
                After::Withhold(self.refused(refusal, trail), None)
            }
        }
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
            event: self.operation.id,
            policy: trail.ruling.as_ref().and_then(|r| r.policy.clone()),
        }
    }

    /// Judges and records an outcome whose answer is not withheld: at once where
    /// policy answers at once, else through the bounded queue of reports.
    pub(super) fn settle_observed(self: Box<Self>, completion: Completion) {
        let question = Question::Completed(&self.operation, &completion);
        if let Judging::Now(answer) = self.gate.parts.backend.judge(question) {
            self.observed(answer, Duration::ZERO, &completion);
            return;
        }
        let reports = self.gate.reports.clone();
        let report = Report {
            admitted: self,
            completion,
        };
        if let Err(refused) = reports.try_send(report) {
            let Report {
                admitted,
                completion,
            } = refused.into_inner();
            admitted.gate.parts.metrics.limit_hit(LimitHit::Reports);
            tracing::error!(event_id = %admitted.operation.id, "too many outcomes wait for policy: this one is only in the journal");
            admitted.record(&completion, "unreported", &Trail::default());
        }
    }

    fn observed(
        &self,
        answer: Result<Arc<Ruling>, PolicyError>,
        took: Duration,
        completion: &Completion,
    ) {
        let mut trail = Trail {
            policy_took: took,
            ..Trail::default()
        };
        let word = match self.outcome(answer, &mut trail, None) {
            Ended::Released => "observed",
            Ended::Refused(refusal) => {
                log_refusal(
                    self.operation.id,
                    self.operation.attribution,
                    Stage::Completed,
                    &refusal,
                );
                refusal.code()
            }
            Ended::Held(ruling) => {
                self.hold_later_operations(&ruling, &mut trail);
                "require_approval"
            }
        };
        self.record(completion, word, &trail);
    }

    /// The answer has gone out, so what can still wait is what comes after it.
    fn hold_later_operations(&self, ruling: &Ruling, trail: &mut Trail) {
        let Some(activity) = &self.session.activity else {
            tracing::warn!(event_id = %self.operation.id, "policy wants a person for an answer that has gone out, and no activity can wait for it");
            return;
        };
        let opening = self
            .gate
            .opening(&self.operation, Stage::Completed, ruling, Covers::All);
        match self.gate.open_hold(Hold::new(opening)) {
            Some(hold) => {
                trail.approval = Some(hold.id.0.clone());
                activity.set_waits_for(Some(hold.id.clone()));
            }
            None => {
                self.gate.parts.metrics.limit_hit(LimitHit::Holds);
                activity.abort(&"too many operations are held".into());
            }
        }
    }

    fn record(&self, completion: &Completion, word: &str, trail: &Trail) {
        let decided = trail
            .ruling
            .as_ref()
            .map_or(Decided::Refused, |ruling| counted_by(ruling.verdict));
        let decided = if trail.by_fail_mode && word == "release" {
            Decided::Allow
        } else {
            decided
        };
        let protocol = self.operation.protocol();
        self.gate.count(protocol, Stage::Completed, decided, trail);
        let written = self.gate.parts.journal.append(&Record::Completion {
            operation: &self.operation,
            completion,
            decided: trail.as_record(word, None),
        });
        if let Err(error) = written {
            tracing::error!(%error, event_id = %self.operation.id, "a completion could not be written to the journal");
        }
    }
}

fn counted_by(verdict: Verdict) -> Decided {
    match verdict {
        Verdict::Allow => Decided::Allow,
        Verdict::Constrain => Decided::Constrain,
        Verdict::RequireApproval => Decided::RequireApproval,
        Verdict::Block => Decided::Block,
        Verdict::Halt => Decided::Halt,
    }
}

/// Cancels a hold whose answer is lost.
struct CancelOnDrop<'a> {
    admitted: &'a Admitted,
    hold: &'a Arc<Hold>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let holds = &self.admitted.gate.holds;
        let lost = State::Cancelled("the agent went away, and the answer with it".into());
        if holds.resolve(self.hold, lost) {
            self.admitted.gate.record_hold(self.hold, None);
        }
        holds.forget_fingerprint(self.hold);
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
    let Report {
        admitted,
        completion,
    } = report;
    let question = Question::Completed(&admitted.operation, &completion);
    let Judged { answer, took } = admitted.gate.judge(question, &admitted.session).await;
    admitted.observed(answer, took, &completion);
}
