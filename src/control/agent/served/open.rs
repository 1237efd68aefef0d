//! Operations between their two hooks: the first asks, the second tells how it
//! went, and the span is what they have in common.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Operation, SpanId, TraceId};
use crate::gate::Permit;

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

/// See the module. Dropping a permit records its operation as abandoned.
#[derive(Debug, Default)]
pub(super) struct Spans(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Some SDKs give all operations of an activity one span: oldest first.
    by_span: HashMap<Span, VecDeque<(u64, Opened)>>,
    /// In the order they were opened; some are closed already.
    order: VecDeque<(Instant, u64, Span)>,
    opened: u64,
}

impl Spans {
    /// Keeps `opened` until its second hook.
    pub(super) fn keep(&self, span: Span, opened: Opened, now: Instant) {
        let mut stale = Vec::new();
        let mut table = self.lock();
        let Table {
            by_span,
            order,
            opened: count,
        } = &mut *table;
        *count = count.wrapping_add(1);
        order.push_back((now, *count, span));
        by_span.entry(span).or_default().push_back((*count, opened));
        while let Some((at, id, span)) = order.front().copied()
            && (order.len() > KEPT_MAX || now.saturating_duration_since(at) >= KEPT_WITHIN)
        {
            order.pop_front();
            stale.extend(take(by_span, span, |(known, _)| *known == id));
        }
        drop(table);
        // A permit that is dropped is judged and recorded: not under the lock.
        drop(stale);
    }

    /// Takes the operation of `span`: the oldest one that `is_it` recognises, or
    /// else the oldest.
    pub(super) fn take(&self, span: Span, is_it: impl Fn(&Operation) -> bool) -> Option<Opened> {
        let mut table = self.lock();
        let fits = |(_, opened): &(u64, Opened)| match opened {
            Opened::Admitted(permit) => permit.operation().is_some_and(&is_it),
            Opened::Asked(operation) => is_it(operation),
        };
        let by_span = &mut table.by_span;
        take(by_span, span, fits).or_else(|| take(by_span, span, |_| true))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(
    by_span: &mut HashMap<Span, VecDeque<(u64, Opened)>>,
    span: Span,
    is_it: impl Fn(&(u64, Opened)) -> bool,
) -> Option<Opened> {
    let known = by_span.get_mut(&span)?;
    let at = known.iter().position(is_it)?;
    let taken = known.remove(at);
    if known.is_empty() {
        by_span.remove(&span);
    }
    taken.map(|(_, opened)| opened)
}
