//! The operator API over a socket.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::control::testing::World;
use crate::domain::{Reason, Verdict};
use crate::policy::scripted::Scripted;
use crate::policy::{ApprovalState, Ruling};

fn asking() -> Scripted {
    Scripted::always(Verdict::Allow).on_events([
        Ok(Ruling::new(Verdict::Allow, 0)),
        Ok(Ruling {
            reason: Some(Reason::from("refunds need a person")),
            policy: Some("p1".into()),
            ..Ruling::new(Verdict::RequireApproval, 0)
        }),
    ])
}

/// The id of an approval that waits in run `r`.
async fn asked(world: &World) -> String {
    let body = r#"{"workflow_id":"w","run_id":"r","activity_id":"a","activity_type":"refund"}"#;
    let json = world.agent.post("/v1/activities?wait=0", body).await.json();
    json["approval_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_approval_is_listed_with_all_a_person_needs() {
    let world = World::new(asking()).opened().await;
    let none = world.operator.get("/v1/approvals").await;
    assert_eq!(none.json(), json!({"approvals": []}));
    let id = asked(&world).await;
    let list = world
        .operator
        .get("/v1/approvals?status=pending")
        .await
        .json();
    let one = world
        .operator
        .get(&format!("/v1/approvals/{id}"))
        .await
        .json();
    assert_eq!(list["approvals"], json!([one]));
    #[rustfmt::skip]
    let want = [
        ("approval_id", &*id), ("state", "pending"), ("stage", "started"),
        ("summary", "ActivityStarted refund (a)"), ("reason", "refunds need a person"),
        ("policy", "p1"), ("workflow_id", "w"), ("run_id", "r"), ("activity_id", "a"),
    ];
    for (key, value) in want {
        assert_eq!(one[key], value, "{key}");
    }
    assert!(one["expires_at"].as_str() > one["opened_at"].as_str());
    let granted = world.operator.get("/v1/approvals?status=granted").await;
    assert_eq!(granted.json(), json!({"approvals": []}));
}

#[tokio::test]
async fn a_second_decision_is_told_the_first() {
    for (decide, body, state) in [
        ("approve", "", "granted"),
        ("reject", r#"{"reason":"no","by":"ann"}"#, "rejected"),
    ] {
        let world = World::new(asking()).opened().await;
        let id = asked(&world).await;
        let path = |verb: &str| format!("/v1/approvals/{id}/{verb}");
        let first = world.operator.post(&path(decide), body).await;
        assert_eq!((first.status, &first.json()["state"]), (200, &json!(state)));
        for (verb, body) in [("approve", "{}"), ("reject", r#"{"reason":"late"}"#)] {
            let again = world.operator.post(&path(verb), body).await;
            assert_eq!(again.problem(), (409, "already_decided".to_owned()));
            assert_eq!(again.json()["approval"]["state"], state);
        }
    }
}

#[tokio::test]
async fn approvals_of_core_are_not_decided_here() {
    let backend = asking().polled([Ok(ApprovalState::Pending { expires_at: None })]);
    let world = World::new(backend).opened().await;
    let id = asked(&world).await;
    for (verb, body) in [("approve", "{}"), ("reject", r#"{"reason":"no"}"#)] {
        let path = format!("/v1/approvals/{id}/{verb}");
        let answer = world.operator.post(&path, body).await;
        assert_eq!(answer.problem(), (409, "decided_in_core".to_owned()));
    }
}

#[tokio::test]
async fn a_bad_request_says_what_is_wrong() {
    let world = World::new(asking()).opened().await;
    let id = asked(&world).await;
    let reject = format!("/v1/approvals/{id}/reject");
    let approve = format!("/v1/approvals/{id}/approve");
    #[rustfmt::skip]
    let table = [
        ("GET",  "/v1/approvals?status=open",       "", 400, "invalid_field", "pending, granted"),
        ("GET",  "/v1/approvals/x",                 "", 404, "unknown_approval", ""),
        ("POST", "/v1/approvals/x/approve",         "", 404, "unknown_approval", ""),
        ("POST", "/v1/approvals/x/reject",          r#"{"reason":"no"}"#, 404, "unknown_approval", ""),
        ("POST", &reject,                           "", 400, "missing_field", "`reason`"),
        ("POST", &reject,                           r#"{"reason":" "}"#, 400, "missing_field", "`reason`"),
        ("POST", &reject,                           r#"{"why":"no"}"#, 400, "invalid_field", "unknown field `why`"),
        ("POST", &approve,                          r#"{"by":"a\nb"}"#, 400, "invalid_field", "`by`"),
        ("POST", &approve,                          "{", 400, "malformed_json", "column"),
        ("POST", "/v1/runs/x/halt",                 r#"{"reason":"no"}"#, 404, "unknown_run", ""),
        ("POST", "/v1/runs/r/halt",                 "", 400, "missing_field", "`reason`"),
        ("POST", "/v1/runs/x/resume",               "", 404, "unknown_run", ""),
        ("PUT",  "/v1/runs",                        "", 405, "method_not_allowed", ""),
        ("GET",  "/v1/workflows",                   "", 404, "unknown_route", ""),
    ];
    for (method, path, body, status, code, detail) in table {
        let answer = world.operator.send(method, path, body).await;
        assert_eq!(
            answer.problem(),
            (status, code.to_owned()),
            "{method} {path} {answer:?}"
        );
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.contains(detail), "{method} {path}: {said}");
    }
    let list = world
        .operator
        .get("/v1/approvals?status=pending")
        .await
        .json();
    assert_eq!(
        list["approvals"][0]["approval_id"], id,
        "nothing of it decided anything"
    );
}

#[tokio::test]
async fn a_run_is_halted_and_resumed_by_its_id() {
    let world = World::new(asking()).opened().await;
    let halted = world
        .operator
        .post("/v1/runs/r/halt", r#"{"reason":"enough","by":"ann"}"#)
        .await;
    assert_eq!(halted.json()["halted"], "enough");
    let runs = world.operator.get("/v1/runs").await.json();
    let shown = runs["runs"].as_array().unwrap();
    assert_eq!([&shown[0]["own"], &shown[1]["own"]], [true, false]);
    assert_eq!(
        [&shown[0]["halted"], &shown[1]["halted"]],
        [&json!(null), &json!("enough")]
    );
    let status = world.operator.get("/v1/status").await.json();
    assert_eq!([&status["runs_halted"], &status["runs_open"]], [1, 2]);
    let resumed = world
        .operator
        .post("/v1/runs/r/resume", r#"{"by":"ann"}"#)
        .await
        .json();
    assert_eq!(
        [&resumed["resumed"], &resumed["halted"]],
        [&json!(true), &json!(null)]
    );
    let again = world.operator.post("/v1/runs/r/resume", "").await.json();
    assert_eq!(again["resumed"], false);
    for record in [r#""record":"halt""#, r#""record":"resume""#] {
        assert!(world.journal().contains(record), "{record}");
    }
}

#[tokio::test]
async fn the_sidecars_own_run_is_called_own() {
    let world = World::new(asking());
    let halted = world
        .operator
        .post("/v1/runs/own/halt", r#"{"reason":"enough"}"#)
        .await;
    assert_eq!(halted.json()["run_id"], "own-run");
    assert!(world.gate.registry().own().halted().is_some());
    assert_eq!(
        world.agent.get("/v1/session").await.json()["halted"],
        "enough"
    );
    let resumed = world.operator.post("/v1/runs/own/resume", "").await;
    assert_eq!(resumed.json()["resumed"], true);
}

#[tokio::test]
async fn a_run_id_of_two_workflows_needs_the_workflow() {
    let world = World::new(asking()).opened().await;
    world.gate.approvals();
    let id = asked(&world).await;
    world
        .operator
        .post(&format!("/v1/approvals/{id}/approve"), "")
        .await;
    world
        .agent
        .post("/v1/workflows", r#"{"workflow_id":"w2","run_id":"r"}"#)
        .await;
    let answer = world
        .operator
        .post("/v1/runs/r/halt", r#"{"reason":"x"}"#)
        .await;
    assert_eq!(answer.problem(), (409, "ambiguous_run".to_owned()));
    let body = r#"{"reason":"x","workflow_id":"w2"}"#;
    let halted = world.operator.post("/v1/runs/r/halt", body).await;
    assert_eq!(halted.json()["workflow_id"], "w2");
}

#[tokio::test]
async fn the_policy_is_reloaded_or_the_last_good_one_stays() {
    let world = World::new(asking());
    let good = world.operator.post("/v1/policy/reload", "").await;
    assert_eq!(
        (good.status, good.json()),
        (200, json!({"policy": "2 rules"}))
    );
    world.reload_fails.store(true, Ordering::Relaxed);
    let bad = world.operator.post("/v1/policy/reload", "").await;
    assert_eq!(bad.problem(), (409, "policy_not_loaded".to_owned()));
    let said = bad.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        said.contains("last good policy stays: policy.rego:3"),
        "{said}"
    );
}

#[tokio::test]
async fn the_status_counts_what_waits() {
    let world = World::new(asking()).opened().await;
    asked(&world).await;
    let status = world.operator.get("/v1/status").await.json();
    assert_eq!(
        [&status["policy"], &status["approvals_pending"]],
        [&json!("scripted"), &json!(1)]
    );
    assert_eq!(status["operations"]["allowed"], 0);
}

#[tokio::test]
async fn the_agents_token_opens_nothing_here() {
    let world = World::new(asking()).opened().await;
    let id = asked(&world).await;
    let mut thief = world.operator.clone();
    thief.token = world.agent.token.clone();
    for (method, path) in [
        ("GET", "/v1/approvals".to_owned()),
        ("POST", format!("/v1/approvals/{id}/approve")),
        ("POST", "/v1/runs/own/resume".to_owned()),
        ("POST", "/v1/policy/reload".to_owned()),
        ("GET", "/v1/status".to_owned()),
    ] {
        let answer = thief.send(method, &path, "").await;
        assert_eq!(answer.problem(), (401, "unauthorized".to_owned()), "{path}");
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.contains("another API"), "{said}");
    }
    let view = world.operator.get(&format!("/v1/approvals/{id}")).await;
    assert_eq!(view.json()["state"], "pending");
}
