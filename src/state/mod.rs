//! What must survive a restart: open approvals and unused grants, halted runs,
//! open runs and activities.
//!
//! [`Store::put`] writes a change to a log before it returns, so a change that
//! anybody was told of survives `kill -9`; a thread of its own commits what was
//! logged to a redb file, synced to the disk, within [`COMMIT_WITHIN`], so a
//! power cut may lose that window. The log is emptied once it is committed, and
//! played again at start where it is not.

mod change;
mod log;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::metrics::Metrics;

pub use change::Change;
use change::Op;
use log::Log;
pub use rows::{KeptActivity, KeptApproval, KeptState, Restored};
use tables::Tables;

/// Longest time until a change is synced to the disk.
pub const COMMIT_WITHIN: Duration = Duration::from_millis(50);

/// How long the disk is left alone after it took no commit.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Most changes that wait for a commit; one more is refused.
const PENDING_MAX: usize = 100_000;

/// Remembers changes for the next start. Dropping it commits what is left.
#[derive(Debug)]
pub struct Store {
    /// `None`: this one forgets.
    shared: Option<Arc<Shared>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    turn: Mutex<Turn>,
    wake: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Turn {
    log: Log,
    /// Logged, and not committed.
    pending: Vec<Op>,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens or creates the state in `folder`, which the caller has locked, and
    /// reads what an earlier process left.
    ///
    /// # Errors
    /// The file cannot be read or written, is of another version, is held by
    /// another process, or is damaged; the text says which and what to do. It
    /// is never replaced by an empty one: halts would be lifted by that.
    pub fn open(folder: &Path, metrics: Arc<Metrics>) -> Result<(Self, Restored), OpenError> {
        let path = folder.join(tables::FILE);
        let fail = |what: What| OpenError {
            path: path.clone(),
            what,
        };
        let tables = Tables::open(&path).map_err(fail)?;
        let (log, left) = Log::open(folder).map_err(|error| fail(What::Log(error)))?;
        if !left.is_empty() {
            tables.apply(&left).map_err(fail)?;
        }
        let restored = tables.read().map_err(fail)?;
        let shared = Arc::new(Shared {
            turn: Mutex::new(Turn {
                log,
                pending: Vec::new(),
                closing: false,
            }),
            wake: Condvar::new(),
            metrics,
        });
        if !left.is_empty() {
            let emptied = shared.lock().log.forget_all();
            emptied.map_err(|error| fail(What::Log(error)))?;
        }
        let writer = {
            let shared = shared.clone();
            thread::Builder::new()
                .name("state".to_owned())
                .spawn(move || commit(&shared, &tables))
                .map_err(|error| fail(What::Log(error)))?
        };
        let store = Self {
            shared: Some(shared),
            writer: Some(writer),
        };
        Ok((store, restored))
    }

    /// A store that remembers nothing.
    pub fn nowhere() -> Self {
        Self {
            shared: None,
            writer: None,
        }
    }

    /// Remembers `change`. Blocks for one `write` to the page cache.
    ///
    /// # Errors
    /// The system did not take it (disk full, file system gone), or too much
    /// waits for a disk that takes nothing.
    pub fn put(&self, change: &Change<'_>) -> io::Result<()> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        let ops = change.ops();
        let mut turn = shared.lock();
        let written = if turn.pending.len() >= PENDING_MAX {
            Err(io::Error::other(
                "too many changes wait for a disk that takes none",
            ))
        } else {
            turn.log.append(&ops)
        };
        match written {
            Ok(()) => {
                turn.pending.extend(ops);
                drop(turn);
                shared.wake.notify_one();
            }
            Err(_) => shared.metrics.state_not_written(),
        }
        written
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.lock().closing = true;
            shared.wake.notify_one();
        }
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the state file panicked");
        }
    }
}

/// Commits what is logged until the store is dropped.
fn commit(shared: &Shared, tables: &Tables) {
    while let Some(ops) = next_batch(shared) {
        match tables.apply(&ops) {
            Ok(()) => {
                if let Err(error) = shared.lock().log.forget_committed() {
                    // Played once more at the next start, which changes nothing.
                    tracing::warn!(%error, "the state log cannot be emptied");
                }
            }
            Err(error) => {
                shared.metrics.state_not_written();
                tracing::error!(%error, "changes of approvals, runs and halts are only in the state log");
                let mut turn = shared.lock();
                let later = std::mem::replace(&mut turn.pending, ops);
                turn.pending.extend(later);
                if turn.closing {
                    return;
                }
                drop(
                    shared
                        .wake
                        .wait_timeout_while(turn, RETRY_AFTER, |turn| !turn.closing),
                );
            }
        }
    }
}

/// What is to be committed next; `None` once the store is dropped.
fn next_batch(shared: &Shared) -> Option<Vec<Op>> {
    let idle = |turn: &mut Turn| turn.pending.is_empty() && !turn.closing;
    let turn = shared.wake.wait_while(shared.lock(), idle);
    let turn = turn.unwrap_or_else(PoisonError::into_inner);
    // Whatever else comes meanwhile shares the sync.
    let gathered = shared
        .wake
        .wait_timeout_while(turn, COMMIT_WITHIN, |turn| !turn.closing);
    let (mut turn, _) = gathered.unwrap_or_else(PoisonError::into_inner);
    let ops = std::mem::take(&mut turn.pending);
    turn.log.switch();
    (!ops.is_empty()).then_some(ops)
}

/// Why the state of an earlier process cannot be used.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    what: What,
}

/// What is wrong with a state file.
#[derive(Debug)]
enum What {
    /// Another process has it.
    Locked,
    /// It was written by another version of this program.
    Version(String),
    /// It is something else.
    Foreign,
    /// A row of it makes no sense.
    Row(String),
    /// It cannot be read or written.
    Store(redb::Error),
    /// The log beside it cannot be read or written.
    Log(io::Error),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOVE: &str =
            "move it away to start without the approvals, runs and halts it remembers";
        match self {
            Self::Locked => f.write_str(
                "is in use by another process; stop it, or name a folder of your own with --state-dir",
            ),
            Self::Version(found) => write!(
                f,
                "is of version {found}, and this sidecar reads version {}; start the version that wrote it, or {MOVE}",
                tables::VERSION
            ),
            Self::Foreign => write!(f, "is no state file of this program; {MOVE}"),
            Self::Row(what) => write!(f, "is damaged ({what}); {MOVE}"),
            Self::Store(error) => write!(
                f,
                "cannot be used: {error}; make its folder writable, name another with --state-dir, or, if it is damaged, {MOVE}"
            ),
            Self::Log(error) => write!(
                f,
                "has a log that cannot be used: {error}; make the folder writable, or name another with --state-dir"
            ),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.what)
    }
}

impl std::error::Error for OpenError {}
