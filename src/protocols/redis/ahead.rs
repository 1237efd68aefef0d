//! Memory for what clients send before they read what it is answered.
//!
//! A server takes a pipeline of any depth, because it keeps the replies; the
//! account of who is owed which is bounded here. So that a client that writes
//! all of a deep pipeline before it reads need not wait for itself, its
//! commands are kept as they came, in memory that all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::metrics::{LimitHit, Metrics};

/// Taken at once, bytes: more than any single read.
const STEP_BYTES: usize = 256 << 10;

/// What is left of it.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// For all connections together.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            left: AtomicUsize::new(bytes_max),
        }
    }
}

/// What one connection has of it; given back when dropped.
#[derive(Debug)]
pub(super) struct Ahead {
    budget: Arc<Budget>,
    taken: usize,
    /// Whether it was told that there is no more.
    told: bool,
}

impl Ahead {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            taken: 0,
            told: false,
        }
    }

    /// Whether one more read may follow `bytes` that are kept.
    pub(super) fn has_room(&mut self, bytes: usize, metrics: &Metrics) -> bool {
        let wanted = bytes.saturating_add(STEP_BYTES >> 1);
        if wanted <= self.taken {
            return true;
        }
        let left = &self.budget.left;
        let take = |left: usize| left.checked_sub(STEP_BYTES);
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_ok() {
            self.taken = self.taken.saturating_add(STEP_BYTES);
            return true;
        }
        if !std::mem::replace(&mut self.told, true) {
            metrics.limit_hit(LimitHit::Pipelined);
        }
        false
    }

    /// Nothing is kept any more.
    pub(super) fn give_back(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.budget.left.fetch_add(taken, Ordering::Relaxed);
        self.told = false;
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_connection_takes_another_has_not_until_it_is_given_back() {
        let metrics = Metrics::new().unwrap();
        let budget = Arc::new(Budget::new(3 * STEP_BYTES));
        let mut one = Ahead::new(budget.clone());
        let mut other = Ahead::new(budget);
        assert!(one.has_room(0, &metrics) && one.has_room(STEP_BYTES, &metrics));
        assert!(other.has_room(0, &metrics));
        assert!(!other.has_room(STEP_BYTES, &metrics) && !one.has_room(2 * STEP_BYTES, &metrics));
        assert!(one.has_room(STEP_BYTES, &metrics), "it has that already");
        drop(one);
        assert!(other.has_room(STEP_BYTES, &metrics));
    }
}
