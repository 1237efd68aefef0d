//! httpbin tells clients the same through the sidecar, which allows everything, as it does directly.

use crate::clients::{python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::policies::ALLOW;
use crate::support::process::{self, Running};
use crate::support::sidecar::Setup;
use crate::support::until;

fn python(words: &[&str]) -> std::process::Command {
    let mut command = process::command(&python_of_tests().display().to_string());
    command.arg(script("as_direct.py")).args(words);
    command
}

fn served(words: &[&str]) -> (Running, String) {
    let server = Running::start(&mut python(&[&["serve"], words].concat()));
    let port = until("httpbin's port", || {
        let said = server.err();
        let (_, at) = said.split_once("Listening at: ")?;
        let address = at.split_whitespace().next()?;
        address.rsplit_once(':').map(|(_, port)| port.to_owned())
    });
    (server, port)
}

#[test]
fn clients_are_told_the_same_as_directly() {
    let authority = Authority::new();
    let setup = Setup::new().policy(ALLOW).trust(&authority);
    let (certificate, key) = authority.pair("localhost", Dates::Current);
    let certificate = setup.write("origin.pem", &certificate);
    let key = setup.write("origin.key", &key);
    let ca = setup.write("origin-ca.pem", &authority.pem);
    let (_plain, plain) = served(&[]);
    let (_secure, secure) = served(&[&certificate, &key]);
    let sidecar = setup
        .flag("--resolve", &format!("localhost:{plain}=127.0.0.1"))
        .flag("--resolve", &format!("localhost:{secure}=127.0.0.1"))
        .flag("--allow-address", "127.0.0.1/32")
        .start();
    let sidecar_ca = sidecar.ca().display().to_string();
    let proxy = sidecar.http.to_string();
    let ended = process::run(&mut python(&[
        "compare",
        &proxy,
        &sidecar_ca,
        &ca,
        &plain,
        &secure,
    ]));
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    assert_eq!(
        ended.out,
        "6 clients, 1051 answers, 0 differences\n",
        "{}\n{}",
        ended.err,
        sidecar.log()
    );
}
