//! Ending in good order: stop accepting, let what runs finish, then force.

use tokio::sync::watch;

/// Tells every [`Drain`] to begin. Dropping it begins too.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<bool>);

/// Seen by everything that must stop when the process does.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<bool>);

/// A trigger and what it triggers.
pub fn channel() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Begins the drain; the second time changes nothing.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Waits until every clone of the [`Drain`] is gone.
    pub async fn finished(&self) {
        self.0.closed().await;
    }
}

impl Drain {
    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Resolves when the drain begins. Cancel-safe.
    pub async fn begun(&mut self) {
        // An error means that the trigger is gone, which begins the drain too.
        drop(self.0.wait_for(|begun| *begun).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_when_the_last_watcher_is_gone() {
        let (trigger, mut drain) = channel();
        assert!(!drain.has_begun());
        trigger.begin();
        drain.begun().await;
        assert!(drain.has_begun());
        let late = drain.clone();
        drop(drain);
        let mut finished = std::pin::pin!(trigger.finished());
        tokio::select! {
            biased;
            () = &mut finished => panic!("a watcher is still there"),
            () = tokio::task::yield_now() => {}
        }
        drop(late);
        finished.await;
    }

    #[tokio::test]
    async fn losing_the_trigger_begins_the_drain() {
        let (trigger, mut drain) = channel();
        drop(trigger);
        drain.begun().await;
        assert!(drain.has_begun());
    }
}
