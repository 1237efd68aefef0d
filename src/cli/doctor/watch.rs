//! A command that runs while it is looked where its processes connect to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval};

use crate::net::caller;
use crate::net::connections::{Connection, Connections};

use super::super::child::{self, Signals};
use super::finding::{Finding, Report, Weight};
use super::processes::{self, Stands};
use super::sidecar::Sidecar;

/// Between two looks. What is opened and closed in between is not seen.
const EVERY: Duration = Duration::from_millis(50);
/// Most processes of the command that are remembered, and most findings.
const PROCESSES_MAX: usize = 4096;
const FINDINGS_MAX: usize = 50;

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// The command's processes, also those whose parents have ended.
    processes: BTreeSet<u32>,
    connections: BTreeSet<Connection>,
    /// As they were called then.
    findings: Vec<Finding>,
    unseen: Option<io::Error>,
}

/// Runs `command` in this environment to its end, and adds what was seen.
///
/// # Errors
/// It cannot be started, or its end cannot be waited for.
pub(super) async fn look(
    command: &[OsString],
    json: bool,
    sidecar: &Sidecar,
    report: &mut Report,
) -> io::Result<()> {
    let mut signals = Signals::install()?;
    let mut child = begun(command, json)?;
    let mut seen = Seen::default();
    seen.processes.extend(child.id());
    let ended = {
        let mut end = std::pin::pin!(child::supervise(
            &mut child,
            &mut signals,
            std::future::pending()
        ));
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = &mut end => break ended?,
                _ = tick.tick() => seen.look(sidecar),
            }
        }
    };
    let code = child::code_of(ended);
    if code != 0 {
        report.add(Finding {
            weight: Weight::Note,
            code: "command_failed",
            what: format!("the command ended with status {code}"),
            why: "what it did not get to do was not seen".to_owned(),
            set: vec!["see what it said".to_owned()],
        });
    }
    for finding in seen.findings {
        report.add(finding);
    }
    if let Some(error) = seen.unseen {
        report.add(processes::unseen(&error.to_string()));
    }
    Ok(())
}

fn begun(command: &[OsString], json: bool) -> io::Result<tokio::process::Child> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    if json {
        // Standard output is the report's.
        command.stdout(Stdio::from(io::stderr()));
    }
    command.spawn()
}

impl Seen {
    fn look(&mut self, sidecar: &Sidecar) {
        let known = std::mem::take(&mut self.processes);
        let now = Connections::now(|id| {
            known.contains(&id)
                || caller::lineage(id)
                    .iter()
                    .any(|one| known.contains(&one.id))
        });
        self.processes = known;
        let now = match now {
            Ok(now) => now,
            Err(error) => {
                self.unseen = Some(error);
                return;
            }
        };
        for process in now.processes() {
            if self.processes.len() < PROCESSES_MAX {
                self.processes.insert(process);
            }
        }
        let stands = match sidecar.captures() {
            true => Stands::Captured,
            false => Stands::Agent,
        };
        let leading = now.leading_off().into_iter();
        for connection in leading.filter(|one| !sidecar.listens_at(one.remote)) {
            if self.findings.len() < FINDINGS_MAX && self.connections.insert(connection) {
                self.findings.push(processes::finding(&connection, stands));
            }
        }
    }
}
