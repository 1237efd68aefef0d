//! Event streams whose events are judged: each is handed out when it may be, and
//! not a moment later.

use crate::clients::{python_of_tests, through};
use crate::support::origin::Origin;
use crate::support::process;
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
fn an_event_over_the_cap_is_not_handed_out_where_over_cap_is_deny() {
    for long in [
        // Its end comes later, and with it.
        &[
            "data: 1\n\n",
            "data: 0123456789012345678901234567890123456789",
            " more\n\n",
        ][..],
        &[
            "data: 1\n\n",
            "data: 0123456789012345678901234567890123456789\n\n",
        ],
    ] {
        let site = stream("text/event-stream", long.to_vec().leak());
        let sidecar = before(&site, "  capture_bytes_max: 20\n  over_cap: deny\n");
        let mut wire = sidecar.wire();
        wire.say(request("GET", &site.url("/x"), &[], ""));
        assert_eq!(wire.head().unwrap().status(), 200);
        let rest = String::from_utf8(wire.rest()).unwrap();
        let refused = rest.contains("data: 1\n\n") && rest.contains("outcome_blocked");
        assert!(refused && !rest.contains("0123456789"), "{rest}");
    }
}

#[test]
fn a_stream_that_policy_cannot_read_is_not_handed_out() {
    let site = Origin::saying(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc");
    let sidecar = before(&site, "");
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "unasked_encoding".to_owned())
    );
    let completed = sidecar.record_of("/x", "completed");
    let found = (&completed["outcome"], &completed["http_status_code"]);
    assert_eq!(found, (&"failed".into(), &200.into()), "{completed}");
    let error = completed["error"].as_str().unwrap();
    assert!(error.contains("in an encoding"), "{error}");
    assert!(!error.contains("broke off"), "{error}");
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

/// Numbers of cards are masked; what says `please` is replaced as that says.
const REDACTS: (&str, &str) = (
    r#"
package test

default result := {"decision": "ALLOW"}

says := {
	"please: prose": "one\ntwo",
	"please: an event": "id: 9\ndata: nine\n\n",
	"please: two events": "data: a\n\ndata: b\n\n",
	"please: json": {"n": 9},
}

result := {"decision": "ALLOW", "redacted": {"response_body": said}} if {
	input.spans[0].stage == "completed"
	some word, said in says
	contains(input.spans[0].response_body, word)
}
"#,
    "guardrails:\n  - {name: cards, type: pii, entities: [CREDIT_CARD], stage: output, action: redact, operations: [http_request]}\n",
);

fn redacting(site: &Origin, guardrails: &str, config: &str) -> Sidecar {
    let config = format!("http:\n  judge_each: [\"origin.test\"]\n{config}");
    let setup = Setup::new().policy(REDACTS.0).config(&config);
    setup.write("policy_rules.yaml", guardrails);
    setup.reach(site).start()
}

/// What httpx reads of it, line by line.
fn lines_of_httpx(sidecar: &Sidecar, url: &str) -> String {
    const READS: &str = "import httpx, sys
with httpx.Client(proxy=sys.argv[1], timeout=20) as client:
    with client.stream('GET', sys.argv[2]) as answer:
        for line in answer.iter_lines():
            print(line)
";
    let mut command = process::command(&python_of_tests().display().to_string());
    command.args(["-c", READS, &format!("http://{}", sidecar.http), url]);
    let ended = process::run(&mut command);
    assert!(ended.status.success(), "{}", ended.err);
    ended.out
}

#[test]
fn an_event_that_is_redacted_stays_an_event_and_the_others_stay_as_they_are() {
    let site = stream(
        "text/event-stream",
        &[
            "id: 1\nevent: x\ndata: 4111 1111 1111",
            " 1111\n\ndata: {\"a\": \"4111111111111111\"}\r\n\r\n",
            ": 4111111111111111\n\nid: 2\ndata: please: prose\n\n",
            "data: please: an event\n\ndata: as it is\n\n",
        ],
    );
    let sidecar = redacting(&site, REDACTS.1, "");
    let run = "{\"workflow_id\":\"w\",\"run_id\":\"r\",\"workflow_type\":\"t\"}";
    assert_eq!(sidecar.agent("POST", "/v1/workflows", run).0, 200);
    let activity =
        "{\"workflow_id\":\"w\",\"run_id\":\"r\",\"activity_id\":\"a\",\"activity_type\":\"t\"}";
    assert_eq!(sidecar.agent("POST", "/v1/activities", activity).0, 200);
    let expected = "id: 1\nevent: x\ndata: <CREDIT_CARD>\n\ndata: {\"a\": \"<CREDIT_CARD>\"}\r\n\r\n: <CREDIT_CARD>\n\ndata: one\ndata: two\n\nid: 9\ndata: nine\n\ndata: as it is\n\n";
    let ended = through(&sidecar, &["--no-buffer", &site.url("/x")]);
    assert_eq!(ended.out, expected);
    let lines = lines_of_httpx(&sidecar, &site.url("/x"));
    assert_eq!(lines, expected.replace("\r\n", "\n"));
    // Twice seven pieces and twice the whole; what was handed out needs no redaction, so
    // nothing is held against the activity.
    let completions = until("all to be recorded", || {
        let journal = sidecar.journal();
        let all = journal.into_iter();
        let all: Vec<_> = all.filter(|line| line["record"] == "completion").collect();
        (all.len() == 14).then_some(all)
    });
    let redacted = completions.iter().filter(|line| line["redacted"] == true);
    assert_eq!(redacted.count(), 10);
    let observed = completions
        .iter()
        .filter(|line| line["decision"] == "observed");
    assert_eq!(observed.count(), 2);
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
    let journal = std::fs::read_to_string(sidecar.state.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("4111 1111") && !journal.contains("4111111111111111"));
}

#[test]
fn a_line_of_json_that_is_redacted_stays_one() {
    let site = stream(
        "application/x-ndjson",
        &[
            "{\"a\": 4111111111111111, \"b\": 1.50}\n{\"a\":",
            "\"please: json\"}\r\n{\"a\":3}",
        ],
    );
    let sidecar = redacting(&site, REDACTS.1, "");
    assert_eq!(
        lines_of_httpx(&sidecar, &site.url("/x")),
        "{\"a\": \"<CREDIT_CARD>\", \"b\": 1.50}\n{\"n\":9}\n{\"a\":3}\n"
    );
}

#[test]
fn what_cannot_stand_in_the_place_of_an_event_is_refused() {
    #[rustfmt::skip]
    let rows: [(&'static str, &'static [&'static str], &str); 4] = [
        ("application/x-ndjson", &["{\"a\":1}\n{\"a\":\"please: prose\"}\n{\"a\":3}\n"], ""),
        ("text/event-stream", &["data: 1\n\ndata: please: two events\n\ndata: \"a\":3}\n\n"], ""),
        // By their beginnings: one whose end comes later, and one whose end is here.
        ("text/event-stream", &["data: 1\n\ndata: please: prose 01234567890", "123456789\n\ndata: \"a\":3}\n\n"], "  capture_bytes_max: 24\n"),
        ("text/event-stream", &["data: 1\n\ndata: please: prose 01234567890123456789\n\ndata: \"a\":3}\n\n"], "  capture_bytes_max: 24\n"),
    ];
    for (kind, chunks, config) in rows {
        let site = stream(kind, chunks);
        let sidecar = redacting(&site, "guardrails: []\n", config);
        let mut wire = sidecar.wire();
        wire.say(request("GET", &site.url("/x"), &[], ""));
        assert_eq!(wire.head().unwrap().status(), 200);
        let rest = String::from_utf8(wire.rest()).unwrap();
        assert!(rest.contains("constraint_not_applicable"), "{rest}");
        for never in ["please", "two", "\"a\":3}"] {
            assert!(!rest.contains(never), "{never}: {rest}");
        }
    }
}

#[test]
fn an_answer_without_a_body_has_no_events_and_is_whole() {
    let site = Origin::site();
    let sidecar = before(&site, "  completed: observe\n");
    let mut wire = sidecar.wire();
    for _ in 0..2 {
        wire.say(request("HEAD", &site.url("/typed"), &[], ""));
        let answer = wire.answer_to("HEAD");
        assert_eq!(answer.status(), 200);
    }
    let outcomes = || -> Vec<_> {
        let journal = sidecar.journal();
        let lines = journal
            .into_iter()
            .filter(|line| line["record"] == "completion");
        lines.map(|line| line["outcome"].clone()).collect()
    };
    until("both to be recorded", || {
        (outcomes().len() == 2).then_some(())
    });
    assert_eq!(outcomes(), ["answered", "answered"]);
}

/// Who asks for an encoding, or an extension, is blocked.
const NOTHING_EXTRA: &str = r#"
package test

default result := {"decision": "ALLOW"}

fields := input.spans[0].request_headers

result := {"decision": "BLOCK"} if contains(fields["accept-encoding"], "gzip")

result := {"decision": "BLOCK"} if fields["sec-websocket-extensions"]
"#;

#[test]
fn the_fields_that_are_judged_are_those_that_are_sent() {
    let site = Origin::site();
    let setup = Setup::new().policy(NOTHING_EXTRA).reach(&site);
    let sidecar = setup
        .config("http:\n  judge_each: [\"origin.test/each*\"]\n")
        .start();
    let gzip = [("accept-encoding", "gzip, br")];
    for (path, status, sent) in [("/each", 200, Some("identity")), ("/else", 403, None)] {
        let answer = sidecar.send("GET", &site.url(path), &gzip, "");
        assert_eq!(answer.status(), status, "{path}");
        let heard = site.heard();
        let of = heard.iter().find(|message| message.head.path() == path);
        let field = of.and_then(|message| message.get("accept-encoding"));
        assert_eq!(field, sent, "{path}");
    }
    let extended = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-extensions", "permessage-deflate"),
    ];
    for (path, status) in [("/each/ws", 200), ("/else/ws", 403)] {
        let answer = sidecar.send("GET", &site.url(path), &extended, "");
        assert_eq!(answer.status(), status, "{path}");
    }
}
