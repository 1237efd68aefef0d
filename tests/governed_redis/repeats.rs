//! The same command over and over.

use crate::World;
use crate::support::policies::STEADY;
use crate::support::redis::{Reply, simple, text};
use crate::support::until;

fn world() -> World {
    World::with(&[], |setup| {
        setup.write("policy.rego", STEADY);
        setup
    })
}

#[test]
fn c_2_rd_2_what_is_said_over_and_over_is_counted_and_nothing_is_lost() {
    let world = world();
    let mut client = world.client();
    for _ in 0..40 {
        assert_eq!(client.ask("SET a 1"), simple("OK"));
    }
    // A pipeline of them, with a refused one among them, answered in order.
    let lines: Vec<_> = (0..60).map(|_| "INCR a").collect();
    client.say(&lines);
    client.say(&["SET forbidden 1"]);
    client.say(&lines);
    for number in 2..62 {
        assert_eq!(client.next(), Reply::Integer(number));
    }
    assert!(client.next().is_refusal());
    for number in 62..122 {
        assert_eq!(client.next(), Reply::Integer(number));
    }
    assert_eq!(world.server.ask("GET a"), text("121"));
    drop(client);
    until("everything is told", || {
        let [decisions, completions, admitted, answered, apart, _] = world.sidecar.repeats();
        let all = decisions + admitted == 161 && completions + answered == 160;
        // So many are counted that not all can have been asked about before.
        (all && admitted >= 24 && apart == 0).then_some(())
    });
}

#[test]
fn c_2_what_shows_policy_something_else_is_another_command() {
    let world = world();
    let mut client = world.client();
    for number in 0..40 {
        client.ask(&format!("SET key{number} 1"));
        // The same text in another database.
        for database in ["SELECT 1", "SELECT 0"] {
            assert_eq!(client.ask(database), simple("OK"));
            client.ask("SET a 1");
        }
    }
    drop(client);
    until("everything is told", || {
        let [decisions, completions, admitted, ..] = world.sidecar.repeats();
        (decisions == completions && decisions >= 120 && admitted == 0).then_some(())
    });
}
