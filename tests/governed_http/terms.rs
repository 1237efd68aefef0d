//! Bodies that never fall silent and never end: over at `http.body_within`, in both directions and both versions.

use std::time::Duration;

use tokio::time::Instant;

use crate::clients::curl;
use crate::support::authority::{Authority, Dates};
use crate::support::origin::{Origin, Shared};
use crate::support::policies::ALLOW;
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::until;
use crate::support::wire::Wire;

const CONFIG: &str = "http:
  body_within: 3s
  capture_within: 100ms
  judge_each: [\"*/judged\"]
  routes: [\"*/unbounded body_within=0s\", \"*/longer body_within=1h\"]
";

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";

/// Drips for ever, or for four seconds where the path says so; `/taken` takes the body, and `/flood` says as much as is
/// taken.
fn origin(mut wire: Wire, shared: &Shared) {
    while let Some(head) = wire.head() {
        if head.path().starts_with("/taken") {
            let Some(taken) = wire.body(&head, false) else {
                return;
            };
            shared.log(&taken);
            wire.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        let kind = match head.path() {
            "/judged" => "content-type: text/event-stream",
            "/binary" | "/flood" => "content-type: image/png",
            _ => "content-type: text/plain",
        };
        wire.say(format!("{HEAD}{kind}\r\n\r\n"));
        let ends = ["/unbounded", "/longer"].contains(&head.path());
        let (chunk, pause) = match head.path() {
            "/flood" => (format!("10000\r\n{}\r\n", "x".repeat(65_536)), 0),
            _ => ("9\r\ndata: x\n\n\r\n".to_owned(), 100),
        };
        for at in 0_usize.. {
            if ends && at == 40 {
                wire.say("0\r\n\r\n");
                break;
            }
            if wire.try_say(&chunk).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
    }
}

fn world() -> (Origin, Origin, Sidecar) {
    let authority = Authority::new();
    let plain = Origin::raw(origin);
    let secure = Origin::raw_tls(authority.server("secure.test", Dates::Current), origin);
    let setup = Setup::new().policy(ALLOW).reach(&plain).reach(&secure);
    let sidecar = setup.trust(&authority).config(CONFIG).start();
    (plain, secure, sidecar)
}

fn failed(sidecar: &Sidecar, url: &str) {
    let completed = sidecar.recorded("the completion", |line| {
        line["stage"] == "completed" && line["http_url"] == url && line["outcome"] == "failed"
    });
    let error = completed["error"].as_str().unwrap();
    assert!(error.contains("http.body_within"), "{url}: {error}");
}

#[test]
fn an_answer_that_drips_breaks_off_at_its_term() {
    let (plain, _, sidecar) = world();
    for path in ["/text", "/binary", "/judged"] {
        let mut wire = sidecar.wire();
        let begun = Instant::now();
        wire.say(request("GET", &plain.url(path), &[], ""));
        let head = wire.head().unwrap();
        assert_eq!(head.status(), 200, "{path}");
        let mut chunks = 0;
        while chunks < 50 && wire.chunk().is_some() {
            chunks += 1;
        }
        assert!(chunks < 50, "{path}");
        // Not before its term.
        assert!(begun.elapsed() >= Duration::from_millis(2_900), "{path}");
        failed(&sidecar, &plain.url(path));
    }
}

#[test]
fn a_route_says_otherwise() {
    let (plain, _, sidecar) = world();
    for path in ["/unbounded", "/longer"] {
        let answer = sidecar.get(&plain.url(path));
        assert_eq!(answer.body.len(), 40 * 9, "{path}");
    }
}

#[test]
fn a_request_that_drips_is_answered_408_and_one_that_ends_in_time_is_not() {
    let (plain, _, sidecar) = world();
    for (kind, path) in [("image/png", "/taken"), ("text/plain", "/taken?text")] {
        let fields = [("content-type", kind), ("transfer-encoding", "chunked")];
        let mut wire = sidecar.wire();
        wire.say(request("POST", &plain.url(path), &fields, ""));
        let mut said = 0;
        while said < 100 && wire.try_say("1\r\nx\r\n").is_ok() {
            said += 1;
            std::thread::sleep(Duration::from_millis(100));
            if said == 40 {
                break;
            }
        }
        let answer = wire.try_answer_to("POST");
        let answer = answer.unwrap_or_else(|| panic!("no answer: {}", sidecar.log()));
        assert_eq!((answer.status(), &*answer.code()), (408, "body_too_slow"));
        assert_eq!(answer.get("connection"), Some("close"));
        failed(&sidecar, &plain.url(path));
    }
    assert_eq!(plain.times("/taken"), 0);

    let fields = [
        ("content-type", "image/png"),
        ("transfer-encoding", "chunked"),
    ];
    let mut wire = sidecar.wire();
    wire.say(request("POST", &plain.url("/taken"), &fields, ""));
    for _ in 0..3 {
        wire.say("1\r\nx\r\n");
        std::thread::sleep(Duration::from_millis(100));
    }
    wire.say("0\r\n\r\n");
    assert_eq!(wire.answer_to("POST").status(), 200);
}

#[test]
fn over_http2_it_is_the_same() {
    let (_, secure, sidecar) = world();
    let (url, proxy) = (secure.url("/binary"), format!("http://{}", sidecar.http));
    let ca = sidecar.ca().display().to_string();
    let version = "%{http_version} %{http_code}";
    let ended = curl(&[
        "--http2",
        "--proxy",
        &proxy,
        "--cacert",
        &ca,
        "--output",
        "/dev/null",
        "--write-out",
        version,
        &url,
    ]);
    assert_ne!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.out, "2 200", "{ended:?}");
    failed(&sidecar, &url);

    let world = super::http2::World::secure_with(Setup::new().policy(ALLOW).config(CONFIG));
    assert_eq!(world.found("drips"), ["408 body_too_slow", "after 200"]);
    failed(&world.sidecar, &format!("{}/echo", world.url));
}

#[test]
fn a_client_that_takes_nothing_is_let_go_at_the_term_of_its_answer() {
    let (plain, _, sidecar) = world();
    for tunnel in [false, true] {
        let mut wire = match tunnel {
            true => sidecar.tunnel(&plain),
            false => sidecar.wire(),
        };
        let head = request("GET", &plain.url("/flood"), &[], "");
        wire.say(match tunnel {
            true => head.replacen(&plain.url(""), "", 1),
            false => head,
        });
        assert_eq!(wire.head().unwrap().status(), 200);
        until("the connection to be gone", || {
            (sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
    }
}

#[test]
fn a_client_of_http2_that_takes_nothing_is_let_go_too() {
    for case in ["takes_nothing", "reads_nothing"] {
        let world = super::http2::World::secure_with(
            Setup::new()
                .policy(ALLOW)
                .config("http:\n  body_within: 1s\n"),
        );
        let client = process::Running::start(&mut world.client(case));
        until("the connection to be gone", || {
            let completed = world
                .sidecar
                .journal()
                .into_iter()
                .any(|line| line["stage"] == "completed" && line["outcome"] != "answered");
            let open = world.sidecar.metric("openbox_connections_open");
            (completed && open == 0).then_some(())
        });
        drop(client);
    }
}
