//! What a file is known by, so that it is read again once it is another.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What is another once a file was written to, or another file has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file that this was found of.
    #[must_use]
    pub fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Of the file at `path`, if there is one that can be seen.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }

    /// Whether the file has been as it is for `within`, by whole seconds: the clock of a file system ticks, and
    /// what changes within one tick does not show.
    #[must_use]
    pub fn has_been_for(&self, within: Duration) -> bool {
        [self.modified, self.changed]
            .into_iter()
            .all(|(seconds, _)| {
                let since = u64::try_from(seconds).map(Duration::from_secs);
                let at = since
                    .ok()
                    .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
                let age = at.and_then(|at| SystemTime::now().duration_since(at).ok());
                age.is_some_and(|age| age >= within)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_another_once_it_is_written_to_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        assert_eq!(Stamp::at(&file), None);
        fs::write(&file, "one").unwrap();
        let first = Stamp::at(&file).unwrap();
        assert_eq!(Stamp::at(&file), Some(first));
        assert!(!first.has_been_for(Duration::from_secs(60)));
        let other = folder.path().join("y");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &file).unwrap();
        assert_ne!(Stamp::at(&file), Some(first));
    }
}
