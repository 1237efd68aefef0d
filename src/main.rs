//! The command line: parse, dispatch, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use openbox_sidecar::cli::{self, Cli, Streams};
use openbox_sidecar::config::Source;

// Thousands of held requests are thousands of small allocations of mixed age,
// which the system's allocator spreads over far more memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Standard error is not locked: logs write there too.
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let mut streams = Streams {
        out: &mut out,
        err: &mut err,
    };
    let code = cli::dispatch(cli, &Source::from_process(), &mut streams);
    match code.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        // Nobody reads any more: `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Where even this cannot be written there is nobody to tell.
            drop(writeln!(err, "openbox-sidecar: {error}"));
            ExitCode::FAILURE
        }
    }
}
