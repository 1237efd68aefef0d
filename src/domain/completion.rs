//! How an admitted operation ended.

use super::capture::Capture;
use super::event::JsonText;
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

/// What came back, one variant a family of the wire contract.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An HTTP response.
    Http(HttpAnswer),
    /// What a database made of a statement.
    Database(DatabaseAnswer),
    /// What became of a file.
    File(FileAnswer),
    /// What a function returned.
    Function(FunctionAnswer),
}

impl Answer {
    /// The HTTP response, if it is one.
    pub fn http(&self) -> Option<&HttpAnswer> {
        match self {
            Self::Http(answer) => Some(answer),
            Self::Database(_) | Self::File(_) | Self::Function(_) => None,
        }
    }
}

/// What a database made of a statement. An error is the completion's.
#[derive(Clone, Debug, Default)]
pub struct DatabaseAnswer {
    /// Rows returned or affected, when the database said so.
    pub rows: Option<u64>,
}

/// What became of a file. Contents are never kept.
#[derive(Clone, Debug, Default)]
pub struct FileAnswer {
    /// Bytes read; on closing, in all.
    pub bytes_read: Option<u64>,
    /// Bytes written; on closing, in all.
    pub bytes_written: Option<u64>,
    /// Lines read or written.
    pub lines: Option<u64>,
}

/// What a function returned.
#[derive(Clone, Debug, Default)]
pub struct FunctionAnswer {
    /// Its result, when the hook told it.
    pub result: Option<JsonText>,
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
