//! COPY, and results that are larger than any buffer.

use crate::support::postgres::{bind, execute, message, parse, sync, tags};
use crate::support::until;
use crate::{World, error, shape};

#[test]
fn pg_41_copy_in_is_judged_at_its_statement_and_its_data_passes() {
    let world = World::new();
    let mut client = world.client();
    client.send(&message('Q', &[b"COPY t (id) FROM STDIN\0"]));
    assert_eq!(client.next().unwrap().tag, 'G');
    for id in 1..=3 {
        client.send(&message('d', &[format!("{id}\n").as_bytes()]));
    }
    client.send(&message('c', &[]));
    assert_eq!(shape(&client.until_ready()), ("CZ".into(), 'I'));
    assert_eq!(world.ids(), "1,2,3");
    // In the extended protocol a Sync sent ahead is ignored by the server.
    let copy = parse("", "COPY t (id) FROM STDIN");
    client.send(&[copy, bind("", ""), execute("", 0), sync()].concat());
    for tag in ['1', '2', 'G'] {
        assert_eq!(client.next().unwrap().tag, tag);
    }
    client.send(&[message('d', &[b"4\n"]), message('c', &[]), sync()].concat());
    assert_eq!(shape(&client.until_ready()), ("CZ".into(), 'I'));
    // All at once: data that ends before the server asks for it, and what follows.
    let copy = [
        parse("", "COPY t (id) FROM STDIN"),
        bind("", ""),
        execute("", 0),
    ]
    .concat();
    let data = [message('d', &[b"8\n"]), message('c', &[])].concat();
    let more = [
        parse("", "DELETE FROM t WHERE id = 8"),
        bind("", ""),
        execute("", 0),
        sync(),
    ]
    .concat();
    client.send(&[&*copy, &data, &sync(), &more].concat());
    assert_eq!(tags(&client.until_ready()), "12GCZ");
    assert_eq!(shape(&client.until_ready()), ("12CZ".into(), 'I'));
    client.send(&[&*copy, &sync(), &data, &sync(), &more].concat());
    assert_eq!(tags(&client.until_ready()), "12GCZ");
    assert_eq!(shape(&client.until_ready()), ("12CZ".into(), 'I'));
    // Given up by the client, the session goes on.
    client.send(&message('Q', &[b"COPY t (id) FROM STDIN\0"]));
    assert_eq!(client.next().unwrap().tag, 'G');
    client.send(&[message('d', &[b"5\n"]), message('f', &[b"no\0"])].concat());
    assert_eq!(shape(&client.until_ready()), ("EZ".into(), 'I'));
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
    assert_eq!(world.ids(), "1,2,3,4");
    // A Sync while the server copies is ignored, as it hears it then.
    let copy = parse("", "COPY t (id) FROM STDIN");
    client.send(&[copy, bind("", ""), execute("", 0)].concat());
    client.send(&message('H', &[]));
    for tag in ['1', '2', 'G'] {
        assert_eq!(client.next().unwrap().tag, tag);
    }
    let data = [message('d', &[b"6\n"]), message('c', &[])].concat();
    client.send(&[&sync(), &*data, &sync()].concat());
    assert_eq!(shape(&client.until_ready()), ("CZ".into(), 'I'));
    client.send(&message('Q', &[b"COPY t (id) FROM STDIN\0"]));
    assert_eq!(client.next().unwrap().tag, 'G');
    let data = [message('d', &[b"7\n"]), message('c', &[])].concat();
    client.send(&[&sync(), &*data].concat());
    assert_eq!(shape(&client.until_ready()), ("CZ".into(), 'I'));
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
    assert_eq!(world.ids(), "1,2,3,4,6,7");
    // Refused, no data is taken; what comes late is ignored.
    let refused = message('Q', &[b"COPY forbidden FROM STDIN\0"]);
    client.send(&[refused, message('d', &[b"1\n"]), message('c', &[])].concat());
    assert_eq!(error(&client.until_ready()).field('C'), "42501");
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
}

#[test]
fn pg_42_pg_45_results_of_any_size_pass() {
    let world = World::new();
    let mut client = world.client();
    // One row of 24 MiB, then many small ones, then a COPY.
    let answer = client.query("SELECT repeat('x', 25165824)");
    let row = answer.iter().find(|message| message.tag == 'D').unwrap();
    assert_eq!(row.body.len(), 25_165_824 + 6);
    let answer = client.query("SELECT repeat('y', 100) FROM generate_series(1, 200000)");
    assert_eq!(
        answer.iter().filter(|message| message.tag == 'D').count(),
        200_000
    );
    let answer = client.query("COPY (SELECT generate_series(1, 100000)) TO STDOUT");
    assert_eq!(
        answer.iter().filter(|message| message.tag == 'd').count(),
        100_000
    );
    // A value that is longer than what is read of a Bind.
    let insert = parse("", "INSERT INTO t VALUES (1, $1)");
    let value = "z".repeat(5 << 20);
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let parts: [&[u8]; 5] = [b"\0\0\0\0", b"\0\x01", &length, value.as_bytes(), b"\0\0"];
    client.send(&[insert, message('B', &parts), execute("", 0), sync()].concat());
    assert_eq!(tags(&client.until_ready()), "12CZ");
    assert_eq!(world.server.ask("SELECT length(x) FROM t"), "5242880");
}

#[test]
fn pg_45_a_client_that_does_not_read_slows_the_server() {
    let world = World::new();
    // Rows, and notices, which the server sends unasked: 200 MB each.
    let rows = "SELECT repeat('x', 2000) FROM generate_series(1, 100000)";
    let notices = "DO $$ BEGIN FOR i IN 1..100000 LOOP \
                   RAISE NOTICE '%', repeat('n', 2000); END LOOP; END $$ /* trusted */";
    for (sql, tag) in [(rows, 'D'), (notices, 'N')] {
        let mut client = world.client();
        assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
        let before = world.sidecar.peak_kib();
        client.send(&message('Q', &[sql.as_bytes(), b"\0"]));
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
        until("the server waits for its client", || {
            (world.server.ask(waits) == "1").then_some(())
        });
        let answer = client.until_ready();
        assert_eq!(shape(&answer).1, 'I');
        let found = answer.iter().filter(|message| message.tag == tag).count();
        assert_eq!(found, 100_000);
        let more = world.sidecar.peak_kib() - before;
        assert!(more < 8 << 10, "{tag}: {more} KiB more");
    }
}

#[test]
fn pg_41_a_halt_inside_a_copy_ends_it_and_none_of_its_rows_stay() {
    let world = World::new();
    let mut copying = world.client();
    let mut other = world.client();
    copying.send(&message('Q', &[b"COPY t (id) FROM STDIN\0"]));
    assert_eq!(copying.next().unwrap().tag, 'G');
    copying.send(&message('d', &[b"1\n"]));
    other.query("SELECT * FROM halting");
    let told = copying.until_ready();
    let last = error(&told);
    assert_eq!(
        (last.field('V'), last.field('C')),
        ("FATAL".into(), "42501".into())
    );
    assert_eq!(tags(&told), "E");
    until("the sessions on the server to end", || {
        let left = world
            .server
            .ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'");
        (left == "1").then_some(())
    });
    assert_eq!(world.ids(), "");
}

#[test]
fn pg_43_replication_is_refused_or_judged_once_and_then_passes() {
    let startup = [
        ("user", "postgres"),
        ("database", "postgres"),
        ("replication", "database"),
    ];
    let world = World::new();
    let mut client = crate::Client::open(world.port);
    client.startup(196_608, &startup);
    let refused = client.until_ready();
    assert_eq!(
        (tags(&refused), error(&refused).field('C')),
        ("E".into(), "42501".into())
    );
    let hba = "host all all all trust\nhost replication all all trust\n";
    let world = World::with(hba, |setup| {
        setup.config("postgres:\n  replication: judge\n")
    });
    let mut client = crate::Client::connect(world.port, &startup);
    let answer = client.query("IDENTIFY_SYSTEM");
    assert_eq!(tags(&answer), "TDCZ");
    let position = client.rows("IDENTIFY_SYSTEM")[0][2].clone();
    let start = format!("START_REPLICATION PHYSICAL {position}\0");
    client.send(&message('Q', &[start.as_bytes()]));
    assert_eq!(client.next().unwrap().tag, 'W');
    let started = world.told("started");
    let operations: Vec<_> = started.iter().map(|line| &line["operation"]).collect();
    assert_eq!(started.len(), 1, "{operations:?}");
    drop(client);
    until("its completion", || {
        (world.told("completed").len() == 1).then_some(())
    });
}
