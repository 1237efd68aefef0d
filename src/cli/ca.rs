//! `ca path`: where the certificate of this sidecar's authority is.

use std::io;

use clap::Subcommand;

use crate::config::{self, Flags, For, Source};

use super::{Streams, exit, report};

/// What about the authority.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print the path of the public certificate, PEM
    Path(Args),
}

/// Which sidecar.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Configuration file [env: OPENBOX_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<String>,
    /// State folder of the sidecar [env: OPENBOX_STATE_DIR; key: state_dir]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        if let Some(file) = &self.config {
            flags.push("--config", file.clone());
        }
        if let Some(folder) = &self.state_dir {
            flags.push("--state-dir", folder.clone());
        }
        flags
    }
}

pub(super) fn ca(verb: &Verb, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let Verb::Path(args) = verb;
    let config = match config::check(&args.flags(), env, For::Serve) {
        Ok(config) => config,
        Err(problems) => return report::problems(&problems, streams),
    };
    let path = config.state_dir.join("ca.pem");
    if !path.is_file() {
        writeln!(
            streams.err,
            "openbox-sidecar: {} does not exist: no sidecar has been started with this state folder; \
             name its folder with --state-dir",
            path.display()
        )?;
        return Ok(exit::FAILED);
    }
    writeln!(streams.out, "{}", path.display())?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_printed_only_when_there_is_something_there() {
        let folder = tempfile::tempdir().unwrap();
        let ask = || {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let verb = Verb::Path(Args {
                config: None,
                state_dir: Some(folder.path().to_str().unwrap().to_owned()),
            });
            let mut streams = Streams {
                out: &mut out,
                err: &mut err,
            };
            let code = ca(&verb, &Source::new([], "host"), &mut streams).unwrap();
            (code, String::from_utf8(out).unwrap())
        };
        assert_eq!(ask(), (exit::FAILED, String::new()));
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(ask(), (exit::OK, format!("{}\n", path.display())));
    }
}
