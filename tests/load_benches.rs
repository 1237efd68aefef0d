//! The load benchmarks run: one short burst of a row or two through this build.
//! What they measure here is not looked at.

#![cfg(test)]

use std::path::Path;
use std::process::Command;

fn runs(benchmark: &str, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load");
    let done = Command::new("python3")
        .arg(script.join(benchmark).join("run.py"))
        .args(["--quick", "--markdown", "--peers", "direct,sidecar"])
        .args(["--sidecar", env!("CARGO_BIN_EXE_openbox-sidecar")])
        .arg("--json")
        .arg(folder.path().join("results.json"))
        .args(more)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    let failed = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}\n{failed}");
    assert!(told.contains("| sidecar |"), "{told}\n{failed}");
}

// One after the other: both look for free ports in the same range.
#[test]
fn the_load_benchmarks_of_the_relays_run() {
    runs("redis", &["--rows", "get-1-3b,set-16-16k"]);
    let none = ["--stream-rounds", "0", "--idle", "0"];
    runs(
        "postgres",
        &[&["--rows", "prepared-8"], none.as_slice()].concat(),
    );
    runs(
        "mysql",
        &[&["--rows", "write-prepared-8"], none.as_slice()].concat(),
    );
}
