//! One thing an agent asks the outside world to do.

use std::borrow::Cow;
use std::sync::Arc;

use super::action::{Action, Reported};
use super::context::{Attribution, Context};
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
    /// HTTP and HTTPS.
    Http,
    /// PostgreSQL.
    Postgresql,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis and Valkey.
    Redis,
    /// Any other database, as a hook named it.
    Database,
    /// Files: told by a hook.
    File,
    /// Functions of the agent: told by a hook.
    Function,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Postgresql,
        Self::Mysql,
        Self::Redis,
        Self::Database,
        Self::File,
        Self::Function,
    ];

    /// The word of metric labels and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Database => "database",
            Self::File => "file",
            Self::Function => "function",
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
    /// What a hook said of its span; `None` for what the sidecar saw itself.
    pub reported: Option<Box<Reported>>,
}

impl Operation {
    /// What it is spoken in.
    pub fn protocol(&self) -> Protocol {
        match &self.action {
            Action::Http(_) => Protocol::Http,
            Action::Database(call) => match &*call.system {
                "postgresql" => Protocol::Postgresql,
                "mysql" | "mariadb" => Protocol::Mysql,
                "redis" => Protocol::Redis,
                _ => Protocol::Database,
            },
            Action::File(_) => Protocol::File,
            Action::Function(_) => Protocol::Function,
        }
    }

    /// One line for people: `POST https://api.example.com/v1/refunds`. Bounded
    /// for everything but URLs and paths, which their protocols bound.
    pub fn summary(&self) -> String {
        match &self.action {
            Action::Http(call) => format!("{} {}", call.method, call.url),
            Action::Database(call) => {
                let statement = call.statement.text.as_deref().unwrap_or(&call.operation);
                format!("{}: {}", call.system, beginning(statement))
            }
            Action::File(call) => format!("{} {}", call.operation, call.path),
            Action::Function(call) => match &call.module {
                Some(module) => format!("{module}.{}()", call.function),
                None => format!("{}()", call.function),
            },
        }
    }

    /// The name of its span, by which OpenBox Core classifies it: the method,
    /// `db SELECT`, `file.read`, `function charge`; a hook's own name for what
    /// a hook told.
    pub fn span_name(&self) -> Cow<'_, str> {
        match (&self.reported, &self.action) {
            (Some(reported), _) => Cow::Borrowed(&reported.name),
            (None, Action::Http(call)) => Cow::Borrowed(&call.method),
            // The SDKs name a command of Redis by itself.
            (None, Action::Database(call)) if &*call.system == "redis" => {
                Cow::Borrowed(&call.operation)
            }
            (None, Action::Database(call)) => Cow::Owned(format!("db {}", call.operation)),
            (None, Action::File(call)) => Cow::Owned(format!("file.{}", call.operation)),
            (None, Action::Function(call)) => Cow::Owned(format!("function {}", call.function)),
        }
    }
}

/// Characters of a statement that a summary shows.
const SUMMARY_CHARS_MAX: usize = 200;

fn beginning(statement: &str) -> Cow<'_, str> {
    match statement.char_indices().nth(SUMMARY_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", statement.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(statement),
    }
}
