//! Prepared statements, portals, pipelines, function calls.

use crate::support::postgres::{bind, execute, message, parse, sync, tags};
use crate::support::until;
use crate::{World, error, shape};

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), execute("", 0)].concat()
}

#[test]
fn pg_33_a_refused_execute_takes_its_batch_with_it_and_nothing_else() {
    let world = World::new();
    let mut client = world.client();
    let batch = [
        run("INSERT INTO t VALUES (1)"),
        run("DELETE FROM forbidden"),
        run("INSERT INTO t VALUES (2)"),
        sync(),
        run("INSERT INTO t VALUES (3)"),
        sync(),
        sync(),
    ];
    client.send(&batch.concat());
    let answer = client.until_ready();
    assert_eq!(shape(&answer), ("12C12EZ".into(), 'I'));
    assert_eq!(error(&answer).field('C'), "42501");
    assert_eq!(shape(&client.until_ready()), ("12CZ".into(), 'I'));
    assert_eq!(shape(&client.until_ready()), ("Z".into(), 'I'));
    assert_eq!(world.ids(), "3");
    let completed = until("every completion", || {
        let completed = world.told("completed");
        let outcomes = completed
            .iter()
            .map(|line| line["outcome"].as_str().unwrap());
        let outcomes: Vec<_> = outcomes.map(str::to_owned).collect();
        (outcomes
            .iter()
            .filter(|outcome| *outcome == "answered")
            .count()
            == 2)
            .then_some(outcomes)
    });
    // Whether the one behind the refused was asked about is a matter of time.
    let started = world.told("started");
    assert_eq!(started[1]["decision"], "blocked");
    assert_eq!(completed.len(), started.len() - 1, "{completed:?}");
}

#[test]
fn pg_36_a_refused_query_behind_a_failed_batch_is_discarded_as_any_would_be() {
    let world = World::new();
    let mut client = world.client();
    let missing = message('D', &[b"Sgone\0"]);
    let call = message('F', &[&1_234_u32.to_be_bytes(), &[0; 8]]);
    for refused in [message('Q', &[b"DELETE FROM forbidden\0"]), call] {
        let batch = [
            missing.clone(),
            refused,
            run("INSERT INTO t VALUES (1)"),
            sync(),
        ];
        client.send(&batch.concat());
        let answer = client.until_ready();
        assert_eq!(error(&answer).field('C'), "26000", "{answer:?}");
        assert_eq!(shape(&answer), ("EZ".into(), 'I'));
    }
    // Where nothing has failed it is refused, and ends what came before.
    let fine = [
        run("INSERT INTO t VALUES (2)"),
        message('Q', &[b"DELETE FROM forbidden\0"]),
        sync(),
    ];
    client.send(&fine.concat());
    assert_eq!(shape(&client.until_ready()), ("12CEZ".into(), 'I'));
    assert_eq!(shape(&client.until_ready()), ("Z".into(), 'I'));
    assert_eq!(world.ids(), "");
}

#[test]
fn pg_30_a_name_means_what_the_server_takes_it_for() {
    let world = World::new();
    let mut client = world.client();
    client.send(&[parse("s", "DELETE FROM forbidden"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1Z");
    // The server refuses the second, so the name keeps its first text.
    let again = [
        parse("s", "SELECT 1"),
        sync(),
        bind("", "s"),
        execute("", 0),
        sync(),
    ];
    client.send(&again.concat());
    assert_eq!(error(&client.until_ready()).field('C'), "42P05");
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "42501", "{answer:?}");
    // Closed, it is free for another; pipelined, as drivers do.
    let close = message('C', &[b"Ss\0"]);
    let renamed = [
        close,
        parse("s", "SELECT 1"),
        bind("", "s"),
        execute("", 0),
        sync(),
    ];
    client.send(&renamed.concat());
    assert_eq!(tags(&client.until_ready()), "312DCZ");
}

const BLOCKED: &str = "blocked by policy: the test says block";
const OPAQUE: &str = "blocked by policy: nobody understands this";

#[test]
fn pg_30_pg_32_closed_statements_and_portals_of_ended_transactions_are_no_longer_known() {
    let world = World::new();
    let mut client = world.client();
    let close = message('C', &[b"Ss\0"]);
    client.send(&[parse("s", "SELECT 1"), close, sync()].concat());
    assert_eq!(tags(&client.until_ready()), "13Z");
    client.send(&[bind("", "s"), execute("", 0), sync()].concat());
    let answer = client.until_ready();
    // What nobody here knows is opaque, which policy refuses; the server would say 26000.
    assert_eq!(error(&answer).field('C'), "42501");
    client.query("BEGIN");
    client.send(&[parse("", "SELECT 1"), bind("p", ""), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12Z");
    client.query("COMMIT");
    client.send(&[execute("p", 0), sync()].concat());
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "42501");
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
}

#[test]
fn pg_26_what_runs_by_its_name_is_judged_as_the_statement_behind_it() {
    let world = World::new();
    let mut client = world.client();
    let refused = |answer: &[crate::Message]| error(answer).field('M');
    // Judged where its text is; and by a name that the protocol gave.
    let answer = client.query("PREPARE q AS DELETE FROM forbidden");
    assert_eq!(refused(&answer), BLOCKED);
    client.send(&[parse("s", "DELETE FROM forbidden"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1Z");
    assert_eq!(refused(&client.query("EXECUTE s")), BLOCKED);
    // By SQL the name gets another text, which is seen.
    client.query("DEALLOCATE s");
    client.query("PREPARE s (int) AS INSERT INTO t VALUES ($1)");
    assert_eq!(tags(&client.query("EXECUTE S(1)")), "CZ");
    client.send(&[run("EXECUTE s(2)"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12CZ");
    assert_eq!(world.ids(), "1,2");
    // What is rolled back stays prepared, and what fails changes nothing.
    client.query("BEGIN");
    client.query("PREPARE r AS SELECT 'kept'");
    client.query("ROLLBACK");
    let answer = client.query("PREPARE r AS SELECT 'other'");
    assert_eq!(error(&answer).field('C'), "42P05");
    assert_eq!(client.rows("EXECUTE r")[0][0], "kept");
    // In one text, and in one breath.
    let answer = client.query("PREPARE x AS SELECT 1; EXECUTE x; DEALLOCATE x");
    assert_eq!(tags(&answer), "CTDCCZ");
    let prepare = message('Q', &[b"PREPARE x AS SELECT 2\0"]);
    let execute_it = message('Q', &[b"EXECUTE x\0"]);
    client.send(&[prepare, execute_it].concat());
    assert_eq!(tags(&client.until_ready()), "CZ");
    assert_eq!(tags(&client.until_ready()), "TDCZ");
    // What nobody saw is opaque.
    assert_eq!(refused(&client.query("EXECUTE x; EXECUTE nobody")), OPAQUE);
    client.query("DO $$ BEGIN EXECUTE 'PREPARE z AS SELECT 1'; /* trusted */ END $$");
    assert_eq!(refused(&client.query("EXECUTE r")), OPAQUE);
    client.query("DEALLOCATE r; PREPARE r AS SELECT 'kept'");
    assert_eq!(tags(&client.query("EXECUTE r")), "TDCZ");
    client.query("DISCARD ALL");
    assert_eq!(refused(&client.query("EXECUTE r")), OPAQUE);
}

#[test]
fn pg_35_what_is_fetched_is_judged_as_what_its_cursor_runs() {
    let world = World::new();
    let mut client = world.client();
    // A portal of the protocol, which no Execute has asked about.
    client.query("BEGIN");
    let deletes = parse("", "DELETE FROM forbidden RETURNING id");
    client.send(&[deletes, bind("p", ""), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12Z");
    let answer = client.query("FETCH ALL FROM p");
    assert_eq!(error(&answer).field('M'), BLOCKED);
    client.query("ROLLBACK");
    // A cursor of SQL, read by both.
    client.query("BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 5)");
    assert_eq!(client.rows("FETCH 2 FROM c").len(), 2);
    assert_eq!(tags(&client.query("MOVE NEXT IN c")), "CZ");
    client.send(&[execute("c", 1), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "DsZ");
    client.query("CLOSE c");
    assert_eq!(error(&client.query("FETCH c")).field('M'), OPAQUE);
    client.query("ROLLBACK");
    // One that outlives its transaction, where that is committed.
    for (end, found) in [("COMMIT", "TDCZ"), ("ROLLBACK", "EZ")] {
        let text = format!("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT 1; {end}");
        client.query(&text);
        assert_eq!(tags(&client.query("FETCH h")), found, "{end}");
        client.query("CLOSE ALL");
    }
}

#[test]
fn pg_30_pg_31_statements_are_asked_about_as_early_as_the_setting_says() {
    for (setting, parsed, bound, executed) in [
        ("execute", "1Z", "2Z", "2EZ"),
        ("bind", "1Z", "EZ", "EZ"),
        ("parse", "EZ", "EZ", "EZ"),
    ] {
        let world = World::with("host all all all trust\n", |setup| {
            setup.config(&format!("postgres:\n  ask_at: {setting}\n"))
        });
        let mut client = world.client();
        client.send(&[parse("s", "DELETE FROM forbidden"), sync()].concat());
        assert_eq!(tags(&client.until_ready()), parsed, "{setting}");
        client.send(&[bind("", "s"), sync()].concat());
        assert_eq!(tags(&client.until_ready()), bound, "{setting}");
        client.send(&[bind("", "s"), execute("", 0), sync()].concat());
        assert_eq!(tags(&client.until_ready()), executed, "{setting}");
        // Each execution is asked about once, and its rows are limited.
        let before = world.told("started").len();
        let capped = "SELECT capped.n FROM generate_series(1, 9) AS capped (n)";
        let again = [bind("", "n"), execute("", 0), sync()].concat();
        client.send(&[parse("n", capped), again.clone()].concat());
        assert_eq!(tags(&client.until_ready()), "12DDDCZ", "{setting}");
        client.send(&again);
        assert_eq!(tags(&client.until_ready()), "2DDDCZ", "{setting}");
        let rows = until("both completions", || {
            let told = world.told("completed");
            let rows = told.iter().filter(|line| line["rows"] == 3).count();
            (rows == 2).then_some(rows)
        });
        assert_eq!(world.told("started").len() - before, rows, "{setting}");
    }
}

#[test]
fn pg_35_an_opaque_statement_is_asked_about_when_it_is_bound() {
    let world = World::new();
    let mut client = world.client();
    client.send(&[parse("", "DO $$ BEGIN END $$"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1Z");
    client.send(&[bind("", ""), sync()].concat());
    assert_eq!(shape(&client.until_ready()), ("EZ".into(), 'I'));
    // Once admitted, its execution is not asked about again.
    client.send(&[run("DO $$ BEGIN /* trusted */ END $$"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12CZ");
    client.send(&[execute("nowhere", 0), sync()].concat());
    assert_eq!(error(&client.until_ready()).field('C'), "42501");
    let started = until("every decision", || {
        let started = world.told("started");
        (started.len() == 3).then_some(started)
    });
    let decisions: Vec<_> = started.iter().map(|line| &line["decision"]).collect();
    assert_eq!(decisions, ["blocked", "allow", "blocked"]);
}

#[test]
fn pg_34_a_portal_that_stopped_at_its_limit_goes_on_without_a_second_question() {
    let world = World::new();
    let mut client = world.client();
    client.query("BEGIN");
    let series = parse("", "SELECT generate_series(1, 5)");
    client.send(&[series, bind("p", ""), execute("p", 2), message('H', &[])].concat());
    for tag in ['1', '2', 'D', 'D', 's'] {
        assert_eq!(client.next().unwrap().tag, tag);
    }
    client.send(&[execute("p", 2), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "DDsZ");
    client.send(&[execute("p", 0), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "DCZ");
    client.query("COMMIT");
    let told = until("every completion", || {
        let told = world.told("completed");
        (told.len() == 3).then_some(told)
    });
    assert_eq!(told[1]["rows"], 1, "what its last part counted");
}

#[test]
fn pg_36_pg_39_after_an_error_nothing_is_asked_until_sync() {
    let world = World::new();
    let mut client = world.client();
    client.send(&[run("SELECT 1 / (random() * 0)"), message('H', &[])].concat());
    for tag in ['1', '2', 'E'] {
        assert_eq!(client.next().unwrap().tag, tag);
    }
    client.send(
        &[
            run("DELETE FROM t"),
            message('Q', &[b"DELETE FROM t\0"]),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(shape(&client.until_ready()), ("Z".into(), 'I'));
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
    let started = world.told("started");
    assert_eq!(started.len(), 2, "{started:?}");
}

#[test]
fn pg_40_a_function_call_is_judged_by_its_number() {
    let world = World::new();
    let mut client = world.client();
    client.query("BEGIN");
    let call = |function: u32, argument: u32| {
        let (function, argument) = (function.to_be_bytes(), argument.to_be_bytes());
        let parts: [&[u8]; 6] = [
            &function,
            b"\0\x01\0\x01",
            b"\0\x01",
            b"\0\0\0\x04",
            &argument,
            b"\0\x01",
        ];
        message('F', &parts)
    };
    // lo_creat is known, and allowed here.
    client.send(&call(957, 0x0006_0000));
    assert_eq!(shape(&client.until_ready()), ("VZ".into(), 'T'));
    // pg_sleep is any function: opaque, and refused.
    client.send(&call(2626, 0));
    let answer = client.until_ready();
    assert_eq!(shape(&answer), ("EZ".into(), 'E'));
    assert_eq!(
        error(&answer).field('M'),
        "blocked by policy: nobody understands this"
    );
}

#[test]
fn c_8_a_statement_that_is_too_long_is_opaque_and_the_session_goes_on() {
    let world = World::new();
    let mut client = world.client();
    let long = format!("SELECT '{}'", "x".repeat(5 << 20));
    let answer = client.query(&long);
    assert_eq!(shape(&answer), ("EZ".into(), 'I'));
    assert_eq!(
        error(&answer).field('M'),
        "blocked by policy: nobody understands this"
    );
    // Preparing it runs nothing; binding it might.
    client.send(&[run(&long), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "1EZ");
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
    assert_eq!(client.rows("SELECT length('x')")[0][0], "1");
    let reading = &world.told("started")[0];
    assert_eq!(reading["decision"], "blocked", "{reading}");
}

#[test]
fn c_8_pg_45_texts_and_values_of_any_size_pass_where_policy_lets_opaque_ones() {
    let allow = "package test\n\nresult := {\"decision\": \"ALLOW\"}";
    let world = World::with("host all all all trust\n", |setup| {
        setup.write("policy.rego", allow);
        setup
    });
    let mut client = world.client();
    let long = "x".repeat(5 << 20);
    let rows = client.rows(&format!("SELECT length('{long}')"));
    assert_eq!(rows[0][0], "5242880");
    // In the extended protocol, and what follows is read where it begins.
    let text = format!("INSERT INTO t VALUES (1, '{long}')");
    client.send(&[run(&text), run("SELECT 2"), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12C12DCZ");
    assert_eq!(world.server.ask("SELECT length(x) FROM t"), "5242880");
    // A statement of more words than are read, with more values than are held.
    let places = (1..=60_000).map(|place| format!("${place}::int"));
    let many = format!(
        "SELECT 1 WHERE 1 IN ({})",
        places.collect::<Vec<_>>().join(",")
    );
    let mut values = vec![0, 0, 0, 0];
    values.extend(60_000_u16.to_be_bytes());
    for _ in 0..60_000 {
        values.extend([0, 0, 0, 1, b'1']);
    }
    values.extend([0, 0]);
    client.send(
        &[
            parse("", &many),
            message('B', &[&values]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.until_ready()), "12DCZ");
}
