//! What happened, one JSON line a record, appended before a permit is granted.
//!
//! The line is written to the operating system before [`Journal::append`]
//! returns, so it survives `kill -9`; it is synced to the disk within
//! [`Settings::sync_within`], so a power cut may lose that window.
//! [`Journal::append_soon`] is for what merely confirms a decision that is
//! written already: it goes out with the next line, or within
//! [`WRITTEN_WITHIN`].

mod json;
pub mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use record::Record;

/// Where the journal is and how it is synced. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of `journal.jsonl`; created if missing.
    pub folder: PathBuf,
    /// Longest time until a record is synced to the disk.
    pub sync_within: Duration,
}

/// The open journal. One process at a time may have it open.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    tail: Tail,
    dirty: AtomicBool,
}

#[derive(Debug)]
struct Tail {
    file: File,
    /// A write broke off inside a line: the next one must begin on its own.
    torn: AtomicBool,
    /// Whole lines that go out with the next one.
    waiting: Mutex<Vec<u8>>,
}

impl Tail {
    fn new(file: File, torn: bool) -> Self {
        Self {
            file,
            torn: AtomicBool::new(torn),
            waiting: Mutex::default(),
        }
    }
}

impl Journal {
    /// Opens or creates the journal and starts syncing it from a thread of its
    /// own, which ends when the journal is dropped.
    ///
    /// # Errors
    /// The folder cannot be made or written, or another sidecar has it locked;
    /// the text says which, and names the setting.
    pub fn open(settings: &Settings) -> Result<Arc<Self>, OpenError> {
        let folder = settings.folder.as_path();
        let fail = |what: &'static str| {
            let folder = folder.to_path_buf();
            move |source| OpenError {
                what,
                folder,
                source,
            }
        };
        std::fs::create_dir_all(folder).map_err(fail("create"))?;
        let path = folder.join("journal.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(fail("write in"))?;
        file.try_lock()
            .map_err(|error| fail("lock")(error.into()))?;
        let torn = ends_inside_a_line(&file).map_err(fail("read in"))?;
        let journal = Arc::new(Self {
            path,
            tail: Tail::new(file, torn),
            dirty: AtomicBool::new(false),
        });
        journal
            .sync_regularly(settings.sync_within)
            .map_err(fail("start syncing"))?;
        Ok(journal)
    }

    /// A journal whose lines go to `file`, for tests of one that takes none.
    #[cfg(test)]
    pub(crate) fn on(file: File) -> Arc<Self> {
        Arc::new(Self {
            path: PathBuf::new(),
            tail: Tail::new(file, false),
            dirty: AtomicBool::new(false),
        })
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one record. Blocks for one `write` to the page cache.
    ///
    /// # Errors
    /// The system did not take the whole line (disk full, file system gone).
    /// What was to be recorded must then not happen.
    pub fn append(&self, record: &Record<'_>) -> io::Result<()> {
        encoded(record, |line| {
            let written = self.tail.write(line);
            self.dirty.store(true, Ordering::Release);
            written
        })
    }

    /// Appends one record with the next one, or within [`WRITTEN_WITHIN`],
    /// in order. For records whose loss would lose no decision: a write of its
    /// own for each of them would be a tenth of what a request costs.
    ///
    /// # Errors
    /// As [`Self::append`], where waiting records have to be written first.
    pub fn append_soon(&self, record: &Record<'_>) -> io::Result<()> {
        encoded(record, |line| {
            self.dirty.store(true, Ordering::Release);
            self.tail.write_soon(line)
        })
    }

    /// Writes what waits to be written with the next line.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn flush(&self) -> io::Result<()> {
        self.tail.flush()
    }

    fn sync_regularly(self: &Arc<Self>, every: Duration) -> io::Result<()> {
        let journal = Arc::downgrade(self);
        let file = self.tail.file.try_clone()?;
        // A thread and not a task: fdatasync blocks for as long as the disk likes.
        std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || {
                let mut unsynced = Duration::ZERO;
                while let Some(journal) = journal.upgrade() {
                    if let Err(error) = journal.flush() {
                        tracing::error!(%error, "journal cannot be written");
                    }
                    let due = unsynced >= every;
                    if due {
                        unsynced = Duration::ZERO;
                    }
                    let dirty = due && journal.dirty.swap(false, Ordering::AcqRel);
                    drop(journal);
                    if dirty && let Err(error) = file.sync_data() {
                        tracing::error!(%error, "journal cannot be synced to the disk");
                    }
                    let pause = WRITTEN_WITHIN.min(every);
                    std::thread::sleep(pause);
                    unsynced = unsynced.saturating_add(pause);
                }
            })?;
        Ok(())
    }
}

/// Encodes `record` as a line and gives it to `take`.
fn encoded(record: &Record<'_>, take: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
    thread_local! {
        static LINE: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    LINE.with_borrow_mut(|line| {
        line.clear();
        json::write(record, line)?;
        line.push(b'\n');
        let taken = take(line);
        if line.capacity() > LINE_KEPT_MAX {
            *line = Vec::new();
        }
        taken
    })
}

impl Drop for Journal {
    fn drop(&mut self) {
        let tail = &self.tail;
        if let Err(error) = tail.flush() {
            tracing::error!(%error, "journal cannot be written");
        }
        // Given up by hand: the syncing thread's handle would keep it a while.
        if let Err(error) = tail.file.sync_data().and_then(|()| tail.file.unlock()) {
            tracing::error!(%error, "journal cannot be synced to the disk");
        }
    }
}

/// Longest line buffer a thread keeps for its next record, bytes.
const LINE_KEPT_MAX: usize = 1 << 16;

/// Longest time until a record of [`Journal::append_soon`] is written.
pub const WRITTEN_WITHIN: Duration = Duration::from_millis(10);

/// Most bytes that wait to be written with the next line.
const WAITING_BYTES_MAX: usize = 1 << 16;

impl Tail {
    /// Writes what waits and `line` with one system call, which is atomic for a
    /// file opened for appending: no lock is held meanwhile. If it fails, what
    /// waits goes on waiting, and `line` is not recorded.
    fn write(&self, line: &[u8]) -> io::Result<()> {
        let mut batch = std::mem::take(&mut *self.waiting());
        let torn = self.torn.swap(false, Ordering::AcqRel);
        if batch.is_empty() && !torn {
            return self.put(line);
        }
        let waited = batch.len();
        batch.extend_from_slice(line);
        let written = match torn {
            true => self.put(&[b"\n", batch.as_slice()].concat()),
            false => self.put(&batch),
        };
        match written {
            Ok(()) => batch.clear(),
            Err(_) => batch.truncate(waited),
        }
        let mut waiting = self.waiting();
        batch.extend_from_slice(&waiting);
        *waiting = batch;
        written
    }

    fn put(&self, lines: &[u8]) -> io::Result<()> {
        let written = (&self.file).write_all(lines);
        written.inspect_err(|_| self.torn.store(true, Ordering::Release))
    }

    fn write_soon(&self, line: &[u8]) -> io::Result<()> {
        let mut waiting = self.waiting();
        if waiting.len().saturating_add(line.len()) > WAITING_BYTES_MAX {
            drop(waiting);
            return self.write(line);
        }
        waiting.extend_from_slice(line);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let idle = self.waiting().is_empty();
        if idle { Ok(()) } else { self.write(b"") }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that died inside a write leaves half a line; what follows must
/// not be glued to it.
fn ends_inside_a_line(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    let Some(last) = length.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

/// The journal cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    what: &'static str,
    folder: PathBuf,
    source: io::Error,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.source.kind();
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
            self.what,
            self.folder.display(),
            self.source
        )
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn open(folder: &Path) -> Result<Arc<Journal>, OpenError> {
        Journal::open(&Settings {
            folder: folder.to_path_buf(),
            sync_within: Duration::from_millis(5),
        })
    }

    fn resume(run: &str) -> Record<'_> {
        Record::Resume {
            at: Timestamp(1),
            run_id: run,
            by: "operator",
        }
    }

    #[test]
    fn each_record_is_one_line_even_after_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        std::fs::write(&path, "{\"half").unwrap();
        let journal = open(folder.path()).unwrap();
        journal.append(&resume("a")).unwrap();
        journal.append(&resume("b")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("\"run_id\":\"a\""), "{text}");
        assert!(lines[2].contains("\"run_id\":\"b\""), "{text}");
    }

    #[test]
    fn what_waits_is_written_in_order_and_before_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let journal = open(folder.path()).unwrap();
        journal.append_soon(&resume("a")).unwrap();
        journal.append(&resume("b")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.find("\"a\"").unwrap() < text.find("\"b\"").unwrap());
        journal.append_soon(&resume("c")).unwrap();
        while !std::fs::read_to_string(&path).unwrap().contains("\"c\"") {
            std::thread::yield_now();
        }
        journal.append_soon(&resume("d")).unwrap();
        drop(journal);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"d\""));
    }

    #[test]
    fn a_second_sidecar_is_told_that_the_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path()).unwrap();
        let text = open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("another openbox-sidecar"), "{text}");
        assert!(text.contains("--state-dir"), "{text}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_a_lost_record() {
        let full = Path::new("/dev/full");
        let file = OpenOptions::new().append(true).open(full).unwrap();
        let tail = Tail::new(file, false);
        tail.write_soon(b"{\"waits\":1}\n").unwrap();
        let error = tail.write(b"{}\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(tail.torn.load(Ordering::Relaxed));
        assert_eq!(*tail.waiting(), b"{\"waits\":1}\n");
    }
}
