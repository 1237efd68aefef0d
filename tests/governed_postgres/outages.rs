//! Policy that does not answer.

use crate::error;
use crate::support::core::{Core, Say, verdict};
use crate::support::free_port;
use crate::support::postgres::{Client, Server, bind, execute, message, parse, sync, tags};
use crate::support::sidecar::Setup;

/// Whether each of these is refused while Core answers `503`: a read, a change, a read that
/// was prepared before, what is not understood (and may drop what was prepared).
fn through_an_outage(server: &Server, fail_mode: &str, closed_for: &str) -> [bool; 4] {
    let core = Core::start();
    let port = free_port();
    let url = format!("127.0.0.1:{port}=postgres://localhost:{}", server.port);
    let _sidecar = Setup::new()
        .core(&core.url(), fail_mode)
        .flag("--pg", &url)
        .config("core:\n  timeout: 5s\n  retries: 0\n")
        .config(&format!("fail_closed_for: {closed_for}\n"))
        .start();
    let mut client = Client::connect(port, &[("user", "postgres")]);
    client.send(&[parse("s", "SELECT 1"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1Z");
    core.script(|route, _| match route {
        "evaluate" => Say::Answer(503, "{}".to_owned()),
        _ => verdict("allow"),
    });
    let prepared = [bind("", "s"), execute("", 0), sync()].concat();
    let all = [
        message('Q', &[b"SELECT 1\0"]),
        message('Q', &[b"DELETE FROM nothing\0"]),
        prepared,
        message('Q', &[b"DO $$ BEGIN PERFORM 1; END $$\0"]),
    ];
    let answers = all.map(|said| {
        client.send(&said);
        client.until_ready()
    });
    // The session goes on.
    assert_eq!(tags(&client.query("")), "IZ");
    answers.map(|answer| tags(&answer).contains('E') && error(&answer).field('C') == "42501")
}

#[test]
fn c_4_what_happens_while_policy_is_down_is_said_for_each_class() {
    let server = Server::start();
    for (fail_mode, closed_for, expected) in [
        ("closed", "[]", [true, true, true, true]),
        ("open", "[]", [false, false, false, false]),
        ("open", "[write]", [false, true, false, false]),
        ("open", "[write, opaque]", [false, true, false, true]),
        ("open", "[read]", [true, false, true, false]),
    ] {
        let refused = through_an_outage(&server, fail_mode, closed_for);
        assert_eq!(refused, expected, "{fail_mode} {closed_for}");
    }
}
