//! Every problem has a test: those that no other file shows, and a look at the
//! code for problems that none does.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use http::Request;
use http_body::Frame;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::agent::{self, AgentApi};
use super::testing::{Answer, World};
use crate::domain::{Reason, Stage, Verdict};
use crate::policy::Ruling;
use crate::policy::scripted::Scripted;

fn allowing() -> Scripted {
    Scripted::always(Verdict::Allow)
}

fn asking(reason: &str) -> Ruling {
    Ruling {
        reason: Some(Reason::from(reason)),
        policy: Some("p1".into()),
        ..Ruling::new(Verdict::RequireApproval, 0)
    }
}

/// Breaks off, or never comes.
struct Fed(Poll<Option<Result<Frame<Bytes>, std::io::ErrorKind>>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &self.0 {
            Poll::Ready(Some(Err(kind))) => Poll::Ready(Some(Err((*kind).into()))),
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn fed(world: &World, body: Fed) -> (u16, String) {
    let request = Request::builder()
        .method("POST")
        .uri("/v1/signals")
        .header("host", "localhost")
        .header(
            "authorization",
            format!("Bearer {}", world.agent.token.expose()),
        )
        .body(Body::new(body))
        .unwrap();
    answered(world.agent.router(), request).await
}

async fn answered(router: Router, request: Request<Body>) -> (u16, String) {
    let response: Result<_, Infallible> = router.oneshot(request).await;
    let response = response.unwrap();
    let status = response.status().as_u16();
    let text = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    let json: Value = serde_json::from_slice(&text).unwrap();
    (status, json["code"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_or_does_not_come_is_told() {
    let world = World::new(allowing());
    let broken = Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset)));
    assert_eq!(
        fed(&world, Fed(broken)).await,
        (400, "body_broke_off".to_owned())
    );
    let never = fed(&world, Fed(Poll::Pending)).await;
    assert_eq!(never, (408, "body_timeout".to_owned()));
}

#[tokio::test]
async fn a_path_that_is_no_text_is_told() {
    let world = World::new(allowing());
    let answer = world.agent.send("DELETE", "/v1/contexts/%ff", "").await;
    assert_eq!(answer.problem(), (400, "invalid_path".to_owned()));
}

#[tokio::test]
async fn what_a_sidecar_without_proxy_does_not_have_is_told() {
    let world = World::new(allowing());
    let bare = agent::router(AgentApi {
        gate: world.gate.clone(),
        token: world.agent.token.clone(),
        address: None,
        settings: agent::Settings::default(),
        signer: None,
        proxy_url: None,
        ca_path: None,
        ca_pem: None,
        environment: agent::Environment(Arc::new(|_| Err("a value has a line end".to_owned()))),
    });
    for (path, status, code) in [
        ("/v1/ca.pem", 404, "no_ca"),
        ("/v1/env", 409, "no_environment"),
    ] {
        let request = Request::builder()
            .uri(path)
            .header("host", "localhost")
            .header(
                "authorization",
                format!("Bearer {}", world.agent.token.expose()),
            )
            .body(Body::empty())
            .unwrap();
        let got = answered(bare.clone(), request).await;
        assert_eq!(got, (status, code.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn the_same_key_while_its_request_is_answered_is_told() {
    let world = World::new(
        allowing().on_events([Ok(Ruling::new(Verdict::Allow, 0)), Ok(asking("a person"))]),
    );
    let world = world.opened().await;
    let body = r#"{"workflow_id":"w","run_id":"r","activity_id":"a","activity_type":"t"}"#;
    let request = |wait: &str| {
        format!(
            "POST /v1/activities?wait={wait} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nidempotency-key: k\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            world.agent.token.expose(),
            body.len(),
        )
    };
    let [first, second] = [request("30s"), request("0")];
    let waiting = world.agent.raw(&first);
    let meanwhile = async {
        let id = loop {
            let all = world
                .operator
                .get("/v1/approvals?status=pending")
                .await
                .json();
            if let Some(id) = all["approvals"][0]["approval_id"].as_str() {
                break id.to_owned();
            }
        };
        let answer = world.agent.raw(&second).await;
        let path = format!("/v1/approvals/{id}/approve");
        assert_eq!(world.operator.post(&path, "{}").await.status, 200);
        answer
    };
    let (first, second): (Answer, Answer) = tokio::join!(waiting, meanwhile);
    assert_eq!(
        second.problem(),
        (409, "idempotency_in_progress".to_owned())
    );
    assert_eq!(first.json()["verdict"], "allow", "{first:?}");
}

/// Asks to call `tool` inside activity `id`. Each test calls each once, or an
/// approval of the first call would be about the second.
async fn call(world: &World, id: &str, tool: &str) -> Value {
    let body = json!({"name": tool, "activity_id": id}).to_string();
    world
        .agent
        .post("/v1/tools:submit?wait=0", &body)
        .await
        .json()
}

async fn start(world: &World, id: &str) {
    let body = json!({"workflow_id":"w","run_id":"r","activity_id":id,"activity_type":"t"});
    let told = world
        .agent
        .post("/v1/activities", &body.to_string())
        .await
        .json();
    assert_eq!(told["verdict"], "allow", "{told}");
}

async fn finish(world: &World, id: &str) {
    let path = format!("/v1/activities/{id}/complete");
    let told = world
        .agent
        .post(&path, r#"{"workflow_id":"w","run_id":"r"}"#)
        .await
        .json();
    assert_eq!(told["verdict"], "allow", "{told}");
}

async fn decide(world: &World, told: &Value, verb: &str, body: &str) -> Answer {
    let id = told["approval_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{told}"));
    world
        .operator
        .post(&format!("/v1/approvals/{id}/{verb}"), body)
        .await
}

#[tokio::test]
async fn a_word_about_an_activity_is_about_that_one_alone_while_it_is_open() {
    for (verb, body, verdict) in [
        (
            "approve",
            r#"{"scope":"activity","ttl":"5m","by":"ann"}"#,
            "allow",
        ),
        (
            "reject",
            r#"{"scope":"activity","ttl":"5m","by":"ann","reason":"no"}"#,
            "block",
        ),
    ] {
        let asks = || Ok(asking("tools need a person"));
        let rules = [asks(), asks(), asks(), Ok(asking("another rule")), asks()];
        let world = World::new(allowing().at(Stage::Started, rules))
            .opened()
            .await;
        start(&world, "a").await;
        start(&world, "b").await;
        let first = call(&world, "a", "t1").await;
        let decided = decide(&world, &first, verb, body).await;
        assert_eq!(decided.status, 200, "{decided:?}");
        let same = call(&world, "a", "t2").await;
        assert_eq!(same["verdict"], verdict, "{verb}: {same}");
        let other = call(&world, "b", "t3").await;
        assert_eq!(other["verdict"], "require_approval", "{verb}: {other}");
        let another_rule = call(&world, "a", "t4").await;
        assert_eq!(
            another_rule["verdict"], "require_approval",
            "{verb}: {another_rule}"
        );
        // The journal has who said what about how much.
        let journal = world.journal();
        let said = r#""by":"ann","scope":"activity","counts_for_s":300.0"#;
        assert!(journal.contains(said), "{journal}");
        // It is another activity, although it is called the same.
        finish(&world, "a").await;
        start(&world, "a").await;
        let again = call(&world, "a", "t5").await;
        assert_eq!(again["verdict"], "require_approval", "{verb}: {again}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_word_about_more_counts_no_longer_than_it_says() {
    let asks = || Ok(asking("tools need a person"));
    let world = World::new(allowing().at(Stage::Started, [asks(), asks(), asks()]));
    let run = r#"{"workflow_id":"w","run_id":"r"}"#;
    world.agent.direct("POST", "/v1/workflows", run).await;
    let call = async || {
        let call = r#"{"name":"t","workflow_id":"w","run_id":"r"}"#;
        let told = world
            .agent
            .direct("POST", "/v1/tools:submit?wait=0", call)
            .await;
        told.json()
    };
    let first = call().await;
    let path = format!(
        "/v1/approvals/{}/approve",
        first["approval_id"].as_str().unwrap()
    );
    let decided = world
        .operator
        .direct("POST", &path, r#"{"scope":"run","ttl":"60s"}"#)
        .await;
    assert_eq!(decided.status, 200, "{decided:?}");
    tokio::time::advance(std::time::Duration::from_secs(59)).await;
    assert_eq!(call().await["verdict"], "allow");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(call().await["verdict"], "require_approval");
}

#[tokio::test]
async fn a_word_about_what_has_ended_or_about_an_answer_decides_nothing() {
    let world = World::new(
        allowing()
            .at(Stage::Started, [Ok(asking("a person"))])
            .at(Stage::Completed, [Ok(asking("look at it first"))]),
    );
    let world = world.opened().await;
    let held = call(&world, "none", "t6").await;
    assert_eq!(held["code"], "unknown_activity", "{held}");
    start(&world, "a").await;
    let held = call(&world, "a", "t7").await;
    let done = world
        .agent
        .post("/v1/workflows/w/runs/r/complete", "{}")
        .await;
    assert_eq!(done.json()["verdict"], "allow", "{done:?}");
    let answer = decide(&world, &held, "approve", r#"{"scope":"run"}"#).await;
    assert_eq!(answer.problem(), (409, "no_run".to_owned()));
    // An answer that a person must see.
    let world = world.opened().await;
    start(&world, "a").await;
    let begun = call(&world, "a", "t8").await;
    let done = json!({"event_id": begun["event_id"], "result": 1}).to_string();
    let told = world.agent.post("/v1/tools:complete", &done).await.json();
    let approval = world
        .operator
        .get("/v1/approvals?status=pending")
        .await
        .json();
    let approval = approval["approvals"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["stage"] == "completed");
    let approval = approval.unwrap_or_else(|| panic!("{told}"));
    let answer = decide(&world, approval, "approve", r#"{"scope":"run"}"#).await;
    assert_eq!(answer.problem(), (409, "scope_not_applicable".to_owned()));
}

#[tokio::test]
async fn a_handoff_that_nobody_signed_is_refused_in_the_words_of_core() {
    let world = World::new(allowing());
    let body = json!({"target_agent_id": "a2", "reason": "refund"});
    let told = world
        .agent
        .post("/api/v1/handoffs", &body.to_string())
        .await;
    assert_eq!(told.status, 401, "{told:?}");
    assert_eq!(told.json()["reason_code"], "signature_invalid", "{told:?}");
}

#[tokio::test]
async fn a_hook_of_a_family_that_nobody_knows_is_told() {
    let world = World::new(allowing()).opened().await;
    let hook = json!({
        "source": "workflow-telemetry",
        "event_type": "ActivityStarted",
        "workflow_id": "w",
        "run_id": "r",
        "workflow_type": "t",
        "task_queue": "q",
        "timestamp": "2026-11-26T12:00:00Z",
        "activity_id": "a",
        "activity_type": "t",
        "attempt": 1,
        "hook_trigger": true,
        "spans": [{"hook_type": "telepathy", "stage": "started", "span_id": "1", "trace_id": "2"}],
    });
    let path = "/api/v1/governance/evaluate";
    let told = world.agent.post(path, &hook.to_string()).await;
    assert_eq!(told.status, 400, "{told:?}");
    assert_eq!(told.json()["reason_code"], "unknown_hook_type", "{told:?}");
}

/// Problems that a test cannot have: what they are about is a fault of ours.
const NEVER: [&str; 1] = ["internal"];

#[test]
fn every_problem_code_is_in_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut codes, mut tests) = (Vec::new(), String::new());
    for (path, text) in sources(&root.join("src/control")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let inside = text.find("#[cfg(test)]").unwrap_or(text.len());
        let only_tests = name.ends_with("tests.rs") || name == "testing.rs";
        let (production, tested) = text.split_at(if only_tests { 0 } else { inside });
        tests.push_str(tested);
        codes.extend(named(production));
    }
    for (_, text) in sources(&root.join("src/policy/core/wire")) {
        codes.extend(text.split("Unfit::new(").skip(1).filter_map(quoted));
    }
    for (_, text) in sources(&root.join("tests")) {
        tests.push_str(&text);
    }
    codes.sort_unstable();
    codes.dedup();
    assert!(codes.len() > 30, "{codes:?}");
    codes.retain(|code| !NEVER.contains(&code.as_str()));
    let missing: Vec<_> = codes
        .iter()
        .filter(|code| !tests.contains(&format!("\"{code}\"")))
        .collect();
    assert!(missing.is_empty(), "problems without a test: {missing:?}");
}

fn sources(folder: &Path) -> Vec<(std::path::PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            all.push((path, text));
        }
    }
    all
}

/// Codes that stand behind a status, and those of the functions that choose one.
fn named(text: &str) -> Vec<String> {
    let mut codes = Vec::new();
    for rest in text.split("StatusCode::").skip(1) {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == '_');
        if let Some(rest) = rest.strip_prefix(',') {
            codes.extend(quoted(rest));
        }
    }
    for chosen in ["ScopeError::", "Category::"] {
        for rest in text.split(chosen).skip(1) {
            let arm = rest.split_once("=>").map(|(_, arm)| arm);
            codes.extend(arm.and_then(|arm| quoted(arm.trim_start().trim_start_matches('('))));
        }
    }
    codes
}

/// The code that `text` begins with.
fn quoted(text: &str) -> Option<String> {
    let code = text.trim_start().strip_prefix('"')?.split('"').next()?;
    let fits = code
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (fits && !code.is_empty()).then(|| code.to_owned())
}
