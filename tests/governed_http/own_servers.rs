//! Clients are told the same by the servers of their own tests through the sidecar, which
//! allows everything, as they are directly.

use std::path::Path;
use std::process::Command;

use crate::clients::{python_of_tests, script};
use crate::support::PATIENCE;
use crate::support::authority::{Authority, Dates};
use crate::support::policies::ALLOW;
use crate::support::process::{self, Running};
use crate::support::sidecar::Setup;
use crate::support::until_within;

fn python(words: &[&str]) -> Command {
    let mut command = process::command(&python_of_tests().display().to_string());
    command.arg(script("own_servers.py")).args(words);
    command
}

fn node(words: &[&str]) -> Command {
    let mut command = process::command("node");
    command.arg(script("own_servers.mjs")).args(words);
    command
}

fn served(command: &mut Command) -> (Running, String) {
    let mut server = Running::start(command);
    let port = until_within(3 * PATIENCE, "the server's port", || {
        let ended = server.has_ended();
        assert!(ended.is_none(), "{}", server.err());
        server.out().lines().next().map(ToOwned::to_owned)
    });
    (server, port)
}

/// That what `program` finds, once it serves in the clear and over TLS, is `expected`.
fn the_same(program: fn(&[&str]) -> Command, which: &[&str], folder: &[&str], expected: &str) {
    // What nobody here reads is expected of the origin, and so is whether it is to come.
    let unseen = "http:\n  routes: [\"*/unseen/* capture=false\"]\n";
    let setup = Setup::new().config(unseen);
    let serve = |pair: &[&str]| served(&mut program(&[&["serve"], which, folder, pair].concat()));
    let compare = |places: &[&str]| program(&[&["compare"], which, places].concat());
    let expected = format!("{expected}, 0 differences\n");
    compared(setup, serve, compare, &expected);
}

/// That what `compare` prints of what is served without a certificate and its key, and with
/// them, is `expected`.
pub(crate) fn compared(
    setup: Setup,
    serve: impl Fn(&[&str]) -> (Running, String),
    compare: impl Fn(&[&str]) -> Command,
    expected: &str,
) {
    let authority = Authority::new();
    let setup = setup.policy(ALLOW).trust(&authority);
    let (certificate, key) = authority.pair("localhost", Dates::Current);
    let certificate = setup.write("origin.pem", &certificate);
    let key = setup.write("origin.key", &key);
    let ca = setup.write("origin-ca.pem", &authority.pem);
    let (_plain, plain) = serve(&[]);
    let (_secure, secure) = serve(&[&certificate, &key]);
    let sidecar = setup
        .flag("--resolve", &format!("localhost:{plain}=127.0.0.1"))
        .flag("--resolve", &format!("localhost:{secure}=127.0.0.1"))
        .flag("--allow-address", "127.0.0.1/32")
        .start();
    let sidecar_ca = sidecar.ca().display().to_string();
    let proxy = sidecar.http.to_string();
    let places = [&*proxy, &*sidecar_ca, &*ca, &*plain, &*secure];
    let ended = process::run(&mut compare(&places));
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    assert_eq!(ended.out, expected, "{}\n{}", ended.err, sidecar.log());
}

#[test]
fn urllib3_is_told_the_same_by_its_dummyserver() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/urllib3-tests");
    assert!(
        folder.exists(),
        "{} is missing; scripts/needs.sh gets it",
        folder.display()
    );
    let folder = folder.display().to_string();
    the_same(
        python,
        &["urllib3"],
        &[&folder],
        "155 answers, 4 differ as intended",
    );
}

#[test]
fn aiohttp_is_told_the_same_by_its_test_server() {
    the_same(
        python,
        &["aiohttp"],
        &["-"],
        "168 answers, 16 differ as intended",
    );
}

#[test]
fn undici_is_told_the_same_by_nodes_http() {
    the_same(node, &[], &[], "120 answers, 14 differ as intended");
}
