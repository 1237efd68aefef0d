//! The agent API over a socket, and, where time matters, without one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::control::testing::{Answer, World};
use crate::domain::{Attribution, Context, EventKind, JsonText, Reason, TraceId, Verdict};
use crate::gate::FailMode;
use crate::policy::scripted::Scripted;
use crate::policy::{
    ApprovalState, ApprovalsAt, Judging, Later, PolicyBackend, PolicyError, Question, Ruling,
};
use crate::process::clock;
use crate::session::Claim;

fn allowing() -> Scripted {
    Scripted::always(Verdict::Allow)
}

fn saying(verdict: Verdict) -> Scripted {
    allowing().on_events([
        Ok(Ruling::new(Verdict::Allow, 0)),
        Ok(Ruling {
            reason: Some(Reason::from("because")),
            policy: Some("p1".into()),
            ..Ruling::new(verdict, 0)
        }),
    ])
}

const ACTIVITY: &str = r#"{"workflow_id":"w","run_id":"r","activity_id":"a","activity_type":"refund","input":{"n":1}}"#;

type Seen = (EventKind, Arc<Context>, Vec<(&'static str, JsonText)>);

/// Allows everything and remembers the events.
#[derive(Debug, Default, Clone)]
struct Recording(Arc<Mutex<Vec<Seen>>>);

impl PolicyBackend for Recording {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        if let Question::Event(event) = question {
            let seen = (event.kind, event.context.clone(), event.fields.clone());
            self.0.lock().unwrap().push(seen);
        }
        Judging::Now(Ok(Arc::new(Ruling::new(Verdict::Allow, 0))))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Sidecar
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        Box::pin(async { Ok(ApprovalState::Expired) })
    }

    fn generation(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        "recording".to_owned()
    }
}

impl Recording {
    /// The last event as one line, without what is different each time.
    fn last(&self) -> String {
        let seen = self.0.lock().unwrap();
        let (kind, context, fields) = seen.last().unwrap();
        let fields = fields.iter().map(|(name, value)| match *name {
            "start_time" | "end_time" | "duration_ms" => {
                assert!(value.0.parse::<f64>().unwrap() >= 0.0);
                (*name).to_owned()
            }
            name => format!("{name}={}", value.0),
        });
        let activity = context.activity.as_ref();
        let activity = activity.map(|a| format!("{}#{} {} {}", a.kind, a.attempt, a.id, a.input.0));
        format!(
            "{} {}/{} {} {} {}| {}",
            kind.as_str(),
            context.workflow_id,
            context.run_id,
            context.workflow_type,
            context.task_queue,
            activity.map_or(String::new(), |a| a + " "),
            fields.collect::<Vec<_>>().join(" ")
        )
    }
}

#[tokio::test]
async fn every_event_reaches_policy_in_the_words_of_the_contract() {
    let seen = Recording::default();
    let world = World::new(seen.clone());
    #[rustfmt::skip]
    let table = [
        // path, body, what policy was shown
        ("/v1/workflows", r#"{"workflow_id":"w","run_id":"r","workflow_type":"t","task_queue":"q","input":{"goal":"x"}}"#,
         r#"WorkflowStarted w/r t q | activity_input=[{"goal":"x"}]"#),
        ("/v1/signals", r#"{"workflow_id":"w","run_id":"r","signal_name":"user_input","signal_args":"hello"}"#,
         r#"SignalReceived w/r t q | signal_args=["hello"] signal_name="user_input""#),
        ("/v1/activities", ACTIVITY,
         r#"ActivityStarted w/r t q refund#1 a [{"n":1}] | "#),
        ("/v1/activities/a/complete", r#"{"output":{"ok":true}}"#,
         r#"ActivityCompleted w/r t q refund#1 a [{"n":1}] | status="completed" start_time end_time duration_ms span_count=0 spans=[] activity_input=[{"n":1}] activity_output={"ok":true} error=null"#),
        ("/v1/activities", r#"{"workflow_id":"w","run_id":"r","activity_id":"b","activity_type":"k","attempt":2,"input":[1,2]}"#,
         r#"ActivityStarted w/r t q k#2 b [1,2] | "#),
        ("/v1/activities/b/complete", r#"{"workflow_id":"w","run_id":"r","error":"boom"}"#,
         r#"ActivityCompleted w/r t q k#2 b [1,2] | status="failed" start_time end_time duration_ms span_count=0 spans=[] activity_input=[1,2] activity_output=null error={"type":"Exception","message":"boom"}"#),
        ("/v1/events", r#"{"event_type":"ActivityStarted","workflow_id":"w","run_id":"r","activity_id":"c","activity_type":"k","activity_input":7,"metadata":{"m":1},"nobody_knows":1}"#,
         r#"ActivityStarted w/r t q k#1 c [7] | metadata={"m":1}"#),
        ("/v1/events", r#"{"event_type":"ActivityCompleted","workflow_id":"w","run_id":"r","activity_id":"c","result":3,"status":"failed","error":{"type":"E","message":"m"}}"#,
         r#"ActivityCompleted w/r t q k#1 c [7] | status="failed" start_time end_time duration_ms span_count=0 spans=[] activity_input=[7] activity_output=3 error={"type":"E","message":"m"}"#),
        ("/v1/events", r#"{"event_type":"SignalReceived","workflow_id":"w","run_id":"r","signal_name":"s","signal_args":[1]}"#,
         r#"SignalReceived w/r t q | signal_args=[1] signal_name="s""#),
        ("/v1/workflows/w/runs/r/complete", "",
         "WorkflowCompleted w/r t q | workflow_output=null"),
        ("/v1/events", r#"{"event_type":"WorkflowStarted","workflow_id":"w2","run_id":"r2","multi_agent_session_id":"m","activity_input":[1]}"#,
         r#"WorkflowStarted w2/r2 own-type own-queue | multi_agent_session_id="m" activity_input=[1]"#),
        ("/v1/workflows/w2/runs/r2/fail", r#"{"error":{"type":"E","message":"m","cause":{}}}"#,
         r#"WorkflowFailed w2/r2 own-type own-queue | error={"type":"E","message":"m","cause":{}}"#),
        ("/v1/events", r#"{"event_type":"ActivityStarted","workflow_id":"w3","run_id":"r3","activity_id":"a","activity_type":"k"}"#,
         "ActivityStarted w3/r3 own-type own-queue k#1 a [] | "),
        ("/v1/events", r#"{"event_type":"WorkflowCompleted","workflow_id":"w3","run_id":"r3","workflow_output":{"r":1}}"#,
         r#"WorkflowCompleted w3/r3 own-type own-queue | workflow_output={"r":1}"#),
        ("/v1/events", r#"{"event_type":"Handoff","from_agent_did":"did:aip:1","multi_agent_session_id":"m"}"#,
         r#"Handoff own-workflow/own-run own-type own-queue | from_agent_did="did:aip:1" multi_agent_session_id="m""#),
        ("/api/v1/governance/evaluate", r#"{"event_type":"Handoff","from_agent_did":"did:aip:1","multi_agent_session_id":"m"}"#,
         r#"Handoff own-workflow/own-run own-type own-queue | from_agent_did="did:aip:1" multi_agent_session_id="m""#),
    ];
    for (path, body, shown) in table {
        let answer = world.agent.post(path, body).await;
        assert_eq!(
            (answer.status, &answer.json()["verdict"]),
            (200, &json!("allow")),
            "{path} {body}: {answer:?}"
        );
        assert_eq!(seen.last(), shown, "{path} {body}");
    }
}

#[tokio::test]
async fn ids_left_out_are_made_up_and_returned() {
    let world = World::new(allowing());
    let run = world.agent.post("/v1/workflows", "").await.json();
    let activity = json!({
        "workflow_id": run["workflow_id"], "run_id": run["run_id"], "activity_type": "k"
    });
    let answer = world
        .agent
        .post("/v1/activities", &activity.to_string())
        .await
        .json();
    assert_eq!(answer["action"], "allow");
    assert_ne!(answer["activity_id"], answer["event_id"]);
    let id = answer["activity_id"].as_str().unwrap();
    let path = format!("/v1/activities/{id}/complete");
    assert_eq!(world.agent.post(&path, "{}").await.status, 200);
}

#[tokio::test]
async fn a_bad_request_says_what_is_wrong() {
    let world = World::new(allowing()).opened().await;
    let deep = format!("{{\"input\":{}{}}}", "[".repeat(70), "]".repeat(70));
    let long = format!("{{\"workflow_id\":\"{}\"}}", "x".repeat(257));
    let large = format!("{{\"input\":\"{}\"}}", "x".repeat(8 * 1024 * 1024));
    #[rustfmt::skip]
    let table = [
        // method, path, body, status, code, in the detail
        ("POST", "/v1/workflows", "{\n \"input\": }", 400, "malformed_json", "line 2 column 11"),
        ("POST", "/v1/workflows", "{\"inputs\": 1}", 400, "invalid_field", "unknown field `inputs`"),
        ("POST", "/v1/workflows", "[]", 400, "invalid_field", "not a JSON object"),
        ("POST", "/v1/workflows", &deep, 400, "too_deep", "64"),
        ("POST", "/v1/workflows", &large, 413, "too_large", "1048576"),
        ("POST", "/v1/workflows", &long, 400, "invalid_field", "257 characters"),
        ("POST", "/v1/workflows", r#"{"run_id":"a\nb"}"#, 400, "invalid_field", "`run_id` has a control character"),
        ("POST", "/v1/workflows", r#"{"run_id":""}"#, 400, "invalid_field", "`run_id` is empty"),
        ("POST", "/v1/workflows?wait=2h", "{}", 400, "invalid_field", "25s"),
        ("POST", "/v1/workflows?wait=61", "{}", 400, "invalid_field", "at most 60s"),
        ("POST", "/v1/activities", "{}", 400, "missing_field", "`workflow_id` is missing"),
        ("POST", "/v1/activities", r#"{"workflow_id":"w","run_id":"r"}"#, 400, "missing_field", "`activity_type`"),
        ("POST", "/v1/activities", r#"{"workflow_id":"w","run_id":"x","activity_type":"k"}"#, 404, "unknown_run", "\"x\""),
        ("POST", "/v1/activities", r#"{"workflow_id":"w","run_id":"r","activity_type":"k","attempt":0}"#, 400, "invalid_field", "counts from 1"),
        ("POST", "/v1/activities", r#"{"workflow_id":"w","run_id":"r","activity_type":"k","traceparent":"00-1"}"#, 400, "invalid_field", "W3C"),
        ("POST", "/v1/activities/x/complete", "{}", 404, "completion_without_start", "\"x\""),
        ("POST", "/v1/events", "{}", 400, "missing_field", "`event_type`"),
        ("POST", "/v1/events", r#"{"event_type":"Waved"}"#, 400, "unknown_event_type", "WorkflowStarted, "),
        ("POST", "/v1/events", r#"{"event_type":"Handoff","multi_agent_session_id":"m"}"#, 400, "missing_field", "`from_agent_did`"),
        ("POST", "/v1/events", r#"{"event_type":"Handoff","from_agent_did":"did:aip:x","multi_agent_session_id":7}"#, 400, "invalid_field", "`multi_agent_session_id` is not a text"),
        ("POST", "/v1/events", r#"{"event_type":"ActivityStarted","workflow_id":"w","run_id":"r","activity_id":"x","hook_trigger":true,"spans":[{"hook_type":"function_call","stage":"started","function":"f","span_id":"00f067aa0ba902b7","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}]}"#, 400, "hook_event", "evaluate"),
        ("POST", "/v1/events", r#"{"event_type":"ActivityStarted","workflow_id":"w","run_id":"r","activity_id":"x"}"#, 400, "missing_field", "`activity_type`"),
        ("POST", "/v1/events", r#"{"event_type":"ActivityCompleted","workflow_id":"w","run_id":"r","activity_id":"x","status":"done"}"#, 404, "completion_without_start", "\"x\""),
        ("POST", "/v1/events", r#"{"event_type":"WorkflowFailed","workflow_id":"w","run_id":"r","error":5}"#, 400, "invalid_field", "`error` must be a text"),
        ("POST", "/v1/events", "[]", 400, "invalid_field", "not a JSON object"),
        ("POST", "/v1/events", r#"{"event_type":"ActivityCompleted","workflow_id":"w","run_id":"r","activity_id":"x"}"#, 404, "completion_without_start", "\"x\""),
        ("POST", "/v1/events", r#"{"event_type":"SignalReceived","workflow_id":"w","run_id":"x","signal_name":"s"}"#, 404, "unknown_run", "\"x\""),
        ("POST", "/v1/events", r#"{"event_type":"WorkflowFailed","workflow_id":"w","run_id":"r"}"#, 400, "missing_field", "`error`"),
        ("POST", "/v1/signals", r#"{"workflow_id":"w","run_id":"r"}"#, 400, "missing_field", "`signal_name`"),
        ("POST", "/v1/workflows/w/runs/x/complete", "{}", 404, "unknown_run", "\"x\""),
        ("POST", "/v1/workflows/w/runs/r/fail", "{}", 400, "missing_field", "`error`"),
        ("POST", "/v1/workflows/w/runs/r/fail", r#"{"error":5}"#, 400, "invalid_field", "`error` must be a text"),
        ("PUT", "/v1/contexts/c", r#"{"workflow_id":"w","run_id":"r","activity_id":"x"}"#, 404, "unknown_activity", "\"x\""),
        ("PUT", "/v1/contexts/c", r#"{"workflow_id":"w","run_id":"r","trace_id":"0"}"#, 400, "invalid_field", "32"),
        ("DELETE", "/v1/contexts/c", "", 404, "unknown_context", ""),
        ("GET", "/v1/approvals/apr_x", "", 404, "unknown_approval", ""),
        ("GET", "/v1/nothing", "", 404, "unknown_route", "GET /v1/nothing"),
        ("DELETE", "/v1/workflows", "", 405, "method_not_allowed", "DELETE"),
    ];
    for (method, path, body, status, code, detail) in table {
        let answer = world.agent.send(method, path, body).await;
        let context = format!("{method} {path} {:.80}: {answer:?}", body);
        assert_eq!(answer.problem(), (status, code.to_owned()), "{context}");
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(said.contains(detail), "{context}");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_sends_no_body_that_is_too_long() {
    let world = World::new(allowing());
    let request = format!(
        "POST /v1/workflows HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: 1048577\r\n\r\n",
        world.agent.token.expose()
    );
    let answer = world.agent.raw(&request).await;
    assert_eq!(answer.problem(), (413, "too_large".to_owned()));
}

#[tokio::test]
async fn a_completion_needs_its_run_where_two_have_the_activity() {
    let world = World::new(allowing()).opened().await;
    let other = r#"{"workflow_id":"w","run_id":"r2"}"#;
    world.agent.post("/v1/workflows", other).await;
    for run in ["r", "r2"] {
        let start = ACTIVITY.replace("\"r\"", &format!("\"{run}\""));
        assert_eq!(world.agent.post("/v1/activities", &start).await.status, 200);
    }
    let path = "/v1/activities/a/complete";
    let answer = world.agent.post(path, "{}").await;
    assert_eq!(answer.problem(), (409, "ambiguous_activity".to_owned()));
    let answer = world.agent.post(path, r#"{"run_id":"r2"}"#).await;
    assert_eq!(answer.json()["run_id"], "r2");
    assert_eq!(world.agent.post(path, "{}").await.json()["run_id"], "r");
}

#[tokio::test]
async fn the_verdict_is_answered_with_what_came_with_it() {
    for verdict in [
        Verdict::Allow,
        Verdict::Constrain,
        Verdict::Block,
        Verdict::Halt,
    ] {
        let world = World::new(saying(verdict)).opened().await;
        let answer = world.agent.post("/v1/activities", ACTIVITY).await;
        let json = answer.json();
        assert_eq!(answer.status, 200);
        let said = ["verdict", "action", "reason", "policy", "activity_id"].map(|k| &json[k]);
        let word = json!(verdict.as_str());
        assert_eq!(
            said,
            [&word, &word, &json!("because"), &json!("p1"), &json!("a")]
        );
        let opened = verdict < Verdict::Block;
        assert_eq!(json.get("code").is_none(), opened, "{answer:?}");
        let done = world.agent.post("/v1/activities/a/complete", "{}").await;
        assert_eq!(done.status == 200, opened, "{verdict}: {done:?}");
    }
}

#[tokio::test]
async fn constraints_and_redacted_input_are_handed_on() {
    let world = World::new(allowing().on_events([Ok(Ruling {
        constraints: vec!["read_only".into()],
        redacted: Some(JsonText("[{\"ssn\":\"***\"}]".into())),
        ..Ruling::new(Verdict::Constrain, 0)
    })]));
    let json = world.agent.post("/v1/workflows", "{}").await.json();
    assert_eq!(json["constraints"], json!(["read_only"]));
    assert_eq!(json["redacted_input"], json!([{"ssn": "***"}]));
}

#[tokio::test]
async fn what_the_fail_mode_decided_says_so() {
    for (mode, verdict, word) in [
        (FailMode::Open, "allow", "open"),
        (FailMode::Closed, "block", "closed"),
    ] {
        let world = World::failing(Scripted::default(), mode);
        let json = world.agent.post("/v1/workflows", "{}").await.json();
        assert_eq!([&json["verdict"], &json["fail_mode"]], [verdict, word]);
    }
}

#[tokio::test]
async fn an_event_of_a_halted_run_is_answered_halt() {
    let world = World::new(allowing()).opened().await;
    let halt = r#"{"reason":"enough"}"#;
    assert_eq!(
        world.operator.post("/v1/runs/r/halt", halt).await.status,
        200
    );
    for (path, body) in [
        ("/v1/activities", ACTIVITY),
        (
            "/v1/signals",
            r#"{"workflow_id":"w","run_id":"r","signal_name":"s"}"#,
        ),
        ("/v1/workflows", r#"{"workflow_id":"w","run_id":"r"}"#),
        ("/v1/workflows/w/runs/r/complete", "{}"),
        ("/v1/activities", ACTIVITY),
    ] {
        let json = world.agent.post(path, body).await.json();
        let said = ["verdict", "reason", "code"].map(|key| json[key].clone());
        assert_eq!(said, ["halt", "enough", "halted"], "{path}: {json}");
    }
}

#[tokio::test]
async fn only_the_agents_token_opens_it_and_only_from_this_machine() {
    let world = World::new(allowing());
    let (agent, operator) = (&world.agent, &world.operator);
    let request = |host: &str, more: &str| {
        format!("GET /v1/session HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n")
    };
    let bearer = |api: &crate::control::testing::Api| {
        format!("authorization: Bearer {}\r\n", api.token.expose())
    };
    let (own, other) = (bearer(agent), bearer(operator));
    let host = agent.address.to_string();
    let origin = format!("{own}origin: http://{host}\r\n");
    let foreign_origin = format!("{own}origin: https://evil.example\r\n");
    let wrong = "authorization: Bearer obx_test_wrong\r\n";
    let basic = own.replace("Bearer", "Basic");
    let twice = format!("{own}{own}");
    #[rustfmt::skip]
    let table = [
        (request(&host, &own),            200, ""),
        (request("localhost", &own),      200, ""),
        (request(&host, &origin),         200, ""),
        (request(&host, ""),              401, "unauthorized"),
        (request(&host, wrong),           401, "unauthorized"),
        (request(&host, &other),          401, "unauthorized"),
        (request(&host, &basic),          401, "unauthorized"),
        (request(&host, &twice),          401, "unauthorized"),
        (request("evil.example", &own),   403, "foreign_request"),
        (request(&host, &foreign_origin), 403, "foreign_request"),
    ];
    for (request, status, code) in table {
        let answer = agent.raw(&request).await;
        assert_eq!(answer.status, status, "{request} {answer:?}");
        if status != 200 {
            assert_eq!(answer.problem(), (status, code.to_owned()));
        }
        for token in [&agent.token, &operator.token] {
            assert!(!answer.text.contains(token.expose()));
        }
        assert_eq!(
            answer.head.contains("www-authenticate: bearer"),
            status == 401
        );
    }
    // Every path is behind the guard, also those that are not there.
    let nowhere = request(&host, "").replace("/v1/session", "/nowhere");
    assert_eq!(agent.raw(&nowhere).await.status, 401);
}

#[tokio::test]
async fn the_session_and_the_ca_are_told() {
    let world = World::new(allowing());
    let json = world.agent.get("/v1/session").await.json();
    let said = ["workflow_id", "run_id", "proxy_url", "ca_path"].map(|key| json[key].clone());
    let want = [
        "own-workflow",
        "own-run",
        "http://127.0.0.1:15801",
        "/state/ca.pem",
    ];
    assert_eq!(said, want);
    let pem = world.agent.get("/v1/ca.pem").await;
    assert!(pem.text.starts_with("-----BEGIN CERTIFICATE"), "{pem:?}");
}

#[tokio::test]
async fn a_registered_context_attributes() {
    let world = World::new(allowing()).opened().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let names = format!(r#""a","traceparent":"{parent}","context":"bot""#);
    let start = ACTIVITY.replace("\"a\"", &names);
    let json = world.agent.post("/v1/activities", &start).await.json();
    assert_eq!(json["registered"], true, "{json}");
    // A second activity, so that nothing is attributed for being alone.
    let second = ACTIVITY.replace("\"a\"", "\"b\"");
    world.agent.post("/v1/activities", &second).await;
    let registry = world.gate.registry();
    let claim = |trace: Option<TraceId>, user: Option<&'static str>| Claim {
        trace,
        proxy_user: user,
        ..Claim::default()
    };
    let whose = |claim: Claim<'_>| {
        let session = registry.attribute(&claim, clock::now()).unwrap();
        let activity = session.context.activity.as_ref().map(|a| a.id.to_string());
        (session.attribution, activity.unwrap_or_default())
    };
    let known = TraceId(u128::from_str_radix(trace, 16).unwrap());
    let of_a = "a".to_owned();
    assert_eq!(
        whose(claim(Some(known), None)),
        (Attribution::Trace, of_a.clone())
    );
    let by_user = whose(claim(None, Some("bot")));
    assert_eq!(by_user, (Attribution::ProxyCredentials, of_a));

    let body = r#"{"workflow_id":"w","run_id":"r","activity_id":"b"}"#;
    let json = world
        .agent
        .send("PUT", "/v1/contexts/bot", body)
        .await
        .json();
    assert_eq!([&json["proxy_user"], &json["activity_id"]], ["bot", "b"]);
    let by_user = whose(claim(None, Some("bot")));
    assert_eq!(by_user, (Attribution::ProxyCredentials, "b".to_owned()));
    // A run without an activity, by the id of its trace.
    let body = r#"{"workflow_id":"w","run_id":"r","trace_id":"00000000000000000000000000000007"}"#;
    let put = world.agent.send("PUT", "/v1/contexts/run", body).await;
    assert_eq!(put.status, 200, "{put:?}");
    let by_trace = whose(claim(Some(TraceId(7)), None));
    assert_eq!(by_trace, (Attribution::Trace, String::new()));
    // The bound of the registry.
    let full = world.agent.send("PUT", "/v1/contexts/third", body).await;
    assert_eq!(full.problem(), (503, "overloaded".to_owned()));

    let gone = world.agent.send("DELETE", "/v1/contexts/bot", "").await;
    assert_eq!(gone.status, 204);
    assert_eq!(whose(claim(None, Some("bot"))).0, Attribution::OwnSession);
}

#[tokio::test]
async fn contexts_are_registered_only_for_what_was_allowed() {
    let world = World::new(saying(Verdict::Block)).opened().await;
    let start = ACTIVITY.replace("\"a\"", "\"a\",\"context\":\"bot\"");
    let json = world.agent.post("/v1/activities", &start).await.json();
    assert_eq!(
        [&json["verdict"], &json["registered"]],
        [&json!("block"), &json!(null)]
    );
    assert!(!world.gate.registry().forget_name("bot"));
}

fn asking(times: usize) -> Scripted {
    let ask = || {
        Ok(Ruling {
            reason: Some(Reason::from("refunds need a person")),
            ..Ruling::new(Verdict::RequireApproval, 0)
        })
    };
    allowing().on_events(
        std::iter::once(Ok(Ruling::new(Verdict::Allow, 0))).chain((0..times).map(|_| ask())),
    )
}

async fn only_pending(world: &World) -> String {
    loop {
        let json = world
            .operator
            .direct("GET", "/v1/approvals?status=pending", "")
            .await
            .json();
        if let Some(id) = json["approvals"][0]["approval_id"].as_str() {
            return id.to_owned();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_approval_lets_the_waiting_event_go_once() {
    let world = World::new(asking(2)).opened().await;
    let decide = async {
        let id = only_pending(&world).await;
        let path = format!("/v1/approvals/{id}/approve");
        let decided = world.operator.post(&path, r#"{"by":"ann"}"#).await;
        assert_eq!(decided.json()["state"], "granted");
    };
    let (answer, ()) = tokio::join!(world.agent.post("/v1/activities", ACTIVITY), decide);
    assert_eq!(answer.json()["verdict"], "allow", "{answer:?}");
    assert!(world.journal().contains(r#""by":"ann""#));
    // The grant is used; the next one asks again.
    let again = world.agent.post("/v1/activities?wait=0", ACTIVITY).await;
    let json = again.json();
    assert_eq!(json["verdict"], "require_approval");
    let place = format!(
        "location: /v1/approvals/{}",
        json["approval_id"].as_str().unwrap()
    );
    assert!(again.head.contains(&place), "{again:?}");
    assert!(again.head.contains("retry-after: 5"), "{again:?}");
}

#[tokio::test]
async fn a_rejection_answers_the_waiting_event_with_the_persons_words() {
    let world = World::new(asking(1)).opened().await;
    let decide = async {
        let id = only_pending(&world).await;
        let path = format!("/v1/approvals/{id}/reject");
        let body = r#"{"reason":"wrong customer"}"#;
        assert_eq!(world.operator.post(&path, body).await.status, 200);
        id
    };
    let (answer, id) = tokio::join!(world.agent.post("/v1/activities", ACTIVITY), decide);
    let json = answer.json();
    let said = ["verdict", "code", "reason", "approval_id"].map(|key| json[key].clone());
    assert_eq!(said, ["block", "approval_rejected", "wrong customer", &id]);
    let json = world.agent.get(&format!("/v1/approvals/{id}")).await.json();
    assert_eq!(
        [&json["state"], &json["reason"]],
        ["rejected", "wrong customer"]
    );
}

fn pending_of(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(
        [&json["verdict"], &json["code"]],
        ["require_approval", "approval_pending"]
    );
    assert_eq!(json["retry_after"], 5, "{json}");
    assert_eq!(answer.status, 202);
    assert!(
        json["reason"]
            .as_str()
            .unwrap()
            .ends_with(": refunds need a person"),
        "{json}"
    );
    json["approval_id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_pending_event_joins_its_hold() {
    let world = World::new(asking(1));
    let body = r#"{"workflow_id":"w","run_id":"r"}"#;
    world.agent.direct("POST", "/v1/workflows", body).await;
    let began = tokio::time::Instant::now();
    let first = world.agent.direct("POST", "/v1/activities", ACTIVITY).await;
    assert_eq!(began.elapsed(), Duration::from_secs(25));
    let id = pending_of(&first);
    let second = world
        .agent
        .direct("POST", "/v1/activities?wait=3s", ACTIVITY)
        .await;
    assert_eq!(began.elapsed(), Duration::from_secs(28));
    assert_eq!(pending_of(&second), id);
    let path = format!("/v1/approvals/{id}/approve");
    world.operator.direct("POST", &path, "").await;
    let third = world
        .agent
        .direct("POST", "/v1/activities?wait=0", ACTIVITY)
        .await;
    assert_eq!(third.json()["verdict"], "allow", "{third:?}");
    let done = world
        .agent
        .direct("POST", "/v1/activities/a/complete", "{}")
        .await;
    assert_eq!(done.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_waits_for_a_person_is_found_by_its_retry() {
    let ask = Ruling {
        reason: Some(Reason::from("refunds need a person")),
        ..Ruling::new(Verdict::RequireApproval, 0)
    };
    let allow = || Ok(Ruling::new(Verdict::Allow, 0));
    let world = World::new(Scripted::default().on_events([allow(), allow(), Ok(ask)]));
    let body = r#"{"workflow_id":"w","run_id":"r"}"#;
    world.agent.direct("POST", "/v1/workflows", body).await;
    world.agent.direct("POST", "/v1/activities", ACTIVITY).await;
    let path = "/v1/activities/a/complete?wait=1s";
    let first = world.agent.direct("POST", path, "{}").await;
    let id = pending_of(&first);
    assert_eq!(
        pending_of(&world.agent.direct("POST", path, "{}").await),
        id
    );
    world
        .operator
        .direct("POST", &format!("/v1/approvals/{id}/approve"), "")
        .await;
    let last = world.agent.direct("POST", path, "{}").await;
    assert_eq!(last.json()["verdict"], "allow", "{last:?}");
    let over = world.agent.direct("POST", path, "{}").await;
    assert_eq!(over.problem().1, "completion_without_start");
}

#[tokio::test(start_paused = true)]
async fn a_look_at_an_approval_waits_for_its_decision_and_no_longer_than_asked() {
    let world = World::new(asking(1));
    let body = r#"{"workflow_id":"w","run_id":"r"}"#;
    world.agent.direct("POST", "/v1/workflows", body).await;
    let first = world
        .agent
        .direct("POST", "/v1/activities?wait=0", ACTIVITY)
        .await;
    let id = pending_of(&first);
    let look = |wait: &str| {
        let path = format!("/v1/approvals/{id}{wait}");
        let agent = world.agent.clone();
        async move { agent.direct("GET", &path, "").await.json() }
    };
    let began = tokio::time::Instant::now();
    let json = look("").await;
    assert_eq!(
        [&json["state"], &json["retry_after"]],
        [&json!("pending"), &json!(1)]
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(look("?wait=55s").await["state"], "pending");
    assert_eq!(began.elapsed(), Duration::from_secs(55));
    let decide = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        let path = format!("/v1/approvals/{id}/approve");
        world.operator.direct("POST", &path, "").await;
    };
    let (json, ()) = tokio::join!(look("?wait=55s"), decide);
    assert_eq!(json["state"], "granted");
    assert_eq!(began.elapsed(), Duration::from_secs(62));
    // What the person sees is not the agent's.
    assert!(json.get("summary").is_none() && json.get("policy").is_none());
    world.gate.close();
}

#[tokio::test]
async fn a_halt_answers_what_waits() {
    let world = World::new(asking(1)).opened().await;
    let halt = async {
        only_pending(&world).await;
        let body = r#"{"reason":"enough"}"#;
        assert_eq!(
            world.operator.post("/v1/runs/r/halt", body).await.status,
            200
        );
    };
    let (answer, ()) = tokio::join!(world.agent.post("/v1/activities", ACTIVITY), halt);
    assert_eq!(answer.json()["verdict"], "halt", "{answer:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_the_approval_open() {
    use tokio::io::AsyncWriteExt;
    let world = World::new(asking(1)).opened().await;
    let mut stream = tokio::net::TcpStream::connect(world.agent.address)
        .await
        .unwrap();
    let request = format!(
        "POST /v1/activities HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{ACTIVITY}",
        world.agent.token.expose(),
        ACTIVITY.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let id = only_pending(&world).await;
    drop(stream);
    let path = format!("/v1/approvals/{id}/approve");
    assert_eq!(world.operator.post(&path, "").await.status, 200);
    let retry = world.agent.post("/v1/activities", ACTIVITY).await;
    assert_eq!(retry.json()["verdict"], "allow", "{retry:?}");
}
