//! Bodies that guardrails, the Rego or Core redacted: what is sent and handed out stands
//! in their place, over HTTP/1.1 and HTTP/2.

use base64::Engine;
use sha2::{Digest, Sha256};

use crate::clients::through;
use crate::http2::World;
use crate::support::core::{Core, Say};
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar};

const MAILS: &str = r"
guardrails:
  - {name: sent, type: pii, entities: [EMAIL_ADDRESS, CREDIT_CARD], stage: input, action: redact, operations: [http_request]}
  - {name: got, type: pii, entities: [EMAIL_ADDRESS], stage: output, action: redact, operations: [http_request]}
";

fn world(config: &str) -> (Origin, Sidecar) {
    let site = Origin::site();
    let setup = Setup::new().policy(ALLOW).reach(&site).config(config);
    setup.write("policy_rules.yaml", MAILS);
    (site, setup.start())
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn digest(body: &[u8]) -> String {
    let sum = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body));
    format!("sha-256=:{sum}:")
}

#[test]
fn the_redacted_body_is_what_curl_sends_and_what_stood_for_the_old_one_is_corrected() {
    let (site, sidecar) = world("");
    // Digits and spaces stay as they are, an escape hides nothing, a number becomes a mask.
    let body = r#"{"to": "ann\u0040example.com", "n":1.50, "card" : 4111111111111111, "of":["x"]}"#;
    let sent = r#"{"to": "<EMAIL_ADDRESS>", "n":1.50, "card" : "<CREDIT_CARD>", "of":["x"]}"#;
    for framing in ["x-framing: length", "transfer-encoding: chunked"] {
        let fields = [
            format!("content-digest: {}", digest(body.as_bytes())),
            "content-md5: x".to_owned(),
        ];
        let url = site.url("/notes");
        let [digest_field, md5] = &fields;
        through(
            &sidecar,
            &[
                "--json",
                body,
                "-H",
                framing,
                "-H",
                digest_field,
                "-H",
                md5,
                &url,
            ],
        );
        let heard = site.heard().pop().unwrap();
        assert_eq!(String::from_utf8_lossy(&heard.body), sent, "{framing}");
        let length = sent.len().to_string();
        let digest = digest(sent.as_bytes());
        let found = [
            "content-length",
            "content-digest",
            "content-md5",
            "content-type",
        ]
        .map(|name| heard.get(name));
        let expected = [
            Some(&*length),
            Some(&*digest),
            None,
            Some("application/json"),
        ];
        assert_eq!(found, expected, "{framing}");
    }
    let decided = sidecar.record_of("/notes", "started");
    assert_eq!(decided["redacted"], true, "{decided}");
    let journal = std::fs::read_to_string(sidecar.state.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("ann"), "{journal}");
}

#[test]
fn chunks_with_trailers_stay_chunks_and_their_digest_goes() {
    let (site, sidecar) = world("");
    let fields = [
        ("content-type", "text/plain"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-end, content-digest"),
    ];
    let body = "12\r\nto ann@example.com\r\n0\r\nx-end: yes\r\ncontent-digest: sha-256=:x:\r\n\r\n";
    let answer = sidecar.send("POST", &site.url("/notes"), &fields, body);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let heard = site.heard().pop().unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.body), "to <EMAIL_ADDRESS>");
    assert_eq!(heard.trailers, [("x-end".to_owned(), "yes".to_owned())]);
    assert_eq!(heard.get("content-length"), None);
}

/// What it is, fields, body, and the code of the refusal; empty where it is none.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn what_cannot_be_replaced_is_refused_and_never_sent() {
    let (site, sidecar) = world("http:\n  capture_bytes_max: 100\n");
    let long = format!("to ann@example.com {}", "x".repeat(100));
    let binary = [("content-type", "application/octet-stream")];
    #[rustfmt::skip]
    let rows: [Row<'_>; 4] = [
        ("the name of a member", &[JSON],  r#"{"ann@example.com": 1}"#, "blocked"),
        ("across values",        &[JSON],  r#"[4111,1111,1111,1111, "4111 1111 1111 1111"]"#, ""),
        ("over the cap",         &[("content-type", "text/plain")], &long, "not_judgeable"),
        ("no text",              &binary,  "to ann@example.com", "not_judgeable"),
    ];
    for (name, fields, body, code) in rows {
        let before = site.heard().len();
        let answer = sidecar.send("POST", &site.url("/notes"), fields, body);
        if code.is_empty() {
            // What is left hides nothing.
            let heard = site.heard().pop().unwrap();
            assert_eq!(
                String::from_utf8_lossy(&heard.body),
                r#"[4111,1111,1111,1111, "<CREDIT_CARD>"]"#
            );
            continue;
        }
        assert_eq!(
            (answer.status(), answer.code()),
            (403, code.to_owned()),
            "{name}"
        );
        assert_eq!(site.heard().len(), before, "{name}");
    }
}

#[test]
fn the_redacted_answer_is_what_curl_gets_and_a_stream_is_not_handed_out_as_if_it_were() {
    let site = Origin::raw(|mut wire, shared| {
        while let Some(request) = wire.request() {
            shared.log(&request);
            let partial = request.head.path() == "/part";
            let status = if partial {
                "206 Partial Content"
            } else {
                "200 OK"
            };
            drop(wire.try_say(format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: 21\r\netag: \"1\"\r\naccept-ranges: bytes\r\ncontent-digest: sha-256=:x:\r\nx-kept: 1\r\n\r\nfrom bob@example.com\n"
            )));
        }
    });
    let setup = Setup::new().policy(ALLOW).reach(&site);
    setup.write("policy_rules.yaml", MAILS);
    let sidecar = setup.start();
    let answer = through(&sidecar, &["--include", &site.url("/x")]).out;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "from <EMAIL_ADDRESS>\n");
    let digest = format!("content-digest: {}", digest(body.as_bytes()));
    for line in ["content-length: 21", &digest, "x-kept: 1"] {
        assert!(head.contains(line), "{line}: {head}");
    }
    for name in ["etag", "accept-ranges"] {
        assert!(!head.contains(name), "{head}");
    }
    let completed = sidecar.record_of("/x", "completed");
    assert_eq!(
        (&completed["decision"], &completed["redacted"]),
        (&"release".into(), &true.into())
    );
    // A part of what it was.
    let refused = sidecar.get(&site.url("/part"));
    assert_eq!(
        (refused.status(), refused.code()),
        (403, "constraint_not_applicable".to_owned())
    );
}

#[test]
fn what_is_held_goes_out_redacted_and_so_does_an_answer_that_was_set_aside() {
    let ask = r#"
package test
default result := {"decision": "ALLOW"}
result := {"decision": "REQUIRE_APPROVAL", "reason": "look"} if {
	input.spans[0].stage == "started"
	input.spans[0].attributes["url.path"] == "/ask/ann@example.com"
}
result := {"decision": "REQUIRE_APPROVAL", "reason": "look"} if {
	input.spans[0].stage == "completed"
	input.spans[0].attributes["url.path"] == "/see/ann@example.com"
}
"#;
    let site = Origin::site();
    let config = "http:\n  hold_within: 100ms\n";
    let setup = Setup::new().policy(ask).reach(&site).config(config);
    setup.write("policy_rules.yaml", MAILS);
    let sidecar = setup.start();
    for path in ["/ask/ann@example.com", "/see/ann@example.com"] {
        let body = "to bob@example.com";
        let send = || {
            sidecar.send(
                "POST",
                &site.url(path),
                &[("content-type", "text/plain")],
                body,
            )
        };
        assert_eq!(send().code(), "approval_pending", "{path}");
        sidecar.approve(&sidecar.pending_approval());
        let answer = send();
        let place = path.replace("ann@example.com", "<EMAIL_ADDRESS>");
        assert_eq!(answer.text(), format!("hello from {place}"), "{path}");
        assert_eq!(site.times(path), 1);
        let heard = site.heard().pop().unwrap();
        assert_eq!(String::from_utf8_lossy(&heard.body), "to <EMAIL_ADDRESS>");
    }
}

#[test]
fn httpx_sends_and_gets_redacted_bodies_over_http_2() {
    let setup = Setup::new().policy(ALLOW);
    setup.write("policy_rules.yaml", MAILS);
    let world = World::secure_with(setup);
    assert_eq!(
        world.found("redacted"),
        [
            "sent 200 HTTP/2 to <EMAIL_ADDRESS> 18 True",
            "got 200 hello from /<EMAIL_ADDRESS> 27 True",
        ]
    );
}

#[test]
fn the_rego_and_core_say_what_stands_for_a_body_in_the_same_words() {
    let rego = r#"
package test
default result := {"decision": "ALLOW"}
result := {"decision": "ALLOW", "redacted": {"request_body": {"pin": "****"}}} if {
	input.spans[0].stage == "started"
	input.spans[0].attributes["url.path"] == "/echo"
}
"#;
    let site = Origin::site();
    let sidecar = Setup::new().policy(rego).reach(&site).start();
    let post = |sidecar: &Sidecar, path: &str| {
        sidecar.send("POST", &site.url(path), &[JSON], r#"{"pin": 1234}"#)
    };
    let echoed = post(&sidecar, "/echo").json();
    assert_eq!(echoed["text"], r#"{"pin":"****"}"#);

    let core = Core::start();
    let setup = Setup::new().core(&core.url(), "closed").reach(&site);
    let sidecar = setup.start();
    let say = |redacted: &str| {
        let body = format!(
            r#"{{"verdict":"allow","action":"allow","guardrails_result":{{"input_type":"activity_input","redacted_input":{redacted},"validation_passed":true}}}}"#
        );
        Say::Answer(200, body)
    };
    core.at("started", say(r#"[{"request_body": "{\"pin\": 0}"}]"#));
    assert_eq!(post(&sidecar, "/echo").json()["text"], r#"{"pin": 0}"#);
    core.at("completed", say(r#"{"response_body": "nothing"}"#));
    assert_eq!(post(&sidecar, "/x").text(), "nothing");
    // The input of an activity is no body.
    core.at("started", say(r#"["****"]"#));
    assert_eq!(post(&sidecar, "/x").code(), "constraint_not_applicable");
}
