//! Commands that wait at the server, for as long as they say.

use crate::World;
use crate::support::redis::{Client, Reply, Server, simple, text};
use crate::support::until;

/// How often a command was completed.
fn completed(world: &World, name: &str) -> usize {
    let told = world.told("completed").into_iter();
    told.filter(|line| line["db_operation"] == name).count()
}

#[test]
fn rd_10_each_command_that_blocks_waits_and_its_neighbours_keep_their_turn() {
    let world = World::new();
    let mut client = world.client();
    let member = |key: &str| Reply::Many(vec![text(key), text("m"), text("1")]);
    let list = |words: &[&str]| Reply::Many(words.iter().map(|word| text(word)).collect());
    let entry = |key: &str| {
        let entry = Reply::Many(vec![text("1-1"), list(&["f", "v"])]);
        Reply::Many(vec![Reply::Many(vec![text(key), Reply::Many(vec![entry])])])
    };
    world.server.ask("XGROUP CREATE x2 g $ MKSTREAM");
    for (line, wakes, expected) in [
        ("BRPOP l1 0", "LPUSH l1 v", list(&["l1", "v"])),
        ("BLMOVE l2 to LEFT RIGHT 0", "LPUSH l2 v", text("v")),
        ("BRPOPLPUSH l3 to 0", "LPUSH l3 v", text("v")),
        (
            "BLMPOP 0 1 l4 LEFT",
            "LPUSH l4 v",
            Reply::Many(vec![text("l4"), list(&["v"])]),
        ),
        ("BZPOPMIN z1 0", "ZADD z1 1 m", member("z1")),
        ("BZPOPMAX z2 0", "ZADD z2 1 m", member("z2")),
        (
            "BZMPOP 0 1 z3 MIN",
            "ZADD z3 1 m",
            Reply::Many(vec![text("z3"), Reply::Many(vec![list(&["m", "1"])])]),
        ),
        ("XREAD BLOCK 0 STREAMS x1 $", "XADD x1 1-1 f v", entry("x1")),
        (
            "XREADGROUP GROUP g c BLOCK 0 STREAMS x2 >",
            "XADD x2 1-1 f v",
            entry("x2"),
        ),
    ] {
        let name = line.split(' ').next().unwrap();
        client.say(&["ECHO before", line, "GET forbidden", "ECHO after"]);
        assert_eq!(client.next(), text("before"));
        world.until_clients("blocked_clients", 1);
        assert_eq!(completed(&world, name), 0, "{line} waits");
        world.server.ask(wakes);
        assert_eq!(client.next(), expected, "{line}");
        assert!(client.next().is_refusal(), "{line}");
        assert_eq!(client.next(), text("after"), "{line}");
        until("the completion", || {
            (completed(&world, name) == 1).then_some(())
        });
    }
    // One that may not wait there does not.
    for line in ["BLMOVE forbidden to LEFT RIGHT 0", "BZPOPMIN forbidden 0"] {
        assert!(client.ask(line).is_refusal(), "{line}");
    }
    // And one that waits until its own time is over.
    assert_eq!(client.ask("BLMOVE none to LEFT RIGHT 0.05"), Reply::Null);
    assert_eq!(client.ask("BZPOPMAX none 0.05"), Reply::Null);
}

#[test]
fn rd_10_what_waits_for_replicas_waits_until_there_is_one() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["SET a 1", "WAIT 1 0", "GET a"]);
    assert_eq!(client.next(), simple("OK"));
    world.until_clients("blocked_clients", 1);
    assert_eq!(completed(&world, "WAIT"), 0);
    let of = world.server.port.to_string();
    let _replica = Server::start(&["--replicaof", "127.0.0.1", &of]);
    assert_eq!(client.next(), Reply::Integer(1));
    assert_eq!(client.next(), text("1"));
    assert_eq!(client.ask("WAIT 9 50"), Reply::Integer(1), "in vain");
}

#[test]
fn rd_10_a_server_that_pauses_its_clients_pauses_governed_ones() {
    let world = World::new();
    let mut client = world.client();
    assert_eq!(client.ask("CLIENT PAUSE 600000 WRITE"), simple("OK"));
    // What reads goes on, and is refused as ever; what writes waits with all behind it.
    assert_eq!(client.ask("GET a"), Reply::Null);
    client.say(&["GET forbidden", "SET a 1", "GET a", "SET forbidden 1"]);
    assert!(client.next().is_refusal());
    world.until_clients("blocked_clients", 1);
    assert_eq!(completed(&world, "SET"), 0);
    assert_eq!(world.client().ask("CLIENT UNPAUSE"), simple("OK"));
    assert_eq!((client.next(), client.next()), (simple("OK"), text("1")));
    assert!(client.next().is_refusal());
}

#[test]
fn rd_9_rd_10_invalidations_come_while_a_command_waits_for_a_person() {
    let world = World::new();
    let mut client = world.client();
    client.ask("HELLO 3");
    assert_eq!(client.ask("CLIENT TRACKING ON"), simple("OK"));
    assert_eq!(client.ask("GET k"), Reply::Null);
    client.say(&["INCR held", "GET k"]);
    let approval = world.sidecar.pending_approval();
    let mut other = Client::connect(world.server.port);
    assert_eq!(other.ask("SET k 1"), simple("OK"));
    let invalid = Reply::Push(vec![text("invalidate"), Reply::Many(vec![text("k")])]);
    assert_eq!(client.next(), invalid);
    world.sidecar.approve(&approval);
    assert_eq!(
        (client.next(), client.next()),
        (Reply::Integer(1), text("1"))
    );
}
