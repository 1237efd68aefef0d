//! What a text does not show: procedures, texts in variables, a database that changes
//! behind the sidecar's back, values that were sent ahead, a server that is lost.

use std::io::Read;

use crate::between::between;
use crate::support::mysql::{CAPABILITIES, Client, Packet, Server, execute, login};
use crate::support::sidecar::Setup;
use crate::support::{free_port, until};
use crate::{POLICY, World};

/// A world in which what is not understood passes.
fn opaque_passes() -> World {
    let world = World::new();
    let passes = POLICY.replace("span.db_reading.class == \"opaque\"", "false");
    world.sidecar.change_policy(&passes);
    world
}

/// A session that is told of what changes in it.
fn tracking(port: u16) -> Client {
    let mut client = Client::open(port);
    client.next().unwrap();
    client.send(1, &login(CAPABILITIES | 1 << 23, "bob"));
    assert_eq!(client.next().unwrap().body[0], 0);
    client
}

/// The database that policy is told.
fn database(client: &mut Client) -> String {
    let text = client.refusal("SELECT 'WHICH_DATABASE'");
    let named = ["shop", "mysql", "secret"];
    let named = named
        .iter()
        .find(|name| text.contains(&format!("policy: {name}")));
    named.map_or(text.clone(), |name| (*name).to_owned())
}

#[test]
fn my_11_a_call_with_several_results_and_what_it_gives_back_is_one_execution() {
    let world = opaque_passes();
    let made = Client::connect(world.server.port).query(
        "CREATE PROCEDURE p(OUT n INT) BEGIN SELECT 1; SELECT 2 UNION SELECT 3; SET n = 7; END",
    );
    assert!(!made[0].is_error(), "{made:?}");
    let mut client = world.client();
    let answer = client.query("CALL p(@n)");
    assert_eq!(answer.len(), 5 + 6 + 1, "{answer:?}");
    assert_eq!(client.rows("SELECT @n"), ["7"]);
    let call = client.prepare("CALL p(?)").to_le_bytes();
    let values = [&b"\x17"[..], &call, b"\0\x01\0\0\0\x01\x01\x03\0"].concat();
    // What it gives back is a result of its own.
    let answer = client.command(&values);
    assert_eq!(answer.len(), 5 + 6 + 5 + 1, "{answer:?}");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
    let calls = || {
        let all = world.told("completed").into_iter();
        let rows = all.map(|line| line["rows"].as_u64().unwrap_or_default());
        rows.filter(|rows| *rows > 1).collect::<Vec<_>>()
    };
    until("both calls to complete", || {
        (calls().len() == 2).then_some(())
    });
    assert_eq!(calls(), [3, 4]);
}

#[test]
fn my_17_the_current_database_is_known_also_where_nobody_says_that_it_changed() {
    let world = opaque_passes();
    world.server.ask("CREATE DATABASE secret");
    let mut quiet = tracking(world.port);
    quiet.rows("SET session_track_schema = OFF");
    for mut client in [world.client(), tracking(world.port), quiet] {
        for (text, expected) in [
            ("USE mysql", "mysql"),
            // It is not there.
            ("USE nowhere", "mysql"),
            ("/*!50000 USE secret */", "secret"),
            ("USE shop; SELECT 1", "shop"),
            ("/*!99999 USE mysql */", "shop"),
            ("EXECUTE IMMEDIATE 'USE mysql'", "mysql"),
            (
                "USE shop; SET session_track_schema = OFF; USE secret",
                "secret",
            ),
            ("SET sql_mode = 'ANSI_QUOTES'", "secret"),
            ("USE \"shop\"", "shop"),
            ("USE nowhere; USE mysql", "shop"),
        ] {
            client.query(text);
            assert_eq!(database(&mut client), expected, "{text}");
        }
        assert_eq!(client.command(b"\x02mysql")[0].body[0], 0);
        assert_eq!(database(&mut client), "mysql");
        assert!(client.command(b"\x02nowhere")[0].is_error());
        assert_eq!(database(&mut client), "mysql");
        // Too long to be read, and too long for its end to be seen.
        for pad in [1 << 20, 3 << 20] {
            client.query(&format!("SELECT 1 /* {} */; USE secret", "x".repeat(pad)));
            assert_eq!(database(&mut client), "secret", "{pad}");
            client.query("USE shop");
        }
    }
}

#[test]
fn my_17_where_the_server_cannot_say_which_database_is_current_nothing_is_understood() {
    let world = opaque_passes();
    world.server.ask("CREATE DATABASE secret");
    // It says it also where a session asks for no rows.
    let mut client = world.client();
    client.rows("SET sql_select_limit = 0");
    client.query("/*!50000 USE secret */");
    assert_eq!(database(&mut client), "secret");
    // In an encoding that nobody reads it says nothing.
    let mut client = world.client();
    client.rows("SET character_set_results = utf16");
    client.query("/*!50000 USE secret */");
    world.sidecar.change_policy(POLICY);
    for text in ["DELETE FROM t", "PREPARE s FROM 'SELECT 1'"] {
        let why = client.refusal(text).replace('\0', "");
        assert!(why.contains("which database is current"), "{why}");
    }
    let number = client.prepare("SELECT 1");
    let (code, why) = client.command(&execute(number))[0].error();
    let why = why.replace('\0', "");
    assert!(
        code == 1227 && why.contains("which database is current"),
        "{why}"
    );
    // Until it is said.
    client.query("USE shop");
    assert!(!client.query("DELETE FROM t")[0].is_error());
}

#[test]
fn my_13_my_17_what_was_prepared_means_what_it_meant_in_the_database_of_then() {
    let world = World::new();
    let named = |client: &mut Client, number: u32| {
        client.send(0, &execute(number));
        let (_, text) = client.next().unwrap().error();
        ["shop", "mysql"].map(|name| text.contains(&format!("policy: {name}")))
    };
    let mut client = world.client();
    let asks = "SELECT 'WHICH_DATABASE'";
    let there = client.prepare(asks);
    client.rows("USE mysql");
    let here = client.prepare(asks);
    assert_eq!(named(&mut client, there), [true, false]);
    assert_eq!(named(&mut client, here), [false, true]);
    client.rows("USE shop");
    assert_eq!(named(&mut client, here), [false, true]);
    // As the server has it: the table is in the database of then.
    let count = client.prepare("SELECT COUNT(*) FROM t");
    client.rows("USE mysql");
    client.send(0, &execute(count));
    assert!(!client.answer()[0].is_error());
}

#[test]
fn my_17_my_26_a_database_of_letters_is_told_in_these_letters() {
    let world = World::new();
    // Its client goes by the locale otherwise.
    world
        .server
        .ask("SET NAMES utf8mb4; CREATE DATABASE `caf\u{e9}`");
    let mut client = world.client();
    client.rows("SET NAMES utf8mb4");
    assert_eq!(client.command("\x02caf\u{e9}".as_bytes())[0].body[0], 0);
    let text = client.refusal("SELECT 'WHICH_DATABASE'");
    assert!(text.contains("caf\u{e9}"), "{text}");
    client.rows("SET NAMES latin1");
    // In other letters than it is read in.
    client.rows("USE shop");
    let (code, text) = client.command(b"\x02caf\xe9")[0].error();
    assert!(code == 1227 && text.contains("cannot be read"), "{text}");
    let (code, text) = client.command("\x02caf\u{e9}".as_bytes())[0].error();
    assert!(code == 1227 && text.contains("an encoding"), "{text}");
    assert!(client.command(b"\x03USE `caf\xe9`")[0].is_error());
    assert_eq!(database(&mut client), "shop");
}

#[test]
fn my_28_texts_in_variables_events_and_triggers_are_nothing_that_is_read() {
    let world = World::new();
    let strict = POLICY.replace(
        "span.db_reading.class == \"admin\"",
        "span.db_reading.class in {\"admin\", \"schema\"}",
    );
    world.sidecar.change_policy(&strict);
    world.server.ask("INSERT INTO shop.t VALUES (1, 'a')");
    let mut client = world.client();
    client.rows("SET @v = 'DELETE FROM t'");
    for text in [
        "PREPARE s FROM @v",
        "PREPARE s FROM 'DELETE FROM forbidden'",
        "PREPARE s FROM 'DELETE FROM t WHERE x = ''a'''",
        "EXECUTE s",
        "EXECUTE s USING @v",
        "EXECUTE IMMEDIATE @v",
        "EXECUTE IMMEDIATE 'DELETE FROM t' USING 1",
        "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO DELETE FROM t",
        "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
        "CREATE PROCEDURE p() DELETE FROM t",
        "CREATE FUNCTION f() RETURNS INT BEGIN DELETE FROM t; RETURN 1; END",
        "SET GLOBAL event_scheduler = ON",
        "BEGIN NOT ATOMIC DELETE FROM t; END",
    ] {
        client.refusal(text);
    }
    assert_eq!(world.ids(), "1");
}

#[test]
fn my_18_who_is_ended_as_a_user_loses_what_is_held() {
    let world = World::new();
    let mut client = world.client();
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    // It ends every connection of that user, and is a statement of another.
    let mut root = Client::connect_as(world.port, "root");
    root.query("KILL USER bob");
    while let Some(packet) = client.next() {
        assert!(packet.is_error(), "{packet:?}");
    }
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
    assert_eq!(root.rows("SELECT 1"), ["1"]);
}

#[test]
fn my_21_a_server_that_asks_for_another_file_gets_none() {
    let server = Server::start(&["--local-infile=1"]);
    let (near, passing) = between(server.port);
    let port = free_port();
    let url = format!("127.0.0.1:{port}=mysql://localhost:{near}?ssl-mode=DISABLED");
    let _sidecar = Setup::new()
        .policy(POLICY)
        .flag("--mysql", &url)
        .config("mysql:\n  local_files: judge\n")
        .start();
    let mut client = Client::open(port);
    client.next().unwrap();
    client.send(1, &login(CAPABILITIES | 0x80, "bob"));
    assert_eq!(client.next().unwrap().body[0], 0);
    passing.lock().unwrap().swap = Some((b"\xfb/tmp/a", b"\xfb/tmp/b"));
    client.send(0, b"\x03LOAD DATA LOCAL INFILE '/tmp/a' INTO TABLE t");
    let answer = client.next().unwrap();
    let (code, text) = answer.error();
    assert!(code == 1227 && text.contains("another file"), "{text}");
    // Asked for the one that is named, the client is asked.
    passing.lock().unwrap().swap = None;
    client.send(0, b"\x03LOAD DATA LOCAL INFILE '/tmp/a' INTO TABLE t");
    assert_eq!(client.next().unwrap().body, b"\xfb/tmp/a");
    client.send(2, b"");
    assert_eq!(client.next().unwrap().body[0], 0);
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}

#[test]
fn c_8_my_30_a_server_that_says_what_no_server_says_is_counted() {
    let server = Server::start(&[]);
    let (near, passing) = between(server.port);
    let port = free_port();
    let url = format!("127.0.0.1:{port}=mysql://localhost:{near}?ssl-mode=DISABLED");
    let sidecar = Setup::new().policy(POLICY).flag("--mysql", &url).start();
    let mut client = Client::connect(port);
    // A number of columns that is not all there.
    passing.lock().unwrap().swap = Some((b"\x07\0\0\x01\0\0\0", b"\x07\0\0\x01\xfe\0\0"));
    client.send(0, b"\x03DO 0");
    assert_eq!(client.next(), None);
    let broken = "openbox_malformed_total{protocol=\"mysql\"}";
    assert_eq!(sidecar.metric(broken), 1);
    passing.lock().unwrap().swap = None;
    assert_eq!(Client::connect(port).rows("SELECT 1"), ["1"]);
    let completed = sidecar.recorded("its end", |line| line["stage"] == "completed");
    assert!(
        completed["error"].to_string().contains("ended"),
        "{completed}"
    );
}

#[test]
fn my_25_my_13_what_is_prepared_and_executed_in_one_go_is_judged() {
    let world = World::new();
    let mut client = world.client();
    let both = |client: &mut Client, sql: &str| -> Vec<Packet> {
        client.send(0, &[b"\x16", sql.as_bytes()].concat());
        client.send(0, &execute(u32::MAX));
        client.prepared().unwrap();
        client.answer()
    };
    assert_eq!(
        both(&mut client, "INSERT INTO t VALUES (1, 'a')")[0].body[0],
        0
    );
    assert_eq!(
        both(&mut client, "DELETE FROM forbidden")[0].error().0,
        1227
    );
    assert_eq!(both(&mut client, "SELECT id FROM t").len(), 5);
    // What cannot be prepared is not executed either.
    client.send(0, b"\x16FROB");
    client.send(0, &execute(u32::MAX));
    assert!(client.prepared().is_err());
    assert!(client.answer()[0].is_error());
    assert_eq!(world.ids(), "1");
}

#[test]
fn my_13_my_14_values_sent_ahead_count_for_their_statement_alone() {
    let world = World::new();
    let mut client = world.client();
    let held = client.prepare("INSERT INTO t SELECT 1, ? FROM dual WHERE 'held' <> ''");
    let other = client.prepare("SELECT 1");
    let values = [
        &b"\x17"[..],
        &held.to_le_bytes(),
        b"\0\x01\0\0\0\0\x01\xfc\0",
    ]
    .concat();
    for said in ["one", "two"] {
        let ahead = [&b"\x18"[..], &held.to_le_bytes(), b"\0\0", said.as_bytes()].concat();
        client.send(0, &ahead);
        assert_eq!(client.command(&execute(other)).len(), 5);
        client.send(0, &values);
        // Each has an approval of its own, since what it says is another.
        let approval = world.sidecar.pending_approval();
        world.sidecar.approve(&approval);
        assert_eq!(client.answer()[0].body[0], 0);
        assert_eq!(client.rows("SELECT x FROM t"), [said]);
        client.rows("DELETE FROM t");
    }
    let all = world.told("started").into_iter();
    let inserts: Vec<_> = all
        .filter(|line| line["db_operation"] == "INSERT")
        .collect();
    assert_eq!(inserts.len(), 2);
    for line in inserts {
        assert!(line["statement_sha256"].is_null(), "{line}");
    }
}

#[test]
fn my_29_a_packet_that_is_too_long_for_the_server_is_what_it_says() {
    let world = World::new();
    world.server.ask("SET GLOBAL max_allowed_packet = 1048576");
    let mut client = world.client();
    let long = format!("INSERT INTO t VALUES (1, '{}')", "x".repeat(1_100_000));
    let (code, text) = client.query(&long)[0].error();
    assert_eq!(code, 1153, "{text}");
    let completed = world.sidecar.recorded("its end", |line| {
        line["stage"] == "completed" && line["error"].to_string().contains("1153")
    });
    assert!(!completed["error"].is_null());
}

#[test]
fn my_29_oracle_mysql_says_why_it_ends_a_session_that_is_held() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let world = World::before(server, "", |setup| setup);
    let mut client = world.client();
    client.rows("SET wait_timeout = 8");
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    assert_eq!(client.next().unwrap().error().0, 4031);
    assert_eq!(client.next(), None);
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
}

#[test]
fn c_11_what_runs_when_the_server_is_lost_has_failed_and_what_is_held_ends() {
    let World {
        server,
        sidecar,
        port,
    } = World::new();
    let (mut runs, mut held) = (Client::connect(port), Client::connect(port));
    runs.send(0, b"\x03SELECT sleep(30)");
    held.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = sidecar.pending_approval();
    drop(server);
    for client in [&mut runs, &mut held] {
        while let Some(packet) = client.next() {
            assert!(packet.is_error(), "{packet:?}");
        }
    }
    let completed = sidecar.recorded("what ran", |line| {
        line["stage"] == "completed" && line["error"].to_string().contains("ended the connection")
    });
    assert_eq!(completed["db_operation"], "SELECT");
    sidecar.approve(&approval);
    let inserts = sidecar
        .journal()
        .into_iter()
        .filter(|line| line["stage"] == "completed" && line["db_operation"] == "INSERT");
    assert_eq!(inserts.count(), 0);
}

#[test]
fn c_11_my_23_a_server_that_is_lost_amid_rows_ends_the_session_and_what_ran_has_failed() {
    let World {
        server,
        sidecar,
        port,
    } = World::new();
    let mut client = Client::connect(port);
    // More than all that is between waits for: the server is still at it.
    client.send(
        0,
        b"\x03SELECT repeat('x', 100000) FROM information_schema.columns a, information_schema.columns b",
    );
    // A number of columns, the column, its end, and rows.
    for number in 1..=8 {
        let packet = client.next().unwrap();
        assert_eq!(packet.number, number);
        assert!(!packet.is_error(), "{packet:?}");
    }
    drop(server);
    // What had come goes on, and nothing that looks like an end of it.
    let mut read = vec![0; 1 << 16];
    let mut rows = Vec::new();
    while let Ok(count @ 1..) = client.socket.read(&mut read) {
        rows.extend_from_slice(&read[..count]);
    }
    let (mut at, mut whole) = (0, 0);
    while let Some([a, b, c, _]) = rows.get(at..at + 4) {
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, 0])).unwrap();
        assert!(
            length > 9 || rows.len() < at + 4 + length,
            "an end, or an error"
        );
        (at, whole) = (at + 4 + length, whole + 1);
    }
    let completed = sidecar.recorded("what ran", |line| {
        line["stage"] == "completed" && line["error"].to_string().contains("ended the connection")
    });
    assert_eq!(completed["db_operation"], "SELECT", "{whole}");
}
