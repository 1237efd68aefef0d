//! Statements that wait for a person.

use std::io::{Read, Write};
use std::net::TcpListener;
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
    // That somebody is asked is said after a while.
    let mut told = client.next().unwrap().tag;
    while told == 'N' {
        told = client.next().unwrap().tag;
    }
    assert_eq!(told, 'A');
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
fn c_3_a_hold_inside_a_transaction_has_a_time_of_its_own() {
    let world = World::with("host all all all trust\n", |setup| {
        setup.config("postgres:\n  hold_within: 5m\n  hold_in_transaction_within: 200ms\n")
    });
    let mut client = world.client();
    client.query("BEGIN");
    let answer = client.query("INSERT INTO held VALUES (1)");
    assert_eq!(shape(&answer), ("EZ".into(), 'E'));
    assert_eq!(error(&answer).field('C'), "57014");
}

#[test]
fn c_3_a_client_that_leaves_is_noticed_behind_all_it_has_said() {
    let world = World::new();
    let mut client = world.client();
    // More than is read while something is held: its end cannot be read.
    let more = message('Q', &[&*vec![b' '; 1 << 20], b"\0"]);
    let held = message('Q', &[b"INSERT INTO held VALUES (1)\0"]);
    client.send(&[held, more].concat());
    let approval = world.sidecar.pending_approval();
    drop(client);
    until("the session on the server to end", || {
        let left = world.server.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = '' AND backend_type = 'client backend'");
        (left == "1").then_some(())
    });
    world.sidecar.approve(&approval);
    assert_eq!(world.server.ask("SELECT count(*) FROM held"), "0");
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

/// A server that nobody has seen: it changes the transaction while nothing is
/// asked of it. Returns what it was sent after that.
fn turning(listener: &TcpListener, turn: &std::sync::mpsc::Receiver<()>) -> Vec<u8> {
    let (mut socket, _) = listener.accept().unwrap();
    let mut bytes = [0; 4_096];
    let begun = socket.read(&mut bytes).unwrap();
    assert!(begun > 8);
    let greeting = [message('R', &[b"\0\0\0\0"]), message('Z', &[b"I"])];
    socket.write_all(&greeting.concat()).unwrap();
    turn.recv().unwrap();
    socket.write_all(&message('Z', &[b"T"])).unwrap();
    turn.recv().unwrap();
    let sent = socket.read(&mut bytes).unwrap();
    let sent = bytes[..sent].to_vec();
    let end = sent[5..].iter().position(|byte| *byte == 0).unwrap();
    let text = format!(
        "Mportal \"{}\"\0",
        String::from_utf8_lossy(&sent[5..5 + end])
    );
    let answer = [
        message('E', &[b"SERROR\0VERROR\0C34000\0", text.as_bytes(), b"\0"]),
        message('Z', &[b"E"]),
    ];
    socket.write_all(&answer.concat()).unwrap();
    sent
}

#[test]
fn c_3_what_was_approved_is_not_run_once_the_transaction_is_another() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().port();
    let (turn, turns) = std::sync::mpsc::channel();
    let serving = thread::spawn(move || turning(&listener, &turns));
    let port = crate::free_port();
    let url = format!("127.0.0.1:{port}=postgres://127.0.0.1:{server}?sslmode=disable");
    let setup = crate::Setup::new().policy(crate::POLICY);
    let sidecar = setup.flag("--pg", &url).start();
    let mut client = crate::Client::connect(port, &[("user", "postgres")]);
    client.send(&message('Q', &[b"INSERT INTO held VALUES (1)\0"]));
    let approval = sidecar.pending_approval();
    turn.send(()).unwrap();
    assert_eq!(shape(&client.until_ready()), ("Z".into(), 'T'));
    sidecar.approve(&approval);
    turn.send(()).unwrap();
    let answer = client.until_ready();
    assert_eq!(shape(&answer), ("EZ".into(), 'E'));
    assert_eq!(error(&answer).field('C'), "57014");
    let said = error(&answer).field('M');
    assert!(said.contains("transaction changed"), "{said}");
    let sent = serving.join().unwrap();
    assert!(!String::from_utf8_lossy(&sent).contains("held"), "{sent:?}");
}

#[test]
fn the_starter_policy_has_psql_wait_where_much_may_be_lost_and_blocks_programs() {
    let server = crate::Server::start_with("host all all all trust\n", &[]);
    server.ask("CREATE TABLE t AS SELECT generate_series(1, 3) AS id");
    let port = crate::free_port();
    let url = format!("127.0.0.1:{port}=postgres://localhost:{}", server.port);
    let sidecar = crate::Setup::new().flag("--pg", &url).start();
    let psql = |sql: &str| {
        let mut command = std::process::Command::new("psql");
        command
            .args(["-At", "-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["-U", "postgres", "-c", sql])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let said = |child: std::process::Child| {
        let ended = child.wait_with_output().unwrap();
        let both = [ended.stdout, ended.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    assert_eq!(said(psql("SELECT count(*) FROM t")), "3\n");
    assert_eq!(said(psql("DELETE FROM t WHERE id = 1")), "DELETE 1\n");
    let refused = said(psql("COPY t TO PROGRAM 'cat'"));
    let expected = "blocked by policy: the statement reaches beyond the database";
    assert!(refused.contains(expected), "{refused}");
    for (sql, expected) in [
        ("DELETE FROM t", "DELETE 2\n"),
        ("CREATE TABLE made (id int)", "CREATE TABLE\n"),
    ] {
        let waiting = psql(sql);
        let approval = sidecar.pending_approval();
        assert_eq!(
            server.ask("SELECT count(*) FROM t WHERE id = 2 OR id = 3"),
            "2"
        );
        sidecar.approve(&approval);
        assert_eq!(said(waiting), expected, "{sql}");
        server.ask("INSERT INTO t VALUES (2), (3)");
    }
}
