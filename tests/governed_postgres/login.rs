//! From the first byte to a session.

use std::io::Read;

use crate::support::postgres::{Client, PASSWORD, tags};
use crate::{World, error};

#[test]
fn pg_1_pg_2_encryption_is_declined_once_each_and_then_the_session_starts() {
    let world = World::new();
    let mut client = Client::open(world.port);
    for code in [80_877_104_u32, 80_877_103] {
        client.send(&[&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat());
        let mut answer = [0];
        client.socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"N");
    }
    client.startup(196_608, &[("user", "postgres")]);
    assert!(tags(&client.until_ready()).ends_with('Z'));
    let mut twice = Client::open(world.port);
    let ssl = [&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes()].concat();
    twice.send(&[&ssl[..], &ssl].concat());
    let mut said = Vec::new();
    let _ended = twice.socket.read_to_end(&mut said);
    assert!(said.first() == Some(&b'E'), "{said:?}");
}

#[test]
fn pg_4_pg_43_what_a_session_starts_with_is_answered_as_a_server_does() {
    let world = World::new();
    for (version, parameters, code) in [
        (196_608, &[("database", "postgres")][..], "28000"),
        (
            196_608,
            &[("user", "postgres"), ("replication", "true")],
            "42501",
        ),
        (
            196_608,
            &[("user", "postgres"), ("role", "pg_monitor")],
            "42501",
        ),
        (
            196_608,
            &[("user", "postgres"), ("database", "nowhere")],
            "3D000",
        ),
    ] {
        let mut client = Client::open(world.port);
        client.startup(version, parameters);
        let answer = client.until_ready();
        let last = error(&answer);
        assert_eq!(
            (last.field('V'), last.field('C')),
            ("FATAL".into(), code.into()),
            "{parameters:?}"
        );
    }
    // Clients of version 2 read errors as a letter and a text.
    let mut old = Client::open(world.port);
    old.startup(131_072, &[("user", "postgres")]);
    let mut said = String::new();
    let _ended = old.socket.read_to_string(&mut said);
    assert!(
        said.starts_with("Eunsupported frontend protocol 2.0"),
        "{said:?}"
    );
    // Longer than a server takes, without an end, and with something behind it.
    for packet in [
        &b"\0\0\x27\x11\0\x03\0\0"[..],
        b"\0\0\0\x0d\0\x03\0\0user\0",
        b"\0\0\0\x12\0\x03\0\0user\0a\0\0xy",
    ] {
        let mut client = Client::open(world.port);
        client.send(packet);
        assert_eq!(
            error(&client.until_ready()).field('C'),
            "08P01",
            "{packet:?}"
        );
    }
}

#[test]
fn pg_6_pg_12_passwords_are_proved_to_the_server_and_never_seen() {
    for method in ["scram-sha-256", "md5", "password"] {
        let hba = format!("host all all all {method}\n");
        let world = World::with(&hba, |setup| setup);
        let psql = |password: &str| {
            let ran = std::process::Command::new("psql")
                .args(["-At", "-c", "SELECT 'in'"])
                .env("PGHOST", "127.0.0.1")
                .env("PGPORT", world.port.to_string())
                .env("PGUSER", "postgres")
                .env("PGPASSWORD", password)
                .output()
                .unwrap();
            String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
        };
        assert_eq!(psql(PASSWORD), "in\n", "{method}");
        let refused = psql("battery-staple");
        assert!(
            refused.contains("password authentication failed"),
            "{method}: {refused}"
        );
        let journal = format!(
            "{:?}{}",
            world.sidecar.journal(),
            world.sidecar.running.err()
        );
        assert!(
            !journal.contains(PASSWORD) && !journal.contains("battery"),
            "{method}"
        );
    }
}

#[test]
fn c_11_a_server_that_is_not_there_is_named() {
    let mut world = World::new();
    let port = crate::free_port();
    let url = format!("127.0.0.1:{port}=postgres://127.0.0.1:1");
    world.sidecar = crate::Setup::new()
        .policy(crate::POLICY)
        .flag("--pg", &url)
        .start();
    let mut client = Client::open(port);
    client.startup(196_608, &[("user", "postgres")]);
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "08001");
    assert!(
        error(&answer).field('M').contains("127.0.0.1:1"),
        "{answer:?}"
    );
}

#[test]
fn c_6_bytes_that_are_no_message_end_the_session_with_a_reason() {
    let world = World::new();
    for bytes in [
        &b"!\0\0\0\x04"[..],
        b"Q\0\0\0\x03",
        b"E\x7f\xff\xff\xff",
        b"Q\0\0\0\x08ab\0c",
        b"p\0\0\0\x05x",
    ] {
        let mut client = world.client();
        client.send(bytes);
        let answer = client.until_ready();
        let last = error(&answer);
        assert_eq!(
            (last.field('V'), last.field('C')),
            ("FATAL".into(), "08P01".into()),
            "{bytes:?}"
        );
    }
    assert_eq!(tags(&world.client().query("SELECT 1")), "TDCZ");
}
