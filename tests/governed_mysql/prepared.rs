//! Prepared statements.

use crate::support::mysql::{Client, Server, execute};
use crate::{POLICY, World};

#[test]
fn c_1_my_12_my_13_an_execution_is_judged_by_the_text_that_was_prepared() {
    let world = World::new();
    let mut client = world.client();
    let forbidden = client.prepare("DELETE FROM forbidden");
    let insert = client.prepare("INSERT INTO t VALUES (1, 'a')");
    assert!(world.told("started").is_empty(), "nobody executes it yet");
    let (code, text) = client.command(&execute(forbidden))[0].error();
    assert!(
        code == 1227 && text.contains("the test says block"),
        "{text}"
    );
    assert_eq!(client.command(&execute(insert))[0].body[0], 0);
    assert_eq!(world.ids(), "1");
    let select = client.prepare("SELECT id FROM t");
    assert_eq!(client.command(&execute(select)).len(), 5);
    // The one that was prepared last.
    assert_eq!(client.command(&execute(u32::MAX)).len(), 5);
    let (_, text) = client.command(&execute(4_711))[0].error();
    assert!(text.contains("prepared out of sight"), "{text}");
}

#[test]
fn my_13_my_14_a_refused_execution_leaves_no_values_behind() {
    let world = World::new();
    let mut client = world.client();
    let held = client.prepare("INSERT INTO t SELECT 1, ? FROM dual WHERE 'forbidden' <> ''");
    let number = held.to_le_bytes();
    // No answer: the next packet that comes is the refusal's.
    client.send(0, &[b"\x18", &number[..], b"\0\0left behind"].concat());
    let values = [&b"\x17"[..], &number, b"\0\x01\0\0\0\0\x01\xfc\0"].concat();
    let (code, _) = client.command(&values)[0].error();
    assert_eq!(code, 1227);
    assert_eq!(client.rows("SELECT 1"), ["1"]);
    // Allowed, it says only what is sent from now on.
    let allows = POLICY.replace("\"forbidden\"", "\"nothing\"");
    world.sidecar.change_policy(&allows);
    client.send(0, &[b"\x18", &number[..], b"\0\0new"].concat());
    assert_eq!(client.command(&values)[0].body[0], 0);
    assert_eq!(client.rows("SELECT x FROM t"), ["new"]);
    // Reset, and closed, which is not answered either.
    assert_eq!(
        client.command(&[b"\x1a", &number[..]].concat())[0].body[0],
        0
    );
    client.send(0, &[b"\x19", &number[..]].concat());
    assert_eq!(client.command(b"\x0e")[0].body[0], 0);
}

#[test]
fn my_15_rows_that_are_fetched_belong_to_the_execution() {
    let world = World::new();
    let mut client = world.client();
    client.rows("INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c')");
    let select = client.prepare("SELECT id FROM t").to_le_bytes();
    client.send(0, &[&b"\x17"[..], &select, b"\x01\x01\0\0\0"].concat());
    for _ in 0..3 {
        client.next().unwrap();
    }
    let fetch = [&b"\x1c"[..], &select, b"\x02\0\0\0"].concat();
    for rows in [2, 1] {
        client.send(0, &fetch);
        for _ in 0..=rows {
            client.next().unwrap();
        }
    }
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}

#[test]
fn my_16_a_session_that_is_reset_knows_no_statements() {
    let world = World::new();
    let mut client = world.client();
    let select = client.prepare("SELECT 1");
    client.rows("PREPARE s FROM 'SELECT 1'");
    assert_eq!(client.command(b"\x1f")[0].body[0], 0);
    client.refusal("EXECUTE s");
    client.rows("PREPARE s FROM 'SELECT 1'");
    let (_, text) = client.command(&execute(select))[0].error();
    assert!(text.contains("prepared out of sight"), "{text}");
    // Another user, by a login of its own.
    client.send(0, b"\x11bob\0\0mysql\0\x2d\0mysql_native_password\0");
    let answer = client.next().unwrap();
    assert_eq!((answer.number, answer.body[0]), (1, 0xfe), "{answer:?}");
    client.send(2, b"");
    let answer = client.next().unwrap();
    assert_eq!((answer.number, answer.body[0]), (3, 0), "{answer:?}");
    client.refusal("EXECUTE s");
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("mysql"));
}

#[test]
fn c_9_my_15_rows_that_are_fetched_of_a_cursor_count_toward_a_cap() {
    let world = World::new();
    let mut client = world.client();
    client.rows("INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d'),(5,'e')");
    let capped = client.prepare("SELECT id FROM t WHERE 'capped' <> ''");
    let other = client.prepare("SELECT id FROM t");
    // Executing it again begins anew, and another has no cap.
    for (statement, expected) in [(capped, [2, 1, 0]), (other, [2, 2, 1]), (capped, [2, 1, 0])] {
        let number = statement.to_le_bytes();
        client.send(0, &[&b"\x17"[..], &number, b"\x01\x01\0\0\0"].concat());
        for _ in 0..3 {
            client.next().unwrap();
        }
        for rows in expected {
            client.send(0, &[&b"\x1c"[..], &number, b"\x02\0\0\0"].concat());
            // Also the end has the number that is next.
            for number in 1..=rows {
                let row = client.next().unwrap();
                assert_eq!((row.number, row.body[0]), (number, 0));
            }
            let end = client.next().unwrap();
            assert_eq!((end.number, end.body[0]), (rows + 1, 0xfe));
        }
    }
}

/// What policy says to a text when it is prepared, it may not say when that is executed.
fn executes_by_name(world: &World) {
    let nothing = POLICY
        .replace("forbidden", "never said")
        .replace("WHICH_", "NO_");
    world.sidecar.change_policy(&nothing);
    let mut client = world.client();
    client.rows("INSERT INTO t VALUES (1, 'a')");
    client.rows("PREPARE s FROM 'SELECT id FROM t WHERE id = ?'");
    client.rows("PREPARE bad FROM 'DELETE FROM forbidden'");
    client.rows("PREPARE place FROM 'SELECT 1 AS WHICH_DATABASE'");
    client.rows("SET @v = 1");
    client.rows("USE mysql");
    world.sidecar.change_policy(POLICY);
    assert_eq!(client.rows("execute /* x */ S USING @v;"), ["1"]);
    let told = world.told("started").pop().unwrap();
    assert_eq!(told["db_operation"], "SELECT", "{told}");
    let bytes = "SELECT id FROM t WHERE id = ?".len();
    assert_eq!(told["statement_bytes"], bytes, "{told}");
    assert!(
        client
            .refusal("EXECUTE bad")
            .contains("the test says block")
    );
    // What its names mean there.
    let place = client.refusal("EXECUTE place");
    assert!(place.contains("policy: shop"), "{place}");
    client.rows("USE shop");
    // Refused, it has changed nothing.
    client.refusal("PREPARE s FROM 'DELETE FROM forbidden'");
    assert_eq!(client.rows("EXECUTE s USING @v"), ["1"]);
    forgets(&mut client);
    unseen(world, &mut client);
}

/// Whatever is not known is opaque, and does not reach the server.
fn forgets(client: &mut Client) {
    assert!(client.query("PREPARE s FROM 'SELECT nope'")[0].is_error());
    client.refusal("EXECUTE s USING @v");
    client.rows("PREPARE s FROM 'SELECT 7'");
    assert_eq!(client.rows("EXECUTE s"), ["7"]);
    client.refusal("EXECUTE `s`");
    client.refusal("DO 0; EXECUTE s");
    assert_eq!(client.rows("EXECUTE s"), ["7"]);
    client.rows("DEALLOCATE PREPARE s");
    client.refusal("EXECUTE s");
}

/// A procedure prepares something else by the same name.
fn unseen(world: &World, client: &mut Client) {
    let procedure = "CREATE PROCEDURE p() BEGIN PREPARE s FROM 'DELETE FROM t'; END";
    let made = Client::connect(world.server.port).query(procedure);
    assert!(!made[0].is_error(), "{made:?}");
    let calls = "not contains(span.db_statement, \"CALL\")\n\tnot contains(span.db_reading.opaque, \"too long\")";
    let calls = POLICY.replace("not contains(span.db_reading.opaque, \"too long\")", calls);
    world.sidecar.change_policy(&calls);
    client.rows("PREPARE s FROM 'SELECT 7'");
    assert_eq!(client.rows("EXECUTE s"), ["7"]);
    client.query("CALL p()");
    client.refusal("EXECUTE s");
    assert_eq!(world.ids(), "1");
}

#[test]
fn my_28_what_is_executed_by_a_name_is_judged_as_what_was_prepared_by_it() {
    executes_by_name(&World::new());
}

#[test]
fn my_28_oracle_mysql_knows_the_same_names() {
    if let Some(server) = Server::start_oracle(&[]) {
        executes_by_name(&World::before(server, "", |setup| setup));
    }
}
