//! Asking policy once: within the deadline, and never past a halt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::domain::{Reason, Refusal, Verdict};
use crate::policy::{Judging, Later, PolicyError, Question, Ruling};
use crate::session::Session;

use super::admit::Trail;
use super::join::Twin;
use super::{Constraints, Govern, Inner, Terms};

/// One answer and what it took.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) answer: Result<Arc<Ruling>, PolicyError>,
    pub(super) took: Duration,
    /// Whose answer it is, where an earlier one was joined.
    pub(super) joined: Option<Twin>,
}

impl Judged {
    pub(super) fn asked(answer: Result<Arc<Ruling>, PolicyError>, took: Duration) -> Self {
        Self {
            answer,
            took,
            joined: None,
        }
    }

    pub(super) fn joined(twin: Twin) -> Self {
        Self {
            answer: Ok(twin.ruling.clone()),
            took: Duration::ZERO,
            joined: Some(twin),
        }
    }

    /// A trail that begins with it.
    pub(super) fn trail(&self) -> Trail {
        Trail {
            policy_took: self.took,
            joined: self.joined.clone(),
            ..Trail::default()
        }
    }
}

/// What [`Inner::question`] came to.
pub(super) enum Put<'a> {
    /// Somebody answers it.
    Asked(Judging<'a>),
    /// It was answered before.
    Joined(Twin),
}

impl Inner {
    /// Asks policy. A local answer costs no suspension; a remote one is raced
    /// with the deadline, and given up when the run is halted meanwhile (the
    /// caller reads the latch again anyway). Not so about an outcome: what a
    /// halted run did is what policy must hear of.
    pub(super) async fn judge(&self, question: Question<'_>, session: &Session) -> Judged {
        let began = Instant::now();
        let happened = matches!(question, Question::Completed(..));
        let answer = match self.question(question) {
            Put::Asked(Judging::Now(answer)) => answer,
            // Boxed: an operation that a local policy judges never waits here.
            Put::Asked(Judging::Later(answer)) => {
                Box::pin(self.await_answer(answer, session, happened)).await
            }
            Put::Joined(twin) => return Judged::joined(twin),
        };
        self.answered(question, &answer);
        Judged::asked(answer, began.elapsed())
    }

    /// The answer of a policy that has one at once; `None`: it has to be waited
    /// for, and was not asked.
    pub(super) fn judge_now(&self, question: Question<'_>) -> Option<Judged> {
        let began = Instant::now();
        match self.question(question) {
            Put::Asked(Judging::Now(answer)) => {
                self.answered(question, &answer);
                Some(Judged::asked(answer, began.elapsed()))
            }
            Put::Joined(twin) => Some(Judged::joined(twin)),
            Put::Asked(Judging::Later(_)) => None,
        }
    }

    /// Puts `question` to policy, if it has to be put at all.
    pub(super) fn question<'a>(&'a self, question: Question<'a>) -> Put<'a> {
        let generation = self.parts.backend.generation();
        if let Some(setting) = self.left_out(question) {
            let reason = Reason(format!("not asked: `{setting}` leaves this out").into());
            return Put::Asked(Judging::Now(Ok(Arc::new(Ruling {
                reason: Some(reason),
                ..Ruling::new(Verdict::Allow, generation)
            }))));
        }
        match self.joins.join(question, generation) {
            Some(twin) => Put::Joined(twin),
            None => Put::Asked(self.parts.backend.judge(question)),
        }
    }

    /// Lets the twin of an outcome join its `answer`.
    pub(super) fn answered(
        &self,
        question: Question<'_>,
        answer: &Result<Arc<Ruling>, PolicyError>,
    ) {
        if let (Question::Completed(operation, completion), Ok(ruling)) = (question, answer)
            && self.parts.settings.govern == Govern::Both
        {
            self.joins.judged(operation, completion, ruling);
        }
    }

    /// The setting by which `question` is not asked at all, if one says so.
    pub(super) fn left_out(&self, question: Question<'_>) -> Option<&'static str> {
        let settings = &self.parts.settings;
        let operation = match question {
            Question::Event(event) => return settings.unasked.by(event),
            Question::Started(operation) | Question::Completed(operation, _) => operation,
        };
        let governs = match settings.govern {
            Govern::Both => true,
            Govern::Boundary => operation.reported.is_none(),
            Govern::Hooks => operation.reported.is_some(),
        };
        (!governs).then_some("govern")
    }

    async fn await_answer(
        &self,
        answer: Later<'_, Result<Arc<Ruling>, PolicyError>>,
        session: &Session,
        happened: bool,
    ) -> Result<Arc<Ruling>, PolicyError> {
        let within = self.parts.settings.judge_within;
        tokio::select! {
            answer = time::timeout(within, answer) => answer.unwrap_or_else(|_| {
                let text = format!("no answer within {} s", within.as_secs_f32());
                Err(PolicyError::Unavailable(Reason(text.into())))
            }),
            reason = session.until_halted(), if !happened => Err(PolicyError::Unjudgeable(reason)),
        }
    }

    /// Waits until a remote policy has judged what the session's activity did
    /// before, so that it hears of an activity in order and what it says of an
    /// outcome counts for what follows. At most as long as one answer may take:
    /// then order is given up, and what is asked is judged as ever.
    pub(super) async fn in_order(&self, session: &Session) {
        let Some(activity) = &session.activity else {
            return;
        };
        tokio::select! {
            told = time::timeout(self.parts.settings.judge_within, activity.untold.told()) => {
                if told.is_err() {
                    tracing::warn!("policy has not judged in time what an activity did before: asking out of order");
                }
            }
            _ = session.until_halted() => {}
        }
    }

    /// Whether what `ruling` asks for besides its verdict can be had.
    pub(super) fn constrained(&self, ruling: &Ruling, terms: &Terms) -> Result<(), Refusal> {
        let redacted = ruling.redacted.as_ref();
        if redacted.is_some_and(|redacted| !(terms.replaces)(redacted)) {
            // Letting the original through would undo the redaction.
            let reason = "policy redacted the content, and this protocol cannot put the redacted content in its place";
            return Err(Refusal::ConstraintNotApplicable(Reason::from(reason)));
        }
        if let Some(name) = ruling
            .constraints
            .iter()
            .find(|name| (terms.contradicts)(name))
        {
            let text = format!("it would not be {name}");
            return Err(Refusal::ConstraintNotApplicable(Reason::from_peer(&text)));
        }
        let enforced = self.parts.settings.constraints == Constraints::Enforce;
        let inapplicable = ruling
            .constraints
            .iter()
            .find(|name| !(terms.applies)(name));
        match inapplicable {
            Some(name) if enforced => {
                Err(Refusal::ConstraintNotApplicable(Reason::from_peer(name)))
            }
            Some(_) | None => Ok(()),
        }
    }
}
