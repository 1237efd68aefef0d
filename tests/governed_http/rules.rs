//! Behaviour rules and guardrails beside a policy that allows, over real sockets.

use serde_json::json;

use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

const RULES: &str = r"
behaviour:
  - {name: look first, trigger: http_delete, states: [http_get], window: 10m, verdict: BLOCK, message: read it first}
guardrails:
  - {name: mails, type: pii, entities: [EMAIL_ADDRESS], stage: input, action: redact, activities: [{activity_type: send}]}
  - {name: words, type: ban_words, words: [bluebird], stage: input, action: block, operations: [http_request]}
";

fn world() -> (Origin, Sidecar) {
    let site = Origin::site();
    let setup = Setup::new().policy(ALLOW).reach(&site);
    setup.write("policy_rules.yaml", RULES);
    (site, setup.start())
}

#[test]
fn a_request_whose_trigger_comes_too_early_never_leaves() {
    let (site, sidecar) = world();
    let refused = sidecar.send("DELETE", &site.url("/items/1"), &[], "");
    assert_eq!(
        (refused.status(), refused.code()),
        (403, "blocked".to_owned())
    );
    assert!(
        refused.text().contains("read it first"),
        "{}",
        refused.text()
    );
    assert_eq!(site.heard().len(), 0);
    assert_eq!(sidecar.get(&site.url("/items/1")).status(), 200);
    let passed = sidecar.send("DELETE", &site.url("/items/1"), &[], "");
    assert_eq!(passed.status(), 200);
    assert_eq!(site.heard().len(), 2);
}

#[test]
fn a_body_that_a_guardrail_blocks_never_leaves_and_a_reload_lets_it() {
    let (site, sidecar) = world();
    let post = || {
        sidecar.send(
            "POST",
            &site.url("/notes"),
            &[("content-type", "text/plain")],
            "about Bluebird",
        )
    };
    let refused = post();
    assert_eq!(refused.status(), 403);
    assert!(
        refused.text().contains("words: a banned word"),
        "{}",
        refused.text()
    );
    assert_eq!(site.heard().len(), 0);
    let rules = sidecar.state.with_file_name("policy_rules.yaml");
    std::fs::write(&rules, "guardrails: oops").unwrap();
    until("the broken edit to be told", || {
        sidecar
            .log()
            .contains("policy_rules.yaml: guardrails")
            .then_some(())
    });
    assert_eq!(post().status(), 403);
    std::fs::write(&rules, "guardrails: []").unwrap();
    until("the rules to be gone", || {
        (post().status() == 200).then_some(())
    });
}

#[test]
fn an_sdk_is_handed_the_redacted_input_in_cores_words() {
    let (_, sidecar) = world();
    let event = json!({
        "source": "workflow-telemetry", "event_type": "ActivityStarted", "workflow_id": "w", "run_id": "r",
        "workflow_type": "t", "task_queue": "q", "activity_id": "a", "activity_type": "send",
        "activity_input": [{"to": "ann@example.com"}], "attempt": 1,
        "timestamp": "2026-01-01T00:00:00.000Z",
    });
    let opened = json!({
        "source": "workflow-telemetry", "event_type": "WorkflowStarted", "workflow_id": "w", "run_id": "r",
        "workflow_type": "t", "task_queue": "q", "timestamp": "2026-01-01T00:00:00.000Z",
    });
    const EVALUATE: &str = "/api/v1/governance/evaluate";
    assert_eq!(sidecar.agent("POST", EVALUATE, &opened.to_string()).0, 200);
    let (status, said) = sidecar.agent("POST", EVALUATE, &event.to_string());
    assert_eq!((status, &said["verdict"]), (200, &json!("allow")), "{said}");
    let expected = json!({
        "input_type": "activity_input",
        "redacted_input": [{"to": "<EMAIL_ADDRESS>"}],
        "validation_passed": true,
        "reasons": [{"type": "pii", "field": "input.0.to", "reason": "mails: an e-mail address in input.0.to"}],
        "results": [],
    });
    assert_eq!(said["guardrails_result"], expected, "{said}");
}
