//! Behind a real twemproxy, which ends a connection on a command that it does
//! not know.

use std::process::{Child, Command, Stdio};

use crate::support::redis::{Client, Reply, Server, simple, text};
use crate::support::sidecar::Sidecar;
use crate::support::{free_port, until};
use crate::{POLICY, Setup, World};

/// A server behind a proxy; stopped when dropped.
struct Proxied {
    _server: Server,
    proxy: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Proxied {
    fn start() -> Self {
        let server = Server::start(&[]);
        let (port, stats) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nutcracker.yml");
        let pool = format!(
            "pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - 127.0.0.1:{}:1\n",
            server.port
        );
        std::fs::write(&file, pool).unwrap();
        let proxy = Command::new("nutcracker")
            .args(["--stats-port", &stats.to_string(), "--conf-file"])
            .arg(&file)
            .stderr(Stdio::null())
            .env("PATH", "/usr/sbin:/usr/bin:/bin")
            .spawn()
            .expect("scripts/needs.sh was not run");
        Self {
            _server: server,
            proxy,
            port,
            _folder: folder,
        }
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        let ended = self.proxy.kill().and_then(|()| self.proxy.wait());
        if let Err(error) = ended {
            eprintln!("a twemproxy of a test could not be stopped: {error}");
        }
    }
}

fn governed(proxied: &Proxied) -> (Sidecar, u16) {
    drop(Client::connect(proxied.port));
    let port = free_port();
    let url = format!("127.0.0.1:{port}=redis://localhost:{}", proxied.port);
    (
        Setup::new().policy(POLICY).flag("--redis", &url).start(),
        port,
    )
}

#[test]
fn rd_4_a_proxy_that_ends_connections_on_what_it_does_not_know_is_noticed() {
    let proxied = Proxied::start();
    let (sidecar, port) = governed(&proxied);
    let mut client = Client::connect(port);
    assert_eq!(client.ask("SET a 1"), simple("OK"));
    // It shows once, and whoever shows it is told why.
    assert!(client.ask("GET forbidden").is_refusal());
    assert_eq!(client.next(), Reply::End);
    until("it to be told", || {
        sidecar
            .log()
            .contains("redis.refusals: local")
            .then_some(())
    });
    let mut client = Client::connect(port);
    let replies = client.all(&["SET a 2", "GET forbidden", "GET a"]);
    assert_eq!((&replies[0], &replies[2]), (&simple("OK"), &text("2")));
    assert!(replies[1].is_refusal());
}

#[test]
fn rd_4_a_server_that_ends_a_connection_for_another_reason_is_none() {
    let world = World::new();
    let mut client = world.client();
    // It was asked to, and it has answered what does not exist.
    client.say(&["QUIT", "SET forbidden 1"]);
    while client.next() != Reply::End {}
    let mut client = world.client();
    assert!(client.ask("GET forbidden").is_refusal());
    let Reply::Integer(id) = client.ask("CLIENT ID") else {
        panic!()
    };
    client.say(&["BLPOP list 0", "SET forbidden 1"]);
    world.until_clients("blocked_clients", 1);
    world.server.ask(&format!("CLIENT KILL ID {id}"));
    while client.next() != Reply::End {}
    assert!(!world.sidecar.log().contains("redis.refusals: local"));
}

#[test]
fn rd_4_in_a_pipeline_it_is_noticed_as_well_and_nothing_refused_happens() {
    let proxied = Proxied::start();
    let (_sidecar, port) = governed(&proxied);
    let mut client = Client::connect(port);
    client.say(&["SET a 1", "SET forbidden 1", "GET a"]);
    while client.next() != Reply::End {}
    let mut client = Client::connect(port);
    let replies = client.all(&["SET a 2", "SET forbidden 1", "GET a", "GET b"]);
    assert_eq!((&replies[0], &replies[2]), (&simple("OK"), &text("2")));
    assert!(replies[1].is_refusal());
    let mut direct = Client::connect(proxied.port);
    assert_eq!(direct.ask("GET forbidden"), Reply::Null);
}
