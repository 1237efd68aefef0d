//! Notices that a run is halted, where a body is polled and nothing else would.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::domain::Reason;
use crate::gate::Permit;
use crate::session::Session;

/// The halt of the run that an operation belongs to.
pub(super) struct Halt {
    session: Option<Session>,
    waiting: Option<Pin<Box<dyn Future<Output = Reason> + Send>>>,
}

impl Halt {
    /// Of the run that `permit` was given in.
    pub(super) fn of(permit: &Permit) -> Self {
        Self {
            session: permit.session().cloned(),
            waiting: None,
        }
    }

    /// Why the run is halted, if it is by now.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.session.as_ref()?.halted()
    }

    /// Ready once the run is halted; not to be polled again then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let Some(session) = &self.session else {
            return Poll::Pending;
        };
        let waiting = self.waiting.get_or_insert_with(|| {
            let session = session.clone();
            Box::pin(async move { session.until_halted().await })
        });
        waiting.as_mut().poll(cx)
    }
}

impl fmt::Debug for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Halt")
    }
}

/// Resolves with the reason once the run that `permit` was given in is halted.
pub(super) async fn of_run(permit: &Permit) -> Reason {
    match permit.session() {
        Some(session) => session.until_halted().await,
        None => std::future::pending().await,
    }
}

/// What is recorded of what a halt has ended.
pub(super) fn in_words(reason: &Reason) -> String {
    format!("run halted: {reason}")
}
