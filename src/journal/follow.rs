//! Reading along: every record from a place on, each once and in order, also
//! across a restart, for the numbers are the journal's own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::Journal;
use super::chain;
use super::segment::{self, ACTIVE};
use super::untold::{self, Place};

/// Longest first line of a segment, bytes.
const HEADER_BYTES_MAX: u64 = 1 << 16;

/// A record as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the chain.
    pub number: u64,
    /// The whole line, without its line feed.
    pub text: String,
}

/// Where somebody who reads along is.
#[derive(Debug)]
pub struct Follower {
    journal: Arc<Journal>,
    place: Place,
    /// The last record that was read; none before it is given out.
    after: Option<u64>,
}

impl Follower {
    /// Reads what is written from now on.
    pub fn from_now(journal: Arc<Journal>) -> Self {
        let place = journal.end();
        Self {
            journal,
            place,
            after: None,
        }
    }

    /// Reads everything that is there, and what comes after it. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn from_start(journal: Arc<Journal>) -> io::Result<Self> {
        let oldest = segment::closed(journal.folder())?.into_iter().min();
        Ok(Self::at(journal, oldest))
    }

    /// Reads from the beginning of the newest full segment on: of the recent
    /// past, no more than two segments. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn recent(journal: Arc<Journal>) -> io::Result<Self> {
        let newest = segment::closed(journal.folder())?.into_iter().max();
        Ok(Self::at(journal, newest))
    }

    fn at(journal: Arc<Journal>, segment: Option<u64>) -> Self {
        let place = Place {
            segment: segment.unwrap_or(journal.end().segment),
            offset: 0,
        };
        Self {
            journal,
            place,
            after: None,
        }
    }

    /// Reads what comes after record `number`, or, where that is deleted, from
    /// the oldest record on. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn after(journal: Arc<Journal>, number: u64) -> io::Result<Self> {
        let end = journal.end();
        let mut place = Place {
            segment: end.segment,
            offset: 0,
        };
        let mut closed = segment::closed(journal.folder())?;
        let mut path = journal.folder().join(ACTIVE);
        while first(&path)?.is_none_or(|first| first > number) {
            let Some(older) = closed.pop() else { break };
            place.segment = older;
            path = segment::closed_path(journal.folder(), older);
        }
        Ok(Self {
            journal,
            place,
            after: Some(number),
        })
    }

    /// Whether something may be there to read.
    pub fn is_behind(&self) -> bool {
        self.place < self.journal.end()
    }

    /// What comes next, some of it; nothing where nothing is there yet. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<Line>> {
        let end = self.journal.end();
        let mut all = Vec::new();
        let mut after = self.after;
        self.place = untold::lines(self.journal.folder(), self.place, end, &mut |line, _, _| {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let Some(number) = chain::number(line) else {
                return;
            };
            if after.is_none_or(|after| number > after) {
                after = Some(number);
                let text = String::from_utf8_lossy(line).into_owned();
                all.push(Line { number, text });
            }
        })?;
        self.after = after;
        Ok(all)
    }
}

/// The number of the first record of a segment; `None` where it has none.
fn first(path: &Path) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut line = Vec::new();
    BufReader::new(file)
        .take(HEADER_BYTES_MAX)
        .read_until(b'\n', &mut line)?;
    Ok(line.strip_suffix(b"\n").and_then(chain::number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::journal::{Record, Settings};

    fn halt(journal: &Journal) {
        let record = Record::Halt {
            at: Timestamp(1),
            workflow_id: "w",
            run_id: "r",
            by: "a test",
            reason: "none",
        };
        journal.append(&record).unwrap();
    }

    fn read(follower: &mut Follower) -> Vec<u64> {
        let mut all = Vec::new();
        while follower.is_behind() {
            all.extend(follower.more().unwrap().into_iter().map(|line| line.number));
        }
        all
    }

    #[test]
    fn over_segments_and_a_restart_each_record_is_read_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            segment_bytes: 1_000,
            ..Settings::new(folder.path())
        };
        let journal = Journal::open(&settings).unwrap();
        let mut along = Follower::from_now(journal.clone());
        for _ in 0..20 {
            halt(&journal);
        }
        let before = read(&mut along);
        assert!(before.len() > 20, "segments have headers: {before:?}");
        drop(along);
        drop(journal);
        let journal = Journal::open(&settings).unwrap();
        for _ in 0..20 {
            halt(&journal);
        }
        let whole: Vec<u64> = {
            let mut from_start = Follower::after(journal.clone(), 0).unwrap();
            read(&mut from_start)
        };
        let last = whole.last().copied().unwrap();
        assert_eq!(whole, (1..=last).collect::<Vec<_>>());
        for seen in [0, 1, 7, before.last().copied().unwrap(), last - 1, last] {
            let mut again = Follower::after(journal.clone(), seen).unwrap();
            assert_eq!(
                read(&mut again),
                (seen + 1..=last).collect::<Vec<_>>(),
                "after {seen}"
            );
        }
    }
}
