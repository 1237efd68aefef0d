//! Cases: what a policy is asked in a test, and what it has to answer.
//!
//! An operation or event of a case is judged by the very functions that judge
//! an agent's. An `input` document is shown to the Rego as it stands, and to
//! the Rego alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_norway::{Mapping, Value};

use crate::domain::{
    Action, ActivityRef, Answer, Attribution, Capture, Captured, Completion, Context,
    DatabaseAnswer, DatabaseCall, Event, EventKind, FileAnswer, FileCall, FunctionAnswer,
    FunctionCall, Headers, HttpAnswer, HttpCall, JsonText, Operation, OperationId, Outcome, SpanId,
    Timestamp, TraceId, Verdict,
};

use super::verdict::decision;
use super::yaml::{Reader, within};

/// What ends the name of a file of cases.
const CASES: [&str; 2] = ["_cases.yaml", "_cases.yml"];
/// Most cases of one file.
const CASES_MAX: usize = 10_000;
/// Most operations that a case lets happen before.
const BEFORE_MAX: usize = 100;

/// One case of a file.
#[derive(Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// What happened earlier in the same run, each with how long ago.
    pub before: Vec<(Question, Duration)>,
    /// What is asked.
    pub question: Question,
    /// What must be answered; absent where it is only to be seen.
    pub expect: Option<Expected>,
}

/// What a case asks.
#[derive(Debug)]
pub enum Question {
    /// A document, for the Rego alone: JSON text.
    Input(JsonText),
    /// An operation; with its outcome, if there is one.
    Operation(Box<Operation>, Option<Completion>),
    /// Something that happened inside the agent.
    Event(Box<Event>),
}

/// What a case expects.
#[derive(Debug)]
pub struct Expected {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason, if it matters.
    pub reason: Option<String>,
    /// What stands in the place of the input or output, if that matters.
    pub redacted: Option<serde_json::Value>,
}

/// A statement as a relay shows it to policy.
#[derive(Debug)]
pub struct Seen {
    /// Its verb.
    pub operation: Box<str>,
    /// Its text, as far as it may be shown.
    pub statement: String,
    /// What it does: `db_reading`.
    pub reading: JsonText,
}

/// Reads a statement of a database system; `None` where no relay speaks to
/// such. Handed in, since whoever reads SQL stands above this layer.
pub type Reads = fn(system: &str, statement: &str) -> Option<Seen>;

/// Reads the cases of `text`, which `file` is the name of.
///
/// # Errors
/// Every problem of the file.
pub fn read(file: &str, text: &str, reads: Reads) -> Result<Vec<Case>, Vec<String>> {
    let mut cases = unseen(file, text)?;
    for case in &mut cases {
        see(&mut case.question, reads);
        for (before, _) in &mut case.before {
            see(before, reads);
        }
    }
    Ok(cases)
}

/// Shows a statement as a relay would.
fn see(question: &mut Question, reads: Reads) {
    if let Question::Operation(operation, _) = question
        && let Action::Database(call) = &mut operation.action
        && let Some(text) = &call.statement.text
        && let Some(seen) = reads(&call.system, text)
    {
        call.operation = seen.operation;
        call.statement = capture(Some(&seen.statement));
        call.reading = Some(seen.reading);
    }
}

fn unseen(file: &str, text: &str) -> Result<Vec<Case>, Vec<String>> {
    let mut reader = Reader::new(file);
    let mut cases = Vec::new();
    if let Some(document) = reader.parse(text)
        && let Some(map) = reader.mapping("", &document, &["cases"])
    {
        let list = reader.list("", map, "cases");
        if list.is_empty() || list.len() > CASES_MAX {
            let expected = format!("1 to {CASES_MAX} cases");
            reader.missing(
                "cases",
                &expected,
                "cases: [{name: …, operation: …, expect: …}]",
            );
        }
        for (index, value) in list.iter().take(CASES_MAX).enumerate() {
            cases.extend(case(&mut reader, &format!("cases[{index}]"), value));
        }
    }
    done(reader, cases)
}

/// Reads one question: a case without expectation, or an input document.
///
/// # Errors
/// Every problem of the text.
pub fn read_one(file: &str, text: &str, reads: Reads) -> Result<Case, Vec<String>> {
    let mut reader = Reader::new(file);
    let Some(document) = reader.parse(text) else {
        return Err(reader.problems);
    };
    let is_case = document.as_mapping().is_some_and(|map| {
        ["operation", "event", "input"]
            .iter()
            .any(|k| map.contains_key(k))
    });
    let read = if is_case {
        let place = "";
        reader
            .mapping(place, &document, &KEYS)
            .and_then(|map| question(&mut reader, place, map))
    } else {
        json(&mut reader, "", &document).map(|json| (Vec::new(), Question::Input(json)))
    };
    let case = read.map(|(before, question)| Case {
        name: file.to_owned(),
        before,
        question,
        expect: None,
    });
    let mut case = done(reader, case).and_then(|case| case.ok_or_else(Vec::new))?;
    see(&mut case.question, reads);
    Ok(case)
}

fn done<T>(reader: Reader<'_>, read: T) -> Result<T, Vec<String>> {
    if reader.problems.is_empty() {
        Ok(read)
    } else {
        Err(reader.problems)
    }
}

/// The files of cases beside the policies of `path`: in a folder all that end
/// in `_cases.yaml`; beside a file `name.rego`, `name_cases.yaml`.
///
/// # Errors
/// A folder that cannot be read.
pub fn beside(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let named = CASES.map(|end| path.with_file_name(format!("{stem}{end}")));
        return Ok(named.into_iter().filter(|path| path.is_file()).collect());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && CASES.iter().any(|end| name.ends_with(end)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

const KEYS: [&str; 7] = [
    "name",
    "input",
    "operation",
    "event",
    "completed",
    "before",
    "expect",
];

fn case(reader: &mut Reader<'_>, place: &str, value: &Value) -> Option<Case> {
    let map = reader.mapping(place, value, &KEYS)?;
    let name = reader.needed_text(place, map, "name")?.to_owned();
    let question = question(reader, place, map);
    let expect = expected(reader, place, map);
    let (before, question) = question?;
    Some(Case {
        name,
        before,
        question,
        expect: Some(expect?),
    })
}

fn expected(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<Expected> {
    const EXAMPLE: &str = "expect: {verdict: BLOCK, reason: not allowed}";
    let place = within(place, "expect");
    let Some(value) = map.get("expect") else {
        reader.missing(&place, "the verdict", EXAMPLE);
        return None;
    };
    let map = reader.mapping(&place, value, &["verdict", "reason", "redacted"])?;
    let verdict = reader.needed_text(&place, map, "verdict")?;
    let verdict = decision(verdict)
        .map_err(|what| reader.tell(&within(&place, "verdict"), &what, "a verdict", EXAMPLE))
        .ok()?;
    let reason = reader.text(&place, map, "reason").map(str::to_owned);
    let redacted = match map.get("redacted") {
        Some(value) => Some(json(reader, &within(&place, "redacted"), value)?),
        None => None,
    };
    Some(Expected {
        verdict,
        reason,
        redacted: redacted.and_then(|json| serde_json::from_str(&json.0).ok()),
    })
}

type Asked = (Vec<(Question, Duration)>, Question);

fn question(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<Asked> {
    let asked = match (map.get("input"), map.get("operation"), map.get("event")) {
        (Some(value), None, None) => {
            json(reader, &within(place, "input"), value).map(Question::Input)
        }
        (None, Some(_), None) => operation(reader, place, map),
        (None, None, Some(value)) => event(reader, &within(place, "event"), value),
        _ => {
            let expected = "one of `operation`, `event` and `input`";
            let example = "operation: {method: GET, url: https://example.com/}";
            reader.tell(place, "it is not clear what is asked", expected, example);
            None
        }
    };
    let mut before = Vec::new();
    let list = reader.list(place, map, "before");
    if list.len() > BEFORE_MAX {
        let expected = format!("at most {BEFORE_MAX} operations");
        reader.tell(
            &within(place, "before"),
            "too many",
            &expected,
            "before: []",
        );
    }
    for (index, value) in list.iter().take(BEFORE_MAX).enumerate() {
        let place = format!("{}[{index}]", within(place, "before"));
        before.extend(earlier(reader, &place, value));
    }
    Some((before, asked?))
}

/// An operation that went well some time ago.
fn earlier(reader: &mut Reader<'_>, place: &str, value: &Value) -> Option<(Question, Duration)> {
    let map = reader.mapping(place, value, &["operation", "completed", "ago"])?;
    let ago = reader.seconds(place, map, "ago").unwrap_or(1);
    let Question::Operation(operation, completion) = operation(reader, place, map)? else {
        return None;
    };
    let completion = completion.or_else(|| Some(answered(&operation.action)));
    let happened = Question::Operation(operation, completion);
    Some((happened, Duration::from_secs(ago)))
}

const OPERATION: [&str; 15] = [
    "method",
    "url",
    "headers",
    "body",
    "tool",
    "system",
    "statement",
    "database",
    "user",
    "file",
    "does",
    "function",
    "module",
    "arguments",
    "activity",
];

fn operation(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<Question> {
    const EXAMPLE: &str = "operation: {method: GET, url: https://example.com/}";
    let at = within(place, "operation");
    let Some(value) = map.get("operation") else {
        reader.missing(&at, "an operation", EXAMPLE);
        return None;
    };
    let told = reader.mapping(&at, value, &OPERATION)?;
    let action = match (
        told.get("url"),
        told.get("statement"),
        told.get("file"),
        told.get("function"),
    ) {
        (Some(_), None, None, None) => request(reader, &at, told).map(Action::Http),
        (None, Some(_), None, None) => statement(reader, &at, told).map(Action::Database),
        (None, None, Some(_), None) => file(reader, &at, told).map(Action::File),
        (None, None, None, Some(_)) => function(reader, &at, told).map(Action::Function),
        _ => {
            let expected = "one of `url`, `statement`, `file` and `function`";
            reader.tell(&at, "it is not clear what is done", expected, EXAMPLE);
            None
        }
    };
    let activity = reader.text(&at, told, "activity").map(|kind| ActivityRef {
        id: "activity".into(),
        kind: kind.into(),
        attempt: 1,
        input: JsonText::empty_array(),
    });
    let action = action?;
    let completion = match map.get("completed") {
        None | Some(Value::Null) => None,
        Some(value) => Some(completed(
            reader,
            &within(place, "completed"),
            value,
            &action,
        )?),
    };
    let operation = Operation {
        id: OperationId::new(AT.unix_ms(), 1),
        trace: TraceId(1),
        span: SpanId(1),
        parent: None,
        started_at: AT,
        context: context(activity),
        attribution: Attribution::OwnSession,
        fingerprint: None,
        action,
        reported: None,
    };
    Some(Question::Operation(Box::new(operation), completion))
}

/// When everything of a case happens: 2026-01-01.
const AT: Timestamp = Timestamp(1_767_225_600_000_000_000);

fn context(activity: Option<ActivityRef>) -> Arc<Context> {
    Arc::new(Context {
        workflow_id: "workflow".into(),
        run_id: "run".into(),
        workflow_type: "agent".into(),
        task_queue: "openbox-sidecar".into(),
        activity,
    })
}

fn request(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<HttpCall> {
    const EXAMPLE: &str = "url: https://example.com/items";
    let url = reader.needed_text(place, map, "url")?;
    let parsed: Option<http::Uri> = url.parse().ok();
    let scheme = match parsed.as_ref().and_then(http::Uri::scheme_str) {
        Some("http") => Some("http"),
        Some("https") => Some("https"),
        // Messages of a WebSocket.
        Some("ws") => Some("ws"),
        Some("wss") => Some("wss"),
        Some(_) | None => None,
    };
    let (Some(uri), Some(scheme)) = (parsed, scheme) else {
        reader.tell(
            &within(place, "url"),
            &format!("{url:?} is no absolute URL"),
            "an http or https URL, or ws or wss for a message of a WebSocket",
            EXAMPLE,
        );
        return None;
    };
    let mut headers = Headers::default();
    if let Some(Value::Mapping(told)) = map.get("headers") {
        for (name, value) in told {
            match (name.as_str(), value.as_str()) {
                (Some(name), Some(value)) => headers.push(name, value),
                (_, _) => reader.wrong(
                    &within(place, "headers"),
                    value,
                    "text",
                    "accept: text/plain",
                ),
            }
        }
    }
    let tool = reader
        .text(place, map, "tool")
        .map(|name| crate::domain::ToolCall {
            name: Some(name.into()),
        });
    // As what passes is shown.
    let shown = crate::redact::url(url);
    Some(HttpCall {
        method: reader.text(place, map, "method").unwrap_or("GET").into(),
        secrets: shown.secrets,
        url: shown.url.into(),
        scheme,
        host: uri.host().unwrap_or_default().to_ascii_lowercase().into(),
        port: uri.port_u16().unwrap_or(match scheme {
            "http" | "ws" => 80,
            _ => 443,
        }),
        path: uri.path().into(),
        headers,
        body: capture(reader.text(place, map, "body")),
        tool,
    })
}

fn capture(text: Option<&str>) -> Capture {
    text.map_or_else(Capture::default, |text| Capture {
        trailers: None,
        text: Some(text.to_owned()),
        bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        digest: None,
        state: Captured::Whole,
        ..Capture::default()
    })
}

fn statement(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<DatabaseCall> {
    let text = reader.needed_text(place, map, "statement")?;
    let verb = text.split_whitespace().next().unwrap_or_default();
    Some(DatabaseCall {
        system: reader
            .text(place, map, "system")
            .unwrap_or("postgresql")
            .into(),
        name: reader.text(place, map, "database").map(Into::into),
        user: reader.text(place, map, "user").map(Into::into),
        operation: verb.to_ascii_uppercase().into(),
        statement: capture(Some(text)),
        server_address: None,
        server_port: None,
        // See [`Reads`].
        reading: None,
        told: crate::domain::Told::AsItIs,
    })
}

fn file(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<FileCall> {
    Some(FileCall {
        path: reader.needed_text(place, map, "file")?.into(),
        mode: None,
        operation: reader.text(place, map, "does").unwrap_or("read").into(),
    })
}

fn function(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<FunctionCall> {
    let arguments = match map.get("arguments") {
        Some(value) => Some(json(reader, &within(place, "arguments"), value)?),
        None => None,
    };
    Some(FunctionCall {
        function: reader.needed_text(place, map, "function")?.into(),
        module: reader.text(place, map, "module").map(Into::into),
        arguments,
    })
}

/// The outcome that `completed` tells: a status and body, rows, or a result.
fn completed(
    reader: &mut Reader<'_>,
    place: &str,
    value: &Value,
    action: &Action,
) -> Option<Completion> {
    let map = reader.mapping(place, value, &["status", "body", "rows", "result", "error"])?;
    let mut completion = answered(action);
    match &mut completion.answer {
        Some(Answer::Http(answer)) => {
            let status = reader.number(place, map, "status", 100..=599);
            answer.status = status.and_then(|s| u16::try_from(s).ok()).unwrap_or(200);
            answer.body = capture(reader.text(place, map, "body"));
        }
        Some(Answer::Database(answer)) => {
            answer.rows = reader.number(place, map, "rows", 0..=u64::MAX);
        }
        Some(Answer::Function(answer)) => {
            answer.result = match map.get("result") {
                Some(value) => Some(json(reader, &within(place, "result"), value)?),
                None => None,
            };
        }
        Some(Answer::File(_)) | None => {}
    }
    if let Some(error) = reader.text(place, map, "error") {
        completion.outcome = Outcome::Failed;
        completion.answer = None;
        completion.error = Some(error.into());
    }
    Some(completion)
}

fn answered(action: &Action) -> Completion {
    Completion {
        ended_at: AT,
        outcome: Outcome::Answered,
        answer: Some(match action {
            Action::Http(_) => Answer::Http(HttpAnswer {
                status: 200,
                headers: Headers::default(),
                body: Capture::default(),
            }),
            Action::Database(_) => Answer::Database(DatabaseAnswer { rows: None }),
            Action::File(_) => Answer::File(FileAnswer::default()),
            Action::Function(_) => Answer::Function(FunctionAnswer::default()),
        }),
        error: None,
    }
}

fn event(reader: &mut Reader<'_>, place: &str, value: &Value) -> Option<Question> {
    let known = [
        "type",
        "activity_type",
        "input",
        "output",
        "signal",
        "arguments",
    ];
    let map = reader.mapping(place, value, &known)?;
    let name = reader.needed_text(place, map, "type")?;
    let Some(kind) = EventKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
    else {
        let words = EventKind::ALL.map(EventKind::as_str).join(", ");
        reader.tell(
            &within(place, "type"),
            &format!("{name:?} is no event"),
            &words,
            "type: ActivityStarted",
        );
        return None;
    };
    let mut told = |key: &str| match map.get(key) {
        Some(value) => json(reader, &within(place, key), value),
        None => None,
    };
    let (input, output, arguments) = (told("input"), told("output"), told("arguments"));
    let signal = told("signal");
    let mut fields = Vec::new();
    let named = [
        ("activity_output", output),
        ("signal_name", signal),
        ("signal_args", arguments),
    ];
    for (name, json) in named {
        fields.extend(json.map(|json| (name, json)));
    }
    let activity = reader
        .text(place, map, "activity_type")
        .map(|kind| ActivityRef {
            id: "activity".into(),
            kind: kind.into(),
            attempt: 1,
            input: input.map_or_else(JsonText::empty_array, listed),
        });
    Some(Question::Event(Box::new(Event {
        id: OperationId::new(AT.unix_ms(), 1),
        kind,
        context: context(activity),
        at: AT,
        fields,
    })))
}

/// What is no list is the only argument.
fn listed(json: JsonText) -> JsonText {
    if json.0.starts_with('[') {
        json
    } else {
        JsonText(format!("[{}]", json.0).into())
    }
}

fn json(reader: &mut Reader<'_>, place: &str, value: &Value) -> Option<JsonText> {
    match serde_json::to_string(value) {
        Ok(text) => Some(JsonText(text.into())),
        Err(_) => {
            reader.wrong(place, value, "something that JSON can say", "{amount: 10}");
            None
        }
    }
}
