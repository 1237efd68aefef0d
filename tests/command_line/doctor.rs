//! `doctor`: with a real sidecar and real clients, nothing is found where nothing is wrong, and each thing that is
//! wrong is found, with what mends it.

use std::path::Path;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::policies::ALLOW;
use crate::support::process::{self, Ended};
use crate::support::sidecar::{BINARY, Setup, journal};

/// `script` under `run`, where `doctor` is a command that looks without clients.
pub(crate) fn under_run(setup: &Setup, script: &str) -> Ended {
    let script = format!("doctor() {{ {BINARY} doctor --json \"$@\"; }}\n{script}");
    let mut command = setup.command("run");
    command.args(["--quiet", "--", "sh", "-c", &script]);
    process::run(&mut command)
}

/// What `doctor` found.
pub(crate) fn report(ended: &Ended) -> Value {
    let whole = serde_json::from_str(&ended.out);
    whole.unwrap_or_else(|error| panic!("{error}: {} {}", ended.out, ended.err))
}

pub(crate) fn codes(report: &Value) -> Vec<&str> {
    let all = report["findings"].as_array().unwrap().iter();
    all.map(|one| one["code"].as_str().unwrap()).collect()
}

/// Those that this machine's own Node brings with it: before 24 (and 22.21) it heeds no variable.
pub(crate) fn of_node() -> Vec<&'static str> {
    let version = process::run(process::command("node").arg("--version")).out;
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map(|n| n.trim().parse::<u32>());
    let (major, minor) = (
        numbers.next().unwrap().unwrap(),
        numbers.next().unwrap().unwrap(),
    );
    match major >= 24 || (major == 22 && minor >= 21) {
        true => vec![],
        false => vec!["node_past"],
    }
}

/// A path on which the Python of the tests comes first.
pub(crate) fn path() -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin");
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .map_or(python, |(_, path)| {
            Path::new(&path).parent().unwrap().to_path_buf()
        });
    let (_, path) = std::env::vars_os()
        .find(|(name, _)| name == "PATH")
        .unwrap();
    format!("{}:{}", python.display(), path.display())
}

#[test]
fn where_nothing_is_wrong_every_client_comes_through_and_nothing_is_found() {
    let setup = Setup::new().policy(ALLOW).env("PATH", &path());
    let ended = under_run(&setup, "doctor");
    let report = report(&ended);
    assert_eq!(codes(&report), of_node(), "{report:#}");
    assert_eq!(ended.status.code(), Some(i32::from(!of_node().is_empty())));
    for client in [
        "curl",
        "Python's urllib",
        "Python's requests",
        "Python's httpx",
        "Python's aiohttp (trust_env=True)",
        "Java's HttpURLConnection",
        "git",
        "npm",
    ] {
        let through = report["through"].as_array().unwrap();
        assert!(
            through.iter().any(|name| name == client),
            "{client}: {report:#}"
        );
    }
    // The sidecar answered by itself: nothing was an operation.
    let operations = journal(&setup.state()).into_iter();
    let judged = operations.filter(|line| line["http_url"].is_string());
    assert_eq!(judged.count(), 0);
}

#[test]
fn everything_that_is_wrong_is_found_by_itself() {
    let setup = Setup::new().policy(ALLOW);
    let other = setup.write("other.pem", &Authority::new().pem);
    let rows = [
        // what is wrong                                        found                     and told
        (
            "unset HTTPS_PROXY https_proxy".to_owned(),
            "proxy_unset",
            "HTTPS_PROXY, https_proxy are not set",
        ),
        (
            "export https_proxy=http://u:hush@127.0.0.1:9".to_owned(),
            "proxy_elsewhere",
            "https_proxy names http://127.0.0.1:9,",
        ),
        (
            "export NO_PROXY='*'".to_owned(),
            "bypass_everything",
            "NO_PROXY: *",
        ),
        (
            "export no_proxy=$no_proxy,api.openai.com".to_owned(),
            "bypass_public",
            "no_proxy: api.openai.com",
        ),
        (
            "unset SSL_CERT_FILE".to_owned(),
            "authorities_unset",
            "SSL_CERT_FILE is not set",
        ),
        (
            "export SSL_CERT_FILE=/nonexistent/x.pem".to_owned(),
            "authorities_unreadable",
            "/nonexistent/x.pem cannot be read",
        ),
        (
            format!("export REQUESTS_CA_BUNDLE={other}"),
            "authorities_of_another",
            "REQUESTS_CA_BUNDLE",
        ),
        (
            "export NODE_USE_ENV_PROXY=0".to_owned(),
            "tool_elsewhere",
            "NODE_USE_ENV_PROXY is 0",
        ),
        (
            "unset NODE_USE_ENV_PROXY".to_owned(),
            "tool_unset",
            "NODE_USE_ENV_PROXY is not set",
        ),
        (
            "unset grpc_proxy".to_owned(),
            "proxy_unset",
            "grpc_proxy is not set",
        ),
        (
            "export JAVA_TOOL_OPTIONS=-Xmx1g".to_owned(),
            "jvm_elsewhere",
            "JAVA_TOOL_OPTIONS",
        ),
        (
            "export JAVA_TOOL_OPTIONS=-Djavax.net.ssl.keyStorePassword=hush".to_owned(),
            "jvm_elsewhere",
            "JAVA_TOOL_OPTIONS",
        ),
        (
            "export OPENBOX_URL='https://core.example.com/?key=hush'".to_owned(),
            "agent_api_elsewhere",
            "OPENBOX_URL is https://core.example.com",
        ),
        (
            "unset JAVA_TOOL_OPTIONS".to_owned(),
            "jvm_unset",
            "JAVA_TOOL_OPTIONS is not set",
        ),
        (
            "export DATABASE_URL=postgres://u:hush@db.internal/x".to_owned(),
            "database_past",
            "DATABASE_URL leads to db.internal:5432",
        ),
        (
            "export REDIS_HOST=cache.internal".to_owned(),
            "database_past",
            "REDIS_HOST leads to cache.internal:6379",
        ),
        (
            "export OPENBOX_URL=https://core.example.com".to_owned(),
            "agent_api_elsewhere",
            "OPENBOX_URL is https://core.example.com",
        ),
        (
            "export OPENBOX_SIDECAR_TOKEN=obx_test_hush".to_owned(),
            "agent_token_of_another",
            "OPENBOX_SIDECAR_TOKEN",
        ),
        (
            "unset OPENBOX_SIDECAR_TOKEN; export OPENBOX_SIDECAR_TOKEN_FILE=/nonexistent/token"
                .to_owned(),
            "agent_token_unreadable",
            "/nonexistent/token cannot be read",
        ),
        (
            format!("unset OPENBOX_SIDECAR_TOKEN; export OPENBOX_SIDECAR_TOKEN_FILE={other}"),
            "agent_token_of_another",
            "OPENBOX_SIDECAR_TOKEN_FILE does not open",
        ),
    ];
    let mut missed = Vec::new();
    for (wrong, code, told) in &rows {
        let ended = under_run(&setup, &format!("{wrong}; doctor --no-probes"));
        let report = report(&ended);
        let first = &report["findings"][0];
        let is_told = first["what"]
            .as_str()
            .is_some_and(|what| what.contains(told));
        let is_mended = first["set"].as_array().is_some_and(|set| !set.is_empty());
        let found = ended.status.code() == Some(1) && codes(&report) == [*code];
        if !found || !is_told || !is_mended || ended.out.contains("hush") {
            missed.push(format!("{wrong}: {:#}", report["findings"]));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn what_a_client_does_not_heed_shows_where_it_is_begun() {
    let setup = Setup::new().policy(ALLOW).env("PATH", &path());
    let rows = [
        (
            "export https_proxy= HTTPS_PROXY= all_proxy= ALL_PROXY=; unset https_proxy HTTPS_PROXY all_proxy ALL_PROXY",
            "client_past",
            "curl does not come through the sidecar by https",
        ),
        (
            "export CURL_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt",
            "client_distrusts",
            "curl does not come through the sidecar by https",
        ),
        (
            "unset JAVA_TOOL_OPTIONS",
            "client_past",
            "Java's HttpURLConnection does not come through the sidecar by http and https: Exception in thread",
        ),
        (
            "export JAVA_TOOL_OPTIONS=\"$JAVA_TOOL_OPTIONS -Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts\"",
            "client_distrusts",
            "Java's HttpURLConnection does not come through the sidecar by https",
        ),
    ];
    for (wrong, code, told) in rows {
        let ended = under_run(&setup, &format!("{wrong}; doctor"));
        let report = report(&ended);
        let mut findings = report["findings"].as_array().unwrap().iter();
        let found = findings
            .any(|one| one["code"] == code && one["what"].as_str().unwrap().starts_with(told));
        assert!(found, "{wrong}: {report:#}");
    }
}

#[test]
fn what_it_says_to_set_is_enough() {
    let sidecar = Setup::new().policy(ALLOW).start();
    let state = sidecar.state.display().to_string();
    let doctor = format!("{BINARY} doctor --json --no-probes --state-dir {state}");
    let before = process::run(process::command("sh").args(["-c", &doctor]));
    let found = report(&before);
    let mut lines = Vec::new();
    for list in ["findings", "notes"] {
        for one in found[list].as_array().unwrap() {
            let set = one["set"].as_array().unwrap().iter();
            lines.extend(
                set.map(|line| line.as_str().unwrap())
                    .filter(|line| line.starts_with("export ")),
            );
        }
    }
    assert!(
        codes(&found).contains(&"proxy_unset") && codes(&found).contains(&"authorities_unset"),
        "{found:#}"
    );
    let script = format!("{}\n{doctor}", lines.join("\n"));
    let after = process::run(process::command("sh").args(["-c", &script]));
    assert_eq!(after.status.code(), Some(0), "{} {}", after.out, after.err);
}

#[test]
fn without_a_sidecar_it_could_not_look() {
    let setup = Setup::new();
    let mut command = process::command(BINARY);
    command
        .env("HOME", setup.folder())
        .args(["doctor", "--http-listen", "127.0.0.1:1"]);
    let ended = process::run(&mut command);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.out);
    assert!(
        ended.err.contains("asked    127.0.0.1:1: "),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("openbox-sidecar serve"), "{}", ended.err);
}

/// Where there is a Node 24; `scripts/test.sh` says where there is none.
#[test]
fn a_node_that_heeds_its_variables_comes_through() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/node24/run");
    let Ok(node) = run.canonicalize() else { return };
    let path = format!("{}:{}", node.parent().unwrap().display(), path());
    let setup = Setup::new().policy(ALLOW).env("PATH", &path);
    let ended = under_run(&setup, "doctor");
    let report = report(&ended);
    assert_eq!(ended.status.code(), Some(0), "{report:#}");
    let through = report["through"].as_array().unwrap();
    assert!(
        through.iter().any(|name| name == "Node's fetch"),
        "{report:#}"
    );
}

#[test]
fn the_kernels_rules_are_looked_for_where_the_sidecar_captures() {
    let setup = Setup::new()
        .policy(ALLOW)
        .config("listen:\n  transparent: 127.0.0.1:15802\n");
    let doctor = format!("{BINARY} doctor --no-probes --json");
    let without = alone(&setup, &doctor);
    assert_eq!(
        codes(&report(&without)),
        ["rules_missing"],
        "{}",
        without.out
    );
    let install = format!(
        "printf 'nameserver 192.0.2.53\n' > $HOME/resolv.conf && {BINARY} init-net install --resolv-conf $HOME/resolv.conf >&2 && {doctor}"
    );
    let with = alone(&setup, &install);
    assert_eq!(with.status.code(), Some(0), "{} {}", with.out, with.err);
    assert_eq!(
        report(&with)["notes"].as_array().map(Vec::len),
        Some(0),
        "{}",
        with.out
    );
}

/// A client that heeds nothing, and whom it asks: between two addresses of a network of their own, out of
/// which nothing leads.
pub(crate) const PAST: &str = r#"
import socket, sys, time
served = socket.create_server(("192.0.2.2", 443))
asking = socket.create_connection(("192.0.2.2", 443), source_address=("192.0.2.1", 0))
answering, _ = served.accept()
if sys.argv[2:] == ["datagrams"]:
    asking.close(), answering.close(), served.close()
    quic = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    quic.bind(("192.0.2.1", 0)), quic.connect(("192.0.2.2", 443))
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("192.0.2.1", 0)), names.connect(("192.0.2.2", 53))
print("connected", flush=True)
time.sleep(float(sys.argv[1]))
"#;

/// `script` under `run` in a network of its own; `$AGENT` is the client.
pub(crate) fn alone(setup: &Setup, script: &str) -> Ended {
    let agent = setup.write("agent.py", PAST);
    let network = "ip link set lo up && ip addr add 192.0.2.1/32 dev lo && ip addr add 192.0.2.2/32 dev lo && exec \"$@\"";
    let run = setup.command("run");
    let mut command = process::command("unshare");
    command.args(["--net", "--map-root-user", "sh", "-c", network, "sh"]);
    command
        .arg(run.get_program())
        .args(run.get_args())
        .args(["--quiet", "--", "sh", "-c", script]);
    command.env("HOME", setup.folder()).env("AGENT", agent);
    process::run(&mut command)
}

#[test]
fn a_process_that_goes_past_the_sidecar_is_named() {
    let setup = Setup::new().policy(ALLOW);
    let rows = [
        // It runs already, with no variable of its own left.
        format!(
            "mkfifo $HOME/said; env -i python3 $AGENT 60 > $HOME/said & read said < $HOME/said; {BINARY} doctor --no-probes --json; found=$?; kill %1 2>/dev/null || kill $!; exit $found"
        ),
        // It is begun to be watched, and says what it says where that is not in the way.
        format!("{BINARY} doctor --no-probes --json -- python3 $AGENT 8"),
    ];
    for script in rows {
        let ended = alone(&setup, &script);
        assert_eq!(
            ended.status.code(),
            Some(1),
            "{script}: {} {}",
            ended.out,
            ended.err
        );
        let report = report(&ended);
        assert_eq!(codes(&report), ["process_past"], "{script}: {report:#}");
        let what = report["findings"][0]["what"].as_str().unwrap();
        assert!(
            what.contains("(python3") && what.contains("agent.py)"),
            "{what}"
        );
        assert!(
            what.ends_with("is connected to 192.0.2.2:443 past the sidecar"),
            "{what}"
        );
    }
}

#[test]
fn datagrams_that_go_past_the_sidecar_are_named_and_questions_for_names_are_not() {
    let setup = Setup::new().policy(ALLOW);
    let script = format!(
        "mkfifo $HOME/said; python3 $AGENT 60 datagrams > $HOME/said & read said < $HOME/said; {BINARY} doctor --no-probes --json; found=$?; kill $!; exit $found"
    );
    let ended = alone(&setup, &script);
    let report = report(&ended);
    assert_eq!(codes(&report), ["process_past"], "{report:#}");
    let what = report["findings"][0]["what"].as_str().unwrap();
    assert!(
        what.ends_with("is connected to 192.0.2.2:443 by UDP past the sidecar"),
        "{what}"
    );
}

#[test]
fn a_command_that_goes_nowhere_is_nothing_to_be_found() {
    let setup = Setup::new().policy(ALLOW);
    let ended = under_run(&setup, "doctor --no-probes -- sh -c 'echo mine; exit 3'");
    assert_eq!(ended.status.code(), Some(0), "{} {}", ended.out, ended.err);
    assert!(ended.err.contains("mine"), "{}", ended.err);
    let notes = report(&ended);
    let notes = notes["notes"].as_array().unwrap().iter();
    assert!(
        notes
            .clone()
            .any(|one| one["what"] == "the command ended with status 3")
    );
}
