//! The clients of `examples/`, each under `run`, and what the journal has of them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::support::policies::ALLOW;
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar, journal};

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
fn go_and_java_tell_of_an_activity() {
    let (_folder, go) = built_go();
    told(&[&go]);
    told_to(at_a_path(), &[&go]);
    told(&["java", "examples/OpenBox.java"]);
}

/// The client in Go, as a program in a folder of its own.
fn built_go() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("openbox").display().to_string();
    let cache = folder.path().join("cache");
    let built = process::run(
        process::command("go")
            .args(["build", "-o", &program, "examples/openbox.go"])
            .env("GOCACHE", cache),
    );
    assert!(built.status.success(), "{built:?}");
    (folder, program)
}

/// A client that sends whatever request it is told.
struct Telling {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    asked: Vec<String>,
}

impl Telling {
    fn start(sidecar: &Sidecar, words: &[&str]) -> Self {
        let mut child = process::command(words[0])
            .args(&words[1..])
            .arg("-")
            .env("OPENBOX_SIDECAR_URL", format!("http://{}", sidecar.agent))
            .env("OPENBOX_SIDECAR_TOKEN", &sidecar.agent_token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
            asked: Vec::new(),
        }
    }

    /// Sends a request that must be answered with `status`; the answer, where it
    /// is JSON.
    fn ask(&mut self, status: u16, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.asked.push(format!("{method} {path}"));
        writeln!(self.to, "{method} {path} {body}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let (got, text) = line
            .trim_end()
            .split_once(' ')
            .unwrap_or((line.trim_end(), ""));
        assert_eq!(got, status.to_string(), "{method} {path} {body}: {line}");
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a client of a test could not be stopped: {error}");
        }
    }
}

/// Every endpoint of the agent API, once at least.
fn every_endpoint(client: &mut Telling, sidecar: &Sidecar) {
    let run = json!({"workflow_id": "w", "run_id": "r"});
    let with = |more: Value| {
        let mut all = run.clone();
        let more = more.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        all
    };
    let nothing = Value::Null;
    client.ask(200, "GET", "/v1/session", nothing.clone());
    client.ask(200, "GET", "/v1/env?format=json", nothing.clone());
    client.ask(200, "GET", "/v1/ca.pem", nothing.clone());
    client.ask(200, "GET", "/openapi.json", nothing.clone());
    client.ask(200, "POST", "/v1/workflows", run.clone());
    client.ask(
        200,
        "POST",
        "/v1/activities",
        with(json!({"activity_id": "a", "activity_type": "t"})),
    );
    client.ask(
        200,
        "PUT",
        "/v1/contexts/bot",
        with(json!({"activity_id": "a"})),
    );
    client.ask(
        200,
        "POST",
        "/v1/signals",
        with(json!({"signal_name": "user_input"})),
    );
    let span = json!({"function": "f", "module": "m"});
    let hook = json!({"kind": "function_call", "stage": "started", "context": "bot", "span": span});
    let begun = client.ask(200, "POST", "/v1/evaluate", hook.clone());
    assert_eq!(begun["activity_id"], "a", "{begun}");
    let done = json!({"stage": "completed", "event_id": begun["event_id"], "span": {"result": 1}});
    let batch = json!({"operations": [done, hook]});
    let both = client.ask(200, "POST", "/v1/evaluate:batch", batch);
    assert_eq!(both["results"][1]["status"], 200, "{both}");
    client.ask(
        200,
        "POST",
        "/v1/tools:check",
        json!({"name": "t", "activity_id": "a"}),
    );
    let begun = client.ask(
        200,
        "POST",
        "/v1/tools:submit",
        json!({"name": "t", "activity_id": "a"}),
    );
    let done = json!({"event_id": begun["event_id"], "result": {"x": "ü"}});
    client.ask(200, "POST", "/v1/tools:complete", done);
    let held = json!({"name": "held", "activity_id": "a"});
    let held = client.ask(202, "POST", "/v1/tools:submit?wait=0", held);
    let approval = held["approval_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/approvals/{approval}?wait=0");
    assert_eq!(
        client.ask(200, "GET", &path, nothing.clone())["state"],
        "pending"
    );
    sidecar.approve(&held);
    assert_eq!(
        client.ask(200, "GET", &path, nothing.clone())["state"],
        "granted"
    );
    client.ask(204, "DELETE", "/v1/contexts/bot", nothing.clone());
    client.ask(404, "DELETE", "/v1/contexts/bot", nothing.clone());
    client.ask(200, "GET", "/v1/stream", nothing);
    client.ask(
        200,
        "POST",
        "/v1/activities/a/complete",
        with(json!({"output": 1})),
    );
    client.ask(200, "POST", "/v1/workflows/w/runs/r/complete", json!({}));
    let event = json!({"event_type": "WorkflowStarted", "workflow_id": "w", "run_id": "r2"});
    client.ask(200, "POST", "/v1/events", event);
    client.ask(
        200,
        "POST",
        "/v1/workflows/w/runs/r2/fail",
        json!({"error": "no such order"}),
    );
}

/// What the document says that there is, and was not asked.
fn left_out(document: &Value, asked: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let fits = |asked: &String| {
                let (of, at) = asked.split_once(' ').unwrap();
                let at = at.split('?').next().unwrap_or_default();
                let (one, other) = (path.split('/'), at.split('/'));
                of == method
                    && one.clone().count() == other.clone().count()
                    && one
                        .zip(other)
                        .all(|(one, other)| one.starts_with('{') || one == other)
            };
            if !asked.iter().any(fits) {
                left.push(format!("{method} {path}"));
            }
        }
    }
    left
}

const SOME_HELD: &str = r#"
package test
default result := {"decision": "ALLOW"}
result := {"decision": "REQUIRE_APPROVAL", "reason": "the test says ask"} if {
	input.spans[0].function == "held"
}
"#;

#[test]
fn every_client_reaches_every_endpoint() {
    let (_folder, go) = built_go();
    for words in [
        &["bash", "examples/openbox.sh"][..],
        &["python3", "examples/openbox.py"],
        &["node", "examples/openbox.mjs"],
        &[&go],
        &["java", "examples/OpenBox.java"],
    ] {
        let sidecar = Setup::new().policy(SOME_HELD).start();
        let (status, document) = sidecar.agent("GET", "/openapi.json", "");
        assert_eq!(status, 200);
        let mut client = Telling::start(&sidecar, words);
        every_endpoint(&mut client, &sidecar);
        let left = left_out(&document, &client.asked);
        assert!(left.is_empty(), "{words:?}: {left:?}");
    }
}
