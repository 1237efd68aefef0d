//! Lifecycle events: what only the agent knows.

use std::fmt;
use std::sync::Arc;

use super::context::Context;
use super::id::OperationId;
use super::timestamp::Timestamp;

/// A JSON value as text. Whoever makes one has parsed it; this layer only
/// carries it, so that the domain knows no JSON library.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(pub Arc<str>);

impl JsonText {
    /// An empty JSON array.
    pub fn empty_array() -> Self {
        Self("[]".into())
    }
}

impl fmt::Debug for JsonText {
    /// Payloads are the agent's own data: their length is all a log may see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({} bytes)", self.0.len())
    }
}

/// One lifecycle event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Unique, and the `event id` that people and agents are shown.
    pub id: OperationId,
    /// What happened.
    pub kind: EventKind,
    /// To which run and activity.
    pub context: Arc<Context>,
    /// When the agent said so.
    pub at: Timestamp,
    /// Further fields of the wire contract (`workflow_output`, `signal_args`,
    /// `error`, …) in wire order.
    pub fields: Vec<(&'static str, JsonText)>,
}

/// The lifecycle events of the wire contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A run begins.
    WorkflowStarted,
    /// A run ended well.
    WorkflowCompleted,
    /// A run ended badly.
    WorkflowFailed,
    /// A run was told something.
    SignalReceived,
    /// An activity begins.
    ActivityStarted,
    /// An activity ended, well or badly.
    ActivityCompleted,
    /// One agent hands over to another. It is about agents, not about a run.
    Handoff,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::WorkflowStarted,
        Self::WorkflowCompleted,
        Self::WorkflowFailed,
        Self::SignalReceived,
        Self::ActivityStarted,
        Self::ActivityCompleted,
        Self::Handoff,
    ];

    /// The word of the wire contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorkflowStarted => "WorkflowStarted",
            Self::WorkflowCompleted => "WorkflowCompleted",
            Self::WorkflowFailed => "WorkflowFailed",
            Self::SignalReceived => "SignalReceived",
            Self::ActivityStarted => "ActivityStarted",
            Self::ActivityCompleted => "ActivityCompleted",
            Self::Handoff => "Handoff",
        }
    }

    /// Whether it is about one activity of its run.
    pub fn is_of_activity(self) -> bool {
        match self {
            Self::ActivityStarted | Self::ActivityCompleted => true,
            Self::WorkflowStarted
            | Self::WorkflowCompleted
            | Self::WorkflowFailed
            | Self::SignalReceived
            | Self::Handoff => false,
        }
    }
}
