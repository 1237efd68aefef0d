//! Bodies in memory and in files: bounded for all connections together, and one that is
//! to be here whole goes on only then.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use crate::clients::curl;
use crate::support::core::{Core, Say};
use crate::support::origin::{Origin, Shared, pattern, sha256};
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::until;
use crate::support::wire::Wire;

const TEXT: (&str, &str) = ("content-type", "text/plain");

fn world(http: &str) -> (Origin, Sidecar) {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let sidecar = setup.config(&format!("http:\n{http}")).start();
    (site, sidecar)
}

#[test]
fn bodies_wait_for_room_and_are_answered_503_before_there_is_none() {
    let (site, sidecar) = world("  bodies_bytes_max: 131072\n  capture_within: 3s\n");
    let body = "x".repeat(65_536);
    let mut held = sidecar.wire();
    held.say(request(
        "POST",
        &site.url("/started/require_approval"),
        &[TEXT],
        &body,
    ));
    let approval = sidecar.pending_approval();
    let refused = sidecar.send("POST", &site.url("/x"), &[TEXT], "y");
    assert_eq!(
        (
            refused.status(),
            refused.code(),
            refused.get("retry-after"),
            refused.get("connection")
        ),
        (503, "overloaded".to_owned(), Some("1"), Some("close"))
    );
    assert_eq!(site.times("/x"), 0);
    assert!(sidecar.metric("openbox_limit_hits_total{limit=\"bodies\"}") >= 1);
    // Answers have room of their own.
    assert_eq!(sidecar.get(&site.url("/hello")).status(), 200);
    until("the gauge", || {
        (sidecar.metric("openbox_http_bodies_bytes") == 65_536).then_some(())
    });
    // What is not shown to policy needs no room, nor does a long answer that is no text.
    let binary = [("content-type", "image/png"), ("x-framing", "length")];
    let long = "y".repeat(70_000);
    assert_eq!(
        sidecar
            .send("POST", &site.url("/bytes/70000"), &binary, &long)
            .status(),
        200
    );
    sidecar.approve(&approval);
    assert_eq!(held.answer().status(), 200);
    assert_eq!(
        sidecar
            .send("POST", &site.url("/x"), &[TEXT], &body)
            .status(),
        200
    );
}

/// Answers everything with as much text as its path ends with.
fn text_at_once(mut wire: Wire, shared: &Shared) {
    while let Some(request) = wire.request() {
        shared.log(&request);
        let length = request.head.path().rsplit('/').next().unwrap();
        let body = "x".repeat(length.parse().unwrap());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length";
        if wire
            .try_say(format!("{head}: {length}\r\n\r\n{body}"))
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn an_answer_that_finds_no_room_to_be_judged_does_not_go_out() {
    let site = Origin::raw(text_at_once);
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let config = "http:\n  bodies_bytes_max: 131072\n  capture_within: 3s\n";
    let sidecar = setup.config(config).start();
    let mut held = sidecar.wire();
    let path = "/completed/require_approval/40000";
    held.say(request("GET", &site.url(path), &[], ""));
    let approval = sidecar.pending_approval();
    let unread = sidecar.get(&site.url("/40000"));
    assert_eq!(
        (unread.status(), unread.code()),
        (403, "answer_not_read".to_owned())
    );
    let again = (
        &unread.json()["retryable"],
        unread.get("retry-after").is_some(),
    );
    assert_eq!(again, (&false.into(), false));
    let completed = sidecar.record_of("/40000", "completed");
    assert_eq!(completed["outcome"], "failed", "{completed}");
    assert_eq!(completed["http_status_code"], 200, "{completed}");
    let error = completed["error"].as_str().unwrap();
    assert!(error.starts_with("the request was carried out"), "{error}");
    assert_eq!(site.times("/40000"), 1);
    assert!(sidecar.metric("openbox_limit_hits_total{limit=\"bodies\"}") >= 1);
    assert_eq!(sidecar.get(&site.url("/20000")).status(), 200);
    sidecar.approve(&approval);
    assert_eq!(held.answer().body.len(), 40_000);
    assert_eq!(sidecar.get(&site.url("/60000")).status(), 200);
}

#[test]
fn a_body_has_its_room_until_its_request_is_answered() {
    let (site, sidecar) = world("  bodies_bytes_max: 131072\n  capture_within: 3s\n");
    let held = || sidecar.metric("openbox_http_bodies_bytes");
    let body = "x".repeat(40_000);
    let mut waiting = sidecar.wire();
    waiting.say(request("POST", &site.url("/wait/later"), &[TEXT], &body));
    until("the origin to have it", || {
        (site.times("/wait/later") == 1).then_some(())
    });
    // What is asked when it is answered has its text, too.
    assert_eq!(held(), 40_960);
    let refused = sidecar.send("POST", &site.url("/x"), &[TEXT], &body);
    assert_eq!(
        (refused.status(), refused.code()),
        (503, "overloaded".to_owned())
    );
    site.acknowledge("later");
    assert_eq!(waiting.answer().status(), 200);
    let again = sidecar.send("POST", &site.url("/x"), &[TEXT], &body);
    assert_eq!(again.status(), 200);
    until("the room to be given back", || (held() == 0).then_some(()));
}

#[test]
fn a_compressed_body_takes_the_room_of_its_text_while_it_is_held() {
    let (site, sidecar) = world("  bodies_bytes_max: 131072\n  capture_within: 3s\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // Hard enough to press that it is shown whole: no more than 200 times its bytes.
    let text: String = (0..8_000).map(|at| format!("{at:04} ")).collect();
    gzip.write_all(text.as_bytes()).unwrap();
    let body = gzip.finish().unwrap();
    let length = body.len().to_string();
    let fields = [
        TEXT,
        ("content-encoding", "gzip"),
        ("content-length", &*length),
    ];
    let head = request("POST", &site.url("/started/require_approval"), &fields, "");
    let mut held = sidecar.wire();
    held.say([head.as_bytes(), &body].concat());
    let approval = sidecar.pending_approval();
    // 40,000 of 65,536 bytes are its text's.
    let post = |bytes| {
        let body = "y".repeat(bytes);
        sidecar
            .send("POST", &site.url("/x"), &[TEXT], &body)
            .status()
    };
    assert_eq!((post(30_000), post(20_000)), (503, 200));
    sidecar.approve(&approval);
    assert_eq!(held.answer().status(), 200);
    assert_eq!(post(65_536), 200);
}

/// Blocks what it sees the beginning of.
const SEES_SOMETHING: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "BLOCK", "reason": "seen"} if {
	input.spans[0].stage == "completed"
	count(input.spans[0].response_body) >= 4096
}
"#;

/// Answers half, and the other half, of `/two` once `more` is acknowledged.
fn in_two(mut wire: Wire, shared: &Shared) {
    while let Some(request) = wire.request() {
        let half = format!("4e20\r\n{}\r\n", "x".repeat(20_000));
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
        if wire.try_say(format!("{head}{half}")).is_err() {
            return;
        }
        if request.head.path() == "/two" {
            shared.wait_for("more");
        }
        drop(wire.try_say(format!("{half}0\r\n\r\n")));
    }
}

#[test]
fn what_is_copied_of_answers_that_stream_by_leaves_half_of_the_room_to_others() {
    let site = Origin::raw(in_two);
    let setup = Setup::new().policy(SEES_SOMETHING).reach(&site);
    let config = "http:\n  completed: observe\n  bodies_bytes_max: 131072\n  capture_within: 60s\n";
    let sidecar = setup.config(config).start();
    let mut streams: Vec<_> = (0..8)
        .map(|_| {
            let mut wire = sidecar.wire();
            wire.say(request("GET", &site.url("/two"), &[], ""));
            wire
        })
        .collect();
    let mut read = vec![0; 8];
    for (wire, read) in streams.iter_mut().zip(&mut read) {
        assert_eq!(wire.head().unwrap().status(), 200);
        while *read < 20_000 {
            *read += wire.chunk().unwrap().len();
        }
    }
    assert!(sidecar.metric("openbox_limit_hits_total{limit=\"bodies\"}") >= 6);
    let held = sidecar.metric("openbox_http_bodies_bytes");
    assert!((20_000..=32_768).contains(&held), "{held}");
    // A body that policy must see has room.
    let body = "y".repeat(30_000);
    let posted = sidecar.send("POST", &site.url("/posted"), &[TEXT], &body);
    assert_eq!((posted.status(), posted.body.len()), (200, 40_000));
    site.acknowledge("more");
    for (wire, read) in streams.iter_mut().zip(&mut read) {
        while *read < 40_000 {
            *read += wire.chunk().unwrap().len();
        }
        assert_eq!(wire.chunk().unwrap(), b"");
    }
    assert_eq!(read, [40_000; 8]);
    let completed = until("all to be recorded", || {
        let journal = sidecar.journal().into_iter();
        let of = |line: &serde_json::Value| {
            line["stage"] == "completed" && line["http_url"] == site.url("/two")
        };
        let all: Vec<_> = journal.filter(of).collect();
        (all.len() == 8).then_some(all)
    });
    for line in completed {
        let found = (&line["response_body"], &line["response_bytes"]);
        assert_eq!(found, (&"partial".into(), &40_000.into()), "{line}");
        // However little room there was.
        assert_eq!(line["decision"], "outcome_blocked", "{line}");
    }
    until("the room to be given back", || {
        (sidecar.metric("openbox_http_bodies_bytes") == 0).then_some(())
    });
}

/// Halts what says so, far behind its beginning.
const FAR_BEHIND: &str = r#"
package test

default result := {"decision": "ALLOW"}

result := {"decision": "HALT", "reason": "said"} if {
	input.spans[0].stage == "completed"
	contains(input.spans[0].response_body, "halt!")
}
"#;

#[test]
fn policy_is_shown_what_was_gathered_of_an_answer_that_streams_on() {
    let site = Origin::raw(|mut wire, shared| {
        let Some(request) = wire.request() else {
            return;
        };
        shared.log(&request);
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
        let (before, behind) = ("x".repeat(30_000), "x".repeat(29_995));
        drop(wire.try_say(format!("{head}ea60\r\n{before}halt!{behind}\r\n0\r\n\r\n")));
        wire.rest();
    });
    let setup = Setup::new().policy(FAR_BEHIND).reach(&site);
    let config = "http:\n  capture_bytes_max: 32768\n  bodies_bytes_max: 131072\n";
    let sidecar = setup.config(config).start();
    assert_eq!(sidecar.get(&site.url("/x")).body.len(), 60_000);
    let completed = sidecar.record_of("/x", "completed");
    assert_eq!(
        (&completed["decision"], &completed["response_body"]),
        (&"halted".into(), &"partial".into()),
        "{completed}"
    );
}

#[test]
fn what_waits_to_be_judged_takes_room_until_it_is() {
    let (core, site) = (Core::start(), Origin::raw(text_at_once));
    core.at("completed", Say::Nothing);
    let config = "core:\n  timeout: 300s\n  retries: 0\nhttp:\n  completed: observe\n  bodies_bytes_max: 131072\n";
    let setup = Setup::new().core(&core.url(), "closed").reach(&site);
    let sidecar = setup.config(config).start();
    for _ in 0..8 {
        let answer = sidecar.get(&site.url("/20000"));
        assert_eq!(answer.body.len(), 20_000);
    }
    let asked = until("all to be asked about", || {
        let asked = core.asked("evaluate").into_iter();
        let completed = asked.filter(|asked| asked["spans"][0]["stage"] == "completed");
        Some(completed.collect::<Vec<_>>()).filter(|completed| completed.len() == 8)
    });
    let shown =
        |asked: &serde_json::Value| asked["spans"][0]["response_body"].as_str().map(str::len);
    let shown: Vec<_> = asked.iter().filter_map(shown).collect();
    assert!(
        shown.iter().sum::<usize>() <= 32_768 + 8 * 4_096,
        "{shown:?}"
    );
    assert!(shown.iter().all(|shown| *shown >= 4_096), "{shown:?}");
    let held = sidecar.metric("openbox_http_bodies_bytes");
    assert!((20_000..=32_768).contains(&held), "{held}");
}

const SPILL: &str = "  over_cap: spill\n  capture_bytes_max: 1000\n";

/// Descriptors of the sidecar that are files without a name.
fn nameless(sidecar: &Sidecar) -> Vec<std::path::PathBuf> {
    let folder = format!("/proc/{}/fd", sidecar.running.child.id());
    let links = std::fs::read_dir(folder).unwrap().flatten();
    let state = sidecar.state.display().to_string();
    links
        .map(|link| link.path())
        .filter(|path| {
            let target = std::fs::read_link(path).unwrap_or_default();
            let target = target.display().to_string();
            target.starts_with(&state) && target.ends_with("(deleted)")
        })
        .collect()
}

#[test]
fn a_spilled_body_is_here_whole_before_anything_of_it_leaves() {
    let (site, sidecar) = world(&format!("{SPILL}  hold_within: 5s\n"));
    let data = pattern(1 << 20);
    let file = sidecar.setup.folder().join("upload");
    std::fs::write(&file, &data).unwrap();
    let upload = format!("@{}", file.display());
    let proxy = format!("http://{}", sidecar.http);
    for framing in ["x-framing: length", "transfer-encoding: chunked"] {
        let url = site.url("/echo");
        let sent = curl(&[
            "--proxy",
            &proxy,
            "-H",
            "content-type: text/plain",
            "-H",
            framing,
            "--data-binary",
            &upload,
            &url,
        ]);
        let echoed: serde_json::Value = serde_json::from_str(&sent.out).unwrap();
        assert_eq!(echoed["sha256"], sha256(&data), "{framing}: {echoed}");
        let length = serde_json::json!(["content-length", "1048576"]);
        assert!(
            echoed["fields"].as_array().unwrap().contains(&length),
            "{framing}: its length is known: {echoed}"
        );
    }
    let decided = sidecar.record_of("/echo", "started");
    assert_eq!(
        (
            &decided["request_body"],
            &decided["request_bytes"],
            &decided["request_sha256"]
        ),
        (&"partial".into(), &(1 << 20).into(), &sha256(&data).into())
    );
    assert_eq!(
        sidecar.metric("openbox_http_over_cap_total{choice=\"spilled\"}"),
        2
    );
    // Held, it is in a file that nobody else can open; and since all of it is known, a
    // retry is known too.
    let path = "/started/require_approval";
    let text = "z".repeat(200_000);
    let mut held = sidecar.wire();
    held.say(request("POST", &site.url(path), &[TEXT], &text));
    let approval = sidecar.pending_approval();
    // Those of the clients before may still be there.
    let files = until("one file", || {
        Some(nameless(&sidecar)).filter(|files| files.len() == 1)
    });
    let mode = std::fs::metadata(&files[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(held.answer().code(), "approval_pending");
    until("the file to be gone", || {
        nameless(&sidecar).is_empty().then_some(())
    });
    sidecar.approve(&approval);
    let other = format!("{}y", &text[1..]);
    let again = |text: &str| sidecar.send("POST", &site.url(path), &[TEXT], text);
    assert_eq!(again(&other).code(), "approval_pending");
    assert_eq!(again(&text).status(), 200);
    assert_eq!(site.heard().last().unwrap().body, text.as_bytes());
    assert_eq!(site.times(path), 1);
}

#[test]
fn what_cannot_be_spilled_is_refused_and_leaves_nothing() {
    let (site, sidecar) = world(&format!(
        "{SPILL}  spill_bytes_max: 65536\n  spill_within: 3s\n"
    ));
    let full = sidecar.send("POST", &site.url("/x"), &[TEXT], &"x".repeat(70_000));
    assert_eq!(
        (full.status(), full.code(), full.get("retry-after")),
        (503, "overloaded".to_owned(), Some("1"))
    );
    assert!(sidecar.metric("openbox_limit_hits_total{limit=\"spills\"}") >= 1);
    let mut slow = sidecar.wire();
    let whole = request("POST", &site.url("/x"), &[TEXT], &"x".repeat(5_000));
    slow.say(&whole[..whole.len() - 1]);
    let answer = slow.answer();
    assert_eq!(
        (answer.status(), answer.code()),
        (408, "body_too_slow".to_owned())
    );
    let mut left = sidecar.wire();
    left.say(&whole[..whole.len() - 1]);
    drop(left);
    until("the files to be gone", || {
        nameless(&sidecar).is_empty().then_some(())
    });
    let small = sidecar.send("POST", &site.url("/echo"), &[TEXT], "small");
    assert_eq!(small.json()["text"], "small");
    let fits = sidecar.send("POST", &site.url("/echo"), &[TEXT], &"x".repeat(60_000));
    assert_eq!(fits.json()["bytes"], 60_000);
    assert_eq!(site.heard().len(), 2);
    // What was refused before policy was asked has no record; a completion follows soon.
    let count = |record: &str| {
        let journal = sidecar.journal();
        journal
            .iter()
            .filter(|line| line["record"] == record)
            .count()
    };
    until("the completions", || {
        (count("completion") == 2).then_some(())
    });
    assert_eq!(count("decision"), 2);
}
