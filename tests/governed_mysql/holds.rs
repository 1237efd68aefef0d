//! Statements that wait for a person, and runs that are stopped.

use crate::World;
use crate::support::mysql::{Client, Server};
use crate::support::{free_port, until};

#[test]
fn c_3_a_held_statement_runs_once_when_approved_and_is_refused_when_not() {
    let world = World::new();
    let mut client = world.client();
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
    world.sidecar.approve(&approval);
    assert_eq!(client.answer()[0].body[0], 0);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "1");
    client.send(0, b"\x03DELETE FROM held");
    let approval = world.sidecar.pending_approval();
    world.sidecar.reject(&approval, "not today");
    let (code, text) = client.answer()[0].error();
    assert!(code == 1227 && text.contains("not today"), "{text}");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "1");
}

#[test]
fn c_3_a_client_that_leaves_takes_its_statement_with_it() {
    let world = World::new();
    let mut client = world.client();
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    drop(client);
    until("the connection to the server to end", || {
        let left = world
            .server
            .ask("SELECT count(*) FROM information_schema.processlist WHERE user = 'bob'");
        (left == "0").then_some(())
    });
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
}

#[test]
fn c_3_an_approval_that_came_late_is_for_what_was_asked_and_no_other_value() {
    let world = World::new();
    let server = &world.server;
    server.ask("INSERT INTO shop.held VALUES (1), (2), (3), (4)");
    let asks =
        |client: &mut Client, text: &str| client.send(0, &[b"\x03", text.as_bytes()].concat());
    let by_name = "EXECUTE d USING @a";
    for (text, rejoins) in [
        ("DELETE FROM held WHERE id = 3", true),
        ("DELETE FROM held WHERE id = @a", false),
        (by_name, false),
    ] {
        let begin = |value: u8| {
            let mut client = world.client();
            client.rows(&format!("SET @a = {value}"));
            client.rows("PREPARE d FROM 'DELETE FROM t WHERE id = ?'");
            client
        };
        let prepares = |client: &mut Client| {
            client.send(0, b"\x03PREPARE d FROM 'DELETE FROM held WHERE id = ?'");
            world.sidecar.approve(&world.sidecar.pending_approval());
            assert_eq!(client.answer()[0].body[0], 0);
        };
        let mut client = begin(1);
        if text == by_name {
            prepares(&mut client);
        }
        asks(&mut client, text);
        let approval = world.sidecar.pending_approval();
        drop(client);
        until("the connection to the server to end", || {
            let left = server
                .ask("SELECT count(*) FROM information_schema.processlist WHERE user = 'bob'");
            (left == "0").then_some(())
        });
        world.sidecar.approve(&approval);
        let mut client = begin(2);
        if text == by_name {
            prepares(&mut client);
        }
        asks(&mut client, text);
        if !rejoins {
            let again = world.sidecar.pending_approval();
            world.sidecar.reject(&again, "another row");
        }
        assert_eq!(client.answer()[0].is_error(), !rejoins, "{text}");
    }
    assert_eq!(server.ask("SELECT count(*) FROM shop.held"), "3");
}

#[test]
fn my_18_somebody_elses_kill_ends_a_hold_of_a_statement_or_of_the_connection() {
    let world = World::new();
    let (mut client, mut other) = (world.client(), world.client());
    let id = client.rows("SELECT connection_id()").remove(0);
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    other.query(&format!("KILL QUERY {id}"));
    let (code, _) = client.answer()[0].error();
    assert_eq!(code, 1317);
    world.sidecar.approve(&approval);
    // Prepared, with the number as its parameter.
    let kill = other.prepare("KILL QUERY ?").to_le_bytes();
    client.send(0, b"\x03INSERT INTO held VALUES (7)");
    let approval = world.sidecar.pending_approval();
    let number = id.parse::<u64>().unwrap().to_le_bytes();
    let kills = [&b"\x17"[..], &kill, b"\0\x01\0\0\0\0\x01\x08\0", &number];
    assert_eq!(other.command(&kills.concat())[0].body[0], 0);
    assert_eq!(client.answer()[0].error().0, 1317);
    world.sidecar.approve(&approval);
    // As a statement, and as a command without one.
    for (row, kill) in [(2, "KILL"), (3, "KILL CONNECTION"), (4, "")] {
        let mut client = world.client();
        let id = client.rows("SELECT connection_id()").remove(0);
        client.send(0, format!("\x03INSERT INTO held VALUES ({row})").as_bytes());
        let approval = world.sidecar.pending_approval();
        // The server ends the connection; what is held ends with it.
        match kill {
            "" => {
                let id: u32 = id.parse().unwrap();
                other.command(&[&b"\x0c"[..], &id.to_le_bytes()].concat())
            }
            _ => other.query(&format!("{kill} {id}")),
        };
        while let Some(packet) = client.next() {
            assert!(packet.is_error(), "{packet:?}");
        }
        world.sidecar.approve(&approval);
    }
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
}

#[test]
fn my_18_a_kill_by_another_listener_of_the_same_server_ends_a_hold() {
    let second = free_port();
    let server = Server::start(&[]);
    let url = format!("127.0.0.1:{second}=mysql://localhost:{}", server.port);
    let world = World::before(server, "", |setup| setup.flag("--mysql", &url));
    let (mut client, mut other) = (world.client(), Client::connect(second));
    let id = client.rows("SELECT connection_id()").remove(0);
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    // One of another number changes nothing.
    other.query("KILL QUERY 4294967");
    other.query(&format!("KILL QUERY {id}"));
    let (code, _) = client.answer()[0].error();
    assert_eq!(code, 1317);
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
}

#[test]
fn c_3_a_hold_ends_after_its_time() {
    let world = World::with(&[], |setup| {
        setup.config("mysql:\n  hold_within: 60s\n  hold_in_transaction_within: 300ms\n")
    });
    let mut client = world.client();
    client.rows("BEGIN");
    client.refusal("INSERT INTO held VALUES (1)");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}

#[test]
fn c_10_a_halted_run_is_told_and_ended_and_may_not_come_back() {
    let world = World::new();
    let (mut client, mut other) = (world.client(), world.client());
    let text = client.refusal("SELECT 'halting'");
    assert!(text.contains("halt"), "{text}");
    assert_eq!(client.next(), None);
    // As the answer to what it will ask next.
    let last = other.next().unwrap();
    assert_eq!((last.number, last.error().0), (1, 1227));
    assert_eq!(other.next(), None);
    let mut late = Client::open(world.port);
    let told = late.next().unwrap();
    assert_eq!((told.number, told.error().0), (0, 1227));
    assert_eq!(late.next(), None);
}

#[test]
fn my_29_a_server_that_ends_the_connection_ends_the_hold() {
    let world = World::new();
    let mut client = world.client();
    client.rows("SET wait_timeout = 8");
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    while let Some(packet) = client.next() {
        assert!(packet.is_error(), "{packet:?}");
    }
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
}
