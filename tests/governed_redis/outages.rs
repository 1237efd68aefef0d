//! Policy that does not answer.

use serde_json::Value;

use crate::support::core::{Core, Say, verdict};
use crate::support::free_port;
use crate::support::redis::{Client, Server, simple, text};
use crate::support::sidecar::Setup;

/// What goes through while Core answers `503`, and what it is told later.
fn through_an_outage(fail_mode: &str, closed_for: &str) -> (Vec<bool>, Vec<Value>) {
    let (core, server) = (Core::start(), Server::start(&[]));
    let port = free_port();
    let url = format!("127.0.0.1:{port}=redis://localhost:{}", server.port);
    let sidecar = Setup::new()
        .core(&core.url(), fail_mode)
        .flag("--redis", &url)
        .config("core:\n  timeout: 5s\n  retries: 0\n")
        .config(&format!("fail_closed_for: {closed_for}\n"))
        .start();
    let mut client = Client::connect(port);
    assert_eq!(client.ask("SET k v"), simple("OK"));
    core.script(|route, _| match route {
        "evaluate" => Say::Answer(503, "{}".to_owned()),
        _ => verdict("allow"),
    });
    // In one pipeline: neighbours of what is refused go on.
    let replies = client.all(&["GET k", "SET k w", "FROB k", "GET k"]);
    assert_eq!(replies[0].is_refusal(), replies[3].is_refusal());
    let refused = replies.iter().map(|reply| reply.is_refusal()).collect();
    // The connection and the server are as they would be without.
    let write_passed = !replies[1].is_refusal();
    let value = if write_passed { "w" } else { "v" };
    assert_eq!(server.ask("GET k"), text(value));
    let told = sidecar.journal().into_iter();
    let told = told.filter(|line| line["stage"] == "started").collect();
    (refused, told)
}

#[test]
fn c_4_what_happens_while_policy_is_down_is_said_for_each_class() {
    for (fail_mode, closed_for, expected) in [
        ("closed", "[]", [true, true, true, true]),
        ("open", "[]", [false, false, false, false]),
        ("open", "[write]", [false, true, false, false]),
        ("open", "[write, opaque]", [false, true, true, false]),
        ("open", "[read]", [true, false, false, true]),
    ] {
        let (refused, told) = through_an_outage(fail_mode, closed_for);
        assert_eq!(refused, expected, "{fail_mode} {closed_for}");
        // It is written down that nobody judged.
        let by_fail_mode = told.iter().filter(|line| line["by_fail_mode"] == true);
        assert_eq!(by_fail_mode.count(), 4, "{told:#?}");
    }
}
