//! What policy asks of an execution that it lets through.

use crate::support::postgres::{Client, Message, bind, execute, message, parse, sync, tags};
use crate::support::until;
use crate::{World, error, shape};

const SERIES: &str = "SELECT capped.n FROM generate_series(1, 9) AS capped (n)";

fn enforcing() -> World {
    World::with("host all all all trust\n", |setup| {
        setup.config("constraints: enforce\n")
    })
}

#[test]
fn c_9_no_more_rows_come_than_policy_leaves_and_it_looks_like_the_end() {
    let world = World::new();
    let mut client = world.client();
    let run = |rows: u32| [parse("", SERIES), bind("", ""), execute("", rows), sync()].concat();
    for wanted in [0, 7, 3] {
        client.send(&run(wanted));
        let answer = client.until_ready();
        assert_eq!(shape(&answer), ("12DDDCZ".into(), 'I'), "{wanted}");
        let complete = answer.iter().find(|message| message.tag == 'C').unwrap();
        assert_eq!(complete.text(), "SELECT 3", "{wanted}");
    }
    // What is asked for in parts counts together, and nothing follows.
    client.query("BEGIN");
    client.send(&[parse("", SERIES), bind("p", ""), execute("p", 2), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12DDsZ");
    client.send(&[execute("p", 2), sync()].concat());
    assert_eq!(shape(&client.until_ready()), ("DCZ".into(), 'T'));
    client.send(&[execute("p", 2), sync()].concat());
    let answer = client.until_ready();
    assert_eq!(shape(&answer), ("EZ".into(), 'E'));
    assert_eq!(error(&answer).field('C'), "42501");
    client.query("ROLLBACK");
    // Nor in the same breath.
    client.query("BEGIN");
    let twice = [
        parse("", SERIES),
        bind("p", ""),
        execute("p", 2),
        execute("p", 2),
        sync(),
    ];
    client.send(&twice.concat());
    assert_eq!(shape(&client.until_ready()), ("12DDsEZ".into(), 'E'));
    client.query("ROLLBACK");
    // A limit that is not reached is not seen, and another statement has none.
    client.send(
        &[
            parse("", "SELECT 'capped'"),
            bind("", ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.until_ready()), "12DCZ");
    assert_eq!(client.rows("SELECT generate_series(1, 9)").len(), 9);
    until("the rows of every completion", || {
        let told = world.told("completed");
        let capped = told.iter().filter(|line| line["rows"] == 3);
        (capped.count() == 3).then_some(())
    });
}

#[test]
fn c_9_what_cannot_be_applied_is_recorded_or_refused_as_the_setting_says() {
    let capped = message('Q', &[SERIES.as_bytes(), b"; SELECT 2\0"]);
    let reading = message('Q', &[b"SELECT 'reading' FROM t\0"]);
    let writing = message('Q', &[b"DELETE FROM t WHERE x = 'reading'\0"]);
    // (world, a text of two queries with a limit, one that reads, one that changes something)
    for (world, name, expected) in [
        (World::new(), "advise", ["00000", "00000", "42501"]),
        (enforcing(), "enforce", ["42501", "00000", "42501"]),
    ] {
        let mut client = world.client();
        let answers = [&capped, &reading, &writing].map(|query| {
            client.send(query);
            let answer = client.until_ready();
            let failed = answer.iter().find(|message| message.tag == 'E');
            failed.map_or_else(|| "00000".to_owned(), |error| error.field('C'))
        });
        assert_eq!(answers, expected, "{name}");
        client.send(&[parse("", SERIES), bind("", ""), execute("", 0), sync()].concat());
        assert_eq!(tags(&client.until_ready()), "12DDDCZ", "{name}");
    }
}

#[test]
fn c_9_rows_that_no_message_can_limit_are_left_out_as_they_come() {
    let world = World::new();
    let mut client = world.client();
    let complete = |answer: &[Message]| {
        let found = answer.iter().find(|message| message.tag == 'C').unwrap();
        found.text()
    };
    // Rows larger than what is read at once, and some that are smaller.
    let large = "SELECT repeat('x', 300000) AS capped FROM generate_series(1, 9)";
    for sql in [
        SERIES,
        large,
        "SELECT n AS capped FROM generate_series(1, 3) AS a (n)",
    ] {
        let answer = client.query(sql);
        assert_eq!(shape(&answer), ("TDDDCZ".into(), 'I'), "{sql}");
        assert_eq!(complete(&answer), "SELECT 3", "{sql}");
    }
    client.query(&format!("PREPARE known AS {SERIES}"));
    let answer = client.query("EXECUTE known");
    assert_eq!(shape(&answer), ("TDDDCZ".into(), 'I'));
    assert_eq!(complete(&answer), "SELECT 3");
    client.query("BEGIN");
    client.query(&format!("DECLARE chosen CURSOR FOR {SERIES}"));
    let answer = client.query("FETCH 5 FROM chosen");
    assert_eq!(shape(&answer), ("TDDDCZ".into(), 'T'));
    assert_eq!(complete(&answer), "FETCH 3");
    client.send(
        &[
            parse("", "FETCH ALL FROM chosen"),
            bind("", ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    let answer = client.until_ready();
    assert_eq!(shape(&answer), ("12DDDCZ".into(), 'T'));
    assert_eq!(complete(&answer), "FETCH 3");
    client.query("ROLLBACK");
    until("the rows of every completion", || {
        let told = world.told("completed");
        let capped = told.iter().filter(|line| line["rows"] == 3);
        (capped.count() == 6).then_some(())
    });
    assert_eq!(client.rows("SELECT generate_series(1, 9)").len(), 9);
}

#[test]
fn c_9_fetch_does_not_bring_what_a_limited_portal_may_not() {
    let world = World::new();
    let mut client = world.client();
    // Stopped by its client, and by the limit.
    for (rows, expected) in [(2, "12DDsZ"), (0, "12DDDCZ")] {
        client.query("BEGIN");
        client.send(&[parse("", SERIES), bind("p", ""), execute("p", rows), sync()].concat());
        assert_eq!(tags(&client.until_ready()), expected);
        let answer = client.query("FETCH 9 FROM p");
        assert_eq!(shape(&answer), ("EZ".into(), 'E'), "{rows}");
        assert_eq!(error(&answer).field('C'), "42501", "{rows}");
        client.query("ROLLBACK");
    }
}

#[test]
fn c_9_a_session_starts_with_what_policy_asks_for_whatever_its_client_says() {
    let world = World::new();
    let user = ("user", "postgres");
    let code = |client: &mut Client, sql: &str| error(&client.query(sql)).field('C');
    let mut reading = Client::connect(
        world.port,
        &[
            user,
            ("search_path", "public, reading"),
            ("Default_Transaction_Read_Only", "off"),
            ("options", "-c default_transaction_read_only=off"),
        ],
    );
    assert_eq!(code(&mut reading, "INSERT INTO t VALUES (1)"), "25006");
    assert_eq!(world.ids(), "");
    let settings = [
        user,
        ("search_path", "public, hurried"),
        ("statement_timeout", "0"),
    ];
    let mut hurried = Client::connect(world.port, &settings);
    assert_eq!(hurried.rows("SHOW statement_timeout"), [["2s"]]);
    assert_eq!(code(&mut hurried, "SELECT pg_sleep(60)"), "57014");
    let mut other = Client::connect(world.port, &[user, ("search_path", "public")]);
    assert_eq!(other.rows("SHOW statement_timeout"), [["0"]]);
    other.query("INSERT INTO t VALUES (1)");
    assert_eq!(world.ids(), "1");
}
