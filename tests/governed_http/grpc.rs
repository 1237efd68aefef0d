//! gRPC through the sidecar, with the client and server that most programs have.

use crate::clients::{python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process::{self, Ended, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

/// What is said in a request or an answer decides; `/show/` tells what policy was shown.
const AS_THE_MESSAGES_SAY: &str = r#"
package test

default result := {"decision": "ALLOW"}

span := input.spans[0]

result := {"decision": "BLOCK", "reason": concat(" ", ["shown", span.request_body_state, substring(span.request_body, 0, 90)])} if {
	span.stage == "started"
	startswith(span.attributes["url.path"], "/show/")
} else := {"decision": "BLOCK", "reason": "not in a request"} if {
	span.stage == "started"
	contains(span.request_body, "forbidden")
} else := {"decision": "BLOCK", "reason": "not in an answer"} if {
	span.stage == "completed"
	contains(span.response_body, "forbidden")
}
"#;

pub(crate) struct World {
    sidecar: Sidecar,
    server: Running,
    authority: String,
    ca: String,
}

fn python() -> std::process::Command {
    let mut command = process::command(&python_of_tests().display().to_string());
    command.arg(script("grpc_calls.py"));
    command
}

impl World {
    fn new() -> Self {
        Self::under(AS_THE_PATH_SAYS, "")
    }

    fn under(policy: &str, config: &str) -> Self {
        Self::behind(Setup::new().policy(policy).config(config))
    }

    pub(crate) fn with(setup: Setup) -> Self {
        Self::behind(setup.policy(AS_THE_PATH_SAYS))
    }

    fn behind(setup: Setup) -> Self {
        let authority = Authority::new();
        let setup = setup.trust(&authority);
        let (certificate, key) = authority.pair("secure.test", Dates::Current);
        let certificate = setup.write("origin.pem", &certificate);
        let key = setup.write("origin.key", &key);
        let server = Running::start(python().args(["serve", &certificate, &key]));
        let port: u16 = until("the server's port", || {
            server.out().lines().next()?.parse().ok()
        });
        let authority = format!("secure.test:{port}");
        let sidecar = setup
            .flag("--resolve", &format!("{authority}=127.0.0.1"))
            .flag("--allow-address", "127.0.0.1/32")
            .start();
        let ca = sidecar.ca().display().to_string();
        Self {
            sidecar,
            server,
            authority,
            ca,
        }
    }

    fn client(&self, case: &str) -> std::process::Command {
        let mut command = python();
        command
            .args(["call", &self.authority, &self.ca, case])
            .env("http_proxy", format!("http://{}", self.sidecar.http))
            .env_remove("no_proxy");
        command
    }

    pub(crate) fn found(&self, case: &str) -> Vec<String> {
        lines(&process::run(&mut self.client(case)))
    }

    /// Calls of `method` that reached the server.
    pub(crate) fn reached(&self, method: &str) -> usize {
        self.server
            .out()
            .lines()
            .filter(|line| *line == method)
            .count()
    }
}

fn lines(ended: &Ended) -> Vec<String> {
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    ended.out.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn calls_of_all_kinds_pass_with_their_trailers_and_deadlines() {
    let world = World::new();
    let expected = [
        "b'heard hello'",
        "FAILED_PRECONDITION: as asked: 100 %",
        "b'heard xxxxxxxxxxxxxxxxxxxx'",
        "b'heard a' yes",
        "b'3000000 in 300'",
        "790000",
        "DEADLINE_EXCEEDED",
    ];
    assert_eq!(world.found("allowed"), expected);
    until("the call to be there", || {
        (world.reached("/calls/one") >= 5).then_some(())
    });
    assert_eq!(world.reached("/calls/one"), 5);
}

#[test]
fn messages_of_a_stream_go_on_one_by_one_in_both_directions() {
    assert_eq!(World::new().found("in_turns"), ["20 heard 19"]);
}

#[test]
fn a_refusal_is_permission_denied_with_its_reason_and_the_connection_goes_on() {
    let world = World::new();
    let found = world.found("refused");
    let [single, stream, then] = found.as_slice() else {
        panic!("{found:?}");
    };
    for refused in [single, stream] {
        assert!(refused.starts_with("PERMISSION_DENIED: "), "{refused}");
        assert!(refused.contains("the test says block"), "{refused}");
    }
    assert_eq!(then, "b'heard hello'");
    assert_eq!(world.reached("/started/block"), 0);
}

#[test]
fn a_call_is_held_until_a_person_decides() {
    let world = World::new();
    let waiting = Running::start(&mut world.client("held"));
    let approval = world.sidecar.pending_approval();
    assert_eq!(world.reached("/started/require_approval"), 0);
    world.sidecar.approve(&approval);
    assert_eq!(lines(&waiting.ended()), ["b'heard hello'"]);
    until("the call to be there", || {
        (world.reached("/started/require_approval") >= 1).then_some(())
    });
    assert_eq!(world.reached("/started/require_approval"), 1);
}

/// That each of `lines` was refused and says `why`.
fn refused<'a>(lines: impl IntoIterator<Item = &'a String>, why: &str) {
    for line in lines {
        assert!(line.starts_with("PERMISSION_DENIED: "), "{line}");
        assert!(line.contains(why), "{line}");
    }
}

#[test]
fn a_call_is_refused_for_what_its_first_message_says_however_it_is_written() {
    let world = World::under(AS_THE_MESSAGES_SAY, "");
    let found = world.found("by_request");
    assert_eq!(found.len(), 10, "{found:?}");
    refused(found[..6].iter().step_by(2), "not in a request");
    for fine in found[..6].iter().skip(1).step_by(2) {
        assert_eq!(fine, "b'heard finefinefinefinefine'");
    }
    refused(&found[6..9], "not in a request");
    assert_eq!(found[9], "b'heard hello'");
    assert_eq!(world.reached("/calls/one"), 4);
    assert_eq!(world.reached("/calls/up") + world.reached("/calls/down"), 0);
}

#[test]
fn an_answer_is_withheld_for_what_its_message_says_and_a_status_goes_out_instead() {
    let world = World::under(AS_THE_MESSAGES_SAY, "");
    let found = world.found("by_answer");
    refused(&found[..2], "not in an answer");
    assert_eq!(found[2], "b'heard hello'");
    assert_eq!(world.reached("/calls/one"), 3);
}

#[test]
fn policy_is_shown_the_readings_of_a_message_and_how_much_of_it_that_is() {
    let world = World::under(AS_THE_MESSAGES_SAY, "");
    let found = world.found("shown");
    let expected = [
        r#"shown whole {"text":"hello"}."#,
        r#"shown whole {"fields":{"1":[{"text":"hello"}],"2":[150]}}."#,
        r#"shown whole {"text":""}."#,
        r#""packed":[5,7]}]}}."#,
        r#"shown whole {"fields":{"1":[{"uint64":4294967301,"uint32":5}]}}."#,
        r#"shown whole {"fields":{"1":[{"text":"drop�","base64":"ZHJvcP8="}]}}."#,
        r#"shown partial {"fields":{"1":[{"text":"drop"}]}}."#,
        r#"shown partial {"text":"\u0010\u0001\u000b"#,
        r#"shown partial {"fields":{"1":[{"text":"xxxxxxxx"#,
        r#"shown partial {"text":"one"}."#,
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (line, expected) in found.iter().zip(expected) {
        refused([line], expected);
    }
}

#[test]
fn a_server_that_knows_no_json_reads_what_is_called_so_and_policy_sees_what_it_read() {
    let world = World::under(AS_THE_MESSAGES_SAY, "");
    let mut client = process::command(&python_of_tests().display().to_string());
    let proxy = world.sidecar.http.to_string();
    let url = format!("https://{}", world.authority);
    client.args([&script("http2.py"), "grpc_as_json", &proxy, &url, &world.ca]);
    let found = lines(&process::run(&mut client));
    let [heard_json, heard_message, json, message] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(heard_json.trim(), r#"0 b'heard {"a":\r\n1}'"#);
    assert_eq!(heard_message.trim(), r"0 b'heard \n\x04drop'");
    assert!(json.contains(r#"shown whole {"a":  1}."#), "{json}");
    let expected = r#"shown whole {"text":"\n\u0004drop","fields":{"1":[{"text":"drop"}]}}."#;
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_message_over_the_cap_is_judged_by_its_beginning_and_goes_on() {
    let world = World::under(AS_THE_MESSAGES_SAY, "");
    let found = world.found("over_the_cap");
    refused(&found[..1], "not in a request");
    assert_eq!(
        found[1..],
        ["b'heard xxxxxxxxxxxxxxxxxxxx'", "b'3000000 in 300'"]
    );
}

#[test]
fn a_client_that_waits_for_its_server_is_not_waited_for_and_streams_go_on() {
    let world = World::under(AS_THE_MESSAGES_SAY, "http:\n  capture_within: 30s\n");
    let expected = ["b'welcome' True", "b'heard 2'"];
    assert_eq!(world.found("spoken_to_first"), expected);
    assert_eq!(world.found("in_turns"), ["20 heard 19"]);
    let expected = ["b'first'", "b'last'"];
    assert_eq!(world.found("first_of_a_stream"), expected);
}

#[test]
fn a_call_is_refused_where_policy_must_see_all_of_its_answer_and_does_not() {
    let config = "http:\n  over_cap: deny\n  capture_within: 60s\n";
    let world = World::under(AS_THE_MESSAGES_SAY, config);
    assert_eq!(world.found("whole_streams"), ["PERMISSION_DENIED", "20"]);
}

#[test]
fn where_bodies_are_not_captured_messages_are_not_read() {
    let config = "http:\n  routes: [\"*/calls/* capture=false\"]\n";
    let world = World::under(AS_THE_MESSAGES_SAY, config);
    let found = world.found("by_answer");
    assert!(found[0].starts_with("b'what is forbidden"), "{found:?}");
    assert_eq!(world.reached("/calls/one"), 3);
}
