//! Asking policy once: within the deadline, and never past a halt.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::domain::{Reason, Refusal};
use crate::policy::{Judging, Later, PolicyError, Question, Ruling};
use crate::session::Session;

use super::{Constraints, Inner, Terms};

/// One answer and what it took.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) answer: Result<Arc<Ruling>, PolicyError>,
    pub(super) took: Duration,
}

impl Inner {
    /// Asks policy. A local answer costs no suspension; a remote one is raced
    /// with the deadline, and given up when the run is halted meanwhile (the
    /// caller reads the latch again anyway). Not so about an outcome: what a
    /// halted run did is what policy must hear of.
    pub(super) async fn judge(&self, question: Question<'_>, session: &Session) -> Judged {
        let began = Instant::now();
        let happened = matches!(question, Question::Completed(..));
        let answer = match self.parts.backend.judge(question) {
            Judging::Now(answer) => answer,
            // Boxed: an operation that a local policy judges never waits here.
            Judging::Later(answer) => Box::pin(self.await_answer(answer, session, happened)).await,
        };
        Judged {
            answer,
            took: began.elapsed(),
        }
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

    /// Whether what `ruling` asks for besides its verdict can be had.
    pub(super) fn constrained(&self, ruling: &Ruling, terms: &Terms) -> Result<(), Refusal> {
        if ruling.redacted.is_some() {
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
