//! Starts that fail, each with what was found and what to do, and the verbs
//! that start nothing.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::core::Core;
use crate::support::policies::ALLOW;
use crate::support::process::{self, Ended, Running};
use crate::support::sidecar::{BINARY, Setup, Sidecar};
use crate::support::{free_port, until};

fn serve(setup: &Setup) -> Ended {
    process::run(&mut setup.serve_command())
}

#[test]
fn a_bad_configuration_names_every_problem_at_once() {
    let yaml = "fail_mode: perhaps\nhttp:\n  hold_within: 25\n  no_such_key: 1\napprovals:\n  open_max: 0\nlisten:\n  http: nowhere\n";
    for verb in ["serve", "check", "run"] {
        let setup = Setup::new().config(yaml);
        let mut command = setup.command(verb);
        if verb == "run" {
            command.args(["--", "true"]);
        }
        let ended = process::run(&mut command);
        assert_eq!(ended.status.code(), Some(78), "{verb}: {}", ended.err);
        assert!(
            ended.err.contains("configuration problems"),
            "{}",
            ended.err
        );
        for told in [
            "fail_mode",
            "perhaps",
            "http.hold_within",
            "no_such_key",
            "approvals.open_max",
            "listen.http",
            "expected",
            "example",
        ] {
            assert!(ended.err.contains(told), "{verb}: {told} in {}", ended.err);
        }
        assert!(!setup.state().exists(), "{verb}: nothing is made");
    }
}

#[test]
fn a_configuration_that_is_no_yaml_or_not_there_is_told() {
    for yaml in ["http: [", "- a\n- b\n", "\u{0}"] {
        let ended = serve(&Setup::new().config(yaml));
        assert_eq!(ended.status.code(), Some(78), "{yaml:?}: {}", ended.err);
        assert!(ended.err.contains("openbox-sidecar.yaml"), "{}", ended.err);
    }
    let ended = serve(&Setup::new().flag("--config", "/nonexistent.yaml"));
    assert_eq!(ended.status.code(), Some(78));
    assert!(ended.err.contains("/nonexistent.yaml"), "{}", ended.err);
}

#[test]
fn a_state_file_that_cannot_be_used_is_told_and_left_alone() {
    let setup = Setup::new().policy(ALLOW);
    let file = setup.state().join("state.redb");
    fs::create_dir_all(setup.state()).unwrap();
    fs::write(&file, "something else").unwrap();
    let ended = serve(&setup);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    for told in ["state.redb", "cannot be used", "move it away"] {
        assert!(ended.err.contains(told), "{told} in {}", ended.err);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "something else");
}

#[test]
fn a_core_that_is_the_sidecar_itself_is_told() {
    let port = free_port();
    for (host, heard) in [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("localhost", "0.0.0.0"),
    ] {
        let setup = Setup::new()
            .flag("--core-url", &format!("http://{host}:{port}"))
            .env("OPENBOX_API_KEY", "obx_test_0123456789abcdef")
            .flag("--agent-listen", &format!("{heard}:{port}"));
        let mut command = setup.command("serve");
        for name in ["http", "operator", "health"] {
            command.args([format!("--{name}-listen"), "127.0.0.1:0".to_owned()]);
        }
        let ended = process::run(&mut command);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
        assert!(ended.err.contains("this sidecar itself"), "{}", ended.err);
        assert!(ended.err.contains("OPENBOX_CORE_URL"), "{}", ended.err);
    }
}

#[test]
fn a_policy_that_cannot_be_loaded_names_file_and_line() {
    let rows = [
        ("syntax", "package test\n\nresult := {\n", ":4"),
        (
            "unknown builtin",
            "package test\n\nresult := {\"decision\": no_such_builtin(1)}\n",
            ":3",
        ),
    ];
    for (name, rego, line) in rows {
        let setup = Setup::new().policy(rego);
        for verb in ["serve", "check"] {
            let ended = process::run(&mut setup.command(verb));
            assert_eq!(ended.status.code(), Some(78), "{name}: {}", ended.err);
            assert!(
                ended.err.contains(&format!("policy.rego{line}")),
                "{name}: {}",
                ended.err
            );
        }
    }
    let ended = serve(&Setup::new().flag("--policy", "/nonexistent/policy"));
    assert_eq!(ended.status.code(), Some(78), "{}", ended.err);
    assert!(ended.err.contains("/nonexistent/policy"), "{}", ended.err);
}

#[test]
fn check_says_that_a_good_configuration_is_good() {
    let setup = Setup::new().policy(ALLOW);
    let ended = process::run(&mut setup.command("check"));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.err);
    assert!(
        ended.out.contains("the configuration is good"),
        "{}",
        ended.out
    );
    assert!(!setup.state().exists());
}

#[test]
fn a_core_that_does_not_answer_or_does_not_know_the_key_is_told_at_start() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let key = "obx_test_0123456789abcdef0123456789abcdef0123456789abcdef";
    let of = |url: &str| {
        Setup::new()
            .flag("--core-url", url)
            .env("OPENBOX_API_KEY", key)
    };
    let ended = serve(&of(&url));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    assert!(
        ended.err.contains(&url) && ended.err.contains("cannot be reached"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains(key));

    let refusing = crate::support::origin::Origin::saying(
        b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 34\r\n\r\n{\"reason_code\":\"invalid_api_key\"} ",
    );
    let url = format!("http://{}", refusing.address);
    let ended = serve(&of(&url));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    assert!(
        ended
            .err
            .contains("rejected us (HTTP 401, invalid_api_key: "),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains(key));
}

#[test]
fn a_core_in_the_clear_on_another_machine_or_without_a_key_is_a_configuration_problem() {
    let core = Core::start();
    let rows = [
        Setup::new()
            .flag("--core-url", "http://core.test")
            .env("OPENBOX_API_KEY", "obx_test_1"),
        Setup::new().flag("--core-url", &core.url()),
        Setup::new()
            .flag("--core-url", &core.url())
            .env("OPENBOX_API_KEY", "sk-not-ours"),
    ];
    for setup in rows {
        let ended = serve(&setup);
        assert_eq!(ended.status.code(), Some(78), "{}", ended.err);
        assert!(!ended.err.contains("sk-not-ours"), "{}", ended.err);
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told() {
    let setup = Setup::new().policy(ALLOW);
    let file = setup.write("a-file", "");
    // A file in its way stops even root.
    let ended = serve(
        &Setup::new()
            .policy(ALLOW)
            .state_in(format!("{file}/state").into()),
    );
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    assert!(
        ended.err.contains("a-file/state") && ended.err.contains("--state-dir"),
        "{}",
        ended.err
    );

    let read_only = Setup::new().policy(ALLOW).state_on_a_disk("ro");
    let ended = serve(&read_only);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    for word in ["read-only", "--state-dir"] {
        assert!(ended.err.contains(word), "{}", ended.err);
    }
    let no_room = Setup::new().policy(ALLOW).state_on_a_disk("size=4k");
    let ended = serve(&no_room);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    for word in ["No space left", "--state-dir"] {
        assert!(ended.err.contains(word), "{}", ended.err);
    }
}

#[test]
fn a_clock_that_was_set_back_while_nothing_ran_is_told() {
    let Sidecar {
        running,
        setup,
        state,
        ..
    } = Setup::new().policy(ALLOW).start();
    assert!(!running.err().contains("set back"), "{}", running.err());
    running.signal("TERM");
    assert!(running.ended().status.success());
    let active = File::options()
        .append(true)
        .open(state.join("journal.jsonl"));
    let hour = Duration::from_secs(3_600);
    active
        .unwrap()
        .set_modified(SystemTime::now() + hour)
        .unwrap();
    let log = setup.start().log();
    assert!(
        log.contains("the clock of this machine was set back"),
        "{log}"
    );
}

#[test]
fn two_sidecars_do_not_share_a_state_folder() {
    let first = Setup::new().policy(ALLOW).start();
    let token = fs::read_to_string(first.state.join("operator.json")).unwrap();
    let ended = serve(&first.setup);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
    assert!(
        ended.err.contains(&first.state.display().to_string()),
        "{}",
        ended.err
    );
    assert!(
        ended.err.contains("--state-dir") || ended.err.contains("state_dir"),
        "{}",
        ended.err
    );
    // The first one is as it was.
    assert_eq!(
        fs::read_to_string(first.state.join("operator.json")).unwrap(),
        token
    );
    assert_eq!(first.operator("GET", "/v1/runs", "").0, 200);
}

#[test]
fn a_sidecar_of_root_is_warned_of_and_one_of_a_user_is_not() {
    let as_user: &[&str] = &["setpriv", "--reuid=1580", "--regid=1580", "--clear-groups"];
    for (words, expected) in [(&[][..], true), (as_user, false)] {
        let setup = Setup::new().policy(ALLOW);
        let binary = setup.folder().join("openbox-sidecar");
        fs::copy(BINARY, &binary).unwrap();
        // That user finds everything here, and makes a folder of its own.
        process::run(
            process::command("chmod")
                .args(["-R", "a+rwX"])
                .arg(setup.folder()),
        );
        let binary = binary.display().to_string();
        let line = [words, &[&*binary]].concat();
        let mut command = process::command(line[0]);
        command.args(&line[1..]);
        let running = Running::start(command.args(setup.serve_command().get_args()));
        until("it to serve", || {
            running.err().contains("\"serving\"").then_some(())
        });
        running.signal("TERM");
        let ended = running.ended();
        let warned = ended.err.contains("the sidecar runs as root");
        assert!(ended.err.contains("\"serving\""), "{ended:?}");
        assert_eq!(warned, expected, "{ended:?}");
    }
}

#[test]
fn a_proxy_of_the_network_that_is_not_gone_through_is_warned_of_without_its_login() {
    let corp = "http://me:secret@proxy.corp:3128";
    let sidecar = Setup::new().policy(ALLOW).env("HTTPS_PROXY", corp).start();
    let log = sidecar.log();
    let told = "HTTPS_PROXY names the proxy http://proxy.corp:3128, ";
    assert!(log.contains(told) && !log.contains("secret@"), "{log}");
}

#[test]
fn a_port_that_is_taken_is_told_with_the_flag_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for name in ["http", "agent", "operator", "health"] {
        let setup = Setup::new().policy(ALLOW);
        let mut command = setup.command("serve");
        for other in ["http", "agent", "operator", "health"] {
            let at = if other == name {
                &address
            } else {
                "127.0.0.1:0"
            };
            command.args([format!("--{other}-listen"), at.to_owned()]);
        }
        let ended = process::run(&mut command);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
        assert!(ended.err.contains(&address), "{}", ended.err);
        assert!(
            ended.err.contains(&format!("--{name}-listen")),
            "{}",
            ended.err
        );
        assert!(!setup.state().join("operator.json").exists());
    }
}

#[test]
fn files_of_the_state_folder_are_their_owners_alone_where_they_are_secret() {
    let sidecar = Setup::new().policy(ALLOW).start();
    let mode = |name: &str| {
        let path = sidecar.state.join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for name in ["operator.json", "agent-token", "ca.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode(""), 0o700);
    for name in ["ca.pem", "bundle.pem"] {
        assert_eq!(mode(name) & 0o444, 0o444, "{name}");
    }
}

#[test]
fn a_journal_that_was_cut_inside_a_line_is_continued_without_it() {
    let site = crate::support::origin::Origin::site();
    let setup = Setup::new().policy(ALLOW).reach(&site);
    fs::create_dir(setup.state()).unwrap();
    fs::write(setup.state().join("journal.jsonl"), "{\"record\":\"dec").unwrap();
    let sidecar = setup.start();
    assert_eq!(sidecar.get(&site.url("/x")).status(), 200);
    sidecar.record_of("/x", "completed");
    let text = fs::read_to_string(sidecar.state.join("journal.jsonl")).unwrap();
    // What comes later may be half written.
    let whole = text.rfind('\n').unwrap();
    let lines: Vec<_> = text[..whole]
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .collect();
    assert!(lines.iter().all(Result::is_ok), "{text}");
    assert!(lines.len() >= 2, "{text}");
}

#[test]
fn the_small_verbs_answer() {
    let run = |words: &[&str]| process::run(process::command(BINARY).args(words));
    let version = run(&["version"]);
    assert_eq!(
        version.out.trim(),
        format!("openbox-sidecar {}", env!("CARGO_PKG_VERSION"))
    );
    let schema = run(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema.out).unwrap();
    assert!(schema["properties"]["fail_mode"].is_object());
    let unknown = run(&["no-such-verb"]);
    assert_eq!(unknown.status.code(), Some(2));
    let sidecar = Setup::new().policy(ALLOW).start();
    let health = run(&["health", "--health-listen", &sidecar.health.to_string()]);
    assert_eq!(health.status.code(), Some(0), "{}", health.err);
    let gone = run(&["health", "--health-listen", "127.0.0.1:1"]);
    assert_eq!(gone.status.code(), Some(1));
    let state = sidecar.state.display().to_string();
    let path = run(&["ca", "path", "--state-dir", &state]);
    assert_eq!(
        path.out.trim(),
        sidecar.ca().display().to_string(),
        "{}",
        path.err
    );
}

/// Asks by a socket, with `token`: the status, and what was answered.
fn by_socket(path: &Path, token: &str) -> String {
    let ended = process::run(
        process::command("curl")
            .args(["-s", "--noproxy", "*", "-w", " %{http_code}"])
            .arg("--unix-socket")
            .arg(path)
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .arg("http://localhost/v1/session"),
    );
    ended.out
}

#[test]
fn the_agent_api_is_at_a_path_with_a_token_that_outlives_a_restart() {
    let token = format!("obx_test_{}", "a1".repeat(24));
    let setup = Setup::new();
    let path = setup.folder().join("agent.sock");
    let in_file = setup.write("token", &format!("{token}\n"));
    let mut sidecar = setup
        .policy(ALLOW)
        .env("OPENBOX_AGENT_SOCKET", path.to_str().unwrap())
        .env("OPENBOX_AGENT_TOKEN_FILE", &in_file)
        .config("listen: {agent_socket_mode: \"0660\"}")
        .start();
    for _ in 0..2 {
        assert_eq!(sidecar.agent_token, token);
        let told = by_socket(&path, &token);
        assert!(
            told.contains("workflow_id") && told.ends_with("200"),
            "{told}"
        );
        let told = by_socket(&path, &sidecar.operator_token);
        assert!(told.ends_with("401"), "{told}");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        // One that is killed leaves its socket behind.
        sidecar = sidecar.killed_and_started_again();
    }
    drop(sidecar.ended_and_started_again());
}

#[test]
fn a_token_that_is_too_short_or_opens_core_is_told_and_not_shown() {
    let key = format!("obx_live_{}", "0".repeat(48));
    for (token, told) in [
        ("secret", "no token of an agent"),
        ("obx_test_short", "no token of an agent"),
        (&key, "the API key of Core"),
    ] {
        let setup = Setup::new()
            .flag("--core-url", "https://core.test")
            .env("OPENBOX_API_KEY", &key)
            .env("OPENBOX_AGENT_TOKEN", token);
        let ended = process::run(&mut setup.command("check"));
        assert_eq!(ended.status.code(), Some(78), "{}", ended.err);
        assert!(ended.err.contains("OPENBOX_AGENT_TOKEN"), "{}", ended.err);
        assert!(ended.err.contains(told), "{}", ended.err);
        assert!(!ended.err.contains(token), "{}", ended.err);
    }
}

#[test]
fn what_agents_in_other_containers_need_is_shared_and_nothing_else() {
    let shared = tempfile::tempdir().unwrap();
    let folder = shared.path().join("openbox");
    let keys = shared.path().join("keys");
    let sidecar = Setup::new()
        .policy(ALLOW)
        .env("OPENBOX_SHARE_DIR", folder.to_str().unwrap())
        .env("OPENBOX_CA_DIR", keys.to_str().unwrap())
        .start();
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["agent-token", "bundle.jks", "bundle.pem", "ca.pem"]);
    for name in names {
        let mode = fs::metadata(folder.join(&name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o644, "{name}");
    }
    let token = |folder: &Path| fs::read(folder.join("agent-token")).unwrap();
    assert_eq!(token(&folder), token(&sidecar.state));
    assert!(keys.join("ca.key").exists());
    assert!(!sidecar.state.join("ca.key").exists());
}
