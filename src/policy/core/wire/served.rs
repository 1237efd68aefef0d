//! What Core answers an SDK, in Core's words.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{JsonText, Timestamp, Verdict};
use crate::policy::{Ruling, Side};

use super::super::time;

/// The answer to an event.
#[derive(Debug, Serialize)]
pub struct Evaluated<'a> {
    /// The id to quote.
    pub governance_event_id: &'a str,
    /// The verdict.
    #[serde(serialize_with = "word")]
    pub verdict: Verdict,
    /// The older name of the same word.
    #[serde(serialize_with = "word")]
    pub action: Verdict,
    /// Not known here.
    pub risk_score: f64,
    /// Not known here.
    pub trust_tier: Option<u8>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<&'a str>,
    /// The behaviour rules it violates.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub behavioral_violations: &'a [Box<str>],
    /// What CONSTRAIN asks for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub constraints: &'a [Box<str>],
    /// The approval that was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<&'a str>,
    /// When that expires.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "written_if_any"
    )]
    pub approval_expiration_time: Option<Timestamp>,
    /// Whether the fail mode decided.
    pub fallback_used: bool,
    /// What guardrails made of the input or output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrails_result: Option<Guarded<'a>>,
    /// What may be sent instead of what was blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<&'a RawValue>,
    /// How Core rated the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_result: Option<&'a RawValue>,
}

/// JSON that a service sent, as it sent it.
pub fn raw(json: Option<&JsonText>) -> Option<&RawValue> {
    serde_json::from_str(&json?.0).ok()
}

/// What guardrails found in an input or output, and put in its place.
#[derive(Debug, Serialize)]
pub struct Guarded<'a> {
    input_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_input: Option<&'a RawValue>,
    validation_passed: bool,
    reasons: Vec<Found<'a>>,
    results: [(); 0],
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    r#type: &'a str,
    field: &'a str,
    reason: &'a str,
}

impl<'a> Guarded<'a> {
    /// What `ruling` says about the `side` of an activity; `None` where no
    /// guardrail looked and nothing was replaced.
    pub fn new(side: Side, ruling: &'a Ruling) -> Option<Self> {
        let guardrails = ruling.guardrails.as_deref();
        let redacted = ruling.redacted.as_ref();
        if guardrails.is_none() && redacted.is_none() {
            return None;
        }
        let findings = guardrails.map_or(&[][..], |guardrails| &guardrails.findings);
        Some(Self {
            input_type: match side {
                Side::Input => "activity_input",
                Side::Output => "activity_output",
            },
            redacted_input: raw(redacted),
            validation_passed: guardrails.is_none_or(|guardrails| guardrails.passed),
            reasons: findings
                .iter()
                .map(|finding| Found {
                    r#type: &finding.kind,
                    field: &finding.field,
                    reason: &finding.reason,
                })
                .collect(),
            results: [],
        })
    }
}

/// The answer to a poll.
#[derive(Debug, Serialize)]
pub struct PolledAnswer<'a> {
    /// The approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// `require_approval` while it is pending, `allow` once it is granted: SDKs
    /// take any other word, or none, for a grant.
    #[serde(serialize_with = "word")]
    pub action: Verdict,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// When it expires, or expired; absent once it is decided, for SDKs believe
    /// a time in the past before they believe a grant.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "written_if_any"
    )]
    pub approval_expiration_time: Option<Timestamp>,
    /// Whether nobody decided in time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// The answer to a handoff.
#[derive(Debug, Serialize)]
pub struct Handed<'a> {
    /// Always `ok`: a handoff that is not is answered with an error.
    pub status: &'static str,
    /// The session that hands over.
    pub session_id: &'a str,
    /// The session that both agents share from now on.
    pub multi_agent_session_id: String,
}

/// The answer to a key.
#[derive(Debug, Serialize)]
pub struct Validated<'a> {
    /// Always so: a key that is not is answered 401.
    pub valid: bool,
    /// Always so.
    pub active: bool,
    /// The agent.
    pub agent_id: &'a str,
    /// The agent's name.
    pub agent_name: &'a str,
    /// `live` or `test`, from the key.
    pub environment: &'static str,
    /// For people.
    pub message: &'static str,
}

/// Why there is no answer.
#[derive(Debug, Serialize)]
pub struct Complained<'a> {
    /// The HTTP status.
    pub code: u16,
    /// For people.
    pub message: &'a str,
    /// For programs.
    pub reason_code: &'a str,
}

/// Of the key that an SDK shows, the environment it is for.
pub fn environment_of(key: &str) -> &'static str {
    let is = |prefix| key.starts_with(prefix);
    match (is("obx_live_"), is("obx_test_")) {
        (true, _) => "live",
        (_, true) => "test",
        (false, false) => "unknown",
    }
}

fn word<S: serde::Serializer>(verdict: &Verdict, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(verdict.as_str())
}

fn written_if_any<S: serde::Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => to.serialize_str(&time::written(*at)),
        None => to.serialize_none(),
    }
}
