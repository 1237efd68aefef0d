//! A test per verdict and stage: what the agent sees, what the origin sees, and
//! what the journal says.

use crate::assert_carried_out;
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::{ALLOW, AS_THE_PATH_SAYS};
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::until;

fn world() -> (Origin, Sidecar) {
    let site = Origin::site();
    let sidecar = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site).start();
    (site, sidecar)
}

#[test]
fn what_is_allowed_passes_and_is_recorded_at_both_stages() {
    let (site, sidecar) = world();
    let answer = sidecar.get(&site.url("/started/allow"));
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text(), "hello from /started/allow");
    assert_eq!(answer.get("openbox-verdict"), None);
    let started = sidecar.record_of("/started/allow", "started");
    assert_eq!(started["decision"], "allow");
    assert_eq!(started["verdict"], "allow");
    assert_eq!(started["attribution"], "own_session");
    let completed = sidecar.record_of("/started/allow", "completed");
    assert_eq!(completed["decision"], "release");
    assert_eq!(completed["outcome"], "answered");
    assert_eq!(completed["http_status_code"], 200);
    assert_eq!(completed["event_id"], started["event_id"]);
}

#[test]
fn a_constraint_is_shown_to_the_agent_at_started() {
    let (site, sidecar) = world();
    let answer = sidecar.get(&site.url("/started/constrain"));
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.get("openbox-constraints"), Some("audit"));
    let started = sidecar.record_of("/started/constrain", "started");
    assert_eq!(started["decision"], "constrain");
    assert_eq!(started["constraints"], serde_json::json!(["audit"]));
}

#[test]
fn a_constraint_at_completed_releases_the_answer_and_is_recorded() {
    let (site, sidecar) = world();
    let answer = sidecar.get(&site.url("/completed/constrain"));
    assert_eq!(answer.status(), 200);
    let completed = sidecar.record_of("/completed/constrain", "completed");
    assert_eq!(completed["decision"], "release");
    assert_eq!(completed["verdict"], "constrain");
    assert_eq!(completed["constraints"], serde_json::json!(["audit"]));
}

#[test]
fn an_enforced_constraint_that_cannot_be_applied_refuses() {
    let site = Origin::site();
    let sidecar = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .reach(&site)
        .config("constraints: enforce\n")
        .start();
    let answer = sidecar.get(&site.url("/started/constrain"));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "constraint_not_applicable".to_owned())
    );
    assert_eq!(answer.get("openbox-verdict"), Some("constrain"));
    assert_eq!(site.heard().len(), 0);
    let answer = sidecar.get(&site.url("/completed/constrain"));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "constraint_not_applicable".to_owned())
    );
    assert_carried_out(&answer, "constrain");
}

#[test]
fn what_is_blocked_never_reaches_the_origin_and_explains_itself() {
    let (site, sidecar) = world();
    let answer = sidecar.get(&site.url("/started/block"));
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.get("content-type"), Some("application/problem+json"));
    assert_eq!(answer.get("openbox-verdict"), Some("block"));
    let problem = answer.json();
    assert_eq!(problem["code"], "blocked");
    assert_eq!(problem["reason"], "the test says block");
    assert_eq!(problem["policy"], "data.test");
    assert_eq!(problem["retryable"], false);
    assert_eq!(problem["event_id"], answer.get("openbox-event-id").unwrap());
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("Nothing was sent"), "{detail}");
    assert!(detail.contains("do not try another way"), "{detail}");
    assert_eq!(site.connections(), 0);
    let started = sidecar.record_of("/started/block", "started");
    assert_eq!(started["decision"], "blocked");
    assert_eq!(started["event_id"], problem["event_id"]);
    assert!(
        !sidecar
            .journal()
            .iter()
            .any(|line| line["stage"] == "completed")
    );
    // One operation was refused, and nothing else with it.
    assert_eq!(sidecar.get(&site.url("/hello")).status(), 200);
}

#[test]
fn an_answer_that_is_blocked_does_not_reach_the_agent() {
    let (site, sidecar) = world();
    let answer = sidecar.get(&site.url("/completed/block"));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "outcome_blocked".to_owned())
    );
    assert_eq!(answer.get("openbox-verdict"), Some("block"));
    assert!(!answer.text().contains("hello from"), "{}", answer.text());
    assert_carried_out(&answer, "block");
    assert_eq!(site.times("/completed/block"), 1);
    let completed = sidecar.record_of("/completed/block", "completed");
    assert_eq!(completed["decision"], "outcome_blocked");
    assert_eq!(completed["http_status_code"], 200);
    assert_eq!(sidecar.get(&site.url("/hello")).status(), 200);
}

#[test]
fn a_halt_refuses_everything_after_it_until_the_operator_resumes() {
    let (site, sidecar) = world();
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/started/halt"), &[], ""));
    let answer = wire.answer();
    assert_eq!((answer.status(), answer.code()), (403, "halted".to_owned()));
    assert_eq!(answer.get("openbox-verdict"), Some("halt"));
    assert!(wire.is_ended(), "HALT ends the connection");
    let after = sidecar.get(&site.url("/hello"));
    assert_eq!((after.status(), after.code()), (403, "halted".to_owned()));
    assert_eq!(after.json()["reason"], "the test says halt");
    assert_eq!(site.connections(), 0);
    let halt = sidecar.recorded("the halt", |line| line["record"] == "halt");
    assert_eq!(
        (&halt["by"], &halt["reason"]),
        (&"policy".into(), &"the test says halt".into())
    );

    let (status, resumed) = sidecar.operator("POST", "/v1/runs/own/resume", r#"{"by":"test"}"#);
    assert_eq!((status, &resumed["resumed"]), (200, &true.into()));
    assert_eq!(sidecar.get(&site.url("/hello")).status(), 200);
    let resume = sidecar.recorded("the resume", |line| line["record"] == "resume");
    assert_eq!(resume["by"], "test");
}

#[test]
fn a_halt_at_completed_withholds_the_answer_and_latches_the_run() {
    let (site, sidecar) = world();
    let answer = sidecar.get(&site.url("/completed/halt"));
    assert_eq!((answer.status(), answer.code()), (403, "halted".to_owned()));
    assert_carried_out(&answer, "halt");
    assert_eq!(site.times("/completed/halt"), 1);
    assert_eq!(
        sidecar.record_of("/completed/halt", "completed")["decision"],
        "halted"
    );
    assert_eq!(sidecar.get(&site.url("/hello")).code(), "halted");
    assert_eq!(site.times("/hello"), 0);
}

#[test]
fn an_answer_that_streams_is_observed_and_its_halt_stops_what_follows() {
    let site = Origin::site();
    let rego = r#"
package test
default result := {"decision": "ALLOW"}
result := {"decision": "HALT", "reason": "seen too late"} if {
	input.spans[0].stage == "completed"
	startswith(input.spans[0].attributes["url.path"], "/bytes")
}
"#;
    let sidecar = Setup::new().policy(rego).reach(&site).start();
    let answer = sidecar.get(&site.url("/bytes/100000"));
    assert_eq!((answer.status(), answer.body.len()), (200, 100_000));
    let completed = sidecar.record_of("/bytes/100000", "completed");
    assert_eq!(completed["decision"], "halted");
    assert_eq!(sidecar.get(&site.url("/hello")).code(), "halted");
}

#[test]
fn every_verdict_holds_inside_intercepted_tls_too() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let sidecar = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .reach(&site)
        .trust(&authority)
        .start();
    let mut wire = sidecar.tls_tunnel(&site);
    #[rustfmt::skip]
    let rows = [
        ("/started/allow",      200, None,              1),
        ("/started/constrain",  200, None,              1),
        ("/started/block",      403, Some("block"),     0),
        ("/completed/block",    403, Some("block"),     1),
        ("/hello",              200, None,              1),
        ("/started/halt",       403, Some("halt"),      0),
    ];
    for (path, status, verdict, sent) in rows {
        wire.say(request("GET", &site.url(path), &[], "").replacen(&site.url(""), "", 1));
        let answer = wire.answer();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.get("openbox-verdict"), verdict, "{path}");
        assert_eq!(site.times(path), sent, "{path}");
        assert_eq!(
            sidecar.record_of(path, "started")["http_url"],
            site.url(path)
        );
    }
}

#[test]
fn a_policy_that_changes_decides_from_then_on() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    let mut wire = sidecar.wire();
    let request = request("GET", &site.url("/started/block"), &[], "");
    wire.say(&request);
    assert_eq!(wire.answer().status(), 200);
    sidecar.change_policy(AS_THE_PATH_SAYS);
    wire.say(&request);
    assert_eq!(wire.answer().code(), "blocked");
}

#[test]
fn a_policy_file_that_changes_is_noticed_without_being_told() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    let url = site.url("/started/block");
    assert_eq!(sidecar.get(&url).status(), 200);
    sidecar.setup.write("policy.rego", AS_THE_PATH_SAYS);
    until("the new policy", || {
        (sidecar.get(&url).status() == 403).then_some(())
    });
    // A broken one changes nothing: the last good policy stays.
    sidecar
        .setup
        .write("policy.rego", "package test\nresult := {");
    let name = "openbox_policy_reloads_total{result=\"failed\"}";
    until("the failed reload", || {
        (sidecar.metric(name) > 0).then_some(())
    });
    assert_eq!(sidecar.get(&url).code(), "blocked");
    let (status, problem) = sidecar.operator("POST", "/v1/policy/reload", "{}");
    assert_eq!(
        (status, &problem["code"]),
        (409, &"policy_not_loaded".into())
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("policy.rego") && detail.contains("2"),
        "{detail}"
    );
}

#[test]
fn secrets_of_a_request_stay_out_of_journal_and_log() {
    let (site, sidecar) = world();
    let fields = [
        ("authorization", "Bearer very-secret-word"),
        ("cookie", "session=very-secret-word"),
        ("x-api-key", "very-secret-word"),
        ("content-type", "text/plain"),
    ];
    let answer = sidecar.send("POST", &site.url("/echo"), &fields, "body-secret-word");
    // The origin gets them: they are the agent's own.
    assert!(answer.text().contains("very-secret-word"));
    sidecar.record_of("/echo", "completed");
    let journal = std::fs::read_to_string(sidecar.state.join("journal.jsonl")).unwrap();
    for text in [journal, sidecar.log()] {
        assert!(!text.contains("secret-word"), "{text}");
    }
}

#[test]
fn where_answers_are_observed_a_block_aborts_the_activity_after_the_fact() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.config("http:\n  completed: observe\n").start();
    let run = serde_json::json!({"workflow_id": "w", "run_id": "r"});
    sidecar.event("/v1/workflows", &run);
    let activity = serde_json::json!({
        "workflow_id": "w", "run_id": "r", "activity_id": "a", "activity_type": "t",
    });
    sidecar.event("/v1/activities", &activity);
    assert_eq!(
        sidecar.get(&site.url("/completed/block")).text(),
        "hello from /completed/block"
    );
    assert_eq!(
        sidecar.record_of("/completed/block", "completed")["decision"],
        "outcome_blocked"
    );
    assert_eq!(sidecar.get(&site.url("/hello")).code(), "activity_aborted");
    assert_eq!(site.times("/hello"), 0);
}

#[test]
fn an_answer_that_went_out_and_needs_approval_makes_the_activity_wait() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup
        .config("http:\n  completed: observe\n  hold_within: 150ms\n")
        .start();
    sidecar.event(
        "/v1/workflows",
        &serde_json::json!({"workflow_id": "w", "run_id": "r"}),
    );
    let activity = serde_json::json!({
        "workflow_id": "w", "run_id": "r", "activity_id": "a", "activity_type": "t",
    });
    sidecar.event("/v1/activities", &activity);
    let path = "/completed/require_approval";
    assert_eq!(sidecar.get(&site.url(path)).status(), 200);
    let approval = sidecar.pending_approval();
    assert_eq!(sidecar.get(&site.url("/next")).code(), "approval_pending");
    assert_eq!(site.times("/next"), 0);
    sidecar.approve(&approval);
    assert_eq!(sidecar.get(&site.url("/next")).status(), 200);
}

#[test]
fn what_cannot_be_written_down_does_not_happen() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    std::fs::create_dir(setup.state()).unwrap();
    // A disk that is always full.
    std::os::unix::fs::symlink("/dev/full", setup.state().join("journal.jsonl")).unwrap();
    let sidecar = setup.start();
    let answer = sidecar.get(&site.url("/hello"));
    assert_eq!(
        (answer.status(), answer.code()),
        (503, "not_recorded".to_owned())
    );
    assert_eq!(site.connections(), 0);
    let event = sidecar.event("/v1/workflows", &serde_json::json!({}));
    assert_eq!(event["code"], "not_recorded", "{event}");
}

#[test]
fn a_policy_that_says_nothing_refuses_unless_told_otherwise() {
    let silent = "package test\nresult := {\"decision\": \"ALLOW\"} if input.never\n";
    for (undefined, status) in [("deny", 403), ("allow", 200)] {
        let site = Origin::site();
        let undefined_is = format!("undefined: {undefined}\n  evaluate_within: 20s");
        let setup = Setup::new().policy_with(silent, &undefined_is);
        let sidecar = setup.reach(&site).start();
        assert_eq!(sidecar.get(&site.url("/x")).status(), status, "{undefined}");
    }
}

#[test]
fn a_policy_that_fails_refuses_even_when_failing_open() {
    let rows = [
        (
            "no decision",
            "package test\nresult := {\"decision\": \"PERHAPS\"}\n",
        ),
        ("not an object", "package test\nresult := 1\n"),
        (
            "conflict",
            "package test\nresult := {\"decision\": \"ALLOW\"} if input.hook_trigger\nresult := {\"decision\": \"BLOCK\"} if input.hook_trigger\n",
        ),
        (
            "too slow",
            "package test\nresult := {\"decision\": \"ALLOW\"} if count([x | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); x := i * j]) > 0\n",
        ),
    ];
    for (name, rego) in rows {
        let site = Origin::site();
        let sidecar = Setup::new()
            .policy_with(rego, "evaluate_within: 50ms")
            .flag("--fail-mode", "open")
            .reach(&site)
            .start();
        let answer = sidecar.get(&site.url("/x"));
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "not_judgeable".to_owned()),
            "{name}"
        );
        assert_eq!(site.connections(), 0, "{name}");
    }
}
