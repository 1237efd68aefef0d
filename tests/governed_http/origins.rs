//! Origins that misbehave: the agent gets an answer that says so, or the end of
//! its connection; never a whole answer that was not one.

use std::io::Write;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::origin::{Origin, Shared, pattern};
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::{Head, Message, Wire};
use crate::support::{free_port, until};

fn before(site: &Origin, config: &str) -> Sidecar {
    let setup = Setup::new().policy(ALLOW).reach(site);
    setup.config(config).start()
}

#[test]
fn an_origin_that_gives_no_whole_head_is_a_bad_gateway() {
    #[rustfmt::skip]
    let rows: [(&str, &'static [u8]); 10] = [
        ("nothing",             b""),
        ("half a status line",  b"HTTP/1.1 20"),
        ("half a head",         b"HTTP/1.1 200 OK\r\ncontent-ty"),
        ("garbage",             b"\x00\x01\x02 not http at all\r\n\r\n"),
        ("another protocol",    b"220 mail.test ESMTP\r\n"),
        ("two lengths",         b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
        ("no number",           b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab"),
        ("bad status",          b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n"),
        ("NUL in a field",      b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n"),
        ("unasked upgrade",     b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
    ];
    for (name, bytes) in rows {
        let site = Origin::saying(bytes);
        let sidecar = before(&site, "");
        let answer = sidecar.get(&site.url("/x"));
        assert_eq!(answer.status(), 502, "{name}: {}", answer.text());
        assert_eq!(answer.get("openbox-verdict"), Some("error"), "{name}");
        assert_eq!(
            answer.get("content-type"),
            Some("application/problem+json"),
            "{name}"
        );
        let completed = sidecar.record_of("/x", "completed");
        assert_eq!(completed["outcome"], "failed", "{name}");
        assert!(completed["error"].is_string(), "{name}");
        assert_eq!(site.times("/x"), 1, "{name}: a request is not sent twice");
    }
}

/// Answers once, and closes its first connection when it is asked again over it: that it waited
/// long enough, the client cannot know. Names are heard as they are spelled.
fn impatient() -> Origin {
    Origin::raw(|mut wire, shared| {
        let is_first = shared.connections() == 1;
        while let Some(first) = wire.line() {
            let lines = std::iter::from_fn(|| wire.line().filter(|line| !line.is_empty()));
            let field = |line: String| line.split_once(": ").map(|(n, v)| (n.into(), v.into()));
            let fields = lines.filter_map(field).collect();
            let is_the_end = is_first && !first.contains("/first");
            shared.log(&Message {
                head: Head { first, fields },
                body: Vec::new(),
                trailers: Vec::new(),
            });
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if is_the_end || wire.try_say(answer).is_err() {
                return;
            }
        }
    })
}

/// What is answered over a connection that was idle, and how often the origin is asked.
fn asked_after_a_rest(method: &str) -> (u16, usize) {
    let site = impatient();
    let sidecar = before(&site, "");
    // Over one connection, and so over one of the origin's.
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/first"), &[], ""));
    assert_eq!(wire.answer().status(), 200);
    // From half a second on an origin may have given up waiting.
    std::thread::sleep(Duration::from_millis(700));
    let odd = ("X-Odd-CASE", "1");
    wire.say(request(method, &site.url("/again"), &[odd], ""));
    let answer = wire.answer_to(method);
    let outcome = match answer.status() {
        200 => "answered",
        _ => "failed",
    };
    assert_eq!(sidecar.record_of("/again", "completed")["outcome"], outcome);
    let journal = sidecar.journal();
    let of = |stage: &str| journal.iter().filter(|line| line["stage"] == stage).count();
    assert_eq!((of("started"), of("completed")), (2, 2), "{journal:#?}");
    let asked = site.heard();
    let again = asked.iter().filter(|m| m.head.path() == "/again");
    let is_spelled = |m: &Message| m.head.fields.iter().any(|(name, _)| name == odd.0);
    assert!(again.clone().all(is_spelled), "{asked:?}");
    (answer.status(), again.count())
}

#[test]
fn what_is_safe_is_asked_again_where_its_connection_had_been_given_up() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(asked_after_a_rest(method), (200, 2), "{method}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(asked_after_a_rest(method), (502, 1), "{method}");
    }
}

#[test]
fn a_body_that_is_cut_short_is_never_handed_out_as_whole() {
    #[rustfmt::skip]
    let rows: [(&str, &'static [u8]); 6] = [
        ("text, withheld",      b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nonly this"),
        ("text, chunked",       b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("binary, streamed",    b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100\r\n\r\nonly this"),
        ("binary, chunked",     b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("bad chunk size",      b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
        ("mid event stream",    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n"),
    ];
    for (name, bytes) in rows {
        let site = Origin::saying(bytes);
        let sidecar = before(&site, "");
        let mut wire = sidecar.wire();
        wire.say(request("GET", &site.url("/x"), &[], ""));
        match wire.try_answer_to("GET") {
            None => {}
            Some(answer) => assert_eq!(answer.status(), 502, "{name}: {}", answer.text()),
        }
        let completed = sidecar.record_of("/x", "completed");
        assert_ne!(completed["outcome"], "answered", "{name}: {completed}");
    }
}

#[test]
fn bytes_behind_the_announced_length_are_not_the_next_answer() {
    let site = Origin::raw(|mut wire, shared| {
        while let Some(request) = wire.request() {
            shared.log(&request);
            let body = "real\r\n";
            let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";
            drop(wire.try_say(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}{smuggled}",
                body.len()
            )));
        }
    });
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    for n in 0..5 {
        wire.say(request("GET", &site.url(&format!("/{n}")), &[], ""));
        assert_eq!(wire.answer().text(), "real\r\n", "{n}");
    }
    assert_eq!(site.heard().len(), 5);
}

#[test]
fn an_origin_that_never_answers_is_a_gateway_timeout() {
    let site = Origin::raw(|mut wire, shared| {
        if let Some(request) = wire.request() {
            shared.log(&request);
            drop(wire.rest());
        }
    });
    let sidecar = before(&site, "http:\n  answer_within: 300ms\n");
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!(
        (answer.status(), answer.code()),
        (504, "upstream_timeout".to_owned())
    );
    assert_eq!(sidecar.record_of("/x", "completed")["outcome"], "failed");
    // It has accepted, and may not have read before its time was over.
    until("the origin to have heard it", || {
        (site.times("/x") > 0).then_some(())
    });
    assert_eq!(site.times("/x"), 1);
}

/// Fails as the path says.
fn failing(mut wire: Wire, shared: &Shared) {
    while let Some(request) = wire.request() {
        shared.log(&request);
        match request.head.path() {
            "/upstream_broke_off/at_once" => return,
            "/upstream_broke_off/within" => {
                wire.say("HTTP/1.1 201 Made\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nmade");
                return;
            }
            "/unasked_upgrade" => {
                wire.say("HTTP/1.1 101 So\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            }
            _ => drop(wire.rest()),
        }
    }
}

#[test]
fn what_may_have_been_done_may_be_sent_again_only_where_that_does_no_more() {
    let site = Origin::raw(failing);
    let routes = "http:\n  routes: [\"*/upstream_timeout answer_within=300ms\"]\n";
    let sidecar = before(&site, routes);
    #[rustfmt::skip]
    let failures = [
        ("/upstream_broke_off/at_once", serde_json::Value::Null),
        ("/upstream_broke_off/within",  201.into()),
        ("/upstream_timeout",           serde_json::Value::Null),
        ("/unasked_upgrade",            101.into()),
    ];
    let methods = ["GET", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"];
    for (path, status) in failures {
        for method in methods {
            let row = format!("{method} {path}");
            let answer = sidecar.send(method, &site.url(path), &[], "");
            assert!([502, 504].contains(&answer.status()), "{row}");
            assert!(path[1..].starts_with(&answer.code()), "{row}");
            let again = !["POST", "PATCH"].contains(&method);
            assert_eq!(answer.json()["retryable"], again, "{row}");
            assert_eq!(answer.get("retry-after"), None, "{row}");
            let completed = sidecar.recorded(&row, |line| {
                line["record"] == "completion"
                    && line["http_method"] == method
                    && line["http_url"] == site.url(path)
            });
            assert_eq!(completed["outcome"], "failed", "{row}");
            assert_eq!(completed["http_status_code"], status, "{row}");
        }
    }
    // Nothing of it has left.
    let nowhere = format!("http://127.0.0.1:{}/", free_port());
    let answer = sidecar.send("POST", &nowhere, &[], "");
    assert_eq!(answer.code(), "upstream_unreachable");
    assert_eq!(answer.json()["retryable"], true);
}

#[test]
fn a_body_that_stalls_ends_the_connection() {
    let site = Origin::raw(|mut wire, _| {
        drop(wire.request());
        drop(wire.try_say(
            "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100\r\n\r\nstall",
        ));
        drop(wire.rest());
    });
    let sidecar = before(&site, "http:\n  idle_within: 500ms\n");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/x"), &[], ""));
    assert_eq!(wire.head().unwrap().status(), 200);
    assert_eq!(wire.rest(), b"stall");
    assert_ne!(sidecar.record_of("/x", "completed")["outcome"], "answered");
}

#[test]
fn a_slow_trickle_arrives_whole() {
    let site =
        Origin::raw(|mut wire, _| {
            drop(wire.request());
            drop(wire.try_say(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\n",
            ));
            for byte in b"one at a tim" {
                drop(wire.stream.write_all(&[*byte]));
                drop(wire.stream.flush());
                // Slower than the time a body is waited for.
                std::thread::sleep(Duration::from_millis(40));
            }
        });
    let sidecar = before(&site, "http:\n  capture_within: 200ms\n");
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!(answer.text(), "one at a tim");
    let completed = sidecar.record_of("/x", "completed");
    assert_eq!(
        (&completed["outcome"], &completed["http_status_code"]),
        (&"answered".into(), &200.into())
    );
}

#[test]
fn informational_answers_before_the_final_one_are_not_it() {
    let site = Origin::saying(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal",
    );
    let sidecar = before(&site, "");
    let answer = sidecar.get(&site.url("/x"));
    assert_eq!((answer.status(), answer.text()), (200, "final".to_owned()));
}

#[test]
fn an_answer_before_the_body_was_sent_reaches_the_client() {
    for keeps in [true, false] {
        let site = Origin::raw(move |mut wire, shared| {
            let Some(head) = wire.head() else { return };
            drop(wire.try_say(
                "HTTP/1.1 413 Too Large\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\ntoo big",
            ));
            if keeps {
                if let Some(request) = wire.body(&head, false) {
                    shared.log(&request);
                }
                drop(wire.rest());
            } else {
                drop(wire.socket.shutdown(std::net::Shutdown::Write));
                drop(wire.rest());
            }
        });
        let sidecar = before(&site, "");
        let mut wire = sidecar.wire();
        let length = 8 << 20;
        let url = site.url("/x");
        let head = format!(
            "POST {url} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n",
            site.authority()
        );
        wire.say(head);
        // Begins, and sees the answer before it has said everything; it may be there already.
        drop(wire.try_say(pattern(100_000)));
        let answer = wire.answer();
        assert_eq!(
            (answer.status(), answer.text()),
            (413, "too big".to_owned()),
            "keeps: {keeps}"
        );
        drop(wire);
        until("the connection to be gone", || {
            (sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
    }
}

#[test]
fn an_idle_connection_that_the_origin_closed_is_not_the_agents_problem() {
    // Answers one request on each connection, and closes without saying so.
    let site = Origin::raw(|mut wire, shared| {
        if let Some(request) = wire.request() {
            shared.log(&request);
            drop(wire.try_say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
            drop(wire);
            shared.acknowledge(request.head.path());
        }
    });
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    for n in 0..10 {
        wire.say(request("GET", &site.url(&format!("/{n}")), &[], ""));
        let answer = wire.answer();
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "ok".to_owned()),
            "{n}"
        );
        assert_eq!(site.times(&format!("/{n}")), 1, "sent once");
        // Closed while it is idle. One that closes while the next request is on
        // its way may have had it: that is a 502, for it is not sent twice.
        site.wait_for(&format!("/{n}"));
    }
}

#[test]
fn an_origin_that_is_not_there_is_a_bad_gateway() {
    let site = Origin::site();
    let port = free_port();
    // A machine without a name server takes its time to say that there is no such name.
    let sidecar = Setup::new()
        .policy(ALLOW)
        .reach(&site)
        .config("upstream:\n  resolve_within: 15s\n")
        .flag("--resolve", &format!("gone.test:{port}=127.0.0.1"))
        .start();
    let answer = sidecar.get(&format!("http://gone.test:{port}/x"));
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "upstream_unreachable".to_owned())
    );
    let answer = sidecar.get("http://no-such-host.invalid/x");
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "host_not_found".to_owned())
    );
}

#[test]
fn connections_are_kept_on_both_sides() {
    let site = Origin::site();
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    for n in 0..20 {
        wire.say(request("GET", &site.url(&format!("/{n}")), &[], ""));
        assert_eq!(wire.answer().text(), format!("hello from /{n}"));
    }
    assert_eq!(site.connections(), 1);
    // Pipelined requests are answered in order.
    let many: String = (0..5)
        .map(|n| request("GET", &site.url(&format!("/p{n}")), &[], ""))
        .collect();
    wire.say(many);
    for n in 0..5 {
        assert_eq!(wire.answer().text(), format!("hello from /p{n}"));
    }
}

#[test]
fn chunks_and_trailers_pass_in_both_directions() {
    let site = Origin::site();
    let sidecar = before(&site, "");
    let mut wire = sidecar.wire();
    wire.say(request(
        "GET",
        &site.url("/chunked"),
        &[("te", "trailers")],
        "",
    ));
    let answer = wire.answer();
    assert_eq!(answer.text(), "firstsecond");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "11".to_owned())]);
    let fields = [
        ("transfer-encoding", "chunked"),
        ("content-type", "text/plain"),
        ("trailer", "x-end"),
    ];
    let body = "4\r\nhalf\r\n5\r\n more\r\n0\r\nx-end: yes\r\n\r\n";
    wire.say(request("POST", &site.url("/echo"), &fields, body));
    let echoed = wire.answer().json();
    assert_eq!(echoed["text"], "half more");
    assert_eq!(echoed["trailers"], serde_json::json!([["x-end", "yes"]]));
}

#[test]
fn what_belongs_to_the_hop_and_to_us_stays_here() {
    let site = Origin::site();
    let sidecar = before(&site, "");
    let token = super::basic("ctx", &sidecar.agent_token);
    let fields = [
        ("proxy-authorization", token.as_str()),
        ("proxy-connection", "keep-alive"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("x-openbox-workflow-id", "w"),
        ("x-openbox-run-id", "r"),
        ("x-openbox-activity-id", "a"),
        ("x-kept", "1"),
    ];
    let answer = sidecar.send("GET", &site.url("/x"), &fields, "");
    assert_eq!(answer.status(), 200);
    let heard = site.heard();
    let names: Vec<_> = heard[0]
        .head
        .fields
        .iter()
        .map(|(n, _)| n.as_str())
        .collect();
    for (name, _) in &fields {
        let stays = *name == "x-kept";
        assert_eq!(names.contains(name), stays, "{name} in {names:?}");
    }
}

#[test]
fn a_client_that_reads_nothing_is_let_go() {
    let site = Origin::site();
    let sidecar = before(&site, "http:\n  idle_within: 1s\n");
    for tunnel in [false, true] {
        let mut wire = match tunnel {
            true => sidecar.tunnel(&site),
            false => sidecar.wire(),
        };
        let path = format!("/bytes/5000000{}", u8::from(tunnel));
        let head = request("GET", &site.url(&path), &[], "");
        wire.say(match tunnel {
            true => head.replacen(&site.url(""), "", 1),
            false => head,
        });
        assert_eq!(wire.head().unwrap().status(), 200);
        until("the connection to be gone", || {
            (sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
        let record = sidecar.record_of(&path, "completed");
        assert_eq!(record["outcome"], "abandoned", "{record}");
    }
}

#[test]
fn a_client_that_reads_slowly_is_not() {
    let site = Origin::site();
    let sidecar = before(&site, "http:\n  idle_within: 6s\n");
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/bytes/20000000"), &[], ""));
    assert_eq!(wire.head().unwrap().status(), 200);
    let mut came = 0;
    // Longer than may be read nothing, and never that long at once.
    for _ in 0..16 {
        std::thread::sleep(Duration::from_millis(600));
        came += wire.exactly(1_250_000).len();
    }
    assert_eq!(came, 20_000_000);
}

#[test]
fn a_body_that_was_judged_is_sent_whatever_the_method() {
    let site = Origin::site();
    let sidecar = before(&site, "");
    let long = "x".repeat(200_000);
    #[rustfmt::skip]
    let table = [
        // method  type                         body        trailer
        ("GET",    "application/octet-stream",  "short",    ""),
        ("GET",    "application/octet-stream",  &*long,     ""),
        ("GET",    "text/plain",                "short",    ""),
        ("GET",    "text/plain",                &*long,     ""),
        ("GET",    "text/plain",                "short",    "x-sum: 1\r\n"),
        ("DELETE", "text/plain",                &*long,     ""),
        ("POST",   "text/plain",                "short",    "x-sum: 1\r\n"),
    ];
    for (method, kind, body, trailer) in table {
        let fields = [
            ("content-type", kind),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
        ];
        let mut wire = sidecar.wire();
        let head = request(method, &site.url("/echo"), &fields, "");
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n{trailer}\r\n", body.len());
        wire.say(head.replace("content-length: 0\r\n", "") + &chunk);
        let heard = wire.answer().json();
        let what = format!("{method} {kind} {} {trailer}", body.len());
        assert_eq!(heard["bytes"], body.len(), "{what}: {heard}");
        let trailers = heard["trailers"].as_array().unwrap().len();
        assert_eq!(
            trailers,
            usize::from(!trailer.is_empty()),
            "{what}: {heard}"
        );
    }
}

#[test]
fn what_an_origin_has_said_when_it_breaks_off_reaches_the_client() {
    let half = Origin::saying(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/x\r\ncontent-length: 100000\r\n\r\nhalf",
    );
    let sidecar = Setup::new().policy(ALLOW).reach(&half).start();
    // Whether its end is there as soon as what it said is chance.
    for _ in 0..30 {
        let mut wire = sidecar.wire();
        wire.say(request("GET", &half.url("/x"), &[], ""));
        let head = wire.head().expect("a head");
        assert_eq!(head.status(), 200);
        assert_eq!(wire.rest(), b"half");
    }
}

/// Says as many bytes as its path says, of more, and ends.
fn most_of_it(mut wire: Wire, shared: &Shared) {
    if let Some(request) = wire.request() {
        shared.log(&request);
        let said = request.head.path()[1..].parse().unwrap();
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x\r\ncontent-length: 10000000\r\n\r\n";
        drop(wire.try_say([head.as_bytes(), &pattern(said)].concat()));
    }
}

#[test]
fn a_client_that_reads_slowly_gets_all_that_an_origin_has_said_when_it_breaks_off() {
    let site = Origin::raw(most_of_it);
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    // Some of them fill the client's socket and not what the library keeps ready behind it.
    for said in (1..=30).map(|said| said * 20_000) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        // What the kernel keeps for it goes by this, too.
        socket.set_tcp_mss(1_400).unwrap();
        socket.connect(&sidecar.http.into()).unwrap();
        let mut wire = Wire::over(socket.into());
        let path = format!("/{said}");
        wire.say(request("GET", &site.url(&path), &[], ""));
        assert_eq!(wire.head().expect("a head").status(), 200);
        std::thread::sleep(Duration::from_millis(50));
        let read = wire.rest();
        assert_eq!(read.len(), said);
        assert!(read == pattern(said), "{said}");
        let completed = sidecar.record_of(&path, "completed");
        assert_eq!(completed["outcome"], "failed", "{completed}");
    }
}
