//! The fields behind a body: shown to policy where all of the body is here, and what of header fields ends at this hop
//! ends with them, too.

use crate::core_mode;
use crate::http2::World;
use crate::support::core::Core;
use crate::support::origin::{Origin, Shared};
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::{Message, Wire};

/// A trailer may say what is decided, and a secret is never to be seen.
const AS_TRAILERS_SAY: &str = r#"
package test

default result := {"decision": "ALLOW"}

span := input.spans[0]

said := span.attributes["http.request.trailers"] if span.stage == "started"

said := span.attributes["http.response.trailers"] if span.stage == "completed"

result := {"decision": "HALT", "reason": said} if {
	contains(said, "s3cret")
} else := {"decision": "BLOCK", "reason": said} if {
	contains(said, "x-verdict: block")
} else := {"decision": "REQUIRE_APPROVAL", "reason": said} if {
	contains(said, "x-verdict: hold")
}
"#;

/// What is with the fields that travel on, and what is not.
const OURS: &str = "x-openbox-run-id: r\r\nopenbox-verdict: allow\r\nkeep-alive: 5\r\n";

/// Declared beforehand, as chunks have it.
const TRAILER: (&str, &str) = (
    "trailer",
    "x-end, x-verdict, x-api-key, x-openbox-run-id, openbox-verdict, keep-alive",
);

fn answered(mut wire: Wire, shared: &Shared) {
    while let Some(request) = wire.request() {
        shared.log(&request);
        let (kind, trailers) = match request.head.path() {
            "/text" => ("text/plain", "x-end: yes\r\nx-api-key: s3cret\r\n"),
            "/streamed" => ("image/png", "x-end: yes\r\nx-api-key: s3cret\r\n"),
            "/blocked" => ("text/plain", "x-verdict: block\r\n"),
            "/ours" => ("text/plain", ""),
            _ => ("text/plain", "x-end: yes\r\n"),
        };
        let (name, names) = TRAILER;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{name}: {names}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        if wire
            .try_say(format!("{head}4\r\nbody\r\n0\r\n{trailers}{OURS}\r\n"))
            .is_err()
        {
            return;
        }
    }
}

fn world(config: &str) -> (Origin, Sidecar) {
    let site = Origin::raw(answered);
    let setup = Setup::new().policy(AS_TRAILERS_SAY).reach(&site);
    let sidecar = setup.config(config).start();
    (site, sidecar)
}

/// Says `body` in one chunk, with these trailers behind it.
fn say(sidecar: &Sidecar, url: &str, kind: &str, body: &str, trailers: &str) -> Message {
    let fields = [
        ("content-type", kind),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        TRAILER,
    ];
    let body = format!("{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len());
    sidecar.send("POST", url, &fields, &body)
}

fn fields(said: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    said.iter().map(owned).collect()
}

#[test]
fn trailers_of_a_request_are_judged_with_it_and_those_of_the_hop_stay_here() {
    let spill = "http:\n  over_cap: spill\n  capture_bytes_max: 100\n";
    let deny = "http:\n  over_cap: deny\n";
    let long = "x".repeat(1_000);
    #[rustfmt::skip]
    let table = [
        // config  type                        body
        ("",       "text/plain",               "hello"),
        (deny,     "text/plain",               "hello"),
        (deny,     "application/octet-stream", "hello"),
        (spill,    "text/plain",               "hello"),
        (spill,    "text/plain",               &*long),
    ];
    for (config, kind, body) in table {
        let row = format!("{config:?} {kind} {}", body.len());
        let (site, sidecar) = world(config);
        let url = site.url("/plain");
        let refused = say(&sidecar, &url, kind, body, "x-verdict: block\r\n");
        assert_eq!(refused.code(), "blocked", "{row}");
        assert_eq!(site.connections(), 0, "{row}");
        // A secret of them is not shown, and reaches the origin.
        let trailers = format!("x-end: yes\r\n{OURS}x-api-key: s3cret\r\n");
        let answer = say(&sidecar, &url, kind, body, &trailers);
        assert_eq!(answer.status(), 200, "{row}: {}", answer.text());
        let heard = site.heard().pop().unwrap();
        assert_eq!(heard.text(), body, "{row}");
        let mut kept = heard.trailers;
        kept.sort();
        let expected = fields(&[("x-api-key", "s3cret"), ("x-end", "yes")]);
        assert_eq!(kept, expected, "{row}");
    }
}

#[test]
fn of_a_body_that_streams_on_no_trailer_of_the_hop_leaves_either() {
    let (site, sidecar) = world("");
    let trailers = format!("x-end: yes\r\n{OURS}");
    let url = site.url("/plain");
    let answer = say(
        &sidecar,
        &url,
        "application/octet-stream",
        "hello",
        &trailers,
    );
    assert_eq!(answer.status(), 200);
    let heard = site.heard().pop().unwrap();
    assert_eq!(heard.trailers, fields(&[("x-end", "yes")]));
}

#[test]
fn a_retry_with_other_trailers_is_another_operation() {
    let (site, sidecar) = world("http:\n  hold_within: 100ms\n");
    let ask = |key: &str| {
        let trailers = format!("x-verdict: hold\r\nx-api-key: {key}\r\n");
        let answer = say(
            &sidecar,
            &site.url("/plain"),
            "text/plain",
            "pay",
            &trailers,
        );
        assert_eq!(answer.code(), "approval_pending");
        answer.json()["approval_id"].clone()
    };
    let first = ask("one");
    assert_eq!(ask("one"), first);
    // Also where they are shown alike.
    assert_ne!(ask("other"), first);
}

#[test]
fn trailers_of_an_answer_are_judged_with_it_and_those_of_the_hop_stay_here() {
    let (site, sidecar) = world("");
    let get = |path: &str| {
        let mut wire = sidecar.wire();
        wire.say(request("GET", &site.url(path), &[("te", "trailers")], ""));
        wire.answer()
    };
    for path in ["/text", "/streamed"] {
        let answer = get(path);
        assert_eq!(answer.text(), "body", "{path}");
        let mut kept = answer.trailers;
        kept.sort();
        let expected = fields(&[("x-api-key", "s3cret"), ("x-end", "yes")]);
        assert_eq!(kept, expected, "{path}");
    }
    assert_eq!(get("/ours").trailers, []);
    let refused = get("/blocked");
    assert_eq!(refused.code(), "outcome_blocked");
    assert_eq!(refused.json()["reason"], "x-verdict: block");
}

#[test]
fn core_is_shown_trailers_apart_from_header_fields() {
    let (core, site) = (Core::start(), Origin::raw(answered));
    let sidecar = core_mode::setup(&core.url(), "closed", &site).start();
    let trailers = format!("x-end: yes\r\n{OURS}");
    let url = site.url("/text");
    let answer = say(&sidecar, &url, "text/plain", "hello", &trailers);
    assert_eq!(answer.status(), 200);
    let asked = core.asked("evaluate");
    let [started, completed] = &asked[..] else {
        panic!("two questions, not {}", asked.len());
    };
    let shown = |question: &serde_json::Value, side: &str| {
        let span = &question["spans"][0];
        span["attributes"][format!("http.{side}.trailers")].clone()
    };
    assert_eq!(shown(started, "request"), "x-end: yes");
    assert_eq!(shown(started, "response"), serde_json::Value::Null);
    assert_eq!(shown(completed, "request"), "x-end: yes");
    assert_eq!(
        shown(completed, "response"),
        "x-end: yes\nx-api-key: [REDACTED]"
    );
    let headers = &started["spans"][0]["request_headers"];
    assert_eq!(headers["x-end"], serde_json::Value::Null);
}

#[test]
fn trailers_of_http_2_are_judged_and_stripped_in_both_directions() {
    let world = World::secure_with(Setup::new().policy(AS_TRAILERS_SAY));
    assert_eq!(
        world.found("judged_trailers"),
        [
            "echoed 200 x-api-key x-end",
            "passed 200 x-end",
            "refused 403 blocked",
            "withheld 403 outcome_blocked",
            "whole 200 x-sum",
            "streamed 200 x-sum",
        ]
    );
}
