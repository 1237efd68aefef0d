//! WebSockets whose messages are judged: real clients before real servers, and the
//! frames themselves where clients are too well behaved.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::{python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::process::{self, Running};
use crate::support::sidecar::{Setup, Sidecar, journal, request};
use crate::support::wire::{HANDSHAKE, Wire};
use crate::support::{PATIENCE, until};

/// Decides by what a message says.
const AS_THE_MESSAGE_SAYS: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": upper(word), "reason": concat(" ", ["the test says", word])} if {
	input.spans[0].stage == "started"
	some word in ["block", "halt", "require_approval"]
	contains(input.spans[0].request_body, concat("", ["please-", word]))
}

result := {"decision": "BLOCK", "reason": "the test says secret"} if {
	input.spans[0].stage == "completed"
	contains(input.spans[0].response_body, "secret-")
}
"#;

/// Everything at `/judged…` is judged.
const JUDGED: &str = "http:\n  judge_each: [\"*/judged*\"]\n";

/// A server of `scripts/clients`, and where it is.
pub(crate) struct Server {
    pub(crate) running: Running,
    name: &'static str,
    scheme: &'static str,
    port: u16,
}

impl Server {
    /// `program` serves the script's WebSocket; in TLS where it gets a pair.
    pub(crate) fn start(
        setup: &Setup,
        program: &Path,
        script: &str,
        pair: Option<[String; 2]>,
    ) -> Self {
        let file = setup.folder().join("port");
        drop(std::fs::remove_file(&file));
        let mut command = process::command(&program.display().to_string());
        command.arg(script).arg("serve").arg(&file);
        let secure = pair.is_some();
        command.args(pair.into_iter().flatten());
        let running = Running::start(&mut command);
        let port = until("a server of WebSocket", || {
            let text = std::fs::read_to_string(&file).ok();
            text.and_then(|text| text.parse().ok())
        });
        Self {
            running,
            name: if secure { "secure.test" } else { "origin.test" },
            scheme: if secure { "wss" } else { "ws" },
            port,
        }
    }

    pub(crate) fn reached_by(&self, setup: Setup) -> Setup {
        setup
            .flag(
                "--resolve",
                &format!("{}:{}=127.0.0.1", self.name, self.port),
            )
            .flag("--allow-address", "127.0.0.1/32")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}:{}{path}", self.scheme, self.name, self.port)
    }
}

pub(crate) fn python() -> (PathBuf, String) {
    (python_of_tests(), script("websocket.py"))
}

fn node() -> (PathBuf, String) {
    (PathBuf::from("node"), script("websocket.mjs"))
}

/// Runs the checks of `client` against `server`, with messages that pass and with
/// messages that are judged.
fn checks(client: &(PathBuf, String), server: &(PathBuf, String)) {
    for how in ["opaque", "judged"] {
        let setup = Setup::new().policy(AS_THE_MESSAGE_SAYS).config(JUDGED);
        let serving = Server::start(&setup, &server.0, &server.1, None);
        let setup = serving.reached_by(setup);
        let program = client.0.display().to_string();
        let url = serving.url(&format!("/{how}"));
        let mut command = setup.run_command(&[&program, &client.1, "check", how, &url]);
        let ended = process::run(&mut command);
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{how}: {}\n{}",
            ended.out,
            ended.err
        );
        assert_eq!(
            ended.out.lines().last(),
            Some("all checks passed"),
            "{}",
            ended.out
        );
        let said = serving.running.out();
        let deflated = said
            .lines()
            .filter(|line| line.contains("permessage-deflate"));
        let lines = said.lines().count();
        assert!(lines > 20, "{said}");
        if how == "opaque" {
            assert_eq!(deflated.count(), lines, "{said}");
            continue;
        }
        assert_eq!(deflated.count(), 0, "{said}");
        assert!(said.contains("closed 1008 blocked heard 0"), "{said}");
        // Each message is an operation of its own, and each has one completion.
        let journal = journal(&setup.state());
        let of = |record: &str| {
            journal
                .iter()
                .filter(|line| line["record"] == record)
                .count()
        };
        let refused = journal.iter().filter(|line| line["decision"] == "blocked");
        assert_eq!(of("decision"), of("completion") + refused.count());
        let said = journal.iter().filter(|line| {
            let url = line["http_url"].as_str().unwrap_or_default();
            line["record"] == "decision" && line["http_method"] == "POST" && url.starts_with("ws")
        });
        assert!(said.count() > 20);
    }
}

const REDACTED: &str = r"
guardrails:
  - {name: said, type: pii, entities: [EMAIL_ADDRESS], stage: input, action: redact, operations: [http_request]}
  - {name: heard, type: pii, entities: [CREDIT_CARD], stage: output, action: redact, operations: [http_request]}
";

#[test]
fn what_is_redacted_goes_on_in_its_place_both_ways_between_clients_and_servers_that_exist() {
    for (client, server) in [(python(), node()), (node(), python()), (python(), python())] {
        let setup = Setup::new().policy(ALLOW).config(JUDGED);
        setup.write("policy_rules.yaml", REDACTED);
        let serving = Server::start(&setup, &server.0, &server.1, None);
        let setup = serving.reached_by(setup);
        let program = client.0.display().to_string();
        let url = serving.url("/judged");
        let mut command = setup.run_command(&[&program, &client.1, "check", "redacted", &url]);
        let ended = process::run(&mut command);
        assert_eq!(ended.status.code(), Some(0), "{}\n{}", ended.out, ended.err);
        let state = setup.state();
        let redacted = |record: &str| {
            let lines = journal(&state).into_iter();
            let lines = lines.filter(|line| line["record"] == record && line["redacted"] == true);
            lines.count()
        };
        // What is said is, by its decisions, and what is heard, by its completions.
        assert!(redacted("decision") >= 7, "{}", redacted("decision"));
        assert_eq!(redacted("completion"), 2);
        let journal = std::fs::read_to_string(state.join("journal.jsonl")).unwrap();
        assert!(!journal.contains("ann@") && !journal.contains("4111 1111"));
    }
}

#[test]
fn websockets_of_python_before_its_own_server() {
    checks(&python(), &python());
}

#[test]
fn websockets_of_python_before_node() {
    checks(&python(), &node());
}

#[test]
fn websockets_inside_intercepted_tls() {
    let authority = Authority::new();
    let setup = Setup::new()
        .policy(AS_THE_MESSAGE_SAYS)
        .config(JUDGED)
        .trust(&authority);
    let (certificate, key) = authority.pair("secure.test", Dates::Current);
    let pair = [
        setup.write("server.pem", &certificate),
        setup.write("server.key", &key),
    ];
    let (program, script) = python();
    let serving = Server::start(&setup, &program, &script, Some(pair));
    let setup = serving.reached_by(setup);
    for (program, script) in [python(), node()] {
        let program = program.display().to_string();
        let url = serving.url("/judged");
        let mut command = setup.run_command(&[&program, &script, "check", "judged", &url]);
        let ended = process::run(&mut command);
        assert_eq!(ended.status.code(), Some(0), "{}\n{}", ended.out, ended.err);
    }
}

#[test]
fn ws_of_node_before_its_own_server() {
    checks(&node(), &node());
}

#[test]
fn ws_of_node_before_python() {
    checks(&node(), &python());
}

/// A frame of a client, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(p, m)| p ^ m));
    bytes
}

/// The code and the reason of a Close frame of a server.
fn closed(wire: &mut Wire) -> (u16, String) {
    let head = wire.exactly(2);
    assert_eq!(head.first(), Some(&0x88), "{head:?}");
    let payload = wire.exactly(usize::from(head[1]));
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    (code, String::from_utf8(payload[2..].to_vec()).unwrap())
}

/// Both ends of an open WebSocket through a sidecar.
struct Both {
    client: Wire,
    server: Wire,
    sidecar: Sidecar,
    _site: Origin,
}

const TOO_LARGE: &str = "openbox_limit_hits_total{limit=\"too_large\"}";

fn opened(config: &str) -> Both {
    opened_under(AS_THE_MESSAGE_SAYS, config)
}

fn opened_under(policy: &str, config: &str) -> Both {
    let (give, take) = std::sync::mpsc::channel();
    let give = std::sync::Mutex::new(give);
    let site = Origin::raw(move |mut wire, shared| {
        let Some(request) = wire.request() else {
            return;
        };
        shared.log(&request);
        wire.say("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
        drop(give.lock().unwrap().send(wire));
    });
    let config = format!("http:\n  judge_each: [\"*/judged*\"]\n{config}");
    let setup = Setup::new().policy(policy).config(&config);
    let sidecar = setup.reach(&site).start();
    let mut client = sidecar.wire();
    let deflates = ("sec-websocket-extensions", "permessage-deflate");
    let ask = [&HANDSHAKE[..], &[deflates]].concat();
    client.say(request("GET", &site.url("/judged"), &ask, ""));
    assert_eq!(client.answer().status(), 101);
    assert_eq!(site.heard()[0].get("sec-websocket-extensions"), None);
    Both {
        client,
        server: take.recv().unwrap(),
        sidecar,
        _site: site,
    }
}

#[test]
fn a_held_message_goes_once_a_person_agrees_and_pings_do_not_wait_for_it() {
    let mut both = opened("");
    let held = frame(0x81, b"please-require_approval");
    both.client.say(&held);
    let approval = both.sidecar.pending_approval();
    let ping = frame(0x89, b"are you there");
    both.client.say(&ping);
    assert_eq!(both.server.exactly(ping.len()), ping);
    both.server.say(b"\x8a\x0dare you there\x81\x04news");
    assert_eq!(
        both.client.exactly(21),
        b"\x8a\x0dare you there\x81\x04news"
    );
    let behind = frame(0x81, b"behind it");
    both.client.say(&behind);
    both.sidecar.approve(&approval);
    // Not a bit of them is changed.
    assert_eq!(both.server.exactly(held.len()), held);
    assert_eq!(both.server.exactly(behind.len()), behind);
}

/// Puts a word in the place of what says it, whichever side says it.
const A_WORD_FOR_ANOTHER: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "ALLOW", "redacted": {"request_body": "hidden"}} if {
	input.spans[0].stage == "started"
	contains(input.spans[0].request_body, "secret")
	not contains(input.spans[0].request_body, "ask")
}

result := {"decision": "REQUIRE_APPROVAL", "reason": "look", "redacted": {"request_body": "hidden"}} if {
	input.spans[0].stage == "started"
	contains(input.spans[0].request_body, "ask: secret")
}

result := {"decision": "REQUIRE_APPROVAL", "reason": "look", "redacted": {"response_body": ["hidden"]}} if {
	input.spans[0].stage == "completed"
	contains(input.spans[0].response_body, "ask: secret")
}
"#;

/// The payload of a masked frame that is a whole text.
fn text_of(frame: &[u8]) -> String {
    assert_eq!(frame[0], 0x81);
    assert_eq!(frame[1] & 0x80, 0x80);
    let mask = &frame[2..6];
    let payload = frame[6..].iter().zip(mask.iter().cycle());
    String::from_utf8(payload.map(|(byte, mask)| byte ^ mask).collect()).unwrap()
}

#[test]
fn what_is_held_goes_redacted_once_a_person_agrees() {
    let mut both = opened_under(A_WORD_FOR_ANOTHER, "");
    both.client.say(frame(0x81, b"ask: secret"));
    both.sidecar.approve(&both.sidecar.pending_approval());
    assert_eq!(text_of(&both.server.exactly(12)), "hidden");
    both.server.say(b"\x81\x0bask: secret");
    both.sidecar.approve(&both.sidecar.pending_approval());
    assert_eq!(both.client.exactly(12), b"\x81\x0a[\"hidden\"]");
    // What goes with it goes as it came.
    let plain = frame(0x81, b"nothing");
    both.client.say(&plain);
    assert_eq!(both.server.exactly(plain.len()), plain);
}

#[test]
fn what_cannot_be_replaced_is_refused_and_nothing_of_it_goes() {
    let long = [b"secret".to_vec(), b"x".repeat(100)].concat();
    for config in ["  capture_bytes_max: 50\n", "  capture_within: 200ms\n"] {
        let mut both = opened_under(A_WORD_FOR_ANOTHER, config);
        let cut = config.contains("within");
        // Over the cap, though it comes in one piece; or not all there in time.
        both.client.say(match cut {
            true => frame(0x01, &long),
            false => frame(0x81, &long),
        });
        let (code, reason) = closed(&mut both.client);
        assert_eq!(code, 1008, "{config}");
        assert!(reason.starts_with("constraint_not_applicable "), "{reason}");
        assert_eq!(both.server.rest().first(), Some(&0x88), "{config}");
        let decision = both.sidecar.recorded("the message", |line| {
            line["record"] == "decision" && line["http_method"] == "POST"
        });
        assert_eq!(decision["request_body"], "partial", "{decision}");
    }
    // Invalid text is shown otherwise than it is.
    let mut both = opened_under(A_WORD_FOR_ANOTHER, "");
    both.client.say(frame(0x81, b"secret \xff"));
    assert_eq!(closed(&mut both.client).0, 1008);
    assert_eq!(both.server.rest().first(), Some(&0x88));
}

#[test]
fn what_a_person_rejects_is_not_sent_and_both_sides_are_told() {
    let mut both = opened("");
    both.client.say(frame(0x81, b"please-require_approval"));
    let approval = both.sidecar.pending_approval();
    both.sidecar.reject(&approval, "not today");
    let (code, reason) = closed(&mut both.client);
    assert_eq!(code, 1008);
    assert!(reason.starts_with("approval_rejected "), "{reason}");
    assert!(both.client.is_ended());
    let to_server = both.server.rest();
    assert_eq!(
        to_server.len(),
        6 + 2 + "approval_rejected".len(),
        "{to_server:x?}"
    );
    assert_eq!(to_server[..2], [0x88, 0x80 | 19]);
}

#[test]
fn a_hold_ends_with_its_client_with_its_server_and_soon_after_a_close() {
    // Its client is gone.
    let mut both = opened("");
    both.client.say(frame(0x81, b"please-require_approval"));
    both.sidecar.pending_approval();
    both.client
        .socket
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    assert_eq!(both.server.rest(), b"");
    until_none_is_open(&both.sidecar);
    // Its server is.
    let mut both = opened("");
    both.client.say(frame(0x81, b"please-require_approval"));
    both.sidecar.pending_approval();
    both.server
        .socket
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    assert!(both.client.is_ended());
    until_none_is_open(&both.sidecar);
    // Its client closes, as it should, and waits for the other Close.
    let mut both = opened("");
    both.client.say(frame(0x81, b"please-require_approval"));
    both.sidecar.pending_approval();
    both.client.say(frame(0x88, b"\x03\xe8"));
    let began = Instant::now();
    let (code, reason) = closed(&mut both.client);
    assert_eq!(
        (code, reason.contains("was not sent")),
        (1008, true),
        "{reason}"
    );
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(both.server.rest().first(), Some(&0x88));
    until_none_is_open(&both.sidecar);
}

/// A connection that has ended is counted no more.
fn until_none_is_open(sidecar: &Sidecar) {
    until("the connection to be given up", || {
        (sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
}

#[test]
fn a_message_too_large_to_judge_goes_by_its_beginning_or_not_at_all() {
    let large = [
        b"x".repeat(999),
        b"please-block".to_vec(),
        b"y".repeat(50_000),
    ]
    .concat();
    // Its beginning says nothing: it goes.
    let mut both = opened("  capture_bytes_max: 1000\n");
    let sent = frame(0x81, &large);
    both.client.say(&sent);
    assert_eq!(both.server.exactly(sent.len()), sent);
    let decision = both.sidecar.recorded("the message", |line| {
        line["record"] == "decision" && line["http_method"] == "POST"
    });
    assert_eq!(decision["request_body"], "partial", "{decision}");
    // Its beginning says enough.
    let mut both = opened("  capture_bytes_max: 1000\n");
    both.client.say(frame(0x81, &large[900..]));
    assert_eq!(closed(&mut both.client).0, 1008);
    // It is refused whatever it says.
    let mut both = opened("  capture_bytes_max: 1000\n  over_cap: deny\n");
    both.client.say(frame(0x81, &large));
    assert_eq!(closed(&mut both.client).0, 1009);
    assert_eq!(both.server.rest().first(), Some(&0x88));
    // So is one whose end comes with what is too much of it.
    let mut both = opened("  capture_bytes_max: 1000\n  over_cap: deny\n");
    both.client.say(frame(0x81, &large[..1001]));
    assert_eq!(closed(&mut both.client).0, 1009);
    // What the server says is withheld, and recorded.
    let mut both = opened("  capture_bytes_max: 1000\n  over_cap: deny\n");
    both.server
        .say([&b"\x81\x7e\x03\xe9"[..], &large[..1001]].concat());
    let (code, reason) = closed(&mut both.client);
    assert_eq!(code, 1008);
    assert!(reason.starts_with("outcome_blocked "), "{reason}");
    let completed = both.sidecar.recorded("the message", |line| {
        line["record"] == "completion" && line["decision"] == "outcome_blocked"
    });
    assert_eq!(completed["response_body"], "partial", "{completed}");
}

#[test]
fn a_message_too_slow_to_judge_is_not_called_large() {
    let deny = "  capture_within: 300ms\n  over_cap: deny\n";
    let mut both = opened(deny);
    both.client.say(frame(0x01, b"slowly"));
    let (code, reason) = closed(&mut both.client);
    assert_eq!(code, 1008);
    assert!(reason.contains("capture_within"), "{reason}");
    assert_eq!(both.server.rest().first(), Some(&0x88));
    assert_eq!(both.sidecar.metric(TOO_LARGE), 0);
    let mut both = opened(deny);
    both.server.say(b"\x01\x03slo");
    let (code, reason) = closed(&mut both.client);
    assert_eq!(code, 1008);
    assert!(reason.starts_with("outcome_blocked "), "{reason}");
    let completed = both.sidecar.recorded("the message", |line| {
        line["record"] == "completion" && line["decision"] == "outcome_blocked"
    });
    let error = completed["error"].to_string();
    assert!(error.contains("capture_within"), "{completed}");
    assert_eq!(both.sidecar.metric(TOO_LARGE), 0);
}

#[test]
fn a_message_that_comes_slowly_goes_on_as_it_comes() {
    let mut both = opened("  capture_within: 300ms\n");
    let begun = frame(0x01, b"slowly");
    both.client.say(&begun);
    assert_eq!(both.server.exactly(begun.len()), begun);
    let ended = frame(0x80, b" now");
    both.client.say(&ended);
    assert_eq!(both.server.exactly(ended.len()), ended);
    // The server's too.
    both.server.say(b"\x01\x03slo");
    assert_eq!(both.client.exactly(5), b"\x01\x03slo");
    both.server.say(b"\x80\x01w");
    assert_eq!(both.client.exactly(3), b"\x80\x01w");
}

#[test]
fn what_is_no_websocket_is_closed_as_a_protocol_error() {
    for wrong in [
        frame(0xc1, b"deflated"),
        b"\x81\x05not masked".to_vec(),
        frame(0x80, b"of no message"),
        frame(0x83, b"of no kind"),
    ] {
        let mut both = opened("");
        both.client.say(&wrong);
        assert_eq!(closed(&mut both.client).0, 1002, "{wrong:x?}");
        // Nothing of it has left.
        assert_eq!(both.server.rest().first(), Some(&0x88));
    }
    let mut both = opened("");
    both.server.say(b"\x81\x81\x01\x02\x03\x04masked");
    assert_eq!(closed(&mut both.client).0, 1002);
}

#[test]
fn an_extension_that_nobody_asked_for_is_a_bad_gateway() {
    let site = Origin::saying(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n");
    let setup = Setup::new().policy(AS_THE_MESSAGE_SAYS).config(JUDGED);
    let sidecar = setup.reach(&site).start();
    let ask = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let answer = sidecar.send("GET", &site.url("/judged"), &ask, "");
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "unasked_upgrade".to_owned())
    );
}

#[test]
fn a_halt_ends_judged_websockets_with_a_word() {
    let mut both = opened("");
    both.client.say(frame(0x81, b"please-halt everything"));
    let (code, reason) = closed(&mut both.client);
    assert_eq!(code, 1008);
    assert!(reason.starts_with("halted"), "{reason}");
    // By the operator, while nothing is said.
    let mut both = opened("");
    thread::sleep(Duration::from_millis(50));
    both.sidecar
        .operator("POST", "/v1/runs/own/halt", r#"{"reason":"enough"}"#);
    let (code, reason) = closed(&mut both.client);
    assert_eq!(
        (code, reason),
        (1008, "halted: run halted: enough".to_owned())
    );
}
