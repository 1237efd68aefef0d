//! `run -- CMD`: the child's environment, its signals and exit code, the halt,
//! and what is printed around it.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use crate::support::core::Core;
use crate::support::origin::Origin;
use crate::support::policies::{ALLOW, AS_THE_PATH_SAYS};
use crate::support::process::{self, Ended, Running};
use crate::support::sidecar::{Setup, api, journal};
use crate::support::until;

fn shell(setup: &Setup, script: &str) -> Ended {
    process::run(&mut setup.run_command(&["sh", "-c", script]))
}

fn allowing() -> Setup {
    Setup::new().policy(ALLOW)
}

#[test]
fn the_exit_code_is_the_commands() {
    let setup = allowing();
    for code in [0, 1, 42, 255] {
        let ended = shell(&setup, &format!("exit {code}"));
        assert_eq!(ended.status.code(), Some(code), "{}", ended.err);
    }
    let killed = shell(&setup, "kill -9 $$");
    assert_eq!(killed.status.code(), Some(128 + 9));
    let terminated = shell(&setup, "kill -TERM $$");
    assert_eq!(terminated.status.code(), Some(128 + 15));
}

#[test]
fn a_command_that_cannot_be_started_says_so() {
    let setup = allowing();
    let missing = process::run(&mut setup.run_command(&["/nonexistent/agent"]));
    assert_eq!(missing.status.code(), Some(127));
    assert!(
        missing.err.contains("/nonexistent/agent cannot be started"),
        "{}",
        missing.err
    );
    let file = setup.write("not-executable", "text");
    let denied = process::run(&mut setup.run_command(&[&file]));
    assert_eq!(denied.status.code(), Some(126));
}

#[test]
fn arguments_and_output_pass_unchanged() {
    let setup = allowing();
    let words = ["printf", "%s|", "two words", "--flag", "-c", "ü", ""];
    let ended = process::run(&mut setup.run_command(&words));
    assert_eq!(ended.out, "two words|--flag|-c|ü||");
}

#[test]
fn the_child_is_sent_through_the_sidecar_and_given_no_secret() {
    let core = Core::start();
    let key = "obx_test_ffffffffffffffffffffffffffffffffffffffffffffffff";
    let setup = Setup::new()
        .flag("--core-url", &core.url())
        .env("OPENBOX_API_KEY", key)
        .env("COPIED_KEY", key)
        .env("OPENBOX_OPERATOR_TOKEN", "obxop_private")
        .env("OPENAI_API_KEY", "the-agents-own")
        .env("NO_PROXY", "internal.test")
        .env("HTTP_PROXY", "http://elsewhere.test:1");
    let ended = process::run(&mut setup.run_command(&["env", "-0"]));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    let variables: HashMap<_, _> = ended
        .out
        .split('\0')
        .filter_map(|v| v.split_once('='))
        .collect();
    let proxy = variables["HTTPS_PROXY"];
    assert!(proxy.starts_with("http://127.0.0.1:"), "{proxy}");
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        assert_eq!(variables[name], proxy, "{name}");
    }
    let bypassed: Vec<_> = variables["NO_PROXY"].split(',').collect();
    for host in ["internal.test", "localhost", "127.0.0.1", "::1"] {
        assert!(bypassed.contains(&host), "{host} in {bypassed:?}");
    }
    let bundle = setup.state().join("bundle.pem").display().to_string();
    for name in [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
    ] {
        assert_eq!(variables[name], bundle, "{name}");
    }
    assert!(variables["NODE_EXTRA_CA_CERTS"].ends_with("/ca.pem"));
    assert!(variables["JAVA_TOOL_OPTIONS"].contains("-Dhttps.proxyHost=127.0.0.1"));
    // The key of the agent's SDK is the token of the agent API.
    assert_eq!(
        variables["OPENBOX_API_KEY"],
        variables["OPENBOX_SIDECAR_TOKEN"]
    );
    assert!(variables["OPENBOX_API_KEY"].starts_with("obx_test_"));
    assert!(variables["OPENBOX_URL"].starts_with("http://127.0.0.1:"));
    assert_eq!(variables["OPENAI_API_KEY"], "the-agents-own");
    for name in ["COPIED_KEY", "OPENBOX_OPERATOR_TOKEN", "OPENBOX_CORE_URL"] {
        assert!(!variables.contains_key(name), "{name}");
    }
    assert!(!ended.out.contains(key) && !ended.err.contains(key));
}

#[test]
fn the_childs_token_opens_the_agent_api_and_not_the_operators() {
    let setup = allowing();
    let script = r#"
curl -sS -H "authorization: Bearer $OPENBOX_SIDECAR_TOKEN" "$OPENBOX_SIDECAR_URL/v1/session"
printf '\n%s\n' "$OPENBOX_SIDECAR_TOKEN"
sed 's/.*"url":"\([^"]*\)".*/\1/' "$STATE/operator.json"
"#;
    let mut command = setup.run_command(&["sh", "-c", &format!("{script}\nread -r _ < \"$FIFO\"")]);
    let fifo = setup.folder().join("fifo").display().to_string();
    assert!(
        process::run(process::command("mkfifo").arg(&fifo))
            .status
            .success()
    );
    command.env("FIFO", &fifo).env("STATE", setup.state());
    let running = Running::start(&mut command);
    let lines = until("the child to say it all", || {
        let said = running.out();
        let lines = said.lines().filter(|line| !line.is_empty());
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        (lines.len() >= 3).then_some(lines)
    });
    let session: Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(session["workflow_id"].is_string(), "{session}");
    let operator = lines[2].strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(api(operator, &lines[1], "GET", "/v1/runs", "").0, 401);
    fs::write(&fifo, "go on\n").unwrap();
    assert_eq!(running.ended().status.code(), Some(0));
}

#[test]
fn requests_of_the_child_are_governed_and_summed_up() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let script = format!(
        "curl -sS {0}/hello; curl -sS {0}/started/constrain; curl -sS {0}/started/block; curl -sS {0}/completed/block",
        site.url("")
    );
    let ended = shell(&setup, &script);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    assert!(ended.out.starts_with("hello from /hello"), "{}", ended.out);
    assert!(ended.out.contains("\"code\":\"blocked\""), "{}", ended.out);
    let summary = "openbox-sidecar: 4 operations: 2 allowed, 1 constrained, 0 held, 1 blocked, 1 withheld, 0 halted, 0 refused without a verdict";
    assert!(ended.err.contains(summary), "{}", ended.err);
    let path = setup.state().join("journal.jsonl").display().to_string();
    assert!(ended.err.contains(&path), "{}", ended.err);
    // The banner, before: who judges and where.
    assert!(
        ended.err.contains("local policy: ") && ended.err.contains("policy.rego"),
        "{}",
        ended.err
    );
    assert!(
        !setup.state().join("ca.key").exists(),
        "the authority of a run is its alone"
    );
}

#[test]
fn quiet_prints_nothing_of_its_own() {
    let setup = allowing();
    let mut command = setup.command("run");
    let ended = process::run(command.args(["--quiet", "--", "echo", "mine"]));
    assert_eq!((&*ended.out, &*ended.err), ("mine\n", ""));
}

#[test]
fn a_halt_terminates_the_child_and_the_exit_code_is_77() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let script = format!(
        "trap 'echo terminated; exit 3' TERM\ncurl -sS {0}/started/halt\nwhile :; do sleep 0.02; done",
        site.url("")
    );
    let ended = shell(&setup, &script);
    assert_eq!(ended.status.code(), Some(77), "{}", ended.err);
    assert!(ended.out.contains("\"code\":\"halted\""), "{}", ended.out);
    assert!(ended.out.ends_with("terminated\n"), "{}", ended.out);
    assert!(
        ended
            .err
            .contains("openbox-sidecar: halted: the test says halt"),
        "{}",
        ended.err
    );
    assert_eq!(site.connections(), 0);
}

#[test]
fn a_child_that_ignores_the_halt_is_killed() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let script = format!(
        "trap '' TERM\ncurl -sS {0}/started/halt\nwhile :; do sleep 0.05; done",
        site.url("")
    );
    let ended = shell(&setup, &script);
    assert_eq!(ended.status.code(), Some(77), "{}", ended.err);
}

#[test]
fn a_child_that_ends_well_after_a_halt_was_halted_all_the_same() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let script = format!(
        "trap '' TERM; curl -sS -o /dev/null {0}/started/halt; exit 0",
        site.url("")
    );
    assert_eq!(shell(&setup, &script).status.code(), Some(77));
}

#[test]
fn a_halt_by_the_operator_ends_a_run() {
    let setup = allowing();
    let mut command = setup.run_command(&["sh", "-c", "echo ready; exec sleep 60"]);
    let running = Running::start(&mut command);
    until("the child", || {
        running.out().contains("ready").then_some(())
    });
    let operator = fs::read_to_string(setup.state().join("operator.json")).unwrap();
    let operator: Value = serde_json::from_str(&operator).unwrap();
    let address = operator["url"]
        .as_str()
        .unwrap()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let token = operator["token"].as_str().unwrap();
    let (status, _) = api(
        address,
        token,
        "POST",
        "/v1/runs/own/halt",
        r#"{"reason":"enough"}"#,
    );
    assert_eq!(status, 200);
    let ended = running.ended();
    assert_eq!(ended.status.code(), Some(77));
    assert!(ended.err.contains("halted: enough"), "{}", ended.err);
    assert!(!setup.state().join("operator.json").exists());
}

#[test]
fn signals_reach_the_child() {
    for (name, code) in [("TERM", 21), ("INT", 22), ("HUP", 23)] {
        let setup = allowing();
        let script = format!("trap 'exit {code}' {name}; echo ready; while :; do sleep 0.02; done");
        let running = Running::start(&mut setup.run_command(&["sh", "-c", &script]));
        until("the child", || {
            running.out().contains("ready").then_some(())
        });
        running.signal(name);
        assert_eq!(running.ended().status.code(), Some(code), "{name}");
    }
}

#[test]
fn a_started_approval_is_given_from_another_process_and_the_child_goes_on() {
    let site = Origin::site();
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site);
    let url = site.url("/started/require_approval");
    let running = Running::start(&mut setup.run_command(&["curl", "-sS", &url]));
    let cli = |words: &[&str]| {
        let mut command = process::command(crate::support::sidecar::BINARY);
        let state = setup.state().display().to_string();
        let words = words
            .iter()
            .chain(&["--state-dir", &state])
            .map(|w| (*w).to_owned())
            .collect::<Vec<_>>();
        process::run(command.args(words))
    };
    let id = until("the approval", || {
        let listed = cli(&["approvals", "list"]);
        let words = listed
            .out
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        words.into_iter().find(|word| word.starts_with("apr_"))
    });
    let approved = cli(&["approvals", "approve", &id]);
    assert_eq!(approved.status.code(), Some(0), "{}", approved.err);
    let ended = running.ended();
    assert_eq!(
        (ended.status.code(), &*ended.out),
        (Some(0), "hello from /started/require_approval")
    );
    assert!(ended.err.contains("1 held"), "{}", ended.err);
    let states: Vec<_> = journal(&setup.state())
        .into_iter()
        .filter(|l| l["record"] == "approval")
        .map(|l| l["state"].clone())
        .collect();
    assert_eq!(states, ["pending", "granted", "consumed"]);
}

#[test]
fn runs_are_halted_and_resumed_from_the_command_line() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(ALLOW).reach(&site).start();
    let state = sidecar.state.display().to_string();
    let cli = |words: &[&str]| {
        let mut command = process::command(crate::support::sidecar::BINARY);
        let ended = process::run(command.args(words).args(["--state-dir", &state]));
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {}", ended.err);
        ended.out
    };
    cli(&["runs", "halt", "own", "--reason", "enough"]);
    assert_eq!(sidecar.get(&site.url("/x")).code(), "halted");
    assert!(cli(&["runs", "list"]).contains("enough"));
    cli(&["runs", "resume", "own"]);
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
}

#[test]
fn env_sends_a_shell_through_a_serving_sidecar() {
    let site = Origin::site();
    let sidecar = Setup::new().policy(AS_THE_PATH_SAYS).reach(&site).start();
    let script = format!(
        "eval \"$({} env --state-dir {} --http-listen {} --agent-listen {})\" && curl -sS {}",
        crate::support::sidecar::BINARY,
        sidecar.state.display(),
        sidecar.http,
        sidecar.agent,
        site.url("/started/block"),
    );
    let ended = process::run(process::command("sh").args(["-c", &script]));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    assert!(ended.out.contains("\"code\":\"blocked\""), "{}", ended.out);
}

/// Tries by a client that does not know the sidecar's authority, and by one that speaks what nobody knows here.
#[test]
fn a_client_that_is_not_served_is_explained_once_and_counted_each_time() {
    let setup = allowing();
    let script = r#"
for try in 1 2 3; do
    curl -sS --cacert /etc/ssl/certs/ca-certificates.crt https://pins.test/; echo "status $?"
done
for try in 1 2; do
    printf '\001\002\003' | curl -sS --proxytunnel --max-time 20 telnet://odd.test:443
done
curl -sS "http://$HEALTH/metrics" | grep 'connections_refused_total.*protocol="http"' | grep -v ' 0$'
"#;
    let port = crate::support::free_port();
    let health = format!("127.0.0.1:{port}");
    let mut command = setup.command("run");
    command.args([
        "--health-listen",
        &health,
        "--quiet",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let ended = process::run(command.env("HEALTH", &health));
    // What curl says of a certificate that it does not trust.
    assert_eq!(ended.out.matches("status 60").count(), 3, "{ended:?}");
    let told = |host: &str| {
        let lines = ended
            .err
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(host));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let pinned = told("pins.test");
    assert_eq!(pinned.len(), 1, "{}", ended.err);
    assert!(
        pinned[0].contains("does not accept the sidecar's certificate (UnknownCA)"),
        "{pinned:?}"
    );
    assert!(
        pinned[0].contains("put the host on http.passthrough"),
        "{pinned:?}"
    );
    let odd = told("odd.test");
    assert_eq!(odd.len(), 1, "{}", ended.err);
    assert!(
        odd[0].contains("neither TLS nor HTTP; put the host on http.passthrough"),
        "{odd:?}"
    );
    for counted in [
        r#"openbox_connections_refused_total{cause="tls",protocol="http"} 3"#,
        r#"openbox_connections_refused_total{cause="foreign_protocol",protocol="http"} 2"#,
    ] {
        assert!(ended.out.contains(counted), "{}", ended.out);
    }
}
