//! Policy that does not answer.

use crate::support::core::{Core, Say, verdict};
use crate::support::free_port;
use crate::support::mysql::{Client, Server, execute};
use crate::support::sidecar::Setup;

/// Whether each of these is refused while Core answers `503`: a read, a change, what is
/// not understood, a prepared read.
fn through_an_outage(server: &Server, fail_mode: &str, closed_for: &str) -> [bool; 4] {
    let core = Core::start();
    let port = free_port();
    let url = format!("127.0.0.1:{port}=mysql://localhost:{}", server.port);
    let _sidecar = Setup::new()
        .core(&core.url(), fail_mode)
        .flag("--mysql", &url)
        .config("core:\n  timeout: 5s\n  retries: 0\n")
        .config(&format!("fail_closed_for: {closed_for}\n"))
        .start();
    let mut client = Client::connect(port);
    let prepared = client.prepare("SELECT 1");
    core.script(|route, _| match route {
        "evaluate" => Say::Answer(503, "{}".to_owned()),
        _ => verdict("allow"),
    });
    let answers = [
        client.query("SELECT 1"),
        client.query("DELETE FROM t"),
        client.query("CALL nobody()"),
        client.command(&execute(prepared)),
    ];
    // The session goes on.
    assert_eq!(client.command(b"\x0e")[0].body[0], 0, "ping");
    answers.map(|answer| answer[0].is_error() && answer[0].error().0 == 1227)
}

#[test]
fn c_4_what_happens_while_policy_is_down_is_said_for_each_class() {
    let server = Server::start(&[]);
    for (fail_mode, closed_for, expected) in [
        ("closed", "[]", [true, true, true, true]),
        ("open", "[]", [false, false, false, false]),
        ("open", "[write]", [false, true, false, false]),
        ("open", "[write, opaque]", [false, true, true, false]),
        ("open", "[read]", [true, false, false, true]),
    ] {
        let refused = through_an_outage(&server, fail_mode, closed_for);
        assert_eq!(refused, expected, "{fail_mode} {closed_for}");
    }
}
