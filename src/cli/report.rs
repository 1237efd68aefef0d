//! What verbs tell about configurations and starts that fail.

use std::io;

use crate::app::StartError;
use crate::config::{Config, Problems};

use super::operator_client::ClientError;
use super::{Streams, exit};

/// Every problem, and exit code 78.
pub(super) fn problems(problems: &Problems, streams: &mut Streams<'_>) -> io::Result<u8> {
    write!(streams.err, "openbox-sidecar: {problems}")?;
    Ok(exit::CONFIG)
}

/// What came of asking a running sidecar.
pub(super) fn operated(
    done: Result<String, ClientError>,
    streams: &mut Streams<'_>,
) -> io::Result<u8> {
    match done {
        Ok(text) => {
            write!(streams.out, "{text}")?;
            Ok(exit::OK)
        }
        Err(ClientError::Config(found)) => problems(&found, streams),
        Err(error) => {
            writeln!(streams.err, "openbox-sidecar: {error}")?;
            Ok(exit::FAILED)
        }
    }
}

/// What is allowed and probably not meant.
pub(super) fn warnings(config: &Config, streams: &mut Streams<'_>) -> io::Result<()> {
    for warning in &config.warnings {
        writeln!(streams.err, "openbox-sidecar: warning: {warning}")?;
    }
    Ok(())
}

/// Why nothing was started: 78 where the configuration can mend it.
pub(super) fn start_error(error: &StartError, streams: &mut Streams<'_>) -> io::Result<u8> {
    writeln!(streams.err, "openbox-sidecar: {error}")?;
    Ok(match error {
        StartError::Policy(_) => exit::CONFIG,
        StartError::State { .. }
        | StartError::EndFile { .. }
        | StartError::Journal(_)
        | StartError::Kept(_)
        | StartError::Listen { .. }
        | StartError::Core(_)
        | StartError::Trust(_)
        | StartError::Internal(_) => exit::FAILED,
    })
}
