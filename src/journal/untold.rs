//! Reading what Core was not told out of the journal: where, in what order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::segment::{self, ACTIVE};
use crate::policy::Untold;

/// A place in the journal.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// One report that is to be told.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    /// Size of its line, bytes.
    pub(super) bytes: u64,
    pub(super) at_ns: u64,
    /// Policy was being asked, and this may have got there.
    pub(super) asking: bool,
    pub(super) event_id: String,
    /// What must be told in order: an activity, or what stands by itself.
    pub(super) lane: String,
    /// Whose it is.
    pub(super) workflow_id: String,
    pub(super) run_id: String,
    pub(super) activity_id: Option<String>,
    pub(super) untold: Untold,
}

/// A line that says something of what policy was told.
#[derive(Debug)]
pub(super) enum Found {
    /// To be told, or being asked about.
    Item(Item),
    /// Policy answered about this event, or was not asked about it.
    Ended(String),
}

/// What was read, and where reading goes on.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) found: Vec<Found>,
    pub(super) next: Place,
}

/// File of the place up to which everything was told.
const CURSOR: &str = "journal.told";

/// Bytes that are read at once, unless one line is longer.
const PIECE_BYTES: u64 = 1 << 18;

/// Longest line that is read, bytes.
const LINE_MAX: u64 = 16 << 20;

/// What every line with something untold has in it.
const MARK: &[u8] = b",\"untold\":{";

/// What a line begins with that says how an operation ended.
const ENDED: &[u8] = b"{\"record\":\"completion\",";

/// Up to where everything was told; `None` before the first time. What cannot be
/// understood, as a power cut may leave it, says that nothing was.
pub(super) fn cursor(folder: &Path) -> io::Result<Option<Place>> {
    let path = folder.join(CURSOR);
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), %error, "up to where OpenBox Core was told is lost: all that the journal has for it is told again, under the same keys");
            Place::default()
        }))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps `place` over a restart.
pub(super) fn keep_cursor(folder: &Path, place: Place) -> io::Result<()> {
    let draft = folder.join("journal.told.new");
    std::fs::write(&draft, serde_json::to_vec(&place)?)?;
    std::fs::rename(draft, folder.join(CURSOR))
}

/// Reads on at `from`; `end` is where the journal ends now.
pub(super) fn read(folder: &Path, from: Place, end: Place) -> io::Result<Piece> {
    let mut all = Vec::new();
    let next = lines(folder, from, end, &mut |line, place, bytes| {
        all.extend(found(line, place, bytes));
    })?;
    Ok(Piece { found: all, next })
}

/// Shows `visit` each whole line, its line feed with it, where it stands, and
/// its length: those from `from` on, but none at `end` or behind it, and about
/// [`PIECE_BYTES`] at once. Returns where to go on.
///
/// # Errors
/// The journal cannot be read.
pub(super) fn lines(
    folder: &Path,
    from: Place,
    end: Place,
    visit: &mut dyn FnMut(&[u8], Place, u64),
) -> io::Result<Place> {
    let mut next = from;
    if from >= end {
        return Ok(next);
    }
    let closed = from.segment < end.segment;
    let path = match closed {
        true => segment::closed_path(folder, from.segment),
        false => folder.join(ACTIVE),
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Deleted to make room, or never there: on with the next that is.
        Err(error) if error.kind() == io::ErrorKind::NotFound && closed => {
            return beginning_after(folder, from.segment, end);
        }
        Err(error) => return Err(error),
    };
    let length = match closed {
        true => file.metadata()?.len(),
        false => end.offset,
    };
    file.seek(SeekFrom::Start(from.offset))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while next.offset < length && next.offset.saturating_sub(from.offset) < PIECE_BYTES {
        line.clear();
        let bytes = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line)?;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes == 0 {
            break;
        }
        visit(&line, next, bytes);
        next.offset = next.offset.saturating_add(bytes);
    }
    if closed && next.offset >= length {
        next = beginning_after(folder, from.segment, end)?;
    }
    Ok(next)
}

fn beginning_after(folder: &Path, segment: u64, end: Place) -> io::Result<Place> {
    let later = segment::closed(folder)?.into_iter();
    let next = later.filter(|s| *s > segment && *s < end.segment).min();
    Ok(Place {
        segment: next.unwrap_or(end.segment),
        offset: 0,
    })
}

/// Bytes of the journal between two places.
pub(super) fn bytes_between(folder: &Path, from: Place, end: Place) -> io::Result<u64> {
    if from.segment >= end.segment {
        return Ok(end.offset.saturating_sub(from.offset));
    }
    let mut bytes = end.offset;
    for segment in segment::closed(folder)? {
        if segment >= from.segment && segment < end.segment {
            let file = std::fs::metadata(segment::closed_path(folder, segment))?;
            bytes = bytes.saturating_add(file.len());
        }
    }
    Ok(bytes.saturating_sub(from.offset))
}

#[derive(Deserialize)]
struct Line {
    record: String,
    at_ns: u64,
    event_id: String,
    workflow_id: String,
    run_id: String,
    activity_id: Option<String>,
    untold: Told,
}

#[derive(Deserialize)]
struct Told {
    key: String,
    text: String,
}

#[derive(Deserialize)]
struct Ended {
    event_id: String,
}

fn found(line: &[u8], place: Place, bytes: u64) -> Option<Found> {
    let read = if memchr::memmem::find(line, MARK).is_some() {
        serde_json::from_slice(line).map(|line| Found::Item(item(line, place, bytes)))
    } else if line.starts_with(ENDED) {
        serde_json::from_slice(line).map(|ended: Ended| Found::Ended(ended.event_id))
    } else {
        return None;
    };
    read.inspect_err(|error| {
        tracing::error!(%error, segment = place.segment, at = place.offset, "a report cannot be read from the journal and is not told to OpenBox Core");
    })
    .ok()
}

fn item(line: Line, place: Place, bytes: u64) -> Item {
    let own = line.activity_id.as_ref().unwrap_or(&line.event_id);
    Item {
        place,
        bytes,
        at_ns: line.at_ns,
        asking: line.record == "asking",
        lane: format!("{}\n{}\n{own}", line.workflow_id, line.run_id),
        event_id: line.event_id,
        workflow_id: line.workflow_id,
        run_id: line.run_id,
        activity_id: line.activity_id,
        untold: Untold {
            key: line.untold.key.into(),
            text: line.untold.text.into(),
        },
    }
}
