//! Simple queries.

use crate::support::postgres::{Message, bind, execute, message, parse, sync, tags};
use crate::support::until;
use crate::{World, error, shape, status};

#[test]
fn pg_20_a_query_passes_unchanged_and_is_told_with_its_rows() {
    let world = World::new();
    let mut client = world.client();
    let mut direct = crate::Client::connect(world.server.port, &[("user", "postgres")]);
    for sql in [
        "SELECT 1 AS a, 'x' AS b",
        "INSERT INTO t SELECT generate_series(1, 5)",
        "SELECT * FROM nowhere",
        "DELETE FROM t WHERE id < 3",
    ] {
        let answer = client.query(sql);
        if sql.starts_with("SELECT") {
            assert_eq!(answer, direct.query(sql), "{sql}");
        }
    }
    let told = until("the last completion", || {
        let told = world.told("completed");
        (told.len() == 4).then_some(told)
    });
    let rows: Vec<_> = told.iter().map(|line| line["rows"].clone()).collect();
    assert_eq!(
        rows,
        [1.into(), 5.into(), serde_json::Value::Null, 2.into()]
    );
    let error = told[2]["error"].as_str().unwrap();
    assert!(error.starts_with("SQLSTATE 42P01"), "{error}");
    assert!(!error.contains("nowhere"), "{error}");
}

#[test]
fn pg_20_a_refused_query_never_runs_and_the_status_is_the_servers() {
    let world = World::new();
    let mut client = world.client();
    let answer = client.query("DELETE FROM forbidden");
    assert_eq!(shape(&answer), ("EZ".into(), 'I'));
    let refused = error(&answer);
    assert_eq!(refused.field('C'), "42501");
    assert_eq!(refused.field('V'), "ERROR");
    assert_eq!(refused.field('M'), "blocked by policy: the test says block");
    assert!(refused.field('D').contains("refusal code blocked"));
    // In a transaction it is aborted, on the server too.
    client.query("BEGIN; INSERT INTO t VALUES (1)");
    assert_eq!(
        shape(&client.query("DELETE FROM forbidden")),
        ("EZ".into(), 'E')
    );
    assert_eq!(error(&client.query("SELECT 1")).field('C'), "25P02");
    assert_eq!(shape(&client.query("COMMIT")), ("CZ".into(), 'I'));
    assert_eq!(world.ids(), "");
    // A savepoint brings it back.
    client.query("BEGIN; INSERT INTO t VALUES (2); SAVEPOINT s");
    client.query("SELECT * FROM forbidden");
    assert_eq!(status(&client.query("ROLLBACK TO s")), 'T');
    client.query("COMMIT");
    assert_eq!(world.ids(), "2");
}

#[test]
fn pg_21_several_statements_are_refused_whole() {
    let world = World::new();
    let mut client = world.client();
    let answer = client.query("INSERT INTO t VALUES (1); DELETE FROM forbidden; SELECT 1");
    assert_eq!(shape(&answer), ("EZ".into(), 'I'));
    assert_eq!(world.ids(), "");
    let answer = client.query("INSERT INTO t VALUES (1); SELECT 1");
    assert_eq!(tags(&answer), "CTDCZ");
}

#[test]
fn pg_22_an_empty_query_is_no_statement() {
    let world = World::new();
    let mut client = world.client();
    for sql in ["", " -- nothing\n ", "/* a */ ;"] {
        assert_eq!(shape(&client.query(sql)), ("IZ".into(), 'I'), "{sql}");
    }
    client.query("SELECT 1");
    let told = until("the completion", || {
        let told = world.told("completed");
        (!told.is_empty()).then_some(told)
    });
    assert_eq!(told.len(), 1);
}

#[test]
fn pg_23_pipelined_queries_are_answered_in_order_with_the_refused_among_them() {
    let world = World::new();
    let mut client = world.client();
    let queries = [
        "INSERT INTO t VALUES (1)",
        "SELECT * FROM forbidden",
        "INSERT INTO t VALUES (2)",
        "DELETE FROM forbidden",
    ];
    let all = queries.map(|sql| message('Q', &[sql.as_bytes(), b"\0"]));
    client.send(&all.concat());
    let answers: Vec<_> = (0..4).map(|_| shape(&client.until_ready()).0).collect();
    assert_eq!(answers, ["CZ", "EZ", "CZ", "EZ"]);
    assert_eq!(world.ids(), "1,2");
}

#[test]
fn pg_24_pg_25_pg_27_what_is_not_understood_is_told_as_opaque() {
    let world = World::new();
    let mut client = world.client();
    client.query("SET standard_conforming_strings = off");
    for sql in [
        "DO $$ BEGIN DELETE FROM t; END $$",
        "SELECT query_to_xml('DELETE FROM t', true, true, '')",
        "SELECT 'unfinished",
        "EXECUTE nothing",
    ] {
        let answer = client.query(sql);
        let said = error(&answer).field('M');
        assert_eq!(said, "blocked by policy: nobody understands this", "{sql}");
    }
    // Read as the server reads it: one literal.
    let answer = client.query(r"SELECT '\'; DELETE FROM t; --'");
    assert_eq!(tags(&answer), "TDCZ");
    // While the setting may be changing, both readings must agree.
    let on = message('Q', &[b"SET standard_conforming_strings = on\0"]);
    let text = message('Q', &[br"SELECT '\'; DELETE FROM t; --'", b"\0"]);
    client.send(&[on, text].concat());
    assert_eq!(tags(&client.until_ready()), "CZ");
    assert_eq!(
        error(&client.until_ready()).field('M'),
        "blocked by policy: nobody understands this"
    );
}

#[test]
fn pg_25_a_setting_that_is_not_reported_yet_makes_backslashes_uncertain() {
    let world = World::new();
    let mut client = world.client();
    // Executed and answered, but the server reports settings only when ready.
    let off = [
        parse("", "SET standard_conforming_strings = off"),
        bind("", ""),
        execute("", 0),
        message('H', &[]),
    ];
    client.send(&off.concat());
    for tag in ['1', '2', 'C'] {
        assert_eq!(client.next().unwrap().tag, tag);
    }
    // Two literals, or a call: `SELECT '…', pg_cancel_backend(0) --'`.
    let text = r"SELECT '\' , ', pg_cancel_backend(0) --'";
    client.send(&[parse("", text), bind("", ""), execute("", 0), sync()].concat());
    let answer = client.until_ready();
    assert_eq!(
        error(&answer).field('M'),
        "blocked by policy: nobody understands this"
    );
    // Once reported, it is read as the server reads it.
    client.send(&[parse("", text), bind("", ""), execute("", 0), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12DCZ");
}

#[test]
fn pg_11_pg_24_what_a_server_says_of_its_settings_is_relayed_and_heeded() {
    let world = World::new();
    let mut client = world.client();
    let answer = client.query("SET TimeZone = 'Asia/Tokyo'");
    assert!(told(&answer, b"TimeZone\0Asia/Tokyo\0"), "{answer:?}");
    // Of a setting that is changed from outside the client hears behind its next statement.
    world
        .server
        .ask("ALTER SYSTEM SET IntervalStyle = 'iso_8601'");
    world.server.ask("SELECT pg_reload_conf()");
    until("the server tells of its new setting", || {
        told(&client.query("SELECT 1"), b"IntervalStyle\0iso_8601\0").then_some(())
    });
    // The second byte of this character is a backslash elsewhere.
    let text = b"SELECT '\x83\x5c'\0";
    let answer = client.query("SET client_encoding = 'SJIS'");
    assert!(told(&answer, b"client_encoding\0SJIS\0"), "{answer:?}");
    client.send(&message('Q', &[text]));
    let said = error(&client.until_ready()).field('M');
    assert_eq!(said, "blocked by policy: nobody understands this");
    // What is the same in every encoding is read all the same.
    assert_eq!(tags(&client.query("SELECT 'plain'")), "TDCZ");
}

/// Whether a `ParameterStatus` says this.
fn told(answer: &[Message], setting: &[u8]) -> bool {
    answer
        .iter()
        .any(|message| message.tag == 'S' && message.body == setting)
}

#[test]
fn c_7_passwords_in_statements_stay_out_of_the_journal_and_the_log() {
    let world = World::new();
    let mut client = world.client();
    for sql in [
        "CREATE ROLE keeper LOGIN PASSWORD 'correct-horse'",
        "ALTER ROLE keeper PASSWORD $p$correct-horse$p$",
        "ALTER ROLE keeper PASSWORD E'correct\\-horse'",
        "SELECT 'correct-horse'::int",
    ] {
        client.query(sql);
    }
    // The last one's error names the value.
    until("all is told", || {
        (world.told("completed").len() == 4).then_some(())
    });
    let kept = format!("{:?}{}", world.sidecar.journal(), world.sidecar.log());
    assert!(kept.contains("ALTER"), "{kept}");
    assert!(!kept.contains("horse"), "{kept}");
}

#[test]
fn c_10_a_halt_ends_the_session_and_refuses_new_ones() {
    let world = World::new();
    let mut idle = world.client();
    let mut client = world.client();
    let answer = client.query("SELECT * FROM halting");
    let last = error(&answer);
    assert_eq!(
        (last.field('V'), last.field('C')),
        ("FATAL".into(), "42501".into())
    );
    assert_eq!(answer.last().unwrap().tag, 'E', "the session has ended");
    // Whose run is the same, and idle.
    let told = idle.until_ready();
    assert_eq!(error(&told).field('C'), "42501");
    let mut late = crate::Client::open(world.port);
    late.startup(196_608, &[("user", "postgres")]);
    let answer = late.until_ready();
    assert_eq!(
        (error(&answer).field('V'), tags(&answer)),
        ("FATAL".into(), "E".into())
    );
}
