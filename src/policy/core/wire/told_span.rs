//! The span of a hook that an SDK tells, with what each SDK is known to get
//! wrong (contract §3.3).

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::domain::{
    Action, Answer, Capture, Captured, DatabaseAnswer, DatabaseCall, FileAnswer, FileCall,
    FunctionAnswer, FunctionCall, Headers, HttpAnswer, HttpCall, JsonText, Reported, SpanId, Stage,
    Timestamp, ToolCall, TraceId,
};
use crate::redact;

use super::told::{Hook, Unfit};

/// Where SDKs cut a body without saying so, characters.
const BODY_CUT_CHARS: usize = 65_536;

/// Every field that is looked at, of all families.
#[derive(Debug, Deserialize)]
pub(super) struct Span {
    span_id: Option<Value>,
    trace_id: Option<Value>,
    parent_span_id: Option<Value>,
    name: Option<Value>,
    kind: Option<Value>,
    stage: Option<Value>,
    start_time: Option<Value>,
    end_time: Option<Value>,
    attributes: Option<Box<RawValue>>,
    error: Option<Value>,
    hook_type: Option<Value>,
    http_method: Option<Value>,
    http_url: Option<Value>,
    http_status_code: Option<Value>,
    request_body: Option<Value>,
    request_headers: Option<Value>,
    response_body: Option<Value>,
    response_headers: Option<Value>,
    db_system: Option<Value>,
    db_name: Option<Value>,
    db_operation: Option<Value>,
    db_statement: Option<Value>,
    server_address: Option<Value>,
    server_port: Option<Value>,
    rowcount: Option<Value>,
    file_path: Option<Value>,
    file_mode: Option<Value>,
    file_operation: Option<Value>,
    bytes_read: Option<Value>,
    bytes_written: Option<Value>,
    lines_count: Option<Value>,
    function: Option<Value>,
    module: Option<Value>,
    args: Option<Box<RawValue>>,
    result: Option<Box<RawValue>>,
}

/// The families of hooks.
#[derive(Clone, Copy)]
enum Family {
    Http,
    Database,
    File,
    Function,
}

/// Reads the span of a hook.
pub(super) fn hook(span: Span) -> Result<Hook, Unfit> {
    let family = match text(&span.hook_type) {
        Some("http_request") => Family::Http,
        Some("db_query") => Family::Database,
        Some("file_operation") => Family::File,
        Some("function_call") => Family::Function,
        other => {
            let message = format!(
                "`hook_type` is {other:?}; expected http_request, db_query, file_operation or function_call"
            );
            return Err(Unfit::new("unknown_hook_type", message));
        }
    };
    let stage = match text(&span.stage) {
        Some("started") => Stage::Started,
        Some("completed") => Stage::Completed,
        other => {
            let message =
                format!("`stage` of the span is {other:?}; expected started or completed");
            return Err(Unfit::new("invalid_field", message));
        }
    };
    let id = |name: &str, value: &Option<Value>, digits| {
        hex(value, digits).ok_or_else(|| {
            let message = format!("`{name}` of the span is not {digits} hex digits");
            Unfit::new("invalid_field", message)
        })
    };
    let action = span.action(family)?;
    let name = text(&span.name).unwrap_or("hook");
    Ok(Hook {
        stage,
        trace: TraceId(id("trace_id", &span.trace_id, 32)?),
        span: SpanId(u64_of(id("span_id", &span.span_id, 16)?)),
        parent: hex(&span.parent_span_id, 16).map(|id| SpanId(u64_of(id))),
        started_at: span.start_time.as_ref().and_then(nanoseconds),
        ended_at: span.end_time.as_ref().and_then(nanoseconds),
        reported: Reported {
            name: name.into(),
            kind: text(&span.kind).unwrap_or("INTERNAL").into(),
            attributes: attributes(span.attributes.as_deref()),
            envelope: Vec::new(),
        },
        answer: match stage {
            Stage::Started => None,
            Stage::Completed => span.answer(family),
        },
        error: match &span.error {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.as_str().into()),
            Some(other) => Some(other.to_string().into()),
        },
        action,
    })
}

impl Span {
    fn action(&self, family: Family) -> Result<Action, Unfit> {
        let missing = |name: &str| Unfit::new("missing_field", format!("the span has no `{name}`"));
        Ok(match family {
            Family::Http => {
                let url = text(&self.http_url).ok_or_else(|| missing("http_url"))?;
                Action::Http(self.http(url))
            }
            Family::Database => Action::Database(self.database()),
            Family::File => Action::File(FileCall {
                path: text(&self.file_path)
                    .ok_or_else(|| missing("file_path"))?
                    .into(),
                mode: text(&self.file_mode).map(Into::into),
                operation: text(&self.file_operation).unwrap_or("open").into(),
            }),
            Family::Function => Action::Function(FunctionCall {
                function: text(&self.function)
                    .ok_or_else(|| missing("function"))?
                    .into(),
                module: text(&self.module).map(Into::into),
                arguments: self.args.as_deref().map(|args| JsonText(args.get().into())),
            }),
        })
    }

    fn http(&self, url: &str) -> HttpCall {
        let method = text(&self.http_method).unwrap_or("UNKNOWN");
        // One SDK tells Python's own spelling of a byte string.
        let bytes = method.strip_prefix("b'").and_then(|m| m.strip_suffix('\''));
        let url = Url::read(url);
        HttpCall {
            method: bytes.unwrap_or(method).into(),
            scheme: url.scheme,
            host: url.host,
            port: url.port,
            path: url.path,
            url: url.text,
            secrets: url.secrets,
            headers: headers(&self.request_headers),
            body: body(&self.request_body),
            tool: self.tool(),
        }
    }

    /// A `tools/call`, as the SDKs mark one.
    fn tool(&self) -> Option<ToolCall> {
        let attributes: Value = serde_json::from_str(self.attributes.as_deref()?.get()).ok()?;
        let is_call = attributes.get("mcp.method")?.as_str()? == "callTool";
        is_call.then(|| ToolCall {
            name: ["mcp.tool.name", "gen_ai.tool.name"]
                .iter()
                .find_map(|name| attributes.get(*name)?.as_str())
                .map(Into::into),
        })
    }

    fn database(&self) -> DatabaseCall {
        let statement = body(&self.db_statement);
        let said = text(&self.db_operation).filter(|verb| *verb != "UNKNOWN");
        let verb = said
            .or_else(|| statement.text.as_deref()?.split_whitespace().next())
            .unwrap_or("UNKNOWN");
        DatabaseCall {
            system: text(&self.db_system)
                .unwrap_or("unknown")
                .to_ascii_lowercase()
                .into(),
            name: text(&self.db_name).map(Into::into),
            user: None,
            operation: verb.to_ascii_uppercase().into(),
            statement,
            server_address: text(&self.server_address)
                .filter(|address| *address != "unknown")
                .map(Into::into),
            server_port: number(&self.server_port).and_then(|port| u16::try_from(port).ok()),
            reading: None,
            told: crate::domain::Told::AsItIs,
        }
    }

    /// What came back; `None` where the span says nothing of it.
    fn answer(&self, family: Family) -> Option<Answer> {
        Some(match family {
            Family::Http => Answer::Http(HttpAnswer {
                status: number(&self.http_status_code)
                    .and_then(|status| u16::try_from(status).ok())?,
                headers: headers(&self.response_headers),
                body: body(&self.response_body),
            }),
            Family::Database => Answer::Database(DatabaseAnswer {
                rows: number(&self.rowcount),
            }),
            Family::File => Answer::File(FileAnswer {
                bytes_read: number(&self.bytes_read),
                bytes_written: number(&self.bytes_written),
                lines: number(&self.lines_count),
            }),
            Family::Function => Answer::Function(FunctionAnswer {
                result: self.result.as_deref().map(|it| JsonText(it.get().into())),
            }),
        })
    }
}

/// A URL in its parts, however badly it is spelled.
struct Url {
    text: Box<str>,
    secrets: Option<[u8; 32]>,
    scheme: &'static str,
    host: Box<str>,
    port: u16,
    path: Box<str>,
}

impl Url {
    fn read(told: &str) -> Self {
        let told = undoubled(told);
        let told = told.split_once('#').map_or(told, |(url, _)| url);
        let (scheme, rest) = told.split_once("://").unwrap_or(("http", told));
        let (scheme, default) = match scheme.to_ascii_lowercase().as_str() {
            "https" | "wss" => ("https", 443),
            _ => ("http", 80),
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let place = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
        let place = place.to_ascii_lowercase();
        let (host, port) = match place.rsplit_once(':') {
            // The last colon of an address in brackets is not before a port.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            Some(_) | None => (place.as_str(), None),
        };
        let host = host.strip_prefix('[').unwrap_or(host);
        let host = host.strip_suffix(']').unwrap_or(host);
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let text = format!("{scheme}://{place}{target}");
        let shown = redact::url(&text);
        Self {
            secrets: shown.secrets,
            text: shown.url.into(),
            scheme,
            host: host.into(),
            port: port.unwrap_or(default),
            path: path.into(),
        }
    }
}

/// One SDK tells `http://host:porthttp://host:port/path`.
fn undoubled(told: &str) -> &str {
    for scheme in ["http://", "https://"] {
        let Some(rest) = told.strip_prefix(scheme) else {
            continue;
        };
        let authority = rest.find('/').and_then(|at| rest.get(..at)).unwrap_or("");
        for twin in ["https:", "http:"] {
            if let Some(own) = authority.strip_suffix(twin) {
                return rest.get(own.len()..).unwrap_or(told);
            }
        }
    }
    told
}

fn body(told: &Option<Value>) -> Capture {
    let text = match told {
        None | Some(Value::Null) => return Capture::default(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let is_cut = text.len() >= BODY_CUT_CHARS && text.chars().count() == BODY_CUT_CHARS;
    Capture {
        trailers: None,
        bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        digest: (!is_cut).then(|| Sha256::digest(text.as_bytes()).into()),
        state: if is_cut {
            Captured::Partial
        } else {
            Captured::Whole
        },
        text: Some(text),
        ..Capture::default()
    }
}

/// Header fields; not every SDK has redacted them.
fn headers(told: &Option<Value>) -> Headers {
    let mut headers = Headers::default();
    let Some(Value::Object(fields)) = told else {
        return headers;
    };
    for (name, value) in fields {
        match value {
            _ if redact::is_secret_header(name) => headers.push(name, redact::REDACTED),
            Value::String(text) => headers.push(name, text),
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                headers.push(name, &value.to_string());
            }
        }
    }
    headers
}

fn attributes(told: Option<&RawValue>) -> JsonText {
    match told.map(RawValue::get) {
        Some(text) if text.starts_with('{') => JsonText(text.into()),
        Some(_) | None => JsonText("{}".into()),
    }
}

fn text(value: &Option<Value>) -> Option<&str> {
    value.as_ref()?.as_str().filter(|text| !text.is_empty())
}

fn number(value: &Option<Value>) -> Option<u64> {
    whole_number(value.as_ref()?)
}

/// A whole number, also one that is written as a float.
pub(super) fn whole_number(value: &Value) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let float = value.as_f64().filter(|f| f.fract() == 0.0)?;
    float_as_whole(float)
}

/// Nanoseconds since the epoch. One SDK multiplies milliseconds as doubles.
fn nanoseconds(value: &Value) -> Option<Timestamp> {
    value
        .as_u64()
        .or_else(|| float_as_whole(value.as_f64()?.trunc()))
        .filter(|at| *at > 0)
        .map(Timestamp)
}

fn float_as_whole(float: f64) -> Option<u64> {
    // By way of its decimal digits: a cast would saturate in silence.
    (float >= 0.0 && float.is_finite())
        .then(|| format!("{float:.0}"))?
        .parse()
        .ok()
}

fn hex(value: &Option<Value>, digits: usize) -> Option<u128> {
    let text = text(value)?;
    let is_hex = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .filter(|id| *id != 0)
}

/// Of an id that has 16 digits.
fn u64_of(id: u128) -> u64 {
    u64::try_from(id).unwrap_or(u64::MAX)
}
