//! Which closed segments may go, and which go first.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::segment::{self, ACTIVE};
use crate::metrics::SegmentDeleted;

/// How long closed segments are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) keep_for: Duration,
    pub(super) keep_bytes: u64,
}

/// A segment that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deleted {
    pub(super) segment: u64,
    pub(super) bytes: u64,
    pub(super) why: SegmentDeleted,
}

impl Retention {
    /// Deletes what is too old or too much, oldest first, so that what remains
    /// is one chain. Stops at segment `floor`: that one is still needed.
    pub(super) fn apply(
        &self,
        folder: &Path,
        floor: u64,
        now: SystemTime,
    ) -> io::Result<Vec<Deleted>> {
        let mut total = size_of(&folder.join(ACTIVE))?;
        let mut closed = Vec::new();
        for segment in segment::closed(folder)? {
            let path = segment::closed_path(folder, segment);
            let file = std::fs::metadata(&path)?;
            total = total.saturating_add(file.len());
            closed.push((segment, path, file.len(), file.modified()?));
        }
        let mut deleted = Vec::new();
        for (segment, path, bytes, modified) in closed {
            // A clock that went back makes nothing old.
            let age = now.duration_since(modified).unwrap_or_default();
            let why = match age > self.keep_for {
                true => SegmentDeleted::Age,
                false if total > self.keep_bytes => SegmentDeleted::Size,
                false => break,
            };
            if segment >= floor {
                break;
            }
            std::fs::remove_file(path)?;
            total = total.saturating_sub(bytes);
            deleted.push(Deleted {
                segment,
                bytes,
                why,
            });
        }
        Ok(deleted)
    }
}

/// Makes room: deletes the oldest closed segment, if there is one. What was told
/// stands before `floor` and so goes first; the rest is deleted too, for who asks
/// for this wants the agent to go on, and is counted apart.
pub(super) fn drop_oldest(folder: &Path, floor: u64) -> io::Result<Option<Deleted>> {
    let Some(segment) = segment::closed(folder)?.into_iter().next() else {
        return Ok(None);
    };
    let path = segment::closed_path(folder, segment);
    let bytes = size_of(&path)?;
    std::fs::remove_file(path)?;
    Ok(Some(Deleted {
        segment,
        bytes,
        why: match segment < floor {
            true => SegmentDeleted::Full,
            false => SegmentDeleted::FullUntold,
        },
    }))
}

fn size_of(path: &Path) -> io::Result<u64> {
    match std::fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_of(sizes: &[usize]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, size) in (1..).zip(sizes) {
            let path = segment::closed_path(folder.path(), number);
            std::fs::write(path, vec![0; *size]).unwrap();
        }
        std::fs::write(folder.path().join(ACTIVE), [0; 10]).unwrap();
        folder
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_never_what_is_still_needed() {
        let hour = Duration::from_secs(3600);
        let (now, later) = (SystemTime::now(), SystemTime::now() + 2 * hour);
        let before = now - 2 * hour;
        // keep_bytes  floor     at      deleted
        for (keep_bytes, floor, at, gone) in [
            (310, u64::MAX, now, vec![]),
            (309, u64::MAX, now, vec![1]),
            (110, u64::MAX, now, vec![1, 2]),
            (0, u64::MAX, now, vec![1, 2, 3]),
            (0, 2, now, vec![1]),
            (0, 1, now, vec![]),
            (999, u64::MAX, later, vec![1, 2, 3]),
            (999, 3, later, vec![1, 2]),
            (999, u64::MAX, before, vec![]),
        ] {
            let folder = folder_of(&[100, 100, 100]);
            let retention = Retention {
                keep_for: hour,
                keep_bytes,
            };
            let deleted = retention.apply(folder.path(), floor, at).unwrap();
            let segments: Vec<u64> = deleted.iter().map(|deleted| deleted.segment).collect();
            assert_eq!(segments, gone, "{keep_bytes} {floor}");
            let left = segment::closed(folder.path()).unwrap();
            assert_eq!(left.len(), 3 - gone.len(), "{keep_bytes} {floor}");
        }
    }

    #[test]
    fn room_is_made_by_the_oldest_and_never_by_the_segment_that_is_written_to() {
        let folder = folder_of(&[100, 200]);
        let drop_oldest = || drop_oldest(folder.path(), 2).unwrap();
        let told = drop_oldest().unwrap();
        assert_eq!((told.segment, told.bytes), (1, 100));
        assert_eq!(told.why, SegmentDeleted::Full);
        let untold = drop_oldest().unwrap();
        assert_eq!(
            (untold.segment, untold.why),
            (2, SegmentDeleted::FullUntold)
        );
        assert_eq!(drop_oldest(), None);
        assert!(folder.path().join(ACTIVE).exists());
    }
}
