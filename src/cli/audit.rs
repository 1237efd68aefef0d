//! `audit`: proves offline that a journal is what its sidecar wrote, and hands
//! it to other tools.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::config::{self, Flags, For, Source};
use crate::journal::PublicKey;
use crate::journal::verify::{self, Proof};

use super::audit_export::{Export, Format};
use super::{Streams, exit, report};

/// What about the journal.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Prove the chain and its signatures, or name the first break (exit code 1)
    Verify(Verify),
    /// Write the journal to standard output, as far as it is whole
    Export(Exported),
    /// Print the public key that the journal is signed with
    Key(Folder),
}

/// Which journal.
#[derive(clap::Args, Debug)]
pub(super) struct Folder {
    /// State folder, or a copy of it [default: that of the configuration]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Which journal, and whose it must be.
#[derive(clap::Args, Debug)]
pub(super) struct Verify {
    #[command(flatten)]
    folder: Folder,
    /// Public key it must be signed with, as `audit key` prints it; without, the key the journal itself names
    #[arg(long, value_name = "HEX")]
    key: Option<String>,
}

/// Which journal, and what it is written as.
#[derive(clap::Args, Debug)]
pub(super) struct Exported {
    #[command(flatten)]
    folder: Folder,
    /// What it is written as
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

pub(super) fn audit(verb: &Verb, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let given = match verb {
        Verb::Verify(args) => &args.folder.folder,
        Verb::Export(args) => &args.folder.folder,
        Verb::Key(args) => &args.folder,
    };
    let folder = match given {
        Some(folder) => folder.clone(),
        None => match config::check(&Flags::default(), env, For::Serve) {
            Ok(config) => config.state_dir,
            Err(problems) => return report::problems(&problems, streams),
        },
    };
    match verb {
        Verb::Verify(args) => prove(&folder, args.key.as_deref(), streams),
        Verb::Export(args) => export(&folder, args.format, streams),
        Verb::Key(_) => match verify::public_key(&folder) {
            Ok(key) => {
                writeln!(streams.out, "{key}")?;
                Ok(exit::OK)
            }
            Err(error) => {
                let path = folder.display();
                failed(
                    &format!("the key of the journal in {path} cannot be read: {error}"),
                    streams,
                )
            }
        },
    }
}

fn prove(folder: &Path, key: Option<&str>, streams: &mut Streams<'_>) -> io::Result<u8> {
    let parsed = key.map(|text| PublicKey::from_hex(text).ok_or(text));
    let Ok(key) = parsed.transpose() else {
        let text = "--key is not a public key: 64 lower-case hex digits, as `audit key` prints";
        return failed(text, streams);
    };
    match verify::verify(folder, key) {
        Ok(Ok(proof)) => {
            writeln!(streams.out, "{}", Told(&proof, key.is_some()))?;
            Ok(exit::OK)
        }
        Ok(Err(broken)) => failed(&format!("the journal is broken: {broken}"), streams),
        Err(error) => failed(
            &format!(
                "the journal in {} cannot be read: {error}",
                folder.display()
            ),
            streams,
        ),
    }
}

fn export(folder: &Path, format: Format, streams: &mut Streams<'_>) -> io::Result<u8> {
    let mut out = BufWriter::new(&mut *streams.out);
    let mut export = Export::begin(format, &mut out)?;
    let read = verify::read(folder, None, &mut |line| export.line(line));
    out.flush()?;
    drop(out);
    match read {
        Ok(Ok(_)) => Ok(exit::OK),
        Ok(Err(broken)) => failed(
            &format!("the export ends where the journal is broken: {broken}"),
            streams,
        ),
        Err(error) => failed(
            &format!(
                "the journal in {} cannot be exported: {error}",
                folder.display()
            ),
            streams,
        ),
    }
}

fn failed(text: &str, streams: &mut Streams<'_>) -> io::Result<u8> {
    writeln!(streams.err, "openbox-sidecar: {text}")?;
    Ok(exit::FAILED)
}

/// A proof in words, and whether the key came from outside.
struct Told<'a>(&'a Proof, bool);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(proof, pinned) = self;
        let Some(last) = proof.next.checked_sub(1) else {
            return f.write_str("the journal is empty");
        };
        write!(
            f,
            "the journal is whole: records {} to {last} in {} segments, {} signed checkpoints, {} records behind the last",
            proof.first, proof.segments, proof.checkpoints, proof.unsigned
        )?;
        if proof.unfinished > 0 {
            write!(
                f,
                "; {} bytes of an unfinished line at the end",
                proof.unfinished
            )?;
        }
        if let Some(key) = proof.sidecar {
            write!(f, "\nsigned with {key}")?;
        }
        if !pinned {
            f.write_str(", the key that the journal itself names; prove whose it is with --key")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::journal::{Journal, Record, Settings};

    fn ask(verb: &Verb) -> (u8, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            out: &mut out,
            err: &mut err,
        };
        let code = audit(verb, &Source::new([], "host"), &mut streams).unwrap();
        (code, String::from_utf8([out, err].concat()).unwrap())
    }

    #[test]
    fn a_copy_is_proved_with_the_public_key_and_a_changed_word_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&Settings::new(folder.path())).unwrap();
        let record = Record::Resume {
            at: Timestamp(1),
            workflow_id: "w",
            run_id: "r",
            by: "operator",
        };
        journal.append(&record).unwrap();
        drop(journal);
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join("journal.jsonl");
        std::fs::copy(folder.path().join("journal.jsonl"), &path).unwrap();

        let of = |folder: &Path| Folder {
            folder: Some(folder.to_path_buf()),
        };
        let (code, key) = ask(&Verb::Key(of(folder.path())));
        assert_eq!(code, exit::OK, "{key}");
        let verify = |key: &str| {
            ask(&Verb::Verify(Verify {
                folder: of(copy.path()),
                key: Some(key.to_owned()),
            }))
        };
        let (code, text) = verify(key.trim());
        assert_eq!(code, exit::OK, "{text}");
        assert!(text.contains("records 0 to 2 in 1 segments"), "{text}");
        let (code, text) = verify(&"0".repeat(64));
        assert_eq!(code, exit::FAILED, "{text}");
        assert!(text.contains("another sidecar"), "{text}");
        assert_eq!(verify("short").0, exit::FAILED);

        let text = std::fs::read_to_string(&path).unwrap();
        let export = |format| {
            ask(&Verb::Export(Exported {
                folder: of(copy.path()),
                format,
            }))
        };
        assert_eq!(export(Format::Jsonl), (exit::OK, text.clone()));
        let (code, table) = export(Format::Csv);
        assert_eq!((code, table.lines().count()), (exit::OK, 4), "{table}");

        std::fs::write(&path, text.replace("\"operator\"", "\"somebody\"")).unwrap();
        let (code, table) = export(Format::Csv);
        assert_eq!(code, exit::FAILED, "{table}");
        assert!(table.contains("the export ends where"), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
        let (code, text) = verify(key.trim());
        assert_eq!(code, exit::FAILED, "{text}");
        assert!(text.contains("record 1 at byte"), "{text}");
        assert_eq!(ask(&Verb::Key(of(copy.path()))).0, exit::FAILED);
    }
}
