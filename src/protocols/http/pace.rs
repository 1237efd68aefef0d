//! Whether the clients of shared connections take what there is for them.
//!
//! A stream of HTTP/2 whose window is closed is not polled any more, and can notice nothing
//! itself: neither its own silence nor that its run was halted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The answers that are going out on one connection.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<Vec<Arc<Pace>>>);

/// Since when there is something that the client has not taken; `None` while the origin is
/// waited for.
#[derive(Debug)]
struct Pace(Mutex<Option<Instant>>);

impl Pace {
    fn set(&self, since: Option<Instant>) {
        *lock(&self.0) = since;
    }
}

impl Paces {
    /// An answer begins to go out: its client is waited for.
    pub(super) fn begin(self: &Arc<Self>) -> Paced {
        let own = Arc::new(Pace(Mutex::new(Some(Instant::now()))));
        lock(&self.0).push(own.clone());
        Paced {
            all: self.clone(),
            own,
        }
    }

    /// Whether the client of one of them has taken nothing of it for so long.
    pub(super) fn is_any_stuck_for(&self, within: Duration) -> bool {
        let mut all = lock(&self.0).clone().into_iter();
        all.any(|pace| lock(&pace.0).is_some_and(|since| since.elapsed() >= within))
    }
}

/// One answer on its way; over when this is dropped.
#[derive(Debug)]
pub(super) struct Paced {
    all: Arc<Paces>,
    own: Arc<Pace>,
}

impl Paced {
    /// There is something for the client.
    pub(super) fn waits_for_client(&self) {
        self.own.set(Some(Instant::now()));
    }

    /// There is nothing for it at the moment.
    pub(super) fn waits_for_origin(&self) {
        self.own.set(None);
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        lock(&self.all.0).retain(|pace| !Arc::ptr_eq(pace, &self.own));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked while it was held has written one whole value, or none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_waits_for_its_client_is_stuck() {
        let (paces, second) = (Arc::new(Paces::default()), Duration::from_secs(1));
        assert!(!paces.is_any_stuck_for(Duration::ZERO));
        let (one, other) = (paces.begin(), paces.begin());
        tokio::time::advance(second * 3).await;
        assert!(paces.is_any_stuck_for(second * 3));
        one.waits_for_client();
        other.waits_for_origin();
        assert!(!paces.is_any_stuck_for(second * 3));
        tokio::time::advance(second * 2).await;
        assert!(paces.is_any_stuck_for(second * 2));
        assert!(!paces.is_any_stuck_for(second * 3));
        drop(one);
        tokio::time::advance(second * 9).await;
        assert!(!paces.is_any_stuck_for(second));
        other.waits_for_client();
        tokio::time::advance(second).await;
        assert!(paces.is_any_stuck_for(second));
    }
}
