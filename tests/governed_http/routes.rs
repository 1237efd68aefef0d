//! What a route of the configuration changes for the requests that it is about.

use std::time::Duration;

use serde_json::json;

use crate::assert_carried_out;
use crate::core_mode;
use crate::support::core::{Core, Say};
use crate::support::origin::{Origin, Shared};
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::Wire;

fn world(routes: &[&str], more: &str) -> (Origin, Sidecar) {
    let site = Origin::site();
    let config = format!("http:\n  routes: {}\n{more}", json!(routes));
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    (site, setup.config(&config).start())
}

const TEXT: [(&str, &str); 1] = [("content-type", "text/plain")];

#[test]
fn the_first_route_that_fits_says_what_is_done_with_bodies() {
    let routes = [
        "PUT */deny over_cap=deny",
        "POST */echo* capture=false",
        "*/deny over_cap=partial",
    ];
    let (site, sidecar) = world(&routes, "  capture_bytes_max: 1000\n");
    let long = "x".repeat(2_000);
    let refused = sidecar.send("PUT", &site.url("/deny"), &TEXT, &long);
    assert_eq!(refused.code(), "body_too_large_to_judge");
    assert_eq!(site.times("/deny"), 0);
    // Written otherwise, it is the same place.
    let refused = sidecar.send("PUT", &site.url("/x/..//%64eny"), &TEXT, &long);
    assert_eq!(refused.code(), "body_too_large_to_judge");
    let passed = sidecar.send("POST", &site.url("/deny"), &TEXT, &long);
    assert_eq!(passed.status(), 200);
    let body_of = |path: &str| sidecar.record_of(path, "started")["request_body"].clone();
    assert_eq!(body_of("/deny"), "partial");
    sidecar.send("POST", &site.url("/echo/1"), &TEXT, "unread");
    assert_eq!(body_of("/echo/1"), "skipped");
    sidecar.send("PUT", &site.url("/echo/2"), &TEXT, "read");
    assert_eq!(body_of("/echo/2"), "whole");
}

#[test]
fn a_route_says_how_long_is_waited_and_whether_answers_are() {
    let routes = [
        "*/started/require_approval* hold_within=100ms",
        "*/completed/block/seen completed=observe",
    ];
    let (site, sidecar) = world(&routes, "  hold_within: 10m\n");
    let held = sidecar.get(&site.url("/started/require_approval"));
    assert_eq!(held.code(), "approval_pending");
    let withheld = sidecar.get(&site.url("/completed/block"));
    assert_eq!(withheld.code(), "outcome_blocked");
    let observed = sidecar.get(&site.url("/completed/block/seen"));
    assert_eq!(observed.status(), 200);
    let record = sidecar.record_of("/completed/block/seen", "completed");
    assert_eq!(record["decision"], "outcome_blocked");
}

#[test]
fn a_route_has_a_fail_mode_of_its_own_at_both_stages() {
    for (general, special) in [("open", "closed"), ("closed", "open")] {
        let (core, site) = (Core::start(), Origin::site());
        let routes = json!([format!("*/special* fail_mode={special}")]);
        let config = format!("core:\n  retries: 0\nhttp:\n  routes: {routes}\n");
        let setup = core_mode::setup(&core.url(), general, &site);
        let sidecar = setup.config(&config).start();
        for stage in ["started", "completed"] {
            core.at(stage, Say::Answer(503, String::new()));
            for (path, mode) in [("/special", special), ("/else", general)] {
                let url = site.url(&format!("{path}/{stage}"));
                let answer = sidecar.get(&url);
                let expected = if mode == "open" {
                    ""
                } else {
                    "policy_unavailable"
                };
                let code = match answer.status() {
                    200 => String::new(),
                    _ => answer.code(),
                };
                assert_eq!(code, expected, "{general} {path} {stage}");
                if !code.is_empty() && stage == "completed" {
                    assert_carried_out(&answer, &format!("{general} {path}"));
                }
            }
        }
    }
}

#[test]
fn where_no_body_is_captured_none_is_over_the_cap() {
    let of_all = world(&[], "  over_cap: deny\n  capture: false\n");
    let of_route = world(&["* capture=false"], "  over_cap: deny\n");
    for (site, sidecar) in [of_all, of_route] {
        for kind in ["text/plain", "image/png"] {
            for framing in [("x-framing", "length"), ("transfer-encoding", "chunked")] {
                let fields = [("content-type", kind), framing];
                let body = match framing.1 {
                    "chunked" => "5\r\nfirst\r\n0\r\n\r\n",
                    _ => "first",
                };
                let answer = sidecar.send("POST", &site.url("/x"), &fields, body);
                assert_eq!(answer.status(), 200, "{kind} {framing:?}");
            }
        }
        assert_eq!(site.times("/x"), 4);
        assert_eq!(
            sidecar.record_of("/x", "started")["request_body"],
            "skipped"
        );
    }
}

/// Answers `/late` after a while, and in `/pausing` pauses for as long.
fn unhurried(mut wire: Wire, _: &Shared) {
    const A_WHILE: Duration = Duration::from_secs(1);
    while let Some(request) = wire.head() {
        let late = request.path().starts_with("/late");
        std::thread::sleep(if late { A_WHILE } else { Duration::ZERO });
        wire.say("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 6\r\n\r\none");
        std::thread::sleep(if late { Duration::ZERO } else { A_WHILE });
        if wire.try_say("two").is_err() {
            return;
        }
    }
}

#[test]
fn a_route_says_how_long_is_waited_for_the_head_of_an_answer() {
    let site = Origin::raw(unhurried);
    let routes = json!([
        "*/late/patient answer_within=10m",
        "*/pausing/patient answer_within=10m",
        "*/pausing answer_within=10m idle_within=100ms"
    ]);
    let config = format!("http:\n  answer_within: 100ms\n  routes: {routes}\n");
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.config(&config).start();
    let late = sidecar.get(&site.url("/late"));
    assert_eq!(
        (late.status(), late.code()),
        (504, "upstream_timeout".to_owned())
    );
    for path in ["/late/patient", "/pausing/patient"] {
        let answer = sidecar.get(&site.url(path));
        assert_eq!(
            (answer.status(), &*answer.body),
            (200, &b"onetwo"[..]),
            "{path}"
        );
    }
}

#[test]
fn a_route_says_how_long_an_answer_may_pause() {
    let site = Origin::raw(unhurried);
    let config = "http:\n  routes: [\"*/pausing idle_within=100ms capture=false\"]\n";
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.config(config).start();
    let mut wire = sidecar.wire();
    wire.say(request("GET", &site.url("/pausing"), &[], ""));
    assert_eq!(wire.head().unwrap().status(), 200);
    assert_eq!(wire.rest(), b"one");
}
