//! A real Valkey, where there is one; `scripts/test.sh` says where there is none.

use crate::World;
use crate::clients::python_in;
use crate::support::redis::{Reply, Server, simple, text};

fn world() -> Option<World> {
    let Some(server) = Server::start_valkey() else {
        eprintln!("not run: there is no .tools/valkey");
        return None;
    };
    Some(World::before(server, |setup| setup))
}

#[test]
fn rd_21_valkey_is_governed_as_redis_is() {
    let Some(world) = world() else { return };
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
    assert!(hello.contains(&text("valkey")), "{hello:?}");
    assert_eq!(client.ask("CLIENT CAPA redirect"), simple("OK"));
    assert!(client.ask("GET forbidden").is_refusal());
    python_in(&world, "sync2", "sync2 saw all");
    world.server.ask("FLUSHALL");
    python_in(&world, "sync3", "sync3 saw all");
}

#[test]
fn rd_18_rd_21_keys_of_newer_commands_are_where_valkey_finds_them() {
    let Some(world) = world() else { return };
    let mut client = world.client();
    client.ask("SELECT 6");
    for line in [
        "HSETEX k0 EX 10 FIELDS 1 f v",
        "HGETEX k0 EX 10 FIELDS 1 f",
        "HEXPIRE k0 10 FIELDS 1 f",
        "HTTL k0 FIELDS 1 f",
        "DELIFEQ k0 v",
        "MSETEX 2 k0 v k1 v EX 10",
        "SET k0 v IFEQ x",
    ] {
        let Reply::Many(expected) = world.server.ask(&format!("COMMAND GETKEYS {line}")) else {
            panic!("{line}")
        };
        // Refused with its statement as the reason.
        let reply = client.ask(line);
        let words: Vec<_> = reply.error().split(' ').collect();
        assert!(!reply.error().contains("understands"), "{reply:?}");
        for key in ["k0", "k1"] {
            let is = expected.iter().any(|one| *one == text(key));
            assert_eq!(words.contains(&key), is, "{line}: {key} in {reply:?}");
        }
    }
}
