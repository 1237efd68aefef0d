//! `run -- CMD`: a command of the user's, governed from its first request to its last.

use std::ffi::OsString;
use std::io;

use crate::app::environment::{Environment, databases, leg};
use crate::app::{self, Bound, StartError};
use crate::config::{self, Config, For, Source};
use crate::process::{drain, spawn_named};

use super::banner::{Banner, Mode, Summary};
use super::child::{self, Signals};
use super::{Shared, Streams, around, dumps, exit, logs, report, runtime};

/// What `run` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,

    /// Say nothing but errors: no banner, no summary
    #[arg(short, long)]
    quiet: bool,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How far a run came.
enum Ran {
    Ended(u8),
    NotStarted(StartError),
    NotSpawned(io::Error),
}

pub(super) fn run(args: Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let config = match config::check(&args.shared.flags(), env, For::Run) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    if logs::install(&config.log).is_err() {
        writeln!(streams.err, "openbox-sidecar: logs go elsewhere already")?;
    }
    dumps::forbid();
    report::warnings(&config, streams)?;
    if let Some(complaint) = around::complaint(&config, env) {
        writeln!(streams.err, "openbox-sidecar: warning: {complaint}")?;
    }
    let work = governed(config.clone(), &args, streams);
    match runtime::block_on(work)?? {
        Ran::Ended(code) => Ok(code),
        Ran::NotStarted(error) => report::start_error(&error, streams),
        Ran::NotSpawned(error) => {
            let program = args.command.first().map(|name| name.to_string_lossy());
            let program = program.unwrap_or_default();
            writeln!(
                streams.err,
                "openbox-sidecar: {program} cannot be started: {error}"
            )?;
            Ok(if error.kind() == io::ErrorKind::NotFound {
                exit::NOT_FOUND
            } else {
                exit::NOT_EXECUTABLE
            })
        }
    }
}

async fn governed(config: Config, args: &Args, streams: &mut Streams<'_>) -> io::Result<Ran> {
    let mode = Mode::from(&config.policy);
    let mut signals = Signals::install()?;
    let bound = match app::bind(config, For::Run).await {
        Ok(bound) => bound,
        Err(error) => return Ok(Ran::NotStarted(error)),
    };
    let view = bound.view();
    if !args.quiet {
        write!(streams.err, "{}", Banner { view: &view, mode })?;
    }
    let ran = beside(bound, args, &mut signals).await;
    if !args.quiet {
        if let Some(reason) = view.halted() {
            writeln!(streams.err, "openbox-sidecar: halted: {reason}")?;
        }
        let summary = Summary {
            tally: view.gate.tally(),
            journal: &view.journal,
        };
        write!(streams.err, "{summary}")?;
    }
    Ok(ran)
}

/// Runs the command beside the sidecar, which serves until the command ends.
async fn beside(bound: Bound, args: &Args, signals: &mut Signals) -> Ran {
    let view = bound.view();
    let environment = Environment {
        http: view.addresses.http,
        agent: view.addresses.agent,
        agent_socket: view.addresses.agent_socket.clone(),
        databases: databases(
            (&view.postgres, leg(view.postgres_tls.as_ref())),
            (&view.mysql, leg(view.mysql_tls.as_ref())),
            &view.redis,
        ),
        token: view.agent_token.clone(),
        state_dir: view.state_dir.clone(),
    };
    let (trigger, drain) = drain::channel();
    let (end, ended) = drain::channel();
    let serving = spawn_named("sidecar", async move {
        bound.run(drain).await;
        end.begin();
    });
    let ran = match child::spawn(&args.command, environment.changes()) {
        Err(error) => Ran::NotSpawned(error),
        Ok(mut child) => {
            let mut ended = ended;
            // The operator can end the sidecar, and the command with it.
            let halted = async {
                tokio::select! {
                    reason = view.until_halted() => drop(reason),
                    () = ended.begun() => {}
                }
            };
            match child::supervise(&mut child, signals, halted).await {
                // A halt is told even where the command ended by itself first.
                Ok(_) if view.halted().is_some() => Ran::Ended(exit::HALTED),
                Ok(status) => Ran::Ended(child::code_of(status)),
                Err(error) => Ran::NotSpawned(error),
            }
        }
    };
    trigger.begin();
    if let Err(error) = serving.await {
        tracing::error!(%error, "the sidecar did not end in good order");
    }
    ran
}
