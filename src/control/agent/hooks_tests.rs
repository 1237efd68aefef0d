//! Operations that the agent tells: every family at both stages, tools, batches,
//! and requests that are sent twice.

use serde_json::{Value, json};

use crate::control::testing::{Answer, World};
use crate::domain::{Reason, Stage, Verdict};
use crate::policy::Ruling;
use crate::policy::scripted::Scripted;

fn allowing() -> Scripted {
    Scripted::always(Verdict::Allow)
}

/// `event_id` of a start that was let go.
fn begun(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(
        (answer.status, &json["verdict"]),
        (200, &json!("allow")),
        "{answer:?}"
    );
    json["event_id"].as_str().unwrap().to_owned()
}

/// Both records of an operation. The second is written within milliseconds.
async fn recorded(world: &World, id: &str) -> Vec<Value> {
    loop {
        let journal = world.journal();
        let lines = journal.lines().map(|l| serde_json::from_str(l).unwrap());
        let lines: Vec<Value> = lines.filter(|l: &Value| l["event_id"] == id).collect();
        if lines.len() >= 2 {
            return lines;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

async fn evaluate(world: &World, body: &Value) -> Answer {
    world.agent.post("/v1/evaluate", &body.to_string()).await
}

#[tokio::test]
async fn every_family_is_told_before_and_after() {
    let world = World::new(allowing()).opened().await;
    #[rustfmt::skip]
    let table = [
        // kind, what happens, how it went, protocol, what the journal has of it
        ("http_request", json!({"http_method":"POST","http_url":"https://api.example.com/v1/x","request_body":"{}"}),
         json!({"http_status_code":200,"response_body":"ok"}), "http", "https://api.example.com/v1/x"),
        ("db_query", json!({"db_system":"sqlite","db_statement":"select 1"}),
         json!({"rowcount":1}), "database", "SELECT"),
        ("function_call", json!({"function":"charge","module":"shop","args":[1]}),
         json!({"result":{"ok":true}}), "function", "charge"),
        ("mcp", json!({"function":"search","module":"web","args":{"q":"x"}}),
         json!({"error":"no"}), "function", "search"),
        ("llm", json!({"provider":"openai","model":"gpt-x","http_url":"https://api.openai.com/v1/chat/completions","request_body":"{}"}),
         json!({"http_status_code":200,"response_body":"{}"}), "http", "api.openai.com"),
        ("llm", json!({"provider":"local","model":"m"}), json!({"result":"hi"}), "function", "m"),
    ];
    for (kind, span, outcome, protocol, shown) in table {
        let start =
            json!({"kind":kind,"stage":"started","workflow_id":"w","run_id":"r","span":span});
        let answer = evaluate(&world, &start).await;
        assert_eq!(answer.json()["attribution"], "headers", "{kind}");
        let id = begun(&answer);
        let done = json!({"stage":"completed","event_id":id,"span":outcome});
        let answer = evaluate(&world, &done).await;
        assert_eq!(
            (answer.status, answer.json()["verdict"].clone()),
            (200, json!("allow")),
            "{kind}: {answer:?}"
        );
        let lines = recorded(&world, &id).await;
        let records: Vec<_> = lines
            .iter()
            .map(|line| line["record"].as_str().unwrap())
            .collect();
        assert_eq!(records, ["decision", "completion"], "{kind}: {lines:?}");
        assert_eq!(lines[0]["protocol"], protocol, "{kind}");
        assert!(lines[0].to_string().contains(shown), "{kind}: {}", lines[0]);
    }
}

#[tokio::test]
async fn everything_done_to_a_file_is_told_and_closing_it_has_the_totals() {
    let world = World::new(allowing()).opened().await;
    let all = [
        "open",
        "read",
        "readline",
        "readlines",
        "write",
        "writelines",
        "close",
        "delete",
    ];
    for operation in all {
        let start = json!({"kind":"file_operation","stage":"started","workflow_id":"w","run_id":"r",
            "span":{"file_path":"/tmp/x","file_mode":"w","file_operation":operation}});
        let id = begun(&evaluate(&world, &start).await);
        let done = json!({"stage":"completed","event_id":id,
            "span":{"bytes_read":5,"bytes_written":7,"lines_count":2}});
        assert_eq!(evaluate(&world, &done).await.json()["verdict"], "allow");
        let last = recorded(&world, &id).await[1].to_string();
        for part in [operation, "/tmp/x"] {
            assert!(last.contains(part), "{part}: {last}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_meant_has_a_code_of_its_own() {
    let world = World::new(allowing()).opened().await;
    let file = json!({"file_path":"/tmp/x","file_operation":"read"});
    #[rustfmt::skip]
    let table = [
        (json!({}),                                                        400, "missing_field"),
        (json!({"stage":"started"}),                                       400, "missing_field"),
        (json!({"stage":"begun"}),                                         400, "invalid_field"),
        (json!({"stage":"started","kind":"telepathy"}),                    400, "invalid_field"),
        (json!({"stage":"started","kind":"file_operation"}),               400, "missing_field"),
        (json!({"stage":"started","kind":"file_operation","span":{"file_path":"x","nobody_knows":1}}), 400, "invalid_field"),
        (json!({"stage":"started","kind":"file_operation","span":file,"run_id":"no"}), 404, "unknown_run"),
        (json!({"stage":"started","kind":"file_operation","span":file,"activity_id":"no"}), 404, "unknown_activity"),
        (json!({"stage":"started","kind":"file_operation","span":file,"traceparent":"x"}), 400, "invalid_field"),
        (json!({"stage":"completed","span":{}}),                           400, "missing_field"),
        (json!({"stage":"completed","event_id":"never"}),                  404, "completion_without_start"),
    ];
    for (body, status, code) in table {
        let answer = evaluate(&world, &body).await;
        assert_eq!(
            answer.problem(),
            (status, code.to_owned()),
            "{body}: {answer:?}"
        );
        assert!(answer.json()["event_id"].is_string());
    }
    let path = "/v1/activities/a/complete";
    assert_eq!(
        world.agent.post(path, "{}").await.problem().1,
        "completion_without_start"
    );
    let again = world
        .agent
        .post("/v1/workflows", r#"{"workflow_id":"w","run_id":"r"}"#)
        .await;
    assert_eq!(again.problem(), (409, "run_already_started".to_owned()));
    let event = r#"{"event_type":"WorkflowStarted","workflow_id":"w","run_id":"r"}"#;
    let again = world.agent.post("/v1/events", event).await;
    assert_eq!(again.problem(), (409, "run_already_started".to_owned()));
    // A second outcome is as one without a start.
    let start = json!({"kind":"file_operation","stage":"started","span":file});
    let id = begun(&evaluate(&world, &start).await);
    let done = json!({"stage":"completed","event_id":id});
    assert_eq!(evaluate(&world, &done).await.status, 200);
    assert_eq!(
        evaluate(&world, &done).await.problem().1,
        "completion_without_start"
    );
}

#[tokio::test]
async fn a_blocked_operation_is_answered_200_and_cannot_be_completed() {
    let ruling = Ruling {
        reason: Some(Reason::from("no")),
        ..Ruling::new(Verdict::Block, 0)
    };
    let world = World::new(allowing().at(Stage::Started, [Ok(ruling)]))
        .opened()
        .await;
    let call = json!({"name":"wire_money","arguments":{"to":"x"},"workflow_id":"w","run_id":"r"});
    let answer = world
        .agent
        .post("/v1/tools:submit", &call.to_string())
        .await;
    let json = answer.json();
    assert_eq!(
        (
            answer.status,
            &json["verdict"],
            &json["reason"],
            &json["code"]
        ),
        (200, &json!("block"), &json!("no"), &json!("blocked"))
    );
    let done = json!({"event_id": json["event_id"], "result": 1});
    let answer = world
        .agent
        .post("/v1/tools:complete", &done.to_string())
        .await;
    assert_eq!(answer.problem().1, "completion_without_start");
}

#[tokio::test]
async fn a_check_decides_nothing_and_a_submission_is_completed() {
    let asks = Ruling::new(Verdict::RequireApproval, 0);
    let world = World::new(allowing().at(Stage::Started, [Ok(asks)]))
        .opened()
        .await;
    let call = json!({"name":"search","server":"web","arguments":{"q":"x"},"workflow_id":"w","run_id":"r"});
    let before = world.journal();
    let answer = world.agent.post("/v1/tools:check", &call.to_string()).await;
    let json = answer.json();
    assert_eq!(
        (answer.status, &json["verdict"], &json["dry_run"]),
        (200, &json!("require_approval"), &json!(true))
    );
    assert_eq!(world.journal(), before);
    assert!(world.gate.approvals().is_empty());
    let id = begun(
        &world
            .agent
            .post("/v1/tools:submit", &call.to_string())
            .await,
    );
    let done = json!({"event_id": id, "result": {"hits": 3}});
    let answer = world
        .agent
        .post("/v1/tools:complete", &done.to_string())
        .await;
    assert_eq!(answer.json()["verdict"], "allow");
}

#[tokio::test]
async fn what_core_judges_cannot_be_tried() {
    let world = World::new(allowing().polled([]));
    let answer = world.agent.post("/v1/tools:check", r#"{"name":"x"}"#).await;
    assert_eq!(answer.problem(), (409, "no_dry_run".to_owned()));
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order_and_each_as_if_alone() {
    let refuses = Ruling::new(Verdict::Block, 0);
    let script = [Ok(Ruling::new(Verdict::Allow, 0)), Ok(refuses)];
    let world = World::new(allowing().at(Stage::Started, script))
        .opened()
        .await;
    let call =
        |name: &str| json!({"kind":"function_call","stage":"started","span":{"function":name}});
    let body = json!({"operations":[call("a"), call("b"), {"stage":"started"}, call("d")]});
    let answer = world
        .agent
        .post("/v1/evaluate:batch", &body.to_string())
        .await;
    let json = answer.json();
    let said: Vec<_> = json["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["status"].as_u64().unwrap(),
                one["body"]["verdict"].as_str(),
                one["body"]["code"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (200, Some("allow"), None),
            (200, Some("block"), Some("blocked")),
            (400, None, Some("missing_field")),
            (200, Some("allow"), None),
        ]
    );
    for body in [
        json!({}),
        json!({"operations":[]}),
        json!({"operations":vec![call("a"); 101]}),
    ] {
        let answer = world
            .agent
            .post("/v1/evaluate:batch", &body.to_string())
            .await;
        assert_eq!(answer.problem(), (400, "invalid_field".to_owned()));
    }
}

async fn keyed(world: &World, path: &str, key: &str, body: &str) -> Answer {
    world
        .agent
        .raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nidempotency-key: {key}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            world.agent.address,
            world.agent.token.expose(),
            body.len(),
        ))
        .await
}

#[tokio::test]
async fn a_key_does_a_request_once() {
    let world = World::new(allowing());
    let body = r#"{"workflow_id":"w","run_id":"r"}"#;
    let first = keyed(&world, "/v1/workflows", "k1", body).await;
    let again = keyed(&world, "/v1/workflows", "k1", body).await;
    assert_eq!((first.status, &first.text), (200, &again.text));
    assert!(!first.head.contains("idempotency-replayed"));
    assert!(again.head.contains("idempotency-replayed: true"));
    assert_eq!(world.journal().matches("WorkflowStarted").count(), 1);
    let other = keyed(&world, "/v1/workflows", "k1", r#"{"workflow_id":"x"}"#).await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused".to_owned()));
    for key in ["", &"k".repeat(256), "a\r\nidempotency-key: b"] {
        let answer = keyed(&world, "/v1/workflows", key, body).await;
        assert_eq!(
            answer.problem(),
            (400, "invalid_idempotency_key".to_owned()),
            "{key}"
        );
    }
    // A problem is none to stay.
    let missing = keyed(&world, "/v1/signals", "k2", "{}").await;
    assert_eq!(missing.status, 400);
    let body = r#"{"workflow_id":"w","run_id":"r","signal_name":"s"}"#;
    assert_eq!(keyed(&world, "/v1/signals", "k2", body).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_a_person_may_change_is_not_remembered() {
    let asks = Ruling::new(Verdict::RequireApproval, 0);
    let script = [Ok(Ruling::new(Verdict::Allow, 0)), Ok(asks)];
    let world = World::new(allowing().on_events(script)).opened().await;
    let body = r#"{"workflow_id":"w","run_id":"r","activity_type":"t","activity_id":"a"}"#;
    let first = keyed(&world, "/v1/activities?wait=0", "k", body).await;
    assert_eq!(first.status, 202, "{first:?}");
    let id = first.json()["approval_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/approvals/{id}/approve");
    assert_eq!(world.operator.post(&path, "").await.status, 200);
    let second = keyed(&world, "/v1/activities?wait=0", "k", body).await;
    assert_eq!(
        (second.status, &second.json()["verdict"]),
        (200, &json!("allow"))
    );
}

#[tokio::test]
async fn the_document_has_every_route_and_the_environment_every_format() {
    let world = World::new(allowing());
    let document = world.agent.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for path in [
        "/v1/workflows",
        "/v1/evaluate",
        "/v1/evaluate:batch",
        "/v1/tools:check",
        "/v1/contexts/{name}",
        "/v1/approvals/{id}",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    for (query, said) in [
        ("", "Sh"),
        ("?format=dotenv", "Dotenv"),
        ("?format=json", "Json"),
    ] {
        assert_eq!(world.agent.get(&format!("/v1/env{query}")).await.text, said);
    }
    let answer = world.agent.get("/v1/env?format=xml").await;
    assert_eq!(answer.problem(), (400, "invalid_query".to_owned()));
}
