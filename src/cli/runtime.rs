//! The threads that serve.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::config::Config;

/// Longest wait, at the end, for what blocks a thread.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Runs `work` on a runtime as `config` wants it, and ends the runtime.
///
/// # Errors
/// The system gives no threads.
pub(super) fn block_on<T>(config: &Config, work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = build(config.workers.get())?;
    let done = runtime.block_on(work);
    // What is left after the drain is forced.
    runtime.shutdown_timeout(END_WITHIN);
    Ok(done)
}

fn build(workers: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("worker")
        .enable_all()
        .build()
}
