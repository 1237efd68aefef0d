//! One thing an agent asks the outside world to do.

use std::sync::Arc;

use super::capture::Capture;
use super::context::{Attribution, Context};
use super::headers::Headers;
use super::id::{Fingerprint, OperationId, SpanId, TraceId};
use super::timestamp::Timestamp;

/// Before an operation leaves, and with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Nothing has left yet.
    Started,
    /// The outcome is known.
    Completed,
}

impl Stage {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Started, Self::Completed];

    /// The word of the wire contract, metric labels and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
        }
    }
}

/// What an operation is spoken in. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP and HTTPS, by forward proxy.
    Http,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Http];

    /// The word of metric labels and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
        }
    }
}

/// A protocol-neutral envelope around one [`Action`]. Plain data: public
/// fields, no invariants between them.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Unique, and the `event id` that people and agents are shown.
    pub id: OperationId,
    /// The trace it belongs to: the agent's own, if it sent one.
    pub trace: TraceId,
    /// Its span; both stages share it.
    pub span: SpanId,
    /// The agent's span around it, if it sent one.
    pub parent: Option<SpanId>,
    /// When the agent asked.
    pub started_at: Timestamp,
    /// Whose it is.
    pub context: Arc<Context>,
    /// How we know.
    pub attribution: Attribution,
    /// What makes a retry the same operation; `None` when its body was not
    /// read whole, and then nothing about it may be remembered.
    pub fingerprint: Option<Fingerprint>,
    /// What it does.
    pub action: Action,
}

impl Operation {
    /// What it is spoken in.
    pub fn protocol(&self) -> Protocol {
        match &self.action {
            Action::Http(_) => Protocol::Http,
        }
    }

    /// One line for people: `POST https://api.example.com/v1/refunds`.
    pub fn summary(&self) -> String {
        match &self.action {
            Action::Http(call) => format!("{} {}", call.method, call.url),
        }
    }
}

/// What an operation does, one variant a protocol.
#[derive(Clone, Debug)]
pub enum Action {
    /// An HTTP request.
    Http(HttpCall),
}

/// An HTTP request as policy sees it. Userinfo never reaches it, and secret
/// header values are redacted before they are stored here.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// The method, as sent.
    pub method: Box<str>,
    /// Absolute URL, without userinfo and fragment.
    pub url: Box<str>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host of the pinned authority: lower case, no brackets around IPv6.
    pub host: Box<str>,
    /// Port of the pinned authority.
    pub port: u16,
    /// Path without the query.
    pub path: Box<str>,
    /// Redacted request header fields.
    pub headers: Headers,
    /// What was seen of the request body before asking.
    pub body: Capture,
}
