//! Operations between their two hooks: the first asks, the second tells how it
//! went, and the span is what they have in common.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Operation, SpanId, TraceId};
use crate::gate::Permit;
use crate::process::Kept;

/// Longest time between the two hooks. Beyond it an operation counts as
/// abandoned: some SDKs send no second hook for what fails.
const KEPT_WITHIN: Duration = Duration::from_secs(600);

/// Most operations kept; beyond it the oldest counts as abandoned.
const KEPT_MAX: usize = 10_000;

/// An operation after its first hook.
#[derive(Debug)]
pub(super) enum Opened {
    /// It was admitted.
    Admitted(Permit),
    /// It waits for a person; an SDK that polls does it once the person agrees,
    /// without asking again.
    Asked(Box<Operation>),
}

type Span = (TraceId, SpanId);

/// See the module. Some SDKs give all operations of an activity one span.
#[derive(Debug)]
pub(super) struct Spans(Kept<Span, Opened>);

impl Default for Spans {
    fn default() -> Self {
        Self(Kept::new(KEPT_WITHIN, KEPT_MAX))
    }
}

impl Spans {
    /// Keeps `opened` until its second hook.
    pub(super) fn keep(&self, span: Span, opened: Opened) {
        // A permit that is dropped records its operation as abandoned.
        drop(self.0.keep(span, opened, Instant::now()));
    }

    /// Takes the operation of `span`: the oldest one that `is_it` recognises, or
    /// else the oldest.
    pub(super) fn take(&self, span: Span, is_it: impl Fn(&Operation) -> bool) -> Option<Opened> {
        let now = Instant::now();
        let fits = |opened: &Opened| match opened {
            Opened::Admitted(permit) => permit.operation().is_some_and(&is_it),
            Opened::Asked(operation) => is_it(operation),
        };
        self.0
            .take(&span, now, fits)
            .or_else(|| self.0.take(&span, now, |_| true))
    }
}
