//! `COM_QUERY` and the commands of one packet.

use crate::World;
use crate::support::mysql::{CAPABILITIES, Client, Server, execute, login};

#[test]
fn my_9_a_refusal_is_an_answer_and_ends_no_transaction() {
    let world = World::new();
    let mut client = world.client();
    client.rows("START TRANSACTION");
    client.rows("INSERT INTO t VALUES (1, 'a')");
    let text = client.refusal("DELETE FROM forbidden");
    assert!(
        text.contains("#42000blocked by policy: the test says block"),
        "{text}"
    );
    assert_eq!(client.rows("SELECT count(*) FROM t"), ["1"]);
    assert_eq!(world.ids(), "", "the transaction is still open");
    client.rows("COMMIT");
    assert_eq!(world.ids(), "1");
}

#[test]
fn my_10_one_bad_statement_refuses_the_packet_before_anything_runs() {
    let world = World::new();
    let mut client = world.client();
    client.refusal("INSERT INTO t VALUES (1, 'a'); DELETE FROM forbidden; SELECT 1");
    assert_eq!(world.ids(), "");
    let answer = client.query("INSERT INTO t VALUES (2, 'b'); SELECT 7; DO 0; SELECT 8");
    assert_eq!(answer.len(), 1 + 5 + 1 + 5, "{answer:?}");
    assert_eq!(world.ids(), "2");
    // What runs when one of them fails is what the server says.
    let answer = client.query("INSERT INTO t VALUES (3, 'c'); SELECT nope; SELECT 1");
    assert!(answer.last().unwrap().is_error());
    assert_eq!(world.ids(), "2,3");
    let completed = world.sidecar.recorded("the failed one", |line| {
        line["stage"] == "completed" && line["error"].to_string().contains("1054")
    });
    assert!(
        completed["error"].to_string().contains("SQLSTATE 42S22"),
        "{completed}"
    );
}

#[test]
fn my_10_my_17_what_stands_behind_a_use_is_judged_in_that_database() {
    let world = World::new();
    world.server.ask("CREATE DATABASE secret");
    let mut client = world.client();
    let text = client.refusal("USE secret; SELECT 'WHICH_DATABASE'");
    assert!(text.contains("secret"), "{text}");
    // Refused, it has changed nothing.
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("shop"));
    let both = client.refusal("SELECT 1; USE secret; SELECT 2");
    assert!(both.contains("the database of the rest"), "{both}");
    assert_eq!(client.rows("USE secret; SELECT 7"), ["7"]);
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("secret"));
}

#[test]
fn c_2_every_statement_completes_once_with_its_rows() {
    let world = World::new();
    let mut client = world.client();
    client.rows("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    client.rows("SELECT id FROM t");
    client.query("");
    client.query("/* nothing */");
    let completed = || world.told("completed");
    crate::support::until("both to complete", || {
        (completed().len() == 2).then_some(())
    });
    let mut rows: Vec<_> = completed()
        .iter()
        .map(|line| line["rows"].to_string())
        .collect();
    rows.sort();
    assert_eq!(rows, ["2", "2"], "{:?}", completed());
    let started = world.told("started");
    assert_eq!(started.len(), 2);
    assert_eq!(
        (&started[0]["db_system"], &started[0]["db_name"]),
        (&"mysql".into(), &"shop".into())
    );
}

#[test]
fn my_19_my_20_c_6_commands_without_a_text_are_judged_or_refused() {
    let world = World::new();
    let mut client = world.client();
    for (command, expected) in [
        // What only the server's owner may do.
        (&b"\x08"[..], "not the server"),
        (b"\x07\x01", "not the server"),
        (b"\x05forbidden", "the test says block"),
        (b"\x12\x04\0\0\0\0\0\x01\0\0\0x", "replication"),
        (b"\x1e", "replication"),
        (b"\xfe", "several commands"),
        (b"\x77", "not known"),
        (b"\x02forbidden", "the test says block"),
        (b"\x04forbidden\0", "the test says block"),
    ] {
        let answer = client.command(command);
        let (code, text) = answer[0].error();
        assert!(
            code == 1227 && text.contains(expected),
            "{command:?}: {text}"
        );
    }
    // Policy and the journal know of each, by its name.
    let told = world.told("started");
    for name in [
        "COM_BINLOG_DUMP",
        "COM_BINLOG_DUMP_GTID",
        "COM_MULTI",
        "COM_119",
    ] {
        let mut of_it = told.iter().filter(|line| line["db_operation"] == name);
        assert!(of_it.next().is_some(), "{name}: {told:?}");
    }
    assert_eq!(client.command(b"\x0e")[0].body[0], 0, "ping");
    assert_eq!(client.command(b"\x02mysql")[0].body[0], 0);
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("mysql"));
    client.rows("USE shop");
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("shop"));
    // A database that is not there does not become the current one.
    client.query("USE nowhere");
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("shop"));
    client.send(0, b"\x09");
    let statistics = client.next().unwrap();
    assert!(statistics.number == 1 && statistics.body.starts_with(b"Uptime"));
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}

#[test]
fn my_26_what_changes_how_texts_are_read_is_followed() {
    let world = World::new();
    let mut client = world.client();
    let hidden = r"SELECT 'a\'; DELETE FROM t; -- '";
    client.rows("INSERT INTO t VALUES (1, 'a')");
    assert_eq!(client.rows(hidden), ["a'; DELETE FROM t; -- "]);
    client.rows("SET sql_mode = 'NO_BACKSLASH_ESCAPES'");
    client.query(hidden);
    let told = world.told("started");
    assert_eq!(told.last().unwrap()["db_operation"], "DELETE", "{told:?}");
    client.rows("SET sql_mode = 'ANSI_QUOTES'");
    assert!(
        client
            .refusal("SELECT * FROM \"forbidden\"")
            .contains("the test says block")
    );
    assert_eq!(client.rows("SELECT \"id\" FROM t"), Vec::<String>::new());
    client.rows("SET NAMES gbk");
    let text = "SELECT '\u{e9}'";
    assert!(client.refusal(text).contains("may look like a quote"));
    client.rows("SET NAMES utf8mb4");
    assert_eq!(client.rows(text), ["\u{e9}"]);
    client.refusal("SET sql_mode = ''; SELECT \"a\"");
}

#[test]
fn my_27_my_28_what_hides_in_comments_and_texts_is_seen_or_refused() {
    let world = World::new();
    let mut client = world.client();
    for text in [
        "/*!50000 DELETE FROM forbidden */",
        "/*M! DELETE FROM forbidden */",
        "/*!99999 DELETE FROM forbidden */",
        "EXECUTE IMMEDIATE 'DELETE FROM forbidden'",
        "EXECUTE IMMEDIATE concat('DELETE ', 'FROM t')",
        "PREPARE s FROM 'DELETE FROM forbidden'",
        "BEGIN NOT ATOMIC DELETE FROM t; END",
        "CALL nobody()",
    ] {
        client.refusal(text);
    }
    // What is written out is judged as that.
    assert_eq!(client.rows("EXECUTE IMMEDIATE 'SELECT 7'"), ["7"]);
    let told = world.told("started");
    assert_eq!(told.last().unwrap()["db_operation"], "SELECT", "{told:?}");
    client.rows("EXECUTE IMMEDIATE 'USE mysql'");
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("mysql"));
    client.rows("USE shop");
    client.rows("/*!40101 SET @saved = 1 */");
    // What the server makes of it, which has skipped the first comment.
    let hidden = "/*!99999 -- */ /*!50000 DELETE FROM t */";
    world.server.ask("INSERT INTO shop.t VALUES (7, 'a')");
    Client::connect(world.server.port).query(hidden);
    assert_eq!(world.ids(), "");
    let before = world.told("started").len();
    client.query(hidden);
    assert_eq!(world.told("started")[before]["db_operation"], "DELETE");
    client.refusal("/*!99999 -- */ /*!50000 DELETE FROM forbidden */");
}

#[test]
fn my_26_my_13_what_the_server_reads_in_another_way_is_refused() {
    let world = World::new();
    let mut client = world.client();
    let text = r"SELECT 'a\' AS `id` -- '";
    let prepared = client.prepare(text);
    assert_eq!(client.command(&execute(prepared))[0].body[0], 1);
    client.rows("SET sql_mode = 'NO_BACKSLASH_ESCAPES'");
    let (_, why) = client.command(&execute(prepared))[0].error();
    assert!(why.contains("changed since it was prepared"), "{why}");
    client.rows("SET sql_mode = 'MSSQL'");
    let names = "SELECT 1 AS [ ' ], 2 AS [ ' ]";
    let both = format!("SET sql_mode = 'MSSQL'; {names}");
    assert!(
        world.server.ask(&both).contains('2'),
        "MariaDB has two columns"
    );
    assert!(client.refusal(names).contains("brackets"));
    client.rows("SET sql_mode = ''");
    client.rows("SET character_set_results = utf16");
    client.query("SET sql_mode = 'ANSI_QUOTES'");
    let (_, why) = client.query(r#"SELECT 1 AS "a""#)[0].error();
    assert!(
        why.replace('\0', "").contains("not known for certain"),
        "{why}"
    );
}

#[test]
fn my_28_nothing_hides_behind_values_or_becomes_one() {
    let world = World::new();
    let mut client = world.client();
    let several = |one: &str| vec![one; 170].join(",");
    client.rows(&format!("PREPARE s FROM 'SELECT {}'", several("?")));
    client.rows("SET @a = 1");
    let executes = format!("EXECUTE s USING {}", several("@a"));
    assert_eq!(client.rows(&executes), ["1"]);
    client.refusal(&format!("{executes}; DELETE FROM forbidden"));
    // MariaDB prepares it in the encoding of the connection, which may have no backquotes.
    let hidden = "PREPARE s FROM 'SELECT 1, ` , (SELECT 5) , `'";
    let swedish = "SET character_set_connection = swe7";
    let runs = format!("{swedish}; {hidden}; SET @a = 1; EXECUTE s USING @a, @a");
    assert!(world.server.ask(&runs).contains('5'), "it runs");
    client.rows(swedish);
    client.refusal(hidden);
}

#[test]
fn c_9_rows_beyond_a_cap_are_dropped_and_read_only_refuses_changes() {
    let world = World::new();
    let mut client = world.client();
    client.rows("INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d'),(5,'e')");
    // The packets' numbers are checked by the client.
    let capped = "SELECT id FROM t WHERE 'capped' <> '' ORDER BY id";
    assert_eq!(client.rows(capped), ["1", "2", "3"]);
    let answer = client.query(&format!("{capped}; {capped}"));
    assert_eq!(answer.len(), 2 * (1 + 1 + 1 + 3 + 1));
    assert_eq!(client.rows("SELECT id FROM t").len(), 5);
    client.refusal("DELETE FROM t WHERE x = 'reading'");
    assert_eq!(
        client.rows("SELECT id FROM t WHERE x <> 'reading' LIMIT 1"),
        ["1"]
    );
}

/// Statements that read a file of the server, by a call where one may not look for it.
const READ_A_FILE: [&str; 8] = [
    "SELECT STRAIGHT_JOIN load_file('/etc/passwd')",
    "INSERT INTO t VALUE (1, load_file('/etc/passwd'))",
    "REPLACE t(id, x) VALUE (1, load_file('/etc/passwd'))",
    "INSERT INTO t SELECT 1, 'a' FROM t u ON DUPLICATE KEY UPDATE id = 1, x = load_file('/etc/passwd')",
    "INSERT INTO t SELECT 7, 'a' FROM dual RETURNING load_file('/etc/passwd')",
    "SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY load_file('/etc/passwd'))",
    "CREATE TABLE made VALUES ROW(load_file('/etc/passwd'))",
    "SELECT count(*) FROM t GROUP BY load_file('/etc/passwd') WITH ROLLUP",
];

/// Each is refused, and does what it says where nobody judges it, if `server` knows it.
fn files_are_seen(server: Server) {
    let world = World::before(server, "?ssl-mode=DISABLED", |setup| setup);
    let mut client = world.client();
    let mut direct = Client::connect(world.server.port);
    let mut done = 0;
    for text in READ_A_FILE {
        assert!(client.refusal(text).contains("not the server"), "{text}");
        done += usize::from(!direct.query(text)[0].is_error());
        direct.query("DROP TABLE IF EXISTS made");
    }
    assert!(done >= 6, "{done}");
    client.rows("HANDLER t OPEN");
    let handler = "HANDLER t READ FIRST WHERE load_file('/etc/passwd') LIKE 'root%'";
    assert!(client.refusal(handler).contains("not the server"));
}

#[test]
fn my_10_a_file_of_the_server_is_seen_wherever_it_is_read() {
    files_are_seen(Server::start(&[]));
}

#[test]
fn my_10_a_file_of_oracle_mysqls_machine_is_seen_wherever_it_is_read() {
    if let Some(server) = Server::start_oracle(&[]) {
        files_are_seen(server);
    }
}

/// Every byte that is no letter, in front of what ends a literal or hides in one.
fn bytes_are_read_alike(server: Server) {
    let world = World::before(server, "?ssl-mode=DISABLED", |setup| setup);
    let mut client = world.client();
    for charset in ["utf8mb4", "utf8mb3"] {
        client.rows(&format!("SET NAMES {charset}"));
        for byte in 0x80..=0xff {
            // As it is written, and what that means.
            for (behind, means) in [
                (&b""[..], &b""[..]),
                (b"''\xe2\x82", b"'\xe2\x82"),
                (b"\\'\\\xf0", b"'\xf0"),
                (b"\x80\\\\", b"\x80\\"),
            ] {
                let text = [
                    b"\x03SELECT hex(_binary'",
                    &[byte][..],
                    behind,
                    b"') AS a, 7",
                ]
                .concat();
                let answer = client.command(&text);
                assert!(!answer[0].is_error(), "{text:x?}: {:?}", answer[0].error());
                let digits = [&[byte], means].concat();
                let digits: Vec<_> = digits.iter().map(|byte| format!("{byte:02X}")).collect();
                let row = String::from_utf8_lossy(&answer[4].body[1..]).into_owned();
                assert_eq!(row, format!("{}\u{1}7", digits.concat()), "{text:x?}");
            }
        }
    }
    // Not where they could be a part of a name.
    let answer = client.command(b"\x03SELECT 1 AS `\xff`");
    assert_eq!(answer[0].error().0, 1227);
}

#[test]
fn my_26_bytes_that_are_no_letters_end_no_literal() {
    bytes_are_read_alike(Server::start(&[]));
}

#[test]
fn my_26_bytes_that_are_no_letters_end_no_literal_of_oracle_mysql() {
    if let Some(server) = Server::start_oracle(&[]) {
        bytes_are_read_alike(server);
    }
}

/// Before its password is changed, the server does nothing else for a session: nor does it say
/// how it reads texts.
fn changes_an_expired_password(world: &World, change: &str) {
    let admin = "span.db_reading.class == \"admin\"";
    world
        .sidecar
        .change_policy(&crate::POLICY.replace(admin, "false"));
    world.server.ask(
        "CREATE USER late@'%'; GRANT ALL ON *.* TO late@'%'; ALTER USER late@'%' PASSWORD EXPIRE",
    );
    let mut client = Client::open(world.port);
    client.next().unwrap();
    client.send(1, &login(CAPABILITIES | 1 << 22, "late"));
    let mut answer = client.next().unwrap();
    if answer.body[0] == 0xfe {
        client.send(3, b"\0");
        answer = client.next().unwrap();
    }
    assert_eq!(answer.body[0], 0, "{answer:?}");
    for _ in 0..2 {
        assert_eq!(client.query("SELECT 'a'")[0].error().0, 1820);
        let text = client.refusal("SELECT \"a\"");
        assert!(text.contains("is not known for certain"), "{text}");
    }
    client.rows(change);
    assert_eq!(client.rows("SELECT \"a\""), ["a"]);
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("shop"));
}

#[test]
fn my_26_a_server_that_does_not_say_how_it_reads_texts_is_asked_again() {
    changes_an_expired_password(&World::new(), "SET PASSWORD = PASSWORD('new')");
}

#[test]
fn my_26_oracle_mysql_is_asked_again_once_a_password_is_changed() {
    if let Some(server) = Server::start_oracle(&[]) {
        let world = World::before(server, "", |setup| setup);
        changes_an_expired_password(&world, "ALTER USER late@'%' IDENTIFIED BY 'new'");
    }
}
