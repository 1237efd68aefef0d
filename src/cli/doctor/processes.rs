//! Processes that are connected past the sidecar.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::app::child_env::Purpose;
use crate::net::caller;
use crate::net::connections::{Connection, Connections, Transport};

use super::super::operator_client::shown;
use super::finding::{CAPTURED, Finding, Report, Weight};
use super::sidecar::Sidecar;

/// Most of a process's environment that is read, bytes.
const ENVIRONMENT_BYTES_MAX: u64 = 1 << 20;
/// Most of its command that is read, bytes, and shown, characters.
const COMMAND_BYTES_MAX: u64 = 4096;
const SHOWN_MAX: usize = 60;
/// Most of those that may be nobody's business that are told.
const NOTES_MAX: usize = 10;

/// Why it matters that the agent goes past the sidecar.
const UNGOVERNED: &str = "what it asks there is neither judged nor recorded";

/// What is open now, of every process that we may look at. Those of the agent (led to the sidecar by their
/// variables or by those of a parent, or its children under `run`) must go through it; others may be anything.
pub(super) fn look(sidecar: &Sidecar, report: &mut Report) {
    let now = match Connections::now(|_| true) {
        Ok(now) => now,
        Err(error) => {
            report.add(unseen(&error.to_string()));
            return;
        }
    };
    let sidecars = now.listeners_at(sidecar.proxy);
    let mut others = 0_usize;
    for connection in now.leading_off() {
        // What it is asked itself goes nowhere past it.
        if sidecar.listens_at(connection.remote) {
            continue;
        }
        let line = caller::lineage(connection.process);
        let ids: Vec<u32> = line.iter().map(|process| process.id).collect();
        if sidecars.contains(&connection.process) || ids.contains(&std::process::id()) {
            continue;
        }
        let is_of_agent = ids
            .iter()
            .any(|id| sidecars.contains(id) || is_led(*id, sidecar));
        if !is_of_agent {
            others = others.saturating_add(1);
            if others > NOTES_MAX {
                continue;
            }
        }
        let stands = match (sidecar.captures(), is_of_agent) {
            (true, _) => Stands::Captured,
            (false, true) => Stands::Agent,
            (false, false) => Stands::Other,
        };
        report.add(finding(&connection, stands));
    }
}

/// How a process that leads off this machine stands to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// It is the agent's, so it must go through.
    Agent,
    /// It may be anybody's.
    Other,
    /// The kernel is to lead it there. The system's tables show where it meant to go, led or not.
    Captured,
}

/// That a process leads off this machine, past the sidecar as far as can be seen.
pub(super) fn finding(connection: &Connection, stands: Stands) -> Finding {
    let Connection {
        process,
        transport,
        remote,
    } = connection;
    let by = match transport {
        Transport::Tcp => "",
        Transport::Udp => " by UDP",
    };
    let (weight, code, past) = match stands {
        Stands::Agent => (Weight::Finding, "process_past", " past the sidecar"),
        Stands::Other => (Weight::Note, "process_elsewhere", " past the sidecar"),
        Stands::Captured => (
            Weight::Note,
            "process_captured",
            ", whatever its variables say",
        ),
    };
    let (why, set) = reasons(*transport, stands);
    Finding {
        weight,
        code,
        what: format!(
            "process {process} ({}) is connected to {remote}{by}{past}",
            called(*process)
        ),
        why: why.to_owned(),
        set: vec![set.to_owned()],
    }
}

/// Why it matters, and what to do.
fn reasons(transport: Transport, stands: Stands) -> (&'static str, &'static str) {
    match (stands, transport) {
        (Stands::Agent, Transport::Udp) => (
            UNGOVERNED,
            "the sidecar carries no UDP; switch HTTP/3 (QUIC) off in the program",
        ),
        (Stands::Agent, Transport::Tcp) => (
            UNGOVERNED,
            "have that program heed its proxy variables, or the kernel lead it: openbox-sidecar init-net",
        ),
        (Stands::Other, _) => (
            "no variable of its own or of a parent names the sidecar; if it is part of the agent, it is not governed",
            "begin it in the environment that `openbox-sidecar env` prints, or under `openbox-sidecar run`",
        ),
        (Stands::Captured, Transport::Tcp) => (
            CAPTURED,
            "see whether the sidecar's journal has what it asks (openbox-sidecar tail)",
        ),
        (Stands::Captured, Transport::Udp) => (
            "the rules of init-net, where they are there, have the kernel refuse UDP",
            "the sidecar carries no UDP; switch HTTP/3 (QUIC) off in the program",
        ),
    }
}

/// That connections cannot be seen here.
pub(super) fn unseen(why: &str) -> Finding {
    Finding {
        weight: Weight::Note,
        code: "connections_unseen",
        what: format!("which connections are open cannot be seen: {why}"),
        why: "a program that is connected past the sidecar would not be found".to_owned(),
        set: vec!["look on Linux, in the agent's container, as its user".to_owned()],
    }
}

/// Whether the variables that a process began with name this sidecar as its proxy.
fn is_led(id: u32, sidecar: &Sidecar) -> bool {
    let Some(environment) = start_of(&format!("/proc/{id}/environ"), ENVIRONMENT_BYTES_MAX) else {
        return false;
    };
    environment.split(|byte| *byte == 0).any(|variable| {
        let Ok(variable) = std::str::from_utf8(variable) else {
            return false;
        };
        let Some((name, value)) = variable.split_once('=') else {
            return false;
        };
        Purpose::of(name) == Some(Purpose::Proxy) && sidecar.is_named_by(value)
    })
}

/// A process's program, and its script if it has one: what else it was told may be a secret.
fn called(id: u32) -> String {
    let command = start_of(&format!("/proc/{id}/cmdline"), COMMAND_BYTES_MAX).unwrap_or_default();
    let mut words = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    let base = |word: &[u8]| {
        let path = OsString::from_vec(word.to_vec());
        let name = Path::new(&path)
            .file_name()
            .unwrap_or(&path)
            .to_string_lossy();
        name.chars().take(SHOWN_MAX).collect::<String>()
    };
    let program = words.next().map(base);
    let script = words.next().filter(|word| {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"./_-".contains(byte);
        !word.starts_with(b"-") && word.contains(&b'.') && word.iter().all(is_plain)
    });
    match (program, script.map(base)) {
        (Some(program), Some(script)) => shown(&format!("{program} {script}")),
        (Some(program), None) => shown(&program),
        (None, _) => fs::read_to_string(format!("/proc/{id}/comm"))
            .map_or_else(|_| "it has ended".to_owned(), |name| shown(name.trim())),
    }
}

fn start_of(path: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    let file = File::open(path).ok()?;
    file.take(bytes_max).read_to_end(&mut start).ok()?;
    Some(start)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_called_by_its_program_and_script_and_nothing_else_that_it_was_told() {
        for (words, expected) in [
            (&["-c", "sleep 60; :"][..], "sh"),
            (&["/dev/stdin", "--key=secret"][..], "sh"),
        ] {
            let mut child = Command::new("sh")
                .args(words)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // It is called what we are until it is executed.
            let mut name = called(child.id());
            for _ in 0..2_000 {
                if name == expected {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
                name = called(child.id());
            }
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(name, expected);
        }
    }
}
