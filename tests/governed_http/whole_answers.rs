//! Answers that policy must see all of before their agent has them: `http.over_cap: deny` under
//! `http.completed: enforce`, and small ones that are no text.

use std::io::Write;

use crate::support::origin::{Origin, Shared};
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::{Message, Wire};

const TEXT: &str = "content-type: text/plain";
const BINARY: &str = "content-type: application/octet-stream";
const EVENTS: &str = "content-type: text/event-stream";

/// Patient, so that nothing is withheld for its time.
const DENY: &str = "http:
  capture_bytes_max: 1000
  capture_within: 60s
  over_cap: deny
  routes: [\"*/partial/* over_cap=partial\", \"*/unseen/* capture=false\", \"*/observed/* completed=observe\"]
";

const TOO_LARGE: &str = "openbox_limit_hits_total{limit=\"too_large\"}";

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

fn known(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn chunked(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    [head.as_bytes(), body, b"\r\n"].concat()
}

/// Answers as the path says; what has `never` in it does not end.
fn origin(mut wire: Wire, shared: &Shared) {
    let long = [b'x'; 1_001];
    let end = b"0\r\n\r\n";
    while let Some(request) = wire.request() {
        shared.log(&request);
        let path = request.head.path();
        let two = [gzip(b"one"), gzip(b"two")].concat();
        let answer = match path {
            "/chunked" | "/partial/chunked" => [&chunked(TEXT, &long), &end[..]].concat(),
            "/swells" => known(
                &format!("{TEXT}\r\ncontent-encoding: gzip"),
                &gzip(&[b'x'; 5_000]),
            ),
            "/gzip" => known(
                &format!("{TEXT}\r\ncontent-encoding: gzip"),
                &gzip(&[b'x'; 900]),
            ),
            "/swells/far" => known(
                &format!("{TEXT}\r\ncontent-encoding: gzip"),
                &gzip(&[b'x'; 60_000]),
            ),
            // A tag of more than 32 bits, which decoders read differently.
            "/disputed" => known(
                "content-type: application/grpc",
                b"\x00\x00\x00\x00\x0a\x8a\x80\x80\x80\x10\x04drop",
            ),
            "/two" => known(&format!("{TEXT}\r\ncontent-encoding: gzip"), &two),
            "/unknown" => known(&format!("{TEXT}\r\ncontent-encoding: aes128gcm"), b"secret"),
            "/binary" => known(BINARY, b"\x00\x01"),
            "/binary/chunked" => [&chunked(BINARY, b"\x00\x01"), &end[..]].concat(),
            "/binary/long" => known(BINARY, &long),
            "/image" => known("content-type: image/png", b"\x89PNG"),
            "/image/long" => known("content-type: image/png", &long),
            "/events" => [&chunked(EVENTS, b"data: x\n\n"), &end[..]].concat(),
            "/events/never" => chunked(EVENTS, b"data: x\n\n"),
            "/stops" => chunked(TEXT, b"stop the run"),
            "/binary/never" => chunked(BINARY, b"\x00"),
            "/halts" => known(TEXT, &[b"stop the run", &long[..]].concat()),
            "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            _ if request.head.method() == "HEAD" => {
                b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_vec()
            }
            _ if path.ends_with("/short") => known(TEXT, b"short"),
            _ => known(TEXT, &long),
        };
        if wire.try_say(answer).is_err() {
            return;
        }
    }
}

fn world(policy: &str, config: &str) -> (Origin, Sidecar) {
    let site = Origin::raw(origin);
    let sidecar = Setup::new().policy(policy).reach(&site).config(config);
    let sidecar = sidecar.start();
    (site, sidecar)
}

/// That `answer` is a refusal, recorded as one that the origin had answered, for `why`.
fn withheld(sidecar: &Sidecar, path: &str, answer: &Message, why: &str) {
    let found = (answer.status(), answer.code());
    assert_eq!(found, (403, "outcome_blocked".to_owned()), "{path}");
    assert_eq!(answer.get("openbox-verdict"), Some("block"), "{path}");
    let reason = answer.json()["reason"].to_string();
    assert!(
        reason.contains(why) && reason.contains("over_cap"),
        "{path}: {reason}"
    );
    let completed = sidecar.record_of(path, "completed");
    let found = (&completed["decision"], &completed["outcome"]);
    let expected = (&"outcome_blocked".into(), &"failed".into());
    assert_eq!(found, expected, "{path}: {completed}");
    assert_eq!(completed["http_status_code"], 200, "{path}");
    assert!(
        completed["error"].to_string().contains(why),
        "{path}: {completed}"
    );
}

#[test]
fn an_answer_that_policy_does_not_see_all_of_is_withheld_where_over_cap_is_deny() {
    let (site, sidecar) = world(ALLOW, DENY);
    #[rustfmt::skip]
    let rows = [
        ("/long",           "larger"),
        ("/chunked",        "larger"),
        ("/swells",         "larger"),
        ("/binary/long",    "larger"),
        ("/two",            "decoded"),
        ("/unknown",        "decoded"),
    ];
    for (path, why) in rows {
        let answer = sidecar.get(&site.url(path));
        withheld(&sidecar, path, &answer, why);
        assert_eq!(site.times(path), 1, "{path}");
    }
    let denied = sidecar.metric("openbox_http_over_cap_total{choice=\"denied\"}");
    assert_eq!(denied, 6);
    assert_eq!(sidecar.metric(TOO_LARGE), 4);
    #[rustfmt::skip]
    let rows = [
        ("/short",           5, "release"),
        ("/gzip",            gzip(&[b'x'; 900]).len(), "release"),
        ("/binary",          2, "release"),
        ("/binary/chunked",  2, "release"),
        ("/events",          9, "release"),
        ("/none",            0, "release"),
        ("/partial/chunked", 1_001, "observed"),
        ("/partial/long",    1_001, "observed"),
        ("/unseen/long",     1_001, "observed"),
        ("/observed/long",   1_001, "observed"),
    ];
    for (path, bytes, decision) in rows {
        let answer = sidecar.get(&site.url(path));
        assert!(
            [200, 204].contains(&answer.status()),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(answer.body.len(), bytes, "{path}");
        assert_eq!(
            sidecar.record_of(path, "completed")["decision"],
            decision,
            "{path}"
        );
    }
    // Of what has no body nothing is over.
    let mut wire = sidecar.wire();
    wire.say(request("HEAD", &site.url("/head"), &[], ""));
    let head = wire.answer_to("HEAD");
    assert_eq!(
        (head.status(), head.get("content-length")),
        (200, Some("1001"))
    );
}

#[test]
fn an_answer_that_is_here_and_cannot_be_shown_is_not_called_large() {
    let (site, sidecar) = world(ALLOW, &DENY.replace("1000", "65536"));
    for path in ["/swells/far", "/disputed"] {
        let answer = sidecar.get(&site.url(path));
        withheld(&sidecar, path, &answer, "not all of it can be shown");
        let completed = sidecar.record_of(path, "completed");
        assert_eq!(completed["response_body"], "partial", "{path}: {completed}");
    }
    assert_eq!(sidecar.metric(TOO_LARGE), 0);
}

/// Halts for what is not all of an answer.
const HALTS: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "HALT", "reason": "the answer says stop"} if {
	input.spans[0].stage == "completed"
	startswith(input.spans[0].response_body, "stop the run")
}
"#;

#[test]
fn an_answer_that_does_not_come_in_time_is_withheld_and_what_came_of_it_judged() {
    let impatient = DENY.replace("60s", "300ms");
    let (site, sidecar) = world(HALTS, &impatient);
    for path in ["/events/never", "/binary/never"] {
        let answer = sidecar.get(&site.url(path));
        withheld(&sidecar, path, &answer, "capture_within");
    }
    assert_eq!(sidecar.metric(TOO_LARGE), 0);
    let answer = sidecar.get(&site.url("/stops"));
    assert_eq!((answer.status(), answer.code()), (403, "halted".to_owned()));
    let completed = sidecar.record_of("/stops", "completed");
    assert_eq!(completed["decision"], "halted", "{completed}");
    assert_eq!(sidecar.get(&site.url("/short")).code(), "halted");
}

#[test]
fn the_beginning_of_an_answer_that_is_withheld_may_halt_the_run() {
    let (site, sidecar) = world(HALTS, DENY);
    assert_eq!(sidecar.get(&site.url("/halts")).code(), "halted");
    assert_eq!(sidecar.get(&site.url("/short")).code(), "halted");
    assert_eq!(site.times("/short"), 0);
}

/// No answer is an image.
const NO_IMAGES: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK", "reason": "no images"} if {
	input.spans[0].stage == "completed"
	input.spans[0].response_headers["content-type"] == "image/png"
}
"#;

#[test]
fn a_small_answer_that_is_no_text_is_withheld_for_what_it_is() {
    let config = "http:\n  capture_bytes_max: 1000\n  capture_within: 60s\n";
    let (site, sidecar) = world(NO_IMAGES, config);
    let answer = sidecar.get(&site.url("/image"));
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "outcome_blocked".to_owned())
    );
    let completed = sidecar.record_of("/image", "completed");
    let found = (&completed["response_body"], &completed["response_bytes"]);
    assert_eq!(found, (&"binary".into(), &4.into()), "{completed}");
    assert!(completed["response_sha256"].is_string(), "{completed}");
    // One that is not small goes on, and is judged at its end.
    let answer = sidecar.get(&site.url("/image/long"));
    assert_eq!((answer.status(), answer.body.len()), (200, 1_001));
    let completed = sidecar.record_of("/image/long", "completed");
    assert_eq!(completed["response_body"], "skipped", "{completed}");
    // What policy lets be is as it was.
    assert_eq!(sidecar.get(&site.url("/binary")).body, [0, 1]);
}
