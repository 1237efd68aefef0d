//! What an activity did and policy has not judged yet, so that what comes after
//! it is asked after it.
//!
//! Outcomes that were reported side by side do not wait for each other: each
//! came after its own start, and whatever it caused waits for it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The outcomes of one activity on their way to policy. As many as there are
/// reports in the gate, at most.
#[derive(Debug, Default)]
pub struct Untold {
    numbers: Mutex<Numbers>,
    told: Notify,
}

#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

/// One outcome on its way. Dropping it says that policy has judged it, or never
/// will.
#[derive(Debug)]
pub struct OnItsWay {
    untold: Arc<Untold>,
    number: u64,
}

impl Untold {
    /// Adds an outcome.
    pub fn add(self: &Arc<Self>) -> OnItsWay {
        let mut numbers = self.lock();
        let number = numbers.next;
        numbers.next = number.saturating_add(1);
        numbers.open.insert(number);
        drop(numbers);
        OnItsWay {
            untold: Arc::clone(self),
            number,
        }
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.lock().open.is_empty()
    }

    /// Waits for what is on its way now, and for nothing that comes later.
    /// Cancel-safe.
    pub async fn told(&self) {
        let mine = self.lock().next;
        loop {
            let mut told = pin!(self.told.notified());
            // Before looking, else what is told in between wakes nobody.
            told.as_mut().enable();
            if self.lock().open.first().is_none_or(|first| *first >= mine) {
                return;
            }
            told.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.untold.lock().open.remove(&self.number);
        self.untold.told.notify_waiters();
    }
}
