//! Threads that serve connections, one runtime each.
//!
//! A connection stays on the thread it was given to, with its upstream
//! connections and its timers. A runtime shared by all threads would wake
//! another thread for every other event, and that costs more than most events
//! do. What is rare (local APIs, housekeeping) stays on the process's own
//! runtime.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::spawn::instrumented;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker thread this is called on; 0 on any other thread.
/// For what is kept once a worker, as pools of connections are.
pub fn current() -> usize {
    INDEX.get()
}

/// Threads that serve connections. They end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Worker>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The system gives no thread or no event queue.
    pub fn start(count: usize) -> io::Result<Self> {
        let threads = (0..count.max(1))
            .map(Worker::start)
            .collect::<io::Result<_>>()?;
        Ok(Self {
            threads,
            next: AtomicUsize::new(0),
        })
    }

    /// No threads of its own: what is given to it runs where it is given.
    pub fn here() -> Self {
        Self {
            threads: Vec::new(),
            next: AtomicUsize::new(0),
        }
    }

    /// How many values [`current`] may have on threads of these workers.
    pub fn count(&self) -> usize {
        self.threads.len().max(1)
    }

    /// The runtime of each thread.
    pub fn runtimes(&self) -> impl Iterator<Item = Handle> {
        self.threads.iter().map(|worker| worker.handle.clone())
    }

    /// Starts `future` as a task of the next worker in turn.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let worker = turn.checked_rem(self.threads.len());
        match worker.and_then(|index| self.threads.get(index)) {
            Some(worker) => drop(worker.handle.spawn(instrumented(name, future))),
            None => drop(super::spawn_named(name, future)),
        }
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                INDEX.set(index);
                // An error means that the sender is gone, which stops it too.
                drop(runtime.block_on(stopped));
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The last to let go may be a connection, on this very thread: that
        // ends by itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a worker thread had panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_given_to_each_thread_in_turn() {
        let workers = Workers::start(2).unwrap();
        let (told, tell) = std::sync::mpsc::sync_channel(4);
        for _ in 0..4 {
            let told = told.clone();
            workers.spawn("test", async move { told.send(current()).unwrap() });
        }
        let mut seen: Vec<usize> = (0..4).map(|_| tell.recv().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1]);
    }
}
