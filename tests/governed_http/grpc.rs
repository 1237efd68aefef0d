//! gRPC through the sidecar, with the client and server that most programs have.

use crate::clients::{python_of_tests, script};
use crate::support::authority::{Authority, Dates};
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process::{self, Ended, Running};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

pub(crate) struct World {
    sidecar: Sidecar,
    server: Running,
    authority: String,
    ca: String,
}

fn python() -> std::process::Command {
    let mut command = process::command(&python_of_tests().display().to_string());
    command.arg(script("grpc_calls.py"));
    command
}

impl World {
    fn new() -> Self {
        Self::with(Setup::new())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let authority = Authority::new();
        let setup = setup.policy(AS_THE_PATH_SAYS).trust(&authority);
        let (certificate, key) = authority.pair("secure.test", Dates::Current);
        let certificate = setup.write("origin.pem", &certificate);
        let key = setup.write("origin.key", &key);
        let server = Running::start(python().args(["serve", &certificate, &key]));
        let port: u16 = until("the server's port", || {
            server.out().lines().next()?.parse().ok()
        });
        let authority = format!("secure.test:{port}");
        let sidecar = setup
            .flag("--resolve", &format!("{authority}=127.0.0.1"))
            .flag("--allow-address", "127.0.0.1/32")
            .start();
        let ca = sidecar.ca().display().to_string();
        Self {
            sidecar,
            server,
            authority,
            ca,
        }
    }

    fn client(&self, case: &str) -> std::process::Command {
        let mut command = python();
        command
            .args(["call", &self.authority, &self.ca, case])
            .env("http_proxy", format!("http://{}", self.sidecar.http))
            .env_remove("no_proxy");
        command
    }

    pub(crate) fn found(&self, case: &str) -> Vec<String> {
        lines(&process::run(&mut self.client(case)))
    }

    /// Calls of `method` that reached the server.
    pub(crate) fn reached(&self, method: &str) -> usize {
        self.server
            .out()
            .lines()
            .filter(|line| *line == method)
            .count()
    }
}

fn lines(ended: &Ended) -> Vec<String> {
    assert!(ended.status.success(), "{}\n{}", ended.out, ended.err);
    ended.out.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn calls_of_all_kinds_pass_with_their_trailers_and_deadlines() {
    let world = World::new();
    let expected = [
        "b'heard hello'",
        "FAILED_PRECONDITION: as asked: 100 %",
        "b'heard xxxxxxxxxxxxxxxxxxxx'",
        "b'heard a' yes",
        "b'3000000 in 300'",
        "790000",
        "DEADLINE_EXCEEDED",
    ];
    assert_eq!(world.found("allowed"), expected);
    until("the call to be there", || (world.reached("/calls/one") >= 5).then_some(()));
    assert_eq!(world.reached("/calls/one"), 5);
}

#[test]
fn messages_of_a_stream_go_on_one_by_one_in_both_directions() {
    assert_eq!(World::new().found("in_turns"), ["20 heard 19"]);
}

#[test]
fn a_refusal_is_permission_denied_with_its_reason_and_the_connection_goes_on() {
    let world = World::new();
    let found = world.found("refused");
    let [single, stream, then] = found.as_slice() else {
        panic!("{found:?}");
    };
    for refused in [single, stream] {
        assert!(refused.starts_with("PERMISSION_DENIED: "), "{refused}");
        assert!(refused.contains("the test says block"), "{refused}");
    }
    assert_eq!(then, "b'heard hello'");
    assert_eq!(world.reached("/started/block"), 0);
}

#[test]
fn a_call_is_held_until_a_person_decides() {
    let world = World::new();
    let waiting = Running::start(&mut world.client("held"));
    let approval = world.sidecar.pending_approval();
    assert_eq!(world.reached("/started/require_approval"), 0);
    world.sidecar.approve(&approval);
    assert_eq!(lines(&waiting.ended()), ["b'heard hello'"]);
    until("the call to be there", || (world.reached("/started/require_approval") >= 1).then_some(()));
    assert_eq!(world.reached("/started/require_approval"), 1);
}
