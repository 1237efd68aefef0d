//! Real clients, which do not know that the sidecar is there.

use std::process::Command;

use crate::World;

#[test]
fn redis_cli_shows_results_and_refusals() {
    let world = World::new();
    let script = "SET a 1\nSET forbidden 1\nHELLO 3\nHGETALL none\nGET a\n";
    let file = world.sidecar.setup.write("script.txt", script);
    let ran = Command::new("redis-cli")
        .args(["-p", &world.port.to_string()])
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(
        out.starts_with("OK\nNOPERM blocked by policy: the test says block"),
        "{out}"
    );
    assert!(out.ends_with("\n1\n"), "{out}");
}

/// Each of these programs checks itself, and says what it has seen.
fn checks(program: &mut Command, expected: &str) {
    let world = World::new();
    let ran = program
        .env("REDIS_PORT", world.port.to_string())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(out.trim(), expected, "{err}");
}

fn python(script: &str, expected: &str) {
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    checks(
        Command::new(python).args(["tests/clients/redis.py", script]),
        expected,
    );
}

#[test]
fn redis_py_with_pipelines_transactions_scripts_and_messages() {
    python("sync2", "sync2 saw all");
}

#[test]
fn redis_py_in_resp3() {
    python("sync3", "sync3 saw all");
}

#[test]
fn redis_py_on_asyncio() {
    python("asyncio", "asyncio saw all");
}

#[test]
fn ioredis_with_pipelines_transactions_scripts_and_messages() {
    checks(
        Command::new("node").args(["tests/clients/redis.mjs", "ioredis"]),
        "ioredis saw all",
    );
}

#[test]
fn node_redis_in_resp3() {
    checks(
        Command::new("node").args(["tests/clients/redis.mjs", "node-redis"]),
        "node-redis saw all",
    );
}
