//! Pages of the journal, decisions about more than one operation, the end, and
//! the document that describes it all.

use serde_json::{Value, json};

use crate::control::testing::World;
use crate::domain::{Reason, Verdict};
use crate::policy::Ruling;
use crate::policy::scripted::Scripted;

fn asking(reason: &str) -> Ruling {
    Ruling {
        reason: Some(Reason::from(reason)),
        policy: Some("p1".into()),
        ..Ruling::new(Verdict::RequireApproval, 0)
    }
}

/// What starting activity `id` of run `r` is answered.
async fn start(world: &World, id: &str) -> Value {
    let body = json!({"workflow_id":"w","run_id":"r","activity_id":id,"activity_type":"refund"});
    let body = body.to_string();
    world
        .agent
        .post("/v1/activities?wait=0", &body)
        .await
        .json()
}

#[tokio::test]
async fn a_word_about_the_run_is_about_what_the_same_rule_asks_again() {
    for (verb, body, verdict) in [
        (
            "approve",
            r#"{"scope":"run","ttl":"5m","reason":"fine","by":"ann"}"#,
            "allow",
        ),
        (
            "reject",
            r#"{"scope":"run","reason":"none today"}"#,
            "block",
        ),
    ] {
        let world = World::new(Scripted::always(Verdict::Allow).on_events([
            Ok(Ruling::new(Verdict::Allow, 0)),
            Ok(asking("refunds need a person")),
            Ok(asking("refunds need a person")),
            Ok(asking("payments need a person")),
        ]))
        .opened()
        .await;
        let id = start(&world, "a").await["approval_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let path = format!("/v1/approvals/{id}/{verb}");
        let decided = world.operator.post(&path, body).await;
        assert_eq!(decided.status, 200, "{decided:?}");
        let same = start(&world, "b").await;
        assert_eq!(same["verdict"], verdict, "{verb}: {same}");
        let other = start(&world, "c").await;
        assert_eq!(other["verdict"], "require_approval", "{verb}: {other}");
        assert!(
            world
                .journal()
                .contains(&format!(r#""approval_id":"{id}""#))
        );
    }
}

#[tokio::test]
async fn a_word_that_cannot_be_about_more_decides_nothing() {
    let world = World::new(Scripted::always(Verdict::Allow).on_events([
        Ok(Ruling::new(Verdict::Allow, 0)),
        Ok(asking("refunds need a person")),
    ]))
    .opened()
    .await;
    let id = start(&world, "a").await["approval_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/approvals/{id}/approve");
    #[rustfmt::skip]
    let table = [
        // It is not open before it is approved.
        (r#"{"scope":"activity"}"#,           409, "no_activity"),
        (r#"{"scope":"world"}"#,              400, "invalid_field"),
        (r#"{"scope":"run","ttl":"25h"}"#,    400, "invalid_field"),
        (r#"{"ttl":"5m"}"#,                   400, "invalid_field"),
    ];
    for (body, status, code) in table {
        let answer = world.operator.post(&path, body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{body}");
    }
    let view = world.operator.get(&format!("/v1/approvals/{id}")).await;
    assert_eq!(view.json()["state"], "pending");
}

#[tokio::test]
async fn a_timeline_is_read_page_by_page_and_has_nothing_of_other_runs() {
    let world = World::new(Scripted::always(Verdict::Allow)).opened().await;
    let other = r#"{"workflow_id":"w","run_id":"other"}"#;
    world.agent.post("/v1/workflows", other).await;
    for id in ["a", "b", "c"] {
        start(&world, id).await;
    }
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let path = format!("/v1/runs/r/timeline?after={after}&limit=2");
        let page = world.operator.get(&path).await.json();
        let records = page["records"].as_array().unwrap();
        assert!(records.len() <= 2);
        seen.extend(records.iter().cloned());
        after = page["next"].as_u64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    let types: Vec<_> = seen
        .iter()
        .map(|r| r["event_type"].as_str().unwrap())
        .collect();
    let three = ["ActivityStarted"; 3];
    assert_eq!(types, [&["WorkflowStarted"], &three[..]].concat());
    assert!(seen.iter().all(|record| record["run_id"] == "r"));
    let newest = world
        .operator
        .get("/v1/runs/r/timeline?limit=1")
        .await
        .json();
    assert_eq!(newest["records"][0]["activity_id"], "c");
    let none = world.operator.get("/v1/operations?run_id=r").await.json();
    assert_eq!(none["records"], json!([]), "events are no operations");
    for limit in ["0", "1001"] {
        let path = format!("/v1/operations?limit={limit}");
        assert_eq!(
            world.operator.get(&path).await.problem(),
            (400, "invalid_field".to_owned())
        );
    }
    let answer = world.operator.get("/v1/operations?limit=x").await;
    assert_eq!(answer.problem(), (400, "invalid_query".to_owned()));
}

#[tokio::test]
async fn an_export_is_the_journal_up_to_the_head() {
    let world = World::new(Scripted::always(Verdict::Allow)).opened().await;
    start(&world, "a").await;
    let head = world.operator.get("/v1/audit/head").await.json();
    let whole = world.operator.direct("GET", "/v1/audit/export", "").await;
    assert_eq!(whole.status, 200);
    assert!(world.journal().starts_with(&whole.text), "{}", whole.text);
    let last: Value = serde_json::from_str(whole.text.lines().last().unwrap()).unwrap();
    assert_eq!(
        last["seq"].as_u64().unwrap() + 1,
        head["next"].as_u64().unwrap()
    );
    assert_eq!(last["chain"], head["chain"]);
    let rest = world
        .operator
        .direct("GET", "/v1/audit/export?after=1", "")
        .await;
    let first: Value = serde_json::from_str(rest.text.lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], 2);
}

#[tokio::test]
async fn the_operator_ends_the_sidecar_and_the_agent_does_not() {
    let world = World::new(Scripted::always(Verdict::Allow));
    let mut thief = world.operator.clone();
    thief.token = world.agent.token.clone();
    assert_eq!(thief.post("/v1/shutdown", "").await.problem().0, 401);
    let answer = world.agent.post("/v1/shutdown", "").await;
    assert_eq!(answer.problem(), (404, "unknown_route".to_owned()));
    {
        let begun = world.shutdown.begun();
        let mut begun = std::pin::pin!(begun);
        tokio::select! {
            biased;
            () = &mut begun => panic!("somebody else ended it"),
            () = tokio::task::yield_now() => {}
        }
    }
    let answer = world.operator.post("/v1/shutdown", "").await;
    assert_eq!(
        (answer.status, answer.json()),
        (202, json!({"ending": true}))
    );
    world.shutdown.begun().await;
}

/// Everything the document names, on the operator's listener and on the agent's.
#[tokio::test]
async fn nothing_of_the_operators_is_reached_by_the_agent_or_under_a_foreign_name() {
    let world = World::new(Scripted::always(Verdict::Allow)).opened().await;
    let document = world.operator.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 16, "{paths:?}");
    let before = world.journal();
    let token = world.operator.token.expose();
    let port = world.operator.address.port();
    let host = format!("host: 127.0.0.1:{port}");
    #[rustfmt::skip]
    let attacks = [
        (vec![host.clone()],                                                            401),
        (vec![host.clone(), format!("authorization: Bearer {}", world.agent.token.expose())], 401),
        (vec![host.clone(), format!("authorization: Basic {token}")],                   401),
        (vec![host.clone(), format!("authorization: Bearer {token}x")],                 401),
        (vec![format!("host: evil.example:{port}"), format!("authorization: Bearer {token}")], 403),
        (vec![format!("host: localhost.evil.example"), format!("authorization: Bearer {token}")], 403),
        (vec![host.clone(), format!("authorization: Bearer {token}"), "origin: http://evil.example".to_owned()], 403),
        (vec![host.clone(), format!("authorization: Bearer {token}"), "origin: null".to_owned()], 403),
        (vec![host, format!("authorization: Bearer {token}"), "sec-fetch-site: cross-site".to_owned()], 403),
    ];
    for (path, methods) in paths {
        let path = path.replace("{run_id}", "r").replace("{id}", "x");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            for (fields, status) in &attacks {
                let fields = fields.join("\r\n");
                let request = format!(
                    "{method} {path} HTTP/1.1\r\n{fields}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let answer = world.operator.raw(&request).await;
                assert_eq!(answer.problem().0, *status, "{request}");
            }
            // The agent's listener has some of the names, and none of the powers.
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = world.agent.raw(&request).await;
            assert_eq!(answer.problem().0, 401, "{method} {path}");
        }
    }
    assert_eq!(world.journal(), before, "nothing of it did anything");
}

#[tokio::test]
async fn the_configuration_is_shown() {
    let world = World::new(Scripted::always(Verdict::Allow));
    let shown = world.operator.get("/v1/config").await.json();
    assert_eq!(shown["settings"]["fail_mode"]["value"], "open");
}
