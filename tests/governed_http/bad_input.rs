//! What a peer sends that no sidecar should act on, and addresses that no agent
//! should reach.

use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar, request};

fn world(config: &str) -> (Origin, Sidecar) {
    let site = Origin::site();
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let sidecar = setup.config(config).start();
    (site, sidecar)
}

#[test]
fn an_ambiguous_request_is_refused_and_nothing_is_evaluated_or_sent() {
    let (site, sidecar) = world("");
    let (host, url) = (site.authority(), site.url("/x"));
    #[rustfmt::skip]
    let rows = [
        ("length and chunks",   format!("POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("two lengths",         format!("POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")),
        ("signed length",       format!("POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-length: +1\r\n\r\na")),
        ("unknown coding",      format!("POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("chunked twice",       format!("POST {url} HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        ("two hosts",           format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nhost: other.test\r\n\r\n")),
        ("another host",        format!("GET {url} HTTP/1.1\r\nhost: other.test\r\n\r\n")),
        ("userinfo",            format!("GET http://user:pass@{host}/x HTTP/1.1\r\nhost: {host}\r\n\r\n")),
        ("bare LF",             format!("GET {url} HTTP/1.1\nhost: {host}\n\n")),
        ("folded field",        format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nx: a\r\n b\r\n\r\n")),
        ("NUL",                 format!("GET {url} HTTP/1.1\r\nhost: {host}\r\nx: a\0b\r\n\r\n")),
        ("space before colon",  format!("GET {url} HTTP/1.1\r\nhost : {host}\r\n\r\n")),
        ("no host",             format!("GET {url} HTTP/1.1\r\n\r\n")),
        ("origin form",         format!("GET /x HTTP/1.1\r\nhost: {host}\r\n\r\n")),
        ("another scheme",      format!("GET ftp://{host}/x HTTP/1.1\r\nhost: {host}\r\n\r\n")),
        ("no request at all",   "\x16\x03\x01 hello\r\n\r\n".to_owned()),
    ];
    for (name, bytes) in rows {
        let mut wire = sidecar.wire();
        wire.say(bytes);
        let answer = wire.answer();
        let status = answer.status();
        assert!((400..500).contains(&status), "{name}: {:?}", answer.head);
        assert!(wire.is_ended(), "{name}: the connection goes on");
    }
    assert_eq!(site.connections(), 0);
    let decided = sidecar.journal();
    assert!(decided.is_empty(), "{decided:?}");
}

#[test]
fn an_oversize_head_is_431() {
    let (site, sidecar) = world("http:\n  head_bytes_max: 2048\n  head_fields_max: 20\n");
    let long = "x".repeat(4_000);
    let answer = sidecar.send("GET", &site.url("/x"), &[("x-long", &long)], "");
    assert_eq!(answer.status(), 431);
    assert_eq!(answer.get("content-type"), Some("application/problem+json"));
    let many: Vec<_> = (0..30).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<_> = many.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    assert_eq!(
        sidecar.send("GET", &site.url("/x"), &many, "").status(),
        431
    );
    assert_eq!(sidecar.get(&site.url(&format!("/{long}"))).status(), 431);
    assert_eq!(site.connections(), 0);
    assert!(sidecar.metric("openbox_limit_hits_total{limit=\"too_large\"}") >= 3);
}

#[test]
fn a_body_that_policy_must_see_whole_and_cannot_is_413_even_when_failing_open() {
    let config = "fail_mode: open\nhttp:\n  over_cap: deny\n  capture_bytes_max: 1000\n";
    let (site, sidecar) = world(config);
    let long = "x".repeat(1_001);
    let text = ("content-type", "text/plain");
    let announced = sidecar.send("POST", &site.url("/x"), &[text], &long);
    assert_eq!(
        (announced.status(), announced.code()),
        (413, "body_too_large_to_judge".to_owned())
    );
    let chunked = format!("3e9\r\n{long}\r\n0\r\n\r\n");
    let fields = [text, ("transfer-encoding", "chunked")];
    let answer = sidecar.send("POST", &site.url("/x"), &fields, &chunked);
    assert_eq!(
        (answer.status(), answer.code()),
        (413, "body_too_large_to_judge".to_owned())
    );
    assert_eq!(site.connections(), 0);
    let fits = sidecar.send("POST", &site.url("/x"), &[text], &long[..1_000]);
    assert_eq!(fits.status(), 200);
}

#[test]
fn a_body_that_policy_does_not_see_all_of_is_told_why() {
    use std::io::Write;
    let config = "http:\n  over_cap: deny\n  capture_bytes_max: 65536\n  capture_within: 300ms\n";
    let (site, sidecar) = world(config);
    let limit = "openbox_limit_hits_total{limit=\"too_large\"}";
    let denied = "openbox_http_over_cap_total{choice=\"denied\"}";
    let text = ("content-type", "text/plain");
    let head = |length: usize, fields: &[(&str, &str)]| {
        let length = length.to_string();
        let fields = [&[text, ("content-length", &*length)], fields].concat();
        request("POST", &site.url("/x"), &fields, "")
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&[b'x'; 60_000]).unwrap();
    let swells = gzip.finish().unwrap();
    let grows = swells.len() * 200;
    assert!(grows < 60_000, "it is to swell more than is read of it");
    let encoding = [("content-encoding", "gzip")];
    let said = [
        (head(65_537, &[]).into_bytes(), "is larger than", 1),
        (head(10, &[]).into_bytes(), "capture_within", 0),
        (
            [head(swells.len(), &encoding).into_bytes(), swells].concat(),
            "can be shown",
            0,
        ),
    ];
    for (said, why, too_large) in said {
        let before = (sidecar.metric(limit), sidecar.metric(denied));
        let mut wire = sidecar.wire();
        wire.say(said);
        let answer = wire.answer();
        assert_eq!(
            (answer.status(), answer.code()),
            (413, "body_too_large_to_judge".to_owned())
        );
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(why), "{why}: {detail}");
        let after = (before.0 + too_large, before.1 + 1);
        assert_eq!(
            (sidecar.metric(limit), sidecar.metric(denied)),
            after,
            "{why}"
        );
    }
    assert_eq!(site.connections(), 0);
}

#[test]
fn a_body_beyond_the_cap_streams_on_and_policy_is_told() {
    let rego = r#"
package test
default result := {"decision": "ALLOW"}
result := {"decision": "BLOCK", "reason": "not all of it was seen"} if {
	input.spans[0].request_body_state == "partial"
	input.spans[0].attributes["url.path"] == "/strict"
}
"#;
    let site = Origin::site();
    let setup = Setup::new().policy(rego).reach(&site);
    let sidecar = setup.config("http:\n  capture_bytes_max: 1000\n").start();
    let long = "x".repeat(50_000);
    let text = [("content-type", "text/plain")];
    let echoed = sidecar
        .send("POST", &site.url("/echo"), &text, &long)
        .json();
    assert_eq!(echoed["bytes"], 50_000);
    assert_eq!(
        sidecar.record_of("/echo", "started")["request_body"],
        "partial"
    );
    assert_eq!(
        sidecar
            .send("POST", &site.url("/strict"), &text, &long)
            .code(),
        "blocked"
    );
    assert!(sidecar.metric("openbox_passage_bytes_total{passage=\"request_tail\"}") >= 49_000);
}

#[test]
fn addresses_that_no_agent_should_reach_are_refused() {
    let site = Origin::site();
    // Nothing is allowed here but what is everywhere.
    let sidecar = Setup::new()
        .policy(ALLOW)
        .flag("--resolve", &site.resolve())
        .flag("--resolve", "inside.test:80=169.254.169.254")
        .start();
    let (port, own) = (site.address.port(), sidecar.operator.port());
    #[rustfmt::skip]
    let rows = [
        format!("http://127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("http://127.1:{port}/x"),
        format!("http://2130706433:{port}/x"),
        format!("http://0x7f.1:{port}/x"),
        format!("http://[::1]:{port}/x"),
        format!("http://[::ffff:127.0.0.1]:{port}/x"),
        format!("http://0.0.0.0:{port}/x"),
        site.url("/x"),
        format!("http://127.0.0.1:{own}/v1/runs"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://169.254.1.1/x".to_owned(),
        "http://metadata.google.internal/computeMetadata/v1/".to_owned(),
        "http://inside.test/x".to_owned(),
        "http://[fe80::1]/x".to_owned(),
        "http://[fd00:ec2::254]/x".to_owned(),
    ];
    for url in rows {
        let answer = sidecar.get(&url);
        // Some spellings are no host at all to a careful reader.
        let refused = match answer.status() {
            403 => answer.code() == "address_refused",
            status => status == 400,
        };
        assert!(refused, "{url}: {} {}", answer.head.first, answer.text());
    }
    assert_eq!(site.connections(), 0);
}

#[test]
fn the_sidecars_own_listeners_are_refused_even_where_loopback_is_allowed() {
    let (site, sidecar) = world("");
    let own = [
        sidecar.http,
        sidecar.agent,
        sidecar.operator,
        sidecar.health,
    ];
    for address in own {
        for host in ["127.0.0.1", "localhost"] {
            let url = format!("http://{host}:{}/metrics", address.port());
            let answer = sidecar.get(&url);
            assert_eq!(
                (answer.status(), answer.code()),
                (403, "address_refused".to_owned()),
                "{url}"
            );
        }
    }
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
}

#[test]
fn inside_a_tunnel_the_host_is_pinned() {
    let (site, sidecar) = world("");
    let mut wire = sidecar.tunnel(&site);
    wire.say("GET /x HTTP/1.1\r\nhost: other.test\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status(), 421, "{}", answer.text());
    assert!(wire.is_ended());
    assert_eq!(site.connections(), 0);
    let mut wire = sidecar.tunnel(&site);
    wire.say(
        request("GET", "/x", &[], "")
            .replace("host: \r\n", &format!("host: {}\r\n", site.authority())),
    );
    assert_eq!(wire.answer().text(), "hello from /x");
}
