//! What administers a server: judged as `admin` or what it does, and refused
//! where it would lead out of what is governed.

use crate::World;
use crate::support::redis::{Client, Reply, Server, array, simple, text};
use crate::support::until;

/// `hello` as `DUMP` of Redis 7.0 writes it, which newer servers read, too.
const DUMPED: &[u8] = b"\x00\x05hello\n\x00cr\xdfve4 \n";

#[test]
fn rd_15_what_was_dumped_is_restored_where_its_key_may_be_written() {
    let world = World::new();
    let mut client = world.client();
    let restore = |key: &str| array(&[b"RESTORE", key.as_bytes(), b"0", DUMPED, b"REPLACE"]);
    client.send([restore("a"), restore("forbidden"), restore("b")].concat());
    assert_eq!(client.next(), simple("OK"));
    assert!(client.next().is_refusal());
    assert_eq!(client.next(), simple("OK"));
    assert_eq!(
        client.all(&["GET a", "GET b"]),
        [text("hello"), text("hello")]
    );
    assert_eq!(world.server.ask("EXISTS forbidden"), Reply::Integer(0));
    // Its bytes are a value: policy sees the key and the options.
    client.ask("SELECT 6");
    client.send(restore("a"));
    let reply = client.next();
    let shown = "policy: RESTORE a ? ? REPLACE (operation";
    assert!(reply.error().contains(shown), "{reply:?}");
    // What is broken is the server's to say.
    client.ask("SELECT 0");
    client.send(array(&[b"RESTORE", b"c", b"0", b"broken"]));
    let error = client.next();
    assert!(error.error().contains("checksum"), "{error:?}");
}

#[test]
fn rd_15_c_7_keys_that_migrate_are_judged_and_how_they_log_in_is_nobodys() {
    let world = World::new();
    let there = Server::start(&["--requirepass", "correct-horse"]);
    let mut client = world.client();
    client.all(&["SET k 1", "SET other 2"]);
    let to = format!("MIGRATE 127.0.0.1 {}", there.port);
    let refused = client.ask(&format!("{to} forbidden 0 1000 AUTH correct-horse"));
    assert!(refused.is_refusal(), "{refused:?}");
    let some = format!("{to}  0 1000 COPY AUTH correct-horse KEYS k forbidden");
    assert!(client.ask(&some).is_refusal());
    let moved = client.ask(&format!("{to} k 0 1000 AUTH correct-horse"));
    assert_eq!(moved, simple("OK"));
    assert_eq!(client.ask("EXISTS k other"), Reply::Integer(1));
    let mut direct = Client::connect(there.port);
    direct.ask("AUTH correct-horse");
    assert_eq!(direct.ask("GET k"), text("1"));
    until("the records", || {
        (world.told("completed").len() == 4).then_some(())
    });
    let journal = std::fs::read_to_string(world.sidecar.state.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("horse") && !world.sidecar.log().contains("horse"));
}

#[test]
fn rd_15_a_failover_is_refused_unless_it_is_to_be_judged() {
    let closed = World::new();
    let refused = closed.client().ask("FAILOVER");
    let error = refused.error();
    assert!(
        error.contains("openbox-sidecar: it is dangerous"),
        "{error}"
    );
    let world = World::with(&[], |setup| setup.config("redis:\n  dangerous: judge\n"));
    let of = world.server.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &of]);
    let mut client = world.client();
    assert_eq!(client.ask("WAIT 1 0"), Reply::Integer(1));
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    assert_eq!(client.ask("FAILOVER"), simple("OK"));
    until("the replica to be the master", || {
        let role = replica.ask("ROLE");
        matches!(role, Reply::Many(role) if role[0] == text("master")).then_some(())
    });
    // The connection goes on, to what is a replica now, which says so itself.
    let readonly = until("the master to be a replica", || {
        let reply = client.ask("SET a 2");
        matches!(&reply, Reply::Error(text) if text.starts_with("READONLY")).then_some(reply)
    });
    assert!(!readonly.is_refusal());
    assert_eq!(client.ask("GET a"), text("1"));
    assert!(client.ask("GET forbidden").is_refusal());
}

#[test]
fn rd_15_what_administers_is_told_apart_from_what_writes() {
    let world = World::with(&[], |setup| setup.config("redis:\n  dangerous: judge\n"));
    let mut client = world.client();
    // Where each is refused with what it does as the reason.
    client.ask("SELECT 5");
    for (line, expected) in [
        ("GET k", "read "),
        ("SET k v", "write "),
        ("BLPOP k 0", "write blocking"),
        ("KEYS *", "read dangerous"),
        ("FLUSHALL", "write dangerous"),
        ("FLUSHDB ASYNC", "write dangerous"),
        ("RESTORE k 0 v", "write dangerous"),
        ("MIGRATE localhost 1 k 0 1", "write dangerous"),
        ("CONFIG SET dir /tmp", "admin dangerous"),
        ("CONFIG SET maxmemory 0", "admin dangerous"),
        ("ACL SETUSER x", "admin dangerous"),
        ("MODULE LOAD /x.so", "admin dangerous"),
        ("REPLICAOF NO ONE", "admin dangerous"),
        ("DEBUG SLEEP 0", "admin dangerous"),
        ("SHUTDOWN NOSAVE", "admin dangerous"),
        ("SAVE", "admin dangerous"),
        ("BGSAVE", "admin dangerous"),
        ("FAILOVER", "admin dangerous"),
    ] {
        let reply = client.ask(line);
        let expected = format!("policy: {expected} (operation");
        assert!(reply.error().contains(&expected), "{line}: {reply:?}");
    }
}
