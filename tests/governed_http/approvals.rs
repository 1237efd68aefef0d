//! Operations that wait for a person, with the embedded policy.

use std::thread;

use crate::assert_carried_out;
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::until;
use crate::support::wire::Message;

const PATH: &str = "/started/require_approval";

fn world(config: &str) -> (Origin, Sidecar) {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.config(config).start();
    (site, sidecar)
}

/// Has `sidecar` asked for `url` while `meanwhile` runs.
fn beside(sidecar: &Sidecar, url: &str, meanwhile: impl FnOnce()) -> Message {
    thread::scope(|scope| {
        let asking = scope.spawn(|| sidecar.get(url));
        meanwhile();
        asking.join().unwrap()
    })
}

#[test]
fn what_a_person_approves_is_sent_and_answered_on_the_open_connection() {
    let (site, sidecar) = world("");
    let answer = beside(&sidecar, &site.url(PATH), || {
        let approval = sidecar.pending_approval();
        assert_eq!(approval["stage"], "started");
        assert_eq!(approval["reason"], "the test says require_approval");
        assert_eq!(
            site.connections(),
            0,
            "nothing leaves before a person agrees"
        );
        // It is listed a moment before it is counted.
        until("the hold to be counted", || {
            (sidecar.metric("openbox_holds_open") == 1).then_some(())
        });
        sidecar.approve(&approval);
    });
    assert_eq!(
        (answer.status(), answer.text()),
        (200, format!("hello from {PATH}"))
    );
    let states: Vec<_> = approval_states(&sidecar);
    assert_eq!(states, ["pending", "granted", "consumed"]);
    let started = sidecar.record_of(PATH, "started");
    assert_eq!(started["decision"], "allow");
    assert!(started["held_us"].as_u64().unwrap() > 0);
    assert!(started["approval_id"].is_string());
}

fn approval_states(sidecar: &Sidecar) -> Vec<String> {
    let journal = sidecar.journal();
    let lines = journal.iter().filter(|line| line["record"] == "approval");
    lines
        .map(|line| line["state"].as_str().unwrap().to_owned())
        .collect()
}

/// The client of a killed sidecar is gone, and so is all its memory.
#[test]
fn what_is_held_when_the_sidecar_is_killed_is_approved_afterwards_and_served_once() {
    let (site, sidecar) = world("http:\n  hold_within: 5s\n");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url(PATH), &[], ""));
    let asked = sidecar.pending_approval();
    let sidecar = sidecar.killed_and_started_again();
    assert!(wire.is_ended(), "cut off by the kill");
    let known = sidecar.pending_approval();
    assert_eq!(known, asked);
    assert_eq!(sidecar.metric("openbox_holds_open"), 1);
    sidecar.approve(&known);
    // Killed once more: what a person said is not lost either.
    let sidecar = sidecar.killed_and_started_again();
    assert_eq!(site.connections(), 0);
    let served = sidecar.get(&site.url(PATH));
    assert_eq!(
        (served.status(), served.text()),
        (200, format!("hello from {PATH}"))
    );
    let sidecar = sidecar.killed_and_started_again();
    let again = sidecar.get(&site.url(PATH));
    assert_eq!(again.code(), "approval_pending");
    assert_eq!(site.connections(), 1);
}

#[test]
fn a_halted_sidecar_that_is_killed_is_halted_until_it_is_resumed() {
    let (site, sidecar) = world("halt_scope: run\n");
    let halted = sidecar.get(&site.url("/started/halt"));
    assert_eq!(halted.code(), "halted");
    let sidecar = sidecar.killed_and_started_again();
    let still = sidecar.get(&site.url("/plain"));
    assert_eq!(still.code(), "halted");
    let (status, _) = sidecar.operator("POST", "/v1/runs/own/resume", "{}");
    assert_eq!(status, 200);
    let sidecar = sidecar.killed_and_started_again();
    assert_eq!(sidecar.get(&site.url("/plain")).status(), 200);
    assert_eq!(site.connections(), 1);
}

#[test]
fn a_rejection_carries_its_reason_to_the_agent() {
    let (site, sidecar) = world("");
    let answer = beside(&sidecar, &site.url(PATH), || {
        sidecar.reject(&sidecar.pending_approval(), "not on a Friday");
    });
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "approval_rejected".to_owned())
    );
    assert_eq!(answer.get("openbox-verdict"), Some("require_approval"));
    assert_eq!(answer.json()["reason"], "not on a Friday");
    assert_eq!(site.connections(), 0);
    let record = sidecar.recorded("the rejection", |line| line["state"] == "rejected");
    assert_eq!(record["reason"], "not on a Friday");
}

#[test]
fn a_decision_cannot_be_taken_twice() {
    let (site, sidecar) = world("");
    let mut id = String::new();
    beside(&sidecar, &site.url(PATH), || {
        let approval = sidecar.pending_approval();
        sidecar.approve(&approval);
        id = approval["approval_id"].as_str().unwrap().to_owned();
    });
    let path = format!("/v1/approvals/{id}/reject");
    let (status, problem) = sidecar.operator("POST", &path, r#"{"reason":"late"}"#);
    assert_eq!((status, &problem["code"]), (409, &"already_decided".into()));
}

#[test]
fn an_approval_that_nobody_decides_expires() {
    let (site, sidecar) = world("approvals:\n  expire_after: 200ms\n");
    let answer = sidecar.get(&site.url(PATH));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "approval_expired".to_owned())
    );
    assert_eq!(site.connections(), 0);
    assert_eq!(approval_states(&sidecar), ["pending", "expired"]);
}

#[test]
fn after_the_hold_the_agent_is_told_to_come_back_and_joins_the_same_approval() {
    let (site, sidecar) = world("http:\n  hold_within: 150ms\n");
    let first = sidecar.get(&site.url(PATH));
    assert_eq!(
        (first.status(), first.code()),
        (403, "approval_pending".to_owned())
    );
    let retry_after: u64 = first.get("retry-after").unwrap().parse().unwrap();
    assert!(retry_after >= 1);
    assert_eq!(first.json()["retryable"], true);
    let approval = sidecar.pending_approval();
    assert_eq!(first.json()["approval_id"], approval["approval_id"]);
    // The identical retry joins; another request gets an approval of its own.
    let again = sidecar.get(&site.url(PATH));
    assert_eq!(again.json()["approval_id"], approval["approval_id"]);
    let other = sidecar.get(&site.url(&format!("{PATH}/other")));
    assert_ne!(other.json()["approval_id"], approval["approval_id"]);
    sidecar.approve(&approval);
    let granted = sidecar.get(&site.url(PATH));
    assert_eq!((granted.status(), site.times(PATH)), (200, 1));
    // The grant is used up.
    assert_eq!(sidecar.get(&site.url(PATH)).code(), "approval_pending");
    assert_eq!(site.times(PATH), 1);
}

#[test]
fn a_hundred_and_seventeen_retries_join_one_approval_and_one_of_them_is_served() {
    const RETRIES: usize = 117;
    let (site, sidecar) = world("http:\n  hold_within: 60s\n");
    let body = "the same";
    let text = request(
        "POST",
        &site.url(PATH),
        &[("content-type", "text/plain")],
        body,
    );
    // All at once, each on a connection of its own, over HTTP/1.1.
    let mut waiting: Vec<_> = (0..RETRIES)
        .map(|_| {
            let mut wire = sidecar.wire();
            wire.say(&text);
            wire
        })
        .collect();
    until("all to be connected", || {
        (sidecar.metric("openbox_connections_open") == u64::try_from(RETRIES).unwrap())
            .then_some(())
    });
    let approval = sidecar.pending_approval();
    // Half of them give up, which is no rejection.
    waiting.truncate(RETRIES / 2);
    until("those to be gone", || {
        (sidecar.metric("openbox_connections_open") == u64::try_from(RETRIES / 2).unwrap())
            .then_some(())
    });
    assert_eq!(pending(&sidecar), 1);
    sidecar.approve(&approval);
    // A grant is used once: the others wait for one of their own, and share it.
    let next = until("the approval of the others", || {
        let next = sidecar.pending_approval();
        (next["approval_id"] != approval["approval_id"]).then_some(next)
    });
    assert_eq!(pending(&sidecar), 1);
    until("the granted one to arrive", || {
        (site.times(PATH) == 1).then_some(())
    });
    sidecar.reject(&next, "once is enough");
    let answers: Vec<_> = waiting.iter_mut().map(|wire| wire.answer()).collect();
    let of = |status: u16| answers.iter().filter(|a| a.status() == status).count();
    assert_eq!((of(200), of(403)), (1, RETRIES / 2 - 1));
    assert_eq!(site.times(PATH), 1);
}

fn pending(sidecar: &Sidecar) -> usize {
    let (_, all) = sidecar.operator("GET", "/v1/approvals?status=pending", "");
    all["approvals"].as_array().unwrap().len()
}

#[test]
fn a_retry_with_another_body_is_another_operation() {
    let (site, sidecar) = world("http:\n  hold_within: 100ms\n");
    let fields = [("content-type", "text/plain")];
    let ask = |body: &str| {
        let answer = sidecar.send("POST", &site.url(PATH), &fields, body);
        assert_eq!(answer.code(), "approval_pending");
        answer.json()["approval_id"].clone()
    };
    let first = ask("pay 10");
    assert_eq!(ask("pay 10"), first);
    assert_ne!(ask("pay 1000"), first);
    sidecar.approve(&serde_json::json!({ "approval_id": first }));
    assert_ne!(ask("pay 1000"), first);
    assert_eq!(
        sidecar
            .send("POST", &site.url(PATH), &fields, "pay 10")
            .status(),
        200
    );
    assert_eq!(site.heard().len(), 1);
    assert_eq!(site.heard()[0].text(), "pay 10");
}

#[test]
fn an_answer_that_needs_approval_is_withheld_and_then_handed_out_without_asking_the_origin_again() {
    let (site, sidecar) = world("http:\n  hold_within: 150ms\n");
    let path = "/completed/require_approval";
    let held = sidecar.get(&site.url(path));
    assert_eq!(held.code(), "approval_pending");
    assert!(!held.text().contains("hello from"));
    let approval = sidecar.pending_approval();
    assert_eq!(approval["stage"], "completed");
    sidecar.approve(&approval);
    let answer = sidecar.get(&site.url(path));
    assert_eq!(
        (answer.status(), answer.text()),
        (200, format!("hello from {path}"))
    );
    assert_eq!(site.times(path), 1);
}

#[test]
fn an_answer_is_released_while_its_connection_waits() {
    let (site, sidecar) = world("");
    let path = "/completed/require_approval";
    let answer = beside(&sidecar, &site.url(path), || {
        sidecar.approve(&sidecar.pending_approval());
    });
    assert_eq!(
        (answer.status(), answer.text()),
        (200, format!("hello from {path}"))
    );
    let answer = beside(&sidecar, &site.url(path), || {
        sidecar.reject(&sidecar.pending_approval(), "keep it");
    });
    assert_eq!(answer.code(), "approval_rejected");
    assert_carried_out(&answer, "rejected");
}

#[test]
fn an_answer_that_no_person_decides_about_is_not_to_be_asked_for_again() {
    let path = "/completed/require_approval";
    let (site, sidecar) = world("approvals:\n  expire_after: 200ms\n");
    let answer = sidecar.get(&site.url(path));
    assert_eq!(answer.code(), "approval_expired");
    assert_carried_out(&answer, "expired");

    let (site, sidecar) = world("approvals:\n  open_max: 1\nhttp:\n  hold_within: 100ms\n");
    assert_eq!(sidecar.get(&site.url(PATH)).code(), "approval_pending");
    let answer = sidecar.get(&site.url(path));
    assert_eq!(answer.code(), "overloaded");
    assert_carried_out(&answer, "overloaded");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    let fields = [("content-type", "application/json")];
    let answer = sidecar.send("POST", &site.url(path), &fields, call);
    let error = &answer.json()["error"];
    assert_eq!((answer.status(), answer.get("retry-after")), (200, None));
    assert_eq!(error["data"]["retryable"], false, "{error}");
    let message = error["message"].to_string();
    assert!(message.contains("was carried out"), "{message}");
}

#[test]
fn a_client_that_hangs_up_ends_its_wait_and_nothing_is_sent() {
    let (site, sidecar) = world("");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url(PATH), &[], ""));
    let approval = sidecar.pending_approval();
    wire.socket.shutdown(std::net::Shutdown::Both).unwrap();
    drop(wire);
    until("the connection to be gone", || {
        (sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
    // The approval stays, for the retry.
    sidecar.approve(&approval);
    assert_eq!(site.connections(), 0);
    assert_eq!(sidecar.get(&site.url(PATH)).status(), 200);
    assert_eq!(site.times(PATH), 1);
}

#[test]
fn a_halt_ends_open_holds() {
    let (site, sidecar) = world("");
    let answer = beside(&sidecar, &site.url(PATH), || {
        sidecar.pending_approval();
        let body = r#"{"reason":"enough","by":"test"}"#;
        let (status, _) = sidecar.operator("POST", "/v1/runs/own/halt", body);
        assert_eq!(status, 200);
    });
    assert_eq!((answer.status(), answer.code()), (403, "halted".to_owned()));
    assert_eq!(answer.json()["reason"], "enough");
    assert_eq!(approval_states(&sidecar), ["pending", "cancelled"]);
    assert_eq!(site.connections(), 0);
}

#[test]
fn a_policy_that_changed_meanwhile_outdoes_the_person() {
    let (site, sidecar) = world("");
    let answer = beside(&sidecar, &site.url(PATH), || {
        let approval = sidecar.pending_approval();
        let stricter = AS_THE_PATH_SAYS.replace(
            "default result := {\"decision\": \"ALLOW\"}",
            "default result := {\"decision\": \"BLOCK\"}",
        );
        sidecar.change_policy(&stricter.replace("word := parts[2]", "word := \"block\""));
        sidecar.approve(&approval);
    });
    assert_eq!(answer.code(), "blocked");
    assert_eq!(site.connections(), 0);
}

#[test]
fn beyond_the_bound_of_open_approvals_an_operation_is_refused() {
    let (site, sidecar) = world("approvals:\n  open_max: 1\nhttp:\n  hold_within: 100ms\n");
    assert_eq!(sidecar.get(&site.url(PATH)).code(), "approval_pending");
    let answer = sidecar.get(&site.url(&format!("{PATH}/2")));
    assert_eq!(
        (answer.status(), answer.code()),
        (503, "overloaded".to_owned())
    );
    assert_eq!(
        sidecar.metric("openbox_limit_hits_total{limit=\"holds\"}"),
        1
    );
}
