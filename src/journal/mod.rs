//! What happened, one JSON line a record, appended before a permit is granted.
//!
//! With [`Durability::Batch`] the line is written to the operating system
//! before [`Journal::append`] returns, so it survives `kill -9`; it is synced
//! to the disk within [`Settings::sync_within`], so a power cut may lose that
//! window. [`Journal::append_soon`] is for what merely confirms a decision that
//! is written already: it goes out with the next line, or within
//! [`WRITTEN_WITHIN`].
//!
//! Each record is chained to the one before (`chain`), signed every so often
//! (`segment`, `sign`), and can be proved offline ([`verify`]). `journal.jsonl`
//! is the segment that is written to; full ones are `journal-000001.jsonl`, …

mod chain;
mod counted;
pub mod follow;
mod json;
pub mod record;
mod recover;
mod retain;
mod segment;
pub mod ship;
mod sign;
mod tail;
#[cfg(test)]
mod tests;
mod untold;
pub mod verify;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

pub use counted::Counted;
pub use record::Record;
pub use sign::PublicKey;

use recover::Failure;
pub use tail::Head;
use tail::{Tail, Ticket};

use crate::domain::Timestamp;
use crate::metrics::Metrics;
use crate::process::clock;

/// What a crash may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Written within [`WRITTEN_WITHIN`], never synced: a crash of the sidecar
    /// may lose that, a power cut more.
    None,
    /// Written before the permit is granted, synced soon after.
    #[default]
    Batch,
    /// Written and synced before the permit is granted.
    Every,
}

/// What is done when the disk takes no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// What needs a record is refused.
    #[default]
    Refuse,
    /// The oldest segments are deleted, whatever they hold.
    DropOldest,
}

/// Where the journal is and how it is kept. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the segments; created if missing.
    pub folder: PathBuf,
    /// What a crash may take.
    pub durability: Durability,
    /// Longest time until a record is synced to the disk.
    pub sync_within: Duration,
    /// Size at which a segment is closed, bytes.
    pub segment_bytes: u64,
    /// What is done when the disk takes no more.
    pub on_full: OnFull,
    /// Age at which a closed segment is deleted.
    pub keep_for: Duration,
    /// Most bytes of all segments together; older ones are deleted first.
    pub keep_bytes: u64,
}

impl Settings {
    /// The defaults, in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            durability: Durability::default(),
            sync_within: Duration::from_millis(50),
            segment_bytes: 64 << 20,
            on_full: OnFull::default(),
            keep_for: Duration::from_secs(200 * 24 * 3600),
            keep_bytes: 8 << 30,
        }
    }
}

/// The open journal. One process at a time may have it open.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    path: PathBuf,
    tail: Arc<Tail>,
    durability: Durability,
    /// Locked for as long as the journal is open.
    lock: Option<File>,
}

impl Journal {
    /// Opens or creates the journal and starts syncing it from a thread of its
    /// own, which ends when the journal is dropped.
    ///
    /// # Errors
    /// The folder cannot be made or written, another sidecar has it locked, or
    /// what is in it is another sidecar's or another version's; the text says
    /// which, and names the setting.
    pub fn open(settings: &Settings) -> Result<Arc<Self>, OpenError> {
        let folder = settings.folder.as_path();
        let fail = |what: &'static str| {
            let folder = folder.to_path_buf();
            move |source| OpenError::Io {
                what,
                folder,
                source,
            }
        };
        std::fs::create_dir_all(folder).map_err(fail("create"))?;
        let lock = OpenOptions::new()
            .mode(0o600)
            .create(true)
            .append(true)
            .open(folder.join("journal.lock"))
            .map_err(fail("write in"))?;
        lock.try_lock()
            .map_err(|error| fail("lock")(error.into()))?;
        let start = recover::recover(folder).map_err(|failure| match failure {
            Failure::Io(error) => fail("continue the journal in")(error),
            Failure::Foreign(why) => OpenError::Foreign(why),
        })?;
        let journal = Arc::new(Self {
            folder: folder.to_path_buf(),
            path: folder.join(segment::ACTIVE),
            tail: Arc::new(Tail::new(settings, start)),
            durability: settings.durability,
            lock: Some(lock),
        });
        journal
            .sync_regularly(settings.sync_within)
            .map_err(fail("start syncing"))?;
        Ok(journal)
    }

    /// A journal whose lines go to `file`, which takes none or keeps none; its
    /// key is in `folder`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn on(file: File, folder: &Path) -> io::Result<Arc<Self>> {
        let start = tail::Start {
            file,
            key: sign::Key::load_or_make(folder)?,
            link: chain::Link::default(),
            segment: 1,
            length: 0,
            unsigned: 0,
            floor: u64::MAX,
        };
        let settings = Settings {
            segment_bytes: u64::MAX,
            ..Settings::new(folder)
        };
        Ok(Arc::new(Self {
            folder: folder.to_path_buf(),
            path: PathBuf::new(),
            tail: Arc::new(Tail::new(&settings, start)),
            durability: Durability::Batch,
            lock: None,
        }))
    }

    /// The segment that is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the next record will stand.
    fn end(&self) -> untold::Place {
        self.tail.end()
    }

    /// Where the chain has got to.
    ///
    /// # Errors
    /// As [`Self::append`], where waiting records have to be written first.
    pub fn head(&self) -> io::Result<Head> {
        self.flush()?;
        Ok(self.tail.head())
    }

    /// Counts failures and deleted segments in `metrics` from now on.
    pub fn count_in(&self, metrics: Arc<Metrics>) {
        self.tail.count_in(metrics);
    }

    /// Keeps segment `number` and all after it, however old or large they are.
    fn keep_from(&self, number: u64) {
        self.tail.keep_from(number);
    }

    /// Appends one record. Blocks for as long as the durability asks: for one
    /// `write` to the page cache, or until the disk has it.
    ///
    /// # Errors
    /// The system did not take the whole line (disk full, file system gone).
    /// What was to be recorded must then not happen.
    pub fn append(&self, record: &Record<'_>) -> io::Result<()> {
        encoded(record, |line| match self.durability {
            Durability::None => self.tail.append_soon(line),
            Durability::Batch | Durability::Every => self.tail.append(line),
        })
    }

    /// Appends one record as [`Self::append`] does, once the tasks of this thread
    /// that can run have had a turn: one write then takes what all of them append.
    /// A write of its own for each was an eighth of what a request costs.
    ///
    /// The record stands in line once this returns, and is written whether or
    /// not [`Pending::written`] is waited for.
    ///
    /// # Errors
    /// The record cannot be encoded.
    pub fn append_together(&self, record: &Record<'_>) -> io::Result<Pending<'_>> {
        encoded(record, |line| match self.durability {
            Durability::None => self.tail.append_soon(line).map(|()| Pending(None)),
            Durability::Batch | Durability::Every => Ok(Pending(Some(self.tail.waited_for(line)))),
        })
    }

    /// Appends one record with the next one, or within [`WRITTEN_WITHIN`],
    /// in order. For records whose loss would lose no decision: a write of its
    /// own for each of them would be a tenth of what a request costs.
    ///
    /// # Errors
    /// As [`Self::append`], where waiting records have to be written first.
    pub fn append_soon(&self, record: &Record<'_>) -> io::Result<()> {
        encoded(record, |line| self.tail.append_soon(line))
    }

    /// Writes what waits to be written with the next line.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn flush(&self) -> io::Result<()> {
        self.tail.flush(false)
    }

    fn sync_regularly(&self, every: Duration) -> io::Result<()> {
        // The tail and not the journal: dropping the journal must close it there
        // and then, and not when this thread happens to let go of it.
        let tail = Arc::downgrade(&self.tail);
        let synced = self.durability != Durability::None;
        // A thread and not a task: fdatasync blocks for as long as the disk likes.
        std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || {
                let pause = WRITTEN_WITHIN.min(every);
                let mut unsynced = Duration::ZERO;
                // At once: what waits since the last start may be too much already.
                let mut unswept = RETENTION_EVERY;
                let mut seen = clock::now();
                while let Some(tail) = tail.upgrade() {
                    // What fails is told and counted where it fails.
                    let _told = tail.flush(false);
                    if synced && unsynced >= every {
                        unsynced = Duration::ZERO;
                        let _told = tail.sync();
                    }
                    if unswept >= RETENTION_EVERY {
                        unswept = Duration::ZERO;
                        tail.retain();
                    }
                    drop(tail);
                    std::thread::sleep(pause);
                    let now = clock::now();
                    if let Some(by) = set_back(seen, now) {
                        tell_set_back(by);
                    }
                    seen = now;
                    unsynced = unsynced.saturating_add(pause);
                    unswept = unswept.saturating_add(pause);
                }
            })?;
        Ok(())
    }
}

/// A record of [`Journal::append_together`].
#[derive(Debug)]
#[must_use = "what is recorded must not happen before it is written"]
pub struct Pending<'a>(Option<Ticket<'a>>);

impl Pending<'_> {
    /// Returns once the record is written.
    ///
    /// Cancel-safe: dropped, the record is written with the next one.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub async fn written(self) -> io::Result<()> {
        if self.waits() {
            one_turn().await;
        }
        self.settle()
    }

    /// Whether it has to be written before what it records happens.
    pub fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the record and what stands in line before it, unless that was done.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn settle(self) -> io::Result<()> {
        self.0.map_or(Ok(()), Ticket::settle)
    }
}

/// Lets the other tasks of this thread that can run have a turn, once: what they
/// put in line is then written together.
pub fn one_turn() -> impl Future<Output = ()> {
    OneTurn::default()
}

/// Lets the other tasks that can run go first, once. Unlike tokio's own
/// `yield_now` it does not look for events meanwhile: a task alone on its thread
/// would pay a system call for that.
#[derive(Debug, Default)]
struct OneTurn {
    had: bool,
}

impl Future for OneTurn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.had, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How much earlier than `seen` it is `now`, unless that is what keeping a clock
/// right may do.
fn set_back(seen: Timestamp, now: Timestamp) -> Option<Duration> {
    let by = seen.since(now);
    (by > CLOCK_KEPT_RIGHT).then_some(by)
}

/// By how much keeping a clock right may set it back.
const CLOCK_KEPT_RIGHT: Duration = Duration::from_secs(1);

fn tell_set_back(by: Duration) {
    tracing::warn!(
        seconds = by.as_secs_f64(),
        "the clock of this machine was set back: times in the journal are out of order, its records and their numbers are not"
    );
}

/// How often old segments are looked for.
const RETENTION_EVERY: Duration = Duration::from_secs(10);

/// Encodes `record` and gives it to `take`.
fn encoded<T>(record: &Record<'_>, take: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
    thread_local! {
        static LINE: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    LINE.with_borrow_mut(|line| {
        line.clear();
        json::write(record, line)?;
        let taken = take(line);
        if line.capacity() > LINE_KEPT_MAX {
            *line = Vec::new();
        }
        taken
    })
}

impl Drop for Journal {
    fn drop(&mut self) {
        // What fails is told and counted where it fails.
        let _told = self.tail.flush(true);
        if self.durability != Durability::None {
            let _told = self.tail.sync();
        }
        if let Some(Err(error)) = self.lock.as_ref().map(File::unlock) {
            tracing::error!(%error, "the state folder cannot be unlocked");
        }
    }
}

/// Longest line buffer a thread keeps for its next record, bytes.
const LINE_KEPT_MAX: usize = 1 << 16;

/// Longest time until a record of [`Journal::append_soon`] is written.
pub const WRITTEN_WITHIN: Duration = Duration::from_millis(10);

/// The journal cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The system says no.
    Io {
        /// What it says no to.
        what: &'static str,
        /// Where.
        folder: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// What is there is another sidecar's, or another version's.
    Foreign(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, folder, source) = match self {
            Self::Io {
                what,
                folder,
                source,
            } => (what, folder, source),
            Self::Foreign(why) => {
                return write!(
                    f,
                    "the journal is not continued: {why}; move it away, or set --state-dir to another folder"
                );
            }
        };
        let kind = source.kind();
        let known = [
            (
                io::ErrorKind::WouldBlock,
                "another openbox-sidecar is using it",
            ),
            (
                io::ErrorKind::PermissionDenied,
                "this user may not write there",
            ),
            (io::ErrorKind::StorageFull, "the disk is full"),
            (
                io::ErrorKind::ReadOnlyFilesystem,
                "the file system is read-only",
            ),
        ];
        let hint = known.iter().find(|(each, _)| *each == kind);
        let hint = hint.map_or("see the system's message", |(_, hint)| hint);
        write!(
            f,
            "cannot {} the state folder {}: {} ({hint}); set --state-dir to a folder this user may write",
            what,
            folder.display(),
            source
        )
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Foreign(_) => None,
        }
    }
}
