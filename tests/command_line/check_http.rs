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
  over_cap     of no effect: no body is captured
  completed    observe
  hold_within  25s
  answer_within 900s
  idle_within  300s
  body_within  86400s
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
        ended.err.contains("is no http, https, ws or wss URL"),
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

/// Each configuration, request and what is said of it, line by line; behind `!`, what is not.
fn said(policy: &str, rows: &[(&str, &[&str], &[&str])]) {
    let mut wrong = Vec::new();
    for (config, words, lines) in rows {
        let setup = Setup::new();
        let file = setup.write("credential", "hush-hush-1");
        let config = config.replace("FILE", &file);
        let policy = setup.write("my.rego", policy);
        setup.write("my_rules.yaml", RULES);
        let config = setup.write("config.yaml", &config);
        let mut command = process::command(BINARY);
        command.args(["check", "http"]).args(*words);
        let ended = process::run(command.args(["--policy", &policy, "--config", &config]));
        let lines = lines.iter().map(|line| line.replace("FILE", &file));
        let missing = lines.filter(|line| match line.strip_prefix('!') {
            Some(unsaid) => ended.out.contains(unsaid),
            None => !ended.out.contains(line),
        });
        wrong.extend(
            missing
                .map(|line| format!("{words:?}: {line:?} is not in\n{}{}", ended.out, ended.err)),
        );
        assert!(!ended.out.contains("hush") && !ended.err.contains("hush"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const RULES: &str = r"
guardrails:
  - {name: said, type: pii, entities: [EMAIL_ADDRESS], stage: input, action: redact, operations: [http_request]}
";

#[test]
fn what_goes_on_unasked_or_changed_or_with_a_credential_is_told() {
    let each =
        "http:\n  judge_each: [\"a.test/each\"]\n  routes: [\"GET a.test/* hold_within=5m\"]\n";
    let own = "upstream:\n  allow_address: [127.0.0.0/8]\nlisten:\n  operator: 127.0.0.1:15999\npostgres:\n  servers: [\"127.0.0.1:15432=postgres://db\"]\n";
    let credentials = "http:\n  passthrough: [pinned.test]\n  credentials: [\"a.test/key file=FILE header=x-key\", \"*.test file=FILE\"]\n";
    let refused = "verdict        refused: body_too_large_to_judge";
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &[&str])] = &[
        // `govern`
        ("govern: hooks\n",    &["GET", "http://a.test/started/block"],  &["verdict        allow: not asked: `govern` leaves this out\n"]),
        ("govern: boundary\n", &["GET", "http://a.test/started/block"],  &["verdict        block: "]),
        // What is redacted.
        ("", &["POST", "http://a.test/", "--body", "to ann@a.test"],      &["verdict        allow", "\nredacted       the body goes on as \"to <EMAIL_ADDRESS>\"\n"]),
        ("", &["POST", "http://a.test/started/block", "--body", "to ann@a.test"], &["verdict        block: ", "!redacted"]),
        ("http:\n  capture_bytes_max: 4\n  over_cap: deny\n", &["POST", "http://a.test/", "--body", "five!"], &[refused]),
        ("http:\n  capture: false\n  over_cap: deny\n", &["POST", "http://a.test/", "--body", "five!"], &["verdict        allow", "  completed    enforce, for answers without a body: "]),
        // What an answer would get.
        ("http:\n  over_cap: deny\n", &["GET", "http://a.test/"],         &["  completed    enforce: an answer goes out once policy has seen all of it, or is refused\n"]),
        ("http:\n  over_cap: deny\n  completed: observe\n", &["GET", "http://a.test/"], &["  completed    observe\n"]),
        ("http:\n  over_cap: spill\n", &["GET", "http://a.test/"],        &["  completed    enforce: what is over the cap, or slow, goes out before it is judged\n"]),
        // Messages of a WebSocket.
        (each, &["POST", "wss://a.test/each?token=hush", "--body", "x"],  &["asked about    POST wss://a.test/each?token=[REDACTED]\n", "read           the message\n", "  hold_within  300s\n", "verdict        allow"]),
        (each, &["GET", "wss://a.test/each"],                             &["asked about    GET https://a.test/each\n", "the request, and each message or event"]),
        (each, &["POST", "ws://b.test/each"],                             &["read           the handshake only: ", "verdict        not asked: the message passes\n"]),
        // Our own listeners.
        (own, &["GET", "http://127.0.0.1:15801/"],                        &["address        refused, whatever the verdict: a listener of this sidecar\n"]),
        (own, &["GET", "http://127.0.0.1:15999/"],                        &["a listener of this sidecar\n"]),
        (own, &["GET", "http://127.0.0.1:15432/"],                        &["a listener of this sidecar\n"]),
        // Credentials.
        (credentials, &["GET", "https://a.test/key"],                     &["credential     http.credentials[0]: x-key from FILE, once it may leave\n"]),
        (credentials, &["GET", "https://b.test/"],                        &["credential     http.credentials[1]: authorization from FILE, once it may leave\n"]),
        (credentials, &["GET", "http://b.test/"],                         &["credential     none: http.credentials[1] fits, but the request goes in the clear, and the line does not say `plain`\n"]),
        (credentials, &["TRACE", "https://b.test/"],                      &["credential     none: http.credentials[1] fits, but the answer to TRACE"]),
    ];
    said(AS_THE_PATH_SAYS, rows);
    let setup = Setup::new();
    for (words, unsaid) in [
        (["GET", "https://pinned.test/"], "credential "),
        (["GET", "http://127.0.0.1:15802/"], "a listener"),
        (["GET", "http://a.test/started/block"], "redacted "),
    ] {
        let ended = check(&setup, "http:\n  passthrough: [pinned.test]\n", &words);
        assert!(!ended.out.contains(unsaid), "{words:?}: {}", ended.out);
    }
}

/// Decides by what a field, a body and a tool say.
const BY_WHAT_IT_SAYS: &str = r#"
package test

default result := {"decision": "ALLOW"}

span := input.spans[0]

result := {"decision": "BLOCK", "reason": concat(" ", ["kind", span.request_headers["x-kind"]])} if {
	span.request_headers["x-kind"]
}

result := {"decision": "BLOCK", "reason": "not hidden"} if {
	span.request_headers.authorization != "[REDACTED]"
}

result := {"decision": "BLOCK", "reason": "a body"} if {
	span.request_body
}

result := {"decision": "BLOCK", "reason": "a tool"} if {
	span.attributes["gen_ai.tool.name"] == "drop"
}
"#;

#[test]
fn a_policy_is_shown_the_headers_and_the_body_that_it_would_be_shown() {
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"drop"}}"#;
    let url = "http://a.test/";
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("", &["GET", url, "-H", "X-Kind: odd", "-H", "accept: */*"],              &["verdict        block: kind odd "]),
        ("", &["GET", url, "--header", "Authorization: Bearer hush"],              &["verdict        allow"]),
        ("", &["GET", url, "-H", "connection: x-kind", "-H", "x-kind: odd"],       &["verdict        allow"]),
        ("", &["POST", url, "--body", "x"],                                        &["verdict        block: a body "]),
        ("", &["POST", url, "--body", "x", "-H", "content-type: image/png"],       &["verdict        allow"]),
    ];
    said(BY_WHAT_IT_SAYS, rows);
    let by_tool = BY_WHAT_IT_SAYS.replace("span.request_body", "false");
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("", &["POST", url, "--body", call],                                       &["verdict        block: a tool "]),
        ("http: {capture: false}", &["POST", url, "--body", call],                 &["verdict        allow"]),
    ];
    said(&by_tool, rows);
}

/// Redacts everything, and blocks what says so.
const REDACTS: &str = r#"
package test

default result := {"decision": "ALLOW", "redacted": {"request_body": "hidden"}}

result := {"decision": "BLOCK", "reason": "no", "redacted": {"request_body": "hidden"}} if {
	input.spans[0].http_method == "PUT"
}
"#;

#[test]
fn what_is_redacted_is_told_where_something_goes_on() {
    let url = "http://a.test/";
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("", &["POST", url, "--body", "x"],                           &["verdict        allow", "\nredacted       the body goes on as \"hidden\"\n"]),
        ("", &["GET", url],                                           &["verdict        allow", "\nredacted       refused: constraint_not_applicable"]),
        ("http: {capture: false}", &["POST", url, "--body", "x"],     &["\nredacted       refused: constraint_not_applicable"]),
        ("", &["PUT", url, "--body", "x"],                            &["verdict        block: no", "!redacted"]),
    ];
    said(REDACTS, rows);
}

#[test]
fn a_credential_that_cannot_be_used_ends_the_start_and_is_not_shown() {
    let setup = Setup::new();
    let file = setup.write("credential", "hush\nhush");
    for (line, told) in [
        (format!("a.test file={file}"), "it has more than one line"),
        (
            format!("a.test file={file} header=host"),
            "is not a header of a credential",
        ),
        (
            format!("pinned.test file={file}"),
            "lets the host pass unread",
        ),
        ("a.test file=/nowhere".to_owned(), "/nowhere: No such file"),
    ] {
        let config =
            serde_json::json!({"http": {"passthrough": ["pinned.test"], "credentials": [line]}});
        let config = setup.write("config.yaml", &config.to_string());
        for verb in ["check", "serve"] {
            let mut command = setup.command(verb);
            let ended = process::run(command.args(["--config", &config]));
            assert_eq!(ended.status.code(), Some(78), "{}", ended.err);
            assert!(
                ended.err.contains("http.credentials[0] (") && ended.err.contains(told),
                "{}",
                ended.err
            );
            assert!(!ended.err.contains("hush"), "{}", ended.err);
        }
    }
}
