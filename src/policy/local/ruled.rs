//! What behaviour rules and guardrails make of what the Rego said.
//!
//! The strictest verdict wins: HALT, BLOCK, a guardrail that blocks,
//! REQUIRE_APPROVAL, CONSTRAIN, ALLOW. What is refused already is not looked
//! at by guardrails.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::domain::{
    Action, Answer, Capture, Captured, Event, EventKind, JsonText, Outcome, Reason, Verdict,
};
use crate::policy::{Guardrails, PolicyError, Question, Ruling, Side};

use super::evaluate::{merge, unjudgeable};
use super::fields::Subject;
use super::rules::Rules;
use super::rules::behaviour::{self, History};
use super::rules::guardrails::{Looked, Matter, concerns, look};

/// What the rules are applied with.
pub(super) struct Ruled<'a> {
    pub(super) rules: &'a Rules,
    pub(super) history: &'a History,
    pub(super) now: Instant,
    /// Longest time that guardrails may take.
    pub(super) within: Duration,
    pub(super) generation: u64,
}

/// What is in front of guardrails.
struct Matters<'a> {
    side: Side,
    matter: Matter<'a>,
    /// Whether whoever asked can put something else in its place.
    replaceable: bool,
}

impl Ruled<'_> {
    /// The ruling on `question`, of which the Rego `said` something.
    pub(super) fn ruling(
        &self,
        subject: Option<Subject<'_>>,
        question: Question<'_>,
        said: Result<Arc<Ruling>, PolicyError>,
    ) -> Result<Arc<Ruling>, PolicyError> {
        let said = match subject {
            Some(subject) if !self.rules.behaviour.is_empty() => self.behaved(&subject, said)?,
            Some(_) | None => said?,
        };
        if self.rules.guardrails.is_empty() || said.verdict >= Verdict::Block {
            return Ok(said);
        }
        self.guarded(question, subject, said)
    }

    fn behaved(
        &self,
        subject: &Subject<'_>,
        said: Result<Arc<Ruling>, PolicyError>,
    ) -> Result<Arc<Ruling>, PolicyError> {
        let context = &subject.operation.context;
        let semantic = subject.semantic_type();
        if let Some(completion) = subject.completion {
            // It happened, whatever anybody says to its outcome.
            if completion.outcome == Outcome::Answered {
                self.history.happened(context, semantic, self.now);
            }
            return said;
        }
        let said = said?;
        let fired = behaviour::ruling(
            &self.rules.behaviour,
            self.history,
            context,
            semantic,
            self.now,
            self.generation,
        );
        match fired {
            None => Ok(said),
            Some(fired) => merge(Arc::unwrap_or_clone(said), fired)
                .map(Arc::new)
                .map_err(|why| unjudgeable(&why)),
        }
    }

    fn guarded(
        &self,
        question: Question<'_>,
        subject: Option<Subject<'_>>,
        said: Arc<Ruling>,
    ) -> Result<Arc<Ruling>, PolicyError> {
        let Some(matters) = matters(question, subject) else {
            return Ok(said);
        };
        let (side, matter) = (matters.side, matters.matter);
        if !concerns(&self.rules.guardrails, side, matter) {
            return Ok(said);
        }
        let payload = payload(question, &said).map_err(|why| unjudgeable(&why))?;
        let Some(mut value) = payload else {
            return Ok(said);
        };
        let until = self.now.checked_add(self.within).unwrap_or(self.now);
        let looked = look(&self.rules.guardrails, side, matter, &mut value, until)
            .map_err(|why| unjudgeable(&why))?;
        Ok(Arc::new(concluded(&matters, looked, &value, said)?))
    }
}

fn concluded(
    matters: &Matters<'_>,
    looked: Looked,
    value: &Value,
    said: Arc<Ruling>,
) -> Result<Ruling, PolicyError> {
    let mut ruling = Arc::unwrap_or_clone(said);
    let Looked {
        blocking, replaced, ..
    } = looked;
    let cannot = !replaced.is_empty() && !matters.replaceable;
    if blocking.is_empty() && !cannot {
        if !replaced.is_empty() {
            let text = serde_json::to_string(value)
                .map_err(|_| unjudgeable("the redacted content cannot be written as JSON"))?;
            ruling.redacted = Some(JsonText(text.into()));
        }
        ruling.guardrails = Some(Arc::new(Guardrails {
            side: matters.side,
            passed: true,
            findings: replaced,
        }));
        return Ok(ruling);
    }
    let reasons: Vec<&str> = blocking
        .iter()
        .chain(replaced.iter().filter(|_| cannot))
        .map(|finding| &*finding.reason)
        .collect();
    let mut reason = reasons.join("; ");
    if cannot {
        reason.push_str("; it would be redacted, and cannot be replaced on its way");
    }
    ruling.verdict = Verdict::Block;
    ruling.reason = Some(Reason::from_peer(&reason));
    ruling.policy = Some("guardrails".into());
    ruling.approval = None;
    ruling.redacted = None;
    ruling.guardrails = Some(Arc::new(Guardrails {
        side: matters.side,
        passed: false,
        findings: blocking.into_iter().chain(replaced).collect(),
    }));
    Ok(ruling)
}

fn matters<'a>(question: Question<'a>, subject: Option<Subject<'a>>) -> Option<Matters<'a>> {
    match (question, subject) {
        (Question::Event(event), _) => {
            let side = side_of(event)?;
            let activity = event.context.activity.as_ref()?;
            Some(Matters {
                side,
                matter: Matter::Activity(&activity.kind),
                replaceable: true,
            })
        }
        (Question::Started(_), Some(subject)) => Some(Matters {
            side: Side::Input,
            matter: Matter::Operation(subject.hook_type()),
            replaceable: false,
        }),
        (Question::Completed(..), Some(subject)) => Some(Matters {
            side: Side::Output,
            matter: Matter::Operation(subject.hook_type()),
            replaceable: false,
        }),
        (Question::Started(_) | Question::Completed(..), None) => None,
    }
}

fn side_of(event: &Event) -> Option<Side> {
    match event.kind {
        EventKind::ActivityStarted => Some(Side::Input),
        EventKind::ActivityCompleted => Some(Side::Output),
        EventKind::WorkflowStarted
        | EventKind::WorkflowCompleted
        | EventKind::WorkflowFailed
        | EventKind::SignalReceived
        | EventKind::Handoff => None,
    }
}

/// What guardrails look at; what the Rego redacted before them, they see
/// redacted. `None`: there is nothing.
fn payload(question: Question<'_>, said: &Ruling) -> Result<Option<Value>, String> {
    match question {
        Question::Event(event) => {
            let told = match event.kind {
                EventKind::ActivityCompleted => event
                    .fields
                    .iter()
                    .find(|(name, _)| *name == "activity_output")
                    .map(|(_, json)| json),
                EventKind::ActivityStarted
                | EventKind::WorkflowStarted
                | EventKind::WorkflowCompleted
                | EventKind::WorkflowFailed
                | EventKind::SignalReceived
                | EventKind::Handoff => event
                    .context
                    .activity
                    .as_ref()
                    .map(|activity| &activity.input),
            };
            said.redacted.as_ref().or(told).map(parsed).transpose()
        }
        Question::Started(operation) => match &operation.action {
            Action::Http(call) => text_of(&call.body),
            Action::Database(call) => text_of(&call.statement),
            Action::File(call) => Ok(Some(Value::String(call.path.to_string()))),
            Action::Function(call) => call.arguments.as_ref().map(parsed).transpose(),
        },
        Question::Completed(_, completion) => match &completion.answer {
            Some(Answer::Http(answer)) => text_of(&answer.body),
            Some(Answer::Function(answer)) => answer.result.as_ref().map(parsed).transpose(),
            Some(Answer::Database(_) | Answer::File(_)) | None => Ok(None),
        },
    }
}

fn parsed(json: &JsonText) -> Result<Value, String> {
    // The parser's own words may quote the payload, which is the agent's.
    serde_json::from_str(&json.0).map_err(|_| "what guardrails look at is not JSON".to_owned())
}

/// A body as text and, where it is JSON, as its values too: escapes must not
/// hide anything. What was not read whole cannot be vouched for.
fn text_of(body: &Capture) -> Result<Option<Value>, String> {
    match (body.state, &body.text) {
        (Captured::Empty, _) => Ok(None),
        (Captured::Whole, Some(text)) => {
            let mut seen = vec![Value::String(text.clone())];
            seen.extend(serde_json::from_str::<Value>(text).ok());
            Ok(Some(Value::Array(seen)))
        }
        (Captured::Whole | Captured::WholeBinary, _) => {
            Err("it is not text, and guardrails cannot check it".to_owned())
        }
        (Captured::Partial | Captured::Skipped, _) => {
            Err("it was not read whole, and guardrails cannot check it".to_owned())
        }
    }
}
