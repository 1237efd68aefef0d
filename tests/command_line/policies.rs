//! `policy test` and `policy eval` of the real binary.

use std::io::Write;
use std::process::Stdio;

use crate::support::policies::ALLOW;
use crate::support::process::{self, Ended};
use crate::support::sidecar::{BINARY, Setup};

fn policy(setup: &Setup, words: &[&str]) -> Ended {
    let state = setup.state().display().to_string();
    let mut command = process::command(BINARY);
    command.arg("policy").args(words);
    process::run(command.args(["--state-dir", &state]))
}

#[test]
fn the_starter_policy_answers_its_cases() {
    let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/config/policies/starter.rego");
    let ended = policy(&Setup::new(), &["test", "--policy", starter]);
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("cases, 0 failed"), "{}", ended.out);
    assert!(ended.out.lines().count() > 12, "{}", ended.out);
}

#[test]
fn the_rules_that_are_shown_as_examples_answer_their_cases() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    let ended = policy(&Setup::new(), &["test", "--policy", folder]);
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("cases, 0 failed"), "{}", ended.out);
}

#[test]
fn a_case_that_fails_shows_both_answers_and_one_that_cannot_be_read_its_place() {
    let setup = Setup::new();
    let rego = setup.write("my.rego", ALLOW);
    let cases = setup.write(
        "my_cases.yaml",
        "cases:\n- {name: passes, operation: {url: 'http://a.test/'}, expect: {verdict: allow}}\n\
         - {name: does not, operation: {url: 'http://a.test/'}, expect: {verdict: BLOCK, reason: no}}\n",
    );
    let ended = policy(&setup, &["test", "--policy", &rego]);
    assert_eq!(ended.status.code(), Some(1), "{}{}", ended.out, ended.err);
    for words in [
        cases.as_str(),
        "ok    passes",
        "FAIL  does not",
        "expected block",
        "reason   no",
        "found    allow",
        "2 cases, 1 failed",
    ] {
        assert!(ended.out.contains(words), "{words}: {}", ended.out);
    }
    let bad = setup.write(
        "bad.yaml",
        "cases:\n- {name: x, operation: {}, expect: {}}\n",
    );
    let ended = policy(&setup, &["test", "--policy", &rego, &bad]);
    assert_eq!(ended.status.code(), Some(1));
    for words in ["cases[0].operation: ", "cases[0].expect.verdict: "] {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
    let none = policy(&setup, &["test"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(none.err.contains("no cases were found"), "{}", none.err);
}

#[test]
fn an_input_from_standard_input_is_answered_with_what_decided() {
    let mut child = process::command(BINARY)
        .args(["policy", "eval"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = r#"{"operation": {"method": "DELETE", "url": "https://example.com/x"}}"#;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["verdict"], "require_approval", "{told}");
    assert_eq!(told["policy"], "data.openbox", "{told}");
    assert!(told["reason"].as_str().unwrap().contains("deleting"));
}
