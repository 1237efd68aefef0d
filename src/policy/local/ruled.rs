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
    Action, Answer, Capture, Captured, Event, EventKind, JsonText, Operation, Outcome, Reason,
    Verdict,
};
use crate::policy::{Guardrails, PolicyError, Question, Ruling, Side, redaction};
use crate::process::cpu::Deadline;

use super::evaluate::{merge, unjudgeable};
use super::fields::Subject;
use super::rules::Rules;
use super::rules::behaviour::{self, History};
use super::rules::guardrails::{Looked, Matter, concerns};
use super::rules::mask::{self, Masks};

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
    stands: Stands,
}

/// What can be put in the place of what guardrails look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// Another value: whoever asked puts it there.
    Value,
    /// Another text for a body that is still here, all of it.
    Body,
    /// Nothing.
    Nothing,
}

impl Stands {
    /// Whose body was told by a hook is on its way in another process; whose text is not
    /// the bytes has a digest of those.
    fn of_body(operation: &Operation, body: &Capture) -> Self {
        let here = operation.reported.is_none() && body.digest.is_none();
        match body.state {
            Captured::Whole if here => Self::Body,
            Captured::Empty
            | Captured::Whole
            | Captured::WholeBinary
            | Captured::Partial
            | Captured::Skipped => Self::Nothing,
        }
    }
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
        let Some(payload) = payload else {
            return Ok(said);
        };
        let masks = Masks {
            guardrails: &self.rules.guardrails,
            side,
            matter,
            until: Deadline::after(self.within),
        };
        let (looked, replacement) = masks
            .replaced(matters.stands, payload)
            .map_err(|why| unjudgeable(&why))?;
        Ok(Arc::new(concluded(side, looked, replacement, said)))
    }
}

impl Masks<'_> {
    /// What is in `payload`, and what can stand in its place, if something has to.
    fn replaced(
        &self,
        stands: Stands,
        payload: Payload,
    ) -> Result<(Looked, Option<JsonText>), String> {
        let (mut value, text) = match payload {
            Payload::Value(value) => (value, None),
            Payload::Body(text) => (mask::seen(&text), Some(text)),
        };
        let looked = self.look(&mut value)?;
        if looked.replaced.is_empty() || !looked.blocking.is_empty() {
            return Ok((looked, None));
        }
        let replacement = match (stands, text) {
            (Stands::Value, _) => {
                let text = serde_json::to_string(&value)
                    .map_err(|_| "the redacted content cannot be written as JSON".to_owned())?;
                Some(JsonText(text.into()))
            }
            (Stands::Body, Some(text)) => self
                .body(&text)?
                .map(|masked| redaction::of_body(self.side, &masked)),
            (Stands::Body, None) | (Stands::Nothing, _) => None,
        };
        Ok((looked, replacement))
    }
}

fn concluded(
    side: Side,
    looked: Looked,
    replacement: Option<JsonText>,
    said: Arc<Ruling>,
) -> Ruling {
    let mut ruling = Arc::unwrap_or_clone(said);
    let Looked {
        blocking, replaced, ..
    } = looked;
    let cannot = !replaced.is_empty() && replacement.is_none();
    if blocking.is_empty() && !cannot {
        if replacement.is_some() {
            ruling.redacted = replacement;
        }
        ruling.guardrails = Some(Arc::new(Guardrails {
            side,
            passed: true,
            findings: replaced,
        }));
        return ruling;
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
        side,
        passed: false,
        findings: blocking.into_iter().chain(replaced).collect(),
    }));
    ruling
}

fn matters<'a>(question: Question<'a>, subject: Option<Subject<'a>>) -> Option<Matters<'a>> {
    match (question, subject) {
        (Question::Event(event), _) => {
            let side = side_of(event)?;
            let activity = event.context.activity.as_ref()?;
            Some(Matters {
                side,
                matter: Matter::Activity(&activity.kind),
                stands: Stands::Value,
            })
        }
        (Question::Started(operation), Some(subject)) => Some(Matters {
            side: Side::Input,
            matter: Matter::Operation(subject.hook_type()),
            stands: match &operation.action {
                Action::Http(call) => Stands::of_body(operation, &call.body),
                Action::Database(_) | Action::File(_) | Action::Function(_) => Stands::Nothing,
            },
        }),
        (Question::Completed(operation, completion), Some(subject)) => Some(Matters {
            side: Side::Output,
            matter: Matter::Operation(subject.hook_type()),
            stands: match &completion.answer {
                Some(Answer::Http(answer)) => Stands::of_body(operation, &answer.body),
                Some(Answer::Database(_) | Answer::File(_) | Answer::Function(_)) | None => {
                    Stands::Nothing
                }
            },
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

/// What guardrails look at.
enum Payload {
    Value(Value),
    /// A text, and what values it has where it is JSON.
    Body(String),
}

/// What is in front of guardrails; what the Rego redacted before them, they see
/// redacted. `None`: there is nothing.
fn payload(question: Question<'_>, said: &Ruling) -> Result<Option<Payload>, String> {
    let redacted = |side| {
        said.redacted
            .as_ref()
            .and_then(|r| redaction::body(r, side))
    };
    let body = |side, body: &Capture| {
        let text = text_of(body)?;
        let text = text.map(|text| redacted(side).unwrap_or_else(|| text.to_owned()));
        Ok(text.map(Payload::Body))
    };
    let value = |json: Option<&JsonText>| {
        let value = json.map(parsed).transpose()?;
        Ok(value.map(Payload::Value))
    };
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
            value(said.redacted.as_ref().or(told))
        }
        Question::Started(operation) => match &operation.action {
            Action::Http(call) => body(Side::Input, &call.body),
            Action::Database(call) => {
                Ok(text_of(&call.statement)?.map(|text| Payload::Body(text.to_owned())))
            }
            Action::File(call) => Ok(Some(Payload::Value(Value::String(call.path.to_string())))),
            Action::Function(call) => value(call.arguments.as_ref()),
        },
        Question::Completed(_, completion) => match &completion.answer {
            Some(Answer::Http(answer)) => body(Side::Output, &answer.body),
            Some(Answer::Function(answer)) => value(answer.result.as_ref()),
            Some(Answer::Database(_) | Answer::File(_)) | None => Ok(None),
        },
    }
}

fn parsed(json: &JsonText) -> Result<Value, String> {
    // The parser's own words may quote the payload, which is the agent's.
    serde_json::from_str(&json.0).map_err(|_| "what guardrails look at is not JSON".to_owned())
}

/// The text of a body. What was not read whole cannot be vouched for.
fn text_of(body: &Capture) -> Result<Option<&str>, String> {
    match (body.state, &body.text) {
        (Captured::Empty, _) => Ok(None),
        // What is UTF-16 reads as text as well.
        (Captured::Whole, Some(text)) if !text.contains('\0') => Ok(Some(text)),
        (Captured::Whole | Captured::WholeBinary, _) => {
            Err("it is not text, and guardrails cannot check it".to_owned())
        }
        (Captured::Partial | Captured::Skipped, _) => {
            Err("it was not read whole, and guardrails cannot check it".to_owned())
        }
    }
}
