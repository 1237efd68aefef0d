//! How an admitted operation ended.

use super::capture::Capture;
use super::headers::Headers;
use super::timestamp::Timestamp;

/// The report made at the `completed` stage. Exactly one per permit.
#[derive(Clone, Debug)]
pub struct Completion {
    /// When the outcome was known.
    pub ended_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What the upstream said, if it said anything.
    pub answer: Option<Answer>,
    /// What went wrong, in words; absent for an answer of the upstream, even an
    /// error status.
    pub error: Option<Box<str>>,
}

/// How an admitted operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered, whatever it said.
    Answered,
    /// The upstream could not be reached, broke off, or took too long.
    Failed,
    /// The agent went away, or the permit was dropped, before the end.
    Abandoned,
}

impl Outcome {
    /// The word of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// What an upstream answered, one variant a protocol.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An HTTP response.
    Http(HttpAnswer),
}

/// An HTTP response as policy sees it; secret header values are redacted.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Redacted response header fields.
    pub headers: Headers,
    /// What was seen of the response body.
    pub body: Capture,
}
