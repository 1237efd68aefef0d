//! Lifecycle events: judged like operations, and what they open or close.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Context, Event, EventKind, Reason, Refusal, Verdict};
use crate::journal::{self, Record};
use crate::metrics::LimitHit;
use crate::policy::{
    ApprovalsAt, HandedOver, HandingOver, Handoff, Later, PolicyError, Question, Ruling,
};
use crate::process::clock;
use crate::session::{Limit, Session};
use crate::state::Change;

use super::admit::{Trail, behind};
use super::hold::Hold;
use super::judge::Judged;
use super::wait::{Waited, Waiter};
use super::{FailMode, Gate, Inner, fingerprint};

/// What became of an event, or of an outcome that was told.
#[derive(Debug)]
pub struct Noted {
    /// What the agent should do.
    pub verdict: Verdict,
    /// Why it may not go on, if it may not.
    pub refusal: Option<Refusal>,
    /// What policy said; absent when it gave no answer.
    pub ruling: Option<Arc<Ruling>>,
    /// Whether the fail mode decided.
    pub by_fail_mode: bool,
}

impl Gate {
    /// Judges `event`, waiting for a person at most `hold_within`, and then
    /// opens or closes what it is about. Cancel-safe as [`Gate::admit`].
    pub async fn note(&self, event: &Event, hold_within: Duration) -> Noted {
        let inner = &self.inner;
        let session = inner.parts.registry.session_of(&event.context);
        let mut trail = Trail::default();
        // Made only for an end: dropping one closes, or would open, what it is about.
        let mut unheard = ends_something(event.kind).then(|| Unheard { inner, event });
        let mut end = inner
            .judge_event(event, &session, hold_within, &mut trail)
            .await;
        if let Some(unheard) = unheard.take() {
            // What ended has ended, whatever policy thinks of it.
            drop(unheard);
        } else if let Ok(()) = end {
            end = inner.apply(event);
        }
        inner.conclude(event, end, trail)
    }
}

impl Gate {
    /// What becomes of `handoff`; ask it with [`Gate::hand_over`].
    pub fn handing_over<'a>(&'a self, handoff: Handoff<'a>) -> HandingOver<'a> {
        self.inner.parts.backend.hand_over(handoff)
    }

    /// Hands over as `event` says, unless its run is halted, and records it. The
    /// fail mode has no say: nobody can take it in the service's place.
    /// Cancel-safe as [`Gate::admit`].
    ///
    /// # Errors
    /// It was not handed over, or nobody knows, or it could not be recorded.
    pub async fn hand_over(
        &self,
        event: &Event,
        asked: Later<'_, Result<HandedOver, PolicyError>>,
    ) -> Result<HandedOver, Refusal> {
        let session = self.inner.parts.registry.session_of(&event.context);
        let answer = match session.halted() {
            Some(reason) => Err(Refusal::Halted(reason)),
            None => asked.await.map_err(|error| match error {
                PolicyError::Unavailable(reason) => Refusal::PolicyUnavailable(reason),
                PolicyError::Unjudgeable(reason) => Refusal::Unjudgeable(reason),
            }),
        };
        let end = match &answer {
            Ok(handed) if handed.status < 400 => Ok(()),
            Ok(handed) => {
                let text = format!("answered HTTP {}", handed.status);
                Err(Refusal::Unjudgeable(Reason(text.into())))
            }
            Err(refusal) => Err(refusal.clone()),
        };
        let noted = self.inner.conclude(event, end, Trail::default());
        match noted.refusal {
            Some(refusal @ Refusal::NotRecorded) => Err(refusal),
            Some(_) | None => answer,
        }
    }

    /// The session of an operation that a hook tells of. Its run and activity are
    /// opened, and remembered, if nothing did before: SDKs can be told to leave
    /// the start events out.
    ///
    /// # Errors
    /// A bound is reached, or it could not be remembered.
    pub fn session_of_hook(&self, context: &Arc<Context>) -> Result<Session, Refusal> {
        let registry = &self.inner.parts.registry;
        let known = registry.session_of(context);
        if known.activity.is_some() {
            return Ok(known);
        }
        let at = clock::now();
        let opened = registry
            .open_activity(context, at)
            .map(|()| Some(Change::ActivityOpened(context, at)));
        self.inner.opened(opened)?;
        Ok(registry.session_of(context))
    }
}

/// The end of something, which the agent may not wait to hear judged.
struct Unheard<'a> {
    inner: &'a Inner,
    event: &'a Event,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        drop(self.inner.apply(self.event));
    }
}

impl Inner {
    async fn judge_event(
        self: &Arc<Self>,
        event: &Event,
        session: &Session,
        hold_within: Duration,
        trail: &mut Trail,
    ) -> Result<(), Refusal> {
        if self.parts.backend.approvals_at() == ApprovalsAt::Core && behind(session) {
            self.in_order(session).await;
        }
        let now = Instant::now();
        let until = now.checked_add(hold_within).unwrap_or(now);
        let print = fingerprint::of_event(event);
        loop {
            if let Some(reason) = session.halted() {
                return Err(Refusal::Halted(reason));
            }
            let (hold, waiter) = match self.holds.by_fingerprint(print) {
                Some(hold) => (hold, Waiter::Joiner),
                None => match self.ask_about(event, session, trail).await? {
                    None => return Ok(()),
                    Some(ruling) => {
                        let mut opening = self.bare_opening(event.context.clone(), &ruling);
                        opening.fingerprint = Some(print);
                        opening.summary = summary(event).into();
                        self.open_hold(Hold::new(opening), session)?
                    }
                },
            };
            trail.ruling = Some(hold.ruling.clone());
            trail.approval = Some(hold.id.0.clone());
            let began = Instant::now();
            let waited = self.wait(&hold, waiter, session, until).await;
            trail.held_for = trail.held_for.saturating_add(began.elapsed());
            trail.decided_by = hold.decided_by.get().cloned();
            match waited {
                Waited::Granted => {
                    // The policy of now may forbid what the policy of then asked
                    // a person about. If it asks again: the person has agreed.
                    if self.parts.backend.generation() != hold.ruling.generation {
                        self.ask_about(event, session, trail).await?;
                    }
                    return session
                        .halted()
                        .map_or(Ok(()), |reason| Err(Refusal::Halted(reason)));
                }
                Waited::Ended(refusal) => return Err(refusal),
                // A twin used the grant: this one needs a person of its own.
                Waited::Used => (trail.ruling, trail.approval) = (None, None),
            }
        }
    }

    /// `Some` if a person must decide.
    async fn ask_about(
        &self,
        event: &Event,
        session: &Session,
        trail: &mut Trail,
    ) -> Result<Option<Arc<Ruling>>, Refusal> {
        let Judged { answer, took, .. } = self.judge(Question::Event(event), session).await;
        trail.policy_took = trail.policy_took.saturating_add(took);
        let ruling = match answer {
            Ok(ruling) => ruling,
            Err(error) => {
                return match (session.halted(), error) {
                    (Some(reason), _) => Err(Refusal::Halted(reason)),
                    (None, PolicyError::Unjudgeable(reason)) => Err(Refusal::Unjudgeable(reason)),
                    (None, PolicyError::Unavailable(reason)) => match self.fail_mode(trail) {
                        FailMode::Open => Ok(None),
                        FailMode::Closed => Err(Refusal::PolicyUnavailable(reason)),
                    },
                };
            }
        };
        trail.ruling = Some(ruling.clone());
        match ruling.verdict {
            // A redaction needs no refusal here: the agent is handed the
            // redacted input, and it is the agent that acts on it.
            Verdict::Allow | Verdict::Constrain => Ok(None),
            Verdict::RequireApproval => Ok(match self.parts.settings.unheld.by(&event.context) {
                None => match self.said_before(&ruling, session, trail) {
                    None => Some(ruling),
                    Some(said) => {
                        said?;
                        None
                    }
                },
                Some(setting) => {
                    tracing::warn!(event_id = %event.id, "policy wanted a person, and `{setting}` says that nobody is asked");
                    None
                }
            }),
            Verdict::Block => Err(Refusal::Blocked(ruling.reason_or_default())),
            Verdict::Halt => {
                let reason = ruling.reason_or_default();
                // Latched even if the run was never opened here: its first event
                // may be the one that halts it.
                let run = self.parts.registry.open_run(&event.context, event.at);
                match run {
                    Ok(run) => self.halt(&run, &reason, "policy"),
                    Err(_) => self.halt(&session.run, &reason, "policy"),
                }
                Err(Refusal::Halted(reason))
            }
        }
    }

    fn apply(&self, event: &Event) -> Result<(), Refusal> {
        let registry = &self.parts.registry;
        let (context, at) = (&event.context, event.at);
        let opened = match event.kind {
            EventKind::WorkflowStarted => registry
                .open_run(context, at)
                .map(|run| Some(Change::RunOpened(context, run.opened_at))),
            EventKind::ActivityStarted => registry
                .open_activity(context, at)
                .map(|()| Some(Change::ActivityOpened(context, at))),
            EventKind::WorkflowCompleted | EventKind::WorkflowFailed => {
                registry.close_run(context);
                Ok(Some(Change::RunClosed(context)))
            }
            EventKind::ActivityCompleted => {
                registry.complete_activity(context);
                Ok(Some(Change::ActivityClosed(context)))
            }
            EventKind::SignalReceived | EventKind::Handoff => Ok(None),
        };
        self.opened(opened)
    }

    /// Counts a bound that was reached, and remembers what was opened or closed.
    fn opened(&self, change: Result<Option<Change<'_>>, Limit>) -> Result<(), Refusal> {
        let change = change.map_err(|limit| {
            self.parts.metrics.limit_hit(LimitHit::Sessions);
            Refusal::Overloaded(limit.0)
        })?;
        match change {
            Some(change) if !self.keep(&change) => Err(Refusal::NotRecorded),
            Some(_) | None => Ok(()),
        }
    }

    fn conclude(&self, event: &Event, end: Result<(), Refusal>, trail: Trail) -> Noted {
        let word = match (&end, &trail.ruling) {
            (Err(refusal), _) => refusal.code(),
            (Ok(()), Some(ruling)) if ruling.verdict == Verdict::Constrain => "constrain",
            (Ok(()), _) => "allow",
        };
        let reason = end.as_ref().err().map(ToString::to_string);
        // What was refused has not happened, unless it was an end.
        let happened = end.is_ok() || ends_something(event.kind);
        let untold = (trail.unheard && happened)
            .then(|| self.parts.backend.untold(Question::Event(event)))
            .flatten();
        let written = self.parts.journal.append(&Record::Event {
            at: clock::now(),
            event,
            decided: journal::record::Decided {
                untold: untold.as_ref(),
                ..trail.as_record(word, reason.as_deref())
            },
        });
        let mut refusal = end.err();
        if let Err(error) = written {
            tracing::error!(%error, event_id = %event.id, "an event could not be written to the journal");
            refusal.get_or_insert(Refusal::NotRecorded);
        }
        Noted::new(refusal, trail)
    }
}

impl Noted {
    pub(super) fn new(refusal: Option<Refusal>, trail: Trail) -> Self {
        let verdict = match (&refusal, &trail.ruling) {
            (Some(refusal), _) => refusal.verdict(),
            (None, Some(ruling)) if ruling.verdict == Verdict::Constrain => Verdict::Constrain,
            (None, Some(_) | None) => Verdict::Allow,
        };
        Self {
            verdict,
            refusal,
            ruling: trail.ruling,
            by_fail_mode: trail.by_fail_mode,
        }
    }
}

fn ends_something(kind: EventKind) -> bool {
    match kind {
        EventKind::WorkflowCompleted | EventKind::WorkflowFailed | EventKind::ActivityCompleted => {
            true
        }
        EventKind::WorkflowStarted
        | EventKind::ActivityStarted
        | EventKind::SignalReceived
        | EventKind::Handoff => false,
    }
}

fn summary(event: &Event) -> String {
    let context = &event.context;
    match &context.activity {
        Some(activity) => format!(
            "{} {} ({})",
            event.kind.as_str(),
            activity.kind,
            activity.id
        ),
        None => format!("{} {}", event.kind.as_str(), context.workflow_type),
    }
}
