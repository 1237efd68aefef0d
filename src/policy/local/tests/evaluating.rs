//! Rulings, and questions that cannot be judged.

use std::time::Duration;

use super::*;
use crate::domain::Reason;
use crate::policy::ApprovalsAt;
use crate::policy::local::{Undefined, evaluate};
use crate::process::cpu::Deadline;

fn get() -> Operation {
    operation("GET", "example.com", "/items")
}

#[test]
fn a_conflict_a_runtime_error_and_an_unknown_word_cannot_be_judged() {
    let table = [
        (
            "package p\nresult := \"ALLOW\" if input.hook_trigger\nresult := \"BLOCK\" if input.hook_trigger\n",
            "rule conflicts with rule at",
        ),
        (
            "package p\nresult := \"ALLOW\" if to_number(input.event_type) > 1\n",
            "could not parse string as number",
        ),
        (
            "package p\nresult := \"ALLOW\" if 1 / 0 > 1\n",
            "divide by zero",
        ),
        (
            "package p\nresult := \"PERMIT\"\n",
            "\"PERMIT\" is no decision",
        ),
        (
            "package p\nresult contains \"ALLOW\" if input.hook_trigger\n",
            "`result` is a set",
        ),
        ("package p\nresult := true\n", "`result` is a boolean"),
    ];
    for (rego, expected) in table {
        let policy = policy(rego);
        for _ in 0..2 {
            let why = why_not(started(&policy, &get()));
            assert!(why.contains(expected), "{rego}: {why}");
        }
    }
}

#[test]
fn an_evaluation_that_does_not_end_is_ended() {
    let table = [
        "package p\nresult := \"ALLOW\" if {\n\
         count([1 | some i in numbers.range(1, 4000); some j in numbers.range(1, 4000); some k in numbers.range(1, 4000); i + j == k]) > 0\n}\n",
        // One long built-in function cannot be interrupted, but is not believed.
        "package p\nresult := \"ALLOW\" if count(numbers.range(1, 400000)) > 0\n",
    ];
    for rego in table {
        let settings = Settings {
            evaluate_within: Duration::from_millis(1),
            ..Settings::default()
        };
        let why = why_not(started(&policy_with(rego, settings), &get()));
        assert_eq!(why, "the policy took longer than 1ms", "{rego}");
    }
}

#[test]
fn an_evaluation_that_had_no_processor_is_begun_again() {
    let rego = "package p\nresult := \"ALLOW\" if {\n\
         print(\"begun\")\n\
         count([1 | some i in numbers.range(1, 4000); some j in numbers.range(1, 4000); i + j == 1]) == 0\n}\n";
    let policy = policy(rego);
    let loaded = policy.current.load();
    // As if the clock of the engine had run on while others had the processor, and truly at its end.
    for (within, begun) in [(Duration::from_secs(3_600), 5), (Duration::ZERO, 1)] {
        let mut engine = loaded.engine.clone();
        evaluate::limit(&mut engine, Duration::from_millis(1));
        let deadline = Deadline::after(within);
        let why = evaluate::ask_until(deadline, &mut engine, &loaded, Undefined::Deny).unwrap_err();
        assert!(why.contains("time limit"), "{why}");
        assert_eq!(engine.take_prints().unwrap().len(), begun, "{within:?}");
    }
}

#[test]
fn silence_is_a_block_unless_it_is_told_to_be_an_allow() {
    let rego = "package p\nresult := \"ALLOW\" if input.nobody.says == 1\n";
    for (undefined, expected) in [
        (Undefined::Deny, Verdict::Block),
        (Undefined::Allow, Verdict::Allow),
    ] {
        let settings = Settings {
            undefined,
            ..Settings::default()
        };
        assert_eq!(verdict(&policy_with(rego, settings), &get()), expected);
    }
}

#[test]
fn the_strictest_of_several_packages_wins_and_is_named() {
    let result = |package: &str, result: &str| format!("package {package}\nresult := {result}\n");
    let table = [
        ("\"ALLOW\"", "\"BLOCK\"", Verdict::Block, "data.b"),
        ("\"HALT\"", "\"BLOCK\"", Verdict::Halt, "data.a"),
        ("\"ALLOW\"", "\"ALLOW\"", Verdict::Allow, "data.a"),
        ("\"ALLOW\" if false", "\"ALLOW\"", Verdict::Allow, "data.b"),
        (
            "\"ALLOW\" if false",
            "\"BLOCK\" if false",
            Verdict::Block,
            "data.a",
        ),
    ];
    for (a, b, expected, named) in table {
        let files = [
            ("a.rego", &*result("a", a)),
            ("deep/b.rego", &*result("b", b)),
            ("library.rego", "package library\nx := 1\n"),
        ];
        let policy = try_load(&files, Settings::default()).unwrap();
        let ruling = started(&policy, &get()).unwrap();
        assert_eq!(ruling.verdict, expected, "{a} {b}");
        assert_eq!(ruling.policy.as_deref(), Some(named), "{a} {b}");
    }
}

#[test]
fn one_package_that_fails_is_not_outvoted() {
    let files = [
        ("a.rego", "package a\nresult := \"ALLOW\"\n"),
        ("b.rego", "package b\nresult := \"PERHAPS\"\n"),
    ];
    let policy = try_load(&files, Settings::default()).unwrap();
    let why = why_not(started(&policy, &get()));
    assert!(why.starts_with("data.b: \"PERHAPS\""), "{why}");
}

#[test]
fn what_a_milder_package_asks_to_constrain_stays_asked() {
    let files = [
        (
            "a.rego",
            "package a\nresult := {\"decision\": \"CONSTRAIN\", \"constraints\": [\"x\", \"y\"]}\n",
        ),
        (
            "b.rego",
            "package b\nresult := {\"decision\": \"REQUIRE_APPROVAL\", \"constraints\": {\"y\", \"z\"}}\n",
        ),
    ];
    let policy = try_load(&files, Settings::default()).unwrap();
    let ruling = started(&policy, &get()).unwrap();
    assert_eq!(ruling.verdict, Verdict::RequireApproval);
    assert_eq!(ruling.constraints, ["y", "z", "x"].map(Box::from));
    assert_eq!(ruling.approval, None);
}

#[test]
fn both_ages_of_rego_are_read() {
    let table = [
        "package p\nresult := \"BLOCK\" if input.hook_trigger\n",
        "package p\nimport rego.v1\nresult := \"BLOCK\" if input.hook_trigger\n",
        "package p\nimport future.keywords.if\nresult = \"BLOCK\" if { input.hook_trigger }\n",
        "package p\ndefault result = \"ALLOW\"\nresult = \"BLOCK\" { input.hook_trigger }\n",
        "package p.q[\"r-s\"]\nresult := \"BLOCK\" if input.hook_trigger\n",
    ];
    for rego in table {
        assert_eq!(verdict(&policy(rego), &get()), Verdict::Block, "{rego}");
    }
}

#[test]
fn data_files_stand_where_their_folder_is() {
    let files = [
        (
            "p.rego",
            "package p\nresult := \"BLOCK\" if data.lists.hosts[_] == input.spans[0].attributes[\"server.address\"]\nresult := \"ALLOW\" if data.top\n",
        ),
        ("lists/data.json", "{\"hosts\": [\"example.com\"]}"),
        ("data.json", "{\"top\": false}"),
    ];
    let policy = try_load(&files, Settings::default()).unwrap();
    assert_eq!(verdict(&policy, &get()), Verdict::Block);
}

#[test]
fn approvals_are_kept_by_the_sidecar() {
    let policy = policy("package p\nresult := \"require-approval\"\n");
    assert_eq!(policy.approvals_at(), ApprovalsAt::Sidecar);
    let ruling = started(&policy, &get()).unwrap();
    assert_eq!(ruling.verdict, Verdict::RequireApproval);
    assert_eq!(ruling.approval, None);
}

#[test]
fn an_event_whose_payload_is_not_json_cannot_be_judged() {
    let policy = policy("package p\nresult := \"ALLOW\"\n");
    let fields = vec![("workflow_output", JsonText("{secret".into()))];
    let event = event(EventKind::WorkflowCompleted, context(None), fields);
    let answer = judge(&policy, Question::Event(&event));
    assert_eq!(
        answer,
        Err(PolicyError::Unjudgeable(Reason::from(
            "workflow_output is not JSON"
        )))
    );
}

/// As in Core, where handoffs bypass policy: one that blocks everything else
/// does not see them.
#[test]
fn a_handoff_passes_whatever_the_policy_says() {
    let policy = policy("package openbox\ndefault result := {\"decision\": \"BLOCK\"}\n");
    for (kind, verdict) in [
        (EventKind::Handoff, Verdict::Allow),
        (EventKind::SignalReceived, Verdict::Block),
    ] {
        let event = event(kind, context(None), Vec::new());
        let ruling = judge(&policy, Question::Event(&event)).unwrap();
        assert_eq!(ruling.verdict, verdict, "{kind:?}");
    }
}
