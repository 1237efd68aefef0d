//! Which session a `CancelRequest` is about, and where it leads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};

use super::reach::Way;

/// Most cancel requests under way; one beyond it is dropped, as a server drops
/// those it cannot serve.
const AT_ONCE: usize = 64;
/// Longest wait for the server to be done with one.
const WITHIN: Duration = Duration::from_secs(10);

/// The sessions that can be cancelled, by the server's process and key.
#[derive(Debug)]
pub(super) struct Cancels {
    sessions: Mutex<HashMap<Bytes, Session>>,
    places: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Session {
    way: Way,
    held: watch::Sender<()>,
    holding: Arc<AtomicBool>,
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
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(key.clone(), session);
        Registered {
            cancels: self.clone(),
            key,
        }
    }

    /// Follows a `CancelRequest`: `key` is its body behind the code. Returns
    /// once the server has seen it, so that it cannot meet the next statement.
    /// Says nothing about an unknown key, as servers do.
    pub(super) async fn request(&self, key: Bytes) {
        let known = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.get(&key).cloned()
        };
        let Some(session) = known else { return };
        if session.holding.load(Ordering::Acquire) {
            session.held.send_replace(());
            return;
        }
        let Ok(_place) = self.places.clone().try_acquire_owned() else {
            return;
        };
        let asked = async {
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
