//! Programs that tests start: their output read by threads, their end waited
//! for within limits, and killed when the test is over.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use tokio::time::Instant;

use super::{PATIENCE, until_within};

/// A program that runs.
pub(crate) struct Running {
    pub(crate) child: Killed,
    out: Output,
    err: Output,
}

/// What a program says on one stream.
struct Output {
    pipe: OwnedFd,
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn of(stream: impl Into<OwnedFd>) -> Self {
        let pipe = stream.into();
        let mut from = File::from(pipe.try_clone().unwrap());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let to = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 8_192];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                to.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Self {
            pipe,
            bytes,
            reader,
        }
    }

    /// All that has been said. What stands in the pipe has been, and its reader may wait for a processor.
    fn text(&self) -> String {
        let until = Instant::now() + Duration::from_secs(1);
        while ioctl_fionread(&self.pipe).is_ok_and(|left| left > 0) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// The same, once nobody can say anything more.
    fn whole(self) -> String {
        self.reader.join().unwrap();
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
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
        let out = Output::of(child.stdout.take().unwrap());
        let err = Output::of(child.stderr.take().unwrap());
        Self {
            child: Killed(child),
            out,
            err,
        }
    }

    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    pub(crate) fn err(&self) -> String {
        self.err.text()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        // The SDKs alone take seconds to be imported, and some do a thousand things one after the other.
        let within = 15 * PATIENCE;
        let status = until_within(within, "a program to end", || self.has_ended());
        Ended {
            status,
            out: self.out.whole(),
            err: self.err.whole(),
        }
    }
}

pub(crate) fn signal(process: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status();
    assert!(sent.unwrap().success(), "{name} could not be sent");
}

/// A program that does not outlive its test.
pub(crate) struct Killed(Child);

impl Killed {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
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
