//! The command that `run` governs: started, told of signals, ended when its run is halted.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal as Number, getpgrp, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::app::child_env::Change;

/// How long a halted command may take to end by itself.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// Starts `command` with the changed environment, in our process group, so
/// that the terminal treats it as it would without us.
///
/// # Errors
/// There is no such command, or it cannot be executed.
pub(super) fn spawn(command: &[OsString], changes: Vec<Change>) -> io::Result<Child> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let mut child = Command::new(program);
    child.args(arguments).kill_on_drop(true);
    for Change { name, value } in changes {
        match value {
            Some(value) => child.env(name, value),
            None => child.env_remove(name),
        };
    }
    child.spawn()
}

/// The signals that are the command's business as well as ours.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes them over; they no longer end this process.
    ///
    /// # Errors
    /// The system does not let us install a handler.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal that the command did not get itself. Cancel-safe.
    async fn next(&mut self) -> Number {
        loop {
            let (number, by_terminal) = tokio::select! {
                _ = self.terminate.recv() => (Number::TERM, false),
                _ = self.interrupt.recv() => (Number::INT, true),
                _ = self.hang_up.recv() => (Number::HUP, true),
            };
            // Ctrl-C and a closed terminal reach the whole foreground group,
            // the command included; twice would be once too often.
            if !by_terminal || !in_foreground() {
                return number;
            }
        }
    }
}

/// Whether our process group is the foreground group of a terminal that one
/// of our streams is.
fn in_foreground() -> bool {
    let groups = [
        rustix::termios::tcgetpgrp(io::stdin()),
        rustix::termios::tcgetpgrp(io::stdout()),
        rustix::termios::tcgetpgrp(io::stderr()),
    ];
    groups.into_iter().flatten().any(|group| group == getpgrp())
}

/// Waits until the child has ended, passing signals on; once `halted`
/// resolves, the child gets SIGTERM, and SIGKILL when that does not end it.
///
/// # Errors
/// The system cannot say how the child ended.
pub(super) async fn supervise(
    child: &mut Child,
    signals: &mut Signals,
    halted: impl Future<Output = ()>,
) -> io::Result<ExitStatus> {
    let mut halted = std::pin::pin!(halted);
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            status = child.wait() => return status,
            number = signals.next() => send(child, number),
            () = &mut halted, if kill_at.is_none() => {
                send(child, Number::TERM);
                kill_at = Some(after_now(KILL_AFTER));
            }
            () = until(kill_at) => {
                tracing::warn!("the command did not end on SIGTERM");
                child.start_kill()?;
                return child.wait().await;
            }
        }
    }
}

fn after_now(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or(now)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn send(child: &Child, number: Number) {
    // `None` once it has been waited for: the id may be another process's.
    let id = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id
        && let Err(error) = kill_process(id, number)
    {
        tracing::warn!(%error, "the command cannot be signalled");
    }
}

/// The exit code that tells how the child ended, as shells have it.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Child {
        let command = ["sh", "-c", script].map(OsString::from);
        spawn(&command, Vec::new()).unwrap()
    }

    async fn ended(script: &str) -> u8 {
        let mut signals = Signals::install().unwrap();
        let status = supervise(&mut sh(script), &mut signals, std::future::pending()).await;
        code_of(status.unwrap())
    }

    #[tokio::test]
    async fn the_exit_code_is_the_commands_own() {
        assert_eq!(ended("exit 3").await, 3);
        assert_eq!(ended("kill -TERM $$").await, 143);
        assert_eq!(ended("kill -KILL $$").await, 137);
    }

    #[tokio::test]
    async fn a_halt_ends_the_command_with_sigterm() {
        let mut child = sh("trap 'exit 9' TERM; while :; do sleep 0.01; done");
        let mut signals = Signals::install().unwrap();
        // The trap may not be set yet: then SIGTERM ends it, which is as good.
        let status = supervise(&mut child, &mut signals, std::future::ready(())).await;
        assert!([9, 143].contains(&code_of(status.unwrap())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        // exec: the ignored signal stays ignored, and nothing is left behind.
        let script = format!("trap '' TERM; : > {}; exec sleep 60", ready.display());
        let mut child = sh(&script);
        let mut signals = Signals::install().unwrap();
        while !ready.exists() {
            tokio::task::yield_now().await;
        }
        let status = supervise(&mut child, &mut signals, std::future::ready(())).await;
        assert_eq!(status.unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn variables_are_set_and_taken_out() {
        let command = ["sh", "-c", "test \"$ADDED\" = x && test -z \"${HOME+set}\""];
        let change = |name: &str, value: Option<&str>| Change {
            name: name.into(),
            value: value.map(Into::into),
        };
        let changes = vec![change("ADDED", Some("x")), change("HOME", None)];
        let mut child = spawn(&command.map(OsString::from), changes).unwrap();
        assert_eq!(code_of(child.wait().await.unwrap()), 0);
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_not_found() {
        let error = spawn(&["/nonexistent/x".into()], Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
