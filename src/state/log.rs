//! Changes on their way to the state file: two files written in turn, one JSON
//! line a change. While one is committed and emptied, the other takes what
//! comes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::change::Op;

const FILES: [&str; 2] = ["state.log.0", "state.log.1"];

/// One line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// Counts up over both files.
    n: u64,
    ops: Vec<Op>,
}

/// The two files.
#[derive(Debug)]
pub(super) struct Log {
    /// Takes what comes.
    active: Part,
    /// Is committed, or empty.
    other: Part,
    next: u64,
}

#[derive(Debug)]
struct Part {
    file: File,
    /// Bytes of whole lines.
    bytes: u64,
}

impl Log {
    /// Opens both files, and reads what is in them, in the order it was written.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<Op>)> {
        let mut lines = Vec::new();
        let mut part = |name: &str| Part::open(&folder.join(name), &mut lines);
        let [first, second] = FILES;
        let (active, other) = (part(first)?, part(second)?);
        lines.sort_by_key(|line| line.n);
        let next = lines.last().map_or(0, |line| line.n.wrapping_add(1));
        let log = Self {
            active,
            other,
            next,
        };
        Ok((log, lines.into_iter().flat_map(|line| line.ops).collect()))
    }

    /// Appends one line, whole or not at all.
    pub(super) fn append(&mut self, ops: &[Op]) -> io::Result<()> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            n: u64,
            ops: &'a [Op],
        }
        let mut line = serde_json::to_vec(&Borrowed { n: self.next, ops })?;
        line.push(b'\n');
        self.active.append(&line)?;
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Lets what comes go to the other file, unless something is still in that.
    pub(super) fn switch(&mut self) {
        if self.other.bytes == 0 {
            std::mem::swap(&mut self.active, &mut self.other);
        }
    }

    /// Empties the file that is committed.
    pub(super) fn forget_committed(&mut self) -> io::Result<()> {
        self.other.empty()
    }

    /// Empties both.
    pub(super) fn forget_all(&mut self) -> io::Result<()> {
        self.active.empty()?;
        self.other.empty()
    }
}

impl Part {
    fn open(path: &Path, lines: &mut Vec<Line>) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(path)?;
        let mut text = Vec::new();
        let length = file.metadata()?.len();
        (&mut file).take(length).read_to_end(&mut text)?;
        let mut bytes = 0_usize;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            // What a killed process or a power cut broke off: nobody was told.
            let Some(Ok(read)) = line.strip_suffix(b"\n").map(serde_json::from_slice) else {
                tracing::warn!(
                    path = %path.display(),
                    bytes = text.len().saturating_sub(bytes),
                    "the end of the state log was not written whole, and is cut off"
                );
                break;
            };
            lines.push(read);
            bytes = bytes.saturating_add(line.len());
        }
        let mut part = Self {
            file,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        };
        if bytes < text.len() {
            part.cut()?;
        }
        Ok(part)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            // Half a line would hide what comes after it.
            self.cut()?;
            return Err(error);
        }
        let written = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(written);
        Ok(())
    }

    /// Takes away what is behind the last whole line.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)
    }

    fn empty(&mut self) -> io::Result<()> {
        self.bytes = 0;
        self.cut()
    }
}
