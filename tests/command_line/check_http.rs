//! `check http` of the real binary.

use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process::{self, Ended};
use crate::support::sidecar::{BINARY, Setup};

fn check(setup: &Setup, config: &str, words: &[&str]) -> Ended {
    let policy = setup.write("my.rego", AS_THE_PATH_SAYS);
    let file = setup.write("config.yaml", config);
    let mut command = process::command(BINARY);
    command.args(["check", "http"]).args(words);
    process::run(command.args(["--policy", &policy, "--config", &file]))
}

#[test]
fn the_route_that_fits_and_the_verdict_are_shown() {
    let setup = Setup::new();
    let config = "http:\n  passthrough: [pinned.test]\n  routes:\n  - GET a.test/* hold_within=5m\n  - a.test/started/* capture=false completed=observe over_cap=deny fail_mode=closed\n";
    let ended = check(&setup, config, &["PUT", "https://A.test/started/block?x=1"]);
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.out, ended.err);
    let expected = "\
asked about    PUT https://a.test/started/block?x=1
route          http.routes[1]: a.test/started/* capture=false completed=observe over_cap=deny fail_mode=closed
read           the request
  capture      no bodies
  over_cap     deny
  completed    observe
  hold_within  25s
  fail_mode    closed
verdict        block: the test says block (data.test)
";
    assert_eq!(ended.out, expected);
    let ended = check(
        &setup,
        config,
        &["PUT", "https://pinned.test/started/block"],
    );
    for line in [
        "asked about    CONNECT https://pinned.test\n",
        "route          none fits",
        "read           the tunnel only",
        "  fail_mode    open\n",
        "verdict        allow",
    ] {
        assert!(ended.out.contains(line), "{line}: {}", ended.out);
    }
    let ended = check(&setup, config, &["GET", "http://169.254.169.254/x"]);
    let refused = "address        refused, whatever the verdict: a cloud metadata service";
    assert!(ended.out.contains(refused), "{}", ended.out);
}

#[test]
fn what_is_no_request_and_what_is_no_route_are_told() {
    let setup = Setup::new();
    let ended = check(&setup, "", &["GET", "/x"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    assert!(
        ended.err.contains("is no http or https URL"),
        "{}",
        ended.err
    );
    let ended = check(
        &setup,
        "http: {routes: [a.test fail=1]}",
        &["GET", "http://a.test/"],
    );
    assert_eq!(ended.status.code(), Some(78), "{}", ended.err);
    assert!(ended.err.contains("http.routes[0] ("), "{}", ended.err);
}

#[test]
fn a_core_is_named_and_not_asked() {
    let mut command = process::command(BINARY);
    command.args(["check", "http", "GET", "http://a.test/"]);
    // Nobody is there: asking would fail.
    command.args(["--core-url", "http://127.0.0.1:1"]);
    command.env(
        "OPENBOX_API_KEY",
        "obx_test_0123456789abcdef0123456789abcdef0123456789abcdef",
    );
    let ended = process::run(&mut command);
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.out, ended.err);
    assert!(
        ended.out.contains("OpenBox Core at http://127.0.0.1:1"),
        "{}",
        ended.out
    );
}
