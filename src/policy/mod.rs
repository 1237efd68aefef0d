//! Who decides: the policy service as the gate sees it.
//!
//! One dynamic boundary, so nothing above it is generic over how policy is
//! reached. A backend answers with a [`Ruling`] or says why it cannot; it never
//! invents a verdict, and it never applies the fail mode (the gate does).

pub mod core;
pub mod local;
pub mod redaction;
#[cfg(any(test, feature = "testing"))]
pub mod scripted;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::domain::{
    ApprovalId, Completion, Context, Event, JsonText, Operation, OperationId, Reason, Timestamp,
    Verdict,
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// May this operation leave?
    Started(&'a Operation),
    /// It happened like this; may its outcome stand?
    Completed(&'a Operation, &'a Completion),
    /// This happened inside the agent.
    Event(&'a Event),
}

/// A future that a backend answers with.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An answer, at one of two speeds. A local policy answers on the calling
/// thread; boxing a future for it would cost more than many of its answers.
pub enum Judging<'a> {
    /// Answered already.
    Now(Result<Arc<Ruling>, PolicyError>),
    /// A round trip away. Nobody is asked before it is polled, and dropping it
    /// abandons the question.
    Later(Later<'a, Result<Arc<Ruling>, PolicyError>>),
}

impl fmt::Debug for Judging<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Self::Later(_) => f.write_str("Later(..)"),
        }
    }
}

/// A verdict and what came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ruling {
    /// The answer.
    pub verdict: Verdict,
    /// Why, in words fit to show the agent.
    pub reason: Option<Reason>,
    /// The policy that decided: an id of Core, or the local package.
    pub policy: Option<Arc<str>>,
    /// The behaviour rules it violates, by name (`behavioral_violations`).
    pub violations: Vec<Box<str>>,
    /// The policy service's own id of this evaluation.
    pub event_id: Option<Arc<str>>,
    /// What CONSTRAIN asks for, in the service's words (`read_only`, `run_in_sandbox`, …).
    pub constraints: Vec<Box<str>>,
    /// The approval REQUIRE_APPROVAL opened, when the service opened one.
    pub approval: Option<Approval>,
    /// A replacement for the judged input, when guardrails redacted it; for an
    /// operation, see [`redaction`].
    pub redacted: Option<JsonText>,
    /// What guardrails found, where any looked.
    pub guardrails: Option<Arc<Guardrails>>,
    /// With BLOCK: what the agent may send instead, as `{"new_input": …}`.
    pub patch: Option<JsonText>,
    /// How the service rated the agent, as it said it (`age_result`). Passed
    /// on to SDKs; nothing here acts on it.
    pub age: Option<JsonText>,
    /// Which version of the policy answered; changes when a policy is reloaded.
    pub generation: u64,
}

impl Ruling {
    /// A bare verdict of policy generation `generation`.
    pub fn new(verdict: Verdict, generation: u64) -> Self {
        Self {
            verdict,
            reason: None,
            policy: None,
            violations: Vec::new(),
            event_id: None,
            constraints: Vec::new(),
            approval: None,
            redacted: None,
            guardrails: None,
            patch: None,
            age: None,
            generation,
        }
    }

    /// The reason, or a sentence that says there is none.
    pub fn reason_or_default(&self) -> Reason {
        self.reason
            .clone()
            .unwrap_or_else(|| Reason("no reason was given".into()))
    }
}

/// What guardrails made of an input or output. The replacement, if there is
/// one, is [`Ruling::redacted`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guardrails {
    /// What they looked at.
    pub side: Side,
    /// Whether it may stand; `false` goes with BLOCK, below HALT and BLOCK of
    /// policy itself and above every other verdict.
    pub passed: bool,
    /// What they found, in order.
    pub findings: Vec<Finding>,
}

/// One thing a guardrail found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of guardrail: `pii`, `ban_words`, `regex`, …
    pub kind: Box<str>,
    /// Where, as a path of `input.…` or `output.…`.
    pub field: Box<str>,
    /// What, in words that do not repeat it.
    pub reason: Box<str>,
}

/// Which side of an activity guardrails look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What goes in.
    Input,
    /// What comes out.
    Output,
}

/// An approval that the policy service opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Its id, when the service said one.
    pub id: Option<ApprovalId>,
    /// When it expires, when the service said so.
    pub expires_at: Option<Timestamp>,
}

/// Where an approval stands.
#[derive(Clone, Debug, PartialEq)]
pub enum ApprovalState {
    /// Still with a person. Core may tell a new expiry.
    Pending {
        /// When it expires, when the service said so.
        expires_at: Option<Timestamp>,
    },
    /// Go ahead, once.
    Granted,
    /// Do not.
    Rejected(Reason),
    /// Nobody decided in time.
    Expired,
}

/// What the policy service could not be told, as it is told later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Names it, the same however often it is told.
    pub key: Box<str>,
    /// What is sent.
    pub text: Box<str>,
}

/// A handoff to another agent, as its source sent it.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    /// Names it.
    pub id: OperationId,
    /// What was sent, byte by byte: it may be signed.
    pub text: &'a [u8],
    /// The headers that prove its source, if it came with a proof that holds.
    /// Shown where the sidecar has no identity of its own.
    pub proof: Option<&'a [(&'static str, Box<str>)]>,
}

/// What a handoff was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The HTTP status. It was taken if that is below 400.
    pub status: u16,
    /// A JSON object, in the service's words.
    pub text: Vec<u8>,
}

/// What becomes of a handoff.
pub enum HandingOver<'a> {
    /// Nobody but the sidecar keeps handoffs.
    Here,
    /// Whoever keeps them takes none without a proof of its source, and there
    /// is none to show.
    Unproven,
    /// The service is asked. Dropping it abandons the question.
    Later(Later<'a, Result<HandedOver, PolicyError>>),
}

impl fmt::Debug for HandingOver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "Here",
            Self::Unproven => "Unproven",
            Self::Later(_) => "Later(..)",
        })
    }
}

/// Who keeps approvals and lets people decide them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalsAt {
    /// The sidecar's operator API.
    Sidecar,
    /// The policy service; the sidecar polls it.
    Core,
}

/// Asks whoever decides.
pub trait PolicyBackend: Send + Sync + fmt::Debug {
    /// Judges one operation, outcome or event.
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a>;

    /// Who keeps approvals.
    fn approvals_at(&self) -> ApprovalsAt;

    /// Reads the approval of `context`'s workflow, run and activity. Asked only
    /// where [`Self::approvals_at`] is [`ApprovalsAt::Core`].
    fn approval<'a>(
        &'a self,
        context: &'a Context,
    ) -> Later<'a, Result<ApprovalState, PolicyError>>;

    /// The policy version that answers now; see [`Ruling::generation`].
    fn generation(&self) -> u64;

    /// Whether the policy of `generation` answers now, and is proved to answer the same
    /// operation, or the same outcome of one, the same every time: whatever it is called,
    /// whenever it is, and whatever happened before.
    fn is_steady(&self, _generation: u64) -> bool {
        false
    }

    /// What is kept of `question` to be told later, without bodies, when there
    /// was no answer; `None` where nobody needs to be told.
    fn untold(&self, _question: Question<'_>) -> Option<Untold> {
        None
    }

    /// Tells what was kept, and what policy says of it now, which is too late
    /// for it and not for what comes after it.
    /// [`PolicyError::Unjudgeable`] means that it was heard and will never be
    /// taken.
    fn tell<'a>(&'a self, _untold: &'a Untold) -> Later<'a, Result<Option<Ruling>, PolicyError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Passes a handoff on to whoever keeps them. Asked once: nobody can tell
    /// whether one without an answer was taken.
    fn hand_over<'a>(&'a self, _handoff: Handoff<'a>) -> HandingOver<'a> {
        HandingOver::Here
    }

    /// One line for banner and logs: who judges, and from where. No secrets.
    fn describe(&self) -> String;
}

/// Why there is no ruling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// No answer was given: unreachable, too slow, 429 or 5xx. The fail mode
    /// decides, and only here.
    Unavailable(Reason),
    /// An answer was given that is no verdict (unparsable, contradicting
    /// itself, an unknown word, any other 4xx), or local policy failed or took
    /// too long. Refused under either fail mode.
    Unjudgeable(Reason),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) => write!(f, "policy is unavailable: {reason}"),
            Self::Unjudgeable(reason) => write!(f, "policy cannot judge: {reason}"),
        }
    }
}

impl std::error::Error for PolicyError {}
