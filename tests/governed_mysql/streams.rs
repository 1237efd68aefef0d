//! Much in one packet, and files of clients.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::World;
use crate::support::PATIENCE;
use crate::support::mysql::{CAPABILITIES, Client, Packet, frame, login};

const FULL: usize = 0xff_ffff;

/// `body` in as many frames as it takes.
fn frames(body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut pieces = body.chunks(FULL).enumerate();
    for (number, piece) in &mut pieces {
        all.extend(frame(u8::try_from(number).unwrap(), piece));
    }
    if body.len().is_multiple_of(FULL) {
        all.extend(frame(u8::try_from(body.len() / FULL).unwrap(), b""));
    }
    all
}

#[test]
fn c_8_my_22_packets_of_several_frames_pass_and_are_refused_whole() {
    let world = World::new();
    let mut client = world.client();
    let long = |id: u8| {
        let begin = format!("\x03INSERT INTO t VALUES ({id}, '");
        let rest = FULL * 2 - begin.len() - 2;
        [begin.as_bytes(), &b"x".repeat(rest)[..], b"')"].concat()
    };
    // Too long to be understood, and so for policy to say.
    client.raw(&frames(&long(1)));
    let answer = client.next().unwrap();
    assert_eq!((answer.number, answer.body[0]), (3, 0), "{answer:?}");
    world
        .sidecar
        .change_policy(&crate::POLICY.replace("too long", "nothing"));
    client.raw(&frames(&long(2)));
    let answer = client.next().unwrap();
    assert_eq!((answer.number, answer.error().0), (3, 1227));
    assert_eq!(world.ids(), "1");
    client.send(0, b"\x03SELECT x, 7 FROM t");
    let mut numbers = Vec::new();
    let mut bytes = 0;
    loop {
        let Packet { number, body } = client.next().unwrap();
        numbers.push(number);
        bytes += body.len();
        if body.len() < 9 && body[0] == 0xfe && numbers.len() > 4 {
            break;
        }
    }
    assert_eq!(
        numbers,
        (1..=u8::try_from(numbers.len()).unwrap()).collect::<Vec<_>>()
    );
    assert!(bytes > FULL * 2 - 100);
    assert_eq!(client.rows("SELECT 1"), ["1"]);
    assert!(
        world.sidecar.peak_kib() < 150_000,
        "{}",
        world.sidecar.peak_kib()
    );
}

/// A session that reads files for the server.
fn with_files(world: &World) -> Client {
    let mut client = Client::open(world.port);
    client.next().unwrap();
    client.send(1, &login(CAPABILITIES | 0x80, "bob"));
    assert_eq!(client.next().unwrap().body[0], 0);
    client
}

#[test]
fn my_21_a_clients_file_is_read_only_where_that_is_judged() {
    let load = b"\x03LOAD DATA LOCAL INFILE '/a' INTO TABLE t FIELDS TERMINATED BY ','";
    let off = World::with(&["--local-infile=1"], |setup| setup);
    let answer = with_files(&off).command(load);
    assert!(
        answer[0].is_error(),
        "the server refuses what was not agreed on"
    );
    let on = World::with(&["--local-infile=1"], |setup| {
        setup.config("mysql:\n  local_files: judge\n")
    });
    let mut client = with_files(&on);
    client.send(0, load);
    let asked = client.next().unwrap();
    assert_eq!(asked.body, b"\xfb/a");
    client.raw(&[frame(2, b"1,a\n2,b\n"), frame(3, b"3,c\n"), frame(4, b"")].concat());
    let answer = client.next().unwrap();
    assert_eq!(
        (answer.number, answer.body[0], answer.body[1]),
        (5, 0, 3),
        "{answer:?}"
    );
    assert_eq!(on.ids(), "1,2,3");
    // A name that is not read here is not one that was judged.
    let text = client.refusal("LOAD DATA LOCAL INFILE '/a' INTO TABLE t; DO 0");
    assert!(text.contains("one literal"), "{text}");
    // As the server reads it.
    let escaped = r#"'C:\\it\'s ''a"\_b\q'"#;
    for (mode, literal, expected) in [
        ("", escaped, r#"C:\it's 'a"\_bq"#),
        ("", r#""a""'b\t""#, "a\"'b\t"),
        ("NO_BACKSLASH_ESCAPES", r"'C:\a''b\'", r"C:\a'b\"),
    ] {
        client.rows(&format!("SET sql_mode = '{mode}'"));
        client.send(
            0,
            format!("\x03LOAD DATA LOCAL INFILE {literal} INTO TABLE t").as_bytes(),
        );
        let asked = client.next().unwrap();
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        assert_eq!(
            asked.body,
            [b"\xfb", expected.as_bytes()].concat(),
            "{body}"
        );
        client.send(2, b"");
        assert_eq!(client.next().unwrap().body[0], 0);
    }
    client.refusal("LOAD DATA LOCAL INFILE '/forbidden' INTO TABLE t");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}

#[test]
fn my_21_my_22_a_file_whose_pieces_fill_frames_arrives_whole() {
    let world = World::with(&["--local-infile=1"], |setup| {
        setup.config("mysql:\n  local_files: judge\n")
    });
    let mut client = with_files(&world);
    client.send(
        0,
        b"\x03LOAD DATA LOCAL INFILE '/a' INTO TABLE t FIELDS TERMINATED BY ','",
    );
    assert_eq!(client.next().unwrap().body, b"\xfb/a");
    let row = format!("1,{}\n", "x".repeat(FULL - 3));
    assert_eq!(row.len(), FULL);
    // Full, and so followed by an empty frame that is not the end.
    client.raw(
        &[
            frame(2, row.as_bytes()),
            frame(3, b""),
            frame(4, b"2,b\n"),
            frame(5, b""),
        ]
        .concat(),
    );
    let answer = client.next().unwrap();
    assert_eq!(
        (answer.number, answer.body[0], answer.body[1]),
        (6, 0, 2),
        "{answer:?}"
    );
    assert_eq!(world.ids(), "1,2");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
    // By a client of its own, which has pieces of its own choice.
    let file = world
        .sidecar
        .setup
        .write("big.csv", &format!("3{}", &row[1..]));
    let load = format!(
        "LOAD DATA LOCAL INFILE '{}' INTO TABLE t FIELDS TERMINATED BY ','",
        file
    );
    let ran = std::process::Command::new("mariadb")
        .args([
            "--no-defaults",
            "-h127.0.0.1",
            "-ubob",
            "--local-infile",
            "--max-allowed-packet=64M",
        ])
        .args([&format!("-P{}", world.port), "shop", "-e", &load])
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert_eq!(world.ids(), "1,2,3");
}

#[test]
fn my_25_commands_sent_ahead_are_answered_in_their_order() {
    let world = World::new();
    let mut client = world.client();
    let all = ["SELECT sleep(0.1)", "DELETE FROM forbidden", "SELECT 2"];
    let sent: Vec<_> = all
        .iter()
        .map(|sql| frame(0, format!("\x03{sql}").as_bytes()))
        .collect();
    client.raw(&sent.concat());
    assert_eq!(client.answer().len(), 5);
    assert_eq!(client.answer()[0].error().0, 1227);
    assert_eq!(client.answer().len(), 5);
}

/// Sends `said` until all of it is sent, or nothing of it is taken for a while; how much
/// was taken.
fn sent_until_it_is_not_taken(client: &mut Client, said: &[u8]) -> usize {
    let patience = std::time::Duration::from_secs(2);
    client.socket.set_write_timeout(Some(patience)).unwrap();
    let mut sent = 0;
    while sent < said.len() {
        match client.socket.write(&said[sent..]) {
            Ok(now) => sent += now,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// The most memory that it had, once it has dealt with what it deals with.
fn settled(world: &World) -> u64 {
    loop {
        let peak = world.sidecar.peak_kib();
        std::thread::sleep(std::time::Duration::from_secs(1));
        if world.sidecar.peak_kib() == peak {
            return peak;
        }
    }
}

#[test]
fn my_25_refusals_that_nobody_reads_do_not_pile_up() {
    const COMMANDS: usize = 80_000;
    let policy = format!(
        r#"
package test

default result := {{"decision": "ALLOW"}}

result := {{"decision": "BLOCK", "reason": "{}"}} if input.spans[0].db_operation == "COM_119"
"#,
        "no ".repeat(150)
    );
    let world = World::with(&[], |setup| {
        setup.write("policy.rego", &policy);
        setup
    });
    let mut client = world.client();
    assert_eq!(client.rows("SELECT 1"), ["1"]);
    let before = world.sidecar.peak_kib();
    // A command that no server has: five bytes, and some five hundred of an answer.
    let said = frame(0, b"\x77").repeat(COMMANDS);
    let sent = sent_until_it_is_not_taken(&mut client, &said);
    let grown = settled(&world) - before;
    assert!(grown < 20 << 10, "{grown} KiB");
    // It goes on with who reads.
    let mut writer = client.socket.try_clone().unwrap();
    writer.set_write_timeout(Some(PATIENCE)).unwrap();
    let rest = std::thread::spawn(move || {
        writer.write_all(&said[sent..]).unwrap();
        writer.write_all(&frame(0, b"\x0e")).unwrap();
    });
    let mut answers = BufReader::with_capacity(1 << 20, client.socket.try_clone().unwrap());
    let mut refused = 0;
    let last = loop {
        let mut head = [0; 4];
        answers.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(u16::from_le_bytes([head[0], head[1]]))];
        answers.read_exact(&mut body).unwrap();
        if body[0] != 0xff {
            break body;
        }
        refused += 1;
    };
    rest.join().unwrap();
    assert_eq!((refused, last[0]), (COMMANDS, 0));
    let grown = world.sidecar.peak_kib() - before;
    assert!(grown < 20 << 10, "{grown} KiB");
}

#[test]
fn c_3_a_client_that_says_no_more_still_hears_what_it_asked_for() {
    let world = World::new();
    for port in [world.server.port, world.port] {
        let mut client = Client::connect(port);
        for text in [
            "SELECT sleep(1)",
            "INSERT INTO t VALUES (1, 'a')",
            "SELECT id FROM t",
        ] {
            client.send(0, &[b"\x03", text.as_bytes()].concat());
        }
        client.socket.shutdown(Shutdown::Write).unwrap();
        for packets in [5, 1, 5] {
            assert_eq!(client.answer().len(), packets);
        }
        assert_eq!(client.next(), None);
        world.server.ask("DELETE FROM shop.t");
    }
    // But for what waits for a person, and what stands behind that.
    let mut client = world.client();
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    client.send(0, b"\x03INSERT INTO t VALUES (2, 'b')");
    world.sidecar.pending_approval();
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.next(), None);
    assert_eq!(world.ids(), "");
}
