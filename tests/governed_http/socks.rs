//! curl, and requests with PySocks, through SOCKS5 on the proxy's own port.

use serde_json::json;

use crate::clients::{curl, python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::{ALLOW, AS_THE_PATH_SAYS};
use crate::support::process::{self, Ended};
use crate::support::sidecar::{Setup, Sidecar};

/// curl's own codes for what a SOCKS proxy says no to.
const REFUSED_BY_PROXY: i32 = 97;

/// Asks for `url` by a name that the sidecar resolves; `who` is `user:token@`,
/// or nothing.
fn ask(sidecar: &Sidecar, who: &str, more: &[&str], url: &str) -> Ended {
    let proxy = format!("socks5h://{who}{}", sidecar.http);
    let ca = sidecar.ca().display().to_string();
    let words = ["--proxy", &proxy, "--write-out", " %{http_code}"];
    let trusted = ["--cacert", &ca];
    let trusted = match more {
        [] => &trusted[..],
        more => more,
    };
    curl(&[&words[..], trusted, &[url]].concat())
}

/// That requests are allowed and blocked by their path in the clear and over TLS, however a client asks.
fn governed(asked: impl Fn(&Sidecar, &Origin, &str) -> Ended) {
    let authority = Authority::new();
    let plain = Origin::site();
    let secure = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let sidecar = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .reach(&plain)
        .reach(&secure)
        .trust(&authority)
        .start();
    for site in [&plain, &secure] {
        let allowed = asked(&sidecar, site, "/started/allow");
        assert_eq!(allowed.out, "hello from /started/allow 200", "{allowed:?}");
        let blocked = asked(&sidecar, site, "/started/block");
        assert!(blocked.out.ends_with(" 403"), "{blocked:?}");
        assert_eq!(site.times("/started/block"), 0);
        let started = sidecar.recorded("the request", |line| {
            line["stage"] == "started" && line["http_url"] == site.url("/started/block")
        });
        assert_eq!(started["decision"], "blocked");
    }
}

#[test]
fn http_and_https_through_socks_are_governed() {
    governed(|sidecar, site, path| ask(sidecar, "", &[], &site.url(path)));
}

#[test]
fn curl_that_has_a_word_of_its_own_for_it_is_governed_too() {
    governed(|sidecar, site, path| {
        let ca = sidecar.ca().display().to_string();
        let proxy = sidecar.http.to_string();
        let words = ["--socks5-hostname", &proxy, "--cacert", &ca];
        curl(
            &[
                &words[..],
                &["--write-out", " %{http_code}", &site.url(path)],
            ]
            .concat(),
        )
    });
}

/// Asks by requests, which sends a name or, where `port` says what its resolver is to say, an address.
fn ask_by_requests(sidecar: &Sidecar, proxy: &str, port: &str, url: &str) -> Ended {
    let mut command = process::command(&python_of_tests().display().to_string());
    let ca = sidecar.ca().display().to_string();
    process::run(command.args([&script("over_socks.py"), proxy, &ca, port, url]))
}

#[test]
fn requests_with_pysocks_is_governed_by_name() {
    governed(|sidecar, site, path| {
        let proxy = format!("socks5h://{}", sidecar.http);
        ask_by_requests(sidecar, &proxy, "-", &site.url(path))
    });
}

#[test]
fn requests_with_pysocks_is_governed_by_address() {
    governed(|sidecar, site, path| {
        let proxy = format!("socks5://{}", sidecar.http);
        let port = sidecar.http.port().to_string();
        ask_by_requests(sidecar, &proxy, &port, &site.url(path))
    });
}

#[test]
fn who_shows_pysocks_a_wrong_token_gets_no_connection() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    let as_user = |token: &str| {
        let proxy = format!("socks5h://worker:{token}@{}", sidecar.http);
        ask_by_requests(&sidecar, &proxy, "-", &site.url("/x"))
    };
    assert_eq!(as_user(&sidecar.agent_token).out, "hello from /x 200");
    assert_eq!(as_user("obx_test_wrong").out, "ConnectionError");
    assert_eq!(site.times("/x"), 1);
}

#[test]
fn a_user_of_socks_says_whose_the_request_is() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    let run = json!({"workflow_id": "w", "run_id": "r"});
    sidecar.event("/v1/workflows", &run);
    let activity = json!({"workflow_id": "w", "run_id": "r", "activity_id": "a", "activity_type": "k", "context": "worker"});
    sidecar.event("/v1/activities", &activity);
    // A second one, or the only open activity would be meant anyway.
    let other =
        json!({"workflow_id": "w", "run_id": "r", "activity_id": "b", "activity_type": "k"});
    sidecar.event("/v1/activities", &other);
    let who = format!("worker:{}@", sidecar.agent_token);
    let asked = ask(&sidecar, &who, &[], &site.url("/mine"));
    assert_eq!(asked.out, "hello from /mine 200", "{asked:?}");
    let started = sidecar.record_of("/mine", "started");
    assert_eq!(
        (&started["activity_id"], &started["attribution"]),
        (&json!("a"), &json!("proxy_credentials"))
    );
    for token in ["obx_test_wrong", &sidecar.operator_token] {
        let who = format!("worker:{token}@");
        let asked = ask(&sidecar, &who, &[], &site.url("/not"));
        assert_eq!(asked.status.code(), Some(REFUSED_BY_PROXY), "{asked:?}");
    }
    assert_eq!(site.times("/not"), 0);
    assert!(!sidecar.log().contains(&sidecar.agent_token));
}

#[test]
fn a_passthrough_host_is_judged_as_a_tunnel_over_socks_too() {
    let authority = Authority::new();
    let site = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let trusted = setup.write("origin-ca.pem", &authority.pem);
    let gone = "nobody.test:9=127.0.0.1";
    let sidecar = setup
        .config("http:\n  passthrough: [secure.test, nobody.test, metadata.google.internal]\n")
        .flag("--resolve", gone)
        .start();
    let more = ["--cacert", &trusted];
    let asked = ask(&sidecar, "", &more, &site.url("/x"));
    assert_eq!(asked.out, "hello from /x 200", "{asked:?}");
    let started = sidecar.recorded("the tunnel", |line| line["http_method"] == "CONNECT");
    assert_eq!(started["decision"], "allow");
    assert!(sidecar.metric("openbox_passage_bytes_total{passage=\"passthrough\"}") > 0);
    // Nobody listens there: connection refused. Nobody may go there: not allowed.
    let refused = ask(&sidecar, "", &more, "https://nobody.test:9/");
    assert!(refused.err.contains("(5)"), "{refused:?}");
    let forbidden = ask(&sidecar, "", &more, "https://metadata.google.internal/");
    assert!(forbidden.err.contains("(2)"), "{forbidden:?}");
}

/// Asks with `socks5://`: curl looks the name up by itself, and sends an address.
fn ask_by_address(sidecar: &Sidecar, site: &Origin, more: &[&str], path: &str) -> Ended {
    let proxy = format!("socks5://{}", sidecar.http);
    let ca = sidecar.ca().display().to_string();
    let url = site.url(path);
    let resolved = format!("{}:127.0.0.1", site.authority());
    let words = ["--proxy", &proxy, "--resolve", &resolved, "--cacert", &ca];
    curl(&[&words[..], more, &["--write-out", " %{http_code}", &url]].concat())
}

#[test]
fn a_client_that_sends_an_address_is_judged_by_the_name_it_says_inside() {
    governed(|sidecar, site, path| ask_by_address(sidecar, site, &[], path));
}

#[test]
fn a_name_that_does_not_lead_to_the_address_that_was_sent_is_not_believed() {
    let signed = Authority::new();
    let plain = Origin::site();
    let secure = Origin::site_tls(signed.server("secure.test", Dates::Current));
    let sidecar = Setup::new()
        .policy(ALLOW)
        .reach(&plain)
        .reach(&secure)
        .trust(&signed)
        .start();
    // In the clear the request is for the address, and says so to the origin.
    let pretended = ask_by_address(&sidecar, &plain, &["--header", "Host: 192.0.2.1"], "/clear");
    assert_eq!(pretended.out, "hello from /clear 200", "{pretended:?}");
    let authority = plain.authority();
    let (_, port) = authority.rsplit_once(':').unwrap();
    let address = format!("127.0.0.1:{port}");
    let started = sidecar.record_of("/clear", "started");
    assert_eq!(started["http_url"], format!("http://{address}/clear"));
    assert_eq!(plain.heard()[0].head.get("host"), Some(&*address));
    // Over TLS it is for the name of the hello, and for no other.
    let another = ask_by_address(&sidecar, &secure, &["--header", "Host: a.test"], "/tls");
    assert!(another.out.ends_with(" 421"), "{another:?}");
    assert_eq!(secure.times("/tls"), 0);
}
