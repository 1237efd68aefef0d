//! The one connection that is kept for one client: the peer may know by it whose requests are
//! those that come over it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http_body::Body;
use tokio::time::Instant;

use super::{ClientConnection, Home};

/// Room for one idle connection, closed when this is dropped or another one comes.
pub struct Kept<K, B>(Mutex<Option<(K, ClientConnection<B>)>>);

impl<K, B> Default for Kept<K, B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, B> fmt::Debug for Kept<K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl<K, B> Kept<K, B>
where
    K: Eq + Clone + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Makes `connection` come here from now on, wherever it came from.
    pub fn adopt(self: &Arc<Self>, key: &K, connection: &mut ClientConnection<B>) {
        connection.home = Some(Box::new(Place {
            kept: Arc::downgrade(self),
            key: key.clone(),
        }));
    }

    /// The connection to `key` that is kept, if its peer has not closed it.
    pub fn take(&self, key: &K) -> Option<ClientConnection<B>> {
        let (_, mut connection) = lock(&self.0).take_if(|(kept, _)| *kept == *key)?;
        connection.is_alive(Instant::now()).then_some(connection)
    }
}

/// The way back. Weak: what keeps a connection owns it, not the other way round.
struct Place<K, B> {
    kept: Weak<Kept<K, B>>,
    key: K,
}

impl<K, B> Home<B> for Place<K, B>
where
    K: Eq + Clone + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn take_back(self: Box<Self>, mut connection: ClientConnection<B>) {
        if let Some(kept) = self.kept.upgrade() {
            let key = self.key.clone();
            connection.home = Some(self);
            let before = lock(&kept.0).replace((key, connection));
            // Closed without the lock.
            drop(before);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held leaves one connection, or none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
