//! HTTPS origins whose certificates are not what they should be.

use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::process::run;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::until;

fn before(site: &Origin, authority: &Authority) -> Sidecar {
    let setup = Setup::new().policy(ALLOW).reach(site);
    setup.trust(authority).start()
}

/// One request inside an intercepted tunnel to `site`.
fn asked(sidecar: &Sidecar, site: &Origin) -> crate::support::wire::Message {
    let mut wire = sidecar.tls_tunnel(site);
    wire.say(request("GET", &site.url("/x"), &[], "").replacen(&site.url(""), "", 1));
    wire.answer()
}

#[test]
fn a_certificate_that_is_good_is_accepted() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let sidecar = before(&site, &authority);
    let answer = asked(&sidecar, &site);
    assert_eq!(
        (answer.status(), answer.text()),
        (200, "hello from /x".to_owned())
    );
    assert_eq!(
        sidecar.record_of("/x", "started")["http_url"],
        site.url("/x")
    );
}

#[test]
fn a_certificate_that_does_not_verify_is_a_bad_gateway_and_nothing_is_sent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let rows = [
        ("expired", authority.server("secure.test", Dates::Expired)),
        (
            "another name",
            authority.server("other.test", Dates::Current),
        ),
        (
            "unknown authority",
            stranger.server("secure.test", Dates::Current),
        ),
    ];
    for (name, config) in rows {
        let site = Origin::site_tls(config);
        let sidecar = before(&site, &authority);
        let answer = asked(&sidecar, &site);
        assert_eq!(
            (answer.status(), answer.code()),
            (502, "upstream_tls".to_owned()),
            "{name}"
        );
        let completed = sidecar.record_of("/x", "completed");
        assert_eq!(completed["outcome"], "failed", "{name}");
        assert_eq!(site.heard().len(), 0, "{name}");
    }
}

#[test]
fn an_origin_without_tls_behind_https_is_a_bad_gateway() {
    let authority = Authority::new();
    let plain = Origin::site();
    let sidecar = before(&plain, &authority);
    let answer = asked(&sidecar, &plain);
    assert_eq!(
        (answer.status(), answer.code()),
        (502, "upstream_tls".to_owned())
    );
    assert_eq!(plain.heard().len(), 0);
}

#[test]
fn an_agent_that_does_not_trust_us_gets_no_connection_and_nothing_leaves() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let sidecar = before(&site, &authority);
    let ended = crate::clients::curl(&[
        "--proxy",
        &format!("http://{}", sidecar.http),
        &site.url("/x"),
    ]);
    assert_eq!(ended.status.code(), Some(60), "{ended:?}");
    assert_eq!(site.connections(), 0);
}

#[test]
fn a_host_on_the_passthrough_list_is_judged_as_a_tunnel_and_not_opened() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let trusted = setup.write("origin-ca.pem", &authority.pem);
    let sidecar = setup
        .config("http:\n  passthrough: [secure.test]\n")
        .start();
    let ended = crate::clients::curl(&[
        "--proxy",
        &format!("http://{}", sidecar.http),
        "--cacert",
        &trusted,
        &site.url("/x"),
    ]);
    assert_eq!(
        (ended.status.code(), &*ended.out),
        (Some(0), "hello from /x"),
        "{ended:?}"
    );
    let started = sidecar.recorded("the tunnel", |line| line["http_method"] == "CONNECT");
    assert_eq!(started["decision"], "allow");
    assert!(sidecar.metric("openbox_passage_bytes_total{passage=\"passthrough\"}") > 0);
}

#[test]
fn a_tunnel_that_carries_neither_tls_nor_http_is_refused() {
    let site = Origin::site();
    let sidecar = before(&site, &Authority::new());
    let mut wire = sidecar.tunnel(&site);
    wire.say(b"\x00\x00\x00\x08\x04\xd2\x16\x2f");
    assert!(wire.is_ended());
    assert_eq!(site.connections(), 0);
}

/// A sidecar that trusts `known`, with one line of `upstream.tls`, `{folder}` in
/// which is where `own.pem`, `agent.pem` and `agent.key` of `own` are.
fn with_line(known: &Authority, own: &Authority, site: &Origin, line: &str) -> Sidecar {
    let setup = Setup::new().policy(ALLOW).reach(site).trust(known);
    let (certificate, key) = own.pair("agent.test", Dates::Current);
    setup.write("own.pem", &own.pem);
    setup.write("agent.pem", &certificate);
    setup.write("agent.key", &key);
    let line = line.replace("{folder}", &setup.folder().display().to_string());
    setup
        .config(&format!("upstream:\n  tls: ['{line}']\n"))
        .start()
}

#[test]
fn an_origin_that_asks_who_is_there_is_shown_the_certificate_for_its_host() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server_that_asks("secure.test"));
    let stranger = Authority::new();
    for (whose, line, expected) in [
        (
            &authority,
            "secure.test cert={folder}/agent.pem key={folder}/agent.key",
            200,
        ),
        (
            &authority,
            "*.test cert={folder}/agent.pem key={folder}/agent.key",
            200,
        ),
        (
            &authority,
            "other.test cert={folder}/agent.pem key={folder}/agent.key",
            502,
        ),
        (
            &stranger,
            "secure.test cert={folder}/agent.pem key={folder}/agent.key",
            502,
        ),
    ] {
        let sidecar = with_line(&authority, whose, &site, line);
        assert_eq!(asked(&sidecar, &site).status(), expected, "{line}");
    }
}

#[test]
fn an_authority_of_a_host_is_trusted_there_alone_and_alone_there() {
    let (known, own) = (Authority::new(), Authority::new());
    let of_own = Origin::site_tls(own.server("secure.test", Dates::Current));
    let of_known = Origin::site_tls(known.server("secure.test", Dates::Current));
    for (site, line, expected) in [
        (&of_own, "secure.test ca={folder}/own.pem", 200),
        (&of_own, "other.test ca={folder}/own.pem", 502),
        (&of_known, "other.test ca={folder}/own.pem", 200),
        (&of_known, "secure.test ca={folder}/own.pem", 502),
    ] {
        let sidecar = with_line(&known, &own, site, line);
        assert_eq!(asked(&sidecar, site).status(), expected, "{line}");
    }
    // The name is proved all the same.
    let other = Origin::site_tls(own.server("other.test", Dates::Current));
    let sidecar = with_line(&known, &own, &other, "secure.test ca={folder}/own.pem");
    assert_eq!(asked(&sidecar, &other).code(), "upstream_tls");
}

#[test]
fn a_file_that_cannot_be_used_is_told_at_the_start() {
    for (line, expected) in [
        ("a.test ca=/nowhere.pem", "/nowhere.pem"),
        ("a.test cert=/x.pem", "cert and key go together"),
        ("a.test", "it says nothing of the host"),
        ("a.test trust=/x.pem", "is none of them"),
        ("a.test ca=/x.pem ca=/y.pem", "ca has no file, or two"),
        ("a.test:443 ca=/x.pem", "a host name without port"),
    ] {
        let setup = Setup::new().policy(ALLOW);
        let setup = setup.config(&format!("upstream:\n  tls: ['{line}']\n"));
        let ended = run(&mut setup.serve_command());
        assert!(!ended.status.success(), "{line}");
        let said = &ended.err;
        assert!(
            said.contains("upstream.tls") && said.contains(expected),
            "{line}: {said}"
        );
    }
}

#[test]
fn what_a_tunnel_was_not_judged_as_does_not_pass_through_it() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("evil.test", Dates::Current));
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let trusted = setup.write("origin-ca.pem", &authority.pem);
    let sidecar = setup
        .config("http:\n  passthrough: [secure.test]\n")
        .start();
    let port = site.address.port();
    let url = format!("https://evil.test:{port}/x");
    let elsewhere = format!("evil.test:{port}:secure.test:{port}");
    for scheme in ["http", "socks5h"] {
        let proxy = format!("{scheme}://{}", sidecar.http);
        let words = ["--proxy", &proxy, "--cacert", &trusted];
        let ended =
            crate::clients::curl(&[&words[..], &["--connect-to", &elsewhere, &url]].concat());
        assert!(!ended.status.success(), "{scheme}: {ended:?}");
        assert!(
            ended.err.contains("unrecognized name"),
            "{scheme}: {ended:?}"
        );
        let completion = sidecar.recorded("the end of the tunnel", |line| {
            line["record"] == "completion" && line["http_method"] == "CONNECT"
        });
        assert_eq!(completion["outcome"], "failed", "{completion}");
        let error = completion["error"].as_str().unwrap();
        for part in ["\"secure.test\"", "\"evil.test\""] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert_eq!(site.connections(), 0, "no handshake was finished");
    // Whoever names nobody goes where the tunnel leads.
    let mut config = rustls::ClientConfig::clone(&sidecar.client_config());
    config.enable_sni = false;
    let mut wire = sidecar.tunnel_to(&site.authority());
    wire = wire.secured(config.into(), "evil.test");
    drop(wire.try_say("GET /x HTTP/1.1\r\n\r\n"));
    until("the handshake to reach the origin", || {
        (sidecar.metric("openbox_passage_bytes_total{passage=\"passthrough\"}") > 0).then_some(())
    });
}

/// What says nothing first, and is no TLS.
#[test]
fn a_tunnel_that_passes_unread_carries_what_the_server_begins() {
    let site = Origin::raw(|mut wire, _| {
        wire.say("220 ready\r\n");
        let heard = wire.exactly(5);
        drop(wire.try_say(heard));
    });
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let sidecar = setup
        .config("http:\n  passthrough: [origin.test]\n")
        .start();
    let mut wire = sidecar.tunnel(&site);
    assert_eq!(wire.exactly(11), b"220 ready\r\n");
    wire.say(b"\x15QUIT");
    assert_eq!(wire.rest(), b"\x15QUIT");
}

/// Tunnels that are not opened here are blocked.
const NO_TUNNELS: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK"} if input.spans[0].http_method == "CONNECT"
"#;

#[test]
fn a_tunnel_that_is_refused_says_so_whatever_was_sent_behind_it() {
    let site = Origin::site();
    let setup = Setup::new().policy(NO_TUNNELS).reach(&site);
    let sidecar = setup
        .config("http:\n  passthrough: [origin.test]\n")
        .start();
    let mut wire = sidecar.wire();
    let authority = site.authority();
    let connect = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    wire.say([connect.as_bytes(), &[0x16; 100_000]].concat());
    let answer = wire.answer();
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "blocked".to_owned())
    );
    // An end, and no reset that could have come before the answer.
    let ended = std::io::Read::read(&mut wire.stream, &mut [0; 16]);
    assert_eq!(ended.unwrap(), 0);
    assert_eq!(site.connections(), 0);
}
