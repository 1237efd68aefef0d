//! Approvals that Core keeps: polled, never evaluated again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::core_mode::setup;
use crate::support::core::{Core, Say, verdict};
use crate::support::origin::Origin;
use crate::support::sidecar::Sidecar;
use crate::support::until;

/// Core asks for a person at `stage` and answers polls as `polled` says, given
/// how often it was polled before.
fn world(
    stage: &'static str,
    config: &str,
    polled: impl Fn(usize) -> Value + Send + 'static,
) -> (Core, Origin, Sidecar) {
    let (core, site) = (Core::start(), Origin::site());
    let polls = Arc::new(AtomicUsize::new(0));
    core.script(move |route, body| match route {
        "approval" => Say::Answer(
            200,
            polled(polls.fetch_add(1, Ordering::Relaxed)).to_string(),
        ),
        _ if body["spans"][0]["stage"] == stage => verdict("require_approval"),
        _ => verdict("allow"),
    });
    let sidecar = setup(&core.url(), "closed", &site).config(config).start();
    (core, site, sidecar)
}

#[test]
fn an_approval_is_polled_until_core_allows_and_the_operation_is_evaluated_once() {
    // The schedule looks after 2.5 s and again, and the waiter once more 1 s before its end.
    let config = "http:\n  hold_within: 20s\n";
    let (core, site, sidecar) = world("started", config, |before| match before {
        0 => json!({"id": "1", "action": "require_approval"}),
        _ => json!({"id": "1", "action": "allow"}),
    });
    let answer = sidecar.get(&site.url("/held"));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(site.times("/held"), 1);
    let polls = core.asked("approval");
    assert_eq!(polls.len(), 2);
    let evaluated = core.asked("evaluate");
    assert_eq!(evaluated.len(), 2, "started once, completed once");
    for name in ["workflow_id", "run_id", "activity_id"] {
        assert_eq!(polls[0][name], evaluated[0][name], "{name}");
    }
    assert_eq!(polls[0].as_object().unwrap().len(), 3);
}

#[test]
fn polls_that_fail_or_say_nothing_leave_the_approval_pending() {
    let config = "http:\n  hold_within: 200ms\n";
    let (core, site, sidecar) = world("started", config, |_| json!({}));
    assert_eq!(sidecar.get(&site.url("/held")).code(), "approval_pending");
    until("a poll", || {
        (!core.asked("approval").is_empty()).then_some(())
    });
    let evaluations = core.asked("evaluate").len();
    // The retry joins, asks nothing again, and finds the grant.
    core.script(|route, _| match route {
        "approval" => Say::Answer(500, "{}".to_owned()),
        _ => verdict("block"),
    });
    assert_eq!(sidecar.get(&site.url("/held")).code(), "approval_pending");
    core.script(|route, body| match route {
        "approval" => Say::Answer(200, json!({"action": "allow"}).to_string()),
        _ if body["spans"][0]["stage"] == "started" => verdict("block"),
        _ => verdict("allow"),
    });
    let granted = until("the grant", || {
        let answer = sidecar.get(&site.url("/held"));
        (answer.status() == 200).then_some(answer)
    });
    assert_eq!(granted.text(), "hello from /held");
    assert_eq!(
        core.asked("evaluate").len(),
        evaluations + 1,
        "only completed was asked"
    );
}

#[test]
fn a_rejection_in_core_carries_its_reason() {
    let config = "http:\n  hold_within: 20s\n";
    let (_core, site, sidecar) = world(
        "started",
        config,
        |_| json!({"action": "block", "reason": "not today"}),
    );
    let answer = sidecar.get(&site.url("/held"));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "approval_rejected".to_owned())
    );
    assert_eq!(answer.json()["reason"], "not today");
    assert_eq!(site.heard().len(), 0);
}

#[test]
fn an_expiry_in_the_past_outdoes_a_grant() {
    let config = "http:\n  hold_within: 20s\n";
    let expired = "2020-01-01T00:00:00Z";
    let (_core, site, sidecar) = world(
        "started",
        config,
        move |_| json!({"action": "allow", "approval_expiration_time": expired}),
    );
    assert_eq!(sidecar.get(&site.url("/held")).code(), "approval_expired");
    assert_eq!(site.heard().len(), 0);
}

#[test]
fn an_answer_that_core_holds_is_withheld_until_it_allows() {
    let config = "http:\n  hold_within: 20s\n";
    let (_core, site, sidecar) = world("completed", config, |_| json!({"action": "allow"}));
    let answer = sidecar.get(&site.url("/held"));
    assert_eq!(
        (answer.status(), answer.text()),
        (200, "hello from /held".to_owned())
    );
    assert_eq!(site.times("/held"), 1);
}

#[test]
fn an_approval_of_core_cannot_be_given_here() {
    let pending = |_| json!({"action": "require_approval"});
    let (_core, site, sidecar) = world("started", "http:\n  hold_within: 2s\n", pending);
    thread::scope(|scope| {
        let asking = scope.spawn(|| sidecar.get(&site.url("/held")));
        let approval = sidecar.pending_approval();
        let id = approval["approval_id"].as_str().unwrap();
        let path = format!("/v1/approvals/{id}/approve");
        let (status, problem) = sidecar.operator("POST", &path, "{}");
        assert_eq!((status, &problem["code"]), (409, &"decided_in_core".into()));
        assert_eq!(asking.join().unwrap().code(), "approval_pending");
    });
}
