//! `doctor`: what does not go through the sidecar, why that matters, and what to set.
//!
//! It looks and changes nothing. Clients that it begins ask for the canary alone, which the sidecar answers
//! itself: no request of theirs leaves the machine.

mod ask;
mod bypass;
mod databases;
mod finding;
mod kernel;
mod names;
mod probes;
mod processes;
mod services;
mod sidecar;
mod variables;
mod watch;

use std::ffi::OsString;
use std::io;

use crate::config::Source;

use super::{Streams, exit, runtime};

pub(super) use sidecar::parts_of;
pub(super) use variables::without_login;

use finding::Report;
use sidecar::Sidecar;

/// It could not be looked: there is no sidecar, or none that answers.
const NOT_LOOKED: u8 = 2;

/// Where to look, and how.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Configuration file of the sidecar [env: OPENBOX_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<String>,
    /// State folder of the sidecar [env: OPENBOX_STATE_DIR; key: state_dir]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Where its HTTP proxy listens, if neither the environment nor the state folder tells [env: OPENBOX_HTTP_LISTEN; key: listen.http]
    #[arg(long, value_name = "ADDR:PORT")]
    http_listen: Option<String>,
    /// Begin no clients to see whether they come through
    #[arg(long)]
    no_probes: bool,
    /// Write what was found as JSON
    #[arg(long)]
    json: bool,
    /// A command to run meanwhile; where its processes connect to is told when it has ended
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn doctor(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let parent: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let sidecar = match sidecar::find(args, env, &parent) {
        Ok(sidecar) => sidecar,
        Err(asked) => {
            writeln!(streams.err, "openbox-sidecar: {asked}")?;
            return Ok(NOT_LOOKED);
        }
    };
    let mut report = Report::new(&sidecar);
    look(&sidecar, &parent, &mut report);
    let looked = runtime::block_on(look_on(args, &parent, &sidecar, &mut report, streams))?;
    if let Err(error) = looked {
        let program = args.command.first().map(|name| name.to_string_lossy());
        let program = program.unwrap_or_default();
        writeln!(
            streams.err,
            "openbox-sidecar: {program} cannot be run: {error}"
        )?;
        return Ok(NOT_LOOKED);
    }
    if args.json {
        writeln!(streams.out, "{:#}", report.json())?;
    } else {
        write!(streams.out, "{report}")?;
    }
    Ok(if report.is_clean() {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// What is to be seen without beginning anything.
fn look(sidecar: &Sidecar, parent: &[(OsString, OsString)], report: &mut Report) {
    variables::look(sidecar, parent, report);
    bypass::look(parent, report);
    databases::look(sidecar, parent, report);
    services::look(sidecar, parent, report);
    kernel::look(sidecar, report);
}

/// What takes a while.
async fn look_on(
    args: &Args,
    parent: &[(OsString, OsString)],
    sidecar: &Sidecar,
    report: &mut Report,
    streams: &mut Streams<'_>,
) -> io::Result<()> {
    if !args.no_probes {
        probes::look(sidecar, parent, report).await;
    }
    if args.command.is_empty() {
        processes::look(sidecar, report);
        return Ok(());
    }
    // The command writes as it would without us.
    streams.out.flush()?;
    watch::look(&args.command, args.json, sidecar, report).await
}
