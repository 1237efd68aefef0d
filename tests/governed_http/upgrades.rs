//! Upgrades: WebSocket is relayed once the origin agreed, nothing else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clients::curl;
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::Wire;

const ASK: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Agrees to every upgrade, speaks first, then says back what it hears.
fn echo() -> Origin {
    Origin::raw(|mut wire, shared| {
        let Some(request) = wire.request() else {
            return;
        };
        shared.log(&request);
        drop(wire.try_say("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome"));
        loop {
            let heard = wire.exactly(4);
            if heard.is_empty() || wire.try_say(heard).is_err() {
                return;
            }
        }
    })
}

fn upgraded(sidecar: &Sidecar, site: &Origin, path: &str) -> Wire {
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url(path), &ASK, ""));
    let answer = wire.answer();
    assert_eq!(answer.status(), 101, "{}", answer.text());
    assert_eq!(answer.get("upgrade"), Some("websocket"));
    assert_eq!(wire.exactly(7), b"welcome");
    wire
}

fn before(site: &Origin) -> Sidecar {
    Setup::new().policy(AS_THE_PATH_SAYS).reach(site).start()
}

#[test]
fn bytes_pass_both_ways_after_the_origins_101() {
    let site = echo();
    let sidecar = before(&site);
    let mut wire = upgraded(&sidecar, &site, "/ws");
    for round in [b"\x00\x01\x02\x03", b"\xff\xfe\xfd\xfc", b"text"] {
        wire.say(round);
        assert_eq!(wire.exactly(4), round);
    }
    let heard = site.heard();
    assert_eq!(heard[0].head.get("upgrade"), Some("websocket"));
    assert_eq!(
        heard[0].head.get("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    wire.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(wire.is_ended());
    let completed = sidecar.record_of("/ws", "completed");
    assert_eq!(
        (&completed["outcome"], &completed["http_status_code"]),
        (&"answered".into(), &101.into())
    );
    assert!(sidecar.metric("openbox_passage_bytes_total{passage=\"websocket\"}") > 0);
}

#[test]
fn a_halt_closes_an_open_websocket() {
    let site = echo();
    let sidecar = before(&site);
    let mut wire = upgraded(&sidecar, &site, "/ws");
    let (status, _) = sidecar.operator("POST", "/v1/runs/own/halt", r#"{"reason":"enough"}"#);
    assert_eq!(status, 200);
    assert!(wire.is_ended());
    let completed = sidecar.record_of("/ws", "completed");
    assert_eq!(completed["outcome"], "failed");
}

#[test]
fn a_blocked_handshake_never_reaches_the_origin() {
    let site = echo();
    let sidecar = before(&site);
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/started/block"), &ASK, ""));
    assert_eq!(wire.answer().code(), "blocked");
    assert_eq!(site.connections(), 0);
}

#[test]
fn an_origin_that_declines_is_an_ordinary_answer() {
    let site = Origin::site();
    let sidecar = before(&site);
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/x"), &ASK, ""));
    assert_eq!(wire.answer().text(), "hello from /x");
    wire.say(request("GET", &site.url("/y"), &[], ""));
    assert_eq!(wire.answer().text(), "hello from /y");
}

#[test]
fn h2c_is_not_offered_to_the_origin() {
    let offered = Arc::new(AtomicBool::new(false));
    let seen = offered.clone();
    let site = Origin::raw(move |mut wire, _| {
        while let Some(request) = wire.request() {
            let any = ["upgrade", "http2-settings"]
                .iter()
                .any(|name| request.get(name).is_some());
            seen.fetch_or(any, Ordering::Relaxed);
            drop(wire.try_say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
        }
    });
    let sidecar = before(&site);
    let fields = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ];
    assert_eq!(
        sidecar.send("GET", &site.url("/x"), &fields, "").text(),
        "ok"
    );
    assert!(!offered.load(Ordering::Relaxed));
    // With prior knowledge: the preface is no HTTP/1 request.
    let mut wire = sidecar.wire();
    wire.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let answer = wire.answer();
    assert!((400..600).contains(&answer.status()), "{:?}", answer.head);
}

/// What curl and Java's own client do by default in the clear: they offer HTTP/2 beside a request that is whole.
#[test]
fn a_body_beside_an_offer_of_h2c_goes_on_as_http_1() {
    let site = Origin::site();
    let sidecar = before(&site);
    let proxy = format!("http://{}", sidecar.http);
    for (path, expected) in [("/x", 200), ("/started/block", 403)] {
        let url = site.url(path);
        let words = ["--http2", "--data", "said", "--write-out", " %{http_code}"];
        let asked = curl(&[&words[..], &["--proxy", &proxy, &url]].concat());
        assert!(asked.out.ends_with(&format!(" {expected}")), "{asked:?}");
    }
    let heard = site.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].body, b"said");
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(heard[0].head.get(name), None, "{:?}", heard[0].head);
    }
}
