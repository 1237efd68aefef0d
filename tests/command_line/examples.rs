//! The clients of `examples/`, each under `run`, and what the journal has of them.

use std::process::Command;

use serde_json::Value;

use crate::support::policies::ALLOW;
use crate::support::process;
use crate::support::sidecar::{Setup, journal};

/// Runs a client; the journal of its sidecar.
fn told(words: &[&str]) -> Vec<Value> {
    told_to(Setup::new(), words)
}

fn told_to(setup: Setup, words: &[&str]) -> Vec<Value> {
    let setup = setup.policy(ALLOW);
    let ended = process::run(&mut setup.run_command(words));
    assert!(ended.status.success(), "{words:?}: {ended:?}");
    assert!(ended.out.contains("done"), "{words:?}: {ended:?}");
    let lines = journal(&setup.state());
    let events = lines.iter().filter_map(|line| line["event_type"].as_str());
    let mut events: Vec<_> = events.collect();
    events.dedup();
    let (first, last) = (events.first(), events.last());
    assert_eq!(
        (first, last),
        (Some(&"WorkflowStarted"), Some(&"WorkflowCompleted")),
        "{words:?}"
    );
    let ended = lines
        .iter()
        .filter(|line| line["event_type"] == "ActivityCompleted");
    assert!(ended.count() > 0, "{words:?}");
    lines
}

fn completed(lines: &[Value], name: &str, value: &str) -> usize {
    let completed = lines.iter().filter(|line| line["record"] == "completion");
    let ids: Vec<_> = completed.map(|line| &line["event_id"]).collect();
    let decided = lines.iter().filter(|line| {
        line["record"] == "decision" && line[name] == value && ids.contains(&&line["event_id"])
    });
    decided.count()
}

#[test]
fn bash_tells_of_a_run_an_activity_and_a_file() {
    let lines = told(&["bash", "examples/openbox.sh"]);
    assert_eq!(completed(&lines, "file_operation", "read"), 1);
}

#[test]
fn python_tells_of_activities_functions_and_files() {
    let lines = told(&["python3", "examples/openbox.py"]);
    for operation in ["open", "read", "close"] {
        assert_eq!(
            completed(&lines, "file_operation", operation),
            1,
            "{operation}"
        );
    }
    assert_eq!(completed(&lines, "function", "<lambda>"), 1);
}

#[test]
fn node_tells_of_an_activity_and_a_function() {
    let lines = told(&["node", "examples/openbox.mjs"]);
    assert_eq!(completed(&lines, "function", "charge"), 1);
}

/// A sidecar whose agent API is at a path alone.
fn at_a_path() -> Setup {
    let setup = Setup::new().flag("--agent-listen", "off");
    let path = setup.folder().join("agent.sock").display().to_string();
    setup.env("OPENBOX_AGENT_SOCKET", &path)
}

#[test]
fn bash_and_python_tell_the_same_through_a_socket() {
    told_to(at_a_path(), &["bash", "examples/openbox.sh"]);
    told_to(at_a_path(), &["python3", "examples/openbox.py"]);
}

#[test]
fn clients_find_the_token_in_a_file_where_a_pod_has_it() {
    let in_a_file = "printf %s $OPENBOX_SIDECAR_TOKEN >\"$HOME/token\"; unset OPENBOX_SIDECAR_TOKEN; \
                     OPENBOX_SIDECAR_TOKEN_FILE=$HOME/token exec \"$@\"";
    for client in [
        ["bash", "examples/openbox.sh"],
        ["python3", "examples/openbox.py"],
        ["node", "examples/openbox.mjs"],
    ] {
        told(&[&["sh", "-c", in_a_file, "sh"][..], &client].concat());
    }
}

#[test]
fn go_and_java_tell_of_an_activity_where_they_are_installed() {
    for (program, words) in [
        ("go", ["go", "run", "examples/openbox.go"].as_slice()),
        ("javac", &["java", "examples/OpenBox.java"]),
    ] {
        let there = Command::new(program).arg("-version").output();
        match there {
            Ok(_) => drop(told(words)),
            Err(_) => eprintln!("not run: {program} is not installed"),
        }
    }
}
