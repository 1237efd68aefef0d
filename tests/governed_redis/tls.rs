//! TLS to the server, as its URL asks for it.

use crate::support::authority::{Authority, Dates};
use crate::support::free_port;
use crate::support::redis::{Client, Reply, Server, array, simple};
use crate::support::sidecar::Sidecar;
use crate::{POLICY, Setup, support};

/// A server with TLS on a second port, for clients of its authority alone.
struct Secured {
    server: Server,
    port: u16,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (server_chain, server_key) = authority.pair("localhost", Dates::Current);
        let (chain, key) = authority.pair("agent", Dates::Current);
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        file("client.pem", &chain);
        file("client.key", &key);
        file("other.pem", &Authority::new().pem);
        let port = free_port();
        let server = Server::start(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem", &server_chain),
            "--tls-key-file",
            &file("server.key", &server_key),
            "--tls-ca-cert-file",
            &file("root.pem", &authority.pem),
        ]);
        Self {
            server,
            port,
            folder,
        }
    }

    /// A sidecar in front of it, with these parameters of the URL.
    fn relayed(&self, scheme: &str, host: &str, query: &str) -> (Sidecar, u16) {
        let port = free_port();
        let query = query.replace("DIR", &self.folder.path().display().to_string());
        let url = format!("127.0.0.1:{port}={scheme}://{host}:{}?{query}", self.port);
        let setup = Setup::new().policy(POLICY).flag("--redis", &url);
        (setup.start(), port)
    }
}

const CLIENT: &str = "ssl_certfile=DIR/client.pem&ssl_keyfile=DIR/client.key";

#[test]
fn rd_20_commands_go_through_tls_with_a_client_certificate() {
    let secured = Secured::start();
    let query = format!("ssl_ca_certs=DIR/root.pem&{CLIENT}");
    let (_sidecar, port) = secured.relayed("rediss", "localhost", &query);
    let mut client = Client::connect(port);
    let replies = client.all(&["SET a 1", "SET forbidden 1", "INCR a"]);
    assert_eq!(
        (&replies[0], &replies[2]),
        (&simple("OK"), &Reply::Integer(2))
    );
    assert!(replies[1].is_refusal());
    let value = vec![b'v'; 8 << 20];
    client.send(array(&[b"SET", b"big", &value]));
    assert_eq!(client.next(), simple("OK"));
    client.say(&["GET big", "PING"]);
    assert!(matches!(client.next(), Reply::Text(text) if text.len() == value.len()));
    assert_eq!(client.next(), simple("PONG"));
    assert_eq!(secured.server.ask("STRLEN big"), Reply::Integer(8 << 20));
}

#[test]
fn rd_20_a_server_that_proves_nothing_is_not_spoken_to() {
    let secured = Secured::start();
    for (scheme, host, query, goes) in [
        (
            "rediss",
            "localhost",
            format!("ssl_ca_certs=DIR/other.pem&{CLIENT}"),
            false,
        ),
        (
            "rediss",
            "127.0.0.1",
            format!("ssl_ca_certs=DIR/root.pem&{CLIENT}"),
            false,
        ),
        ("rediss", "localhost", CLIENT.to_owned(), false),
        (
            "rediss",
            "localhost",
            "ssl_ca_certs=DIR/root.pem".to_owned(),
            false,
        ),
        ("redis", "localhost", String::new(), false),
        (
            "rediss",
            "localhost",
            format!("ssl_cert_reqs=none&{CLIENT}"),
            true,
        ),
    ] {
        let (_sidecar, port) = secured.relayed(scheme, host, &query);
        let mut client = Client::connect(port);
        client.try_send(&support::redis::command("SET a 1"));
        let expected = if goes { simple("OK") } else { Reply::End };
        assert_eq!(client.next(), expected, "{scheme}://{host} {query}");
    }
}
