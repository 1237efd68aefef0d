//! Credentials that the agent does not hold: who gets them, when they are read, and who never sees them.

use std::path::Path;

use serde_json::Value;

use crate::clients::curl;
use crate::core_mode;
use crate::grpc;
use crate::http2;
use crate::support::authority::{Authority, Dates};
use crate::support::core::Core;
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar, journal, request};
use crate::support::until;
use crate::support::wire::{HANDSHAKE, Message};
use crate::websockets;

const HUSH: &str = "hush-hush-1";

/// A configuration with these credentials, whose `FILE` has the secret.
fn credentials(setup: &Setup, lines: &[&str]) -> String {
    let file = setup.write("credential", &format!("{HUSH}\n"));
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.replace("FILE", &file))
        .collect();
    format!(
        "http:\n  hold_within: 10s\n  credentials: {}\nlog:\n  level: debug\n",
        serde_json::json!(lines)
    )
}

/// An origin in the clear behind a sidecar that adds what `lines` say.
fn world(policy: &str, lines: &[&str]) -> (Origin, Sidecar) {
    before(Origin::site(), policy, lines)
}

fn before(site: Origin, policy: &str, lines: &[&str]) -> (Origin, Sidecar) {
    let setup = Setup::new().policy(policy).reach(&site);
    let config = credentials(&setup, lines);
    (site, setup.config(&config).start())
}

/// Every value of `name` that came.
fn all<'a>(message: &'a Message, name: &str) -> Vec<&'a str> {
    let fields = message.head.fields.iter();
    fields
        .filter(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

/// The secret is in no file that the sidecar wrote, and in nothing that it says.
fn is_hushed(sidecar: &Sidecar) {
    let mut texts = vec![
        sidecar.log(),
        sidecar.health("/metrics").1,
        sidecar.operator("GET", "/v1/approvals", "").1.to_string(),
        sidecar.operator("GET", "/v1/runs", "").1.to_string(),
    ];
    for entry in std::fs::read_dir(&sidecar.state).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        texts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    assert!(texts.len() > 6, "{}", texts.len());
    for text in texts {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn curl_is_given_what_it_does_not_hold_in_place_of_what_it_sends() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let setup = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .reach(&site)
        .trust(&authority);
    let lines = [
        "secure.test/key/* file=FILE header=X-Api-Key",
        "*.test file=FILE",
    ];
    let config = credentials(&setup, &lines);
    let sidecar = setup.config(&config).start();
    let proxy = format!("http://{}", sidecar.http);
    let ca = sidecar.ca().display().to_string();
    for path in ["/a", "/key/b"] {
        let url = site.url(path);
        let ended = curl(&[
            "--http1.1",
            "--proxy",
            &proxy,
            "--cacert",
            &ca,
            "-H",
            "Authorization: Bearer mine",
            "-H",
            "AUTHORIZATION: Basic mine",
            &url,
        ]);
        assert_eq!(ended.out, format!("hello from {path}"), "{}", ended.err);
    }
    let heard = site.heard();
    assert_eq!(all(&heard[0], "authorization"), ["Bearer hush-hush-1"]);
    assert_eq!(all(&heard[0], "x-api-key"), [""; 0]);
    // One line fits a request; what it does not name stays as it came.
    assert_eq!(all(&heard[1], "x-api-key"), ["hush-hush-1"]);
    assert_eq!(
        all(&heard[1], "authorization"),
        ["Bearer mine", "Basic mine"]
    );
    is_hushed(&sidecar);
}

#[test]
fn curl_is_given_it_over_http_2_and_so_is_what_is_sent_again() {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    let config = credentials(&setup, &["secure.test file=FILE prefix=\"token \""]);
    let world = http2::World::secure_with(setup.config(&config));
    let proxy = format!("http://{}", world.sidecar.http);
    let ca = world.sidecar.ca().display().to_string();
    let say = |path: &str| {
        let url = format!("{}{path}", world.url);
        let mine = "authorization: Bearer mine";
        curl(&[
            "--http2", "--proxy", &proxy, "--cacert", &ca, "-H", mine, &url,
        ])
    };
    assert_eq!(say("/hello").out, "hello from /hello");
    assert_eq!(say("/refused").out, "served at time 2");
    let came = |path: &str| -> Vec<Value> {
        let told = world.told(path).into_iter();
        told.map(|line| line["authorization"].clone()).collect()
    };
    assert_eq!(came("/hello"), ["token hush-hush-1"]);
    assert_eq!(came("/refused"), ["token hush-hush-1"; 2]);
    is_hushed(&world.sidecar);
}

#[test]
fn a_handshake_of_pythons_websockets_is_given_it() {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    let config = credentials(&setup, &["origin.test/opaque file=FILE plain"]);
    let setup = setup.config(&config);
    let (program, script) = websockets::python();
    let serving = websockets::Server::start(&setup, &program, &script, None);
    let setup = serving.reached_by(setup);
    let program = program.display().to_string();
    let url = serving.url("/opaque");
    let mut command = setup.run_command(&[&program, &script, "check", "opaque", &url]);
    let ended = process::run(&mut command);
    assert_eq!(ended.status.code(), Some(0), "{}\n{}", ended.out, ended.err);
    let said = serving.running.out();
    assert!(said.lines().count() > 20, "{said}");
    for line in said.lines() {
        assert!(line.ends_with(" as Bearer hush-hush-1"), "{line}");
    }
    let journal = format!("{:?}", journal(&setup.state()));
    assert!(!journal.contains("hush") && !ended.err.contains("hush"));
}

#[test]
fn calls_of_grpc_are_given_it_as_metadata() {
    let setup = Setup::new();
    let config = credentials(&setup, &["secure.test/calls/* file=FILE"]);
    let world = grpc::World::with(setup.config(&config));
    world.found("allowed");
    assert_eq!(world.reached("as Bearer hush-hush-1"), 7);
}

#[test]
fn only_its_place_gets_it_and_only_where_nobody_can_listen() {
    let lines = [
        "origin.test/plain* file=FILE plain",
        "origin.test/secure* file=FILE",
        "*.origin.test file=FILE plain",
    ];
    let (site, sidecar) = world(AS_THE_PATH_SAYS, &lines);
    let mine = [("authorization", "Bearer mine")];
    let mut wrong = Vec::new();
    for (method, path, came) in [
        ("GET", "/plain", "Bearer hush-hush-1"),
        // However it is written.
        ("GET", "/pl%61in/y", "Bearer hush-hush-1"),
        // But where its origin may read another path.
        ("GET", "/x/../plain/y", "Bearer mine"),
        ("GET", "/x;/../plain/y", "Bearer mine"),
        ("GET", "/plain/;/../y", "Bearer mine"),
        ("GET", "/secure", "Bearer mine"),
        ("GET", "/other", "Bearer mine"),
        // Its answer would say it.
        ("TRACE", "/plain", "Bearer mine"),
    ] {
        let answer = sidecar.send(method, &site.url(path), &mine, "");
        assert_eq!(answer.status(), 200);
        let heard = site.heard();
        let found = all(heard.last().unwrap(), "authorization");
        if found != [came] {
            wrong.push(format!("{method} {path}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_refused_request_is_given_nothing_and_a_held_one_what_there_is_afterwards() {
    let (site, sidecar) = world(AS_THE_PATH_SAYS, &["* file=FILE plain"]);
    let refused = sidecar.get(&site.url("/started/block"));
    assert_eq!(refused.code(), "blocked");
    assert_eq!(site.connections(), 0);
    let url = site.url("/started/require_approval");
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sidecar.get(&url));
        let approval = sidecar.pending_approval();
        is_hushed(&sidecar);
        sidecar.setup.write("credential", "hush-hush-2");
        sidecar.approve(&approval);
        waiting.join().unwrap()
    });
    assert_eq!(answer.status(), 200);
    let heard = site.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(all(&heard[0], "authorization"), ["Bearer hush-hush-2"]);
    // And another file in its place, as Kubernetes has it.
    let other = sidecar.setup.write("other", "hush-hush-3");
    std::fs::rename(other, sidecar.setup.folder().join("credential")).unwrap();
    sidecar.get(&site.url("/x"));
    assert_eq!(
        all(&site.heard()[1], "authorization"),
        ["Bearer hush-hush-3"]
    );
    is_hushed(&sidecar);
}

#[test]
fn without_a_file_that_can_be_used_the_request_is_not_sent() {
    let (site, sidecar) = world(AS_THE_PATH_SAYS, &["origin.test/x* file=FILE plain"]);
    let file = sidecar.setup.folder().join("credential");
    let told = file.display().to_string();
    let refused = |path: &str, why: &str| {
        let answer = sidecar.get(&site.url(path));
        assert_eq!(
            (answer.status(), answer.code()),
            (503, "credential_unavailable".to_owned())
        );
        assert!(!answer.text().contains(&told), "{}", answer.text());
        let completion = sidecar.record_of(path, "completed");
        assert_eq!(completion["outcome"], "failed");
        until("the line of the log", || {
            let log = sidecar.log();
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut of_file =
                lines.filter(|line| line["level"] == "ERROR" && line["file"] == *told);
            of_file.find(|line| line["message"].as_str().unwrap().contains(why))
        });
        assert_eq!(site.connections(), 0);
    };
    for (number, (text, why)) in [
        ("", "it is empty"),
        ("hush\nhush", "it has more than one line"),
        (&*"hush".repeat(5_000), "it is longer than 16384 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&file, text).unwrap();
        refused(&format!("/x/{number}"), why);
    }
    std::fs::remove_file(&file).unwrap();
    refused("/x/gone", "No such file");
    // Nobody writes to a pipe: it is not waited for.
    pipe(&file);
    refused("/x/pipe", "it is no file");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(sidecar.get(&site.url("/else")).status(), 200);
    std::fs::write(&file, HUSH).unwrap();
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
    is_hushed(&sidecar);
}

fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

/// An answer in which it can be read is refused.
const HUSHED: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK", "reason": "the test says seen"} if {
	input.spans[0].stage == "completed"
	contains(json.marshal(input), "hush")
}
"#;

#[test]
fn policy_does_not_see_it_in_an_answer_that_says_it_again() {
    let site = Origin::raw(|mut wire, shared| {
        while let Some(request) = wire.request() {
            shared.log(&request);
            let secret = request.get("authorization").unwrap_or_default();
            let kind = match request.head.path() {
                "/events" | "/judged" => "text/event-stream",
                _ => "application/json",
            };
            let body = format!("data: {secret}\n\ndata: again {secret}\n\n");
            wire.say(format!(
                "HTTP/1.1 200 OK\r\nx-echo: {secret}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    });
    let setup = Setup::new().policy(HUSHED).reach(&site);
    let config = credentials(&setup, &["* file=FILE plain"]);
    let config = config.replacen("http:\n", "http:\n  judge_each: [\"*/judged\"]\n", 1);
    let sidecar = setup.config(&config).start();
    let mut seen = Vec::new();
    for path in ["/whole", "/events", "/judged"] {
        let answer = sidecar.get(&site.url(path));
        let record = sidecar.record_of(path, "completed");
        // To the agent it is said as the origin says it.
        let said = answer.text().matches(HUSH).count();
        if (answer.status(), said) != (200, 2) || record["decision"] == "outcome_blocked" {
            seen.push(format!("{path}: {} {record}", answer.text()));
        }
    }
    assert!(seen.is_empty(), "{seen:?}");
    is_hushed(&sidecar);
}

#[test]
fn policy_does_not_see_it_in_a_message_or_handshake_that_says_it_again() {
    let site = Origin::raw(|mut wire, shared| {
        let Some(request) = wire.request() else {
            return;
        };
        shared.log(&request);
        let secret = request.get("authorization").unwrap_or_default().to_owned();
        wire.say(format!("HTTP/1.1 101 Switching Protocols\r\nx-echo: {secret}\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
        let length = u8::try_from(secret.len()).unwrap();
        wire.say([&[0x81, length], secret.as_bytes()].concat());
        wire.rest();
    });
    let setup = Setup::new().policy(HUSHED).reach(&site);
    let config = credentials(&setup, &["* file=FILE plain"]);
    let config = config.replacen("http:\n", "http:\n  judge_each: [\"*/judged\"]\n", 1);
    let sidecar = setup.config(&config).start();
    let mut client = sidecar.wire();
    client.say(request("GET", &site.url("/judged"), &HANDSHAKE, ""));
    assert_eq!(client.answer().status(), 101);
    assert_eq!(client.exactly(20), b"\x81\x12Bearer hush-hush-1");
    drop(client);
    let completed = until("message and handshake to be judged", || {
        let journal = sidecar.journal().into_iter();
        let all: Vec<_> = journal
            .filter(|line| line["stage"] == "completed")
            .collect();
        (all.len() == 2).then_some(all)
    });
    for record in completed {
        assert_eq!(record["verdict"], "allow", "{record}");
    }
    is_hushed(&sidecar);
}

#[test]
fn core_is_not_told_it() {
    let (core, site) = (Core::start(), Origin::site());
    let setup = core_mode::setup(&core.url(), "closed", &site);
    let config = credentials(&setup, &["* file=FILE plain"]);
    let sidecar = setup.config(&config).start();
    let answer = sidecar.get(&site.url("/echo"));
    assert!(answer.text().contains(HUSH), "{}", answer.text());
    let told = format!("{:?}", core.asked("evaluate"));
    assert!(told.contains("Bearer [REDACTED]"), "{told}");
    assert!(!told.contains("hush"), "{told}");
    is_hushed(&sidecar);
}
