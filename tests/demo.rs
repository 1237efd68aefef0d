//! The demonstration of `make run` shows what it says; it checks itself.

#![cfg(test)]

use std::process::Command;

#[test]
fn the_demonstration_shows_every_verdict() {
    let shown = Command::new("python3")
        .args(["demo/demo.py", env!("CARGO_BIN_EXE_openbox-sidecar")])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr),
    );
    assert!(shown.status.success(), "{out}\n{err}");
    assert_eq!(out.matches("\n  ok   ").count(), 6, "{out}");
}

#[test]
fn a_command_of_ones_own_is_governed_and_keeps_its_exit_code() {
    let state = tempfile::tempdir().unwrap();
    let ran = Command::new("python3")
        .args(["demo/demo.py", env!("CARGO_BIN_EXE_openbox-sidecar")])
        .arg("test -n \"$HTTP_PROXY\" && echo 'it'\"'\"'s governed' && exit 5")
        .env("OPENBOX_STATE_DIR", state.path())
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(5), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "it's governed\n");
}
