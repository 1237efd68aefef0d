//! What SDKs tell is read as they mean it.

use serde_json::{Value, json};

use super::*;
use crate::domain::{Answer, Completion, EventKind, Outcome, Stage};
use crate::policy::core::told::{Hook, Told, What, polled, told};
use crate::policy::core::wire;

macro_rules! vector {
    ($path:literal) => {
        body(include_str!(concat!(
            "../../../../tests/golden/contract/",
            $path
        )))
    };
}

fn body(vector: &str) -> String {
    let vector: Value = serde_json::from_str(vector).unwrap();
    vector["request"]["body_raw"].as_str().unwrap().to_owned()
}

fn hook(text: &str) -> (Told, Hook) {
    let told = told(text.as_bytes()).unwrap();
    let What::Hook(hook) = told.what.clone() else {
        panic!("no hook: {told:?}");
    };
    (told, *hook)
}

/// The only span of `text`, with some fields replaced.
fn with_span(text: &str, fields: &Value) -> String {
    let mut whole: Value = serde_json::from_str(text).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        whole["spans"][0][name] = value.clone();
    }
    whole.to_string()
}

#[test]
fn what_a_hook_tells_is_told_on_as_it_was_told() {
    let vectors = [
        vector!("hook-http-requests/01-hook-http_request-started.json"),
        vector!("hook-http-requests/02-hook-http_request-completed.json"),
        vector!("hook-function-governed/01-hook-function_call-started.json"),
        vector!("hook-function-governed/02-hook-function_call-completed.json"),
    ];
    for text in vectors {
        let (told, hook) = hook(&text);
        let named = told.activity.unwrap();
        let operation = Operation {
            id: OperationId::new(0, 0),
            trace: hook.trace,
            span: hook.span,
            parent: hook.parent,
            started_at: hook.started_at.unwrap(),
            context: context(Some(ActivityRef {
                id: named.id,
                kind: named.kind.unwrap(),
                attempt: named.attempt,
                input: named.input,
            })),
            attribution: Attribution::Headers,
            fingerprint: None,
            action: hook.action,
            reported: Some(Box::new(hook.reported)),
        };
        let completion = (hook.stage == Stage::Completed).then(|| Completion {
            ended_at: hook.ended_at.unwrap(),
            outcome: Outcome::Answered,
            answer: hook.answer,
            error: hook.error,
        });
        let written = wire::operation(&operation, completion.as_ref());
        let written: Value = serde_json::from_slice(&written).unwrap();
        let given: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["spans"], given["spans"]);
        for name in [
            "agent_name",
            "agent_role",
            "session_id",
            "multi_agent_session_id",
            "workflow_id",
            "activity_id",
            "activity_type",
            "attempt",
            "activity_input",
        ] {
            assert_eq!(written[name], given[name], "{name}");
        }
    }
}

#[test]
fn what_an_sdk_gets_wrong_is_read_as_it_was_meant() {
    let urllib3 = vector!("temporal-1.1.0/hook-http-urllib3/02-hook-http_request-started.json");
    let httpx = vector!("temporal-1.1.0/hook-http-httpx-post/02-hook-http_request-started.json");
    let table = [
        (urllib3, "POST http://127.0.0.1:18087/u3?x=1", "/u3"),
        (httpx, "POST http://127.0.0.1:18087/items", "/items"),
    ];
    for (text, summary, path) in table {
        let (_, hook) = hook(&text);
        let Action::Http(call) = hook.action else {
            panic!("{summary}");
        };
        assert_eq!(format!("{} {}", call.method, call.url), summary);
        assert_eq!(
            (&*call.host, call.port, &*call.path),
            ("127.0.0.1", 18087, path)
        );
    }
    let completed = vector!("temporal-1.1.0/hook-http-urllib3/03-hook-http_request-completed.json");
    let (_, hook) = hook(&completed);
    assert!(matches!(hook.answer, Some(Answer::Http(answer)) if answer.status == 200));
}

#[test]
fn every_family_is_read() {
    let (_, file) = hook(&vector!(
        "temporal-1.1.0/hook-file-ops/07-hook-file_operation-completed-close.json"
    ));
    let Action::File(call) = &file.action else {
        panic!("{file:?}");
    };
    assert_eq!(
        (&*call.operation, call.mode.as_deref()),
        ("close", Some("w"))
    );
    assert!(matches!(&file.answer, Some(Answer::File(answer)) if answer.bytes_written > Some(0)));

    let (_, query) = hook(&vector!(
        "temporal-1.1.0/hook-db-sqlite3/02-hook-db_query-started.json"
    ));
    let Action::Database(call) = &query.action else {
        panic!("{query:?}");
    };
    assert_eq!((&*call.system, &*call.operation), ("sqlite", "CREATE"));
    assert_eq!(call.server_address, None, "one SDK says \"unknown\"");
    assert!(call.statement.digest.is_some());

    let (_, function) = hook(&vector!(
        "temporal-1.1.0/hook-function-traced/03-hook-function_call-completed.json"
    ));
    assert!(matches!(function.action, Action::Function(_)));
    let told = told(vector!("temporal-1.1.0/activity-failed/02-ActivityCompleted.json").as_bytes());
    let What::Lifecycle(EventKind::ActivityCompleted, fields) = told.unwrap().what else {
        panic!("an ActivityCompleted");
    };
    let field = |name: &str| &*fields.iter().find(|(n, _)| *n == name).unwrap().1.0;
    assert_eq!(field("status"), "\"failed\"");
    assert_eq!(field("activity_output"), "null");
    assert!(field("start_time").parse::<f64>().unwrap() > 1e9);
}

#[test]
fn a_url_is_split_however_it_is_spelled() {
    #[rustfmt::skip]
    let table = [
        ("https://u:p@API.example.com/v1?q=1#x", "https://api.example.com/v1?q=1", "https", "api.example.com", 443, "/v1"),
        ("http://[::1]:8080/a",                  "http://[::1]:8080/a",            "http",  "::1",          8080, "/a"),
        ("http://[::1]/a",                       "http://[::1]/a",                 "http",  "::1",            80, "/a"),
        ("wss://h?x",                            "https://h?x",                    "https", "h",             443, ""),
        ("http://h/p?u=http://i/",               "http://h/p?u=http://i/",         "http",  "h",              80, "/p"),
        ("http://h/p?key=1&q=2",                 "http://h/p?key=[REDACTED]&q=2",  "http",  "h",              80, "/p"),
        ("h/p",                                  "http://h/p",                     "http",  "h",              80, "/p"),
        ("http://h:notaport/p",                  "http://h:notaport/p",            "http",  "h",              80, "/p"),
    ];
    let text = vector!("hook-http-requests/01-hook-http_request-started.json");
    for (told, url, scheme, host, port, path) in table {
        let (_, hook) = hook(&with_span(&text, &json!({ "http_url": told })));
        let Action::Http(call) = hook.action else {
            panic!("{told}");
        };
        assert_eq!((&*call.url, call.scheme), (url, scheme), "{told}");
        assert_eq!(
            (&*call.host, call.port, &*call.path),
            (host, port, path),
            "{told}"
        );
    }
}

#[test]
fn numbers_nulls_and_secrets_of_a_span_are_taken_as_they_come() {
    let text = vector!("hook-http-requests/02-hook-http_request-completed.json");
    let fields = json!({
        "start_time": 1.795205533820371e18,
        "end_time": 1_795_205_533_820_370_880_u64,
        "http_status_code": 201.0,
        "parent_span_id": null,
        "request_headers": {"Authorization": "Bearer sk-1", "X-N": 5, "x-none": null},
        "request_body": "x".repeat(65_536),
        "response_body": {"a": 1},
        "attributes": null,
        "kind": null,
    });
    let (_, hook) = hook(&with_span(&text, &fields));
    assert_eq!(hook.started_at, Some(Timestamp(1_795_205_533_820_370_944)));
    assert_eq!(hook.ended_at, Some(Timestamp(1_795_205_533_820_370_880)));
    assert_eq!(hook.parent, None);
    assert_eq!(&*hook.reported.attributes.0, "{}");
    assert!(!format!("{hook:?}").contains("sk-1"));
    let Action::Http(call) = hook.action else {
        panic!("http");
    };
    assert_eq!(call.headers.last("x-n"), Some("5"));
    assert_eq!(call.body.state, Captured::Partial, "where SDKs cut");
    let Some(Answer::Http(answer)) = hook.answer else {
        panic!("an answer");
    };
    assert_eq!(
        (answer.status, answer.body.text.as_deref()),
        (201, Some(r#"{"a":1}"#))
    );
}

#[test]
fn a_hook_marked_as_a_tools_call_is_one() {
    let text = vector!("hook-http-requests/01-hook-http_request-started.json");
    let attributes = json!({"attributes": {"mcp.method": "callTool", "mcp.tool.name": "refund"}});
    let (_, hook) = hook(&with_span(&text, &attributes));
    let Action::Http(call) = hook.action else {
        panic!("http");
    };
    assert_eq!(call.tool.unwrap().name.as_deref(), Some("refund"));
}

#[test]
fn what_cannot_be_taken_is_named() {
    let text = vector!("hook-http-requests/01-hook-http_request-started.json");
    let event = |fields: Value| {
        let mut whole = json!({"event_type": "ActivityStarted", "workflow_id": "w",
            "run_id": "r", "activity_id": "a", "activity_type": "t"});
        for (name, value) in fields.as_object().unwrap() {
            whole[name] = value.clone();
        }
        whole.to_string()
    };
    let span = |fields: Value| with_span(&text, &fields);
    #[rustfmt::skip]
    let table = [
        ("[]".to_owned(),                              "malformed_json",     "not a JSON object"),
        ("{}".to_owned(),                              "missing_field",      "event_type"),
        (event(json!({"event_type": "Nonsense"})),     "unknown_event_type", "\"Nonsense\""),
        (event(json!({"run_id": null})),               "missing_field",      "run_id"),
        (event(json!({"run_id": ""})),                 "missing_field",      "run_id"),
        (event(json!({"run_id": 7})),                  "invalid_field",      "run_id"),
        (event(json!({"run_id": "a\nb"})),             "invalid_field",      "control"),
        (event(json!({"run_id": "x".repeat(1_025)})),  "invalid_field",      "1025"),
        (event(json!({"activity_id": null})),          "missing_field",      "activity_id"),
        (event(json!({"attempt": 0})),                 "invalid_field",      "attempt"),
        (event(json!({"attempt": "x"})),               "invalid_field",      "attempt"),
        (event(json!({"hook_trigger": true})),         "missing_field",      "spans"),
        (event(json!({"hook_trigger": true, "spans": []})), "invalid_field", "not 0"),
        (event(json!({"hook_trigger": "yes"})),        "invalid_field",      "hook_trigger"),
        (event(json!({"hook_trigger": true, "event_type": "ActivityCompleted"})), "invalid_field", "both stages"),
        (event(json!({"event_type": "SignalReceived"})), "missing_field",    "signal_name"),
        (span(json!({"hook_type": "dns"})),            "unknown_hook_type",  "dns"),
        (span(json!({"stage": "later"})),              "invalid_field",      "stage"),
        (span(json!({"span_id": "xyz"})),              "invalid_field",      "span_id"),
        (span(json!({"trace_id": null})),              "invalid_field",      "trace_id"),
        (span(json!({"http_url": null})),              "missing_field",      "http_url"),
    ];
    for (text, code, words) in table {
        let unfit = told(text.as_bytes()).map(drop).unwrap_err();
        assert_eq!(unfit.code, code, "{text}: {unfit:?}");
        assert!(unfit.message.contains(words), "{text}: {unfit:?}");
    }
    let poll = r#"{"workflow_id":"w","run_id":"r"}"#;
    assert_eq!(
        polled(poll.as_bytes()).map(drop).unwrap_err().code,
        "missing_field"
    );
}

#[test]
fn fields_of_an_event_are_what_core_keeps_of_them() {
    let fields = |body: &str| {
        let what = told(body.as_bytes()).unwrap().what;
        let What::Lifecycle(_, fields) = what else {
            panic!("{what:?}");
        };
        let all = fields
            .iter()
            .map(|(name, json)| format!("{name}={}", json.0));
        all.collect::<Vec<_>>().join(" ")
    };
    const OF: &str = r#""workflow_id":"w","run_id":"r","activity_id":"a","new_field":{"x":1}"#;
    #[rustfmt::skip]
    let table = [
        (r#"{"event_type":"WorkflowStarted",OF}"#,                              ""),
        (r#"{"event_type":"WorkflowStarted","activity_input":{"a":1},OF}"#,     r#"activity_input=[{"a":1}]"#),
        (r#"{"event_type":"WorkflowFailed","error":"no",OF}"#,                  r#"error={"type":"Exception","message":"no"}"#),
        (r#"{"event_type":"WorkflowFailed","error":null,OF}"#,                  "error=null"),
        (r#"{"event_type":"SignalReceived","signal_name":"s","signal_args":{"a":1},OF}"#, r#"signal_args=[{"a":1}] signal_name="s""#),
        (r#"{"event_type":"WorkflowCompleted","workflow_output":1.5,"multi_agent_session_id":"m",OF}"#, r#"multi_agent_session_id="m" workflow_output=1.5"#),
        (r#"{"event_type":"ActivityCompleted","result":5,"start_time":1.5,"end_time":2,OF}"#,
            r#"status="completed" start_time=1.5 end_time=2 activity_input=[] activity_output=5 error=null"#),
        (r#"{"event_type":"ActivityCompleted","error":"no","spans":[],OF}"#,
            r#"status="failed" spans=[] activity_input=[] activity_output=null error={"type":"Exception","message":"no"}"#),
    ];
    for (body, expected) in table {
        assert_eq!(fields(&body.replace("OF", OF)), expected, "{body}");
    }
}
