//! Whether the clients of shared connections take what there is for them.
//!
//! A stream of HTTP/2 whose window is closed is not polled any more, and can notice nothing
//! itself: neither its own silence nor that its run was halted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{self, Instant};

/// How long an answer may go on that notices by itself that its term has passed.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// The answers that are going out on one connection.
#[derive(Debug, Default)]
pub(super) struct Paces {
    all: Mutex<Vec<Arc<Pace>>>,
    begun: Notify,
}

#[derive(Debug)]
struct Pace {
    /// Since when there is something that the client has not taken; `None` while the origin is
    /// waited for.
    since: Mutex<Option<Instant>>,
    /// When it is over, whatever the client takes.
    term: Option<Instant>,
}

impl Pace {
    fn set(&self, since: Option<Instant>) {
        *lock(&self.since) = since;
    }
}

impl Paces {
    /// An answer begins to go out: its client is waited for.
    pub(super) fn begin(self: &Arc<Self>, term: Option<Instant>) -> Paced {
        let own = Arc::new(Pace {
            since: Mutex::new(Some(Instant::now())),
            term,
        });
        lock(&self.all).push(own.clone());
        if term.is_some() {
            self.begun.notify_one();
        }
        Paced {
            all: self.clone(),
            own,
        }
    }

    /// Whether the client of one of them has taken nothing of it for so long.
    pub(super) fn is_any_stuck_for(&self, within: Duration) -> bool {
        let mut all = lock(&self.all).clone().into_iter();
        all.any(|pace| lock(&pace.since).is_some_and(|since| since.elapsed() >= within))
    }

    /// Until the term of one of them has passed that waits for its client. Cancel-safe.
    pub(super) async fn overdue(&self) {
        loop {
            let now = Instant::now();
            let terms = lock(&self.all).clone().into_iter().filter_map(|pace| {
                let waits = lock(&pace.since).is_some();
                pace.term.map(|term| (term, waits))
            });
            let terms: Vec<_> = terms.collect();
            if terms.iter().any(|(term, waits)| *waits && *term <= now) {
                return;
            }
            let soon = now.checked_add(NOTICED_WITHIN).unwrap_or(now);
            // What has passed while its origin is waited for ends by itself.
            let next = terms
                .iter()
                .map(|(term, _)| if *term <= now { soon } else { *term });
            match next.min() {
                None => self.begun.notified().await,
                Some(next) => {
                    // What begins meanwhile may be over before that.
                    tokio::select! {
                        () = time::sleep_until(next) => {}
                        () = self.begun.notified() => {}
                    }
                }
            }
        }
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
        lock(&self.all.all).retain(|pace| !Arc::ptr_eq(pace, &self.own));
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
        let (one, other) = (paces.begin(None), paces.begin(None));
        time::advance(second * 3).await;
        assert!(paces.is_any_stuck_for(second * 3));
        one.waits_for_client();
        other.waits_for_origin();
        assert!(!paces.is_any_stuck_for(second * 3));
        time::advance(second * 2).await;
        assert!(paces.is_any_stuck_for(second * 2));
        assert!(!paces.is_any_stuck_for(second * 3));
        drop(one);
        time::advance(second * 9).await;
        assert!(!paces.is_any_stuck_for(second));
        other.waits_for_client();
        time::advance(second).await;
        assert!(paces.is_any_stuck_for(second));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_overdue_at_its_term_if_its_client_is_waited_for() {
        let (paces, second) = (Arc::new(Paces::default()), Duration::from_secs(1));
        let begun = Instant::now();
        let at = |seconds: u32| begun.checked_add(second * seconds);
        let _never = paces.begin(None);
        let origin = paces.begin(at(3));
        origin.waits_for_origin();
        let _client = paces.begin(at(60));
        let sooner = async {
            time::sleep(second * 5).await;
            paces.begin(at(20))
        };
        let ((), _sooner) = tokio::join!(paces.overdue(), sooner);
        assert_eq!(begun.elapsed().as_secs(), 20);
    }
}
