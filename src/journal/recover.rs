//! Opening a journal that is there already: what it must be, and what is done
//! where a crash or a hand has damaged it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::SystemTime;

use super::chain::Link;
use super::segment::{self, ACTIVE, End, Walked};
use super::sign::Key;
use super::tail::{Start, open_active};
use super::{CLOCK_KEPT_RIGHT, tell_set_back, untold};

/// Why a journal is not continued.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    /// It is not this sidecar's, or not of this version.
    Foreign(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Finds where the journal in `folder` goes on. A torn tail is cut off; a
/// segment that is damaged otherwise is set aside for `audit verify`.
pub(super) fn recover(folder: &Path) -> Result<Start, Failure> {
    let key = Key::load_or_make(folder)?;
    let floor = untold::cursor(folder)?.map_or(u64::MAX, |place| place.segment);
    let (after, number) = after_closed(folder, &key)?;
    let path = folder.join(ACTIVE);
    let file = open_active(&path)?;
    tell_of_clock(&file)?;
    let walked = walk(&file, after.as_ref(), &key)?;
    let begins = walked.header.as_ref().map(|header| header.segment);
    let start = |file, length, unsigned, segment| Start {
        file,
        link: walked.link,
        segment,
        length,
        unsigned,
        key,
        floor,
    };
    match &walked.end {
        End::Whole => {}
        End::Torn(bytes) => {
            file.set_len(walked.length)?;
            tracing::warn!(path = %path.display(), at = walked.length, bytes, "the journal's last record was torn by a crash and is cut off");
        }
        End::Broken(why) if begins.is_none() => {
            return Err(Failure::Foreign(format!("{}: {why}", path.display())));
        }
        End::Broken(why) => {
            let segment = begins.unwrap_or(number);
            let aside = segment::closed_path(folder, segment);
            tracing::error!(path = %aside.display(), record = walked.link.next, at = walked.length, why, "the journal is damaged: it is set aside and a new segment begun; see `audit verify`");
            fs::rename(&path, aside)?;
            let next = segment.saturating_add(1);
            return Ok(start(open_active(&path)?, 0, walked.unsigned, next));
        }
    }
    Ok(start(
        file,
        walked.length,
        walked.unsigned,
        begins.unwrap_or(number),
    ))
}

/// The clock may have been set back while nothing ran.
fn tell_of_clock(active: &File) -> io::Result<()> {
    let last = active.metadata()?.modified()?;
    if let Ok(by) = last.duration_since(SystemTime::now())
        && by > CLOCK_KEPT_RIGHT
    {
        tell_set_back(by);
    }
    Ok(())
}

/// The chain behind the last closed segment, and the number of the next.
fn after_closed(folder: &Path, key: &Key) -> Result<(Option<Link>, u64), Failure> {
    let Some(last) = segment::closed(folder)?.pop() else {
        return Ok((None, 1));
    };
    let path = segment::closed_path(folder, last);
    let walked = walk(&File::open(&path)?, None, key)?;
    if let End::Broken(why) = &walked.end {
        if walked.header.is_none() {
            return Err(Failure::Foreign(format!("{}: {why}", path.display())));
        }
        tracing::error!(path = %path.display(), record = walked.link.next, at = walked.length, why, "a closed segment of the journal is damaged; see `audit verify`");
    }
    Ok((Some(walked.link), last.saturating_add(1)))
}

fn walk(file: &File, after: Option<&Link>, key: &Key) -> io::Result<Walked> {
    // As many bytes as there are: a device might never end.
    let length = file.metadata()?.len();
    segment::walk(BufReader::new(file.take(length)), after, Some(key.public()))
}
