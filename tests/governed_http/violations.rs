//! RFC 9113 §3 to §8 broken frame by frame, on either side of the sidecar: what is answered
//! to it, and that nothing is left of it.
//!
//! A generic code may stand for a more specific one, and a connection may be ended for what
//! would end a stream (§5.4). Where the library is more lenient than the RFC asks for, the
//! row says what comes of it.

use crate::clients::{python_of_tests, script};
use crate::http2::World;
use crate::support::policies::ALLOW;
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{eventually, until};

fn found(sidecar: &Sidecar, arguments: &[&str]) -> Vec<String> {
    let python = python_of_tests().display().to_string();
    let mut command = process::command(&python);
    command.arg(script("http2_violations.py")).args(arguments);
    let ended = process::run(&mut command);
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    let log = sidecar.log();
    assert!(!log.contains("panicked"), "{log}");
    ended.out.lines().map(str::to_owned).collect()
}

/// What the sidecar's descriptors are once no connection is open.
fn descriptors(sidecar: &Sidecar) -> Vec<String> {
    until("every connection to be given up", || {
        (sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
    let folder = format!("/proc/{}/fd", sidecar.running.child.id());
    let links = std::fs::read_dir(folder).unwrap().flatten();
    links
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .map(|target| target.display().to_string())
        .collect()
}

#[rustfmt::skip]
const BY_CLIENTS: [(&str, &str); 67] = [
    ("§3.4 no SETTINGS first", "status 200, goes on"),
    ("§3.4 a preface that goes on otherwise", "closed"),
    ("§4.2 a frame above the size", "GOAWAY FRAME_SIZE_ERROR"),
    ("§4.3 no header block", "GOAWAY PROTOCOL_ERROR"),
    ("§4.3 a table above the size", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1 DATA on an idle stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1 RST_STREAM on an idle stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1 WINDOW_UPDATE on an idle stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1 CONTINUATION on an idle stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1 DATA behind the end of a stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1 HEADERS behind the end of a stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1.1 an even stream", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1.1 a stream below the last", "GOAWAY PROTOCOL_ERROR"),
    ("§5.1.2 more streams than are allowed", "RST_STREAM REFUSED_STREAM, goes on"),
    ("§6.1 DATA on stream 0", "GOAWAY PROTOCOL_ERROR"),
    ("§6.1 more padding than frame", "GOAWAY PROTOCOL_ERROR"),
    ("§6.2 HEADERS on stream 0", "GOAWAY PROTOCOL_ERROR"),
    ("§6.2 more padding than frame", "GOAWAY PROTOCOL_ERROR"),
    ("§6.3 PRIORITY on stream 0", "GOAWAY PROTOCOL_ERROR"),
    ("§6.3 PRIORITY of 4 bytes", "GOAWAY PROTOCOL_ERROR"),
    ("§6.4 RST_STREAM on stream 0", "GOAWAY PROTOCOL_ERROR"),
    ("§6.4 RST_STREAM of 3 bytes", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5 SETTINGS on a stream", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5 an ACK that says something", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5 SETTINGS of 5 bytes", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5.2 ENABLE_PUSH of 2", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5.2 a window above the largest", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5.2 frames below the smallest size", "GOAWAY PROTOCOL_ERROR"),
    ("§6.5.2 frames above the largest size", "GOAWAY PROTOCOL_ERROR"),
    ("§6.6 PUSH_PROMISE by a client", "GOAWAY PROTOCOL_ERROR"),
    ("§6.7 PING on a stream", "GOAWAY PROTOCOL_ERROR"),
    ("§6.7 PING of 7 bytes", "GOAWAY PROTOCOL_ERROR"),
    ("§6.8 GOAWAY on a stream", "GOAWAY PROTOCOL_ERROR"),
    ("§6.9 WINDOW_UPDATE of 0", "GOAWAY PROTOCOL_ERROR"),
    ("§6.9 WINDOW_UPDATE of 0 on a stream", "GOAWAY PROTOCOL_ERROR"),
    ("§6.9 WINDOW_UPDATE of 3 bytes", "GOAWAY PROTOCOL_ERROR"),
    ("§6.9.1 a window above the largest", "GOAWAY FLOW_CONTROL_ERROR"),
    ("§6.9.1 the same of a stream", "RST_STREAM FLOW_CONTROL_ERROR, goes on"),
    ("§6.9.1 more DATA than the window", "RST_STREAM FLOW_CONTROL_ERROR, goes on"),
    ("§6.10 something between HEADERS and CONTINUATION", "GOAWAY PROTOCOL_ERROR"),
    ("§6.10 CONTINUATION of another stream", "GOAWAY PROTOCOL_ERROR"),
    ("§6.10 CONTINUATION without end", "GOAWAY ENHANCE_YOUR_CALM"),
    ("§8.1 trailers without the end", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.1.1 DATA above content-length", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.1.1 DATA below content-length", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.2.1 an upper-case name", "GOAWAY PROTOCOL_ERROR"),
    ("§8.2.1 NUL in a value", "GOAWAY PROTOCOL_ERROR"),
    ("§8.2.1 a line end in a value", "GOAWAY PROTOCOL_ERROR"),
    ("§8.2.1 a space in a name", "GOAWAY PROTOCOL_ERROR"),
    ("§8.2.2 connection", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.2.2 transfer-encoding", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.2.2 TE that is more than trailers", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3 a pseudo-field behind a field", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3 an unknown pseudo-field", "GOAWAY PROTOCOL_ERROR"),
    ("§8.3 a pseudo-field of answers", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3 a pseudo-field in trailers", "status 200, goes on"),
    ("§8.3.1 no :method", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3.1 no :scheme", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3.1 no :path", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3.1 an empty :path", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3.1 two :path", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3.1 two :authority", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.3.1 no authority at all", "status 200, goes on"),
    ("§8.3.1 a Host that differs", "status 421, goes on"),
    ("§8.3.1 an authority with userinfo", "status 400, goes on"),
    ("§8.5 CONNECT with a path", "RST_STREAM PROTOCOL_ERROR, goes on"),
    ("§8.5 CONNECT to elsewhere", "status 400, goes on"),
];

#[test]
fn a_client_that_breaks_http_2_is_told_so_and_nothing_is_left_of_it() {
    let world = World::plain_with(
        Setup::new()
            .policy(ALLOW)
            .config("http:\n  idle_upstreams_max: 0\n"),
    );
    let proxy = world.sidecar.http.to_string();
    let authority = world.url.trim_start_matches("http://");
    let arguments = ["client", &proxy, authority];
    // Once, so that what is opened once is open.
    let first = found(&world.sidecar, &arguments);
    let before = descriptors(&world.sidecar);
    let again = found(&world.sidecar, &arguments);
    let expected: Vec<_> = BY_CLIENTS
        .iter()
        .map(|(name, answer)| format!("{name}: {answer}"))
        .collect();
    assert_eq!(first, expected);
    assert_eq!(again, expected);
    let mut after = Vec::new();
    let closed = eventually(|| {
        after = descriptors(&world.sidecar);
        after.len() <= before.len()
    });
    assert!(closed, "before: {before:?}; after: {after:?}");
}

#[rustfmt::skip]
const BY_ORIGINS: [(&str, &str); 29] = [
    ("§4.2 a frame above the size", "RST_STREAM FRAME_SIZE_ERROR, goes on; origin GOAWAY FRAME_SIZE_ERROR"),
    ("§4.3 no header block", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§5.1 DATA on an idle stream", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§5.1 DATA behind the end of a stream", "status 200, goes on, body whole; origin RST_STREAM STREAM_CLOSED"),
    ("§5.1.1 HEADERS on a stream of its own", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.1 DATA on stream 0", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.1 more padding than frame", "RST_STREAM PROTOCOL_ERROR, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.1 DATA before HEADERS", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.4 RST_STREAM on stream 0", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.5 SETTINGS of 5 bytes", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.5.2 a window above the largest", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.5.2 ENABLE_PUSH of 1 by a server", "status 200, goes on, body whole; origin nothing"),
    ("§6.6 PUSH_PROMISE that was not asked for", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.7 PING of 7 bytes", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.9 WINDOW_UPDATE of 0", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§6.9.1 a window above the largest", "status 502, goes on; origin GOAWAY FLOW_CONTROL_ERROR"),
    ("§6.10 something between HEADERS and CONTINUATION", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§8.1 trailers without the end", "RST_STREAM PROTOCOL_ERROR, goes on; origin RST_STREAM PROTOCOL_ERROR"),
    ("§8.1.1 DATA above content-length", "status 502, goes on; origin RST_STREAM PROTOCOL_ERROR"),
    ("§8.1.1 DATA below content-length", "status 502, goes on; origin RST_STREAM PROTOCOL_ERROR"),
    ("§8.2.1 an upper-case name", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§8.2.1 a line end in a value", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§8.2.2 transfer-encoding", "status 502, goes on; origin RST_STREAM PROTOCOL_ERROR"),
    ("§8.3 a pseudo-field of requests", "status 200, goes on, body whole; origin nothing"),
    ("§8.3 a pseudo-field behind a field", "status 502, goes on; origin RST_STREAM PROTOCOL_ERROR"),
    ("§8.3.2 no :status", "status 502, goes on; origin nothing"),
    ("§8.3.2 a :status that is none", "status 502, goes on; origin GOAWAY PROTOCOL_ERROR"),
    ("§8.3.2 a :status of 101", "status 502, goes on; origin nothing"),
    ("fine", "status 200, goes on"),
];

#[test]
fn an_origin_that_breaks_http_2_is_told_so_and_its_answer_is_never_whole() {
    let setup = Setup::new()
        .policy(ALLOW)
        .flag("--allow-address", "127.0.0.1/32");
    let sidecar = setup.start();
    let proxy = sidecar.http.to_string();
    let lines = found(&sidecar, &["origin", &proxy]);
    let expected: Vec<_> = BY_ORIGINS
        .iter()
        .map(|(name, answer)| format!("{name}: {answer}"))
        .collect();
    assert_eq!(lines, expected);
    // Each request has one decision and one completion.
    let count = |record: &str| {
        let journal = sidecar.journal();
        journal
            .iter()
            .filter(|line| line["record"] == record)
            .count()
    };
    until("the completions", || {
        (count("completion") == BY_ORIGINS.len()).then_some(())
    });
    assert_eq!(count("decision"), BY_ORIGINS.len());
}
