//! Operations that were told before they happened, until they are told again
//! with their outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::Permit;
use crate::process::Kept;

use super::spans::Begun;

/// Longest time until the outcome. Beyond it an operation counts as abandoned.
const KEPT_WITHIN: Duration = Duration::from_secs(3_600);

/// Most operations kept; beyond it the oldest counts as abandoned.
const KEPT_MAX: usize = 10_000;

/// An operation that was admitted.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) permit: Permit,
    /// What its outcome is told together with.
    pub(super) begun: Begun,
}

/// By event id.
#[derive(Debug)]
pub(super) struct Operations(Kept<Arc<str>, Opened>);

impl Default for Operations {
    fn default() -> Self {
        Self(Kept::new(KEPT_WITHIN, KEPT_MAX))
    }
}

impl Operations {
    pub(super) fn keep(&self, event_id: &str, opened: Opened) {
        // A permit that is dropped records its operation as abandoned.
        drop(self.0.keep(event_id.into(), opened, Instant::now()));
    }

    pub(super) fn take(&self, event_id: &str) -> Option<Opened> {
        self.0.take(&event_id.into(), Instant::now(), |_| true)
    }
}
