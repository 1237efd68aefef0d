//! Proves a journal offline: every chain link, every signature, every segment.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::segment::{self, ACTIVE, End};
use super::sign::{Key, PublicKey};

/// What a whole journal holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whose it is.
    pub sidecar: Option<PublicKey>,
    /// Number of the first record; above 0 where older segments are gone.
    pub first: u64,
    /// Number of the record that comes next.
    pub next: u64,
    /// Files.
    pub segments: usize,
    /// Signatures that hold.
    pub checkpoints: u64,
    /// Records behind the last signature.
    pub unsigned: u64,
    /// Bytes of an unfinished last line: being written, or torn by a crash.
    pub unfinished: u64,
}

/// The first place where a journal is not what its sidecar wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Break {
    /// The file.
    pub segment: PathBuf,
    /// The record that should stand there.
    pub record: u64,
    /// Where in the file, bytes.
    pub at: u64,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for Break {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: record {} at byte {}: {}",
            self.segment.display(),
            self.record,
            self.at,
            self.why
        )
    }
}

/// Reads every segment in `folder`. With `key`, they must be that sidecar's;
/// without, they must all be one sidecar's.
///
/// # Errors
/// The folder or a file in it cannot be read, or there is no journal in it.
pub fn verify(folder: &Path, key: Option<PublicKey>) -> io::Result<Result<Proof, Break>> {
    read(folder, key, &mut |_| Ok(()))
}

/// As [`verify`], showing `visit` each line up to the first break, without its
/// line end.
///
/// # Errors
/// As [`verify`], and where `visit` fails.
pub fn read(
    folder: &Path,
    key: Option<PublicKey>,
    visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Result<Proof, Break>> {
    let mut proof = Proof {
        sidecar: key,
        first: 0,
        next: 0,
        segments: 0,
        checkpoints: 0,
        unsigned: 0,
        unfinished: 0,
    };
    let (mut after, mut expected) = (None, None);
    for (number, path) in files(folder)? {
        let source = BufReader::new(File::open(&path)?);
        let walked = segment::walk_with(source, after.as_ref(), proof.sidecar, visit)?;
        let broken = |why: String| Break {
            segment: path.clone(),
            record: walked.link.next,
            at: walked.length,
            why,
        };
        let Some(header) = walked.header.as_ref() else {
            match walked.end {
                End::Broken(why) => return Ok(Err(broken(why))),
                End::Torn(bytes) if number.is_none() => proof.unfinished = bytes,
                End::Whole if number.is_none() => {}
                End::Whole | End::Torn(_) => {
                    return Ok(Err(broken("the segment has no header".to_owned())));
                }
            }
            continue;
        };
        let own = header.segment;
        match walked.end {
            End::Broken(why) => return Ok(Err(broken(why))),
            End::Torn(_) if number.is_some() => {
                return Ok(Err(broken("the segment ends inside a line".to_owned())));
            }
            End::Torn(bytes) => proof.unfinished = bytes,
            End::Whole => {}
        }
        if number.is_some_and(|number| number != own)
            || expected.is_some_and(|expected| expected != own)
        {
            let why = format!("this is segment {own}, which belongs elsewhere");
            return Ok(Err(Break {
                record: proof.next,
                at: 0,
                ..broken(why)
            }));
        }
        if number.is_some() && walked.unsigned > 0 {
            let why = "the segment does not end in a signed checkpoint".to_owned();
            return Ok(Err(broken(why)));
        }
        if proof.segments == 0 {
            proof.first = header.first();
        }
        proof.sidecar = header.sidecar();
        proof.segments = proof.segments.saturating_add(1);
        proof.checkpoints = proof.checkpoints.saturating_add(walked.checkpoints);
        proof.unsigned = walked.unsigned;
        proof.next = walked.link.next;
        (after, expected) = (Some(walked.link), own.checked_add(1));
    }
    Ok(Ok(proof))
}

/// Every segment in order; the one that is written to has no number.
fn files(folder: &Path) -> io::Result<Vec<(Option<u64>, PathBuf)>> {
    let closed = segment::closed(folder)?.into_iter();
    let mut files: Vec<_> = closed
        .map(|number| (Some(number), segment::closed_path(folder, number)))
        .collect();
    let active = folder.join(ACTIVE);
    if active.exists() {
        files.push((None, active));
    }
    if files.is_empty() {
        let text = format!("there is no journal in {}", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(files)
}

/// The public key of the sidecar whose state folder this is.
///
/// # Errors
/// There is no key, or it cannot be read.
pub fn public_key(folder: &Path) -> io::Result<PublicKey> {
    Key::load(folder).map(|key| key.public())
}
