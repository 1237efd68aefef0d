//! One file of the journal: its header, its checkpoints, and how it is read.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::{Link, hex, unhex};
use super::sign::{Key, PublicKey};

/// Name of the segment that is written to.
pub(super) const ACTIVE: &str = "journal.jsonl";

/// Version of lines, header and chain.
pub(super) const FORMAT: u64 = 1;

/// Records between two checkpoints.
pub(super) const CHECKPOINT_EVERY: u64 = 1_024;

/// Most unsigned records in a row; one batch may go beyond [`CHECKPOINT_EVERY`].
const UNSIGNED_MAX: u64 = 65_536;

/// Longest line that is read, bytes.
const LINE_MAX: u64 = 16 << 20;

/// Path of the closed segment `number`.
pub(super) fn closed_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("journal-{number:06}.jsonl"))
}

/// Numbers of the closed segments in `folder`, lowest first.
pub(super) fn closed(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| {
            let rest = name.strip_prefix("journal-")?;
            rest.strip_suffix(".jsonl")
        });
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The first line of a segment.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Header {
    record: String,
    format: u64,
    /// Public key of the sidecar.
    sidecar: String,
    /// Number of the segment.
    pub(super) segment: u64,
    /// Hash of the last record of the segment before.
    previous: String,
    #[serde(skip_serializing, default)]
    seq: u64,
}

impl Header {
    /// The line that begins segment `number` of `key`'s journal at `link`.
    pub(super) fn line(key: &Key, number: u64, link: &Link) -> io::Result<Vec<u8>> {
        let header = Self {
            record: "segment".to_owned(),
            format: FORMAT,
            sidecar: key.public().to_string(),
            segment: number,
            previous: hex(&link.hash),
            seq: 0,
        };
        Ok(serde_json::to_vec(&header)?)
    }

    /// The sidecar that wrote it.
    pub(super) fn sidecar(&self) -> Option<PublicKey> {
        PublicKey::from_hex(&self.sidecar)
    }

    /// Its own number in the chain.
    pub(super) fn first(&self) -> u64 {
        self.seq
    }

    fn read(line: &[u8]) -> Result<Self, String> {
        let header: Result<Self, _> = serde_json::from_slice(line);
        let header = header.ok().filter(|header| header.record == "segment");
        let header = header.ok_or("it is no segment header of this version")?;
        match header.format {
            FORMAT => Ok(header),
            other => Err(format!(
                "it is of format {other}, and this version reads format {FORMAT}"
            )),
        }
    }

    fn link(&self) -> Option<Link> {
        let hash = unhex(&self.previous)?;
        Some(Link {
            next: self.seq,
            hash,
        })
    }
}

/// The line that signs the chain at `link`.
pub(super) fn checkpoint(key: &Key, link: &Link, at_ns: u64) -> Vec<u8> {
    let signature = key.sign(link);
    format!(r#"{{"record":"checkpoint","at_ns":{at_ns},"signature":"{signature}"}}"#).into_bytes()
}

#[derive(Deserialize)]
struct Checkpoint {
    signature: String,
}

/// How the reading of a segment ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind a whole line.
    Whole,
    /// Inside a line, of which so many bytes are there.
    Torn(u64),
    /// At a line that does not belong there.
    Broken(String),
}

/// What was read of a segment.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) header: Option<Header>,
    /// Where the chain has got to.
    pub(super) link: Link,
    /// Bytes that are good.
    pub(super) length: u64,
    /// Records since the last checkpoint.
    pub(super) unsigned: u64,
    /// Checkpoints that were proved.
    pub(super) checkpoints: u64,
    pub(super) end: End,
}

/// Reads a segment as far as it is good. It must continue `after`, where that
/// is known, and be `key`'s.
pub(super) fn walk(
    source: impl BufRead,
    after: Option<&Link>,
    key: Option<PublicKey>,
) -> io::Result<Walked> {
    walk_with(source, after, key, &mut |_| Ok(()))
}

/// What looks at each line that is good, without its line end.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// As [`walk`], showing `visit` each line that is good.
///
/// # Errors
/// The source cannot be read, or `visit` fails.
pub(super) fn walk_with(
    mut source: impl BufRead,
    after: Option<&Link>,
    key: Option<PublicKey>,
    visit: Visit<'_>,
) -> io::Result<Walked> {
    let mut walked = Walked {
        header: None,
        link: after.copied().unwrap_or_default(),
        length: 0,
        unsigned: 0,
        checkpoints: 0,
        end: End::Whole,
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut source).take(LINE_MAX).read_until(b'\n', &mut line)?;
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        let Some(whole) = line.strip_suffix(b"\n") else {
            match read {
                0 => {}
                LINE_MAX => walked.end = End::Broken("its line has no end".to_owned()),
                bytes => walked.end = End::Torn(bytes),
            }
            return Ok(walked);
        };
        if let Err(why) = walked.take(whole, after, key) {
            walked.end = End::Broken(why);
            return Ok(walked);
        }
        visit(whole)?;
        walked.length = walked.length.saturating_add(read);
    }
}

impl Walked {
    fn take(
        &mut self,
        line: &[u8],
        after: Option<&Link>,
        key: Option<PublicKey>,
    ) -> Result<(), String> {
        let Some(header) = &self.header else {
            return self.begin(line, after, key);
        };
        let next = self.link.follow(line)?;
        if line.starts_with(br#"{"record":"checkpoint""#) {
            let checkpoint: Checkpoint =
                serde_json::from_slice(line).map_err(|_| "it is no readable checkpoint")?;
            let signer = header.sidecar().ok_or("its header names no key")?;
            if !signer.signed(&self.link, &checkpoint.signature) {
                return Err("its signature is not the sidecar's".to_owned());
            }
            self.unsigned = 0;
            self.checkpoints = self.checkpoints.saturating_add(1);
        } else {
            self.unsigned = self.unsigned.saturating_add(1);
        }
        if self.unsigned > UNSIGNED_MAX {
            return Err(format!("{UNSIGNED_MAX} records before it are not signed"));
        }
        self.link = next;
        Ok(())
    }

    fn begin(
        &mut self,
        line: &[u8],
        after: Option<&Link>,
        key: Option<PublicKey>,
    ) -> Result<(), String> {
        let header = Header::read(line)?;
        if key.is_some_and(|key| header.sidecar() != Some(key)) {
            return Err(format!("it is of another sidecar, {}", header.sidecar));
        }
        let link = header.link().ok_or("its \"previous\" is no hash")?;
        if after.is_some_and(|after| *after != link) {
            return Err(format!(
                "it continues record {} of another chain or place, not record {}",
                link.next,
                after.map_or(0, |after| after.next)
            ));
        }
        self.link = link.follow(line)?;
        self.unsigned = 1;
        self.header = Some(header);
        Ok(())
    }
}
