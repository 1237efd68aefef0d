//! The same execution over and over.

use crate::World;
use crate::support::mysql::{CAPABILITIES, Client, execute, login};
use crate::support::policies::{OF_WHOM, STEADY};
use crate::support::until;

#[test]
fn c_2_what_is_executed_over_and_over_is_counted_and_nothing_is_lost() {
    let world = World::with(&[], |setup| {
        setup.write("policy.rego", STEADY);
        setup
    });
    let mut client = world.client();
    for _ in 0..40 {
        assert_eq!(client.rows("SELECT 1"), ["1"]);
    }
    let statement = client.prepare("SELECT 2");
    for _ in 0..40 {
        assert!(!client.command(&execute(statement))[0].is_error());
    }
    assert!(client.query("DELETE FROM forbidden")[0].is_error());
    // Another database is another place.
    for _ in 0..10 {
        client.command(b"\x02mysql");
        client.rows("SELECT 1");
        client.command(b"\x02test");
        client.rows("SELECT 1");
    }
    drop(client);
    until("everything is told", || {
        let [decisions, completions, admitted, answered, apart, _] = world.sidecar.repeats();
        (decisions == completions + 1 && [admitted, answered, apart] == [48, 48, 0]).then_some(())
    });
}

/// Nor is what somebody may do remembered for whoever the session becomes.
#[test]
fn c_12_who_has_logged_in_is_told_also_behind_a_change_of_user() {
    let world = World::with(&[], |setup| {
        setup.write("policy.rego", OF_WHOM);
        setup
    });
    world
        .server
        .ask("CREATE USER eve@'%'; GRANT ALL ON *.* TO eve@'%'");
    let mut client = world.client();
    for _ in 0..40 {
        assert_eq!(client.rows("SELECT 'NOT_FOR_eve'"), ["NOT_FOR_eve"]);
    }
    let text = client.refusal("SELECT 'NOT_FOR_bob'");
    assert!(text.contains("not for bob"), "{text}");
    client.send(0, b"\x11eve\0\0shop\0\x2d\0mysql_native_password\0");
    let mut answer = client.next().unwrap();
    if answer.body[0] == 0xfe {
        client.send(2, b"");
        answer = client.next().unwrap();
    }
    assert_eq!(answer.body[0], 0, "{answer:?}");
    let text = client.refusal("SELECT 'NOT_FOR_eve'");
    assert!(text.contains("not for eve"), "{text}");
    let told = world.told("started");
    let users = [told.first(), told.last()].map(|line| line.unwrap()["db_user"].clone());
    assert_eq!(users, ["bob", "eve"]);
}

#[test]
fn my_2_c_12_a_login_in_quotes_is_told_as_the_server_takes_it() {
    let world = World::with(&[], |setup| {
        setup.write("policy.rego", OF_WHOM);
        setup
    });
    let mut client = Client::open(world.port);
    client.next().unwrap();
    client.send(1, &login(CAPABILITIES, "'bob'"));
    assert_eq!(client.next().unwrap().body[0], 0);
    let user = client.rows("SELECT SUBSTRING_INDEX(USER(), '@', 1)");
    assert_eq!(user, ["bob"]);
    let text = client.refusal("SELECT 'NOT_FOR_bob'");
    assert!(text.contains("not for bob"), "{text}");
}
