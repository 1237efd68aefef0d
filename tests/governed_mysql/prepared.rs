//! Prepared statements.

use crate::World;
use crate::support::mysql::execute;

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
    let allows = crate::POLICY.replace("\"forbidden\"", "\"nothing\"");
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
    assert_eq!(client.command(b"\x1f")[0].body[0], 0);
    let (_, text) = client.command(&execute(select))[0].error();
    assert!(text.contains("prepared out of sight"), "{text}");
    // Another user, by a login of its own.
    client.send(0, b"\x11bob\0\0mysql\0\x2d\0mysql_native_password\0");
    let answer = client.next().unwrap();
    assert_eq!((answer.number, answer.body[0]), (1, 0xfe), "{answer:?}");
    client.send(2, b"");
    let answer = client.next().unwrap();
    assert_eq!((answer.number, answer.body[0]), (3, 0), "{answer:?}");
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
