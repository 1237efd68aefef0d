//! Refused tool calls of the Model Context Protocol, as its own client hears them.

use crate::clients::{python_of_tests, script};
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process::{self, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

/// The name of a tool says what is decided, `read` by what is answered.
const BY_TOOL: &str = r#"
package test

default result := {"decision": "ALLOW"}

tool := input.spans[0].attributes["gen_ai.tool.name"]

result := {"decision": "BLOCK", "reason": "no tables are dropped"} if {
	tool == "drop"
}

result := {"decision": "REQUIRE_APPROVAL", "reason": "money"} if {
	tool == "pay"
	input.spans[0].stage == "started"
}

result := {"decision": "BLOCK", "reason": "classified"} if {
	tool == "read"
	input.spans[0].stage == "completed"
}
"#;

fn python() -> std::process::Command {
    let mut command = process::command(&python_of_tests().display().to_string());
    command.arg(script("mcp_calls.py"));
    command
}

#[test]
fn a_refused_tool_call_is_an_error_of_the_call_and_the_session_goes_on() {
    let server = Running::start(python().arg("serve"));
    let port: u16 = until("the server's port", || {
        server.out().lines().next()?.parse().ok()
    });
    let setup = Setup::new()
        .policy(BY_TOOL)
        .config("http:\n  hold_within: 100ms\n")
        .flag("--resolve", &format!("origin.test:{port}=127.0.0.1"))
        .flag("--allow-address", "127.0.0.1/32");
    let url = format!("http://origin.test:{port}/mcp");
    let client = python_of_tests().display().to_string();
    let mut command = setup.run_command(&[&client, &script("mcp_calls.py"), "call", &url]);
    let ended = process::run(&mut command);
    assert_eq!(ended.status.code(), Some(0), "{}\n{}", ended.out, ended.err);
    let lines: Vec<_> = ended.out.lines().collect();
    let [tools, added, dropped, paid, read, then] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(tools, "tools add,drop,pay,read");
    assert_eq!((added, then), ("add 3", "add 7"));
    for (told, begins) in [
        (
            dropped,
            "drop -32050 blocked 403 no approval: Blocked by policy: no tables are dropped. ",
        ),
        (paid, "pay -32050 approval_pending 403 approval: "),
        (
            read,
            "read -32050 outcome_blocked 403 no approval: Answer withheld by policy: classified. ",
        ),
    ] {
        assert!(told.starts_with(begins), "{told}");
    }
    let out = server.out();
    let called: Vec<_> = out
        .lines()
        .filter(|line| line.starts_with("called"))
        .collect();
    assert_eq!(called, ["called add", "called read", "called add"]);
}

fn say(sidecar: &Sidecar, url: &str, body: &str) -> crate::support::wire::Message {
    sidecar.send("POST", url, &[("content-type", "application/json")], body)
}

#[test]
fn what_is_no_single_call_with_an_id_is_refused_as_any_request() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site).start();
    let refused = site.url("/started/block");
    let answer = say(
        &sidecar,
        &refused,
        r#"{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{"name":"x"}}"#,
    );
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.get("content-type"), Some("application/json"));
    assert_eq!(answer.get("openbox-verdict"), Some("block"));
    let event = answer.get("openbox-event-id").unwrap().to_owned();
    let said = answer.json();
    assert_eq!(
        (&said["jsonrpc"], &said["id"]),
        (&"2.0".into(), &"a-1".into())
    );
    assert_eq!(said["error"]["data"]["code"], "blocked");
    assert_eq!(said["error"]["data"]["event_id"], event);
    for body in [
        r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}]"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
    ] {
        let answer = say(&sidecar, &refused, body);
        assert_eq!(
            (answer.status(), answer.code()),
            (403, "blocked".to_owned()),
            "{body}"
        );
    }
    // What the origin says stays as it is.
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    let answer = say(&sidecar, &site.url("/status/403"), call);
    assert_eq!(answer.status(), 403);
    // Nobody judged it: it is the transport that failed.
    let answer = say(&sidecar, "http://nowhere.invalid/", call);
    assert_eq!(answer.code(), "host_not_found");
}

/// A rule about a name, and what makes it safe.
const SAFE: &str = r#"
package test

default result := {"decision": "ALLOW"}

span := input.spans[0]

result := {"decision": "BLOCK", "reason": "no tables are dropped"} if {
	span.attributes["gen_ai.tool.name"] == "drop"
} else := {"decision": "BLOCK", "reason": "which tool is not clear"} if {
	span.semantic_type == "mcp_tool_call"
	not span.attributes["gen_ai.tool.name"]
}
"#;

#[test]
fn a_call_is_not_hidden_from_a_rule_about_its_name() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(SAFE).reach(&site).start();
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let call = |argument: &str, name: &str| {
        format!(
            r#"{{"method":"tools/call","params":{{"arguments":{{"x":{argument}}},"name":"{name}"}}}}"#
        )
    };
    for (body, status) in [
        (call("1", "drop"), 403),
        (call(&deep, "drop"), 403),
        (call("1e999", "drop"), 403),
        (call("NaN", "drop"), 403),
        (format!("[{},{}]", call("1", "add"), call("1", "drop")), 403),
        (call("1", "drop").replace("name", "Name"), 403),
        (call(&deep, "add"), 200),
        (format!("[{}]", call("1", "add")), 200),
        (r#"{"text":"tools/call"}"#.to_owned(), 200),
    ] {
        let answer = say(&sidecar, &site.url("/x"), &body);
        assert_eq!(answer.status(), status, "{body}");
    }
}
