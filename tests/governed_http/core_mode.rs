//! OpenBox Core as the judge: every verdict, and every way to fail, under both
//! fail modes and at both stages.

use crate::assert_carried_out;
use crate::support::core::{Core, Say, verdict};
use crate::support::origin::Origin;
use crate::support::sidecar::{KEY, Setup, Sidecar};
use crate::support::wire::Message;
use crate::support::{free_port, until};

pub(crate) fn setup(core_url: &str, fail_mode: &str, site: &Origin) -> Setup {
    Setup::new().core(core_url, fail_mode).reach(site)
}

fn world(fail_mode: &str) -> (Core, Origin, Sidecar) {
    let (core, site) = (Core::start(), Origin::site());
    let sidecar = setup(&core.url(), fail_mode, &site)
        .config("core:\n  timeout: 15s\n  retries: 0\n")
        .start();
    (core, site, sidecar)
}

#[test]
fn both_stages_are_asked_about_in_the_words_of_the_contract() {
    let (core, site, sidecar) = world("closed");
    let fields = [
        ("content-type", "application/json"),
        ("authorization", "Bearer s3cret"),
    ];
    let answer = sidecar.send("POST", &site.url("/x"), &fields, r#"{"a":1}"#);
    assert_eq!(answer.status(), 200);
    assert_eq!(core.asked("validate").len(), 1);
    let asked = core.asked("evaluate");
    let [started, completed] = &asked[..] else {
        panic!("two questions, not {}", asked.len());
    };
    for question in [started, completed] {
        assert_eq!(question["source"], "workflow-telemetry");
        assert_eq!(question["hook_trigger"], true);
        assert_eq!(question["spans"][0]["http_method"], "POST");
        assert_eq!(question["spans"][0]["http_url"], site.url("/x"));
        assert_eq!(question["spans"][0]["request_body"], r#"{"a":1}"#);
        assert!(!question.to_string().contains("s3cret"));
        assert!(!question.to_string().contains(KEY));
    }
    assert_eq!(started["spans"][0]["stage"], "started");
    assert_eq!(completed["spans"][0]["stage"], "completed");
    assert_eq!(completed["spans"][0]["http_status_code"], 200);
    assert_eq!(started["activity_id"], completed["activity_id"]);
}

#[test]
fn every_verdict_of_core_is_enforced_at_its_stage() {
    #[rustfmt::skip]
    let rows = [
        // stage        word                status  code               sent  recorded
        ("started",   "allow",               200, "",                  1, "allow"),
        ("started",   "constrain",           200, "",                  1, "constrain"),
        ("started",   "block",               403, "blocked",           0, "blocked"),
        ("started",   "halt",                403, "halted",            0, "halted"),
        ("completed", "allow",               200, "",                  1, "release"),
        ("completed", "constrain",           200, "",                  1, "release"),
        ("completed", "block",               403, "outcome_blocked",   1, "outcome_blocked"),
        ("completed", "halt",                403, "halted",            1, "halted"),
    ];
    for fail_mode in ["open", "closed"] {
        let (core, site, sidecar) = world(fail_mode);
        for (stage, word, status, code, sent, recorded) in rows {
            let path = format!("/{stage}-{word}");
            core.at(stage, verdict(word));
            let answer = sidecar.get(&site.url(&path));
            assert_eq!(answer.status(), status, "{path}");
            if status != 200 {
                assert_eq!(answer.code(), code, "{path}");
                assert_eq!(
                    answer.json()["reason"],
                    format!("core says {word}"),
                    "{path}"
                );
                assert_eq!(answer.json()["policy"], "core-policy", "{path}");
                if stage == "completed" {
                    assert_carried_out(&answer, &path);
                }
            }
            assert_eq!(site.times(&path), sent, "{path}");
            let record = sidecar.record_of(&path, stage);
            assert_eq!(record["decision"], recorded, "{path}");
            assert_eq!(record["core_event_id"], "core-event", "{path}");
            assert_eq!(record["by_fail_mode"], serde_json::Value::Null, "{path}");
            if word == "halt" {
                let (status, _) = sidecar.operator("POST", "/v1/runs/own/resume", "{}");
                assert_eq!(status, 200);
            }
        }
    }
}

#[test]
fn the_older_words_of_core_mean_the_same() {
    let (core, site, sidecar) = world("closed");
    #[rustfmt::skip]
    let rows = [
        (r#"{"action":"continue"}"#,                        200),
        (r#"{"action":"ALLOW"}"#,                           200),
        (r#"{"verdict":"allow","action":"continue"}"#,      200),
        (r#"{"action":"block"}"#,                           403),
        (r#"{"verdict":"halt","action":"stop"}"#,           403),
    ];
    for (n, (body, status)) in rows.into_iter().enumerate() {
        core.at("started", Say::Answer(200, body.to_owned()));
        let answer = sidecar.get(&site.url(&format!("/{n}")));
        assert_eq!(answer.status(), status, "{body}");
    }
}

/// What the fail mode may decide: no answer. And what it may not: an answer
/// that cannot be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Unjudgeable,
}

fn failures() -> Vec<(&'static str, Say, Kind)> {
    use Kind::{Unavailable, Unjudgeable};
    let said = |status, body: &str| Say::Answer(status, body.to_owned());
    #[rustfmt::skip]
    let rows = vec![
        ("server error",        said(500, r#"{"code":500,"message":"failed to evaluate event"}"#), Unavailable),
        ("bad gateway",         said(502, "<html>"),                                Unavailable),
        ("too many requests",   said(429, "{}"),                                    Unavailable),
        ("timeout",             Say::Nothing,                                       Unavailable),
        ("closed",              Say::Bytes(b""),                                    Unavailable),
        ("cut short",           Say::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"verdict\":\"allow\"}"), Unavailable),
        ("unknown word",        said(200, r#"{"verdict":"perhaps"}"#),              Unjudgeable),
        ("contradiction",       said(200, r#"{"verdict":"allow","action":"block"}"#), Unjudgeable),
        ("no verdict",          said(200, "{}"),                                    Unjudgeable),
        ("not a string",        said(200, r#"{"verdict":1}"#),                      Unjudgeable),
        ("garbage",             said(200, "certainly!"),                            Unjudgeable),
        ("empty",               said(200, ""),                                      Unjudgeable),
        ("half a document",     said(200, r#"{"verdict":"allow""#),                 Unjudgeable),
        ("two documents",       said(200, r#"{"verdict":"allow"}{}"#),              Unjudgeable),
        ("two verdicts",        said(200, r#"{"verdict":"allow","verdict":"block"}"#), Unjudgeable),
        ("not HTTP",            Say::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n"),             Unjudgeable),
        ("not found",           said(404, r#"{"message":"not found"}"#),            Unjudgeable),
        ("bad request",         said(400, r#"{"verdict":"allow"}"#),                Unjudgeable),
        ("key refused",         said(401, r#"{"reason_code":"invalid_api_key"}"#),  Unjudgeable),
        ("forbidden",           said(403, r#"{"verdict":"allow"}"#),                Unjudgeable),
        ("too large for Core",  said(500, r#"{"message":"Blob size exceeds limit."}"#), Unjudgeable),
        ("another success",     said(202, r#"{"verdict":"allow"}"#),                Unjudgeable),
        ("redirect",            said(302, ""),                                      Unjudgeable),
        ("failed guardrails",   said(200, r#"{"verdict":"allow","guardrails_result":"?"}"#), Unjudgeable),
    ];
    rows
}

#[test]
fn no_answer_is_what_the_fail_mode_says_and_a_bad_answer_is_a_refusal_under_either() {
    for fail_mode in ["open", "closed"] {
        let (core, site, sidecar) = world(fail_mode);
        let mut marked = 0;
        for stage in ["started", "completed"] {
            for (n, (name, say, kind)) in failures().into_iter().enumerate() {
                let what = format!("{name}, {stage}, fail {fail_mode}");
                let path = format!("/{stage}-{n}");
                core.at(stage, say);
                let answer = sidecar.get(&site.url(&path));
                let record = sidecar.record_of(&path, stage);
                assert_eq!(
                    record["by_fail_mode"] == true,
                    kind == Kind::Unavailable,
                    "{what}: {record}"
                );
                let passes = kind == Kind::Unavailable && fail_mode == "open";
                if kind == Kind::Unavailable {
                    marked += 1;
                }
                if passes {
                    assert_eq!(
                        (answer.status(), answer.text()),
                        (200, format!("hello from {path}")),
                        "{what}"
                    );
                } else {
                    let code = match kind {
                        Kind::Unavailable => "policy_unavailable",
                        Kind::Unjudgeable => "not_judgeable",
                    };
                    assert_eq!(
                        (answer.status(), answer.code()),
                        (403, code.to_owned()),
                        "{what}"
                    );
                    assert_eq!(answer.get("openbox-verdict"), Some("error"), "{what}");
                    assert!(!answer.text().contains("hello from"), "{what}");
                    assert_eq!(record["decision"], code, "{what}");
                    if stage == "completed" {
                        assert_carried_out(&answer, &what);
                    } else {
                        let helps = kind == Kind::Unavailable;
                        assert_eq!(answer.json()["retryable"], helps, "{what}");
                        assert_eq!(answer.get("retry-after"), helps.then_some("1"), "{what}");
                        let detail = answer.json()["detail"].to_string();
                        assert!(detail.contains("Nothing was sent."), "{what}: {detail}");
                    }
                }
                let sent = usize::from(passes || stage == "completed");
                assert_eq!(site.times(&path), sent, "{what}");
            }
        }
        let name = format!("openbox_fail_mode_decisions_total{{mode=\"{fail_mode}\"}}");
        assert_eq!(sidecar.metric(&name), marked);
        if fail_mode == "open" {
            assert!(sidecar.log().contains("passed by the fail mode"));
        }
    }
}

/// An SDK inside the agent asks the same Core; that is no operation.
#[test]
fn what_the_agent_asks_core_itself_passes_unasked_and_nothing_else_there_does() {
    let (core, site) = (Core::start(), Origin::site());
    let sidecar = setup(&core.url(), "closed", &site).start();
    let url = |path: &str| format!("{}{path}", core.url());
    let answer = sidecar.send("POST", &url("/api/v1/governance/evaluate"), &[], "{}");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    // The agent's own question, and none of ours about it.
    assert_eq!(core.asked("evaluate").len(), 1);
    let record = sidecar.record_of("/api/v1/governance/evaluate", "started");
    assert_eq!(record["policy"], "openbox-sidecar/core_api");
    sidecar.get(&url("/api/v1/agents"));
    assert_eq!(core.asked("evaluate").len(), 3, "both stages of the other");
}

#[test]
fn a_core_that_cannot_be_reached_is_what_the_fail_mode_says() {
    let url = format!("http://127.0.0.1:{}", free_port());
    for (fail_mode, status) in [("open", 200), ("closed", 403)] {
        let site = Origin::site();
        let sidecar = setup(&url, fail_mode, &site)
            .env("OPENBOX_VALIDATE", "false")
            .start();
        let answer = sidecar.get(&site.url("/hello"));
        assert_eq!(answer.status(), status, "{fail_mode}: {}", answer.text());
        assert_eq!(sidecar.record_of("/hello", "started")["by_fail_mode"], true);
    }
}

#[test]
fn what_got_no_answer_is_asked_again_and_what_got_one_is_not() {
    for (status, code, times) in [(500, "policy_unavailable", 3), (404, "not_judgeable", 1)] {
        let (core, site) = (Core::start(), Origin::site());
        let sidecar = setup(&core.url(), "closed", &site).start();
        core.at("started", Say::Answer(status, "{}".to_owned()));
        assert_eq!(sidecar.get(&site.url("/x")).code(), code);
        let asked = core.asked("evaluate");
        assert_eq!(asked.len(), times, "{status}");
        assert!(asked.iter().all(|question| *question == asked[0]));
    }
}

#[test]
fn a_kept_connection_that_core_has_closed_is_not_a_failure() {
    // It answers once on each connection and closes, saying keep-alive.
    let core = Origin::raw(|mut wire, _| {
        if let Some(request) = wire.request() {
            let body = if request.head.path().ends_with("validate") {
                r#"{"valid":true}"#
            } else {
                r#"{"verdict":"allow"}"#
            };
            wire.say(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    let site = Origin::site();
    let url = format!("http://127.0.0.1:{}", core.address.port());
    let sidecar = setup(&url, "closed", &site).start();
    for n in 0..10 {
        let answer = sidecar.get(&site.url(&format!("/{n}")));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
}

#[test]
fn a_redaction_that_http_cannot_apply_refuses_under_either_fail_mode() {
    for fail_mode in ["open", "closed"] {
        let (core, site, sidecar) = world(fail_mode);
        let body = r#"{"verdict":"allow","guardrails_result":{"input_type":"activity_input","redacted_input":["****"],"validation_passed":true}}"#;
        core.at("started", Say::Answer(200, body.to_owned()));
        let answer: Message = sidecar.get(&site.url("/redacted"));
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "constraint_not_applicable".to_owned())
        );
        assert_eq!(site.heard().len(), 0);
    }
}

#[test]
fn lifecycle_events_without_an_answer_are_what_the_fail_mode_says() {
    let words = [("open", "allow"), ("closed", "block")];
    for (fail_mode, verdict_word) in words {
        let (core, _site, sidecar) = world(fail_mode);
        core.script(|_, _| Say::Answer(500, "{}".to_owned()));
        let body = serde_json::json!({"workflow_id": "w", "run_id": "r"});
        let answer = sidecar.event("/v1/workflows", &body);
        assert_eq!(answer["verdict"], verdict_word, "{answer}");
        assert_eq!(answer["fail_mode"], fail_mode, "{answer}");
        let record = sidecar.recorded("the event", |line| line["record"] == "event");
        assert_eq!(record["by_fail_mode"], true);
        // What was refused is not open.
        let activity = serde_json::json!({"workflow_id": "w", "run_id": "r", "activity_type": "t"});
        let (status, _) = sidecar.agent("POST", "/v1/activities", &activity.to_string());
        assert_eq!(status == 200, fail_mode == "open");
        // A bad answer refuses under either.
        core.script(|_, _| Say::Answer(200, r#"{"verdict":"perhaps"}"#.to_owned()));
        let answer = sidecar.event("/v1/workflows", &serde_json::json!({}));
        assert_eq!(answer["code"], "not_judgeable", "{answer}");
    }
}

#[test]
fn a_halt_is_obeyed_while_core_still_thinks() {
    let (core, site) = (Core::start(), Origin::site());
    core.at("started", Say::Nothing);
    let sidecar = setup(&core.url(), "open", &site).start();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| sidecar.get(&site.url("/x")));
        until("the question", || {
            (!core.asked("evaluate").is_empty()).then_some(())
        });
        let body = r#"{"reason":"enough"}"#;
        assert_eq!(sidecar.operator("POST", "/v1/runs/own/halt", body).0, 200);
        assert_eq!(asking.join().unwrap().code(), "halted");
    });
    assert_eq!(site.connections(), 0);
}

#[test]
fn a_client_that_hangs_up_while_core_thinks_is_not_sent_for() {
    let (core, site) = (Core::start(), Origin::site());
    core.at("started", Say::Nothing);
    let sidecar = setup(&core.url(), "open", &site).start();
    let mut wire = sidecar.wire();
    wire.say(crate::support::sidecar::request(
        "GET",
        &site.url("/x"),
        &[],
        "",
    ));
    until("the question", || {
        (!core.asked("evaluate").is_empty()).then_some(())
    });
    wire.socket.shutdown(std::net::Shutdown::Both).unwrap();
    until("the connection to be gone", || {
        (sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
    assert_eq!(site.connections(), 0);
}

#[test]
fn what_the_options_of_the_sdks_leave_out_core_is_not_asked() {
    let (core, site) = (Core::start(), Origin::site());
    core.script(|_, body| match body["hook_trigger"] == true {
        true => verdict("require_approval"),
        false => verdict("block"),
    });
    let sidecar = setup(&core.url(), "closed", &site)
        .env("OPENBOX_SEND_START_EVENT", "false")
        .env("OPENBOX_SKIP_ACTIVITY_TYPES", "quiet, silent")
        .env("OPENBOX_SKIP_SIGNALS", "tick")
        .env("OPENBOX_HITL_ENABLED", "false")
        .start();
    let run = serde_json::json!({"workflow_id": "w", "run_id": "r"});
    let said = |path: &str, more: serde_json::Value| {
        let mut body = run.clone();
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        sidecar.event(path, &body)["verdict"].clone()
    };
    assert_eq!(said("/v1/workflows", serde_json::json!({})), "allow");
    let quiet = serde_json::json!({"activity_id": "a", "activity_type": "quiet"});
    assert_eq!(said("/v1/activities", quiet), "allow");
    for (name, word) in [("tick", "allow"), ("tock", "block")] {
        let signal = serde_json::json!({"signal_name": name});
        assert_eq!(said("/v1/signals", signal), word, "{name}");
    }
    let told: Vec<_> = core.asked("evaluate");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["signal_name"], "tock");
    // The operation of an activity that is left out is asked about all the same,
    // and nobody waits.
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!((answer.status(), answer.code().as_str()), (403, "blocked"));
    let reason = answer.json()["reason"].to_string();
    assert!(reason.contains("approvals.enabled"), "{reason}");
    assert_eq!(core.asked("evaluate")[1]["activity_type"], "quiet");
    assert_eq!((site.times("/x"), core.asked("approval").len()), (0, 0));
    let log = sidecar.log();
    assert!(log.contains("`events` leaves some unasked"), "{log}");
}
