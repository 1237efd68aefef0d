//! Which session a `CancelRequest` is about, and where it leads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::metrics::{LimitHit, Metrics};

use super::reach::Way;

/// Most cancel requests under way; one beyond it is dropped, as a server drops
/// those it cannot serve.
const AT_ONCE: usize = 64;
/// Most that wait for one before them of the same session.
const OF_ONE_MAX: usize = 8;
/// Most a second, of all sessions together and of keys that nobody has: each
/// costs the server a connection, and a key could be guessed at.
const A_SECOND: u32 = 500;
/// Longest wait for the server to be done with one.
const WITHIN: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// The sessions that can be cancelled, by the server's process and key.
#[derive(Debug)]
pub(super) struct Cancels {
    sessions: Mutex<HashMap<Bytes, Session>>,
    places: Arc<Semaphore>,
    /// The second that is counted, and how many came in it.
    rate: Mutex<(Option<Instant>, u32)>,
}

#[derive(Clone, Debug)]
struct Session {
    way: Way,
    held: watch::Sender<()>,
    holding: Arc<AtomicBool>,
    /// One at a time: a second one must not overtake the first.
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A session that can be cancelled for as long as this lives.
#[derive(Debug)]
pub(super) struct Registered {
    cancels: Arc<Cancels>,
    key: Bytes,
}

impl Registered {
    /// What cancels it.
    pub(super) fn key(&self) -> Bytes {
        self.key.clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self
            .cancels
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&self.key);
    }
}

impl Default for Cancels {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            rate: Mutex::default(),
        }
    }
}

/// What a session shares with those who may cancel it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancellable {
    /// Told when its hold is cancelled.
    pub(super) held: watch::Sender<()>,
    /// Whether it holds.
    pub(super) holding: Arc<AtomicBool>,
}

impl Cancels {
    /// Knows a session by the body of its `BackendKeyData`.
    pub(super) fn register(
        self: &Arc<Self>,
        key: Bytes,
        way: Way,
        session: &Cancellable,
    ) -> Registered {
        let session = Session {
            way,
            held: session.held.clone(),
            holding: session.holding.clone(),
            turn: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(OF_ONE_MAX)),
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key.clone(), session);
        Registered {
            cancels: self.clone(),
            key,
        }
    }

    /// Whether one more may come this second.
    fn is_in_time(&self, now: Instant) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = &mut *rate;
        let over = |began: Instant| now.saturating_duration_since(began) >= SECOND;
        if began.is_none_or(over) {
            (*began, *count) = (Some(now), 0);
        }
        *count = count.saturating_add(1);
        *count <= A_SECOND
    }

    /// Follows a `CancelRequest`: `key` is its body behind the code. Returns
    /// once the server has seen it, so that it cannot meet the next statement.
    /// Says nothing about an unknown key, as servers do.
    pub(super) async fn request(&self, key: Bytes, metrics: &Metrics) {
        if !self.is_in_time(Instant::now()) {
            metrics.limit_hit(LimitHit::Cancels);
            return;
        }
        let known = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.get(&key).cloned()
        };
        let Some(session) = known else { return };
        if session.holding.load(Ordering::Acquire) {
            session.held.send_replace(());
            return;
        }
        let places = (session.waiting.try_acquire(), self.places.try_acquire());
        let (Ok(_waits), Ok(_place)) = places else {
            metrics.limit_hit(LimitHit::Cancels);
            return;
        };
        let asked = async {
            let _turn = session.turn.acquire().await;
            if session.holding.load(Ordering::Acquire) {
                session.held.send_replace(());
                return Ok(());
            }
            let mut socket = session.way.again().await?;
            let length = u32::try_from(key.len().saturating_add(8)).unwrap_or(u32::MAX);
            let code = super::startup::CANCEL.to_be_bytes();
            let request = [&length.to_be_bytes()[..], &code, &key].concat();
            socket.write_all(&request).await?;
            socket.flush().await?;
            let mut end = [0_u8; 16];
            // However it ends: a server that has seen it just closes.
            while socket.read(&mut end).await.is_ok_and(|read| read > 0) {}
            Ok::<_, std::io::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(WITHIN, asked).await {
            tracing::debug!(%error, "a cancel request did not reach the server");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_10_so_many_cancel_requests_a_second_and_no_more() {
        let cancels = Cancels::default();
        let now = Instant::now();
        let taken = (0..2 * A_SECOND).filter(|_| cancels.is_in_time(now));
        assert_eq!(taken.count(), 500);
        assert!(!cancels.is_in_time(now + SECOND / 2));
        assert!(cancels.is_in_time(now + SECOND));
    }
}
