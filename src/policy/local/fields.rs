//! The one table of what policy may read about an operation.
//!
//! Both the input document and the key of the verdict memory are made from
//! it, so a policy cannot read a value that the key leaves out.

use std::borrow::Cow;

use crate::domain::{
    Action, Answer, Capture, Completion, Context, DatabaseCall, FileAnswer, FileCall, FunctionCall,
    HttpAnswer, HttpCall, JsonText, Operation, Outcome, Stage, Timestamp,
};
use crate::policy::Question;

use super::classify::{Signs, semantic_type};
use super::input::Facts;

/// Where in the input document a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `input.<key>`.
    Top,
    /// `input.spans[0].<key>`.
    Span,
    /// `input.spans[0].attributes[<key>]`.
    Attribute,
    /// `input.spans[0].status.<key>`.
    Status,
}

/// A fact about an operation. Several keys may show the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    ActivityId,
    ActivityInput,
    ActivityOutput,
    ActivityType,
    AgentId,
    Attempt,
    DurationNs,
    EndTime,
    Error,
    EventType,
    Host,
    HookTrigger,
    HookType,
    McpMethod,
    Method,
    Path,
    Port,
    RequestBody,
    RequestBodyState,
    RequestTrailers,
    ResponseBody,
    ResponseBodyState,
    ResponseTrailers,
    RiskTier,
    RunId,
    Scheme,
    SemanticType,
    Source,
    SpanCount,
    SpanId,
    SpanName,
    Stage,
    StartTime,
    StatusCode,
    StatusWord,
    TaskQueue,
    Timestamp,
    Told(Told),
    ToolName,
    TraceId,
    Url,
    WorkflowId,
    WorkflowType,
}

/// A fact that only databases, files and functions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Arguments,
    BytesRead,
    BytesWritten,
    DatabaseHost,
    DatabaseName,
    DatabaseOperation,
    DatabasePort,
    DatabaseReading,
    DatabaseSystem,
    DatabaseUser,
    FileMode,
    FileOperation,
    FilePath,
    Function,
    Lines,
    Module,
    Returned,
    Rows,
    Statement,
    StatementState,
}

/// Every key of an operation's input document, except the header objects.
pub(super) const FIELDS: [(Place, &str, Field); 76] = [
    (Place::Top, "activity_id", Field::ActivityId),
    (Place::Top, "activity_input", Field::ActivityInput),
    (Place::Top, "activity_output", Field::ActivityOutput),
    (Place::Top, "activity_type", Field::ActivityType),
    (Place::Top, "agent_id", Field::AgentId),
    (Place::Top, "attempt", Field::Attempt),
    (Place::Top, "event_type", Field::EventType),
    (Place::Top, "hook_trigger", Field::HookTrigger),
    (Place::Top, "risk_tier", Field::RiskTier),
    (Place::Top, "run_id", Field::RunId),
    (Place::Top, "source", Field::Source),
    (Place::Top, "span_count", Field::SpanCount),
    (Place::Top, "task_queue", Field::TaskQueue),
    (Place::Top, "timestamp", Field::Timestamp),
    (Place::Top, "workflow_id", Field::WorkflowId),
    (Place::Top, "workflow_type", Field::WorkflowType),
    (Place::Span, "args", Field::Told(Told::Arguments)),
    (Place::Span, "bytes_read", Field::Told(Told::BytesRead)),
    (
        Place::Span,
        "bytes_written",
        Field::Told(Told::BytesWritten),
    ),
    (Place::Span, "db_name", Field::Told(Told::DatabaseName)),
    (
        Place::Span,
        "db_operation",
        Field::Told(Told::DatabaseOperation),
    ),
    (
        Place::Span,
        "db_reading",
        Field::Told(Told::DatabaseReading),
    ),
    (Place::Span, "db_statement", Field::Told(Told::Statement)),
    (
        Place::Span,
        "db_statement_state",
        Field::Told(Told::StatementState),
    ),
    (Place::Span, "db_system", Field::Told(Told::DatabaseSystem)),
    (Place::Span, "db_user", Field::Told(Told::DatabaseUser)),
    (Place::Span, "duration_ns", Field::DurationNs),
    (Place::Span, "end_time", Field::EndTime),
    (Place::Span, "error", Field::Error),
    (Place::Span, "file_mode", Field::Told(Told::FileMode)),
    (
        Place::Span,
        "file_operation",
        Field::Told(Told::FileOperation),
    ),
    (Place::Span, "file_path", Field::Told(Told::FilePath)),
    (Place::Span, "function", Field::Told(Told::Function)),
    (Place::Span, "hook_type", Field::HookType),
    (Place::Span, "http_method", Field::Method),
    (Place::Span, "http_status_code", Field::StatusCode),
    (Place::Span, "http_url", Field::Url),
    (Place::Span, "lines_count", Field::Told(Told::Lines)),
    (Place::Span, "module", Field::Told(Told::Module)),
    (Place::Span, "name", Field::SpanName),
    (Place::Span, "request_body", Field::RequestBody),
    (Place::Span, "request_body_state", Field::RequestBodyState),
    (Place::Span, "response_body", Field::ResponseBody),
    (Place::Span, "response_body_state", Field::ResponseBodyState),
    (Place::Span, "result", Field::Told(Told::Returned)),
    (Place::Span, "rowcount", Field::Told(Told::Rows)),
    (Place::Span, "semantic_type", Field::SemanticType),
    (
        Place::Span,
        "server_address",
        Field::Told(Told::DatabaseHost),
    ),
    (Place::Span, "server_port", Field::Told(Told::DatabasePort)),
    (Place::Span, "span_id", Field::SpanId),
    (Place::Span, "stage", Field::Stage),
    (Place::Span, "start_time", Field::StartTime),
    (Place::Span, "trace_id", Field::TraceId),
    (Place::Attribute, "db.name", Field::Told(Told::DatabaseName)),
    (
        Place::Attribute,
        "db.operation",
        Field::Told(Told::DatabaseOperation),
    ),
    (
        Place::Attribute,
        "db.statement",
        Field::Told(Told::Statement),
    ),
    (
        Place::Attribute,
        "db.system",
        Field::Told(Told::DatabaseSystem),
    ),
    (Place::Attribute, "db.user", Field::Told(Told::DatabaseUser)),
    (Place::Attribute, "file.mode", Field::Told(Told::FileMode)),
    (Place::Attribute, "file.path", Field::Told(Told::FilePath)),
    (Place::Attribute, "gen_ai.tool.name", Field::ToolName),
    (Place::Attribute, "http.method", Field::Method),
    (Place::Attribute, "http.request.method", Field::Method),
    (
        Place::Attribute,
        "http.request.trailers",
        Field::RequestTrailers,
    ),
    (
        Place::Attribute,
        "http.response.status_code",
        Field::StatusCode,
    ),
    (
        Place::Attribute,
        "http.response.trailers",
        Field::ResponseTrailers,
    ),
    (Place::Attribute, "http.status_code", Field::StatusCode),
    (Place::Attribute, "http.url", Field::Url),
    (Place::Attribute, "mcp.method", Field::McpMethod),
    (Place::Attribute, "server.address", Field::Host),
    (Place::Attribute, "server.port", Field::Port),
    (Place::Attribute, "url.full", Field::Url),
    (Place::Attribute, "url.path", Field::Path),
    (Place::Attribute, "url.scheme", Field::Scheme),
    (Place::Status, "code", Field::StatusWord),
    (Place::Status, "description", Field::Error),
];

/// The header objects of a span; their keys are lower-case header names.
pub(super) const REQUEST_HEADERS: &str = "request_headers";
/// See [`REQUEST_HEADERS`].
pub(super) const RESPONSE_HEADERS: &str = "response_headers";

/// `source` of every event: the SDKs' own constant, so that policies written
/// against them read the same.
pub(super) const SOURCE: &str = "workflow-telemetry";

/// A value before it is a document's or a key's.
#[derive(Debug, PartialEq)]
pub(super) enum Raw<'a> {
    /// The key is not there.
    Absent,
    /// The key is there, and null.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(u64),
    /// Text.
    Text(&'a str),
    /// Text made for the occasion.
    Made(String),
    /// JSON text.
    Json(&'a JsonText),
}

/// An operation at one of its stages, with what the sidecar itself knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The operation.
    pub(super) operation: &'a Operation,
    /// Its outcome; absent at `started`.
    pub(super) completion: Option<&'a Completion>,
    /// What the configuration says about the agent.
    pub(super) facts: &'a Facts,
}

impl<'a> Subject<'a> {
    /// The operation a question is about; `None` for events.
    pub(super) fn of(question: Question<'a>, facts: &'a Facts) -> Option<Self> {
        let (operation, completion) = match question {
            Question::Started(operation) => (operation, None),
            Question::Completed(operation, completion) => (operation, Some(completion)),
            Question::Event(_) => return None,
        };
        Some(Self {
            operation,
            completion,
            facts,
        })
    }

    /// Which stage it is.
    pub(super) fn stage(&self) -> Stage {
        match self.completion {
            None => Stage::Started,
            Some(_) => Stage::Completed,
        }
    }

    /// The HTTP request, if it is one.
    pub(super) fn call(&self) -> Option<&'a HttpCall> {
        match &self.operation.action {
            Action::Http(call) => Some(call),
            Action::Database(_) | Action::File(_) | Action::Function(_) => None,
        }
    }

    /// The HTTP response, at `completed`, when there was one.
    pub(super) fn answer(&self) -> Option<&'a HttpAnswer> {
        self.answered()?.http()
    }

    /// What came back, at `completed`, when something did.
    pub(super) fn answered(&self) -> Option<&'a Answer> {
        self.completion?.answer.as_ref()
    }

    fn database(&self) -> Option<&'a DatabaseCall> {
        match &self.operation.action {
            Action::Database(call) => Some(call),
            Action::Http(_) | Action::File(_) | Action::Function(_) => None,
        }
    }

    /// What the sidecar has read of its statement.
    pub(super) fn reading(&self) -> Option<&'a JsonText> {
        self.database()?.reading.as_ref()
    }

    fn file(&self) -> Option<&'a FileCall> {
        match &self.operation.action {
            Action::File(call) => Some(call),
            Action::Http(_) | Action::Database(_) | Action::Function(_) => None,
        }
    }

    fn function(&self) -> Option<&'a FunctionCall> {
        match &self.operation.action {
            Action::Function(call) => Some(call),
            Action::Http(_) | Action::Database(_) | Action::File(_) => None,
        }
    }

    fn file_answer(&self) -> Option<&'a FileAnswer> {
        match self.answered()? {
            Answer::File(answer) => Some(answer),
            Answer::Http(_) | Answer::Database(_) | Answer::Function(_) => None,
        }
    }

    fn rows(&self) -> Option<u64> {
        match self.answered()? {
            Answer::Database(answer) => answer.rows,
            Answer::Http(_) | Answer::File(_) | Answer::Function(_) => None,
        }
    }

    fn returned(&self) -> Option<&'a JsonText> {
        match self.answered()? {
            Answer::Function(answer) => answer.result.as_ref(),
            Answer::Http(_) | Answer::Database(_) | Answer::File(_) => None,
        }
    }

    /// The wire's word for the family.
    pub(super) fn hook_type(&self) -> &'static str {
        match &self.operation.action {
            Action::Http(_) => "http_request",
            Action::Database(_) => "db_query",
            Action::File(_) => "file_operation",
            Action::Function(_) => "function_call",
        }
    }

    fn span_name(&self) -> Cow<'a, str> {
        self.operation.span_name()
    }

    /// As Core computes it: from the family's own fields, and from what a hook
    /// said among its attributes.
    pub(super) fn semantic_type(&self) -> &'static str {
        let call = self.call();
        let reported = self.operation.reported.as_deref();
        let told: Option<serde_json::Value> =
            reported.and_then(|reported| serde_json::from_str(&reported.attributes.0).ok());
        let said = |name| told.as_ref()?.get(name)?.as_str();
        semantic_type(&Signs {
            name: &self.span_name(),
            mcp_method: self.mcp_method().or_else(|| said("mcp.method")),
            gen_ai_system: said("gen_ai.system"),
            http_method: call.map(|call| &*call.method),
            http_host: call.map(|call| &*call.host),
            db_system: self
                .database()
                .map(|call| &*call.system)
                .or_else(|| said("db.system")),
            file_path: self
                .file()
                .map(|call| &*call.path)
                .or_else(|| said("file.path")),
        })
    }

    /// The SDKs' word for a `tools/call`.
    fn mcp_method(&self) -> Option<&'static str> {
        let tool = self.call()?.tool.as_ref();
        tool.map(|_| "callTool")
    }

    fn context(&self) -> &'a Context {
        &self.operation.context
    }

    fn error(&self) -> Raw<'a> {
        let Some(completion) = self.completion else {
            return Raw::Absent;
        };
        match (&completion.error, completion.outcome) {
            (Some(error), _) => Raw::Text(error),
            (None, Outcome::Answered) => Raw::Absent,
            (None, Outcome::Failed | Outcome::Abandoned) => Raw::Text(completion.outcome.as_str()),
        }
    }

    fn host(&self) -> Raw<'a> {
        match (self.call(), self.database()) {
            (Some(call), _) => Raw::Text(&call.host),
            (None, Some(call)) => optional(call.server_address.as_deref()),
            (None, None) => Raw::Absent,
        }
    }

    fn port(&self) -> Raw<'a> {
        let port = match (self.call(), self.database()) {
            (Some(call), _) => Some(call.port),
            (None, Some(call)) => call.server_port,
            (None, None) => None,
        };
        port.map_or(Raw::Absent, |port| Raw::Int(u64::from(port)))
    }

    /// OpenTelemetry's word: an HTTP client span is an error from 400 on.
    fn status_word(&self) -> &'static str {
        let refused = self.answer().is_some_and(|answer| answer.status >= 400);
        if refused || self.error() != Raw::Absent {
            "ERROR"
        } else {
            "UNSET"
        }
    }

    /// An operation outside any activity is its own subject, named by what it
    /// does, or by itself where that is not known whole.
    fn activity_id(&self) -> Raw<'a> {
        match (&self.context().activity, self.operation.fingerprint) {
            (Some(activity), _) => Raw::Text(&activity.id),
            (None, Some(fingerprint)) => Raw::Made(fingerprint.to_string()),
            (None, None) => Raw::Made(self.operation.id.to_string()),
        }
    }
}

/// What `field` is for `subject`.
pub(super) fn read<'a>(field: Field, subject: &Subject<'a>) -> Raw<'a> {
    let context = subject.context();
    let call = subject.call();
    match field {
        Field::ActivityId => subject.activity_id(),
        Field::ActivityInput => context
            .activity
            .as_ref()
            .map_or(Raw::Absent, |activity| Raw::Json(&activity.input)),
        Field::ActivityOutput => Raw::Null,
        Field::ActivityType => context
            .activity
            .as_ref()
            .map_or(Raw::Text(subject.hook_type()), |activity| {
                Raw::Text(&activity.kind)
            }),
        Field::AgentId => optional(subject.facts.agent_id.as_deref()),
        Field::Attempt => Raw::Int(
            context
                .activity
                .as_ref()
                .map_or(1, |activity| u64::from(activity.attempt)),
        ),
        Field::DurationNs => subject.completion.map_or(Raw::Absent, |completion| {
            let took = completion.ended_at.since(subject.operation.started_at);
            Raw::Int(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
        }),
        // Core's own spans have 0 for a time that is not known yet.
        Field::EndTime => Raw::Int(subject.completion.map_or(0, |done| done.ended_at.0)),
        Field::Error => subject.error(),
        Field::EventType => Raw::Text("ActivityStarted"),
        Field::Host => subject.host(),
        Field::HookTrigger => Raw::Bool(true),
        Field::HookType => Raw::Text(subject.hook_type()),
        Field::Method => optional(call.map(|call| &*call.method)),
        Field::Path => optional(call.map(|call| &*call.path)),
        Field::Port => subject.port(),
        Field::RequestBody => call.map_or(Raw::Absent, |call| body(&call.body)),
        Field::RequestBodyState => optional(call.map(|call| call.body.state.as_str())),
        Field::RequestTrailers => trailers(call.map(|call| &call.body)),
        Field::ResponseTrailers => trailers(subject.answer().map(|answer| &answer.body)),
        Field::ResponseBody => subject.answer().map_or(Raw::Absent, |a| body(&a.body)),
        Field::ResponseBodyState => subject
            .answer()
            .map_or(Raw::Absent, |answer| Raw::Text(answer.body.state.as_str())),
        Field::RiskTier => subject
            .facts
            .risk_tier
            .map_or(Raw::Absent, |tier| Raw::Int(u64::from(tier))),
        Field::RunId => Raw::Text(&context.run_id),
        Field::Scheme => optional(call.map(|call| call.scheme)),
        Field::SemanticType => Raw::Text(subject.semantic_type()),
        Field::Source => Raw::Text(SOURCE),
        Field::SpanCount => Raw::Int(1),
        Field::SpanId => Raw::Made(subject.operation.span.to_string()),
        Field::Stage => Raw::Text(subject.stage().as_str()),
        Field::StartTime => Raw::Int(subject.operation.started_at.0),
        Field::StatusCode => subject
            .answer()
            .map_or(Raw::Absent, |answer| Raw::Int(u64::from(answer.status))),
        Field::StatusWord => Raw::Text(subject.status_word()),
        Field::TaskQueue => Raw::Text(&context.task_queue),
        Field::Timestamp => Raw::Made(rfc3339(
            subject
                .completion
                .map_or(subject.operation.started_at, |done| done.ended_at),
        )),
        Field::TraceId => Raw::Made(subject.operation.trace.to_string()),
        Field::Url => optional(call.map(|call| &*call.url)),
        Field::WorkflowId => Raw::Text(&context.workflow_id),
        Field::WorkflowType => Raw::Text(&context.workflow_type),
        Field::Told(told) => read_told(told, subject),
        Field::McpMethod => optional(subject.mcp_method()),
        Field::SpanName => match subject.span_name() {
            Cow::Borrowed(name) => Raw::Text(name),
            Cow::Owned(name) => Raw::Made(name),
        },
        Field::ToolName => {
            let tool = call.and_then(|call| call.tool.as_ref());
            optional(tool.and_then(|tool| tool.name.as_deref()))
        }
    }
}

fn read_told<'a>(told: Told, subject: &Subject<'a>) -> Raw<'a> {
    let database = subject.database();
    let file = subject.file();
    let function = subject.function();
    let number = |number: Option<u64>| number.map_or(Raw::Absent, Raw::Int);
    let json = |json: Option<&'a JsonText>| json.map_or(Raw::Absent, Raw::Json);
    let file_answer = subject.file_answer();
    match told {
        Told::Arguments => json(function.and_then(|call| call.arguments.as_ref())),
        Told::BytesRead => number(file_answer.and_then(|answer| answer.bytes_read)),
        Told::BytesWritten => number(file_answer.and_then(|answer| answer.bytes_written)),
        Told::DatabaseHost => optional(database.and_then(|call| call.server_address.as_deref())),
        Told::DatabaseName => optional(database.and_then(|call| call.name.as_deref())),
        Told::DatabaseOperation => optional(database.map(|call| &*call.operation)),
        Told::DatabasePort => number(database.and_then(|call| call.server_port.map(u64::from))),
        Told::DatabaseReading => json(subject.reading()),
        Told::DatabaseSystem => optional(database.map(|call| &*call.system)),
        Told::DatabaseUser => optional(database.and_then(|call| call.user.as_deref())),
        Told::FileMode => optional(file.and_then(|call| call.mode.as_deref())),
        Told::FileOperation => optional(file.map(|call| &*call.operation)),
        Told::FilePath => optional(file.map(|call| &*call.path)),
        Told::Function => optional(function.map(|call| &*call.function)),
        Told::Lines => number(file_answer.and_then(|answer| answer.lines)),
        Told::Module => optional(function.and_then(|call| call.module.as_deref())),
        Told::Returned => json(subject.returned()),
        Told::Rows => number(subject.rows()),
        Told::Statement => database.map_or(Raw::Absent, |call| body(&call.statement)),
        Told::StatementState => optional(database.map(|call| call.statement.state.as_str())),
    }
}

fn optional(text: Option<&str>) -> Raw<'_> {
    text.map_or(Raw::Absent, Raw::Text)
}

fn body(capture: &Capture) -> Raw<'_> {
    optional(capture.text.as_deref())
}

fn trailers(body: Option<&Capture>) -> Raw<'_> {
    let trailers = body.and_then(|body| body.trailers.as_ref());
    optional(trailers.map(|trailers| &*trailers.text))
}

/// Milliseconds and a trailing `Z`, as every SDK writes it.
pub(super) fn rfc3339(at: Timestamp) -> String {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
        .ok()
        .and_then(|at| at.format(FORM).ok())
        .unwrap_or_default()
}

/// Whether a verdict may be remembered under a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyed {
    /// The same for every operation of one policy generation: nothing to key.
    Never,
    /// Its value is part of the key.
    Always,
    /// New with every operation: remembering would only fill the memory.
    Useless,
}

impl Field {
    /// How the verdict memory treats this field.
    pub(super) fn keyed(self) -> Keyed {
        match self {
            Self::ActivityOutput
            | Self::AgentId
            | Self::EventType
            | Self::HookTrigger
            | Self::RiskTier
            | Self::Source
            | Self::SpanCount
            // The stage is the first byte of every key.
            | Self::Stage => Keyed::Never,
            Self::ActivityId
            | Self::ActivityInput
            | Self::ActivityType
            | Self::Attempt
            | Self::Error
            | Self::HookType
            | Self::Host
            | Self::McpMethod
            | Self::Method
            | Self::Path
            | Self::Port
            | Self::RequestBody
            | Self::RequestBodyState
            | Self::RequestTrailers
            | Self::ResponseBody
            | Self::ResponseBodyState
            | Self::ResponseTrailers
            | Self::RunId
            | Self::Scheme
            | Self::SemanticType
            | Self::SpanName
            | Self::StatusCode
            | Self::StatusWord
            | Self::TaskQueue
            | Self::Told(_)
            | Self::ToolName
            | Self::Url
            | Self::WorkflowId
            | Self::WorkflowType => Keyed::Always,
            Self::DurationNs
            | Self::EndTime
            | Self::SpanId
            | Self::StartTime
            | Self::Timestamp
            | Self::TraceId => Keyed::Useless,
        }
    }
}
