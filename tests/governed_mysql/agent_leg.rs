//! TLS and sockets of this machine between the agent and the sidecar.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::World;
use crate::support::authority::{Authority, Dates};
use crate::support::mysql::{CAPABILITIES, Client, frame, login};
use crate::support::until;

/// Which legs have TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Clear,
    Encrypted,
}

/// Words with which a server shows a certificate for `localhost`; its files are in `folder`.
pub(crate) fn proves_itself(authority: &Authority, folder: &Path) -> [String; 2] {
    let (chain, key) = authority.pair("localhost", Dates::Current);
    let file = |word: &str, name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        format!("--{word}={}", path.display())
    };
    [
        file("ssl-cert", "chain.pem", &chain),
        file("ssl-key", "key.pem", &key),
    ]
}

/// A server that must ask `eve` for another proof than she begins with, and a sidecar that serves TLS as `demand` says.
fn world(to_server: Leg, demand: &str) -> World {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let words = proves_itself(&authority, folder.path());
    let server = words.each_ref().map(String::as_str);
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &authority.pem).unwrap();
    let query = match to_server {
        Leg::Clear => "?ssl-mode=DISABLED".to_owned(),
        Leg::Encrypted => format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={}", root.display()),
    };
    let config = format!("mysql:\n  agent_tls: {demand}\n");
    let world = World::reached_by(&server, &query, |setup| setup.config(&config));
    world
        .server
        .ask("CREATE USER eve@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO eve@'%'");
    world
}

impl World {
    /// What `mariadb` says of `sql`, with these words.
    fn mariadb(&self, words: &[&str], sql: &str) -> String {
        let port = format!("-P{}", self.port);
        let words = [&["-h127.0.0.1", &port][..], words].concat();
        mariadb(&words, sql)
    }
}

fn mariadb(words: &[&str], sql: &str) -> String {
    let mut command = Command::new("mariadb");
    command
        .args([
            "--no-defaults",
            "-ueve",
            "-psecret",
            "-NB",
            "-e",
            sql,
            "shop",
        ])
        .arg("--default-auth=client_ed25519")
        .args(words);
    said(&mut command)
}

fn said(command: &mut Command) -> String {
    let ran = command.output().unwrap();
    String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
}

const REFUSED: &str = "openbox_connections_refused_total{cause=\"tls\",protocol=\"mysql\"}";

#[test]
fn my_2_my_3_my_4_my_8_a_login_in_rounds_passes_whichever_legs_have_tls() {
    for to_server in [Leg::Clear, Leg::Encrypted] {
        let world = world(to_server, "offer");
        let ca = world.sidecar.ca().display().to_string();
        let ca = format!("--ssl-ca={ca}");
        for from_agent in [Leg::Clear, Leg::Encrypted] {
            let words = match from_agent {
                Leg::Clear => vec!["--skip-ssl"],
                Leg::Encrypted => vec![&*ca, "--ssl-verify-server-cert"],
            };
            let cipher = world.mariadb(&words, "SHOW STATUS LIKE 'Ssl_cipher'");
            let sees_tls = cipher.contains("TLS");
            assert_eq!(
                sees_tls,
                to_server == Leg::Encrypted,
                "{from_agent:?}, {to_server:?}: {cipher}"
            );
            let refused = world.mariadb(&words, "DELETE FROM forbidden");
            assert!(refused.contains("the test says block"), "{refused}");
            let wrong = world.mariadb(&[&words[..], &["-pwrong"]].concat(), "SELECT 1");
            assert!(wrong.contains("ERROR 1045"), "{wrong}");
        }
        // The client's own status says what its leg has.
        let own = world.mariadb(&[&ca, "--ssl-verify-server-cert"], "\\s");
        assert!(own.contains("Cipher in use is TLS"), "{own}");
        assert_eq!(world.sidecar.metric(REFUSED), 0);
    }
}

#[test]
fn drivers_verify_the_sidecars_certificate() {
    let world = world(Leg::Encrypted, "require");
    let python = std::env::vars_os()
        .find(|(name, _)| name == "OPENBOX_TEST_PYTHON")
        .expect("OPENBOX_TEST_PYTHON names the Python of .venv; scripts/test.sh sets it")
        .1;
    let script = "
import os, pymysql, mysql.connector
where = dict(host='localhost', port=int(os.environ['MYSQL_PORT']), user='bob', database='shop')
ca = os.environ['CA']
for name, connect in (
    ('pymysql', lambda: pymysql.connect(**where, ssl={'ca': ca, 'check_hostname': True})),
    ('connector', lambda: mysql.connector.connect(**where, ssl_ca=ca, ssl_verify_cert=True, ssl_verify_identity=True)),
):
    with connect() as connection:
        cursor = connection.cursor()
        cursor.execute('SELECT 6 * 7')
        assert cursor.fetchone()[0] == 42
        try:
            cursor.execute('DELETE FROM forbidden')
        except Exception as error:
            assert '1227' in str(error), error
            print(name)
";
    let mut drivers = Command::new(python);
    drivers
        .args(["-c", script])
        .env("CA", world.sidecar.ca())
        .env("MYSQL_PORT", world.port.to_string());
    assert_eq!(said(&mut drivers), "pymysql\nconnector\n");
}

#[test]
fn where_tls_is_required_a_login_in_clear_is_told_so() {
    let world = world(Leg::Clear, "require");
    // A client that expects another method of the server misreads any error here.
    let told = world.mariadb(
        &["--skip-ssl", "--default-auth=mysql_native_password"],
        "SELECT 1",
    );
    assert!(
        told.contains("ERROR 1227") && told.contains("mysql.agent_tls"),
        "{told}"
    );
    assert_eq!(world.sidecar.metric(REFUSED), 1);
    let ca = format!("--ssl-ca={}", world.sidecar.ca().display());
    assert_eq!(world.mariadb(&[&ca], "SELECT 1"), "1\n");
}

#[test]
fn nothing_that_came_before_tls_counts_inside_it() {
    let world = world(Leg::Clear, "offer");
    let request = frame(1, &login(CAPABILITIES | 0x800, "bob")[..32]);
    let mut stuffing = Client::open(world.port);
    stuffing.next().unwrap();
    stuffing.raw(&[&request[..], &frame(2, &login(CAPABILITIES, "bob"))].concat());
    // What follows the request is part of a handshake, in the same read or later.
    // It ends with an alert of TLS, if with anything.
    let mut heard = Vec::new();
    drop(stuffing.socket.read_to_end(&mut heard));
    assert!(heard.first().is_none_or(|byte| *byte == 0x15), "{heard:?}");
    let mut late = Client::open(world.port);
    late.next().unwrap();
    late.raw(&request);
    late.socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    until("both refusals to be counted", || {
        (world.sidecar.metric(REFUSED) == 2).then_some(())
    });
}

#[test]
fn a_handshake_that_follows_its_request_in_one_piece_is_one() {
    let world = world(Leg::Clear, "offer");
    let ca = format!("--ssl-ca={}", world.sidecar.ca().display());
    for _ in 0..20 {
        // Without that word it would go on in clear where no TLS is offered.
        let words = [&*ca, "--ssl-verify-server-cert"];
        assert_eq!(world.mariadb(&words, "SELECT 1"), "1\n");
    }
}

#[test]
fn a_path_of_this_machine_has_its_permissions_and_no_tls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mysqld.sock");
    let at = path.display().to_string();
    let mut world = World::listening_at(&at, |setup| {
        setup.config("mysql:\n  socket_mode: \"0640\"\n  agent_tls: require\n")
    });
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let mariadb = |sql: &str| {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "-ubob", "-NB", "-e", sql, "shop"])
            .arg(format!("-S{at}"));
        said(&mut command)
    };
    assert_eq!(mariadb("SELECT 1"), "1\n");
    assert!(mariadb("DELETE FROM forbidden").contains("the test says block"));
    let own = mariadb("\\s");
    assert!(own.contains("Not in use"), "{own}");
    world.sidecar = world.sidecar.killed_and_started_again();
    assert_eq!(mariadb("SELECT 1"), "1\n");
    let mut sidecar = world.sidecar;
    sidecar.running.signal("TERM");
    until("the sidecar to end", || sidecar.running.has_ended());
    assert!(!path.exists());
}
