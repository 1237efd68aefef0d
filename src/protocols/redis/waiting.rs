//! Commands that are held, by what the server calls their connections: so that
//! `CLIENT UNBLOCK` ends a wait here as it ends one there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::commands::Arguments;
use super::{Upstream, reply};

/// A connection, as the server that it is to calls it.
type Who = (Box<str>, u16, i64);

/// How a wait is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unblocked {
    /// As if its time were over.
    TimedOut,
    /// With an error that says why.
    WithError,
}

/// What `CLIENT UNBLOCK` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unblock {
    id: i64,
    how: Unblocked,
}

impl Unblock {
    pub(super) fn of(arguments: &impl Arguments) -> Option<Self> {
        let id = reply::integer(arguments.argument(2)?)?;
        let how = match arguments.argument(3) {
            None => Unblocked::TimedOut,
            Some(word) if word.eq_ignore_ascii_case(b"TIMEOUT") => Unblocked::TimedOut,
            Some(word) if word.eq_ignore_ascii_case(b"ERROR") => Unblocked::WithError,
            Some(_) => return None,
        };
        Some(Self { id, how })
    }
}

/// See the module. Bounded by the connections there are.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    all: Mutex<HashMap<Who, oneshot::Sender<Unblocked>>>,
}

impl Waiting {
    /// A wait begins; it is forgotten when what is returned is dropped.
    pub(super) fn begins(self: &Arc<Self>, upstream: &Upstream, id: i64) -> Wait {
        let who = (upstream.host.clone(), upstream.port, id);
        let (ends, ended) = oneshot::channel();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(who.clone(), ends);
        Wait {
            waiting: self.clone(),
            who,
            ended,
        }
    }

    /// Ends the wait of a connection; false where it has none.
    pub(super) fn ends(&self, upstream: &Upstream, asked: Unblock) -> bool {
        let who = (upstream.host.clone(), upstream.port, asked.id);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&who)
            .is_some_and(|ends| ends.send(asked.how).is_ok())
    }
}

/// One wait.
#[derive(Debug)]
pub(super) struct Wait {
    waiting: Arc<Waiting>,
    who: Who,
    ended: oneshot::Receiver<Unblocked>,
}

impl Wait {
    /// How it was ended from outside; never, where nobody does. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Unblocked {
        match (&mut self.ended).await {
            Ok(how) => how,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut all = self
            .waiting
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.who);
    }
}
