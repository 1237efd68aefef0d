//! hyper's half of a connection, and the wake-ups meant for it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::task::coop::unconstrained;

/// hyper's own future, whose type has no name once it may be upgraded.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Drives a connection from whichever task uses it at the moment.
pub(super) struct Driver {
    /// `None` once the connection has ended.
    connection: Option<Connection>,
    relay: Arc<Relay>,
    /// The relay's, kept: hyper and tokio compare wakers, and this one stays.
    waker: Waker,
}

impl Driver {
    pub(super) fn new(
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
    ) -> Self {
        let relay = Arc::new(Relay {
            task: Mutex::new(Waker::noop().clone()),
            mood: AtomicU8::new(AWAKE),
        });
        Self {
            connection: Some(Box::pin(connection)),
            waker: Arc::clone(&relay).into(),
            relay,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.connection.is_none()
    }

    /// Reads and writes what there is; later wake-ups go to the task of `cx`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.relay.wake_up_for(cx.waker());
        if let Some(connection) = &mut self.connection {
            let ended = connection
                .as_mut()
                .poll(&mut Context::from_waker(&self.waker));
            self.note(ended);
        }
    }

    /// Looks once whether there is anything to read, in nobody's name: an idle
    /// connection must not keep the memory of the task that used it last. Not
    /// bound by the task's budget, which would make a closed one look open.
    pub(super) fn poll_idle(&mut self) {
        self.relay.wake_up_for(Waker::noop());
        if let Some(connection) = &mut self.connection {
            let ended = pin!(unconstrained(connection)).poll(&mut Context::from_waker(&self.waker));
            self.note(ended);
        }
    }

    fn note(&mut self, polled: Poll<hyper::Result<()>>) {
        if let Poll::Ready(ended) = polled {
            if let Err(error) = ended {
                tracing::debug!(%error, "an upstream connection ended with an error");
            }
            // Dropping it tells whoever waits for an answer or a body that none
            // comes.
            self.connection = None;
        }
    }

    /// Runs `look`, which takes something from the connection inside the very
    /// task that drives it. That the connection then wakes this task would cost
    /// a second poll; it is driven again anyway once `look` finds nothing.
    pub(super) fn undisturbed<T>(
        &self,
        cx: &mut Context<'_>,
        look: impl FnOnce() -> Poll<T>,
    ) -> Poll<T> {
        self.relay.mood.store(ASLEEP, Ordering::SeqCst);
        let found = look();
        let mood = self.relay.mood.swap(AWAKE, Ordering::SeqCst);
        if mood == CALLED && found.is_pending() {
            cx.waker().wake_by_ref();
        }
        found
    }

    /// Until the connection has ended, in the task that polls this.
    pub(super) async fn run(self) {
        if let Some(connection) = self.connection
            && let Err(error) = connection.await
        {
            tracing::debug!(%error, "an upgrade failed");
        }
    }
}

/// Wake-ups go on to the task.
const AWAKE: u8 = 0;
/// Wake-ups are remembered.
const ASLEEP: u8 = 1;
/// One is.
const CALLED: u8 = 2;

/// Passes wake-ups on to the task that drives the connection now.
struct Relay {
    task: Mutex<Waker>,
    mood: AtomicU8,
}

impl Relay {
    fn wake_up_for(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.will_wake(waker) {
            *task = waker.clone();
        }
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let remembered =
            self.mood
                .compare_exchange(ASLEEP, CALLED, Ordering::SeqCst, Ordering::SeqCst);
        match remembered {
            Ok(_) | Err(CALLED) => {}
            Err(_) => {
                let task = self
                    .task
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                // Outside the lock: waking runs code of a runtime.
                task.wake();
            }
        }
    }
}
