//! What an operation is told as: the fields of a span, in the names of the wire
//! contract, and what is filled in that an SDK would have said.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::{SpanId, Stage, TraceId};
use crate::policy::core::told::{self, Hook};

use super::super::problem::Problem;

/// The families of operations.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    HttpRequest,
    DbQuery,
    FileOperation,
    FunctionCall,
    /// A tool of an MCP server: `function` is the tool, `module` the server.
    Mcp,
    /// A call of a model: as `http_request` where `http_url` is said.
    Llm,
}

/// Before it happens, or with its outcome.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum When {
    Started,
    Completed,
}

impl When {
    fn stage(self) -> Stage {
        match self {
            Self::Started => Stage::Started,
            Self::Completed => Stage::Completed,
        }
    }
}

/// What happens, and at `completed` how it went. Only the fields of its kind
/// are looked at.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[rustfmt::skip]
pub(super) struct Span {
    /// The span's name; made from the operation if left out.
    #[serde(skip_serializing)]
    name: Option<String>,
    /// OpenTelemetry attributes.
    #[serde(skip_serializing)]
    #[schema(value_type = Option<Object>)]
    attributes: Option<Map<String, Value>>,
    /// What went wrong, at `completed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,

    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    request_headers: Option<std::collections::BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_headers: Option<std::collections::BTreeMap<String, String>>,

    #[serde(skip_serializing_if = "Option::is_none")]
    db_system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    db_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    db_operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    db_statement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rowcount: Option<u64>,

    #[serde(skip_serializing_if = "Option::is_none")]
    file_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_mode: Option<String>,
    /// `open`, `read`, `readline`, `readlines`, `write`, `writelines`, `close` or `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_operation: Option<FileOperation>,
    /// At `close`: of the whole file, since it was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_count: Option<u64>,

    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    args: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    result: Option<Box<RawValue>>,

    /// The model, of an `llm`.
    #[serde(skip_serializing)]
    model: Option<String>,
    /// Whose model it is: `openai`, `anthropic`, …
    #[serde(skip_serializing)]
    provider: Option<String>,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[rustfmt::skip]
enum FileOperation { Open, Read, Readline, Readlines, Write, Writelines, Close, Delete }

/// A call of a tool.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) server: Option<String>,
    pub(super) arguments: Option<Box<RawValue>>,
}

impl Tool {
    /// The operation that it is.
    pub(super) fn span(self) -> (Kind, Span) {
        let kind = match self.server {
            Some(_) => Kind::Mcp,
            None => Kind::FunctionCall,
        };
        let span = Span {
            function: Some(self.name),
            module: self.server,
            args: self.arguments,
            ..Span::default()
        };
        (kind, span)
    }
}

/// What is kept of an operation until its outcome is told.
#[derive(Debug)]
pub(super) struct Begun {
    kind: Kind,
    span: Span,
}

/// The ids of a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
}

/// As `told` reads it.
#[derive(Serialize)]
struct Sent<'a> {
    hook_type: &'static str,
    stage: &'static str,
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: String,
    kind: &'static str,
    attributes: Map<String, Value>,
    #[serde(flatten)]
    span: &'a Span,
}

impl Span {
    /// Reads it as the hook of an SDK is read.
    pub(super) fn hook(&self, kind: Kind, when: When, ids: Ids) -> Result<Hook, Problem> {
        let (hook_type, kind_of_span) = match kind {
            Kind::HttpRequest => ("http_request", "CLIENT"),
            Kind::DbQuery => ("db_query", "CLIENT"),
            Kind::FileOperation => ("file_operation", "INTERNAL"),
            Kind::FunctionCall | Kind::Mcp => ("function_call", "INTERNAL"),
            Kind::Llm if self.http_url.is_some() => ("http_request", "CLIENT"),
            Kind::Llm => ("function_call", "CLIENT"),
        };
        let mut span = self.clone();
        if kind == Kind::Llm {
            span.http_method.get_or_insert_with(|| "POST".to_owned());
            let model = span.model.clone();
            span.function
                .get_or_insert_with(|| model.unwrap_or_else(|| "llm".to_owned()));
        }
        let sent = Sent {
            hook_type,
            stage: when.stage().as_str(),
            trace_id: ids.trace.to_string(),
            span_id: ids.span.to_string(),
            parent_span_id: ids.parent.map(|id| id.to_string()),
            name: span.called(kind),
            kind: kind_of_span,
            attributes: span.attributes(kind),
            span: &span,
        };
        let text = serde_json::to_vec(&sent).map_err(|error| {
            Problem::invalid_field(format!("`span` cannot be written as JSON: {error}"))
        })?;
        told::hook(&text).map_err(|unfit| {
            let detail = format!("{} (`span`, of kind {kind:?})", unfit.message);
            Problem::new(http::StatusCode::BAD_REQUEST, unfit.code, detail)
        })
    }

    /// How the call of a tool went.
    pub(super) fn of_call(result: Option<Box<RawValue>>, error: Option<String>) -> Self {
        Self {
            result,
            error,
            ..Self::default()
        }
    }

    /// The name by which OpenBox Core classifies it, as the SDKs name it.
    fn called(&self, kind: Kind) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let function = self.function.as_deref().unwrap_or("unknown");
        match kind {
            Kind::HttpRequest => self.http_method.clone().unwrap_or_else(|| "GET".to_owned()),
            Kind::DbQuery => {
                let statement = self.db_statement.as_deref().unwrap_or("");
                let verb = self.db_operation.as_deref();
                let verb = verb.or_else(|| statement.split_whitespace().next());
                format!("db {}", verb.unwrap_or("QUERY").to_ascii_uppercase())
            }
            Kind::FileOperation => {
                let operation = self.file_operation.unwrap_or(FileOperation::Open);
                let word = format!("{operation:?}").to_ascii_lowercase();
                format!("file.{word}")
            }
            Kind::FunctionCall => format!("function {function}"),
            Kind::Mcp => format!("tool {function}"),
            Kind::Llm => format!("llm {function}"),
        }
    }

    fn attributes(&self, kind: Kind) -> Map<String, Value> {
        let mut all = self.attributes.clone().unwrap_or_default();
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                all.entry(name).or_insert_with(|| value.into());
            }
        };
        match kind {
            Kind::Mcp => {
                put("mcp.method", Some("callTool"));
                put("mcp.tool.name", self.function.as_deref());
                put("mcp.server", self.module.as_deref());
            }
            Kind::Llm => {
                let provider = self.provider.as_deref();
                put("gen_ai.system", Some(provider.unwrap_or("unknown")));
                put("gen_ai.request.model", self.model.as_deref());
            }
            Kind::HttpRequest | Kind::DbQuery | Kind::FileOperation | Kind::FunctionCall => {}
        }
        all
    }

    /// What its outcome has to be told together with: what it is about, without
    /// what it carried.
    pub(super) fn begun(mut self, kind: Kind) -> Begun {
        self.request_body = None;
        self.request_headers = None;
        self.args = None;
        Begun { kind, span: self }
    }
}

impl Begun {
    /// The outcome, told as `outcome`, of what began.
    pub(super) fn completed(self, outcome: Span, ids: Ids) -> Result<Hook, Problem> {
        let kind = self.kind;
        let span = Span {
            error: outcome.error,
            http_status_code: outcome.http_status_code,
            response_body: outcome.response_body,
            response_headers: outcome.response_headers,
            rowcount: outcome.rowcount,
            bytes_read: outcome.bytes_read,
            bytes_written: outcome.bytes_written,
            lines_count: outcome.lines_count,
            result: outcome.result,
            ..self.span
        };
        span.hook(kind, When::Completed, ids)
    }
}
