//! The one table of what policy may read about an operation.
//!
//! Both the input document and the key of the verdict memory are made from
//! it, so a policy cannot read a value that the key leaves out.

use crate::domain::{
    Action, Answer, Capture, Completion, Context, HttpAnswer, HttpCall, JsonText, Operation,
    Outcome, Stage, Timestamp,
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
    Method,
    Path,
    Port,
    RequestBody,
    RequestBodyState,
    ResponseBody,
    ResponseBodyState,
    RiskTier,
    RunId,
    Scheme,
    SemanticType,
    Source,
    SpanCount,
    SpanId,
    Stage,
    StartTime,
    StatusCode,
    StatusWord,
    TaskQueue,
    Timestamp,
    TraceId,
    Url,
    WorkflowId,
    WorkflowType,
}

/// Every key of an operation's input document, except the header objects.
pub(super) const FIELDS: [(Place, &str, Field); 45] = [
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
    (Place::Span, "duration_ns", Field::DurationNs),
    (Place::Span, "end_time", Field::EndTime),
    (Place::Span, "error", Field::Error),
    (Place::Span, "hook_type", Field::HookType),
    (Place::Span, "http_method", Field::Method),
    (Place::Span, "http_status_code", Field::StatusCode),
    (Place::Span, "http_url", Field::Url),
    (Place::Span, "name", Field::Method),
    (Place::Span, "request_body", Field::RequestBody),
    (Place::Span, "request_body_state", Field::RequestBodyState),
    (Place::Span, "response_body", Field::ResponseBody),
    (Place::Span, "response_body_state", Field::ResponseBodyState),
    (Place::Span, "semantic_type", Field::SemanticType),
    (Place::Span, "span_id", Field::SpanId),
    (Place::Span, "stage", Field::Stage),
    (Place::Span, "start_time", Field::StartTime),
    (Place::Span, "trace_id", Field::TraceId),
    (Place::Attribute, "http.method", Field::Method),
    (Place::Attribute, "http.request.method", Field::Method),
    (
        Place::Attribute,
        "http.response.status_code",
        Field::StatusCode,
    ),
    (Place::Attribute, "http.status_code", Field::StatusCode),
    (Place::Attribute, "http.url", Field::Url),
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

    /// The HTTP request.
    pub(super) fn call(&self) -> &'a HttpCall {
        match &self.operation.action {
            Action::Http(call) => call,
        }
    }

    /// The HTTP response, at `completed`, when there was one.
    pub(super) fn answer(&self) -> Option<&'a HttpAnswer> {
        self.completion?.answer.as_ref().map(|answer| match answer {
            Answer::Http(answer) => answer,
        })
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
            .map_or(Raw::Text("http_request"), |activity| {
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
        Field::Host => Raw::Text(&call.host),
        Field::HookTrigger => Raw::Bool(true),
        Field::HookType => Raw::Text("http_request"),
        Field::Method => Raw::Text(&call.method),
        Field::Path => Raw::Text(&call.path),
        Field::Port => Raw::Int(u64::from(call.port)),
        Field::RequestBody => body(&call.body),
        Field::RequestBodyState => Raw::Text(call.body.state.as_str()),
        Field::ResponseBody => subject.answer().map_or(Raw::Absent, |a| body(&a.body)),
        Field::ResponseBodyState => subject
            .answer()
            .map_or(Raw::Absent, |answer| Raw::Text(answer.body.state.as_str())),
        Field::RiskTier => subject
            .facts
            .risk_tier
            .map_or(Raw::Absent, |tier| Raw::Int(u64::from(tier))),
        Field::RunId => Raw::Text(&context.run_id),
        Field::Scheme => Raw::Text(call.scheme),
        Field::SemanticType => Raw::Text(semantic_type(&Signs {
            name: &call.method,
            http_method: Some(&call.method),
            http_host: Some(&call.host),
            ..Signs::default()
        })),
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
        Field::Url => Raw::Text(&call.url),
        Field::WorkflowId => Raw::Text(&context.workflow_id),
        Field::WorkflowType => Raw::Text(&context.workflow_type),
    }
}

fn optional(text: Option<&str>) -> Raw<'_> {
    text.map_or(Raw::Absent, Raw::Text)
}

fn body(capture: &Capture) -> Raw<'_> {
    optional(capture.text.as_deref())
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
            | Self::HookType
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
            | Self::Host
            | Self::Method
            | Self::Path
            | Self::Port
            | Self::RequestBody
            | Self::RequestBodyState
            | Self::ResponseBody
            | Self::ResponseBodyState
            | Self::RunId
            | Self::Scheme
            | Self::SemanticType
            | Self::StatusCode
            | Self::StatusWord
            | Self::TaskQueue
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
