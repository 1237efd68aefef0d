//! Which sessions hold a statement that somebody's `KILL` may end, by the number
//! that their server knows the connection by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::net::listen_at::At;

/// A connection to a server: where the sidecar listens for that server, and the
/// server's number of it.
type Key = (At, u32);

/// The sessions that have begun.
#[derive(Debug, Default)]
pub(super) struct Kills {
    sessions: Mutex<HashMap<Key, watch::Sender<()>>>,
}

/// A session that can be killed for as long as this lives.
#[derive(Debug)]
pub(super) struct Registered {
    kills: Arc<Kills>,
    key: Key,
    killed: watch::Receiver<()>,
}

impl Kills {
    pub(super) fn register(self: &Arc<Self>, listen: At, connection: u32) -> Registered {
        let (sender, killed) = watch::channel(());
        let key = (listen, connection);
        self.lock().insert(key.clone(), sender);
        Registered {
            kills: self.clone(),
            key,
            killed,
        }
    }

    /// Ends what the connection holds, if it does; nothing else of it.
    pub(super) fn kill(&self, listen: At, connection: u32) {
        if let Some(session) = self.lock().get(&(listen, connection)) {
            session.send_replace(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, watch::Sender<()>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// An earlier kill was about an earlier statement.
    pub(super) fn forget(&mut self) {
        self.killed.mark_unchanged();
    }

    /// Resolves once it is killed. Cancel-safe.
    pub(super) async fn killed(&mut self) {
        if self.killed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // The server gives a number again only when this connection has ended.
        self.kills.lock().remove(&self.key);
    }
}
