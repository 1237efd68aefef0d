//! Which sessions hold a statement that somebody's `KILL` may end, by the number
//! that their server knows the connection by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Upstream;

/// A connection to a server: its host and port, whichever listener leads there, and its
/// number of the connection.
type Key = (Box<str>, u16, u32);

fn key(server: &Upstream, connection: u32) -> Key {
    (server.host.clone(), server.port, connection)
}

/// The sessions that have begun.
#[derive(Debug, Default)]
pub(super) struct Kills {
    sessions: Mutex<HashMap<Key, Arc<watch::Sender<()>>>>,
}

/// A session that can be killed for as long as this lives.
#[derive(Debug)]
pub(super) struct Registered {
    kills: Arc<Kills>,
    key: Key,
    own: Arc<watch::Sender<()>>,
    killed: watch::Receiver<()>,
}

impl Kills {
    /// The newest of a number: a server gives one again once it has ended the connection, or
    /// was started anew, and several behind one address have numbers of their own.
    pub(super) fn register(self: &Arc<Self>, server: &Upstream, connection: u32) -> Registered {
        let (sender, killed) = watch::channel(());
        let own = Arc::new(sender);
        let key = key(server, connection);
        self.lock().insert(key.clone(), own.clone());
        Registered {
            kills: self.clone(),
            key,
            own,
            killed,
        }
    }

    /// Ends what the connection holds, if it does; nothing else of it.
    pub(super) fn kill(&self, server: &Upstream, connection: u32) {
        if let Some(session) = self.lock().get(&key(server, connection)) {
            session.send_replace(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<watch::Sender<()>>>> {
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
        // Another may have the number by now.
        let mut sessions = self.kills.lock();
        if sessions
            .get(&self.key)
            .is_some_and(|last| Arc::ptr_eq(last, &self.own))
        {
            sessions.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::database_tls;
    use crate::net::listen_at::At;

    #[test]
    fn my_18_a_session_that_ends_takes_its_own_number_with_it_and_nobody_elses() {
        let at = |port: u16| Upstream {
            listen: At::Tcp(([127, 0, 0, 1], port).into()),
            host: "db".into(),
            port: 3306,
            tls: database_tls::Settings::default(),
            unsaid: crate::protocols::mysql::WhereUnsaid::Nothing,
        };
        let kills = Arc::<Kills>::default();
        let old = kills.register(&at(1), 7);
        let new = kills.register(&at(2), 7);
        drop(old);
        // By whichever listener.
        kills.kill(&at(1), 7);
        assert!(new.killed.has_changed().unwrap());
        drop(new);
        assert!(kills.lock().is_empty());
    }
}
