//! Statements that wait for a person.

use std::thread;

use crate::support::postgres::{bind, execute, message, parse, sync, tags};
use crate::support::until;
use crate::{World, error, shape};

#[test]
fn c_3_an_approved_statement_runs_once_and_a_notice_says_what_is_waited_for() {
    let world = World::new();
    let mut client = world.client();
    client.send(&message('Q', &[b"INSERT INTO held VALUES (1)\0"]));
    let approval = world.sidecar.pending_approval();
    let notice = client.next().unwrap();
    assert_eq!((notice.tag, notice.field('V')), ('N', "NOTICE".into()));
    assert_eq!(world.server.ask("SELECT count(*) FROM held"), "0");
    world.sidecar.approve(&approval);
    assert_eq!(tags(&client.until_ready()), "CZ");
    assert_eq!(world.server.ask("SELECT count(*) FROM held"), "1");
}

#[test]
fn pg_38_pg_44_answers_of_earlier_statements_and_notifications_reach_the_client_meanwhile() {
    let world = World::new();
    let mut client = world.client();
    client.query("LISTEN news");
    let batch = [
        parse("", "SELECT 1"),
        bind("", ""),
        execute("", 0),
        parse("", "SELECT * FROM held"),
        bind("", ""),
        execute("", 0),
        sync(),
    ];
    client.send(&batch.concat());
    for tag in ['1', '2', 'D', 'C'] {
        assert_eq!(client.next().unwrap().tag, tag);
    }
    let approval = world.sidecar.pending_approval();
    world.sidecar.approve(&approval);
    assert_eq!(tags(&client.until_ready()), "12CZ");
    // Idle on the server, a notification comes at once.
    client.send(&message('Q', &[b"SELECT * FROM held\0"]));
    let approval = world.sidecar.pending_approval();
    world.server.ask("NOTIFY news");
    assert_eq!(client.next().unwrap().tag, 'A');
    world.sidecar.approve(&approval);
    assert_eq!(tags(&client.until_ready()), "TCZ");
}

#[test]
fn c_3_a_client_that_leaves_takes_its_statement_with_it() {
    let world = World::new();
    let mut client = world.client();
    client.send(&message('Q', &[b"INSERT INTO held VALUES (1)\0"]));
    let approval = world.sidecar.pending_approval();
    drop(client);
    until("the session on the server to end", || {
        let left = world.server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = '' AND backend_type = 'client backend'");
        (left == "1").then_some(())
    });
    world.sidecar.approve(&approval);
    thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(world.server.ask("SELECT count(*) FROM held"), "0");
}

#[test]
fn pg_10_a_cancel_request_ends_a_hold_and_otherwise_reaches_the_server() {
    let world = World::new();
    let mut client = world.client();
    let key = client.greeting.iter().find(|message| message.tag == 'K');
    let key = key.unwrap().body.clone();
    let cancel = || {
        let length = u32::try_from(8 + key.len()).unwrap().to_be_bytes();
        let code = 80_877_102_u32.to_be_bytes();
        let mut other = crate::Client::open(world.port);
        other.send(&[&length[..], &code, &key].concat());
        assert_eq!(other.next(), None, "it is never answered");
    };
    client.query("BEGIN");
    client.send(&message('Q', &[b"INSERT INTO held VALUES (1)\0"]));
    world.sidecar.pending_approval();
    cancel();
    let answer = client.until_ready();
    assert_eq!(shape(&answer), ("EZ".into(), 'E'));
    assert_eq!(error(&answer).field('C'), "57014");
    client.query("ROLLBACK");
    client.send(&message('Q', &[b"SELECT pg_sleep(60)\0"]));
    until("the query to run", || {
        let active = world.server.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'");
        (active == "1").then_some(())
    });
    cancel();
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "57014");
    // It was done when the request ended: what follows is not hit.
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
}

#[test]
fn c_3_a_hold_ends_after_its_time_and_the_session_goes_on() {
    let world = World::with("host all all all trust\n", |setup| {
        setup.config("postgres:\n  hold_within: 300ms\n  hold_in_transaction_within: 200ms\n")
    });
    let mut client = world.client();
    let answer = client.query("INSERT INTO held VALUES (1)");
    assert_eq!(shape(&answer), ("EZ".into(), 'I'));
    assert_eq!(error(&answer).field('C'), "57014");
    client.query("BEGIN");
    assert_eq!(
        shape(&client.query("INSERT INTO held VALUES (1)")),
        ("EZ".into(), 'E')
    );
    client.query("ROLLBACK");
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
}

#[test]
fn c_11_a_server_that_goes_away_voids_what_is_held() {
    let world = World::new();
    let mut client = world.client();
    client.send(&message('Q', &[b"INSERT INTO held VALUES (1)\0"]));
    let approval = world.sidecar.pending_approval();
    world.server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'");
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "57P01");
    assert_eq!(tags(&answer), "E", "told once");
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM held"), "0");
}
