//! TLS to the server, as `sslmode` asks for it.

use std::io::{Read, Write};
use std::process::Command;

use crate::support::authority::{Authority, Dates};
use crate::support::postgres::{Client, PASSWORD, Server, tags};
use crate::support::sidecar::{Setup, Sidecar};
use crate::{POLICY, error, free_port};

/// A server with TLS on and a certificate for `localhost`, and who signed it.
struct Secured {
    server: Server,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start(hba: &str) -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.pair("localhost", Dates::Current);
        let server = Server::start_secured(hba, &chain, &key, &authority.pem);
        let folder = tempfile::tempdir().unwrap();
        let secured = Self {
            server,
            authority,
            folder,
        };
        let pem = secured.authority.pem.clone();
        secured.write("root.pem", &pem);
        secured.write("other.pem", &Authority::new().pem);
        secured
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A sidecar in front of it, with these parameters of the URL.
    fn relayed(&self, host: &str, query: &str) -> Relayed {
        let query = query.replace("DIR", &self.folder.path().display().to_string());
        relayed(host, self.server.port, &query)
    }
}

struct Relayed {
    sidecar: Sidecar,
    port: u16,
}

fn relayed(host: &str, server: u16, query: &str) -> Relayed {
    let port = free_port();
    let url = format!("127.0.0.1:{port}=postgres://{host}:{server}/?{query}");
    let setup = Setup::new().policy(POLICY).flag("--pg", &url);
    Relayed {
        sidecar: setup.start(),
        port,
    }
}

impl Relayed {
    /// What a session is answered with before it is ready.
    fn login(&self, user: &str) -> Vec<crate::Message> {
        let mut client = Client::open(self.port);
        client.startup(196_608, &[("user", user), ("database", "postgres")]);
        client.until_ready()
    }

    fn refusal(&self) -> String {
        let answer = self.login("postgres");
        assert_eq!(error(&answer).field('C'), "08001", "{answer:?}");
        error(&answer).field('M')
    }

    fn psql(&self, host: &str, environment: &[(&str, &str)], sql: &str) -> String {
        let ran = Command::new("psql")
            .args(["-XAt", "-c", sql])
            .env("PGHOST", host)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", PASSWORD)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    }
}

const ENCRYPTED: &str = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[test]
fn pg_1_each_sslmode_asks_for_what_it_asks_for_in_libpq() {
    let secured = Secured::start("host all all all trust\n");
    for (host, query, expected) in [
        ("localhost", "sslmode=disable", Ok("f")),
        ("localhost", "", Ok("t")),
        ("localhost", "sslmode=prefer", Ok("t")),
        ("localhost", "sslmode=require", Ok("t")),
        ("127.0.0.1", "sslmode=require", Ok("t")),
        ("localhost", "sslmode=require&sslsni=0", Ok("t")),
        (
            "localhost",
            "sslmode=require&sslrootcert=DIR/root.pem",
            Ok("t"),
        ),
        (
            "127.0.0.1",
            "sslmode=verify-ca&sslrootcert=DIR/root.pem",
            Ok("t"),
        ),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=DIR/root.pem",
            Ok("t"),
        ),
        (
            "localhost",
            "sslmode=require&sslrootcert=DIR/other.pem",
            Err("not accepted"),
        ),
        (
            "localhost",
            "sslmode=verify-ca&sslrootcert=DIR/other.pem",
            Err("not accepted"),
        ),
        (
            "127.0.0.1",
            "sslmode=verify-full&sslrootcert=DIR/root.pem",
            Err("it is for"),
        ),
        ("localhost", "sslmode=verify-full", Err("not accepted")),
    ] {
        let relayed = secured.relayed(host, query);
        match expected {
            Ok(encrypted) => {
                let mut client = Client::connect(relayed.port, &[("user", "postgres")]);
                let rows = client.rows(ENCRYPTED);
                assert_eq!(rows[0][0], encrypted, "{host} {query}");
            }
            Err(part) => {
                let told = relayed.refusal();
                assert!(told.contains(part), "{host} {query}: {told}");
                assert!(told.contains("sslmode="), "{told}");
            }
        }
    }
}

#[test]
fn pg_1_a_server_without_tls_is_never_spoken_to_in_clear_where_tls_is_required() {
    let server = Server::start();
    for query in ["sslmode=require", "sslmode=verify-full"] {
        let relayed = relayed("localhost", server.port, query);
        let told = relayed.refusal();
        assert!(told.contains("the server has no TLS"), "{told}");
        assert!(told.contains(query), "{told}");
    }
    let relayed = relayed("localhost", server.port, "sslmode=prefer");
    assert!(tags(&relayed.login("postgres")).ends_with('Z'));
}

/// A server that answers each connection's first bytes with these.
fn answering(bytes: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut request = [0; 8];
            if socket.read_exact(&mut request).is_ok() {
                drop(socket.write_all(bytes));
                let mut rest = Vec::new();
                drop(socket.read_to_end(&mut rest));
            }
        }
    });
    port
}

#[test]
fn pg_1_what_an_unproved_server_says_instead_of_an_answer_is_shown_to_nobody() {
    for (said, part) in [
        (
            &b"E\0\0\0\x20SERROR\0C42501\0Mgive me your password\0\0"[..],
            "answered the request for TLS with an error",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "does not speak PostgreSQL",
        ),
        // More than one byte: the rest is no handshake.
        (b"SR\0\0\0\x08\0\0\0\0", "TLS"),
    ] {
        let relayed = relayed("localhost", answering(said), "sslmode=require");
        let told = relayed.refusal();
        assert!(told.contains(part), "{told}");
        assert!(!told.contains("password"), "{told}");
    }
}

#[test]
fn a_server_of_another_protocol_is_named_as_such_and_passes_nothing_on() {
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"-ERR unknown command\r\n",
    ] {
        let relayed = relayed("localhost", answering(said), "sslmode=disable");
        let answer = relayed.login("postgres");
        assert_eq!(tags(&answer), "E", "{said:?}");
        let last = error(&answer);
        let told = (last.field('V'), last.field('C'));
        assert_eq!(told, ("FATAL".into(), "08P01".into()), "{said:?}");
    }
}

#[test]
fn pg_7_scram_works_in_clear_here_and_encrypted_there() {
    let secured = Secured::start("hostssl all all all scram-sha-256\n");
    let relayed = secured.relayed("localhost", "sslmode=require");
    assert_eq!(relayed.psql("127.0.0.1", &[], ENCRYPTED), "t|TLSv1.3\n");
    // Nothing to bind to: a client that insists is told by its own library.
    let insists = relayed.psql("127.0.0.1", &[("PGCHANNELBINDING", "require")], "SELECT 1");
    assert!(insists.contains("channel binding"), "{insists}");
    let wrong = relayed.psql("127.0.0.1", &[("PGPASSWORD", "battery-staple")], "SELECT 1");
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    assert!(!relayed.sidecar.running.err().contains(PASSWORD));
}

#[test]
fn pg_6_a_client_certificate_of_ours_proves_who_logs_in() {
    let secured = Secured::start("hostssl all postgres all cert\n");
    let (chain, key) = secured.authority.pair("postgres", Dates::Current);
    secured.write("client.pem", &chain);
    secured.write("client.key", &key);
    let relayed = secured.relayed(
        "localhost",
        "sslmode=verify-full&sslrootcert=DIR/root.pem&sslcert=DIR/client.pem&sslkey=DIR/client.key",
    );
    assert_eq!(relayed.psql("127.0.0.1", &[], "SELECT 1"), "1\n");
    let without = secured.relayed("localhost", "sslmode=require");
    let told = error(&without.login("postgres")).field('M');
    assert!(told.contains("certificate"), "{told}");
}

#[test]
fn pg_10_a_cancel_request_goes_to_the_server_inside_tls() {
    let secured = Secured::start("hostssl all all all trust\n");
    let relayed = secured.relayed("localhost", "sslmode=require");
    let mut client = Client::connect(relayed.port, &[("user", "postgres")]);
    let key = client.greeting.iter().find(|message| message.tag == 'K');
    let key = key.unwrap().body.clone();
    client.send(&crate::support::postgres::message(
        'Q',
        &[b"SELECT pg_sleep(60)\0"],
    ));
    crate::support::until("the statement to run", || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        (Client::connect(relayed.port, &[("user", "postgres")]).rows(running)[0][0] == "1")
            .then_some(())
    });
    let mut cancel = Client::open(relayed.port);
    cancel.send(
        &[
            &16_u32.to_be_bytes()[..],
            &80_877_102_u32.to_be_bytes(),
            &key,
        ]
        .concat(),
    );
    assert_eq!(cancel.next(), None, "a cancel request has no answer");
    let answer = client.until_ready();
    assert_eq!(error(&answer).field('C'), "57014");
}

#[test]
fn results_of_any_size_come_whole_through_tls() {
    let secured = Secured::start("hostssl all all all trust\n");
    let relayed = secured.relayed("localhost", "sslmode=require");
    let sql =
        "SELECT sum(length(x)) FROM (SELECT repeat('ab', 100000) x FROM generate_series(1, 20)) t";
    assert_eq!(relayed.psql("127.0.0.1", &[], sql), "4000000\n");
    let wide = relayed.psql(
        "127.0.0.1",
        &[],
        "SELECT repeat(g::text, 50000) FROM generate_series(1, 40) g",
    );
    let expected: usize = (1..=40)
        .map(|g: u32| g.to_string().len() * 50_000 + 1)
        .sum();
    assert_eq!(wide.len(), expected);
}
