//! `version`: which build this is.

use std::io;

use super::{Streams, exit};

/// Name and version, as banner and `--version` say it.
pub(super) const VERSION: &str = concat!("openbox-sidecar ", env!("CARGO_PKG_VERSION"));

pub(super) fn version(streams: &mut Streams<'_>) -> io::Result<u8> {
    writeln!(streams.out, "{VERSION}")?;
    Ok(exit::OK)
}
