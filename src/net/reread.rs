//! What is made of files, and made again once they change: certificates that live for an hour, logins that are
//! replaced.
//!
//! They are looked at when they are used, and no more often than once in [`LOOKED_AT_EVERY`]. Where they cannot be
//! used as they are, what was made last stays, and one warning says so until they can.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::process::Stamp;

/// How long files are taken for what they were.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Made of files, and numbered by how often it was made.
#[derive(Debug)]
pub struct Reread<T> {
    files: Box<[PathBuf]>,
    /// What it is, for people.
    what: Box<str>,
    kept: Mutex<Kept<T>>,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    edition: u64,
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
    /// They could not be used when they were looked at last.
    broken: bool,
}

impl<T: Clone> Reread<T> {
    /// What `read` makes of `files`, at first and whenever they change; `what` is what it is called.
    ///
    /// # Errors
    ///
    /// As `read`.
    pub fn new<E>(
        what: &str,
        files: Vec<PathBuf>,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Self, E> {
        // Looked at before they are read: what is written meanwhile is seen the next time.
        let stamps = stamps(&files);
        let value = read()?;
        Ok(Self {
            files: files.into(),
            what: what.into(),
            kept: Mutex::new(Kept {
                value,
                edition: 0,
                stamps,
                looked_at: Instant::now(),
                broken: false,
            }),
        })
    }

    /// The newest that can be used, and its number, which only ever grows.
    pub fn newest<E: Display>(&self, read: impl FnOnce() -> Result<T, E>) -> (T, u64) {
        let mut kept = self.kept();
        let now = Instant::now();
        if now.saturating_duration_since(kept.looked_at) >= LOOKED_AT_EVERY {
            kept.looked_at = now;
            let stamps = stamps(&self.files);
            // A file that is being written may look the same when it is whole.
            if kept.broken || stamps != kept.stamps {
                kept.stamps = stamps;
                self.renew(&mut kept, read());
            }
        }
        (kept.value.clone(), kept.edition)
    }

    fn renew<E: Display>(&self, kept: &mut Kept<T>, made: Result<T, E>) {
        let what = &*self.what;
        match made {
            Ok(value) => {
                kept.value = value;
                kept.edition = kept.edition.saturating_add(1);
                kept.broken = false;
                tracing::info!("{what} has changed and is used from now on");
            }
            Err(_) if kept.broken => {}
            Err(error) => {
                kept.broken = true;
                tracing::warn!(
                    "{what} has changed and cannot be used, so what it was before stays in use: {error}"
                );
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        // A panic of whoever reads leaves what was there.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::at(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct One {
        reread: Reread<u32>,
        file: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn read(file: &PathBuf) -> Result<u32, String> {
        let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
        text.parse().map_err(|_| "it is no number".to_owned())
    }

    impl One {
        fn of(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("one");
            fs::write(&file, text).unwrap();
            let reread = Reread::new("the number", vec![file.clone()], || read(&file)).unwrap();
            Self {
                reread,
                file,
                _folder: folder,
            }
        }

        /// As secrets are replaced: by another file.
        fn becomes(&self, text: &str) {
            let other = self.file.with_extension("new");
            fs::write(&other, text).unwrap();
            fs::rename(&other, &self.file).unwrap();
        }

        fn newest(&self) -> (u32, u64) {
            self.reread.newest(|| read(&self.file))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_made_again_and_not_before_it_is_time_to_look() {
        let one = One::of("1");
        one.becomes("2");
        tokio::time::advance(LOOKED_AT_EVERY - Duration::from_millis(1)).await;
        assert_eq!(one.newest(), (1, 0));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(one.newest(), (2, 1));
        tokio::time::advance(LOOKED_AT_EVERY).await;
        assert_eq!(one.newest(), (2, 1), "nothing has changed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_leaves_what_was_there_until_it_can() {
        let one = One::of("1");
        one.becomes("none");
        tokio::time::advance(LOOKED_AT_EVERY).await;
        assert_eq!(one.newest(), (1, 0));
        fs::remove_file(&one.file).unwrap();
        tokio::time::advance(LOOKED_AT_EVERY).await;
        assert_eq!(one.newest(), (1, 0));
        fs::write(&one.file, "3").unwrap();
        tokio::time::advance(LOOKED_AT_EVERY).await;
        assert_eq!(one.newest(), (3, 1));
    }
}
