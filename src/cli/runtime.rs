//! The threads that serve.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Longest wait, at the end, for what blocks a thread.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Runs `work` on a runtime of one thread, and ends it. Connections are served
/// by workers of their own; what is left here is rare.
///
/// # Errors
/// The system gives no threads.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = build()?;
    let done = runtime.block_on(work);
    // What is left after the drain is forced.
    runtime.shutdown_timeout(END_WITHIN);
    Ok(done)
}

fn build() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
}
