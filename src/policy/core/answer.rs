//! What Core's answer to an evaluation means.
//!
//! Core's own clients read what they do not understand as ALLOW. Here it is an
//! error: a verdict is given only where a word said so, and where nothing in
//! the same answer says otherwise.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::{ApprovalId, JsonText, Reason, Verdict};

use super::client::NoAnswer;
use super::proof::Unproven;
use super::reasons::{complaint, said, why_rejected};
use super::wire::{Guardrails, Introduced, Said, object};
use super::{Answered, StartError, time};
use crate::policy::{self, Approval, PolicyError, Ruling, Side};

/// Findings kept of one answer.
const FINDINGS_MAX: usize = 100;

impl From<NoAnswer> for PolicyError {
    fn from(error: NoAnswer) -> Self {
        let reason = Reason::from_peer(&format!("OpenBox Core {error}"));
        match error {
            NoAnswer::Unreachable(_)
            | NoAnswer::BrokeOff(_)
            | NoAnswer::TooSlow(_)
            | NoAnswer::Resting(_)
            | NoAnswer::Unproven(Unproven::Absent(_)) => Self::Unavailable(reason),
            // Queueing is our own bound, and load must not open it; nor must
            // an identity that is not ours.
            NoAnswer::Queued(_)
            | NoAnswer::NotHttp(_)
            | NoAnswer::TooLong(_)
            | NoAnswer::Unproven(Unproven::Rejected(_)) => Self::Unjudgeable(reason),
        }
    }
}

/// Reads the answer to an evaluation; `input` is what guardrails were shown.
pub(super) fn ruling(answered: &Answered, input: Option<&JsonText>) -> Result<Ruling, PolicyError> {
    if answered.status != StatusCode::OK {
        return Err(refused(answered));
    }
    let said: Said = object(&answered.body).map_err(|why| unreadable(&why))?;
    let word = verdict(&said)?;
    let guardrails = match (&said.guardrails_result, word) {
        (None, _) | (Some(_), Verdict::Halt | Verdict::Block) => None,
        (Some(json), Verdict::RequireApproval | Verdict::Constrain | Verdict::Allow) => Some(
            object::<Guardrails>(json.get().as_bytes())
                .map_err(|why| unreadable(&format!("guardrails: {why}")))?,
        ),
    };
    let mut ruling = Ruling::new(word, 0);
    ruling.policy = text(&said.policy_id).map(Into::into);
    ruling.event_id = text(&said.governance_event_id).map(Into::into);
    ruling.constraints = constraints(said.constraints.as_ref());
    ruling.violations = violations(&said);
    ruling.reason = reason(&said, &ruling.violations);
    ruling.age = said
        .age_result
        .as_deref()
        .map(|age| JsonText(age.get().into()));
    if let Some(guardrails) = guardrails {
        if !guardrails.validation_passed {
            ruling.verdict = Verdict::Block;
            ruling.reason = Some(findings(&guardrails));
        }
        ruling.redacted = redacted(&guardrails, input);
        ruling.guardrails = Some(Arc::new(found(&guardrails)));
    }
    // Honoured with Core's own BLOCK alone, not with one that guardrails made.
    if word == Verdict::Block {
        ruling.patch = said.patch.as_deref().and_then(patch);
    }
    if ruling.verdict == Verdict::RequireApproval {
        ruling.approval = Some(Approval {
            id: text(&said.approval_id).map(|id| ApprovalId(id.into())),
            expires_at: text(&said.approval_expiration_time).and_then(time::read),
        });
    }
    Ok(ruling)
}

/// `{"new_input": …}` and nothing else, with a value that every client reads
/// alike: no bool, and no number beyond what a double tells apart. Anything
/// else is no patch.
fn patch(json: &RawValue) -> Option<JsonText> {
    const MAX: f64 = 9_007_199_254_740_991.0;
    let members: serde_json::Map<String, Value> = serde_json::from_str(json.get()).ok()?;
    let (true, Some(input)) = (members.len() == 1, members.get("new_input")) else {
        return None;
    };
    let is_exact = match input {
        Value::Bool(_) => false,
        Value::Number(number) => number.as_f64().is_some_and(|n| n.abs() <= MAX),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => true,
    };
    is_exact.then(|| JsonText(json.get().into()))
}

/// The one verdict both words agree on. Version 1.0 says `action`, 1.1 both.
fn verdict(said: &Said) -> Result<Verdict, PolicyError> {
    match (
        known("verdict", &said.verdict)?,
        known("action", &said.action)?,
    ) {
        (Some(verdict), Some(action)) if verdict != action => Err(unjudgeable(&format!(
            "contradicts itself: verdict {verdict}, action {action}"
        ))),
        (Some(verdict), _) | (None, Some(verdict)) => Ok(verdict),
        (None, None) => Err(unjudgeable("names no verdict")),
    }
}

fn known(name: &str, value: &Option<Value>) -> Result<Option<Verdict>, PolicyError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) => word_of(word)
            .map(Some)
            .ok_or_else(|| unjudgeable(&format!("uses an unknown word for its {name}: {word:?}"))),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(unjudgeable(&format!("has a {name} that is not a string")))
        }
    }
}

/// The words of both versions, in any case and with either dash.
pub(super) fn word_of(word: &str) -> Option<Verdict> {
    match word.to_ascii_lowercase().replace('-', "_").as_str() {
        "allow" | "continue" => Some(Verdict::Allow),
        "constrain" => Some(Verdict::Constrain),
        "require_approval" | "request_approval" => Some(Verdict::RequireApproval),
        "block" => Some(Verdict::Block),
        "halt" | "stop" => Some(Verdict::Halt),
        _ => None,
    }
}

/// A string that says something.
pub(super) fn text(value: &Option<Value>) -> Option<&str> {
    value.as_ref()?.as_str().filter(|text| !text.is_empty())
}

fn reason(said: &Said, violations: &[Box<str>]) -> Option<Reason> {
    if let Some(reason) = text(&said.reason) {
        return Some(Reason::from_peer(reason));
    }
    let rules = violations.join("; ");
    (!rules.is_empty()).then(|| Reason::from_peer(&format!("violates {rules}")))
}

/// The rules that Core names, in words fit to show.
fn violations(said: &Said) -> Vec<Box<str>> {
    let rules = said
        .behavioral_violations
        .as_ref()
        .and_then(Value::as_array);
    let names = rules.into_iter().flatten().filter_map(Value::as_str);
    names
        .take(FINDINGS_MAX)
        .map(|name| Box::from(&*Reason::from_peer(name).0))
        .collect()
}

/// What guardrails found, as rulings carry it.
fn found(guardrails: &Guardrails) -> policy::Guardrails {
    policy::Guardrails {
        side: if guardrails.is_about_output() {
            Side::Output
        } else {
            Side::Input
        },
        passed: guardrails.validation_passed,
        findings: guardrails.findings().take(FINDINGS_MAX).collect(),
    }
}

fn findings(guardrails: &Guardrails) -> Reason {
    let findings: Vec<_> = guardrails
        .findings()
        .map(|finding| finding.reason)
        .collect();
    let findings: Vec<_> = findings
        .iter()
        .map(|f| &**f)
        .filter(|f| !f.is_empty())
        .collect();
    if !findings.is_empty() {
        return Reason::from_peer(&findings.join("; "));
    }
    Reason::from(if guardrails.is_about_output() {
        "Guardrails output validation failed"
    } else {
        "Guardrails validation failed"
    })
}

/// Words as they are; anything else as the JSON it is, so that nothing asked
/// for is lost.
fn constraints(value: Option<&Value>) -> Vec<Box<str>> {
    let word = |value: &Value| match value.as_str() {
        Some(word) => Box::from(word),
        None => value.to_string().into_boxed_str(),
    };
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(words)) => words.iter().map(word).collect(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_))) => {
            vec![word(other)]
        }
    }
}

/// The replacement, unless it is what was there already: Core repeats inputs
/// that it left alone, one argument without its list.
fn redacted(guardrails: &Guardrails, input: Option<&JsonText>) -> Option<JsonText> {
    let replacement = guardrails.redacted_input.as_deref()?.get();
    if let Some(input) = input
        && !guardrails.is_about_output()
        && let Ok(was) = serde_json::from_str::<Value>(&input.0)
        && let Ok(is) = serde_json::from_str::<Value>(replacement)
        && (was == is || was.as_array().is_some_and(|was| *was == [is]))
    {
        return None;
    }
    Some(JsonText(replacement.into()))
}

/// What a status other than 200 means.
pub(super) fn refused(answered: &Answered) -> PolicyError {
    let status = answered.status;
    let complaint = complaint(answered);
    let is_too_large = answered.is_too_large();
    let answered = format!("OpenBox Core answered {}", said(status, &complaint));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PolicyError::Unjudgeable(
            Reason::from_peer(&format!("{answered}: {}", why_rejected(&complaint))),
        ),
        // An agent decides how large its questions are.
        _ if is_too_large => PolicyError::Unjudgeable(Reason::from_peer(&format!(
            "{answered}: this is too large to evaluate"
        ))),
        StatusCode::TOO_MANY_REQUESTS => PolicyError::Unavailable(Reason::from_peer(&answered)),
        _ if status.is_server_error() => PolicyError::Unavailable(Reason::from_peer(&answered)),
        _ => PolicyError::Unjudgeable(Reason::from_peer(&answered)),
    }
}

impl Answered {
    /// Whether Core says that it was asked too much at once.
    pub(super) fn is_too_large(&self) -> bool {
        if self.status.is_success() {
            return false;
        }
        let said = complaint(self).to_ascii_lowercase();
        self.status == StatusCode::PAYLOAD_TOO_LARGE
            || said.contains("blob size exceeds")
            || said.contains("payload too large")
    }
}

/// As [`refused`], for a poll: nothing but a decision ends the wait.
pub(super) fn poll_refused(answered: &Answered) -> PolicyError {
    match refused(answered) {
        PolicyError::Unjudgeable(reason) if answered.status == StatusCode::NOT_FOUND => {
            PolicyError::Unavailable(reason)
        }
        error @ (PolicyError::Unjudgeable(_) | PolicyError::Unavailable(_)) => error,
    }
}

/// Reads the answer to our introduction.
pub(super) fn introduced(answered: &Answered, url: String) -> Result<(), StartError> {
    // Clients go by the status alone, so an unreadable body says nothing.
    let body: Introduced = object(&answered.body).unwrap_or_default();
    match (answered.status, body.valid) {
        (StatusCode::OK, Some(Value::Bool(false))) => Err(key_rejected(answered, url)),
        (StatusCode::OK, _) => Ok(()),
        (_, _) => Err(rejected(answered, url)),
    }
}

/// What an answer means that is not the one we hoped for.
pub(super) fn rejected(answered: &Answered, url: String) -> StartError {
    match answered.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => key_rejected(answered, url),
        _ => StartError::Unexpected {
            url,
            said: said(answered.status, &complaint(answered)),
        },
    }
}

fn key_rejected(answered: &Answered, url: String) -> StartError {
    let complaint = complaint(answered);
    let said = said(answered.status, &complaint);
    StartError::KeyRejected {
        url,
        said: format!("{said}: {}", why_rejected(&complaint)),
    }
}

pub(super) fn unreadable(why: &str) -> PolicyError {
    unjudgeable(&format!("cannot be read ({why})"))
}

fn unjudgeable(what: &str) -> PolicyError {
    PolicyError::Unjudgeable(Reason::from_peer(&format!(
        "the answer of OpenBox Core {what}"
    )))
}
