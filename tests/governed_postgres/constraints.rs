//! What policy asks of an execution that it lets through.

use crate::support::postgres::{bind, execute, message, parse, sync, tags};
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
    let capped = message('Q', &[SERIES.as_bytes(), b"\0"]);
    let reading = message('Q', &[b"SELECT 'reading' FROM t\0"]);
    let writing = message('Q', &[b"DELETE FROM t WHERE x = 'reading'\0"]);
    // (world, a query with a limit, one that reads, one that changes something)
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
