//! Servers newer than Debian's Redis 7.0, where they are there;
//! `scripts/test.sh` says where they are not.

use crate::World;
use crate::clients::python_in;
use crate::support::redis::{Reply, Server, text};

/// What differs between servers is only their name.
fn is_governed(server: Option<Server>, name: &str) {
    let Some(server) = server else { return };
    let world = World::before(server, |setup| setup);
    let mut client = world.client();
    let replies = client.all(&[
        "SET a 1",
        "SET forbidden 1",
        "MULTI",
        "INCR a",
        "GET forbidden",
        "EXEC",
        "GET a",
    ]);
    assert!(replies[1].is_refusal() && replies[4].is_refusal());
    assert!(replies[5].error().starts_with("EXECABORT"), "{replies:?}");
    assert_eq!(replies[6], text("1"));
    let Reply::Many(hello) = client.ask("HELLO 3") else {
        panic!()
    };
    assert!(hello.contains(&text(name)), "{hello:?}");
    assert!(client.ask("GET forbidden").is_refusal());
    for script in ["sync2", "sync3", "hiredis3", "asyncio"] {
        world.server.ask("FLUSHALL");
        python_in(&world, script, &format!("{script} saw all"));
    }
}

#[test]
fn rd_21_valkey_is_governed_as_redis_is() {
    is_governed(Server::start_valkey(), "valkey");
}

#[test]
fn rd_21_redis_8_is_governed_as_redis_7_is() {
    is_governed(Server::start_redis_8(), "redis");
}

#[test]
fn rd_9_what_redis_py_keeps_itself_is_dropped_when_the_server_says_so() {
    let Some(server) = Server::start_redis_8() else {
        return;
    };
    let world = World::before(server, |setup| setup);
    python_in(&world, "cache", "cache saw all");
}

/// Commands of a server are refused with their statements, whose keys are those
/// that it finds itself.
fn keys_are_found(server: Option<Server>, lines: &[&str]) {
    let Some(server) = server else { return };
    let world = World::before(server, |setup| setup);
    let mut client = world.client();
    client.ask("SELECT 6");
    for line in lines {
        let Reply::Many(expected) = world.server.ask(&format!("COMMAND GETKEYS {line}")) else {
            panic!("{line}")
        };
        let reply = client.ask(line);
        let words: Vec<_> = reply.error().split(' ').collect();
        assert!(!reply.error().contains("understands"), "{reply:?}");
        for key in ["k0", "k1"] {
            let is = expected.iter().any(|one| *one == text(key));
            assert_eq!(words.contains(&key), is, "{line}: {key} in {reply:?}");
        }
    }
}

#[test]
fn rd_18_rd_21_keys_of_newer_commands_are_where_valkey_finds_them() {
    let lines = [
        "HSETEX k0 EX 10 FIELDS 1 f v",
        "HGETEX k0 EX 10 FIELDS 1 f",
        "HEXPIRE k0 10 FIELDS 1 f",
        "HTTL k0 FIELDS 1 f",
        "DELIFEQ k0 v",
        "MSETEX 2 k0 v k1 v EX 10",
        "SET k0 v IFEQ x",
    ];
    keys_are_found(Server::start_valkey(), &lines);
}

#[test]
fn rd_18_rd_21_keys_of_newer_commands_are_where_redis_8_finds_them() {
    let lines = [
        "HGETDEL k0 FIELDS 1 f",
        "HSETEX k0 EX 10 FIELDS 1 f v",
        "VADD k0 VALUES 2 1 1 k1",
        "VSIM k0 ELE k1 COUNT 5",
        "VREM k0 k1",
        "VCARD k0",
    ];
    keys_are_found(Server::start_redis_8(), &lines);
}
