//! Every statement that was let through is told about once more, however it ends.

use std::collections::BTreeMap;

use crate::support::postgres::{bind, execute, message, parse, sync, tags};
use crate::support::until;
use crate::{Client, World, shape};

/// How often each admitted statement was completed, and how, once all are.
fn outcomes(world: &World, admitted: usize) -> BTreeMap<String, Vec<String>> {
    until("every completion", || {
        let told = world.told("completed");
        (told.len() >= admitted).then_some(())
    });
    let mut outcomes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in world.told("started") {
        if line["decision"] == "allow" {
            let event = line["event_id"].as_str().unwrap();
            outcomes.entry(event.to_owned()).or_default();
        }
    }
    for line in world.told("completed") {
        let event = line["event_id"].as_str().unwrap();
        let outcome = line["outcome"].as_str().unwrap().to_owned();
        outcomes.get_mut(event).unwrap().push(outcome);
    }
    outcomes
}

fn sleeps(world: &World) {
    until("the query to run", || {
        let active = world.server.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'");
        (active == "1").then_some(())
    });
}

#[test]
fn c_2_pg_39_whatever_becomes_of_a_statement_it_is_completed_once() {
    let world = World::new();
    let mut client = world.client();
    client.query("SELECT 1");
    client.query("SELECT 1 / 0");
    client.query("DELETE FROM forbidden");
    // Both may be let through before the first has failed.
    let run = |sql: &str| [parse("", sql), bind("", ""), execute("", 0)].concat();
    client.send(&[run("SELECT 1 / (random() * 0)"), run("SELECT 2"), sync()].concat());
    client.until_ready();
    // The server goes while it runs.
    client.send(&message('Q', &[b"SELECT pg_sleep(60)\0"]));
    sleeps(&world);
    world.server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND pid <> pg_backend_pid()");
    client.until_ready();
    let admitted = world.told("started");
    let admitted = admitted.iter().filter(|line| line["decision"] == "allow");
    let outcomes = outcomes(&world, admitted.count());
    assert!(outcomes.values().all(|of| of.len() == 1), "{outcomes:?}");
}

#[test]
fn pg_46_a_client_that_leaves_abandons_what_runs_and_leaves_no_session() {
    let world = World::new();
    let mut client = world.client();
    client.send(&message('Q', &[b"SELECT pg_sleep(10)\0"]));
    sleeps(&world);
    drop(client);
    let outcomes = outcomes(&world, 1);
    let all: Vec<_> = outcomes.into_values().collect();
    assert_eq!(all, [["abandoned"]]);
    // Said goodbye or not, the server is rid of it once it looks.
    let mut polite = world.client();
    polite.send(&message('X', &[]));
    assert_eq!(polite.next(), None);
    until("the sessions on the server to end", || {
        let left = world
            .server
            .ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'");
        (left == "1").then_some(())
    });
}

#[test]
fn pg_31_pg_32_what_prepares_is_not_asked_about_and_values_are_told_to_nobody() {
    let world = World::new();
    let mut client = world.client();
    let describe = |what: &[u8]| message('D', &[what, b"\0"]);
    let close = |what: &[u8]| message('C', &[what, b"\0"]);
    let value = b"classified-value";
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let bound = message('B', &[b"p\0s\0\0\0\0\x01", &length, value, b"\0\0"]);
    let insert = parse("s", "INSERT INTO t VALUES (1, $1)");
    let prepared = [
        insert,
        describe(b"Ss"),
        bound.clone(),
        describe(b"Pp"),
        close(b"Pp"),
        sync(),
    ];
    client.send(&prepared.concat());
    assert_eq!(tags(&client.until_ready()), "1tn2n3Z");
    assert_eq!(world.told("started").len(), 0);
    assert_eq!(world.ids(), "");
    client.send(&[bound, execute("p", 0), close(b"Ss"), sync()].concat());
    assert_eq!(shape(&client.until_ready()), ("2C3Z".into(), 'I'));
    assert_eq!(world.server.ask("SELECT x FROM t"), "classified-value");
    // The server repeats it in its error.
    let wrong = message('B', &[b"\0\0\0\0\0\x01", &length, value, b"\0\0"]);
    client.send(&[parse("", "SELECT $1::int"), wrong, execute("", 0), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1EZ");
    client.query("SELECT 'a classified-literal'::int");
    outcomes(&world, 2);
    for line in world.sidecar.journal() {
        let error = line["error"].to_string();
        assert!(!line.to_string().contains("classified-value"), "{line}");
        assert!(!error.contains("classified"), "{error}");
    }
}

#[test]
fn pg_37_each_sync_is_answered_once_whatever_was_refused_before_it() {
    let world = World::new();
    let mut client: Client = world.client();
    let run = |sql: &str| [parse("", sql), bind("", ""), execute("", 0)].concat();
    let batches = [
        run("SELECT * FROM forbidden"),
        sync(),
        sync(),
        run("INSERT INTO t VALUES (1)"),
        sync(),
        run("INSERT INTO forbidden VALUES (1)"),
        run("INSERT INTO t VALUES (2)"),
        sync(),
        run("INSERT INTO t VALUES (3)"),
        sync(),
    ];
    client.send(&batches.concat());
    for expected in ["12EZ", "Z", "12CZ", "12EZ", "12CZ"] {
        assert_eq!(shape(&client.until_ready()), (expected.into(), 'I'));
    }
    assert_eq!(world.ids(), "1,3");
}
