//! What is fetched once for everybody who waits for it, and again before it ends.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use crate::process::spawn_named;

use super::proof::Unproven;

/// How long a failure stands for everybody: nobody asks again before.
const FAILURE_STANDS: Duration = Duration::from_secs(1);

/// How long what was fetched is believed before it may be doubted.
const BELIEVED: Duration = Duration::from_secs(10);

/// Fetched, and for how long it holds.
#[derive(Clone, Debug)]
pub(super) struct Fetched<T> {
    pub(super) value: T,
    /// From now on it is fetched anew, while it still holds.
    pub(super) renew_at: Option<Instant>,
    /// From now on it holds no more.
    pub(super) ends_at: Option<Instant>,
}

/// One value, or none yet.
#[derive(Debug)]
pub(super) struct Flight<T> {
    state: Mutex<State<T>>,
    /// Whoever has it fetches.
    turn: Arc<Turn<()>>,
}

#[derive(Debug)]
struct State<T> {
    /// And since when it is here.
    fetched: Option<(Fetched<T>, Instant)>,
    /// Why there is none, and until when that stands.
    failed: Option<(Unproven, Instant)>,
}

enum Found<T> {
    Holds(T),
    /// It holds, and should be fetched anew.
    Ends(T),
    Failed(Unproven),
    Nothing,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                fetched: None,
                failed: None,
            }),
            turn: Arc::new(Turn::new(())),
        }
    }
}

impl<T: Clone + Send + 'static> Flight<T> {
    /// The value, fetched by `fetch` where there is none. Many who ask at once
    /// fetch once, and share a failure. Whoever stops waiting does not stop
    /// the fetching.
    ///
    /// # Errors
    ///
    /// It cannot be fetched, or could not a moment ago.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        fetch: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, Unproven>
    where
        F: Future<Output = Result<Fetched<T>, Unproven>> + Send,
    {
        match self.look(Instant::now()) {
            Found::Holds(value) => Ok(value),
            Found::Failed(error) => Err(error),
            Found::Ends(value) => {
                // Whoever fetches already does it for everybody.
                if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
                    let own = Arc::clone(self);
                    drop(spawn_named("core-identity", async move {
                        own.keep(fetch().await).ok();
                        drop(turn);
                    }));
                }
                Ok(value)
            }
            Found::Nothing => {
                let own = Arc::clone(self);
                let fetched = spawn_named("core-identity", async move {
                    let _turn = own.turn.lock().await;
                    match own.look(Instant::now()) {
                        Found::Holds(value) | Found::Ends(value) => Ok(value),
                        Found::Failed(error) => Err(error),
                        Found::Nothing => own.keep(fetch().await),
                    }
                });
                fetched
                    .await
                    .unwrap_or_else(|_| Err(Unproven::absent("the sidecar is ending".to_owned())))
            }
        }
    }

    /// Holds `value` for good.
    pub(super) fn hold(&self, value: T) {
        let fetched = Fetched {
            value,
            renew_at: None,
            ends_at: None,
        };
        drop(self.keep(Ok(fetched)));
    }

    /// Fetches it anew at the next question, unless it has only just come.
    pub(super) fn doubt(&self) {
        let mut state = self.lock();
        let is_old = |since: &Instant| since.elapsed() >= BELIEVED;
        if state
            .fetched
            .as_ref()
            .is_some_and(|(_, since)| is_old(since))
        {
            state.fetched = None;
        }
    }

    fn look(&self, now: Instant) -> Found<T> {
        let state = self.lock();
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let failed = state.failed.as_ref().filter(|(_, until)| now < *until);
        match (&state.fetched, failed) {
            (Some((fetched, _)), _) if !is_over(fetched.ends_at) => {
                let value = fetched.value.clone();
                // Not at every question, where it cannot be fetched.
                if is_over(fetched.renew_at) && failed.is_none() {
                    Found::Ends(value)
                } else {
                    Found::Holds(value)
                }
            }
            (_, Some((error, _))) => Found::Failed(error.clone()),
            (_, None) => Found::Nothing,
        }
    }

    fn keep(&self, fetched: Result<Fetched<T>, Unproven>) -> Result<T, Unproven> {
        let now = Instant::now();
        let mut state = self.lock();
        match fetched {
            Ok(fetched) => {
                let value = fetched.value.clone();
                state.fetched = Some((fetched, now));
                state.failed = None;
                Ok(value)
            }
            Err(error) => {
                tracing::error!(%error, "who we are cannot be shown to OpenBox Core");
                let until = now.checked_add(FAILURE_STANDS).unwrap_or(now);
                state.failed = Some((error.clone(), until));
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Fetches its own number, after a second, or fails as often as it has to.
    #[derive(Default)]
    struct Source {
        fetched: Arc<AtomicUsize>,
        fails: Arc<AtomicUsize>,
    }

    impl Source {
        async fn of(&self, flight: &Arc<Flight<usize>>) -> Result<usize, Unproven> {
            let (fetched, fails) = (self.fetched.clone(), self.fails.clone());
            let fetch = || async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let value = fetched.fetch_add(1, Ordering::SeqCst);
                if fails.load(Ordering::SeqCst) > 0 {
                    fails.fetch_sub(1, Ordering::SeqCst);
                    return Err(Unproven::absent("down".to_owned()));
                }
                let now = Instant::now();
                Ok(Fetched {
                    value,
                    renew_at: now.checked_add(MINUTE),
                    ends_at: now.checked_add(MINUTE * 2),
                })
            };
            flight.get(fetch).await
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_near_the_end_does_not_wait_for_the_next() {
        let (source, flight) = (Source::default(), Arc::default());
        assert_eq!(source.of(&flight).await, Ok(0));
        pass(59).await;
        assert_eq!(source.of(&flight).await, Ok(0));
        pass(2).await;
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(source.of(&flight).await, Ok(0));
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        pass(2).await;
        assert_eq!(source.of(&flight).await, Ok(1));
        assert_eq!(source.fetched.load(Ordering::SeqCst), 2);
        // Nobody asked for a while: then it is waited for.
        pass(300).await;
        assert_eq!(source.of(&flight).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_one_holds_to_its_end_where_there_is_no_new_one() {
        let (source, flight) = (Source::default(), Arc::default());
        assert_eq!(source.of(&flight).await, Ok(0));
        source.fails.store(usize::MAX, Ordering::SeqCst);
        for _ in 0..11 {
            pass(10).await;
            assert_eq!(source.of(&flight).await, Ok(0));
        }
        pass(10).await;
        let down = Unproven::absent("down".to_owned());
        assert_eq!(source.of(&flight).await, Err(down.clone()));
        source.fails.store(0, Ordering::SeqCst);
        // A failure stands for a second, for everybody.
        let tries = source.fetched.load(Ordering::SeqCst);
        assert_eq!(source.of(&flight).await, Err(down));
        assert_eq!(source.fetched.load(Ordering::SeqCst), tries);
        pass(1).await;
        assert_eq!(source.of(&flight).await, Ok(tries));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_does_not_stop_the_fetching() {
        let (source, flight) = (Source::default(), Arc::default());
        let short = Duration::from_millis(500);
        assert!(
            tokio::time::timeout(short, source.of(&flight))
                .await
                .is_err()
        );
        pass(1).await;
        let began = Instant::now();
        assert_eq!(source.of(&flight).await, Ok(0));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_doubted_is_fetched_anew_unless_it_has_just_come() {
        let (source, flight) = (Source::default(), Arc::default());
        assert_eq!(source.of(&flight).await, Ok(0));
        flight.doubt();
        assert_eq!(source.of(&flight).await, Ok(0));
        pass(10).await;
        flight.doubt();
        assert_eq!(source.of(&flight).await, Ok(1));
        flight.hold(7);
        pass(1_000).await;
        assert_eq!(source.of(&flight).await, Ok(7));
    }
}
