//! The binary as its user meets it: exit codes, signals, problems.

#![cfg(test)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// The binary, with nothing of the environment that configures it.
fn sidecar(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openbox-sidecar"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OPENBOX_") {
            command.env_remove(name);
        }
    }
    command.env("OPENBOX_STATE_DIR", state);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(command: &mut Command) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (status.code(), text(&stdout) + &text(&stderr))
}

#[test]
fn a_bad_configuration_is_told_whole_and_exits_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, "fail_mod: open\nworkers: none\n").unwrap();
    for verb in [
        &["serve"][..],
        &["check"],
        &["run", "--fail-mode", "ajar", "--", "true"],
    ] {
        let (verb, rest) = verb.split_first().unwrap();
        let mut command = sidecar(folder.path());
        command.args([verb, "-c"]).arg(&file).args(rest);
        let (code, told) = output(&mut command);
        assert_eq!(code, Some(78), "{verb}: {told}");
        for place in ["fail_mod (", "workers ("] {
            assert!(told.contains(place), "{verb}: {told}");
        }
        assert_eq!(
            told.contains("--fail-mode: \"ajar\""),
            !rest.is_empty(),
            "{told}"
        );
    }
}

#[test]
fn the_annotated_configuration_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sidecar(folder.path());
    let (code, told) = output(command.args(["check", "-c", "config/openbox-sidecar.yaml"]));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("the configuration is good"), "{told}");
}

#[test]
fn run_answers_with_the_exit_code_of_its_command() {
    for (command, expected) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["/nonexistent/command"], 127),
        (&["/"], 126),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = sidecar(folder.path());
        let (code, told) = output(run.args(["run", "--"]).args(command));
        assert_eq!(code, Some(expected), "{command:?}: {told}");
        assert!(told.contains("0 operations: "), "{told}");
    }
}

#[test]
fn quiet_means_that_only_the_command_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = sidecar(folder.path());
    let (code, told) = output(run.args(["run", "--quiet", "--", "echo", "hello"]));
    assert_eq!((code, told.as_str()), (Some(0), "hello\n"));
}

#[test]
fn a_signal_to_run_reaches_its_command() {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let script = format!(
            "trap 'exit 9' {signal}; : > {}; while :; do sleep 0.02; done",
            ready.display()
        );
        let mut run = sidecar(folder.path())
            .args(["run", "--quiet", "--", "sh", "-c", &script])
            // Without a terminal, so that only we are told.
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the command was not started");
            std::thread::sleep(Duration::from_millis(5));
        }
        let kill = format!("kill -{number} {}", run.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(run.wait().unwrap().code(), Some(9), "SIG{signal}");
    }
}

#[test]
fn the_command_sees_the_way_out_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = sidecar(folder.path());
    run.env("OPENBOX_API_KEY", "obx_live_0123456789abcdef")
        .env("COPY_OF_KEY", "obx_live_0123456789abcdef");
    let (code, told) = output(run.args(["run", "--quiet", "--", "env"]));
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("obx_live_"), "{told}");
    for variable in [
        "HTTPS_PROXY=http://127.0.0.1:",
        "SSL_CERT_FILE=/",
        "OPENBOX_API_KEY=obx_test_",
    ] {
        assert!(
            told.contains(&format!("\n{variable}")),
            "{variable} is missing in\n{told}"
        );
    }
}
