//! `check`: every problem of a configuration at once, without starting anything;
//! and what it says of one request.

use std::io;

use clap::Subcommand;

use crate::app;
use crate::config::{self, For, Source};

use super::{Shared, Streams, check_http, exit, report};

/// What `check` is told.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    about: Option<About>,
    #[command(flatten)]
    shared: Shared,
}

/// What to look at closer.
#[derive(Debug, Subcommand)]
enum About {
    /// Show which route fits a request, what holds for it, and its verdict
    Http(Box<check_http::Args>),
}

pub(super) fn check(args: &Args, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    if let Some(About::Http(args)) = &args.about {
        return check_http::check(args, env, streams);
    }
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
