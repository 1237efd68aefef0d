//! Keys, certificates and logins that are replaced while the sidecar serves, as those that live for an hour are.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::chaining::{LOGIN, Network, through};
use crate::clients::{python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::process::{self, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

/// Longer than files are taken for what they were.
const NOTICED: Duration = Duration::from_millis(1_200);

/// A real server that asks for a certificate, and a sidecar that shows it one.
struct World {
    authority: Authority,
    sidecar: Sidecar,
    port: u16,
    _server: Running,
}

impl World {
    fn new() -> Self {
        let authority = Authority::new();
        let setup = Setup::new().policy(ALLOW).trust(&authority);
        let (certificate, key) = authority.pair("secure.test", Dates::Current);
        let server = Running::start(
            process::command(&python_of_tests().display().to_string())
                .arg(script("asks_who.py"))
                .arg(setup.write("server.pem", &certificate))
                .arg(setup.write("server.key", &key))
                .arg(setup.write("clients.pem", &authority.pem)),
        );
        let port = until("the origin to tell its port", || {
            server.out().lines().next()?.parse().ok()
        });
        let folder = setup.folder().display().to_string();
        let (certificate, key) = authority.pair("agent-1.test", Dates::Current);
        setup.write("agent.pem", &certificate);
        setup.write("agent.key", &key);
        let config = format!(
            "upstream:\n  tls: ['secure.test cert={folder}/agent.pem key={folder}/agent.key']\n"
        );
        let sidecar = setup
            .config(&config)
            // Each has connections of its own.
            .flag("--workers", "1")
            .flag("--resolve", &format!("secure.test:{port}=127.0.0.1"))
            .flag("--allow-address", "127.0.0.1/32")
            .start();
        Self {
            authority,
            sidecar,
            port,
            _server: server,
        }
    }

    /// Who the origin says that we are, over which of its connections.
    fn shown(&self) -> (String, u32) {
        let said = through(
            &self.sidecar,
            &format!("https://secure.test:{}/x", self.port),
        );
        let mut words = said.split(' ');
        let name = words.next().unwrap().to_owned();
        let number = words.next().and_then(|number| number.parse().ok());
        (name, number.unwrap_or_else(|| panic!("{said}")))
    }

    fn replace(&self, name: &str, text: &str) {
        replace(&self.sidecar.setup.folder().join(name), text);
    }
}

/// As secrets are replaced: by another file.
fn replace(file: &Path, text: &str) {
    let other = file.with_extension("new");
    fs::write(&other, text).unwrap();
    fs::rename(&other, file).unwrap();
}

#[test]
fn a_certificate_that_is_replaced_is_shown_from_then_on_and_over_no_connection_of_before() {
    let world = World::new();
    assert_eq!(world.shown(), ("agent-1.test".to_owned(), 1));
    assert_eq!(
        world.shown(),
        ("agent-1.test".to_owned(), 1),
        "it is idle, and used again"
    );
    let (certificate, key) = world.authority.pair("agent-2.test", Dates::Current);
    world.replace("agent.pem", &certificate);
    world.replace("agent.key", &key);
    std::thread::sleep(NOTICED);
    assert_eq!(world.shown(), ("agent-2.test".to_owned(), 2));
    assert_eq!(world.shown(), ("agent-2.test".to_owned(), 2));
    let log = world.sidecar.log();
    assert!(
        log.contains("secure.test has changed and is used from now on"),
        "{log}"
    );
    assert!(!log.contains("PRIVATE"), "{log}");
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_the_one_before_and_is_told_once() {
    let world = World::new();
    assert_eq!(world.shown(), ("agent-1.test".to_owned(), 1));
    let (certificate, key) = world.authority.pair("agent-2.test", Dates::Current);
    // Half of it is there.
    world.replace("agent.pem", &certificate);
    for _ in 0..3 {
        std::thread::sleep(NOTICED);
        assert_eq!(world.shown(), ("agent-1.test".to_owned(), 1));
    }
    let told = |log: &str| log.matches("cannot be used, so what it was before").count();
    let log = world.sidecar.log();
    assert_eq!(told(&log), 1, "{log}");
    assert!(log.contains("agent.key"), "{log}");
    world.replace("agent.key", &key);
    std::thread::sleep(NOTICED);
    assert_eq!(world.shown(), ("agent-2.test".to_owned(), 2));
}

#[test]
fn an_authority_that_is_replaced_is_the_one_that_is_trusted() {
    let (before, after) = (Authority::new(), Authority::new());
    let site = Origin::site_tls(after.server("secure.test", Dates::Current));
    let setup = Setup::new().policy(ALLOW).reach(&site);
    let file = setup.write("own.pem", &before.pem);
    let config = format!("upstream:\n  tls: ['secure.test ca={file}']\n");
    let sidecar = setup.config(&config).start();
    let refused = through(&sidecar, &site.url("/x"));
    assert!(refused.ends_with(" 502"), "{refused}");
    replace(Path::new(&file), &after.pem);
    std::thread::sleep(NOTICED);
    assert_eq!(through(&sidecar, &site.url("/x")), "hello from /x 200");
}

#[test]
fn a_login_that_is_replaced_is_used_from_then_on_and_over_no_connection_of_before() {
    let authority = Authority::new();
    let site = Origin::site();
    let network = Network::tinyproxy(&[&site]);
    let sidecar = network.governed("agent:wrong", &authority, "workers: 1\n");
    let file = sidecar.setup.folder().join("login");
    let refused = through(&sidecar, &site.url("/x"));
    assert!(refused.ends_with(" 502"), "{refused}");
    replace(&file, LOGIN);
    std::thread::sleep(NOTICED);
    for _ in 0..2 {
        assert_eq!(through(&sidecar, &site.url("/x")), "hello from /x 200");
    }
    assert_eq!(site.connections(), 1, "it is idle, and used again");
    // One that is none leaves what was there.
    replace(&file, "nobody");
    std::thread::sleep(NOTICED);
    assert_eq!(through(&sidecar, &site.url("/x")), "hello from /x 200");
    assert_eq!(site.connections(), 1);
    replace(&file, LOGIN);
    std::thread::sleep(NOTICED);
    assert_eq!(through(&sidecar, &site.url("/x")), "hello from /x 200");
    assert_eq!(
        site.connections(),
        2,
        "what was made by another login is not"
    );
    let log = sidecar.log();
    assert!(!log.contains("horse") && !log.contains("nobody"), "{log}");
}
