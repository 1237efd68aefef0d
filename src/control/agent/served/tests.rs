//! The served routes over a socket, as SDKs use them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::testing::{Answer, Api, World};
use crate::domain::{ApprovalId, JsonText, Reason, Stage, Verdict};
use crate::gate::FailMode;
use crate::policy::scripted::Scripted;
use crate::policy::{Approval, ApprovalState, Finding, Guardrails, PolicyError, Ruling, Side};

const EVALUATE: &str = "/api/v1/governance/evaluate";
const APPROVAL: &str = "/api/v1/governance/approval";

fn allowing() -> Scripted {
    Scripted::always(Verdict::Allow)
}

fn say(verdict: Verdict) -> Result<Ruling, PolicyError> {
    Ok(Ruling {
        reason: Some(Reason::from("because")),
        policy: Some("p1".into()),
        ..Ruling::new(verdict, 0)
    })
}

fn event(kind: &str) -> String {
    json!({"source": "workflow-telemetry", "event_type": kind, "workflow_id": "w", "run_id": "r",
        "workflow_type": "t", "task_queue": "q", "activity_id": "a", "activity_type": "refund",
        "attempt": 1, "activity_input": [5], "signal_name": "s",
        "from_agent_did": "did:aip:1", "multi_agent_session_id": "m", "timestamp": "2026-11-20T20:12:13.820Z"})
    .to_string()
}

fn span(span: u64, stage: &str, url: &str) -> Value {
    let mut told = json!({"span_id": format!("{span:016x}"), "trace_id": format!("{:032x}", 9),
        "parent_span_id": null, "name": "POST", "kind": "CLIENT", "stage": stage,
        "start_time": 1_795_205_533_820_370_880_u64, "end_time": null, "attributes": {},
        "hook_type": "http_request", "http_method": "POST", "http_url": url,
        "request_body": "{}", "request_headers": {}});
    if stage == "completed" {
        told["end_time"] = json!(1_795_205_533_920_370_880_u64);
        told["http_status_code"] = json!(200);
    }
    told
}

fn hook(told: &Value) -> String {
    let mut whole: Value = serde_json::from_str(&event("ActivityStarted")).unwrap();
    whole["hook_trigger"] = json!(true);
    whole["span_count"] = json!(1);
    whole["spans"] = json!([told]);
    whole.to_string()
}

const URL: &str = "https://api.example.com/refunds";
const POLL: &str = r#"{"workflow_id":"w","run_id":"r","activity_id":"a"}"#;

impl Api {
    async fn evaluate(&self, body: &str) -> Value {
        let answer = self.post(EVALUATE, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn verdict(&self, body: &str) -> String {
        let said = self.evaluate(body).await;
        assert_eq!(said["verdict"], said["action"], "{said}");
        said["verdict"].as_str().unwrap().to_owned()
    }

    async fn poll(&self) -> Value {
        let answer = self.post(APPROVAL, POLL).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

impl World {
    /// The decisions of the journal of one kind of record are, or soon will
    /// be, `expected`: confirmations are written a little later.
    async fn recorded(&self, kind: &str, expected: &[&str]) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let text = self.journal();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            let found: Vec<_> = lines
                .filter(|line: &Value| line["record"] == kind)
                .map(|line| line["decision"].as_str().unwrap().to_owned())
                .collect();
            if found == expected {
                return;
            }
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "{kind}: {found:?} is not {expected:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn decide(&self, decide: impl Fn(&ApprovalId)) {
        let pending = self.gate.approvals();
        let pending = pending
            .iter()
            .filter(|view| view.state == crate::gate::hold::State::Pending);
        let ids: Vec<_> = pending.map(|view| view.id.clone()).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        decide(&ids[0]);
    }

    fn approve(&self) {
        self.decide(|id| drop(self.gate.approve(id, "test").unwrap()));
    }
}

/// Status and `reason_code` of a complaint in Core's form.
fn complaint(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    assert_eq!(json["code"], answer.status, "{answer:?}");
    assert!(!json["message"].as_str().unwrap().is_empty(), "{answer:?}");
    (
        answer.status,
        json["reason_code"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn a_key_is_recognised_and_a_wrong_one_is_told_apart() {
    let world = World::new(allowing());
    let hello = world
        .agent
        .raw("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    assert_eq!((hello.status, hello.text.as_str()), (200, "hello world"));
    let known = world.agent.get("/api/v1/auth/validate").await;
    assert_eq!(known.status, 200, "{known:?}");
    assert_eq!(known.json()["valid"], true);
    assert_eq!(known.json()["environment"], "test");
    for (route, body) in [
        ("GET /api/v1/auth/validate", ""),
        ("POST /api/v1/governance/evaluate", "{}"),
    ] {
        for key in ["", "authorization: Bearer obx_test_wrong\r\n"] {
            let length = body.len();
            let text = format!(
                "{route} HTTP/1.1\r\nhost: localhost\r\n{key}content-length: {length}\r\n\r\n{body}"
            );
            let answer = world.agent.raw(&text).await;
            assert_eq!(complaint(&answer), (401, "invalid_api_key".to_owned()));
            assert!(
                answer.head.contains("www-authenticate: bearer"),
                "{answer:?}"
            );
        }
    }
    let page = "GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    assert_eq!(world.agent.raw(page).await.status, 200, "says nothing");
    let page = "GET /api/v1/auth/validate HTTP/1.1\r\nhost: evil.example\r\n\r\n";
    assert_eq!(world.agent.raw(page).await.status, 403);
}

/// An SDK that fails open takes every status but 401 and 403 for a yes.
#[tokio::test]
async fn identities_that_cannot_be_checked_are_turned_away_loudly() {
    let world = World::new(allowing());
    let unchecked = (401, "verifier_not_configured".to_owned());
    for version in ["v2", "v3"] {
        let path = |route: &str| format!("/api/{version}/{route}");
        let event = event("WorkflowStarted");
        for route in ["governance/evaluate", "governance/approval", "handoffs"] {
            let answer = world.agent.post(&path(route), &event).await;
            assert_eq!(complaint(&answer), unchecked, "{version} {route}");
        }
        let answer = world.agent.get(&path("auth/validate")).await;
        assert_eq!(complaint(&answer), unchecked, "{version}");
    }
    // An SDK with a workload's key goes on without; one of Okta is told why not.
    for (version, code) in [
        ("v3", "workload_identity_unavailable"),
        ("v2", "identity_method_mismatch"),
    ] {
        let answer = world
            .agent
            .get(&format!("/api/{version}/auth/bootstrap"))
            .await;
        assert_eq!(complaint(&answer), (409, code.to_owned()));
        let stranger =
            format!("GET /api/{version}/auth/bootstrap HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let answer = world.agent.raw(&stranger).await;
        assert_eq!(complaint(&answer), (401, "invalid_api_key".to_owned()));
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_a_complaint_of_core() {
    let world = World::new(allowing());
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let large = format!("{{\"metadata\":\"{}\"}}", "x".repeat(4 * 1024 * 1024));
    #[rustfmt::skip]
    let table = [
        ("POST", EVALUATE, "nonsense",                                        400, "malformed_json"),
        ("POST", EVALUATE, "[]",                                              400, "malformed_json"),
        ("POST", EVALUATE, "",                                                400, "malformed_json"),
        ("POST", EVALUATE, r#"{"event_type":"X","workflow_id":"w","run_id":"r"}"#, 400, "unknown_event_type"),
        ("POST", EVALUATE, &deep,                                             400, "too_deep"),
        ("POST", EVALUATE, &large,                                            413, "too_large"),
        ("GET",  EVALUATE, "",                                                405, "method_not_allowed"),
        ("POST", APPROVAL, r#"{"workflow_id":"w","run_id":"r"}"#,             400, "missing_field"),
        ("POST", APPROVAL, POLL,                                              404, "unknown_approval"),
    ];
    for (method, path, body, status, code) in table {
        let answer = world.agent.send(method, path, body).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(
            complaint(&answer),
            (status, code.to_owned()),
            "{method} {path} {shown}"
        );
    }
    let hits = world.gate.metrics().render();
    let hits = hits
        .lines()
        .find(|l| l.starts_with("openbox_limit_hits_total{limit=\"too_large\"}"));
    assert_eq!(hits.unwrap().rsplit(' ').next(), Some("1"));
}

#[tokio::test]
async fn every_answer_of_policy_is_told_in_cores_words() {
    let redacted = Ok(Ruling {
        redacted: Some(JsonText("[\"***\"]".into())),
        ..Ruling::new(Verdict::Allow, 0)
    });
    let found = Ok(Ruling {
        guardrails: Some(Arc::new(Guardrails {
            side: Side::Input,
            passed: false,
            findings: vec![Finding {
                kind: "pii".into(),
                field: "input.0.card".into(),
                reason: "a card number".into(),
            }],
        })),
        ..Ruling::new(Verdict::Block, 0)
    });
    let violating = Ok(Ruling {
        violations: vec!["look first".into()],
        ..Ruling::new(Verdict::Block, 0)
    });
    let constrained = Ok(Ruling {
        constraints: vec!["read_only".into()],
        ..Ruling::new(Verdict::Constrain, 0)
    });
    let unavailable = || Err(PolicyError::Unavailable(Reason::from("gone")));
    #[rustfmt::skip]
    let table = [
        // answer                fail mode         verdict             further
        (say(Verdict::Allow),    FailMode::Closed, "allow",            json!({"reason": "because", "policy_id": "p1", "fallback_used": false, "risk_score": 0.0})),
        (constrained,            FailMode::Closed, "constrain",        json!({"constraints": ["read_only"]})),
        (say(Verdict::RequireApproval), FailMode::Closed, "require_approval", json!({"fallback_used": false})),
        (say(Verdict::Block),    FailMode::Open,   "block",            json!({"reason": "because", "policy_id": "p1"})),
        (say(Verdict::Halt),     FailMode::Open,   "halt",             json!({"reason": "because"})),
        (unavailable(),          FailMode::Open,   "allow",            json!({"fallback_used": true})),
        // An error would be a yes to an SDK that fails open.
        (unavailable(),          FailMode::Closed, "block",            json!({"fallback_used": true})),
        (redacted,               FailMode::Closed, "allow",            json!({"guardrails_result": {"input_type": "activity_input", "redacted_input": ["***"], "validation_passed": true, "reasons": [], "results": []}})),
        (violating,              FailMode::Closed, "block",            json!({"behavioral_violations": ["look first"]})),
        // SDKs stop an activity for this, and tell it from a BLOCK of policy.
        (found,                  FailMode::Closed, "allow",            json!({"guardrails_result": {"input_type": "activity_input", "validation_passed": false, "reasons": [{"type": "pii", "field": "input.0.card", "reason": "a card number"}], "results": []}})),
    ];
    for (answer, fail_mode, verdict, further) in table {
        let row = format!("{answer:?}");
        let world = World::failing(allowing().on_events([answer]), fail_mode);
        let said = world.agent.evaluate(&event("ActivityStarted")).await;
        assert_eq!(
            (&said["verdict"], &said["action"]),
            (&json!(verdict), &json!(verdict)),
            "{row}"
        );
        for (name, value) in further.as_object().unwrap() {
            assert_eq!(&said[name], value, "{row}: {name}");
        }
        assert!(
            said["governance_event_id"].as_str().unwrap().len() > 30,
            "{said}"
        );
        let asked = verdict == "require_approval";
        assert_eq!(said["approval_id"].is_string(), asked, "{said}");
        assert_eq!(
            said["approval_expiration_time"].is_string(),
            asked,
            "{said}"
        );
    }
}

#[tokio::test]
async fn every_event_of_an_unknown_run_is_taken() {
    for kind in crate::domain::EventKind::ALL {
        let world = World::new(allowing());
        assert_eq!(
            world.agent.verdict(&event(kind.as_str())).await,
            "allow",
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn an_approved_event_is_allowed_and_the_poll_says_so_before() {
    let world = World::new(allowing().on_events([say(Verdict::RequireApproval)]));
    let started = event("ActivityStarted");
    let said = world.agent.evaluate(&started).await;
    assert_eq!(said["verdict"], "require_approval");
    let again = world.agent.evaluate(&started).await;
    assert_eq!(again["approval_id"], said["approval_id"], "one approval");
    let polled = world.agent.poll().await;
    assert_eq!(
        (&polled["action"], &polled["id"], &polled["reason"]),
        (
            &json!("require_approval"),
            &said["approval_id"],
            &json!("because")
        )
    );
    assert!(polled["approval_expiration_time"].is_string(), "{polled}");
    world.approve();
    let polled = world.agent.poll().await;
    assert_eq!(polled["action"], "allow");
    assert_eq!(polled.get("approval_expiration_time"), None, "{polled}");
    let next_attempt = started.replace("\"attempt\":1", "\"attempt\":2");
    assert_eq!(world.agent.verdict(&next_attempt).await, "allow");
    assert_eq!(
        world.agent.poll().await["action"],
        "allow",
        "also when it was used"
    );
    assert!(world.gate.registry().all_runs()[1].activity("a").is_some());
}

#[tokio::test]
async fn a_rejected_or_expired_approval_is_told_as_sdks_understand_it() {
    let world = World::new(allowing().on_events([say(Verdict::RequireApproval)]));
    let started = event("ActivityStarted");
    assert_eq!(world.agent.verdict(&started).await, "require_approval");
    world.decide(|id| drop(world.gate.reject(id, "not today".into(), "test").unwrap()));
    let polled = world.agent.poll().await;
    assert_eq!(
        (&polled["action"], &polled["reason"]),
        (&json!("block"), &json!("not today"))
    );
    assert_eq!(world.agent.verdict(&started).await, "block");
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_nobody_decides_expires() {
    let expiring = Ok(Ruling {
        approval: Some(Approval {
            id: None,
            expires_at: Some(crate::process::clock::now().after(Duration::from_secs(60))),
        }),
        ..Ruling::new(Verdict::RequireApproval, 0)
    });
    let world = World::new(allowing().on_events([expiring]));
    let started = event("ActivityStarted");
    let said = world.agent.direct("POST", EVALUATE, &started).await.json();
    assert_eq!(said["verdict"], "require_approval");
    tokio::time::advance(Duration::from_secs(61)).await;
    let said = world.agent.direct("POST", EVALUATE, &started).await.json();
    assert_eq!(said["verdict"], "block", "{said}");
    let polled = world.agent.direct("POST", APPROVAL, POLL).await.json();
    assert_eq!(
        (&polled["action"], &polled["expired"]),
        (&json!("require_approval"), &json!(true))
    );
    assert!(polled["approval_expiration_time"].is_string(), "{polled}");
}

#[tokio::test]
async fn a_halted_run_is_told_of_its_halt_whatever_it_tells() {
    let world = World::new(allowing().at(Stage::Started, [say(Verdict::Halt)]));
    assert_eq!(
        world.agent.verdict(&event("WorkflowStarted")).await,
        "allow"
    );
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "started", URL))).await,
        "halt"
    );
    for kind in [
        "ActivityStarted",
        "SignalReceived",
        "ActivityCompleted",
        "WorkflowCompleted",
        "WorkflowStarted",
    ] {
        assert_eq!(world.agent.verdict(&event(kind)).await, "halt", "{kind}");
    }
    let other = hook(&span(2, "started", "https://other.example/"));
    assert_eq!(world.agent.verdict(&other).await, "halt");
}

#[tokio::test]
async fn a_hook_is_judged_at_both_stages_and_recorded_once_each() {
    let world = World::new(allowing());
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "started", URL))).await,
        "allow"
    );
    // Some SDKs tell another method and URL at the second stage.
    let mut ended = span(1, "completed", "https://api.example.com/");
    ended["http_method"] = json!("UNKNOWN");
    assert_eq!(world.agent.verdict(&hook(&ended)).await, "allow");
    world.recorded("decision", &["allow"]).await;
    world.recorded("completion", &["observed"]).await;
    assert!(world.journal().contains(URL));
}

#[tokio::test]
async fn a_blocked_hook_aborts_its_activity_until_the_next_attempt() {
    let world = World::new(allowing().at(Stage::Started, [say(Verdict::Block)]));
    assert_eq!(
        world.agent.verdict(&event("ActivityStarted")).await,
        "allow"
    );
    let said = world.agent.evaluate(&hook(&span(1, "started", URL))).await;
    assert_eq!(
        (&said["verdict"], &said["reason"], &said["policy_id"]),
        (&json!("block"), &json!("because"), &json!("p1"))
    );
    assert_eq!(
        world.agent.verdict(&hook(&span(2, "started", URL))).await,
        "block"
    );
    let second = |text: String| text.replace("\"attempt\":1", "\"attempt\":2");
    assert_eq!(
        world.agent.verdict(&second(event("ActivityStarted"))).await,
        "allow"
    );
    assert_eq!(
        world
            .agent
            .verdict(&second(hook(&span(3, "started", URL))))
            .await,
        "allow"
    );
}

#[tokio::test]
async fn an_outcome_that_policy_blocks_is_told_and_aborts_the_activity() {
    let world = World::new(allowing().at(Stage::Completed, [say(Verdict::Block)]));
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "started", URL))).await,
        "allow"
    );
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "completed", URL))).await,
        "block"
    );
    assert_eq!(
        world.agent.verdict(&hook(&span(2, "started", URL))).await,
        "block"
    );
}

#[tokio::test]
async fn an_outcome_that_wants_a_person_makes_later_operations_wait() {
    let world = World::new(allowing().at(Stage::Completed, [say(Verdict::RequireApproval)]));
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "started", URL))).await,
        "allow"
    );
    let said = world
        .agent
        .evaluate(&hook(&span(1, "completed", URL)))
        .await;
    assert_eq!(said["verdict"], "require_approval");
    assert_eq!(world.agent.poll().await["id"], said["approval_id"]);
    let later = hook(&span(2, "started", "https://later.example/"));
    assert_eq!(world.agent.verdict(&later).await, "require_approval");
    world.approve();
    assert_eq!(world.agent.verdict(&later).await, "allow");
}

#[tokio::test]
async fn a_hook_that_was_approved_is_allowed_once_when_it_is_sent_again() {
    let ask = || say(Verdict::RequireApproval);
    let world = World::new(allowing().at(Stage::Started, [ask(), ask()]));
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "started", URL))).await,
        "require_approval"
    );
    assert_eq!(world.agent.poll().await["action"], "require_approval");
    world.approve();
    assert_eq!(world.agent.poll().await["action"], "allow");
    // The next attempt has spans of its own.
    assert_eq!(
        world.agent.verdict(&hook(&span(2, "started", URL))).await,
        "allow"
    );
    assert_eq!(
        world.agent.verdict(&hook(&span(3, "started", URL))).await,
        "require_approval"
    );
}

#[tokio::test]
async fn a_hook_that_was_approved_while_its_sdk_polled_is_not_asked_again() {
    let policy = allowing().at(Stage::Started, [say(Verdict::RequireApproval)]);
    let world = World::new(policy);
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "started", URL))).await,
        "require_approval"
    );
    world.approve();
    assert_eq!(world.agent.poll().await["action"], "allow");
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "completed", URL))).await,
        "allow"
    );
    world
        .recorded("decision", &["approval_pending", "allow"])
        .await;
    world.recorded("completion", &["observed"]).await;
    let states: Vec<_> = world
        .gate
        .approvals()
        .iter()
        .map(|v| v.state.clone())
        .collect();
    assert_eq!(states, [crate::gate::hold::State::Consumed]);
}

#[tokio::test]
async fn an_outcome_without_a_first_hook_is_judged_at_both_stages() {
    let world = World::new(allowing());
    assert_eq!(
        world.agent.verdict(&hook(&span(1, "completed", URL))).await,
        "allow"
    );
    world.recorded("decision", &["allow"]).await;
    world.recorded("completion", &["observed"]).await;
}

#[tokio::test]
async fn approvals_of_core_are_told_as_core_tells_them() {
    let policy = || allowing().on_events([say(Verdict::RequireApproval)]);
    #[rustfmt::skip]
    let table = [
        (ApprovalState::Pending { expires_at: None },      "require_approval", false),
        (ApprovalState::Granted,                           "allow",            false),
        (ApprovalState::Rejected(Reason::from("no")),      "block",            false),
        (ApprovalState::Expired,                           "require_approval", true),
    ];
    for (state, action, expired) in table {
        // Opened here: Core is asked when the SDK asks.
        let world = World::new(policy().polled([Ok(state.clone())]));
        assert_eq!(
            world.agent.verdict(&event("ActivityStarted")).await,
            "require_approval"
        );
        let polled = world.agent.poll().await;
        assert_eq!(
            (&polled["action"], polled.get("expired").is_some()),
            (&json!(action), expired),
            "{state:?}"
        );
        // Opened before this sidecar started.
        let world = World::new(allowing().polled([Ok(state.clone())]));
        let polled = world.agent.poll().await;
        assert_eq!(
            (&polled["action"], polled.get("expired").is_some()),
            (&json!(action), expired),
            "{state:?}"
        );
    }
    let world = World::new(allowing().polled([]));
    let answer = world.agent.post(APPROVAL, POLL).await;
    assert_eq!(complaint(&answer), (404, "unknown_approval".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_decision_in_core_is_told_with_the_poll_that_asks_for_it() {
    let pending = ApprovalState::Pending { expires_at: None };
    let policy = allowing().on_events([say(Verdict::RequireApproval)]);
    let world = World::new(policy.polled([Ok(pending), Ok(ApprovalState::Granted)]));
    let said = world
        .agent
        .direct("POST", EVALUATE, &event("ActivityStarted"))
        .await;
    assert_eq!(said.json()["verdict"], "require_approval");
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let polled = world.agent.direct("POST", APPROVAL, POLL).await.json();
    assert_eq!(
        polled["action"], "allow",
        "long before Core is asked by itself"
    );
}

#[tokio::test(start_paused = true)]
async fn what_comes_too_fast_is_turned_away_and_counted() {
    let settings = crate::control::agent::Settings {
        served: super::Settings {
            requests_per_second_max: 1,
            ..super::Settings::default()
        },
        ..crate::control::agent::Settings::default()
    };
    let world = World::set(allowing(), FailMode::Closed, settings);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..9 {
        let agent = world.agent.clone();
        asking.spawn(async move { agent.direct("GET", "/api/v1/auth/validate", "").await });
    }
    let mut turned_away = 0;
    for answer in asking.join_all().await {
        if answer.status != 200 {
            assert_eq!(complaint(&answer), (429, "rate_limited".to_owned()));
            turned_away += 1;
        }
    }
    assert!((2..=3).contains(&turned_away), "{turned_away}");
    let hits = format!("openbox_limit_hits_total{{limit=\"requests\"}} {turned_away}");
    assert!(world.gate.metrics().render().contains(&hits));
}

#[tokio::test]
async fn what_sdks_send_without_a_content_type_and_with_unknown_fields_is_taken() {
    let world = World::new(allowing());
    let body = json!({"event_type": "ActivityCompleted", "workflow_id": "w", "run_id": "r",
        "activity_id": "a", "activity_type": null, "activity_input": {"an": "object"},
        "error": "a text", "start_time": 1.5, "end_time": 2, "duration_ms": 9_007_199_254_740_993.0,
        "brand_new": [null]});
    assert_eq!(world.agent.verdict(&body.to_string()).await, "allow");
}

#[tokio::test(start_paused = true)]
async fn an_operation_whose_second_hook_never_comes_is_abandoned() {
    let world = World::new(allowing());
    let tell = async |told: &Value| {
        let answer = world.agent.direct("POST", EVALUATE, &hook(told)).await;
        assert_eq!(answer.json()["verdict"], "allow", "{answer:?}");
    };
    tell(&span(1, "started", URL)).await;
    tokio::time::advance(Duration::from_secs(599)).await;
    tell(&span(2, "started", URL)).await;
    assert!(!world.journal().contains("abandoned"));
    tokio::time::advance(Duration::from_secs(1)).await;
    tell(&span(3, "started", URL)).await;
    world.recorded("completion", &["observed"]).await;
    assert!(
        world.journal().contains("\"outcome\":\"abandoned\""),
        "{}",
        world.journal()
    );
    // The second one is still there.
    tell(&span(2, "completed", URL)).await;
    world.recorded("completion", &["observed"; 2]).await;
    world.recorded("decision", &["allow"; 3]).await;
}

#[tokio::test]
async fn operations_that_share_a_span_are_told_apart_by_what_they_do() {
    let world = World::new(allowing());
    let (one, two) = ("https://one.example/", "https://two.example/");
    for (stage, url) in [
        ("started", one),
        ("started", two),
        ("completed", two),
        ("completed", one),
    ] {
        assert_eq!(
            world.agent.verdict(&hook(&span(1, stage, url))).await,
            "allow"
        );
    }
    world.recorded("decision", &["allow"; 2]).await;
    world.recorded("completion", &["observed"; 2]).await;
    let text = world.journal();
    let ended = |url: &str| {
        let of = |line: &&str| line.contains("\"completion\"") && line.contains(url);
        text.lines().position(|line| of(&line)).unwrap()
    };
    assert!(ended(two) < ended(one), "{text}");
}
