//! Whose operation it is: workflow, run, activity, and how we know.

use std::sync::Arc;

use super::event::JsonText;

/// The run an operation or event belongs to, in the words of the wire contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// `workflow_id`.
    pub workflow_id: Arc<str>,
    /// `run_id`.
    pub run_id: Arc<str>,
    /// `workflow_type`.
    pub workflow_type: Arc<str>,
    /// `task_queue`.
    pub task_queue: Arc<str>,
    /// The activity, for what happens inside one.
    pub activity: Option<ActivityRef>,
}

/// An activity as the agent named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityRef {
    /// `activity_id`.
    pub id: Arc<str>,
    /// `activity_type`.
    pub kind: Arc<str>,
    /// `attempt`, from 1.
    pub attempt: u32,
    /// `activity_input`: always a JSON array.
    pub input: JsonText,
}

/// Which evidence named the context; first match wins, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribution {
    /// `X-OpenBox-*` headers.
    Headers,
    /// `traceparent` or `baggage`, mapped through a registered context.
    Trace,
    /// The user name of proxy credentials.
    ProxyCredentials,
    /// A hint inside a database protocol.
    DatabaseHint,
    /// The process that a connection comes from, or one that started it.
    Process,
    /// The only open activity of the only open run.
    OnlyActivity,
    /// None: the sidecar's own session.
    OwnSession,
}

impl Attribution {
    /// All rules, in order of precedence.
    pub const ALL: [Self; 7] = [
        Self::Headers,
        Self::Trace,
        Self::ProxyCredentials,
        Self::DatabaseHint,
        Self::Process,
        Self::OnlyActivity,
        Self::OwnSession,
    ];

    /// The word of the journal and of metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Trace => "trace",
            Self::ProxyCredentials => "proxy_credentials",
            Self::DatabaseHint => "database_hint",
            Self::Process => "process",
            Self::OnlyActivity => "only_activity",
            Self::OwnSession => "own_session",
        }
    }
}
