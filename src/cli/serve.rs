//! `serve`: a sidecar that others connect to, until SIGTERM or SIGINT.

use std::io;

use crate::app::{self, StartError};
use crate::config::{self, Config, For, Source};
use crate::process::signals::Termination;
use crate::process::{drain, spawn_named};

use super::{Shared, Streams, around, dumps, exit, logs, privileges, report, runtime};

/// What `serve` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,
}

pub(super) fn serve(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let config = match config::check(&args.shared.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    if logs::install(&config.log).is_err() {
        writeln!(streams.err, "openbox-sidecar: logs go elsewhere already")?;
    }
    dumps::forbid();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(complaint) = around::complaint(&config, env) {
        tracing::warn!("{complaint}");
    }
    if let Some(complaint) = privileges::complaint() {
        tracing::warn!("{complaint}");
    }
    match runtime::block_on(until_told(config.clone()))? {
        Ok(()) => Ok(exit::OK),
        Err(error) => report::start_error(&error, streams),
    }
}

async fn until_told(config: Config) -> Result<(), StartError> {
    let mut termination = Termination::install().map_err(StartError::internal)?;
    let bound = app::bind(config, For::Serve).await?;
    let view = bound.view();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        policy = view.policy,
        on_outage = view.fail_mode,
        listening = %view.addresses,
        state_dir = %view.state_dir.display(),
        "serving"
    );
    let (trigger, drain) = drain::channel();
    let told = spawn_named("signals", async move {
        let signal = termination.next().await;
        tracing::info!(signal, "stopping");
        trigger.begin();
        // A second one does not wait for open connections: the trigger lives
        // until then, and the process ends with the first that is done.
        termination.next().await
    });
    tokio::select! {
        () = bound.run(drain) => {}
        _ = told => tracing::warn!("stopping at once"),
    }
    Ok(())
}
