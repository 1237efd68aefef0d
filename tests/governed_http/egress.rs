//! Where the agent may go at all, whatever policy says of what it wants there.

use crate::clients::curl;
use crate::support::origin::Origin;
use crate::support::policies::{ALLOW, AS_THE_PATH_SAYS};
use crate::support::sidecar::Setup;
use crate::support::until;

#[test]
fn private_networks_are_refused_where_that_is_said() {
    let site = Origin::site();
    let sidecar = Setup::new()
        .policy(ALLOW)
        .config("upstream:\n  private: refuse\n  connect_within: 300ms\n")
        .reach(&site)
        .flag("--resolve", "inside.test:80=10.0.0.7")
        .flag("--resolve", "wrapped.test:80=64:ff9b::a00:7")
        .start();
    for host in [
        "inside.test",
        "wrapped.test",
        "10.0.0.7",
        "192.168.1.1",
        "[fd12::1]",
    ] {
        let answer = sidecar.get(&format!("http://{host}/x"));
        let found = (answer.status(), answer.code());
        assert_eq!(found, (403, "address_refused".to_owned()), "{host}");
    }
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
}

#[test]
fn policy_is_asked_before_a_name_is_resolved() {
    let setup = Setup::new().policy(AS_THE_PATH_SAYS);
    // The first question would not be answered before this is over.
    let sidecar = setup.config("upstream:\n  resolve_within: 1ms\n").start();
    let blocked = sidecar.get("http://no-such-name.invalid/started/block");
    assert_eq!(
        (blocked.status(), blocked.code()),
        (403, "blocked".to_owned())
    );
    let blocked = sidecar.get("http://metadata.google.internal/started/block");
    assert_eq!(blocked.code(), "blocked");
    let refused = sidecar.get("http://metadata.google.internal/x");
    assert_eq!(refused.code(), "address_refused");
}

#[test]
fn tunnels_lead_to_named_ports_only_by_connect_and_by_socks() {
    let (open, shut) = (Origin::site(), Origin::site());
    let ports = format!("http:\n  connect_ports: [\"{}\"]\n", open.address.port());
    let setup = Setup::new().policy(ALLOW).config(&ports);
    let sidecar = setup.reach(&open).reach(&shut).start();
    for (scheme, more) in [("http", "--proxytunnel"), ("socks5h", "--globoff")] {
        let proxy = format!("{scheme}://{}", sidecar.http);
        let passed = curl(&["--proxy", &proxy, more, &open.url("/x")]);
        assert_eq!(passed.out, "hello from /x", "{scheme}: {passed:?}");
        let refused = curl(&["--proxy", &proxy, more, &shut.url("/x")]);
        assert!(!refused.status.success(), "{scheme}: {refused:?}");
    }
    let mut wire = sidecar.wire();
    let authority = shut.authority();
    let connect = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    wire.say(connect + "GET /x HTTP/1.1\r\nhost: behind.test\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(
        (answer.status(), answer.code()),
        (403, "port_refused".to_owned())
    );
    assert!(
        wire.is_ended(),
        "what is behind a refused CONNECT is no request"
    );
    assert_eq!(shut.connections(), 0);
    // It is about tunnels: a request in clear is judged as any.
    assert_eq!(sidecar.get(&shut.url("/x")).status(), 200);
    until("the connections to be gone", || {
        (sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
}
