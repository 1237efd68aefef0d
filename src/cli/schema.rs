//! `config schema`, `config default`: what a configuration file may say.

use std::io;

use clap::Subcommand;

use crate::config;

use super::{Streams, exit};

/// What about the configuration file.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print the annotated default configuration file
    Default,
}

pub(super) fn schema(verb: &Verb, streams: &mut Streams<'_>) -> io::Result<u8> {
    match verb {
        Verb::Schema => {
            let schema = config::schema();
            serde_json::to_writer_pretty(&mut *streams.out, &schema)?;
            writeln!(streams.out)?;
        }
        Verb::Default => streams.out.write_all(config::ANNOTATED.as_bytes())?,
    }
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_schema_is_the_schema() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            out: &mut out,
            err: &mut err,
        };
        assert_eq!(schema(&Verb::Schema, &mut streams).unwrap(), exit::OK);
        let printed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(printed, config::schema());
    }
}
