//! What start-up still waits for, by name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Knows which parts of start-up are not done.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// One part of start-up; dropping it says that the part is done.
#[derive(Debug)]
#[must_use = "dropping it says that this part of start-up is done"]
pub struct Pending {
    part: &'static str,
    of: Readiness,
}

impl Readiness {
    /// Registers `part` as not done.
    pub fn pending(&self, part: &'static str) -> Pending {
        self.lock().insert(part);
        Pending {
            part,
            of: self.clone(),
        }
    }

    /// What is still waited for, in alphabetical order. Empty means ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.of.lock().remove(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_part_is_done() {
        let readiness = Readiness::default();
        let policy = readiness.pending("policy");
        let listeners = readiness.pending("listeners");
        assert_eq!(readiness.waiting_for(), ["listeners", "policy"]);
        drop(policy);
        assert_eq!(readiness.waiting_for(), ["listeners"]);
        drop(listeners);
        assert!(readiness.waiting_for().is_empty());
    }
}
