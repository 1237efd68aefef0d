//! From an operation to a decision.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Action, Attribution, Operation, OperationId, Refusal, Stage, Verdict};
use crate::journal::{self, Record};
use crate::metrics::Decided;
use crate::policy::{ApprovalsAt, PolicyError, Question, Ruling};
use crate::process::clock;
use crate::session::Session;

use super::hold::{Covers, Hold, State};
use super::join::Twin;
use super::judge::Judged;
use super::line::InLine;
use super::wait::{Waited, Waiter};
use super::{Decision, FailMode, Gate, Inner, Refused, Replay, Terms, Unanswered, fingerprint};

/// What [`Gate::admit_now`] came to.
#[derive(Debug)]
#[must_use = "an undecided operation must not move"]
#[allow(
    clippy::large_enum_variant,
    reason = "the largest is what nearly every operation becomes, and a box would be one more allocation for each"
)]
pub enum Now<'a> {
    /// Admitted, once its record is written.
    InLine(InLine<'a>),
    /// Tell the agent no.
    Refused(Refused),
    /// Policy is a round trip away, or somebody has to agree: see
    /// [`Gate::admit_later`].
    Later(Undecided),
}

/// An operation that is not decided yet, and what is known of it.
#[derive(Debug)]
pub struct Undecided {
    operation: Box<Operation>,
    session: Session,
    trail: Trail,
    /// Policy was asked, and wants a person.
    asked: Option<Arc<Ruling>>,
}

/// How a decision came about, gathered along the way.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) ruling: Option<Arc<Ruling>>,
    pub(super) by_fail_mode: bool,
    /// Which fail mode it has, where policy gives no answer.
    pub(super) unanswered: Unanswered,
    /// Policy gave no answer, so it may not have heard.
    pub(super) unheard: bool,
    pub(super) approval: Option<Arc<str>>,
    /// Who decided about that approval.
    pub(super) decided_by: Option<Arc<str>>,
    pub(super) policy_took: Duration,
    pub(super) held_for: Duration,
    /// Whose evaluation was joined, if one was.
    pub(super) joined: Option<Twin>,
}

/// Where a step of admitting leads.
enum Next {
    Grant,
    Refuse(Refusal),
    Hold(Arc<Ruling>),
}

/// What is known of an operation while something is held.
enum Found {
    /// It is a retry of what this holds.
    Hold(Arc<Hold>),
    /// It is new, and policy was asked.
    Next(Next),
}

impl Gate {
    /// Decides `operation`, waiting for a person if policy says so, at most
    /// `terms.hold_within`.
    ///
    /// Cancel-safe: dropping the future abandons the question, never the answer.
    pub async fn admit(
        &self,
        operation: Box<Operation>,
        session: Session,
        terms: &Terms,
    ) -> Decision {
        match self.admit_now(operation, session, terms) {
            Now::InLine(line) => line.written().await,
            Now::Refused(refused) => Decision::Refuse(refused),
            // Boxed: most operations wait for nobody, and must not carry its state.
            Now::Later(undecided) => Box::pin(self.admit_later(undecided, terms)).await,
        }
    }

    /// Decides `operation` as far as nobody has to be waited for: for who has
    /// several to decide, and lets one write take the records of all.
    pub fn admit_now(&self, operation: Box<Operation>, session: Session, terms: &Terms) -> Now<'_> {
        let inner = &self.inner;
        inner.parts.metrics.attributed(operation.attribution);
        let mut trail = Trail {
            unanswered: terms.unanswered,
            ..Trail::default()
        };
        if let Some(refusal) = refused_already(&session) {
            return Now::Refused(inner.refuse(&operation, refusal, trail));
        }
        let remote = inner.parts.backend.approvals_at() == ApprovalsAt::Core;
        let judged = match remote || inner.holds.any_joinable() || waits(&session) {
            true => None,
            false => inner.judge_now(Question::Started(&operation)),
        };
        let next = judged
            .map(|judged| inner.follow_judged(&operation, judged, &session, terms, &mut trail));
        let asked = match next {
            Some(Next::Grant) => {
                return match inner.into_line(operation, session, trail) {
                    Ok(line) => Now::InLine(line),
                    Err(refused) => Now::Refused(refused),
                };
            }
            Some(Next::Refuse(refusal)) => {
                return Now::Refused(inner.refuse(&operation, refusal, trail));
            }
            Some(Next::Hold(ruling)) => Some(ruling),
            None => None,
        };
        Now::Later(Undecided {
            operation,
            session,
            trail,
            asked,
        })
    }

    /// Decides what [`Self::admit_now`] could not, waiting for a person if policy
    /// says so, at most `terms.hold_within`.
    ///
    /// Cancel-safe, as [`Self::admit`] is.
    pub async fn admit_later(&self, undecided: Undecided, terms: &Terms) -> Decision {
        let inner = &self.inner;
        let Undecided {
            mut operation,
            session,
            mut trail,
            asked,
        } = undecided;
        if asked.is_some() {
            return inner
                .admit_beside_holds(operation, session, terms, trail, asked)
                .await;
        }
        let remote = inner.parts.backend.approvals_at() == ApprovalsAt::Core;
        if remote && behind(&session) {
            inner.in_order(&session).await;
            if let Some(refusal) = refused_already(&session) {
                return Decision::Refuse(inner.refuse(&operation, refusal, trail));
            }
        }
        if remote || inner.holds.any_joinable() {
            operation.fingerprint = fingerprint::of_operation(&operation);
        }
        if inner.holds.any_joinable() || waits(&session) {
            return inner
                .admit_beside_holds(operation, session, terms, trail, None)
                .await;
        }
        match inner.ask(&operation, &session, terms, &mut trail).await {
            Next::Grant => inner.grant(operation, session, trail).await,
            Next::Refuse(refusal) => Decision::Refuse(inner.refuse(&operation, refusal, trail)),
            Next::Hold(ruling) => {
                inner
                    .admit_beside_holds(operation, session, terms, trail, Some(ruling))
                    .await
            }
        }
    }
}

pub(super) fn refused_already(session: &Session) -> Option<Refusal> {
    if let Some(reason) = session.halted() {
        return Some(Refusal::Halted(reason));
    }
    session.aborted().map(Refusal::ActivityAborted)
}

/// Whether policy has not judged yet what the activity did before.
pub(super) fn behind(session: &Session) -> bool {
    let activity = session.activity.as_ref();
    activity.is_some_and(|activity| !activity.untold.is_empty())
}

pub(super) fn waits(session: &Session) -> bool {
    let activity = session.activity.as_ref();
    activity.is_some_and(|activity| activity.waits_for().is_some())
}

impl Inner {
    /// Asks policy at `started` and says where its answer leads.
    async fn ask(
        &self,
        operation: &Operation,
        session: &Session,
        terms: &Terms,
        trail: &mut Trail,
    ) -> Next {
        let judged = self.judge(Question::Started(operation), session).await;
        self.follow_judged(operation, judged, session, terms, trail)
    }

    /// Where an answer of policy leads.
    fn follow_judged(
        &self,
        operation: &Operation,
        judged: Judged,
        session: &Session,
        terms: &Terms,
        trail: &mut Trail,
    ) -> Next {
        let Judged {
            answer,
            took,
            joined,
        } = judged;
        trail.policy_took = trail.policy_took.saturating_add(took);
        if let Some(twin) = joined {
            return self.follow_twin(twin, terms, trail);
        }
        match answer {
            Ok(ruling) => {
                trail.ruling = Some(ruling.clone());
                match self.follow(ruling, session, terms) {
                    Next::Hold(ruling) => match self.said_before(&ruling, session, trail) {
                        None => Next::Hold(ruling),
                        Some(Ok(())) => Next::Grant,
                        Some(Err(refusal)) => Next::Refuse(refusal),
                    },
                    next @ (Next::Grant | Next::Refuse(_)) => next,
                }
            }
            Err(error) => match (session.halted(), error) {
                // A halt is why the question was given up, or it makes the
                // answer pointless.
                (Some(reason), _) => Next::Refuse(Refusal::Halted(reason)),
                (None, PolicyError::Unjudgeable(reason)) => {
                    Next::Refuse(Refusal::Unjudgeable(reason))
                }
                (None, PolicyError::Unavailable(reason)) => {
                    match self.fail_mode_for(operation, trail) {
                        FailMode::Open => Next::Grant,
                        FailMode::Closed => Next::Refuse(Refusal::PolicyUnavailable(reason)),
                    }
                }
            },
        }
    }

    /// What the twin was admitted by admits this too, where what it asks for
    /// besides can be had here.
    fn follow_twin(&self, twin: Twin, terms: &Terms, trail: &mut Trail) -> Next {
        trail.ruling = Some(twin.ruling.clone());
        trail.approval.clone_from(&twin.approval);
        let may = self.constrained(&twin.ruling, terms);
        trail.joined = Some(twin);
        match may {
            Ok(()) => Next::Grant,
            Err(refusal) => Next::Refuse(refusal),
        }
    }

    /// What a person decided about this with an earlier operation, if they did.
    pub(super) fn said_before(
        &self,
        ruling: &Ruling,
        session: &Session,
        trail: &mut Trail,
    ) -> Option<Result<(), Refusal>> {
        let word = self.words.about(session, ruling)?;
        let refusal = word.refusal();
        trail.approval = Some(word.approval.0);
        trail.decided_by = Some(word.by);
        Some(refusal.map_or(Ok(()), Err))
    }

    fn follow(&self, ruling: Arc<Ruling>, session: &Session, terms: &Terms) -> Next {
        match ruling.verdict {
            Verdict::Allow | Verdict::Constrain => match self.constrained(&ruling, terms) {
                Ok(()) => Next::Grant,
                Err(refusal) => Next::Refuse(refusal),
            },
            Verdict::RequireApproval => match self.constrained(&ruling, terms) {
                Ok(()) => Next::Hold(ruling),
                Err(refusal) => Next::Refuse(refusal),
            },
            Verdict::Block => {
                let reason = ruling.reason_or_default();
                if let Some(activity) = &session.activity {
                    self.abort_activity(activity, &reason);
                }
                Next::Refuse(Refusal::Blocked(reason))
            }
            Verdict::Halt => {
                let reason = ruling.reason_or_default();
                self.halt(&session.run, &reason, "policy");
                Next::Refuse(Refusal::Halted(reason))
            }
        }
    }

    /// Counts and marks a decision of the fail mode.
    pub(super) fn fail_mode(&self, trail: &mut Trail) -> FailMode {
        let mode = match trail.unanswered {
            Unanswered::AsSet => self.parts.settings.fail_mode,
            Unanswered::By(mode) => mode,
        };
        self.fails(mode, trail)
    }

    /// The same about `operation`, some of whose kind may be closed to it.
    fn fail_mode_for(&self, operation: &Operation, trail: &mut Trail) -> FailMode {
        let settings = &self.parts.settings;
        if let Action::Database(call) = &operation.action
            && settings
                .fail_closed_for
                .iter()
                .any(|class| **class == *call.class())
        {
            return self.fails(FailMode::Closed, trail);
        }
        self.fail_mode(trail)
    }

    fn fails(&self, mode: FailMode, trail: &mut Trail) -> FailMode {
        trail.by_fail_mode = true;
        trail.unheard = true;
        match mode {
            FailMode::Open => self.parts.metrics.failed_open(),
            FailMode::Closed => self.parts.metrics.failed_closed(),
        }
        mode
    }

    /// The slow way: something is held, so this may be its retry, or policy
    /// has `asked` for a person.
    async fn admit_beside_holds(
        self: &Arc<Self>,
        mut operation: Box<Operation>,
        session: Session,
        terms: &Terms,
        mut trail: Trail,
        mut asked: Option<Arc<Ruling>>,
    ) -> Decision {
        let now = Instant::now();
        // One for all waits: a twin that uses a grant does not begin it anew.
        let until = now.checked_add(terms.hold_within).unwrap_or(now);
        loop {
            let found = match asked.take() {
                Some(ruling) => self.hold(&mut operation, &session, &ruling),
                // Boxed, as what comes after a grant is: whoever waits for a
                // person, and that may be thousands, needs no room for either.
                None => {
                    match Box::pin(self.find_or_ask(&operation, &session, terms, until, &mut trail))
                        .await
                    {
                        Found::Hold(hold) => Ok((hold, Waiter::Joiner)),
                        Found::Next(Next::Hold(ruling)) => {
                            self.hold(&mut operation, &session, &ruling)
                        }
                        Found::Next(Next::Grant) => {
                            return self.grant(operation, session, trail).await;
                        }
                        Found::Next(Next::Refuse(refusal)) => Err(refusal),
                    }
                }
            };
            let (hold, waiter) = match found {
                Ok(found) => found,
                Err(refusal) => return Decision::Refuse(self.refuse(&operation, refusal, trail)),
            };
            // What the person is asked about is what policy said then, also for
            // a retry that policy was not asked about.
            trail.ruling = Some(hold.ruling.clone());
            trail.approval = Some(hold.id.0.clone());
            let began = Instant::now();
            let waited = self.wait(&hold, waiter, &session, until).await;
            trail.held_for = trail.held_for.saturating_add(began.elapsed());
            trail.decided_by = hold.decided_by.get().cloned();
            match waited {
                Waited::Ended(refusal) => {
                    return self.refuse_as(&hold, &operation, refusal, trail);
                }
                Waited::Granted => {
                    let after = self.after_grant(operation, session, terms, trail, &hold);
                    return Box::pin(after).await;
                }
                // A twin used the grant: this one needs a person of its own.
                Waited::Used => (trail.ruling, trail.approval) = (None, None),
            }
        }
    }

    /// The hold that `operation` is a retry of, else what policy says of it.
    async fn find_or_ask(
        &self,
        operation: &Operation,
        session: &Session,
        terms: &Terms,
        until: Instant,
        trail: &mut Trail,
    ) -> Found {
        if let Some(refusal) = self.activity_may_go_on(session, until, trail).await {
            return Found::Next(Next::Refuse(refusal));
        }
        let joined = operation
            .fingerprint
            .and_then(|print| self.holds.by_fingerprint(print))
            .or_else(|| self.hold_of_hook(operation));
        match joined {
            Some(hold) => Found::Hold(hold),
            None => Found::Next(self.ask(operation, session, terms, trail).await),
        }
    }

    /// What a hook told of waits for a person, and this is it on the wire: an SDK
    /// that polls does it once the person agrees, without telling of it again.
    fn hold_of_hook(&self, operation: &Operation) -> Option<Arc<Hold>> {
        if operation.reported.is_some() {
            return None;
        }
        let twin = fingerprint::of_twin(operation, Stage::Started)?;
        self.holds.by_twin(twin)
    }

    /// Waits where earlier outcomes of the activity wait for a person.
    async fn activity_may_go_on(
        &self,
        session: &Session,
        until: Instant,
        trail: &mut Trail,
    ) -> Option<Refusal> {
        let activity = session.activity.as_ref()?;
        while let Some(id) = activity.waits_for() {
            let Some(hold) = self.holds.by_id(&id) else {
                // A grant would have said so before it was forgotten.
                return Some(Refusal::ApprovalExpired(id));
            };
            let began = Instant::now();
            let waited = self.wait(&hold, Waiter::Joiner, session, until).await;
            trail.held_for = trail.held_for.saturating_add(began.elapsed());
            match waited {
                Waited::Granted | Waited::Used => activity.waits_no_longer(&id),
                Waited::Ended(refusal) => return Some(refusal),
            }
        }
        refused_already(session)
    }

    /// Opens a hold, or joins the one that a twin opened since we looked.
    fn hold(
        self: &Arc<Self>,
        operation: &mut Operation,
        session: &Session,
        ruling: &Arc<Ruling>,
    ) -> Result<(Arc<Hold>, Waiter), Refusal> {
        if operation.fingerprint.is_none() {
            operation.fingerprint = fingerprint::of_operation(operation);
        }
        let opening = self.opening(operation, Stage::Started, ruling, Covers::Once);
        self.open_hold(Hold::new(opening), session)
    }

    /// Looks again at everything that may have changed while a person decided.
    async fn after_grant(
        self: &Arc<Self>,
        operation: Box<Operation>,
        session: Session,
        terms: &Terms,
        mut trail: Trail,
        hold: &Hold,
    ) -> Decision {
        let still = self.still_allowed(&operation, &session, terms, &mut trail, hold);
        if let Some(refusal) = still.await.or_else(|| refused_already(&session)) {
            return self.refuse_as(hold, &operation, refusal, trail);
        }
        match hold.stage {
            Stage::Started => self.grant(operation, session, trail).await,
            Stage::Completed => self.replay(&operation, trail, hold),
        }
    }

    /// A person agreed to what the policy of then asked; the policy of now may
    /// forbid it. Core's own rulings have no generation and are not asked
    /// again: a second evaluation would overwrite the person's decision.
    async fn still_allowed(
        &self,
        operation: &Operation,
        session: &Session,
        terms: &Terms,
        trail: &mut Trail,
        hold: &Hold,
    ) -> Option<Refusal> {
        if self.parts.backend.generation() == hold.ruling.generation {
            return None;
        }
        match self.ask(operation, session, terms, trail).await {
            Next::Grant | Next::Hold(_) => None,
            Next::Refuse(refusal) => Some(refusal),
        }
    }

    fn replay(&self, operation: &Operation, trail: Trail, hold: &Hold) -> Decision {
        match hold.unpark() {
            Some(parked) => {
                if let Err(error) = self.try_write_decision(operation, "replay", None, &trail) {
                    tracing::error!(%error, "the journal takes no decision: refusing");
                    return self.refuse_as(hold, operation, Refusal::NotRecorded, trail);
                }
                let protocol = operation.protocol();
                self.count(protocol, Stage::Started, Decided::RequireApproval, &trail);
                Decision::Replay(Replay {
                    parked,
                    event: operation.id,
                })
            }
            None => {
                let refusal = Refusal::ApprovalExpired(hold.id.clone());
                self.refuse_as(hold, operation, refusal, trail)
            }
        }
    }

    /// Cancel-safe: once the decision is in line to be written, dropping this
    /// completes the operation as abandoned.
    async fn grant(
        self: &Arc<Self>,
        operation: Box<Operation>,
        session: Session,
        trail: Trail,
    ) -> Decision {
        match self.into_line(operation, session, trail) {
            Ok(line) => line.written().await,
            Err(refused) => Decision::Refuse(refused),
        }
    }

    /// Refuses a retry of what `hold` holds: where that is an answer, the operation was
    /// carried out, although not by this retry.
    fn refuse_as(
        &self,
        hold: &Hold,
        operation: &Operation,
        refusal: Refusal,
        trail: Trail,
    ) -> Decision {
        Decision::Refuse(Refused {
            stage: hold.stage,
            ..self.refuse(operation, refusal, trail)
        })
    }

    /// Records and renders a refusal at `started`.
    pub(super) fn refuse(&self, operation: &Operation, refusal: Refusal, trail: Trail) -> Refused {
        let reason = refusal.to_string();
        self.write_decision(operation, refusal.code(), Some(&reason), &trail);
        self.count(
            operation.protocol(),
            Stage::Started,
            counted_as(&refusal),
            &trail,
        );
        log_refusal(
            operation.id,
            operation.attribution,
            Stage::Started,
            &refusal,
        );
        Refused {
            refusal,
            stage: Stage::Started,
            event: operation.id,
            policy: trail.ruling.as_ref().and_then(|r| r.policy.clone()),
            ruling: trail.ruling,
        }
    }

    fn write_decision(
        &self,
        operation: &Operation,
        word: &str,
        reason: Option<&str>,
        trail: &Trail,
    ) {
        if let Err(error) = self.try_write_decision(operation, word, reason, trail) {
            // Nothing moves by a refusal, so its record is not a condition for it.
            tracing::error!(%error, event_id = %operation.id, "a refusal could not be written to the journal");
        }
    }

    fn try_write_decision(
        &self,
        operation: &Operation,
        word: &str,
        reason: Option<&str>,
        trail: &Trail,
    ) -> std::io::Result<()> {
        self.parts.journal.append(&Record::Decision {
            at: clock::now(),
            operation,
            decided: trail.as_record(word, reason),
        })
    }
}

impl Trail {
    pub(super) fn as_record<'a>(
        &'a self,
        decision: &'a str,
        reason: Option<&'a str>,
    ) -> journal::record::Decided<'a> {
        journal::record::Decided {
            decision,
            ruling: self.ruling.as_deref(),
            reason,
            by_fail_mode: self.by_fail_mode,
            approval: self.approval.as_deref(),
            decided_by: self.decided_by.as_deref(),
            untold: None,
            policy_took: self.policy_took,
            held_for: self.held_for,
            joined: self.joined.as_ref().map(|twin| twin.event),
        }
    }
}

/// The metric label of a refusal.
pub(super) fn counted_as(refusal: &Refusal) -> Decided {
    match refusal {
        Refusal::Blocked(_) | Refusal::OutcomeBlocked(_) | Refusal::ActivityAborted(_) => {
            Decided::Block
        }
        Refusal::Halted(_) => Decided::Halt,
        Refusal::ApprovalPending { .. }
        | Refusal::Rejected { .. }
        | Refusal::ApprovalExpired(_) => Decided::RequireApproval,
        Refusal::PolicyUnavailable(_)
        | Refusal::Unjudgeable(_)
        | Refusal::ConstraintNotApplicable(_)
        | Refusal::Unattributed
        | Refusal::NotRecorded
        | Refusal::Overloaded(_)
        | Refusal::ShuttingDown => Decided::Refused,
    }
}

/// Refusals are worth a line each; what passes is in the journal.
pub(super) fn log_refusal(event: OperationId, rule: Attribution, stage: Stage, refusal: &Refusal) {
    tracing::info!(
        event_id = %event,
        attribution = rule.as_str(),
        stage = stage.as_str(),
        code = refusal.code(),
        "refused: {refusal}"
    );
}

/// The state of a hold as a refusal, once it is no longer pending.
pub(super) fn ended_as(hold: &Hold, state: State) -> Option<Refusal> {
    match state {
        State::Rejected(reason) => Some(Refusal::Rejected {
            approval: hold.id.clone(),
            reason,
        }),
        State::Expired => Some(Refusal::ApprovalExpired(hold.id.clone())),
        State::Cancelled(reason) => Some(Refusal::Halted(reason)),
        State::Pending | State::Granted | State::Consumed => None,
    }
}
