//! The one span of a hook: flat, every field of its family there, and null
//! where nothing is known (contract §3).

use crate::domain::{
    Action, Answer, Captured, Completion, DatabaseAnswer, DatabaseCall, FileAnswer, FileCall,
    FunctionAnswer, FunctionCall, Headers, HttpAnswer, HttpCall, Operation, Outcome, Stage,
    Timestamp,
};

use super::super::json::{Bracket, Json, Word};
use super::hook_type;

/// About how many bytes of a question are its own texts.
pub(super) fn payload(operation: &Operation, completion: Option<&Completion>) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let asked = match &operation.action {
        Action::Http(call) => text(&call.body.text)
            .saturating_add(call.headers.len().saturating_mul(64))
            .saturating_add(call.url.len().saturating_mul(2)),
        Action::Database(call) => text(&call.statement.text).saturating_mul(2),
        Action::File(call) => call.path.len().saturating_mul(2),
        Action::Function(call) => call.arguments.as_ref().map_or(0, |json| json.0.len()),
    };
    let answered = match completion.and_then(|c| c.answer.as_ref()) {
        Some(Answer::Http(answer)) => {
            text(&answer.body.text).saturating_add(answer.headers.len().saturating_mul(64))
        }
        Some(Answer::Function(answer)) => answer.result.as_ref().map_or(0, |json| json.0.len()),
        Some(Answer::Database(_) | Answer::File(_)) | None => 0,
    };
    asked.saturating_add(answered)
}

/// Writes the span of `operation`; `completion` makes it `completed`.
pub(super) fn written(json: &mut Json, operation: &Operation, completion: Option<&Completion>) {
    let answer = completion.and_then(|c| c.answer.as_ref());
    json.open(Bracket::Object);
    json.name("span_id");
    json.string(&operation.span.to_string());
    json.name("trace_id");
    json.string(&operation.trace.to_string());
    json.name("parent_span_id");
    json.string_or_null(operation.parent.map(|p| p.to_string()).as_deref());
    json.name("name");
    json.string(&operation.span_name());
    json.name("kind");
    json.string(kind(operation));
    json.name("stage");
    let stage = match completion {
        None => Stage::Started,
        Some(_) => Stage::Completed,
    };
    json.string(stage.as_str());
    times(json, operation.started_at, completion.map(|c| c.ended_at));
    json.name("attributes");
    match &operation.reported {
        Some(reported) => json.json(&reported.attributes),
        None => attributes(json, operation, answer),
    }
    json.name("status");
    json.open(Bracket::Object);
    json.name("code");
    // Also when there is an error: the vectors' way.
    json.string("UNSET");
    json.name("description");
    json.word(Word::Null);
    json.close(Bracket::Object);
    json.name("events");
    json.open(Bracket::Array);
    json.close(Bracket::Array);
    json.name("error");
    json.string_or_null(completion.and_then(error));
    json.name("hook_type");
    json.string(hook_type(operation));
    family(json, operation, answer);
    json.close(Bracket::Object);
}

/// An answer of another family than its call says nothing about it.
fn family(json: &mut Json, operation: &Operation, answer: Option<&Answer>) {
    match &operation.action {
        Action::Http(call) => http(json, call, answer.and_then(Answer::http)),
        Action::Database(call) => {
            let answer = match answer {
                Some(Answer::Database(answer)) => Some(answer),
                Some(Answer::Http(_) | Answer::File(_) | Answer::Function(_)) | None => None,
            };
            database(json, call, answer);
        }
        Action::File(call) => {
            let answer = match answer {
                Some(Answer::File(answer)) => Some(answer),
                Some(Answer::Http(_) | Answer::Database(_) | Answer::Function(_)) | None => None,
            };
            file(json, call, answer);
        }
        Action::Function(call) => {
            let answer = match answer {
                Some(Answer::Function(answer)) => Some(answer),
                Some(Answer::Http(_) | Answer::Database(_) | Answer::File(_)) | None => None,
            };
            function(json, call, answer);
        }
    }
}

fn kind(operation: &Operation) -> &str {
    match (&operation.reported, &operation.action) {
        (Some(reported), _) => &reported.kind,
        (None, Action::Http(_)) => "CLIENT",
        (None, Action::Database(call)) if &*call.system == "redis" => "CLIENT",
        (None, Action::Database(_) | Action::File(_) | Action::Function(_)) => "INTERNAL",
    }
}

fn times(json: &mut Json, started: Timestamp, ended: Option<Timestamp>) {
    json.name("start_time");
    json.number(started.0);
    json.name("end_time");
    json.number_or_null(ended.map(|ended| ended.0));
    json.name("duration_ns");
    json.number_or_null(ended.map(|ended| ended.0.saturating_sub(started.0)));
}

/// What went wrong, if anything did.
fn error(completion: &Completion) -> Option<&str> {
    match (completion.outcome, &completion.error) {
        (Outcome::Answered, error) => error.as_deref(),
        (Outcome::Failed | Outcome::Abandoned, Some(error)) => Some(error),
        (Outcome::Failed | Outcome::Abandoned, None) => Some(completion.outcome.as_str()),
    }
}

fn attributes(json: &mut Json, operation: &Operation, answer: Option<&Answer>) {
    json.open(Bracket::Object);
    match &operation.action {
        Action::Http(call) => http_attributes(json, call, answer.and_then(Answer::http)),
        Action::Database(call) => {
            json.name("db.system");
            json.string(&call.system);
            if let Some(user) = &call.user {
                json.name("db.user");
                json.string(user);
            }
            if !call.statement.state.is_whole() {
                json.name("openbox.db.statement.partial");
                json.word(Word::True);
            }
        }
        Action::File(call) => {
            json.name("file.path");
            json.string(&call.path);
            if let Some(mode) = &call.mode {
                json.name("file.mode");
                json.string(mode);
            }
        }
        // As the SDK's own function spans: none.
        Action::Function(_) => {}
    }
    json.close(Bracket::Object);
}

fn http_attributes(json: &mut Json, call: &HttpCall, answer: Option<&HttpAnswer>) {
    json.name("http.method");
    json.string(&call.method);
    json.name("http.url");
    json.string(&call.url);
    if let Some(agent) = call.headers.last("user-agent") {
        json.name("user_agent.original");
        json.string(agent);
    }
    if let Some(answer) = answer {
        json.name("http.status_code");
        json.number(answer.status);
    }
    if let Some(tool) = &call.tool {
        // The SDKs' word for a tools/call; Core classifies by it.
        json.name("mcp.method");
        json.string("callTool");
        if let Some(name) = &tool.name {
            json.name("gen_ai.tool.name");
            json.string(name);
        }
    }
    let trailers = [
        ("http.request.trailers", Some(&call.body)),
        ("http.response.trailers", answer.map(|answer| &answer.body)),
    ];
    for (name, body) in trailers {
        if let Some(trailers) = body.and_then(|body| body.trailers.as_ref()) {
            json.name(name);
            json.string(&trailers.text);
        }
    }
    // Said only where it is so: whole bodies look exactly as an SDK's.
    if is_partial(call.body.state) {
        json.name("openbox.http.request_body.partial");
        json.word(Word::True);
    }
    if answer.is_some_and(|answer| is_partial(answer.body.state)) {
        json.name("openbox.http.response_body.partial");
        json.word(Word::True);
    }
}

/// Whether policy was shown less of a body than there is.
fn is_partial(state: Captured) -> bool {
    !state.is_whole()
}

/// The fields only HTTP has: what is known first, then nulls for the rest.
fn http(json: &mut Json, call: &HttpCall, answer: Option<&HttpAnswer>) {
    let asked = call.body.text.as_deref();
    let said = answer.and_then(|answer| answer.body.text.as_deref());
    json.name("http_url");
    json.string(&call.url);
    json.name("http_method");
    json.string(&call.method);
    if let Some(answer) = answer {
        json.name("http_status_code");
        json.number(answer.status);
    }
    if asked.is_some() {
        json.name("request_body");
        json.string_or_null(asked);
    }
    json.name("request_headers");
    headers(json, &call.headers);
    if let Some(answer) = answer {
        if said.is_some() {
            json.name("response_body");
            json.string_or_null(said);
        }
        json.name("response_headers");
        headers(json, &answer.headers);
    }
    let nulls = [
        ("http_status_code", answer.is_none()),
        ("response_headers", answer.is_none()),
        ("request_body", asked.is_none()),
        ("response_body", said.is_none()),
    ];
    for (name, is_null) in nulls {
        if is_null {
            json.name(name);
            json.word(Word::Null);
        }
    }
}

fn database(json: &mut Json, call: &DatabaseCall, answer: Option<&DatabaseAnswer>) {
    json.name("db_system");
    json.string(&call.system);
    json.name("db_name");
    json.string_or_null(call.name.as_deref());
    json.name("db_operation");
    json.string(&call.operation);
    json.name("db_statement");
    json.string_or_null(call.statement.text.as_deref());
    json.name("server_address");
    json.string_or_null(call.server_address.as_deref());
    json.name("server_port");
    json.number_or_null(call.server_port.map(u64::from));
    json.name("rowcount");
    json.number_or_null(answer.and_then(|answer| answer.rows));
}

fn file(json: &mut Json, call: &FileCall, answer: Option<&FileAnswer>) {
    json.name("file_path");
    json.string(&call.path);
    json.name("file_mode");
    json.string_or_null(call.mode.as_deref());
    json.name("file_operation");
    json.string(&call.operation);
    json.name("bytes_read");
    json.number_or_null(answer.and_then(|answer| answer.bytes_read));
    json.name("bytes_written");
    json.number_or_null(answer.and_then(|answer| answer.bytes_written));
    json.name("lines_count");
    json.number_or_null(answer.and_then(|answer| answer.lines));
}

fn function(json: &mut Json, call: &FunctionCall, answer: Option<&FunctionAnswer>) {
    json.name("function");
    json.string(&call.function);
    json.name("module");
    json.string_or_null(call.module.as_deref());
    json.name("args");
    json.json_or_null(call.arguments.as_ref());
    json.name("result");
    json.json_or_null(answer.and_then(|answer| answer.result.as_ref()));
}

/// A JSON object has each name once: repeated fields are joined, as clients do.
fn headers(json: &mut Json, headers: &Headers) {
    json.open(Bracket::Object);
    for (n, (name, _)) in headers.iter().enumerate() {
        let is_same = |other: &str| other.eq_ignore_ascii_case(name);
        if headers.iter().take(n).any(|(earlier, _)| is_same(earlier)) {
            continue;
        }
        let values = headers.iter().skip(n).filter(|(other, _)| is_same(other));
        json.name(name);
        json.joined(values.map(|(_, value)| value), ", ");
    }
    json.close(Bracket::Object);
}
