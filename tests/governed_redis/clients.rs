//! Real clients, which do not know that the sidecar is there.

use std::process::Command;

use crate::support::free_port;
use crate::support::redis::{Client, Server, command};
use crate::{Setup, World};

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
    checks_in(&World::new(), program, expected);
}

fn checks_in(world: &World, program: &mut Command, expected: &str) {
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
    python_in(&World::new(), script, expected);
}

/// The Python that has the clients.
pub(crate) fn python_program() -> std::ffi::OsString {
    let mut all = std::env::vars_os();
    all.find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1
}

pub(crate) fn python_in(world: &World, script: &str, expected: &str) {
    checks_in(
        world,
        Command::new(python_program()).args(["tests/clients/redis.py", script]),
        expected,
    );
}

/// A program in C, and what it sees at `port`.
fn hiredis(program: &str, port: u16, mode: &str) -> String {
    let ran = Command::new(program)
        .args([&port.to_string(), mode])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{err}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn hiredis_in_c_sees_the_same_direct_and_relayed_and_a_refusal_in_its_place() {
    let world = World::new();
    let program = world.sidecar.setup.write("hiredis", "");
    let built = Command::new("cc")
        .args(["-Wall", "-Werror", "-o"])
        .arg(&program)
        .args(["tests/clients/hiredis.c", "-lhiredis"])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{err}");
    let relayed = hiredis(&program, world.port, "allowed");
    let direct = hiredis(&program, Server::start(&[]).port, "allowed");
    assert_eq!(relayed, direct);
    assert!(direct.lines().count() > 240, "{direct}");

    let refused = hiredis(&program, world.port, "refused");
    let lines: Vec<_> = refused.lines().collect();
    let is_no = |line: &&str| {
        line.starts_with("6 ") && line.contains("NOPERM blocked by policy: the test says block")
    };
    let integers = lines.iter().take(200).filter(|line| line.starts_with("3 "));
    assert_eq!(integers.count(), 199, "{refused}");
    assert!(is_no(&lines[100]), "{}", lines[100]);
    let rest: Vec<_> = lines[200..].iter().map(|line| &line[..3]).collect();
    // MULTI, queued, refused, EXECABORT, and the value of before.
    assert_eq!(
        rest,
        ["5 2", "5 6", &lines[202][..3], &lines[203][..3], "1 1"]
    );
    assert!(
        is_no(&lines[202]) && lines[203].contains("EXECABORT"),
        "{refused}"
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
fn redis_py_that_parses_with_hiredis() {
    python("hiredis2", "hiredis2 saw all");
    python("hiredis3", "hiredis3 saw all");
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

#[test]
fn redis_benchmark_sees_no_error() {
    let world = World::new();
    let ran = Command::new("redis-benchmark")
        .args([
            "-p",
            &world.port.to_string(),
            "-n",
            "300",
            "-c",
            "5",
            "-P",
            "16",
            "-q",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(!said.to_lowercase().contains("error"), "{said}");
    assert!(said.contains("MSET (10 keys)"), "{said}");
}

/// Commands whose replies are the same wherever they are sent.
const EVERYTHING: &[&str] = &[
    "SET s value",
    "GET s",
    "GET none",
    "APPEND s x",
    "STRLEN s",
    "INCRBYFLOAT f 1.5",
    "MSET a 1 b 2",
    "MGET a none b",
    "INCR s",
    "HSET h f v g w",
    "HGETALL h",
    "HMGET h f none",
    "RPUSH l a b c",
    "LRANGE l 0 -1",
    "LPOP l 2",
    "LPOS l c",
    "SADD set a",
    "SMEMBERS set",
    "SMISMEMBER set a b",
    "ZADD z 1 a 2.5 b",
    "ZRANGE z 0 -1 WITHSCORES",
    "ZSCORE z b",
    "ZRANGEBYSCORE z (1 +inf",
    "XADD x 1-1 f v",
    "XRANGE x - +",
    "XREAD COUNT 1 STREAMS x 0",
    "GEOADD geo 13.361389 38.115556 Palermo",
    "GEOPOS geo Palermo none",
    "SETBIT bits 7 1",
    "BITFIELD bits GET u8 0",
    "PFADD hll a b",
    "PFCOUNT hll",
    "OBJECT ENCODING s",
    "TYPE z",
    "EXPIRE s 1000",
    "PERSIST s",
    "SCAN 0 COUNT 1000 MATCH nothing*",
    "COMMAND INFO GET SET",
    "COMMAND COUNT",
    "ECHO x",
    "PING",
    "PING x",
    "TYPE",
    "NOSUCHCOMMAND x",
    "EVAL return(redis.status_reply('fine')) 0",
    "EVAL return{1,{2,'x'},false} 0",
    "EVAL return(redis.error_reply('BAD')) 0",
    "EVAL return(nothere) 0",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0",
    "CONFIG GET maxmemory",
    "ACL WHOAMI",
    "WATCH a",
    "MULTI",
    "INCR a",
    "LRANGE s 0 -1",
    "EXEC",
    "EXEC",
    "MULTI",
    "DISCARD",
    "SELECT 1",
    "DBSIZE",
    "SELECT 999",
    "SUBSCRIBE ch",
    "UNSUBSCRIBE ch",
    "RESET",
    "CLUSTER SLOTS",
    "CLUSTER INFO",
    "SENTINEL MASTERS",
    "FLUSHALL",
    "QUIT",
];

#[test]
fn where_everything_is_allowed_every_reply_is_the_servers() {
    let allow = "package test\n\ndefault result := {\"decision\": \"ALLOW\"}\n";
    for version in ["HELLO 2", "HELLO 3"] {
        let (governed, direct) = (Server::start(&[]), Server::start(&[]));
        let port = free_port();
        let url = format!("127.0.0.1:{port}=redis://localhost:{}", governed.port);
        let setup = Setup::new().policy(allow).flag("--redis", &url);
        let _sidecar = setup.start();
        let lines = EVERYTHING.iter().map(|line| command(line));
        let said: Vec<u8> = lines.collect::<Vec<_>>().concat();
        let [through, direct] = [port, direct.port].map(|port| {
            let mut client = Client::connect(port);
            client.ask(version);
            client.send(&said);
            client.rest()
        });
        assert!(
            through == direct,
            "{version}:\n{through}\n--- direct\n{direct}"
        );
    }
}
