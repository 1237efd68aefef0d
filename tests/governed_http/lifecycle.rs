//! Runs and activities told through the agent API, and whose the operations on
//! the wire are then.

use serde_json::{Value, json};

use crate::support::origin::Origin;
use crate::support::policies::{ALLOW, AS_THE_EVENT_SAYS, AS_THE_PATH_SAYS};
use crate::support::sidecar::{Setup, Sidecar, api};

fn world(policy: &str) -> (Origin, Sidecar) {
    let site = Origin::site();
    let sidecar = Setup::new().policy(policy).reach(&site).start();
    (site, sidecar)
}

fn open_run(sidecar: &Sidecar, run: &str) {
    let body = json!({"workflow_id": "w", "run_id": run, "workflow_type": "agent"});
    assert_eq!(sidecar.event("/v1/workflows", &body)["verdict"], "allow");
}

fn open_activity(sidecar: &Sidecar, run: &str, activity: &str, kind: &str) -> Value {
    let body = json!({
        "workflow_id": "w", "run_id": run, "activity_id": activity, "activity_type": kind,
        "input": ["x"],
    });
    sidecar.event("/v1/activities", &body)
}

/// Run, activity and rule of the operation on `path`.
fn attributed(sidecar: &Sidecar, path: &str) -> (Value, Value, Value) {
    let record = sidecar.record_of(path, "started");
    let completed = sidecar.record_of(path, "completed");
    for name in ["run_id", "activity_id", "attribution"] {
        assert_eq!(completed[name], record[name], "{name} at completed");
    }
    (
        record["run_id"].clone(),
        record["activity_id"].clone(),
        record["attribution"].clone(),
    )
}

#[test]
fn an_operation_belongs_to_whom_the_first_evidence_names() {
    let (site, sidecar) = world(ALLOW);
    let ask = |path: &str, fields: &[(&str, &str)]| {
        let answer = sidecar.send("GET", &site.url(path), fields, "");
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        attributed(&sidecar, path)
    };
    // 6: nobody else.
    let (_, activity, rule) = ask("/own", &[]);
    assert_eq!((activity, rule), (Value::Null, "own_session".into()));
    // 5: the only open activity of the only run.
    open_run(&sidecar, "r1");
    open_activity(&sidecar, "r1", "a1", "fetch");
    let only = ("r1".into(), "a1".into(), "only_activity".into());
    assert_eq!(ask("/only", &[]), only);
    // Two activities: no longer.
    open_activity(&sidecar, "r1", "a2", "fetch");
    assert_eq!(ask("/two", &[]).2, "own_session");
    // 1: headers, and they stay here.
    let headers = [
        ("x-openbox-workflow-id", "w"),
        ("x-openbox-run-id", "r1"),
        ("x-openbox-activity-id", "a2"),
    ];
    assert_eq!(
        ask("/headers", &headers),
        ("r1".into(), "a2".into(), "headers".into())
    );
    // 2: a trace that was registered, and baggage.
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let context =
        json!({"workflow_id": "w", "run_id": "r1", "activity_id": "a1", "traceparent": parent});
    let (status, _) = sidecar.agent("PUT", "/v1/contexts/worker", &context.to_string());
    assert_eq!(status, 200);
    let trace = ("r1".into(), "a1".into(), "trace".into());
    assert_eq!(ask("/trace", &[("traceparent", parent)]), trace);
    let baggage = [("baggage", "openbox.run=r1,openbox.activity=a1")];
    assert_eq!(ask("/baggage", &baggage), trace);
    // 3: the user of proxy credentials.
    let token = super::basic("worker", &sidecar.agent_token);
    let named = ("r1".into(), "a1".into(), "proxy_credentials".into());
    assert_eq!(ask("/user", &[("proxy-authorization", &token)]), named);
    // The first evidence wins over later ones.
    let both = [headers[0], headers[1], headers[2], ("traceparent", parent)];
    assert_eq!(ask("/both", &both).2, "headers");
    // Evidence for what nobody opened counts for nothing.
    let unknown = [("x-openbox-run-id", "r9"), ("x-openbox-workflow-id", "w")];
    assert_eq!(ask("/unknown", &unknown).2, "own_session");
    for message in site.heard() {
        let ours = message
            .head
            .fields
            .iter()
            .any(|(name, _)| name.starts_with("x-openbox") || name == "proxy-authorization");
        assert!(!ours, "{:?}", message.head);
    }
}

#[test]
fn wrong_proxy_credentials_are_refused() {
    let (site, sidecar) = world(ALLOW);
    for token in ["obx_test_wrong", &sidecar.operator_token] {
        let field = super::basic("worker", token);
        let answer = sidecar.send(
            "GET",
            &site.url("/x"),
            &[("proxy-authorization", &field)],
            "",
        );
        assert_eq!(answer.status(), 407);
        assert_eq!(answer.code(), "proxy_credentials_rejected");
    }
    assert_eq!(site.connections(), 0);
}

#[test]
fn an_activity_that_ended_claims_nothing_any_more() {
    let (site, sidecar) = world(ALLOW);
    open_run(&sidecar, "r1");
    open_activity(&sidecar, "r1", "a1", "fetch");
    let done = sidecar.event("/v1/activities/a1/complete", &json!({"output": {"n": 1}}));
    assert_eq!(
        (&done["verdict"], &done["activity_id"]),
        (&"allow".into(), &"a1".into())
    );
    sidecar.get(&site.url("/after"));
    assert_eq!(attributed(&sidecar, "/after").2, "own_session");
    let done = sidecar.event("/v1/workflows/w/runs/r1/complete", &json!({"output": "ok"}));
    assert_eq!(done["verdict"], "allow");
    let events: Vec<_> = sidecar
        .journal()
        .iter()
        .filter(|line| line["record"] == "event")
        .map(|line| line["event_type"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        "WorkflowStarted",
        "ActivityStarted",
        "ActivityCompleted",
        "WorkflowCompleted",
    ];
    assert_eq!(events, expected);
    let body = json!({"workflow_id": "w", "run_id": "r1", "activity_type": "fetch"}).to_string();
    assert_eq!(sidecar.agent("POST", "/v1/activities", &body).0, 404);
}

#[test]
fn an_activity_that_policy_blocks_is_not_opened() {
    let (site, sidecar) = world(AS_THE_EVENT_SAYS);
    open_run(&sidecar, "r1");
    let answer = open_activity(&sidecar, "r1", "a1", "block");
    assert_eq!(answer["verdict"], "block");
    assert_eq!(answer["reason"], "the test says block");
    assert_eq!(answer["code"], "blocked");
    sidecar.get(&site.url("/x"));
    assert_eq!(attributed(&sidecar, "/x").2, "own_session");
    // Its siblings go on.
    assert_eq!(
        open_activity(&sidecar, "r1", "a2", "fetch")["verdict"],
        "allow"
    );
}

#[test]
fn an_activity_that_policy_halts_stops_its_run_and_no_other() {
    let (site, sidecar) = world(AS_THE_EVENT_SAYS);
    open_run(&sidecar, "r1");
    open_run(&sidecar, "r2");
    open_activity(&sidecar, "r2", "a", "fetch");
    let answer = open_activity(&sidecar, "r1", "a1", "halt");
    assert_eq!(
        (&answer["verdict"], &answer["code"]),
        (&"halt".into(), &"halted".into())
    );
    let of = |run: &'static str| [("x-openbox-workflow-id", "w"), ("x-openbox-run-id", run)];
    assert_eq!(
        sidecar.send("GET", &site.url("/1"), &of("r1"), "").code(),
        "halted"
    );
    assert_eq!(
        sidecar.send("GET", &site.url("/2"), &of("r2"), "").status(),
        200
    );
    // What names nobody may be the halted run's.
    assert_eq!(sidecar.get(&site.url("/3")).code(), "halted");
    assert_eq!(
        open_activity(&sidecar, "r1", "a2", "fetch")["verdict"],
        "halt"
    );
    let signal = json!({"workflow_id": "w", "run_id": "r1", "signal_name": "resume"});
    assert_eq!(sidecar.event("/v1/signals", &signal)["verdict"], "halt");
}

#[test]
fn an_operation_that_is_blocked_aborts_its_activity_and_not_its_siblings() {
    let (site, sidecar) = world(AS_THE_PATH_SAYS);
    open_run(&sidecar, "r1");
    open_activity(&sidecar, "r1", "a1", "fetch");
    open_activity(&sidecar, "r1", "a2", "fetch");
    let of = |activity: &'static str| {
        [
            ("x-openbox-workflow-id", "w"),
            ("x-openbox-run-id", "r1"),
            ("x-openbox-activity-id", activity),
        ]
    };
    let ask = |path: &str, activity| sidecar.send("GET", &site.url(path), &of(activity), "");
    assert_eq!(ask("/started/block", "a1").code(), "blocked");
    assert_eq!(ask("/hello", "a1").code(), "activity_aborted");
    assert_eq!(ask("/hello", "a2").status(), 200);
    assert_eq!(ask("/completed/block", "a2").code(), "outcome_blocked");
    assert_eq!(ask("/hello", "a2").code(), "activity_aborted");
    assert_eq!(site.times("/hello"), 1);
}

#[test]
fn an_activity_start_waits_for_a_person() {
    let (_site, sidecar) = world(AS_THE_EVENT_SAYS);
    open_run(&sidecar, "r1");
    let body = json!({
        "workflow_id": "w", "run_id": "r1", "activity_id": "a1", "activity_type": "require_approval",
    });
    let pending = sidecar.event("/v1/activities?wait=0s", &body);
    assert_eq!(
        (&pending["verdict"], &pending["code"]),
        (&"require_approval".into(), &"approval_pending".into())
    );
    let approval = sidecar.pending_approval();
    assert_eq!(approval["approval_id"], pending["approval_id"]);
    sidecar.approve(&approval);
    let (status, shown) = sidecar.agent(
        "GET",
        &format!(
            "/v1/approvals/{}",
            approval["approval_id"].as_str().unwrap()
        ),
        "",
    );
    assert_eq!((status, &shown["state"]), (200, &"granted".into()));
    assert_eq!(sidecar.event("/v1/activities", &body)["verdict"], "allow");
}

#[test]
fn the_operator_halts_and_resumes_one_run() {
    let (site, sidecar) = world(ALLOW);
    open_run(&sidecar, "r1");
    let of = [("x-openbox-workflow-id", "w"), ("x-openbox-run-id", "r1")];
    let ask = || sidecar.send("GET", &site.url("/x"), &of, "");
    assert_eq!(ask().status(), 200);
    let (status, run) = sidecar.operator(
        "POST",
        "/v1/runs/r1/halt",
        r#"{"reason":"stop it","by":"ops"}"#,
    );
    assert_eq!((status, &run["halted"]), (200, &"stop it".into()));
    let refused = ask();
    assert_eq!(
        (refused.code(), &refused.json()["reason"]),
        ("halted".to_owned(), &"stop it".into())
    );
    let (_, runs) = sidecar.operator("GET", "/v1/runs", "");
    let listed = runs["runs"].as_array().unwrap();
    assert!(
        listed
            .iter()
            .any(|run| run["run_id"] == "r1" && run["halted"] == "stop it")
    );
    assert_eq!(sidecar.operator("POST", "/v1/runs/r1/resume", "{}").0, 200);
    assert_eq!(ask().status(), 200);
    let (status, problem) = sidecar.operator("POST", "/v1/runs/nobody/halt", r#"{"reason":"x"}"#);
    assert_eq!((status, &problem["code"]), (404, &"unknown_run".into()));
}

#[test]
fn neither_token_opens_the_other_api() {
    let (_site, sidecar) = world(ALLOW);
    let cases = [
        (sidecar.operator, &sidecar.agent_token, "/v1/approvals"),
        (sidecar.operator, &sidecar.agent_token, "/v1/runs"),
        (sidecar.agent, &sidecar.operator_token, "/v1/session"),
    ];
    for (address, token, path) in cases {
        let (status, problem) = api(address, token, "GET", path, "");
        assert_eq!(
            (status, &problem["code"]),
            (401, &"unauthorized".into()),
            "{path}"
        );
        assert!(!problem.to_string().contains(token.as_str()));
    }
    let halt = api(
        sidecar.operator,
        &sidecar.agent_token,
        "POST",
        "/v1/runs/own/resume",
        "{}",
    );
    assert_eq!(halt.0, 401);
    assert_eq!(api(sidecar.operator, "", "GET", "/v1/runs", "").0, 401);
}

#[test]
fn an_unattributed_operation_is_refused_where_the_configuration_says_so() {
    let site = Origin::site();
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let sidecar = setup.config("session:\n  unattributed: refuse\n").start();
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "unattributed".to_owned())
    );
    open_run(&sidecar, "r1");
    open_activity(&sidecar, "r1", "a1", "fetch");
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
}

#[test]
fn curl_tells_events_and_the_api_answers_with_verdicts() {
    let (_site, sidecar) = world(AS_THE_EVENT_SAYS);
    let bearer = format!("authorization: Bearer {}", sidecar.agent_token);
    let post = |path: &str, body: Value| {
        let ended = crate::clients::curl(&[
            "-H",
            &bearer,
            "--json",
            &body.to_string(),
            &format!("http://{}{path}", sidecar.agent),
        ]);
        assert!(ended.status.success(), "{ended:?}");
        serde_json::from_str::<Value>(&ended.out).unwrap()
    };
    let opened = post("/v1/workflows", json!({}));
    assert_eq!(opened["verdict"], "allow");
    let (workflow, run) = (&opened["workflow_id"], &opened["run_id"]);
    let activity = json!({"workflow_id": workflow, "run_id": run, "activity_type": "block"});
    assert_eq!(post("/v1/activities", activity)["verdict"], "block");
    // The same in the field names of the wire contract.
    let event = json!({
        "event_type": "ActivityStarted", "workflow_id": workflow, "run_id": run,
        "activity_id": "a", "activity_type": "constrain",
    });
    assert_eq!(post("/v1/events", event)["verdict"], "constrain");
}
