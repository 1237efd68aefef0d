//! MULTI, EXEC, WATCH and DISCARD.

use crate::World;
use crate::support::redis::{Client, Reply, simple, text};
use crate::support::{free_port, until};

/// How the completions of a world say that things ended: (statement, outcome, error).
fn ended(world: &World, count: usize) -> Vec<(String, String, String)> {
    let told = until("all completions", || {
        let told = world.told("completed");
        (told.len() >= count).then_some(told)
    });
    assert_eq!(told.len(), count, "{told:?}");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    told.iter()
        .map(|line| {
            (
                text(&line["db_operation"]),
                text(&line["outcome"]),
                text(&line["error"]),
            )
        })
        .collect()
}

#[test]
fn c_1_rd_7_each_queued_command_is_completed_with_its_own_reply() {
    let world = World::new();
    let mut client = world.client();
    let replies = client.all(&[
        "MULTI",
        "SET a x",
        "INCR a",
        "LRANGE l 0 -1",
        "PING",
        "EXEC",
    ]);
    let Reply::Many(results) = &replies[5] else {
        panic!("{replies:?}")
    };
    assert_eq!(results.len(), 4);
    let told = ended(&world, 3);
    let errors: Vec<_> = told.iter().map(|(_, _, error)| &**error).collect();
    assert_eq!(errors, ["", "ERR", ""]);
    assert_eq!(client.ask("GET a"), text("x"));
}

#[test]
fn rd_7_a_refused_command_aborts_its_transaction_and_nothing_else() {
    let world = World::new();
    let mut client = world.client();
    let replies = client.all(&[
        "MULTI",
        "SET a 1",
        "SET forbidden 1",
        "SET b 1",
        "EXEC",
        "GET a",
        "MULTI",
        "SET c 1",
        "EXEC",
    ]);
    assert!(replies[2].is_refusal());
    assert_eq!(replies[3], simple("QUEUED"));
    assert!(replies[4].error().starts_with("EXECABORT"));
    assert_eq!(replies[5], Reply::Null);
    assert_eq!(replies[8], Reply::Many(vec![simple("OK")]));
    let told = ended(&world, 4);
    let mut outcomes: Vec<_> = told
        .iter()
        .map(|(what, how, _)| format!("{what} {how}"))
        .collect();
    outcomes.sort();
    assert_eq!(
        outcomes,
        [
            "GET answered",
            "SET abandoned",
            "SET abandoned",
            "SET answered"
        ]
    );
}

#[test]
fn rd_7_what_is_given_up_is_completed_as_discarded() {
    let world = World::new();
    let mut client = world.client();
    client.all(&["MULTI", "SET a 1", "DISCARD"]);
    client.all(&["WATCH w", "MULTI", "SET b 1"]);
    world.server.ask("SET w 1");
    assert_eq!(client.ask("EXEC"), Reply::Null);
    // Each by itself: a reset would give up what is left of the others, too.
    let (_, _, why) = ended(&world, 2).pop().unwrap();
    assert_eq!(why, "discarded: a watched key has changed");
    client.all(&["MULTI", "SET c 1"]);
    assert_eq!(client.ask("RESET"), simple("RESET"));
    let told = ended(&world, 3);
    for (what, how, why) in &told {
        assert_eq!(how, "abandoned", "{what}");
        assert!(why.starts_with("discarded: "), "{what}: {why}");
    }
    assert_eq!(world.server.ask("EXISTS a b c"), Reply::Integer(0));
}

#[test]
fn rd_7_rd_12_a_transaction_whose_beginning_is_not_answered_is_one_all_the_same() {
    let world = World::new();
    let mut client = world.client();
    client.say(&[
        "CLIENT REPLY SKIP",
        "MULTI",
        "SET a x",
        "INCR a",
        "SELECT 7",
        "EXEC",
        "GET a",
    ]);
    for _ in 0..3 {
        assert_eq!(client.next(), simple("QUEUED"));
    }
    assert!(matches!(client.next(), Reply::Many(results) if results.len() == 3));
    // Where what follows goes is known, too.
    let reply = client.next();
    assert!(reply.error().contains("not in this database"), "{reply:?}");
    let told = ended(&world, 2);
    let errors: Vec<_> = told.iter().map(|(_, _, error)| &**error).collect();
    assert_eq!(errors, ["", "ERR"]);
}

#[test]
fn rd_7_a_transaction_that_fails_as_in_a_cluster_is_over() {
    let bus = free_port().to_string();
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let world = World::with(&arguments, |setup| setup);
    let joined = world.server.ask("CLUSTER ADDSLOTSRANGE 0 16383");
    assert_eq!(joined, simple("OK"));
    until("the cluster to be whole", || {
        (world.server.ask("SET a 0") == simple("OK")).then_some(())
    });
    let mut client = world.client();
    let replies = client.all(&["MULTI", "SET a 1", "SET b 2", "EXEC"]);
    assert!(replies[3].error().starts_with("CROSSSLOT"), "{replies:?}");
    for (_, how, why) in ended(&world, 2) {
        assert_eq!(how, "abandoned", "{why}");
        assert!(why.starts_with("discarded: "), "{why}");
    }
    let replies = client.all(&["MULTI", "INCR a", "EXEC"]);
    assert_eq!(replies[2], Reply::Many(vec![Reply::Integer(1)]));
    let told = ended(&world, 3);
    assert_eq!(told[2].1, "answered", "{told:?}");
}

#[test]
fn rd_5_rd_7_rd_12_who_asks_is_not_said_where_nobody_would_know_that_it_was() {
    let world = World::new();
    let mut client = world.client();
    for line in ["CLIENT SETNAME other", "HELLO 2", "AUTH default x"] {
        let replies = client.all(&["MULTI", line, "EXEC"]);
        assert!(replies[1].is_refusal(), "{line}: {replies:?}");
        assert!(replies[2].error().starts_with("EXECABORT"), "{line}");
        client.say(&["CLIENT REPLY SKIP", line, "CLIENT GETNAME"]);
        assert_eq!(client.next(), Reply::Null, "{line}");
    }
    // What certainly comes to pass is known all the same.
    client.all(&["SELECT 7"]);
    client.say(&["CLIENT REPLY SKIP", "RESET", "SET a 1", "PING"]);
    assert_eq!(client.next(), simple("OK"));
    assert_eq!(client.next(), simple("PONG"));
    assert_eq!(world.server.ask("GET a"), text("1"));
}

#[test]
fn rd_8_a_subscription_inside_a_transaction_is_refused() {
    let world = World::new();
    let mut client = world.client();
    let replies = client.all(&["MULTI", "SUBSCRIBE a b", "CLIENT REPLY OFF", "EXEC", "PING"]);
    assert!(replies[1].is_refusal() && replies[2].is_refusal());
    assert!(replies[3].error().starts_with("EXECABORT"));
    assert_eq!(replies[4], simple("PONG"));
}

#[test]
fn c_3_a_hold_inside_a_transaction_or_behind_watch_ends_sooner() {
    let world = World::with(&[], |setup| {
        setup.config("redis:\n  hold_within: 60s\n  hold_in_transaction_within: 300ms\n")
    });
    // Each ends by itself, which one of 60 s would not while a test has patience.
    let held = |client: &mut Client| {
        let reply = client.ask("INCR held");
        assert!(reply.is_refusal(), "{reply:?}");
    };
    let mut client = world.client();
    client.all(&["MULTI", "SET a 1"]);
    held(&mut client);
    assert!(client.ask("EXEC").error().starts_with("EXECABORT"));
    client.all(&["WATCH w", "GET w"]);
    held(&mut client);
    // What is no transaction does not end the watch.
    assert!(client.ask("EXEC").error().starts_with("ERR"));
    held(&mut client);
    // Outside of them it waits for a person, however the last one ended.
    for ends in [
        &["UNWATCH"][..],
        &["WATCH w", "MULTI", "DISCARD"],
        &["WATCH w", "MULTI", "UNWATCH", "EXEC"],
        &["WATCH w", "RESET"],
    ] {
        client.all(ends);
        client.say(&["INCR held"]);
        let approval = world.sidecar.pending_approval();
        std::thread::sleep(std::time::Duration::from_millis(600));
        world.sidecar.approve(&approval);
        assert!(matches!(client.next(), Reply::Integer(_)), "{ends:?}");
    }
}

#[test]
fn c_3_what_is_watched_and_changed_during_a_hold_makes_the_transaction_not_happen() {
    let world = World::new();
    let mut client = world.client();
    client.all(&["WATCH w", "MULTI"]);
    client.say(&["INCR held", "EXEC", "GET w"]);
    let approval = world.sidecar.pending_approval();
    world.server.ask("SET w changed");
    world.sidecar.approve(&approval);
    assert_eq!(client.next(), simple("QUEUED"));
    assert_eq!(
        (client.next(), client.next()),
        (Reply::Null, text("changed"))
    );
    assert_eq!(world.server.ask("EXISTS held"), Reply::Integer(0));
}
