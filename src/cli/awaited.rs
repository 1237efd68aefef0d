//! `await`: a command that begins once the sidecar is ready, for pods whose Kubernetes does not order their containers,
//! and that may end the sidecar by ending.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Source;
use crate::process::end_file;

use super::child::{self, Signals};
use super::{Streams, exit, health, runtime};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// For which sidecar, how long, and then what.
#[derive(clap::Args, Debug)]
#[group(id = "awaited")]
pub(super) struct Args {
    #[command(flatten)]
    sidecar: health::Args,
    /// Longest wait, seconds; then the command does not begin
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    within: u32,
    /// File to leave once the command has ended, however it did: it ends a sidecar whose `end_file` it is
    #[arg(long, value_name = "PATH")]
    end_file: Option<PathBuf>,
    /// What begins then, in the place of this process unless it leaves a file, with the environment it was given
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn awaited(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let ended = begun(args, env, streams);
    // Whatever became of the command: who waits for its end waits for this.
    if let Some(path) = &args.end_file
        && let Err(error) = end_file::leave(path)
    {
        let path = path.display();
        writeln!(
            streams.err,
            "openbox-sidecar: {path} cannot be left: {error}"
        )?;
    }
    ended
}

fn begun(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let address = match health::listener(&args.sidecar, env, streams)? {
        Ok(address) => address,
        Err(code) => return Ok(code),
    };
    if let Err(why) = ready(address, Duration::from_secs(args.within.into())) {
        writeln!(
            streams.err,
            "openbox-sidecar: the sidecar at {address} is not ready after {} s ({why}); the command was not begun",
            args.within
        )?;
        return Ok(exit::FAILED);
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Ok(exit::FAILED);
    };
    let error = match &args.end_file {
        // Comes back only where it cannot be done.
        None => Command::new(program).args(arguments).exec(),
        Some(_) => match runtime::block_on(ended(&args.command))? {
            Ok(code) => return Ok(code),
            Err(error) => error,
        },
    };
    writeln!(
        streams.err,
        "openbox-sidecar: cannot begin {}: {error}",
        program.display()
    )?;
    if error.kind() == io::ErrorKind::NotFound {
        return Ok(exit::NOT_FOUND);
    }
    Ok(exit::NOT_EXECUTABLE)
}

/// Runs the command to its end, passing signals on.
async fn ended(command: &[OsString]) -> io::Result<u8> {
    let mut signals = Signals::install()?;
    let mut child = child::spawn(command, Vec::new())?;
    let status = child::supervise(&mut child, &mut signals, std::future::pending()).await?;
    Ok(child::code_of(status))
}

/// Waits until the sidecar says that it is ready.
///
/// # Errors
/// It does not within `within`; what it said last.
fn ready(address: SocketAddr, within: Duration) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let said = match health::ask(address) {
            Ok((200, _)) => return Ok(()),
            Ok((_, body)) => body.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= within {
            return Err(said);
        }
        std::thread::sleep(PAUSE);
    }
}
