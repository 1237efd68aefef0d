//! The only place that starts tasks, so that every task has a name.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts `future` as a task. What it logs carries `task = name`.
pub fn spawn_named<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the wrapper the ban points to"
    )]
    tokio::spawn(future.instrument(tracing::error_span!("task", name)))
}
