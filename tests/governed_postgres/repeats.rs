//! The same execution over and over.

use crate::World;
use crate::support::policies::{OF_WHOM, STEADY};
use crate::support::postgres::{Client, bind, execute, parse, sync, tags};
use crate::support::until;

fn world() -> World {
    World::with("host all all all trust\n", |setup| {
        setup.write("policy.rego", STEADY);
        setup
    })
}

#[test]
fn c_2_what_is_executed_over_and_over_is_counted_and_nothing_is_lost() {
    let world = world();
    let mut client = world.client();
    for _ in 0..40 {
        assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
    }
    client.send(&[parse("s", "SELECT 2"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1Z");
    for _ in 0..40 {
        client.send(&[bind("", "s"), execute("", 0), sync()].concat());
        assert_eq!(tags(&client.until_ready()), "2DCZ");
    }
    // A refused one is refused and told as ever.
    assert_eq!(tags(&client.query("DELETE FROM forbidden")), "EZ");
    drop(client);
    until("everything is told", || {
        (world.sidecar.repeats() == [33, 32, 48, 48, 0, 48]).then_some(())
    });
}

#[test]
fn c_2_what_fails_over_and_over_is_told_by_itself_each_time() {
    let world = world();
    let mut client = world.client();
    client.query("INSERT INTO t VALUES (1)");
    for _ in 0..20 {
        assert_eq!(tags(&client.query("INSERT INTO t VALUES (1, 'x')")), "EZ");
    }
    drop(client);
    until("everything is told", || {
        (world.sidecar.repeats() == [17, 21, 4, 0, 4, 0]).then_some(())
    });
    let journal = world.sidecar.journal();
    let series = journal.iter().find(|line| line["record"] == "series");
    let apart = |line: &&serde_json::Value| line["series"] == series.unwrap()["event_id"];
    assert_eq!(journal.iter().filter(apart).count(), 4);
}

#[test]
fn c_12_who_has_logged_in_is_told() {
    let world = World::with("host all all all trust\n", |setup| {
        setup.write("policy.rego", OF_WHOM);
        setup
    });
    world.server.ask("CREATE ROLE eve LOGIN SUPERUSER");
    let of = [("user", "eve"), ("database", "postgres")];
    let mut eve = Client::connect(world.port, &of);
    let mut owner = world.client();
    assert_eq!(tags(&owner.query("SELECT 'NOT_FOR_eve'")), "TDCZ");
    assert_eq!(tags(&eve.query("SELECT 'NOT_FOR_eve'")), "EZ");
    // Another role is not another login.
    assert_eq!(tags(&eve.query("SET ROLE postgres")), "CZ");
    assert_eq!(tags(&eve.query("SELECT 'NOT_FOR_eve'")), "EZ");
    let told = world.told("started");
    let users: Vec<_> = told.iter().map(|line| line["db_user"].clone()).collect();
    assert_eq!(users, ["postgres", "eve", "eve", "eve"]);
}
