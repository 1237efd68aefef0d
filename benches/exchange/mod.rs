//! One HTTP exchange, as benchmarks judge and record it.

use std::sync::Arc;

use openbox_sidecar::domain::{
    Action, Answer, Attribution, Capture, Captured, Completion, Context, Headers, HttpAnswer,
    HttpCall, Operation, OperationId, Outcome, SpanId, Timestamp, TraceId,
};

/// A request as a Python client sends it; a POST has a body of 1 KB.
pub(crate) fn request(method: &str, path: &str) -> Operation {
    let mut headers = Headers::default();
    headers.push("accept", "*/*");
    headers.push("user-agent", "python-requests/2.32");
    headers.push("content-type", "application/json");
    Operation {
        id: OperationId::new(1, 1),
        trace: TraceId(1),
        span: SpanId(1),
        parent: None,
        started_at: Timestamp(1_700_000_000_000_000_000),
        context: context(),
        attribution: Attribution::OwnSession,
        fingerprint: None,
        action: Action::Http(HttpCall {
            secrets: None,
            method: method.into(),
            url: format!("http://origin.example.com:8080{path}?page=1").into(),
            scheme: "http",
            host: "origin.example.com".into(),
            port: 8080,
            path: path.into(),
            headers,
            body: match method {
                "POST" => kilobyte(),
                _ => Capture::default(),
            },
            tool: None,
        }),
        reported: None,
    }
}

/// Its answer, with a body of 1 KB.
pub(crate) fn answer() -> Completion {
    let mut headers = Headers::default();
    headers.push("content-type", "application/json");
    Completion {
        ended_at: Timestamp(1_700_000_000_100_000_000),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(HttpAnswer {
            status: 200,
            headers,
            body: kilobyte(),
        })),
        error: None,
    }
}

/// Whose it is.
pub(crate) fn context() -> Arc<Context> {
    Arc::new(Context {
        workflow_id: "workflow".into(),
        run_id: "run".into(),
        workflow_type: "agent".into(),
        task_queue: "openbox-sidecar".into(),
        activity: None,
    })
}

fn kilobyte() -> Capture {
    Capture {
        trailers: None,
        text: Some("{\"item\": \"value\"}, ".repeat(54)),
        bytes: 1_026,
        digest: None,
        state: Captured::Whole,
        ..Capture::default()
    }
}
