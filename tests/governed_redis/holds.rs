//! Commands that wait for a person, and runs that are stopped.

use std::thread;
use std::time::Duration;

use crate::World;
use crate::support::redis::{Reply, simple, text};
use crate::support::until;

#[test]
fn c_3_a_held_command_runs_once_when_approved_and_earlier_replies_come_meanwhile() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["SET a 1", "INCR held", "GET a"]);
    assert_eq!(client.next(), simple("OK"));
    let approval = world.sidecar.pending_approval();
    assert_eq!(world.server.ask("EXISTS held"), Reply::Integer(0));
    world.sidecar.approve(&approval);
    assert_eq!(
        (client.next(), client.next()),
        (Reply::Integer(1), text("1"))
    );
}

#[test]
fn c_3_a_declined_command_is_refused_and_the_connection_goes_on() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["MULTI", "INCR held", "EXEC", "PING"]);
    assert_eq!(client.next(), simple("OK"));
    let approval = world.sidecar.pending_approval();
    world.sidecar.reject(&approval, "not today");
    let reply = client.next();
    assert!(
        reply.is_refusal() && reply.error().contains("not today"),
        "{reply:?}"
    );
    assert!(client.next().error().starts_with("EXECABORT"));
    assert_eq!(client.next(), simple("PONG"));
}

#[test]
fn c_3_a_hold_ends_after_its_time() {
    let world = World::with(&[], |setup| setup.config("redis:\n  hold_within: 300ms\n"));
    let mut client = world.client();
    assert!(client.ask("INCR held").is_refusal());
    assert_eq!(client.ask("PING"), simple("PONG"));
    assert_eq!(world.server.ask("EXISTS held"), Reply::Integer(0));
}

#[test]
fn c_3_a_client_that_leaves_takes_its_command_and_what_follows_with_it() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["INCR held", "INCR after"]);
    let approval = world.sidecar.pending_approval();
    drop(client);
    world.until_clients("connected_clients", 1);
    world.sidecar.approve(&approval);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(world.server.ask("EXISTS held after"), Reply::Integer(0));
}

#[test]
fn c_3_a_client_that_leaves_is_noticed_behind_more_than_is_read_while_it_waits() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["INCR held"]);
    let approval = world.sidecar.pending_approval();
    client.say(&[&format!("SET after {}", "v".repeat(150 << 10))]);
    drop(client);
    world.until_clients("connected_clients", 1);
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("EXISTS held after"), Reply::Integer(0));
}

#[test]
fn c_2_what_was_sent_when_its_client_left_is_completed_as_abandoned() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["BLPOP list 0"]);
    until("the command to be sent", || {
        (!world.told("started").is_empty()).then_some(())
    });
    drop(client);
    let told = until("the completion", || {
        world.told("completed").first().cloned()
    });
    assert_eq!(told["outcome"], "abandoned", "{told}");
    assert_eq!(world.told("completed").len(), 1);
}

#[test]
fn rd_10_a_client_that_is_killed_while_it_waits_is_gone() {
    let world = World::new();
    let mut client = world.client();
    let Reply::Integer(id) = client.ask("CLIENT ID") else {
        panic!()
    };
    client.say(&["INCR held"]);
    let approval = world.sidecar.pending_approval();
    world.server.ask(&format!("CLIENT KILL ID {id}"));
    assert_eq!(client.next(), Reply::End);
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("EXISTS held"), Reply::Integer(0));
}

#[test]
fn rd_10_a_command_that_is_held_can_be_unblocked_by_another_connection() {
    let world = World::new();
    let mut client = world.client();
    let mut other = world.client();
    let Reply::Integer(id) = client.ask("CLIENT ID") else {
        panic!()
    };
    for (how, code) in [
        ("", "NOPERM "),
        (" ERROR", "UNBLOCKED "),
        (" TIMEOUT", "NOPERM "),
    ] {
        client.say(&["INCR held", "PING"]);
        until("the wait to be known", || {
            let reply = other.ask(&format!("CLIENT UNBLOCK {id}{how}"));
            (reply == Reply::Integer(1)).then_some(())
        });
        let error = client.next();
        assert!(error.error().starts_with(code), "{how}: {error:?}");
        assert_eq!(client.next(), simple("PONG"));
    }
    // And one that waits there, by the server itself.
    client.say(&["BLPOP list 0"]);
    world.until_clients("blocked_clients", 1);
    assert_eq!(
        other.ask(&format!("CLIENT UNBLOCK {id}")),
        Reply::Integer(1)
    );
    assert_eq!(client.next(), Reply::Null);
    assert_eq!(
        other.ask(&format!("CLIENT UNBLOCK {id}")),
        Reply::Integer(0)
    );
    assert_eq!(world.server.ask("EXISTS held"), Reply::Integer(0));
}

#[test]
fn rd_10_in_a_transaction_the_relay_asks_nothing_and_what_it_knows_ends_a_hold() {
    let world = World::new();
    let mut client = world.client();
    let mut other = world.client();
    // The relay takes no note of what a client asks, and cannot ask now.
    let Reply::Integer(id) = client.ask("CLIENT ID") else {
        panic!()
    };
    client.say(&["MULTI", "INCR held", "EXEC"]);
    assert_eq!(client.next(), simple("OK"));
    let approval = world.sidecar.pending_approval();
    assert_eq!(
        other.ask(&format!("CLIENT UNBLOCK {id}")),
        Reply::Integer(0)
    );
    world.sidecar.approve(&approval);
    assert_eq!(client.next(), simple("QUEUED"));
    assert_eq!(client.next(), Reply::Many(vec![Reply::Integer(1)]));
    // A hold outside of one has asked: it is known from then on.
    client.say(&["INCR held"]);
    until("the wait to be known", || {
        let reply = other.ask(&format!("CLIENT UNBLOCK {id}"));
        (reply == Reply::Integer(1)).then_some(())
    });
    assert!(client.next().is_refusal());
    client.say(&["MULTI", "INCR held", "EXEC"]);
    assert_eq!(client.next(), simple("OK"));
    until("the wait to be known", || {
        let reply = other.ask(&format!("CLIENT UNBLOCK {id}"));
        (reply == Reply::Integer(1)).then_some(())
    });
    assert!(client.next().is_refusal());
    assert!(client.next().error().starts_with("EXECABORT"));
    assert_eq!(world.server.ask("GET held"), text("1"));
}

#[test]
fn rd_10_what_blocks_waits_as_long_as_it_said_and_completes_when_it_is_answered() {
    let world = World::new();
    let mut client = world.client();
    client.say(&["BLPOP list 0", "GET forbidden"]);
    let mut other = world.client();
    world.until_clients("blocked_clients", 1);
    assert!(
        world
            .told("completed")
            .iter()
            .all(|line| line["db_operation"] != "BLPOP")
    );
    assert_eq!(other.ask("RPUSH list x"), Reply::Integer(1));
    assert_eq!(client.next(), Reply::Many(vec![text("list"), text("x")]));
    assert!(client.next().is_refusal());
}

#[test]
fn c_10_a_halted_run_is_told_and_ended_and_may_not_come_back() {
    let world = World::new();
    let mut client = world.client();
    let mut other = world.client();
    assert_eq!(other.ask("PING"), simple("PONG"));
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    let reply = client.ask("SET halting 1");
    assert!(
        reply.is_refusal() && reply.error().contains("halt"),
        "{reply:?}"
    );
    assert_eq!(client.next(), Reply::End);
    assert!(other.next().is_refusal());
    assert_eq!(other.next(), Reply::End);
    let mut late = world.client();
    assert!(late.next().is_refusal());
    assert_eq!(late.next(), Reply::End);
    assert_eq!(world.server.ask("EXISTS halting"), Reply::Integer(0));
}

#[test]
fn c_3_what_is_decided_before_a_held_command_goes_out_while_it_waits() {
    let world = World::new();
    let mut client = world.client();
    // Judged in one turn, up to the one that waits; nothing behind that is looked at.
    client.say(&[
        "SET a 1",
        "GET forbidden",
        "INCR a",
        "INCR held",
        "INCR a",
        "GET a",
    ]);
    assert_eq!(client.next(), simple("OK"));
    assert!(client.next().is_refusal());
    assert_eq!(client.next(), Reply::Integer(2));
    let approval = world.sidecar.pending_approval();
    assert_eq!(world.server.ask("GET a"), text("2"));
    assert_eq!(world.told("started").len(), 3, "what follows is not judged");
    world.sidecar.approve(&approval);
    assert_eq!(client.next(), Reply::Integer(1));
    assert_eq!(client.next(), Reply::Integer(3));
    assert_eq!(client.next(), text("3"));
}
