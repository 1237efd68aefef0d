//! A file by which a container that has done its work tells another: where Kubernetes does not end sidecars, they
//! share no more than a folder.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Between two looks: a folder of another container has no notifications that can be relied on.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes away what an earlier process has left at `path`.
///
/// # Errors
/// Something is there and cannot be taken away.
pub fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Leaves it, empty.
///
/// # Errors
/// It cannot be made.
pub fn leave(path: &Path) -> io::Result<()> {
    fs::File::create(path).map(drop)
}

/// Waits until it is there; without a path, for ever. Cancel-safe.
pub async fn appears(path: Option<&Path>) {
    let Some(path) = path else {
        return std::future::pending().await;
    };
    // One that is a link to nowhere has been left as well.
    while fs::symlink_metadata(path).is_err() {
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_was_left_is_noticed_and_one_of_before_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("done");
        clear(&path).unwrap();
        leave(&path).unwrap();
        clear(&path).unwrap();
        assert!(!path.exists());
        let left = async {
            tokio::task::yield_now().await;
            leave(&path).unwrap();
        };
        tokio::join!(appears(Some(&path)), left);
        let error = clear(folder.path()).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::NotFound);
    }
}
