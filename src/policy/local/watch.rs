//! Reloading when policy files change.
//!
//! The folder is watched, not the file: editors replace files, and Kubernetes
//! replaces a ConfigMap by swapping a symbolic link beside them. What changed
//! does not matter, since an unchanged policy is not reloaded.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{LoadError, LocalPolicy, Reloaded};

/// Is told what came of each reload.
pub type Told = Box<dyn Fn(&Result<Reloaded, LoadError>) + Send>;

/// Quiet time after a change before files are read: a change is rarely one.
const SETTLE: Duration = Duration::from_millis(200);
/// Changes that never stop do not put off the reload more often than this.
const SETTLE_ROUNDS_MAX: usize = 10;

/// Watches policy files until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch what `policy` was loaded from, telling `told` what comes
    /// of it. `None` where that is the built-in starter, which does not change.
    ///
    /// # Errors
    /// The system's file watching is unavailable or at its limit.
    pub fn start(policy: Arc<LocalPolicy>, told: Told) -> Result<Option<Self>, WatchError> {
        let Some(path) = policy.settings().path.clone() else {
            return Ok(None);
        };
        // One place is enough: a second change while one waits changes nothing.
        let (waker, woken) = sync_channel(1);
        let changed = waker.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading the files is an event too, and must not lead to the next.
                if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                    wake(&changed);
                }
            })
            .map_err(|error| WatchError::new(&path, &error))?;
        watch(&mut watcher, &path).map_err(|error| WatchError::new(&path, &error))?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("policy-watch".to_owned())
            .spawn({
                let stop = Arc::clone(&stop);
                move || {
                    while files_changed(&path, &mut watcher, &woken, &stop) {
                        // An error was logged by `reload`, which knows file and line.
                        told(&policy.reload());
                    }
                }
            })
            .map_err(|error| WatchError(format!("policy files cannot be watched: {error}")))?;
        Ok(Some(Self {
            stop,
            wake: waker,
            thread: Some(thread),
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        wake(&self.wake);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Policy files cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchError(String);

impl WatchError {
    fn new(path: &Path, error: &notify::Error) -> Self {
        Self(format!("{}: cannot be watched: {error}", path.display()))
    }
}

impl std::fmt::Display for WatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WatchError {}

/// A wake-up that waits already is as good as another.
fn wake(waker: &SyncSender<()>) {
    match waker.try_send(()) {
        Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
    }
}

/// Waits until files have changed and settled; `false` once nobody watches.
fn files_changed(
    path: &Path,
    watcher: &mut RecommendedWatcher,
    woken: &Receiver<()>,
    stop: &AtomicBool,
) -> bool {
    if woken.recv().is_err() {
        return false;
    }
    for _ in 0..SETTLE_ROUNDS_MAX {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        if woken.recv_timeout(SETTLE) == Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    // A folder that was replaced is another one, though its name is the
    // same. While it is away its parent is still watched.
    if let Err(error) = watch(watcher, path) {
        tracing::warn!(path = %path.display(), %error, "policy files cannot be watched");
    }
    !stop.load(Ordering::Relaxed)
}

/// Watches the folder around `path`, and `path` with all below it if it is a
/// folder itself.
fn watch(watcher: &mut RecommendedWatcher, path: &Path) -> notify::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    watcher.watch(parent, RecursiveMode::NonRecursive)?;
    if path.is_dir() {
        watcher.watch(path, RecursiveMode::Recursive)?;
    }
    Ok(())
}
