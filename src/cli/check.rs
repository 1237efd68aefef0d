//! `check`: every problem of a configuration at once, without starting anything.

use std::io;

use crate::app;
use crate::config::{self, For, Source};

use super::{Shared, Streams, exit, report};

/// What `check` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,
}

pub(super) fn check(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let config = match config::check(&args.shared.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    report::warnings(&config, streams)?;
    // What only loading tells: syntax errors of policies, with file and line.
    match app::check_policy(&config.policy) {
        Ok(policy) => {
            writeln!(streams.out, "the configuration is good: {policy}")?;
            Ok(exit::OK)
        }
        Err(error) => report::start_error(&error, streams),
    }
}
