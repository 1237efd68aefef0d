//! Health, metrics, and how a sidecar ends.

use std::thread;

use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

fn world() -> (Origin, Sidecar) {
    let site = Origin::site();
    let sidecar = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site).start();
    (site, sidecar)
}

#[test]
fn health_says_that_it_lives_and_is_ready_and_what_it_counts() {
    let (site, sidecar) = world();
    assert_eq!(sidecar.health("/livez"), (200, "ok\n".to_owned()));
    let (status, ready) = sidecar.health("/readyz");
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["ready"]), (200, &true.into()));
    assert_eq!(sidecar.health("/nothing").0, 404);
    for path in [
        "/started/allow",
        "/started/constrain",
        "/started/block",
        "/completed/block",
    ] {
        sidecar.get(&site.url(path));
    }
    #[rustfmt::skip]
    let rows = [
        ("started",   "allow",     2),
        ("started",   "constrain", 1),
        ("started",   "block",     1),
        ("started",   "halt",      0),
        ("completed", "allow",     2),
        ("completed", "block",     1),
    ];
    for (stage, verdict, count) in rows {
        let name = format!(
            "openbox_operations_total{{protocol=\"http\",stage=\"{stage}\",verdict=\"{verdict}\"}}"
        );
        assert_eq!(sidecar.metric(&name), count, "{name}");
    }
    let decisions = "openbox_decision_seconds_count{protocol=\"http\",stage=\"started\"}";
    assert_eq!(sidecar.metric(decisions), 4);
    assert_eq!(
        sidecar.metric("openbox_attributions_total{rule=\"own_session\"}"),
        4
    );
    assert_eq!(sidecar.metric("openbox_holds_open"), 0);
}

#[test]
fn the_status_for_operators_counts_operations() {
    let (site, sidecar) = world();
    sidecar.get(&site.url("/started/allow"));
    sidecar.get(&site.url("/started/block"));
    let (status, told) = sidecar.operator("GET", "/v1/status", "");
    assert_eq!(status, 200);
    assert_eq!(told["operations"]["allowed"], 1);
    assert_eq!(told["operations"]["blocked"], 1);
    assert!(
        told["policy"].as_str().unwrap().contains("policy.rego"),
        "{told}"
    );
}

#[test]
fn a_stopping_sidecar_finishes_what_runs_and_releases_what_is_held() {
    let (site, sidecar) = world();
    thread::scope(|scope| {
        let running = scope.spawn(|| sidecar.get(&site.url("/wait/drain")));
        let held = scope.spawn(|| sidecar.get(&site.url("/started/require_approval")));
        sidecar.pending_approval();
        until("the request to be out", || {
            (site.times("/wait/drain") == 1).then_some(())
        });
        sidecar.running.signal("TERM");
        let held = held.join().unwrap();
        assert_eq!(
            (held.status(), held.code()),
            (503, "shutting_down".to_owned())
        );
        assert!(held.get("retry-after").is_some());
        // It says so for as long as it drains, and takes nothing new.
        let (status, ready) = sidecar.health("/readyz");
        assert_eq!(status, 503);
        assert!(ready.contains("\"draining\":true"), "{ready}");
        assert_eq!(sidecar.health("/livez").0, 200);
        until("the listener to be closed", || {
            std::net::TcpStream::connect(sidecar.http)
                .is_err()
                .then_some(())
        });
        site.acknowledge("drain");
        let running = running.join().unwrap();
        assert_eq!(
            (running.status(), running.text()),
            (200, "waited".to_owned())
        );
    });
    let state = sidecar.state.clone();
    let ended = sidecar.running.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    assert!(!state.join("operator.json").exists());
    let journal = crate::support::sidecar::journal(&state);
    let done = journal.iter().find(|line| {
        line["record"] == "completion"
            && line["http_url"].as_str().unwrap().ends_with("/wait/drain")
    });
    assert_eq!(done.unwrap()["decision"], "release");
}

#[test]
fn a_drain_ends_at_its_deadline_and_what_is_cut_is_recorded() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.config("drain_within: 200ms\n").start();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut wire = sidecar.wire();
            wire.say(crate::support::sidecar::request(
                "GET",
                &site.url("/wait/never"),
                &[],
                "",
            ));
            assert!(wire.is_ended());
        });
        until("the request to be out", || {
            (site.connections() == 1).then_some(())
        });
        sidecar.running.signal("TERM");
    });
    let state = sidecar.state.clone();
    let ended = sidecar.running.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    let journal = crate::support::sidecar::journal(&state);
    let done = journal.iter().find(|line| line["record"] == "completion");
    assert_eq!(done.unwrap()["outcome"], "abandoned");
}

#[test]
fn idle_connections_do_not_delay_the_end() {
    let (site, sidecar) = world();
    let mut wire = sidecar.wire();
    wire.say(crate::support::sidecar::request(
        "GET",
        &site.url("/x"),
        &[],
        "",
    ));
    assert_eq!(wire.answer().status(), 200);
    let _tunnel = sidecar.tunnel(&site);
    sidecar.running.signal("TERM");
    assert!(wire.is_ended());
    let ended = sidecar.running.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    assert!(
        !ended.err.contains("open connections are cut"),
        "{}",
        ended.err
    );
}
