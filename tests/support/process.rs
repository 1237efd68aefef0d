//! Programs that tests start: their output read by threads, their end waited
//! for within limits, and killed when the test is over.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::{PATIENCE, until_within};

/// A program that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!("{:?} cannot be started: {error}", command.get_program())
        });
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            read_into(child.stdout.take().unwrap(), &out),
            read_into(child.stderr.take().unwrap(), &err),
        ];
        Self {
            child,
            out,
            err,
            readers,
        }
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().unwrap()).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        // The SDKs alone take seconds to be imported.
        let within = 3 * PATIENCE;
        let status = until_within(within, "a program to end", || self.has_ended());
        for reader in std::mem::take(&mut self.readers) {
            reader.join().unwrap();
        }
        Ended {
            status,
            out: self.out(),
            err: self.err(),
        }
    }
}

pub(crate) fn signal(process: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(sent.unwrap().success(), "{name} could not be sent");
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn read_into(
    mut from: impl Read + Send + 'static,
    to: &Arc<Mutex<Vec<u8>>>,
) -> std::thread::JoinHandle<()> {
    let to = to.clone();
    std::thread::spawn(move || {
        let mut piece = [0; 8_192];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            to.lock().unwrap().extend_from_slice(&piece[..read]);
        }
    })
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    Running::start(command).ended()
}

/// A command with nothing of our environment that could matter to it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for (name, value) in std::env::vars_os() {
        let kept = ["PATH", "HOME", "LANG", "TMPDIR", "PYENV_ROOT"];
        if name.to_str().is_some_and(|name| kept.contains(&name)) {
            command.env(name, value);
        }
    }
    command
}
