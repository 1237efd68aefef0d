//! Event streams whose events are judged: each is handed out when it may be, and
//! not a moment later.

use crate::support::origin::Origin;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::until;

/// An answer that says this is blocked.
const NO_SECRETS: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK", "reason": "the test says secret"} if {
	input.spans[0].stage == "completed"
	contains(input.spans[0].response_body, "secret-")
}
"#;

fn before(site: &Origin, config: &str) -> Sidecar {
    let config = format!("http:\n  judge_each: [\"origin.test\"]\n{config}");
    let setup = Setup::new().policy(NO_SECRETS).config(&config);
    setup.reach(site).start()
}

/// Answers with these chunks, one a write, and says when it is through.
fn stream(kind: &'static str, chunks: &'static [&'static str]) -> Origin {
    Origin::raw(move |mut wire, shared| {
        let Some(request) = wire.request() else {
            return;
        };
        shared.log(&request);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        wire.say(head);
        for chunk in chunks {
            if wire
                .try_say(format!("{:x}\r\n{chunk}\r\n", chunk.len()))
                .is_err()
            {
                return;
            }
        }
        drop(wire.try_say("0\r\n\r\n"));
    })
}

fn pieces(sidecar: &Sidecar, record: &str) -> usize {
    let journal = sidecar.journal();
    journal
        .iter()
        .filter(|line| line["record"] == record)
        .count()
}

#[test]
fn each_event_is_judged_and_goes_at_once() {
    let site = Origin::site();
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    let gzip = [("accept-encoding", "gzip, br")];
    wire.say(request("GET", &site.url("/events/go"), &gzip, ""));
    let head = wire.head().unwrap();
    assert_eq!(head.get("content-type"), Some("text/event-stream"));
    assert_eq!(wire.chunk().unwrap(), b"data: first\n\n");
    // The origin says its second event only now.
    site.acknowledge("go");
    assert_eq!(wire.chunk().unwrap(), b"data: second\n\n");
    assert_eq!(wire.chunk().unwrap(), b"");
    assert_eq!(site.heard()[0].get("accept-encoding"), Some("identity"));
    // The request, and its events.
    until("all to be recorded", || {
        (pieces(&sidecar, "completion") == 3).then_some(())
    });
    assert_eq!(pieces(&sidecar, "decision"), 3);
}

#[test]
fn a_blocked_event_is_replaced_by_why_and_nothing_follows_it() {
    let site = stream(
        "text/event-stream",
        &[
            "data: one\n\nda",
            "ta: two secret-key\n\ndata: three\n\n",
            "data: four\n\n",
        ],
    );
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/x"), &[], ""));
    assert_eq!(wire.head().unwrap().status(), 200);
    let rest = String::from_utf8(wire.rest()).unwrap();
    assert!(rest.contains("data: one\n\n"), "{rest}");
    assert!(
        rest.contains("event: error\ndata: {\"type\":\"urn:openbox:refusal:outcome_blocked\""),
        "{rest}"
    );
    for never in ["secret-key", "three", "four", "\r\n0\r\n"] {
        assert!(!rest.contains(never), "{never}: {rest}");
    }
    until("the whole to be recorded", || {
        let journal = sidecar.journal();
        let failed = journal.iter().filter(|line| line["outcome"] == "failed");
        (failed.count() == 1).then_some(())
    });
}

#[test]
fn lines_of_json_are_judged_line_by_line() {
    let site = stream(
        "application/x-ndjson",
        &["{\"a\":1}\n{\"a\":", "\"secret-key\"}\n{\"a\":3}\n"],
    );
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/x"), &[], ""));
    assert_eq!(wire.head().unwrap().status(), 200);
    let rest = String::from_utf8(wire.rest()).unwrap();
    assert!(
        rest.contains("{\"a\":1}\n") && rest.contains("outcome_blocked"),
        "{rest}"
    );
    assert!(
        !rest.contains("secret-key") && !rest.contains("{\"a\":3}"),
        "{rest}"
    );
}

#[test]
fn an_event_over_the_cap_is_judged_by_its_beginning() {
    let site = stream(
        "text/event-stream",
        &[
            "data: 0123456789012345678901234567890123456789",
            " and the rest\n\n",
            "data: secret-key\n\n",
        ],
    );
    let sidecar = before(&site, "  capture_bytes_max: 20\n");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/x"), &[], ""));
    assert_eq!(wire.head().unwrap().status(), 200);
    let rest = String::from_utf8(wire.rest()).unwrap();
    assert!(
        rest.contains(" and the rest\n\n") && rest.contains("outcome_blocked"),
        "{rest}"
    );
    assert!(!rest.contains("secret-key"), "{rest}");
}

#[test]
fn a_stream_that_policy_cannot_read_is_not_handed_out() {
    let site = Origin::saying(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc");
    let sidecar = before(&site, "");
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "upstream_broke_off".to_owned())
    );
}

#[test]
fn a_client_that_leaves_a_judged_stream_abandons_it_once() {
    let site = Origin::site();
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/events/never"), &[], ""));
    wire.head().unwrap();
    assert_eq!(wire.chunk().unwrap(), b"data: first\n\n");
    drop(wire);
    let abandoned = sidecar.recorded("the end of the stream", |line| {
        line["outcome"] == "abandoned"
    });
    assert_eq!(abandoned["http_status_code"], 200);
    assert_eq!(pieces(&sidecar, "completion"), 2);
    until("the connection to be gone", || {
        (sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
}
