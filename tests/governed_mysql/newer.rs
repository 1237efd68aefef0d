//! A MariaDB newer than the machine's, where it is there; `scripts/test.sh` says where it
//! is not.

use crate::POLICY;
use crate::support::free_port;
use crate::support::mysql::{Server, newer};
use crate::support::sidecar::{Setup, Sidecar};

/// Not the address by which its client knows this machine, which it does not verify.
const AT: &str = "127.0.0.2";

/// What MariaDB's newer client is told, which verifies whom it talks to unless it is told
/// not to.
fn says(port: u16, words: &[&str]) -> String {
    let ran = newer("mariadb")
        .unwrap()
        .args([
            &format!("-h{AT}"),
            &format!("-P{port}"),
            "-ubob",
            "-psecret",
        ])
        .args(["-NB", "shop"])
        .args([
            "-e",
            "SHOW STATUS LIKE 'ssl_version'; DELETE FROM forbidden",
        ])
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&[&ran.stdout[..], &ran.stderr].concat()).into_owned()
}

/// In front of `server`, set up like this.
fn before(server: &Server, config: &str) -> (Sidecar, u16) {
    let port = free_port();
    let url = format!(
        "{AT}:{port}=mysql://localhost:{}?ssl-mode=REQUIRED",
        server.port
    );
    let setup = Setup::new().policy(POLICY).config(config);
    (setup.flag("--mysql", &url).start(), port)
}

#[test]
fn my_7_a_server_proves_a_certificate_of_nobodys_only_to_who_sees_it() {
    let Some(server) = Server::start_newer() else {
        return;
    };
    server.ask("ALTER USER bob@'%' IDENTIFIED BY 'secret'");
    let version = server.ask("SELECT VERSION()");
    let direct = says(server.port, &[]);
    assert!(
        direct.contains("TLSv1.3") && !direct.contains("ERROR"),
        "{version}: {direct}"
    );
    let (sidecar, port) = before(&server, "mysql:\n  agent_tls: offer\n");
    // It sees the sidecar's certificate, and the server has proven its own.
    let told = says(port, &[]);
    assert!(
        !told.contains("TLSv1.3") && told.contains("certificate"),
        "{told}"
    );
    let ca = format!("--ssl-ca={}", sidecar.ca().display());
    // The authority of the sidecar is a certificate of somebody's.
    let told = says(port, &[&ca]);
    assert!(
        told.contains("TLSv1.3") && told.contains("the test says block"),
        "{told}"
    );
    // Where the agent's leg is in clear, the server's has TLS of its own.
    let (_clear, port) = before(&server, "");
    let told = says(port, &["--skip-ssl"]);
    assert!(
        told.contains("TLSv1.3") && told.contains("the test says block"),
        "{told}"
    );
}
