//! A person at the command line, and a sidecar that serves.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::support::origin::Origin;
use crate::support::policies::{ALLOW, AS_THE_PATH_SAYS};
use crate::support::process::{self, Ended, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;
use crate::support::wire::Wire;

fn command(state: &Path, words: &[&str]) -> std::process::Command {
    let mut command = process::command(env!("CARGO_BIN_EXE_openbox-sidecar"));
    command.args(words).arg("--state-dir").arg(state);
    command
}

fn tell(sidecar: &Sidecar, words: &[&str]) -> Ended {
    let ended = process::run(&mut command(&sidecar.state, words));
    assert!(ended.status.success(), "{words:?}: {ended:?}");
    ended
}

#[test]
fn a_word_about_the_run_lets_the_next_operation_pass_without_waiting() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.start();
    let first = "/started/require_approval/1";
    thread::scope(|scope| {
        let asking = scope.spawn(|| sidecar.get(&site.url(first)));
        let approval = sidecar.pending_approval();
        let id = approval["approval_id"].as_str().unwrap();
        let words = ["approvals", "approve", id, "--scope", "run", "--ttl", "10m"];
        let told = tell(&sidecar, &words);
        assert!(
            told.out.contains("granted") || told.out.contains("consumed"),
            "{told:?}"
        );
        assert_eq!(asking.join().unwrap().status(), 200);
    });
    let second = "/started/require_approval/2";
    assert_eq!(sidecar.get(&site.url(second)).status(), 200);
    let [one, two] = [first, second].map(|path| sidecar.record_of(path, "started"));
    assert_eq!(one["approval_id"], two["approval_id"]);
    assert_eq!(one["by"], two["by"]);
    assert_eq!(two["held_us"].as_u64().unwrap_or(0), 0);
    let (_, all) = sidecar.operator("GET", "/v1/approvals", "");
    assert_eq!(all["approvals"].as_array().unwrap().len(), 1, "{all}");
    // Of its outcome nobody said anything.
    let (_, page) = sidecar.operator("GET", "/v1/operations?limit=4", "");
    assert_eq!(page["records"].as_array().unwrap().len(), 4, "{page}");
}

#[test]
fn everything_is_halted_resumed_and_seen_by_who_reads_along() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    let tail = Running::start(&mut command(&sidecar.state, &["tail", "--after", "0"]));
    assert_eq!(sidecar.get(&site.url("/before")).status(), 200);
    let told = tell(&sidecar, &["halt", "--reason", "enough"]);
    assert!(
        told.out.contains("everything is halted: enough"),
        "{told:?}"
    );
    assert_eq!(sidecar.get(&site.url("/halted")).code(), "halted");
    tell(&sidecar, &["resume"]);
    assert_eq!(sidecar.get(&site.url("/after")).status(), 200);
    tell(&sidecar, &["halt", "own", "--reason", "this one"]);
    assert_eq!(sidecar.get(&site.url("/halted")).code(), "halted");
    tell(&sidecar, &["resume", "own"]);
    for part in ["/before", "/after", "halt", "enough"] {
        until("the tail to show it", || {
            tail.out().contains(part).then_some(())
        });
    }
    let (status, _) = sidecar.operator("POST", "/v1/shutdown", "");
    assert_eq!(status, 202);
    let ended = tail.ended();
    assert!(
        ended.status.success(),
        "the stream ends with its sidecar: {ended:?}"
    );
    until("the end", || {
        (!sidecar.state.join("operator.json").exists()).then_some(())
    });
}

#[test]
fn a_setting_is_shown_with_who_said_it_and_without_its_password() {
    let sidecar = Setup::new()
        .policy(ALLOW)
        .config("drain_within: 3s")
        .flag("--pg", "127.0.0.1:0=postgres://agent:hunter2@127.0.0.1:1/x")
        .start();
    let (status, shown) = sidecar.operator("GET", "/v1/config", "");
    assert_eq!(status, 200);
    let of = |key: &str| shown["settings"][key].clone();
    assert_eq!(of("drain_within"), json!({"value": "3s", "from": "file"}));
    assert_eq!(of("govern"), json!({"value": "both", "from": "default"}));
    assert_eq!(of("postgres.servers")["from"], "flag");
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
}

/// The numbers of a stream's events after `last`, once there are `count`.
fn streamed(address: SocketAddr, token: &str, last: u64, count: usize) -> Vec<u64> {
    let mut wire = Wire::connect(address);
    wire.say(format!(
        "GET /v1/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nlast-event-id: {last}\r\n\r\n"
    ));
    assert_eq!(wire.head().unwrap().status(), 200);
    let mut text = String::new();
    loop {
        let piece = wire.chunk().expect("it does not end");
        text.push_str(std::str::from_utf8(&piece).unwrap());
        let lines = text.lines();
        let ids = lines.filter_map(|line| line.strip_prefix("id: ")?.parse().ok());
        let ids: Vec<u64> = ids.collect();
        if ids.len() >= count {
            return ids;
        }
    }
}

#[test]
fn streams_go_on_over_a_restart_and_a_kill_without_gap_or_repeat() {
    let mut sidecar = Setup::new().policy(ALLOW).start();
    let (mut operators, mut agents) = (Vec::new(), Vec::new());
    for turn in 0..3 {
        let run = json!({"workflow_id": "w", "run_id": format!("r{turn}")});
        sidecar.event("/v1/workflows", &run);
        for n in 0..5 {
            let signal = json!({"workflow_id": "w", "run_id": format!("r{turn}"), "signal_name": n.to_string()});
            sidecar.event("/v1/signals", &signal);
        }
        for (api, token, heard) in [
            (sidecar.operator, &sidecar.operator_token, &mut operators),
            (sidecar.agent, &sidecar.agent_token, &mut agents),
        ] {
            let last = heard.last().copied().unwrap_or_default();
            heard.extend(streamed(api, token, last, 6));
        }
        sidecar = match turn {
            0 => sidecar.killed_and_started_again(),
            _ => sidecar.ended_and_started_again(),
        };
    }
    let events = sidecar
        .journal()
        .into_iter()
        .filter(|line| line["record"] == "event");
    let written: Vec<u64> = events.map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(written.len(), 18);
    for heard in [operators, agents] {
        let increasing = heard.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(increasing, "{heard:?}");
        let missed: Vec<_> = written.iter().filter(|seq| !heard.contains(seq)).collect();
        assert!(missed.is_empty(), "{missed:?} of {heard:?}");
    }
}

#[test]
fn who_comes_back_after_records_were_deleted_is_told_which() {
    let config = "journal: {segment_bytes: 65536, keep_bytes: 65536}";
    let sidecar = Setup::new().policy(ALLOW).config(config).start();
    let run = json!({"workflow_id": "w", "run_id": "r"});
    sidecar.event("/v1/workflows", &run);
    let second = sidecar.state.join("journal-000002.jsonl");
    let signal = json!({"workflow_id": "w", "run_id": "r", "signal_name": "x".repeat(200)});
    // Each takes more than its name.
    for _ in 0..65_536 / 200 {
        sidecar.event("/v1/signals", &signal);
    }
    until("the second segment", || second.exists().then_some(()));
    let sidecar = sidecar.ended_and_started_again();
    let oldest = sidecar.state.join("journal-000001.jsonl");
    until("the oldest segment to go", || {
        (!oldest.exists()).then_some(())
    });
    let words = ["tail", "--after", "1", "--json"];
    let tail = Running::start(&mut command(&sidecar.state, &words));
    let gap = until("the gap to be told", || {
        let out = tail.out();
        let (first, _) = out.split_once('\n')?;
        Some(serde_json::from_str::<Value>(first).unwrap())
    });
    assert_eq!((&gap["record"], &gap["first"]), (&json!("gap"), &json!(2)));
    let next = until("what is there still", || {
        let out = tail.out();
        serde_json::from_str::<Value>(out.lines().nth(1)?).ok()
    });
    assert!(next["seq"].as_u64() > gap["last"].as_u64(), "{next}");
}
