//! The end of the journal: what waits to be written, and the one writer.
//!
//! Who appends puts its record among those that wait, and then either writes
//! all of them or finds that whoever held the writer before it has done so.
//! Records get their number and hash only when they are written, so the order
//! of the chain is that of the file, and a write that failed leaves no hole.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::chain::{self, Link};
use super::retain::{self, Deleted, Retention};
use super::segment::{self, ACTIVE, CHECKPOINT_EVERY, Header};
use super::sign::{Key, PublicKey};
use super::untold::Place;
use super::{Durability, OnFull, Settings};
use crate::metrics::{Metrics, SegmentDeleted};
use crate::process::clock;

/// Longest time records go without a signature.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(10);

/// How often a busy writer is looked at before waiting asleep.
const SPINS: u32 = 400;

/// Most bytes that wait to be written with the next record.
const WAITING_BYTES_MAX: usize = 1 << 16;

/// Largest buffer kept for the next batch, bytes.
const BUFFER_KEPT_MAX: usize = 1 << 18;

#[derive(Debug)]
pub(super) struct Tail {
    waiting: Mutex<Waiting>,
    writer: Mutex<Writer>,
    settled: Settled,
    retention: Retention,
    /// The oldest segment that is still needed.
    floor: Arc<AtomicU64>,
    counted: Counted,
    /// Where the next record will stand, for who reads along: they must not take
    /// the writer's lock.
    end: Mutex<Place>,
}

/// Where the chain of a journal has got to.
#[derive(Clone, Debug)]
pub struct Head {
    /// Number of the record that comes next.
    pub next: u64,
    /// The hash of the record before it, hex.
    pub chain: String,
    /// Number of the segment that is written to.
    pub segment: u64,
    /// Bytes in it.
    pub offset: u64,
    /// Who signs it.
    pub key: PublicKey,
}

/// What came of tickets, for who asks without the writer.
#[derive(Debug, Default)]
struct Settled {
    /// Tickets below are settled.
    below: AtomicU64,
    /// How many of them were not written and nobody has heard so.
    failed: AtomicUsize,
}

impl Settled {
    fn is_written(&self, ticket: u64) -> bool {
        // In this order: who settles counts failures first.
        self.below.load(Ordering::Acquire) > ticket && self.failed.load(Ordering::Acquire) == 0
    }
}

/// A record that waits to be written, and somebody who waits to hear of it.
#[derive(Debug)]
#[must_use = "a record that is waited for is written by who waits"]
pub(super) struct Ticket<'a> {
    tail: &'a Tail,
    number: u64,
    heard: bool,
}

impl Ticket<'_> {
    /// Writes the record and what waits before it, unless somebody has.
    pub(super) fn settle(mut self) -> io::Result<()> {
        self.heard = true;
        let tail = self.tail;
        if tail.settled.is_written(self.number) {
            return Ok(());
        }
        let mut writer = tail.writer();
        if tail.settled.below.load(Ordering::Acquire) <= self.number {
            tail.write(&mut writer, false)?;
        }
        tail.outcome(&mut writer, self.number)
    }
}

impl Drop for Ticket<'_> {
    /// Nobody waits any more: the record is written with the next one.
    fn drop(&mut self) {
        if self.heard || self.tail.waiting().disown(self.number) {
            return;
        }
        // Taken by the writer: what came of it is known once that is free.
        let told = self.tail.outcome(&mut self.tail.writer(), self.number);
        if let Err(error) = told {
            tracing::error!(%error, "a record whose operation was given up is not in the journal");
        }
    }
}

/// Where failures are counted, once there is such a place.
type Counted = Arc<OnceLock<Arc<Metrics>>>;

/// Encoded records, end to end.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The next ticket.
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    length: usize,
    /// Of somebody who waits to hear whether it was written.
    ticket: Option<u64>,
}

impl Waiting {
    fn push(&mut self, record: &[u8], ticket: Option<u64>) {
        self.bytes.extend_from_slice(record);
        let length = record.len();
        self.entries.push(Entry { length, ticket });
    }

    /// Whether `ticket` was waiting; nobody waits for it from now on.
    fn disown(&mut self, ticket: u64) -> bool {
        let entry = self.entries.iter_mut().find(|e| e.ticket == Some(ticket));
        entry.map(|entry| entry.ticket = None).is_some()
    }

    fn records(&self) -> impl Iterator<Item = (&[u8], Option<u64>)> {
        let mut rest = self.bytes.as_slice();
        self.entries.iter().map(move |entry| {
            let (record, after) = rest.split_at_checked(entry.length).unwrap_or_default();
            rest = after;
            (record, entry.ticket)
        })
    }
}

#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    file: Arc<File>,
    key: Key,
    link: Link,
    /// Number of the segment.
    segment: u64,
    /// Bytes of whole records in it; none means that its header is due.
    length: u64,
    segment_bytes: u64,
    sync: bool,
    makes_room: bool,
    /// See [`Tail::floor`].
    floor: Arc<AtomicU64>,
    /// The last write failed, and that was told.
    failing: bool,
    counted: Counted,
    /// A write broke off: what stands behind `length` has to go first.
    torn: bool,
    unsigned: u64,
    signed_at: Instant,
    unsynced: bool,
    /// Tickets that were not written, until their owner looks: each has a
    /// [`Ticket`], which bounds them.
    failed: HashMap<u64, io::ErrorKind>,
    frames: Vec<u8>,
}

/// Where a journal goes on.
pub(super) struct Start {
    pub(super) file: File,
    pub(super) key: Key,
    pub(super) link: Link,
    pub(super) segment: u64,
    pub(super) length: u64,
    pub(super) unsigned: u64,
    /// The oldest segment that is still needed.
    pub(super) floor: u64,
}

impl Tail {
    pub(super) fn new(settings: &Settings, start: Start) -> Self {
        let counted = Counted::default();
        let floor = Arc::new(AtomicU64::new(start.floor));
        Self {
            waiting: Mutex::default(),
            settled: Settled::default(),
            retention: Retention {
                keep_for: settings.keep_for,
                keep_bytes: settings.keep_bytes,
            },
            floor: floor.clone(),
            counted: counted.clone(),
            end: Mutex::new(Place {
                segment: start.segment,
                offset: start.length,
            }),
            writer: Mutex::new(Writer {
                folder: settings.folder.clone(),
                file: Arc::new(start.file),
                key: start.key,
                link: start.link,
                segment: start.segment,
                length: start.length,
                segment_bytes: settings.segment_bytes,
                sync: settings.durability == Durability::Every,
                makes_room: settings.on_full == OnFull::DropOldest,
                floor,
                failing: false,
                counted,
                torn: false,
                unsigned: start.unsigned,
                signed_at: Instant::now(),
                unsynced: false,
                failed: HashMap::new(),
                frames: Vec::new(),
            }),
        }
    }

    /// Writes `record` and what waits before it.
    pub(super) fn append(&self, record: &[u8]) -> io::Result<()> {
        self.waited_for(record).settle()
    }

    /// How many tickets failed and nobody has heard so.
    #[cfg(test)]
    pub(super) fn untold_failures(&self) -> usize {
        self.writer().failed.len()
    }

    /// Lets `record` wait until somebody settles the ticket, or a later one.
    pub(super) fn waited_for(&self, record: &[u8]) -> Ticket<'_> {
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next = number.saturating_add(1);
        waiting.push(record, Some(number));
        drop(waiting);
        Ticket {
            tail: self,
            number,
            heard: false,
        }
    }

    /// Lets `record` wait for the next one.
    pub(super) fn append_soon(&self, record: &[u8]) -> io::Result<()> {
        let mut waiting = self.waiting();
        if waiting.bytes.len().saturating_add(record.len()) > WAITING_BYTES_MAX {
            drop(waiting);
            return self.append(record);
        }
        waiting.push(record, None);
        Ok(())
    }

    /// Writes what waits, and a checkpoint if one is due or `last`.
    pub(super) fn flush(&self, last: bool) -> io::Result<()> {
        let mut writer = self.writer();
        let sign = last || writer.signed_at.elapsed() >= CHECKPOINT_WITHIN;
        self.write(&mut writer, sign)
    }

    /// Counts in `metrics` from now on.
    pub(super) fn count_in(&self, metrics: Arc<Metrics>) {
        // Said once; a second time changes nothing.
        drop(self.counted.set(metrics));
    }

    /// Keeps segment `floor` and all after it, however old or large they are.
    pub(super) fn keep_from(&self, floor: u64) {
        self.floor.store(floor, Ordering::Release);
    }

    /// Where the next record will stand.
    pub(super) fn end(&self) -> Place {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the chain has got to.
    pub(super) fn head(&self) -> Head {
        let writer = self.writer();
        Head {
            next: writer.link.next,
            chain: chain::hex(&writer.link.hash),
            segment: writer.segment,
            offset: writer.length,
            key: writer.key.public(),
        }
    }

    /// Deletes segments that are too old or too much.
    pub(super) fn retain(&self) {
        let folder = self.writer().folder.clone();
        let floor = self.floor.load(Ordering::Acquire);
        match self.retention.apply(&folder, floor, SystemTime::now()) {
            Ok(deleted) => deleted.iter().for_each(|one| self.counted.deleted(one)),
            Err(error) => {
                tracing::error!(%error, "old segments of the journal cannot be deleted");
            }
        }
    }

    /// Has what was written until now on the disk when it returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = {
            let mut writer = self.writer();
            let unsynced = std::mem::take(&mut writer.unsynced);
            unsynced.then(|| writer.file.clone())
        };
        // Nobody waits for the writer meanwhile.
        let synced = file.map_or(Ok(()), |file| file.sync_data());
        synced.inspect_err(|error| {
            self.counted.failed();
            tracing::error!(%error, "the journal cannot be synced to the disk: a power cut may lose records");
        })
    }

    /// Fails where no ticket can be told so; otherwise see [`Self::outcome`].
    fn write(&self, writer: &mut Writer, sign: bool) -> io::Result<()> {
        let (batch, settled) = {
            let mut waiting = self.waiting();
            let batch = Waiting {
                bytes: std::mem::take(&mut waiting.bytes),
                entries: std::mem::take(&mut waiting.entries),
                next: 0,
            };
            (batch, waiting.next)
        };
        let idle = batch.entries.is_empty() && !(sign && writer.unsigned > 0);
        let written = match idle {
            true => Ok(()),
            false => writer.write(&batch, sign),
        };
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Place {
            segment: writer.segment,
            offset: writer.length,
        };
        writer.tell(&written);
        let told = match written {
            Ok(()) => {
                self.give_back(batch);
                Ok(())
            }
            Err(error) => self.fail(writer, &batch, error),
        };
        self.settled.below.store(settled, Ordering::Release);
        told
    }

    /// What came of a settled ticket.
    fn outcome(&self, writer: &mut Writer, ticket: u64) -> io::Result<()> {
        let Some(kind) = writer.failed.remove(&ticket) else {
            return Ok(());
        };
        self.settled
            .failed
            .store(writer.failed.len(), Ordering::Release);
        Err(kind.into())
    }

    /// Whoever waits is told; what nobody waits for goes on waiting.
    fn fail(&self, writer: &mut Writer, batch: &Waiting, error: io::Error) -> io::Result<()> {
        let mut kept = Waiting::default();
        let mut told = false;
        for (record, ticket) in batch.records() {
            match ticket {
                None => kept.push(record, None),
                Some(ticket) => {
                    told = true;
                    writer.failed.insert(ticket, error.kind());
                }
            }
        }
        self.settled
            .failed
            .store(writer.failed.len(), Ordering::Release);
        let mut waiting = self.waiting();
        for (record, ticket) in waiting.records() {
            kept.push(record, ticket);
        }
        waiting.bytes = kept.bytes;
        waiting.entries = kept.entries;
        if told { Ok(()) } else { Err(error) }
    }

    /// The buffers of a batch serve the next one.
    fn give_back(&self, mut batch: Waiting) {
        let mut waiting = self.waiting();
        if waiting.entries.is_empty() && batch.bytes.capacity() <= BUFFER_KEPT_MAX {
            batch.bytes.clear();
            batch.entries.clear();
            waiting.bytes = batch.bytes;
            waiting.entries = batch.entries;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A write takes a few microseconds, and to be woken from a sleep takes
        // more: who is next looks again for as long as that.
        for _ in 0..SPINS {
            if let Ok(writer) = self.writer.try_lock() {
                return writer;
            }
            std::hint::spin_loop();
        }
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Announces that records are not taken, and that they are again.
    fn tell(&mut self, written: &io::Result<()>) {
        match written {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::warn!("the journal takes records again");
            }
            Ok(()) => {}
            Err(error) => {
                self.counted.failed();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, folder = %self.folder.display(), "the journal takes no records: what needs one is refused until it does");
                }
            }
        }
    }

    /// Writes a batch, deleting the oldest segments for it where that is asked
    /// for and the disk is full.
    fn write(&mut self, batch: &Waiting, sign: bool) -> io::Result<()> {
        loop {
            let error = match self.try_write(batch, sign) {
                Err(error) if self.makes_room && is_full(&error) => error,
                done => return done,
            };
            let floor = self.floor.load(Ordering::Acquire);
            match retain::drop_oldest(&self.folder, floor)? {
                Some(deleted) => {
                    if deleted.why == SegmentDeleted::FullUntold {
                        tracing::error!(
                            segment = deleted.segment,
                            "what OpenBox Core was not told is deleted with a segment: the disk is full and journal.on_full is drop_oldest"
                        );
                    }
                    self.counted.deleted(&deleted);
                }
                None => return Err(error),
            }
        }
    }

    /// Writes a batch with one system call; afterwards all of it stands in
    /// the file, or nothing of it counts.
    fn try_write(&mut self, batch: &Waiting, sign: bool) -> io::Result<()> {
        self.mend()?;
        let size = u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX);
        if self.length > 0 && self.length.saturating_add(size) > self.segment_bytes {
            self.rotate()?;
        }
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let written = self.frame(batch, sign, &mut frames).and_then(|framed| {
            self.put(&frames)?;
            Ok(framed)
        });
        if frames.capacity() <= BUFFER_KEPT_MAX {
            self.frames = frames;
        }
        let (link, unsigned) = written?;
        self.link = link;
        if unsigned == 0 {
            self.signed_at = Instant::now();
        }
        self.unsigned = unsigned;
        Ok(())
    }

    /// The batch as lines, and the chain and the unsigned records after them.
    fn frame(&self, batch: &Waiting, sign: bool, out: &mut Vec<u8>) -> io::Result<(Link, u64)> {
        let (mut link, mut unsigned) = (self.link, self.unsigned);
        if self.length == 0 {
            link.frame(&Header::line(&self.key, self.segment, &link)?, out);
            unsigned = unsigned.saturating_add(1);
        }
        for (record, _) in batch.records() {
            link.frame(record, out);
            unsigned = unsigned.saturating_add(1);
        }
        if (sign && unsigned > 0) || unsigned >= CHECKPOINT_EVERY {
            let line = segment::checkpoint(&self.key, &link, clock::now().0);
            link.frame(&line, out);
            unsigned = 0;
        }
        Ok((link, unsigned))
    }

    fn put(&mut self, frames: &[u8]) -> io::Result<()> {
        self.torn = true;
        (&*self.file).write_all(frames)?;
        if self.sync {
            self.file.sync_data()?;
        }
        self.torn = false;
        self.unsynced = !self.sync;
        let size = u64::try_from(frames.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_add(size);
        Ok(())
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        Ok(())
    }

    /// Signs and closes this segment and begins the next.
    fn rotate(&mut self) -> io::Result<()> {
        if self.unsigned > 0 {
            self.write_checkpoint()?;
        }
        self.file.sync_data()?;
        let active = self.folder.join(ACTIVE);
        match std::fs::rename(&active, segment::closed_path(&self.folder, self.segment)) {
            // An earlier attempt got as far as this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = Arc::new(open_active(&active)?);
        self.segment = self.segment.saturating_add(1);
        self.length = 0;
        File::open(&self.folder)?.sync_all()
    }

    fn write_checkpoint(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        let mut link = self.link;
        let checkpoint = segment::checkpoint(&self.key, &link, clock::now().0);
        link.frame(&checkpoint, &mut line);
        self.put(&line)?;
        self.link = link;
        self.unsigned = 0;
        self.signed_at = Instant::now();
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded
}

/// Counts and tells what became of segments and records.
trait Counting {
    fn failed(&self);
    fn deleted(&self, deleted: &Deleted);
}

impl Counting for Counted {
    fn failed(&self) {
        if let Some(metrics) = self.get() {
            metrics.journal_failed();
        }
    }

    fn deleted(&self, deleted: &Deleted) {
        if let Some(metrics) = self.get() {
            metrics.segment_deleted(deleted.why);
        }
        tracing::warn!(
            segment = deleted.segment,
            bytes = deleted.bytes,
            reason = deleted.why.as_str(),
            "a segment of the journal was deleted"
        );
    }
}

/// The file that is written to. Nobody else reads what an agent does, wherever
/// the folder is.
pub(super) fn open_active(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options.create(true).append(true).read(true).open(path)
}
