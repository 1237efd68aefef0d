//! `identity`: who the agent is to OpenBox Core.

use std::io;

use clap::Subcommand;

use crate::app;
use crate::config::{self, For, Source};
use crate::policy::core::Prepared;

use super::runtime::block_on;
use super::{Shared, Streams, exit, report};

/// What about identities.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Prove to Core that the key that is configured here is held, before the agent is changed to it
    ///
    /// Configure the identity that the agent is to have, not the one it has.
    /// Nothing becomes active by the proof.
    Prove {
        /// Id of the transition, as OpenBox shows it
        #[arg(long, value_name = "ID")]
        transition: String,
        /// Its challenge; a transition to a workload identity has none
        #[arg(long, value_name = "TEXT")]
        challenge: Option<String>,
        #[command(flatten)]
        shared: Box<Shared>,
    },
}

pub(super) fn identity(verb: &Verb, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let Verb::Prove {
        transition,
        challenge,
        shared,
    } = verb;
    let config = match config::check(&shared.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    report::warnings(&config, streams)?;
    let prepared = Prepared {
        id: transition.clone(),
        challenge: challenge.clone(),
    };
    match block_on(app::prove(&config, &prepared))? {
        Ok(said) => {
            writeln!(streams.out, "proved: {said}")?;
            Ok(exit::OK)
        }
        Err(error) => report::start_error(&error, streams),
    }
}
