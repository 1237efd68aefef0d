//! A halt, remembered until the operator resumes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::domain::Reason;

/// Open until tripped; the first reason stays until it is reset.
#[derive(Debug, Default)]
pub struct Latch {
    /// Read on every operation, so that an open latch costs one load.
    tripped: AtomicBool,
    reason: Mutex<Option<Reason>>,
}

impl Latch {
    /// Why it is tripped, or `None`.
    pub fn reason(&self) -> Option<Reason> {
        if !self.tripped.load(Ordering::Acquire) {
            return None;
        }
        self.lock().clone()
    }

    /// Trips it. Returns whether it was open before.
    pub(super) fn trip(&self, reason: &Reason) -> bool {
        let mut held = self.lock();
        let first = held.is_none();
        held.get_or_insert_with(|| reason.clone());
        self.tripped.store(true, Ordering::Release);
        first
    }

    /// Opens it again. Returns whether it was tripped.
    pub(super) fn reset(&self) -> bool {
        let mut held = self.lock();
        self.tripped.store(false, Ordering::Release);
        held.take().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Reason>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays_until_reset() {
        let latch = Latch::default();
        assert_eq!(latch.reason(), None);
        assert!(latch.trip(&Reason::from("first")));
        assert!(!latch.trip(&Reason::from("second")));
        assert_eq!(latch.reason(), Some(Reason::from("first")));
        assert!(latch.reset());
        assert_eq!(latch.reason(), None);
        assert!(!latch.reset());
    }
}
