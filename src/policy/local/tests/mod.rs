//! The embedded policy as its callers see it.

mod documents;
mod evaluating;
mod loading;
mod remembering;
mod rules;
mod starter;
mod watching;

use std::sync::Arc;

use crate::domain::{
    Action, ActivityRef, Answer, Attribution, Capture, Captured, Completion, Context,
    DatabaseAnswer, DatabaseCall, Event, EventKind, FileAnswer, FileCall, Fingerprint,
    FunctionAnswer, FunctionCall, Headers, HttpAnswer, HttpCall, JsonText, Operation, OperationId,
    Outcome, Reported, SpanId, Timestamp, ToolCall, TraceId, Verdict,
};
use crate::policy::{Judging, PolicyBackend, PolicyError, Question, Ruling};

use super::{LoadError, LocalPolicy, Settings};

/// A policy from text, in a folder of its own.
fn policy(rego: &str) -> LocalPolicy {
    // Unoptimized, what a policy does takes many times longer. The tests of the deadline set
    // their own.
    let settings = Settings {
        evaluate_within: std::time::Duration::from_secs(30),
        ..Settings::default()
    };
    policy_with(rego, settings)
}

fn policy_with(rego: &str, settings: Settings) -> LocalPolicy {
    try_load(&[("policy.rego", rego)], settings).unwrap()
}

fn try_load(files: &[(&str, &str)], settings: Settings) -> Result<LocalPolicy, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    LocalPolicy::load(Settings {
        path: Some(folder.path().to_owned()),
        ..settings
    })
}

fn judge(policy: &LocalPolicy, question: Question<'_>) -> Result<Arc<Ruling>, PolicyError> {
    match policy.judge(question) {
        Judging::Now(answer) => answer,
        Judging::Later(_) => panic!("the embedded policy answers at once"),
    }
}

fn started(policy: &LocalPolicy, operation: &Operation) -> Result<Arc<Ruling>, PolicyError> {
    judge(policy, Question::Started(operation))
}

fn verdict(policy: &LocalPolicy, operation: &Operation) -> Verdict {
    started(policy, operation).unwrap().verdict
}

fn why_not(answer: Result<Arc<Ruling>, PolicyError>) -> String {
    match answer {
        Err(PolicyError::Unjudgeable(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

/// `GET https://example.com/items`, changed as the test needs it.
fn operation(method: &str, host: &str, path: &str) -> Operation {
    let mut headers = Headers::default();
    headers.push("accept", "*/*");
    headers.push("X-Team", "blue");
    headers.push("x-team", "green");
    Operation {
        id: OperationId::new(1_700_000_000_000, 7),
        trace: TraceId(0xabc),
        span: SpanId(0xdef),
        parent: None,
        started_at: Timestamp(1_700_000_000_123_456_789),
        context: context(None),
        attribution: Attribution::OwnSession,
        fingerprint: Some(Fingerprint([1; 16])),
        action: Action::Http(HttpCall {
            method: method.into(),
            secrets: None,
            url: format!("https://{host}{path}?q=1").into(),
            scheme: "https",
            host: host.into(),
            port: 443,
            path: path.into(),
            headers,
            body: Capture::default(),
            tool: None,
        }),
        reported: None,
    }
}

fn context(activity: Option<ActivityRef>) -> Arc<Context> {
    Arc::new(Context {
        workflow_id: "wf".into(),
        run_id: "run".into(),
        workflow_type: "agent".into(),
        task_queue: "queue".into(),
        activity,
    })
}

fn activity(input: &str) -> ActivityRef {
    ActivityRef {
        id: "act-1".into(),
        kind: "fetch".into(),
        attempt: 2,
        input: JsonText(input.into()),
    }
}

fn call(operation: &mut Operation) -> &mut HttpCall {
    let Action::Http(call) = &mut operation.action else {
        panic!("an HTTP request");
    };
    call
}

fn text(body: &str) -> Capture {
    Capture {
        trailers: None,
        text: Some(body.to_owned()),
        bytes: body.len().try_into().unwrap(),
        digest: None,
        state: Captured::Whole,
        ..Capture::default()
    }
}

fn answered(status: u16, body: Capture) -> Completion {
    let mut headers = Headers::default();
    headers.push("content-type", "text/plain");
    Completion {
        ended_at: Timestamp(1_700_000_000_623_456_789),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(HttpAnswer {
            status,
            headers,
            body,
        })),
        error: None,
    }
}

/// An operation of another family, in place of the request.
fn of(action: Action) -> Operation {
    Operation {
        action,
        ..operation("GET", "example.com", "/")
    }
}

fn statement(verb: &str, rest: &str) -> Operation {
    of(Action::Database(DatabaseCall {
        system: "postgresql".into(),
        name: Some("shop".into()),
        user: Some("reader".into()),
        operation: verb.into(),
        statement: text(&format!("{verb} {rest}")),
        server_address: Some("db.internal".into()),
        server_port: Some(5432),
        reading: None,
        told: crate::domain::Told::AsItIs,
    }))
}

fn function(arguments: &str) -> Operation {
    of(Action::Function(FunctionCall {
        function: "charge".into(),
        module: Some("billing".into()),
        arguments: Some(JsonText(arguments.into())),
    }))
}

fn reported(name: &str, attributes: &str) -> Option<Box<Reported>> {
    Some(Box::new(Reported {
        name: name.into(),
        kind: "INTERNAL".into(),
        attributes: JsonText(attributes.into()),
        envelope: Vec::new(),
    }))
}

fn done(answer: Answer) -> Completion {
    Completion {
        outcome: Outcome::Answered,
        answer: Some(answer),
        error: None,
        ..failed()
    }
}

fn failed() -> Completion {
    Completion {
        ended_at: Timestamp(1_700_000_000_623_456_789),
        outcome: Outcome::Failed,
        answer: None,
        error: Some("connection refused".into()),
    }
}

fn event(kind: EventKind, context: Arc<Context>, fields: Vec<(&'static str, JsonText)>) -> Event {
    Event {
        id: OperationId::new(1, 1),
        kind,
        context,
        at: Timestamp(1_700_000_000_123_456_789),
        fields,
    }
}
