//! httpbin tells clients the same through the sidecar, which allows everything, as it does directly.

use crate::clients::{python_of_tests, script};
use crate::own_servers::compared;
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
    compared(
        Setup::new(),
        served,
        |places| python(&[&["compare"], places].concat()),
        "6 clients, 1051 answers, 0 differences\n",
    );
}
