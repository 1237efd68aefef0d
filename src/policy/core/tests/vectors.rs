//! What we send is what the SDK sent.

use serde_json::Value;

use super::*;
use crate::domain::{
    Answer, Completion, DatabaseAnswer, DatabaseCall, Event, EventKind, FileAnswer, FileCall,
    FunctionAnswer, FunctionCall, HttpAnswer, Outcome, Reported, ToolCall,
};
use crate::policy::core::{subject, wire};

macro_rules! vector {
    ($path:literal) => {
        include_str!(concat!("../../../../tests/golden/contract/", $path))
    };
}

/// The body of a vector, without the fields only that test of the SDK had.
fn body(vector: &str) -> String {
    let vector: Value = serde_json::from_str(vector).unwrap();
    let body = vector["request"]["body_raw"].as_str().unwrap();
    body.replace(r#""agent_name":"researcher","agent_role":"analyst","session_id":"sess-1","multi_agent_session_id":"mas-1","#, "")
        .replace(r#""custom_key":"custom","#, "")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn completed(ended_at: u64, body: &str, fields: &[(&str, &str)]) -> Completion {
    Completion {
        ended_at: Timestamp(ended_at),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(HttpAnswer {
            status: 200,
            headers: headers(fields),
            body: whole(body),
        })),
        error: None,
    }
}

fn http(operation: &mut Operation) -> &mut HttpCall {
    let Action::Http(call) = &mut operation.action else {
        panic!("an HTTP request");
    };
    call
}

const ANSWERED: [(&str, &str); 5] = [
    ("Server", "mock-core Python/3.11.7"),
    ("Date", "Fri, 20 Nov 2026 20:12:13 GMT"),
    ("Content-Type", "application/json"),
    ("Set-Cookie", "[REDACTED]"),
    ("X-Api-Key", "[REDACTED]"),
];

#[test]
fn a_post_is_told_as_the_sdk_tells_it() {
    let mut operation = operation(context(Some(activity())));
    assert_eq!(
        text(wire::operation(&operation, None)),
        body(vector!(
            "hook-http-requests/01-hook-http_request-started.json"
        ))
    );
    let trace = "00-5c055c74a9b039f8f9426ec9cf9f37d4-b2be242e1afcd25b-01";
    http(&mut operation).headers.push("traceparent", trace);
    let mut fields = ANSWERED.to_vec();
    fields.push(("Content-Length", "40"));
    let said = r#"{"echo": "{\"a\": 1}", "path": "/items"}"#;
    let completion = completed(1_795_205_533_649_198_629, said, &fields);
    assert_eq!(
        text(wire::operation(&operation, Some(&completion))),
        body(vector!(
            "hook-http-requests/02-hook-http_request-completed.json"
        ))
    );
}

#[test]
fn a_get_without_a_body_is_told_as_the_sdk_tells_it() {
    let mut context = Context::clone(&context(Some(activity())));
    context.workflow_id = "wf-a".into();
    let mut operation = operation(Arc::new(context));
    operation.trace = TraceId(0xd79a_8ad2_3811_21b3_3251_9b32_05b4_b1d1);
    operation.span = SpanId(0xae27_01fc_fd88_fb9f);
    operation.started_at = Timestamp(1_795_205_534_037_424_908);
    let call = http(&mut operation);
    call.method = "GET".into();
    call.url = "http://127.0.0.1:18087/x".into();
    call.body = Capture::default();
    call.headers = headers(&[
        ("User-Agent", "python-requests/2.34.2"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Accept", "*/*"),
        ("Connection", "keep-alive"),
    ]);
    assert_eq!(
        text(wire::operation(&operation, None)),
        body(vector!(
            "hook-started-require-approval-with-id/01-hook-http_request-started.json"
        ))
    );
    let trace = "00-d79a8ad2381121b332519b3205b4b1d1-ae2701fcfd88fb9f-01";
    http(&mut operation).headers.push("traceparent", trace);
    let mut fields = ANSWERED.to_vec();
    fields[1].1 = "Fri, 20 Nov 2026 20:12:14 GMT";
    fields.push(("Content-Length", "26"));
    let said = r#"{"echo": "", "path": "/x"}"#;
    let completion = completed(1_795_205_534_129_307_019, said, &fields);
    assert_eq!(
        text(wire::operation(&operation, Some(&completion))),
        body(vector!(
            "hook-started-require-approval-with-id/03-hook-http_request-completed.json"
        ))
    );
}

#[test]
fn lifecycle_events_are_told_as_the_sdk_tells_them() {
    let tool = |id: &str, input: &str| ActivityRef {
        id: id.into(),
        kind: "tool".into(),
        attempt: 1,
        input: JsonText(input.into()),
    };
    // kind, activity, milliseconds, fields, vector
    type Row = (
        EventKind,
        Option<ActivityRef>,
        u64,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    let table: [Row; 6] = [
        (
            EventKind::WorkflowStarted,
            None,
            8_907,
            &[
                ("multi_agent_session_id", r#""mas-1""#),
                ("activity_input", r#"[1, "two"]"#),
            ],
            vector!("lifecycle-all/01-WorkflowStarted.json"),
        ),
        (
            EventKind::SignalReceived,
            None,
            8_956,
            &[
                ("signal_args", r#"["hello"]"#),
                ("signal_name", r#""user_message""#),
            ],
            vector!("lifecycle-all/02-SignalReceived.json"),
        ),
        (
            EventKind::ActivityStarted,
            Some(tool("a1", r#"[{"q":"x"}]"#)),
            9_001,
            &[],
            vector!("lifecycle-all/03-ActivityStarted.json"),
        ),
        (
            EventKind::ActivityCompleted,
            Some(tool("a1", "[]")),
            9_052,
            &[("status", r#""completed""#), ("result", r#"{"ok":true}"#)],
            vector!("lifecycle-all/04-ActivityCompleted.json"),
        ),
        (
            EventKind::WorkflowCompleted,
            None,
            9_148,
            &[("workflow_output", r#"{"r":1}"#)],
            vector!("lifecycle-all/06-WorkflowCompleted.json"),
        ),
        (
            EventKind::WorkflowFailed,
            None,
            9_192,
            &[("error", r#"{"type":"Exception","message":"boom"}"#)],
            vector!("lifecycle-all/07-WorkflowFailed.json"),
        ),
    ];
    for (kind, activity, milliseconds, fields, vector) in table {
        let event = Event {
            id: OperationId::new(1, 2),
            kind,
            context: Arc::new(Context {
                workflow_id: "wf-base".into(),
                run_id: "run-base".into(),
                workflow_type: "BaseWorkflow".into(),
                task_queue: "base-queue".into(),
                activity,
            }),
            at: Timestamp((1_795_205_520_000 + milliseconds) * 1_000_000),
            fields: fields
                .iter()
                .map(|(name, json)| (*name, JsonText((*json).into())))
                .collect(),
        };
        assert_eq!(text(wire::event(&event)), body(vector));
    }
}

#[test]
fn an_input_given_twice_is_told_once() {
    let event = Event {
        id: OperationId::new(1, 2),
        kind: EventKind::ActivityStarted,
        context: context(Some(activity())),
        at: Timestamp(0),
        fields: vec![("activity_input", JsonText("[7]".into()))],
    };
    let told = text(wire::event(&event));
    assert_eq!(told.matches("activity_input").count(), 1);
    assert!(told.contains(r#""activity_input":[7]"#));
}

#[test]
fn a_poll_asks_with_the_three_ids() {
    let mut context = Context::clone(&context(Some(ActivityRef {
        id: "act".into(),
        ..activity()
    })));
    (context.workflow_id, context.run_id) = ("wf".into(), "run".into());
    let asked = wire::approval(&context).unwrap();
    assert_eq!(
        text(asked),
        body(vector!("approval-poller/01-approval.json"))
    );
    context.activity = None;
    assert!(wire::approval(&context).is_none());
}

/// What Core is told about the activity of an operation.
fn told(operation: &Operation) -> [Value; 3] {
    let json: Value = serde_json::from_slice(&wire::operation(operation, None)).unwrap();
    ["activity_id", "activity_type", "activity_input"].map(|name| json[name].clone())
}

#[test]
fn outside_any_activity_an_operation_is_its_own_activity() {
    let mut operation = operation(context(None));
    let fingerprint = "ab".repeat(16);
    assert_eq!(
        told(&operation),
        [
            fingerprint.as_str().into(),
            "http_request".into(),
            Value::Array(vec![])
        ]
    );
    assert_eq!(
        &*subject(&operation).activity.as_ref().unwrap().id,
        fingerprint
    );
    operation.fingerprint = None;
    let id = operation.id.to_string();
    assert_eq!(told(&operation)[0], id);
    assert_eq!(&*subject(&operation).activity.as_ref().unwrap().id, id);
    operation.context = context(Some(activity()));
    assert_eq!(told(&operation)[0], "act-1");
    assert!(Arc::ptr_eq(&subject(&operation), &operation.context));
}

#[test]
fn what_went_wrong_and_what_was_not_seen_is_told() {
    let mut operation = operation(context(None));
    operation.parent = Some(SpanId(7));
    let call = http(&mut operation);
    call.body.state = Captured::Partial;
    call.headers.push("accept", "text/ä");
    let mut completion = completed(
        1_795_205_533_649_198_629,
        "",
        &[("Set-Cookie", "a"), ("set-cookie", "b")],
    );
    let Some(Answer::Http(answer)) = &mut completion.answer else {
        panic!()
    };
    answer.body = Capture {
        state: Captured::Skipped,
        bytes: 9,
        ..Capture::default()
    };
    let span = |completion: &Completion| -> Value {
        let sent = wire::operation(&operation, Some(completion));
        assert!(sent.is_ascii());
        published::span(&sent)
    };
    let seen = span(&completion);
    assert_eq!(seen["parent_span_id"], "0000000000000007");
    assert_eq!(seen["error"], Value::Null);
    assert_eq!(
        seen["attributes"]["openbox.http.request_body.partial"],
        true
    );
    assert_eq!(
        seen["attributes"]["openbox.http.response_body.partial"],
        true
    );
    assert_eq!(seen["request_headers"]["Accept"], "*/*, text/ä");
    assert_eq!(
        seen["response_headers"],
        serde_json::json!({"Set-Cookie": "a, b"})
    );
    for (outcome, error, told) in [
        (
            Outcome::Failed,
            Some("connection refused"),
            "connection refused",
        ),
        (Outcome::Failed, None, "failed"),
        (Outcome::Abandoned, None, "abandoned"),
    ] {
        completion.answer = None;
        completion.outcome = outcome;
        completion.error = error.map(Into::into);
        let seen = span(&completion);
        assert_eq!(seen["error"], told);
        assert_eq!(seen["http_status_code"], Value::Null);
        assert_eq!(seen["response_headers"], Value::Null);
    }
}

#[test]
fn a_function_that_a_hook_told_of_is_told_as_the_sdk_tells_it() {
    let mut operation = operation(context(Some(activity())));
    operation.trace = TraceId(0x2bde_b6b1_216f_21b9_f34a_1f57_5fad_974f);
    operation.span = SpanId(0xffdf_a845_dd48_2a99);
    operation.started_at = Timestamp(1_795_205_533_820_370_880);
    operation.action = Action::Function(FunctionCall {
        function: "charge".into(),
        module: Some("__main__".into()),
        arguments: Some(JsonText(
            r#"{"args":[5],"kwargs":{"currency":"eur"}}"#.into(),
        )),
    });
    operation.reported = Some(Box::new(Reported {
        name: "function billing.charge".into(),
        kind: "INTERNAL".into(),
        attributes: JsonText("{}".into()),
        envelope: Vec::new(),
    }));
    assert_eq!(
        text(wire::operation(&operation, None)),
        body(vector!(
            "hook-function-governed/01-hook-function_call-started.json"
        ))
    );
    let completion = Completion {
        ended_at: Timestamp(1_795_205_533_820_373_281),
        outcome: Outcome::Answered,
        answer: Some(Answer::Function(FunctionAnswer {
            result: Some(JsonText(r#"{"charged":5,"currency":"eur"}"#.into())),
        })),
        error: None,
    };
    // A completed hook is sent when it is posted, not when its span ended.
    let sent = text(wire::operation(&operation, Some(&completion)));
    assert_eq!(
        sent.replace("20:12:13.820Z", "20:12:13.864Z"),
        body(vector!(
            "hook-function-governed/02-hook-function_call-completed.json"
        ))
    );
}

/// The one span of what Core is told.
fn span(operation: &Operation, completion: Option<&Completion>) -> Value {
    published::span(&wire::operation(operation, completion))
}

/// The fields of `span` after those that every family has.
fn family(span: &Value) -> Value {
    let mut span = span.clone();
    let fields = span.as_object_mut().unwrap();
    for common in [
        "span_id",
        "trace_id",
        "parent_span_id",
        "stage",
        "start_time",
        "end_time",
        "duration_ns",
        "status",
        "events",
        "error",
    ] {
        assert!(fields.remove(common).is_some(), "{common}");
    }
    span
}

#[test]
fn statements_are_told_with_every_field_of_their_family() {
    let mut operation = operation(context(Some(activity())));
    let call = DatabaseCall {
        system: "postgresql".into(),
        name: Some("postgres".into()),
        user: Some("reader".into()),
        operation: "INSERT".into(),
        statement: whole("INSERT INTO t VALUES ($1), ($2)"),
        server_address: Some("127.0.0.1".into()),
        server_port: Some(15499),
        reading: None,
        told: crate::domain::Told::AsItIs,
    };
    operation.action = Action::Database(call.clone());
    let mut expected = serde_json::json!({
        "name": "db INSERT", "kind": "INTERNAL", "hook_type": "db_query",
        "attributes": {"db.system": "postgresql", "db.user": "reader"},
        "db_system": "postgresql", "db_name": "postgres", "db_operation": "INSERT",
        "db_statement": "INSERT INTO t VALUES ($1), ($2)",
        "server_address": "127.0.0.1", "server_port": 15499, "rowcount": null,
    });
    assert_eq!(family(&span(&operation, None)), expected);
    let mut completion = completed(1_795_205_533_820_373_281, "", &[]);
    completion.answer = Some(Answer::Database(DatabaseAnswer { rows: Some(2) }));
    expected["rowcount"] = 2.into();
    assert_eq!(family(&span(&operation, Some(&completion))), expected);

    // A command of Redis is named by itself; what was not seen whole is marked.
    let mut statement = whole("SET k v");
    statement.state = Captured::Partial;
    operation.action = Action::Database(DatabaseCall {
        system: "redis".into(),
        name: None,
        user: None,
        operation: "SET".into(),
        statement,
        server_address: None,
        server_port: None,
        reading: None,
        told: crate::domain::Told::AsItIs,
    });
    let seen = family(&span(&operation, None));
    assert_eq!(seen["name"], "SET");
    assert_eq!(seen["kind"], "CLIENT");
    assert_eq!(seen["attributes"]["openbox.db.statement.partial"], true);
    for unknown in ["db_name", "server_address", "server_port", "rowcount"] {
        assert_eq!(seen[unknown], Value::Null, "{unknown}");
    }
}

#[test]
fn files_are_told_with_every_field_of_their_family() {
    let mut operation = operation(context(Some(activity())));
    operation.action = Action::File(FileCall {
        path: "/srv/report.csv".into(),
        mode: Some("w".into()),
        operation: "write".into(),
    });
    let mut expected = serde_json::json!({
        "name": "file.write", "kind": "INTERNAL", "hook_type": "file_operation",
        "attributes": {"file.path": "/srv/report.csv", "file.mode": "w"},
        "file_path": "/srv/report.csv", "file_mode": "w", "file_operation": "write",
        "bytes_read": null, "bytes_written": null, "lines_count": null,
    });
    assert_eq!(family(&span(&operation, None)), expected);
    let mut completion = completed(1_795_205_533_820_373_281, "", &[]);
    completion.answer = Some(Answer::File(FileAnswer {
        bytes_read: None,
        bytes_written: Some(12),
        lines: Some(1),
    }));
    expected["bytes_written"] = 12.into();
    expected["lines_count"] = 1.into();
    assert_eq!(family(&span(&operation, Some(&completion))), expected);
    // An answer of another family says nothing of a file.
    completion.answer = Some(Answer::Database(DatabaseAnswer { rows: Some(2) }));
    assert_eq!(
        family(&span(&operation, Some(&completion)))["bytes_written"],
        Value::Null
    );
}

#[test]
fn a_tool_that_a_request_calls_is_told_as_cores_classifier_looks_for_it() {
    let mut operation = operation(context(None));
    http(&mut operation).tool = Some(ToolCall {
        name: Some("pay".into()),
    });
    let attributes = &span(&operation, None)["attributes"];
    assert_eq!(attributes["mcp.method"], "callTool");
    assert_eq!(attributes["gen_ai.tool.name"], "pay");
}
