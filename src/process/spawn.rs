//! The only place that starts tasks, so that every task has a name.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts `future` as a task. Where debug logs are on, what it logs carries
/// `task = name`; a span at a higher level would be entered at every poll.
pub fn spawn_named<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the wrapper the ban points to"
    )]
    tokio::spawn(instrumented(name, future))
}

pub(super) fn instrumented<F: Future>(
    name: &'static str,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    future.instrument(tracing::debug_span!("task", name))
}
