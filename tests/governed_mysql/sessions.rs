//! Sessions about which policy is asked before their client has them.

use crate::World;
use crate::support::mysql::{CAPABILITIES, Client, Server, login};

fn judging(server: Server) -> World {
    World::before(server, "", |setup| {
        setup.config("mysql:\n  sessions: judge\n")
    })
}

/// A connection on which `bob` has asked for `database`.
fn asks(port: u16, database: &str) -> Client {
    let mut client = Client::open(port);
    client.next().unwrap();
    let body = login(CAPABILITIES, "bob");
    let at = body.windows(4).position(|part| part == b"shop").unwrap();
    let body = [&body[..at], database.as_bytes(), &body[at + 4..]].concat();
    client.send(1, &body);
    client
}

/// What policy asks of a session holds for it, also once it was reset, and `time` is how
/// its server calls the time of a statement.
fn limited(world: &World, time: &str, expected: &str) {
    world
        .server
        .ask("INSERT INTO shop.t VALUES (1,'a'),(2,'b'),(3,'c')");
    world
        .server
        .ask("CREATE PROCEDURE shop.all_of_it() READS SQL DATA SELECT id FROM shop.t LIMIT 3");
    // Texts that are not understood are let through: their rows count all the same.
    let allows = crate::POLICY.replace("span.db_reading.class == \"opaque\"", "false");
    world.sidecar.change_policy(&allows);
    let mut client = world.client();
    for _ in 0..2 {
        client.rows("HANDLER t OPEN");
        assert_eq!(client.rows("SELECT id FROM t ORDER BY id"), ["1", "2"]);
        // The server has a LIMIT go before what is set, and what follows changes nothing of that.
        assert_eq!(client.rows("SELECT id FROM t ORDER BY id LIMIT 3").len(), 2);
        assert_eq!(client.rows("SELECT id FROM t LIMIT 3; DO 0").len(), 2);
        assert_eq!(client.rows("HANDLER t READ FIRST LIMIT 3").len(), 2);
        assert_eq!(client.rows("CALL all_of_it()").len(), 2);
        if time == "max_statement_time" {
            let set = "SET STATEMENT sql_select_limit = 9 FOR SELECT id FROM t";
            assert_eq!(client.rows(set).len(), 2);
            assert_eq!(
                client
                    .rows("EXECUTE IMMEDIATE 'SELECT id FROM t LIMIT 3'")
                    .len(),
                2
            );
        }
        // What is told of tables is no row of one.
        let sums = "CHECKSUM TABLE t, mysql.user, mysql.db";
        assert_eq!(client.rows(sums).len(), 3);
        assert_eq!(client.rows(&format!("SELECT @@{time}")), [expected]);
        let (code, text) = client.query("INSERT INTO t VALUES (9, 'z')")[0].error();
        assert_eq!(code, 1792, "{text}");
        client.rows("HANDLER t CLOSE");
        assert_eq!(client.command(b"\x1f")[0].body[0], 0);
    }
    // MariaDB goes on as whoever was there before; MySQL ends the connection.
    client.send(0, b"\x11nobody\0\x01xshop\0\x2d\0mysql_native_password\0");
    let mut denied = client.next();
    while denied.as_ref().is_some_and(|packet| packet.body[0] == 0xfe) {
        client.send(denied.unwrap().number + 1, b"x");
        denied = client.next();
    }
    assert!(denied.unwrap().is_error());
    if time == "max_statement_time" {
        assert_eq!(client.rows("SELECT @@sql_select_limit"), ["2"]);
        assert_eq!(client.rows(&format!("SELECT @@{time}")), [expected]);
    } else {
        client = world.client();
    }
    // Another user, another session; the same policy.
    client.send(0, b"\x11bob\0\0shop\0\x2d\0mysql_native_password\0");
    let mut answer = client.next().unwrap();
    if answer.body[0] == 0xfe {
        // That there is no password, as the server's method says it.
        let caching = answer.body.starts_with(b"\xfecaching");
        client.send(2, if caching { b"\0" } else { b"" });
        answer = client.next().unwrap();
    }
    assert_eq!(answer.body[0], 0, "{answer:?}");
    assert_eq!(client.rows("SELECT id FROM t").len(), 2);
    // To another database, about which nothing is asked.
    let mut free = asks(world.port, "mysql");
    while free.next().unwrap().body[0] != 0 {
        free.send(3, b"\0");
    }
    assert_eq!(free.rows("SELECT id FROM shop.t").len(), 3);
    assert_eq!(world.ids(), "1,2,3");
}

#[test]
fn c_9_what_policy_asks_of_a_session_is_set_before_its_client_has_it() {
    limited(
        &judging(Server::start(&[])),
        "max_statement_time",
        "15.000000",
    );
}

#[test]
fn c_9_oracle_mysql_limits_a_session_as_mariadb_does() {
    if let Some(server) = Server::start_oracle(&[]) {
        limited(&judging(server), "max_execution_time", "15000");
    }
}

#[test]
fn c_3_c_9_a_session_waits_for_a_person_or_does_not_begin() {
    let world = judging(Server::start(&[]));
    world
        .server
        .ask("CREATE DATABASE closed; CREATE DATABASE asked");
    let mut client = asks(world.port, "closed");
    let told = client.next().unwrap();
    let (code, text) = told.error();
    assert_eq!((told.number, code), (2, 1227), "{text}");
    assert!(text.contains("nobody may come here"), "{text}");
    assert_eq!(client.next(), None);
    let mut client = asks(world.port, "asked");
    // Said ahead, and heard once the session has begun.
    client.send(0, b"\x03SELECT DATABASE()");
    let approval = world.sidecar.pending_approval();
    world.sidecar.approve(&approval);
    let ok = client.next().unwrap();
    assert_eq!((ok.number, ok.body[0]), (2, 0), "{ok:?}");
    let answer = client.answer();
    assert_eq!(answer[3].body, b"\x05asked");
    let mut client = asks(world.port, "asked");
    let approval = world.sidecar.pending_approval();
    world.sidecar.reject(&approval, "not today");
    let (code, text) = client.next().unwrap().error();
    assert!(code == 1227 && text.contains("not today"), "{text}");
    assert_eq!(client.next(), None);
}

#[test]
fn my_16_a_change_of_user_may_come_at_any_time() {
    let world = World::before(Server::start(&[]), "", |setup| {
        setup.config("mysql:\n  login_within: 20s\n")
    });
    let mut client = world.client();
    std::thread::sleep(std::time::Duration::from_millis(20_500));
    client.send(0, b"\x11bob\0\0shop\0\x2d\0mysql_native_password\0");
    let mut answer = client.next().unwrap();
    if answer.body[0] == 0xfe {
        client.send(2, b"");
        answer = client.next().unwrap();
    }
    assert_eq!(answer.body[0], 0, "{answer:?}");
}

#[test]
fn c_9_without_the_setting_nobody_is_asked_about_sessions() {
    let world = World::new();
    let mut client = asks(world.port, "shop");
    assert_eq!(client.next().unwrap().body[0], 0);
    client.rows("INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c')");
    assert_eq!(client.rows("SELECT id FROM t").len(), 3);
}
