//! The one place that starts tasks, so that every task has a name.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts `future` as a task of its own; `name` says in logs what it is for.
pub fn spawn_named<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tracing::trace!(task = name, "task started");
    #[expect(
        clippy::disallowed_methods,
        reason = "every other place names its task by calling this function"
    )]
    tokio::spawn(future)
}
