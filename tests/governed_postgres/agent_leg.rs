//! TLS and sockets of this machine between the agent and the sidecar.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::support::authority::{Authority, Dates};
use crate::support::postgres::{Client, PASSWORD, Server, tags};
use crate::support::sidecar::{Setup, Sidecar};
use crate::{POLICY, error, free_port};

/// A server that lets nobody in without SCRAM, and a sidecar that serves TLS.
struct Encrypted {
    _server: Server,
    sidecar: Sidecar,
    port: u16,
    authority: Authority,
}

/// Which certificate the sidecar shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Minted,
    TheServers,
}

impl Encrypted {
    fn start(shows: Shows, demand: &str, sslmode: &str) -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.pair("localhost", Dates::Current);
        let hba = "host all all all scram-sha-256\n";
        let server = Server::start_secured(hba, &chain, &key, &authority.pem);
        let port = free_port();
        let url = format!(
            "127.0.0.1:{port}=postgres://localhost:{}?sslmode={sslmode}",
            server.port
        );
        let setup = Setup::new().policy(POLICY).flag("--pg", &url);
        let files = match shows {
            Shows::Minted => String::new(),
            Shows::TheServers => format!(
                "  agent_sslcert: {}\n  agent_sslkey: {}\n",
                setup.write("agent.pem", &chain),
                setup.write("agent.key", &key)
            ),
        };
        let setup = setup.config(&format!("postgres:\n  agent_tls: {demand}\n{files}"));
        Self {
            _server: server,
            sidecar: setup.start(),
            port,
            authority,
        }
    }

    /// The file with whom clients trust.
    fn root(&self, shows: Shows) -> String {
        match shows {
            Shows::Minted => self.sidecar.ca().display().to_string(),
            Shows::TheServers => self.sidecar.setup.write("root.pem", &self.authority.pem),
        }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGPASSWORD", PASSWORD);
        command
    }

    fn psql(&self, words: &str) -> String {
        said(
            self.client("psql")
                .args(["-XAt", "-c", "SELECT 'in'", words]),
        )
    }
}

fn said(command: &mut Command) -> String {
    let ran = command.output().unwrap();
    String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
}

fn python() -> std::ffi::OsString {
    let found = std::env::vars_os().find(|(name, _)| name == "OPENBOX_TEST_PYTHON");
    found
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn pg_7_scram_binds_its_channel_where_both_legs_show_the_same_certificate() {
    let world = Encrypted::start(Shows::TheServers, "offer", "require");
    let root = world.root(Shows::TheServers);
    for words in [
        "sslmode=require",
        "sslmode=require channel_binding=require",
        "sslmode=require channel_binding=disable",
        "sslmode=disable channel_binding=disable",
        "sslmode=disable",
    ] {
        assert_eq!(world.psql(words), "in\n", "{words}");
    }
    let full = format!("sslmode=verify-full sslrootcert={root} channel_binding=require");
    assert_eq!(world.psql(&full), "in\n");
    let mut drivers = world.client(python().to_str().unwrap());
    drivers
        .args([
            "tests/clients/postgres_tls.py",
            "psycopg3",
            "asyncpg",
            "pg8000",
            "sqlalchemy",
        ])
        .env("SSL_CERT_FILE", &root)
        .env("BINDING", "require");
    assert_eq!(
        said(&mut drivers),
        "psycopg3\nasyncpg\npg8000\nsqlalchemy\n"
    );
    let mut node = world.client("node");
    node.arg("tests/clients/postgres_tls.mjs")
        .env("SSL_CERT_FILE", &root)
        .env("BINDING", "require");
    assert_eq!(said(&mut node), "node-postgres\n");
    assert!(!world.sidecar.running.err().contains(PASSWORD));
}

#[test]
fn pg_7_a_client_that_would_bind_to_another_channel_is_told_what_to_do() {
    let world = Encrypted::start(Shows::Minted, "offer", "require");
    let root = world.root(Shows::Minted);
    for host in ["localhost", "127.0.0.1"] {
        let words = |binding: &str| {
            format!("host={host} sslmode=verify-full sslrootcert={root} channel_binding={binding}")
        };
        assert_eq!(world.psql(&words("disable")), "in\n", "{host}");
        for binding in ["prefer", "require"] {
            let told = world.psql(&words(binding));
            assert!(told.contains("channel_binding=disable"), "{told}");
            assert!(told.contains("postgres.agent_sslcert"), "{told}");
        }
    }
    let credentials = refused("credentials");
    assert_eq!(world.sidecar.metric(&credentials), 4);
    // Drivers that know of no binding are not in its way.
    let mut drivers = world.client(python().to_str().unwrap());
    drivers
        .args(["tests/clients/postgres_tls.py", "asyncpg"])
        .env("SSL_CERT_FILE", &root);
    assert_eq!(said(&mut drivers), "asyncpg\n");
}

#[test]
fn pg_7_a_server_in_clear_has_no_channel_to_bind_to() {
    let world = Encrypted::start(Shows::Minted, "require", "disable");
    let root = world.root(Shows::Minted);
    let full = format!("sslmode=verify-full sslrootcert={root}");
    assert_eq!(world.psql(&full), "in\n");
    let mut drivers = world.client(python().to_str().unwrap());
    drivers
        .args([
            "tests/clients/postgres_tls.py",
            "psycopg3",
            "asyncpg",
            "pg8000",
        ])
        .env("SSL_CERT_FILE", &root)
        .env("BINDING", "prefer");
    assert_eq!(said(&mut drivers), "psycopg3\nasyncpg\npg8000\n");
}

fn refused(cause: &str) -> String {
    // Labels come in the order of their names.
    format!("openbox_connections_refused_total{{cause=\"{cause}\",protocol=\"postgresql\"}}")
}

#[test]
fn pg_1_nothing_that_came_before_tls_counts_inside_it() {
    let world = Encrypted::start(Shows::Minted, "require", "disable");
    let mut stuffing = Client::open(world.port);
    stuffing.send(&[&SSL_REQUEST[..], b"Q\0\0\0\x0dSELECT 1\0"].concat());
    let answer = stuffing.until_ready();
    assert_eq!(error(&answer).field('C'), "08P01", "and no S: {answer:?}");
    // One packet later it is part of a handshake, which it breaks.
    let mut late = Client::open(world.port);
    late.send(&SSL_REQUEST);
    let mut byte = [0];
    late.socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"S");
    late.send(b"Q\0\0\0\x0dSELECT 1\0");
    let mut rest = Vec::new();
    drop(late.socket.read_to_end(&mut rest));
    assert!(!rest.contains(&b'Z'), "{rest:?}");
    // GSSAPI is declined before, and TLS may follow.
    let mut both = Client::open(world.port);
    both.send(&[0, 0, 0, 8, 4, 210, 22, 48]);
    both.socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"N");
    both.send(&SSL_REQUEST);
    both.socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"S");
    // Where TLS is required, a session in clear is told so; a cancel request is taken.
    let mut clear = Client::open(world.port);
    clear.startup(196_608, &[("user", "postgres")]);
    let answer = clear.until_ready();
    assert_eq!(error(&answer).field('C'), "28000");
    assert!(
        error(&answer).field('M').contains("sslmode=require"),
        "{answer:?}"
    );
    assert_eq!(world.sidecar.metric(&refused("tls")), 2);
    assert_eq!(world.sidecar.metric(&refused("malformed")), 1);
}

#[test]
fn pg_3_tls_with_the_first_byte_needs_its_protocol_named() {
    let world = Encrypted::start(Shows::Minted, "offer", "disable");
    let mut config = (*world.sidecar.client_config()).clone();
    for (protocols, expected) in [
        (vec![], 0),
        (vec![&b"http/1.1"[..]], 0),
        (vec![b"postgresql"], 1),
    ] {
        config.alpn_protocols = protocols.into_iter().map(<[u8]>::to_vec).collect();
        let name = "localhost".try_into().unwrap();
        let client = rustls::ClientConnection::new(config.clone().into(), name).unwrap();
        let socket = Client::open(world.port).socket;
        let mut stream = rustls::StreamOwned::new(client, socket);
        let start = b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0";
        let mut answer = [0; 1];
        let read = stream
            .write_all(start)
            .and_then(|()| stream.read(&mut answer));
        let got = read.unwrap_or(0);
        assert_eq!(got, expected, "{:?}", config.alpn_protocols);
    }
    // Without TLS of ours, the connection ends.
    let plain = crate::World::new();
    let mut direct = Client::open(plain.port);
    direct.send(b"\x16\x03\x01\x02\0\x01\0");
    let mut rest = Vec::new();
    drop(direct.socket.read_to_end(&mut rest));
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(plain.sidecar.metric(&refused("tls")), 1);
}

#[test]
fn pg_6_sockets_of_this_machine_on_both_sides() {
    let server = Server::start_with("local all all trust\nhost all all all trust\n", &[]);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let url = format!(
        "{at}=postgres:///?host={}&port={}",
        server.folder().display(),
        server.port
    );
    let setup = Setup::new()
        .policy(POLICY)
        .flag("--pg", &url)
        .config("postgres:\n  socket_mode: \"0640\"\n  agent_tls: require\n");
    let mut sidecar = setup.start();
    let path = folder.path().join(".s.PGSQL.5432");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let psql = |sql: &str| {
        let mut command = Command::new("psql");
        command
            .args(["-XAt", "-c", sql])
            .env("PGHOST", folder.path());
        said(
            command
                .env("PGUSER", "postgres")
                .env("PGDATABASE", "postgres"),
        )
    };
    let whence = "SELECT client_addr IS NULL, client_port FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    assert_eq!(psql(whence), "t|-1\n");
    assert!(psql("SELECT 1 AS forbidden").contains("the test says block"));
    // Nobody is in between: no TLS, though it is required elsewhere.
    let mut socket = UnixStream::connect(&path).unwrap();
    socket.write_all(&SSL_REQUEST).unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"N");
    drop(socket);
    // What is left behind by a death is replaced, and removed by a good end.
    sidecar = sidecar.killed_and_started_again();
    assert_eq!(psql("SELECT 1"), "1\n");
    sidecar.running.signal("TERM");
    crate::support::until("the sidecar to end", || sidecar.running.has_ended());
    assert!(!path.exists());
}

#[test]
fn pg_10_c_8_a_full_relay_says_so_and_still_cancels() {
    let server = Server::start();
    let port = free_port();
    let url = format!("127.0.0.1:{port}=postgres://localhost:{}", server.port);
    let setup = Setup::new().policy(POLICY).flag("--pg", &url);
    let sidecar = setup.config("postgres:\n  connections_max: 1\n").start();
    let mut client = Client::connect(port, &[("user", "postgres")]);
    let mut second = Client::open(port);
    second.startup(196_608, &[("user", "postgres")]);
    let answer = second.until_ready();
    assert_eq!(error(&answer).field('C'), "53300");
    assert!(
        error(&answer).field('M').contains("connections_max"),
        "{answer:?}"
    );
    assert_eq!(sidecar.metric(&refused("limit")), 1);
    let key = client.greeting.iter().find(|message| message.tag == 'K');
    let key = key.unwrap().body.clone();
    client.send(&crate::support::postgres::message(
        'Q',
        &[b"SELECT pg_sleep(60)\0"],
    ));
    crate::support::until("the statement to run", || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'";
        (server.ask(running) == "1").then_some(())
    });
    // Two at a time: one after the other.
    let request = [
        &16_u32.to_be_bytes()[..],
        &80_877_102_u32.to_be_bytes(),
        &key,
    ]
    .concat();
    let mut both = [Client::open(port), Client::open(port)];
    for cancel in &mut both {
        cancel.send(&request);
    }
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "57014");
    for cancel in &mut both {
        assert_eq!(cancel.next(), None, "a cancel request has no answer");
    }
    assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
}

#[test]
fn pg_5_what_a_real_server_speaks_is_what_the_client_hears() {
    let world = crate::World::new();
    let greeting = |port: u16, version: u32, options: &[(&str, &str)]| {
        let mut client = Client::open(port);
        client.startup(version, &[&[("user", "postgres")][..], options].concat());
        let answer = client.until_ready();
        let known = answer.iter().filter(|message| !"SK".contains(message.tag));
        known.cloned().collect::<Vec<_>>()
    };
    for (version, options) in [
        (0x3_0000, &[][..]),
        (0x3_0002, &[]),
        (0x3_270f, &[("_pq_.test_protocol_negotiation", "")]),
        (0x3_0000, &[("_pq_.x", "1"), ("_pq_.y", "")]),
    ] {
        let direct = greeting(world.server.port, version, options);
        let relayed = greeting(world.port, version, options);
        assert_eq!(relayed, direct, "{version:x}");
    }
}

/// A server of version 3.2, which no package of Debian 12 has.
fn speaking_3_2(key: &'static [u8]) -> (u16, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut length = [0; 4];
            if socket.read_exact(&mut length).is_err() {
                continue;
            }
            let mut packet = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
            socket.read_exact(&mut packet).unwrap();
            let is_start = packet[..2] == [0, 3];
            tell.send(packet).unwrap();
            if is_start {
                let length = u32::try_from(key.len() + 4).unwrap().to_be_bytes();
                let answer: [&[u8]; 5] =
                    [b"R\0\0\0\x08\0\0\0\0", b"K", &length, key, b"Z\0\0\0\x05I"];
                socket.write_all(&answer.concat()).unwrap();
                std::thread::spawn(move || drop(socket.read_to_end(&mut Vec::new())));
            }
        }
    });
    (port, told)
}

#[test]
fn pg_5_pg_9_pg_10_long_keys_of_3_2_pass_and_cancel() {
    const KEY: [u8; 36] = *b"\0\0\0\x07a key of thirty-two bytes longer";
    let (server, told) = speaking_3_2(&KEY);
    let port = free_port();
    let url = format!("127.0.0.1:{port}=postgres://127.0.0.1:{server}?sslmode=disable");
    let _sidecar = Setup::new().policy(POLICY).flag("--pg", &url).start();
    let mut client = Client::open(port);
    client.startup(0x3_270f, &[("user", "a"), ("_pq_.x", "")]);
    let answer = client.until_ready();
    assert_eq!(tags(&answer), "vRKZ");
    assert_eq!(&answer[0].body[..4], b"\0\x03\0\x02");
    assert_eq!(answer[2].body, KEY);
    assert_eq!(told.recv().unwrap(), b"\0\x03\0\x02user\0a\0\0");
    let mut cancel = Client::open(port);
    let request = [
        &44_u32.to_be_bytes()[..],
        &80_877_102_u32.to_be_bytes(),
        &KEY,
    ]
    .concat();
    cancel.send(&request);
    assert_eq!(cancel.next(), None);
    assert_eq!(told.recv().unwrap(), request[4..]);
}
