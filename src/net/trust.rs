//! The authorities that upstreams are verified against, and the same set with ours added for the agent.
//!
//! Programs that are given a file of authorities stop reading the system's, so the file must hold both.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// Largest file of authorities that is read, bytes. The public ones together are about 300 KiB.
const UPSTREAM_CA_BYTES_MAX: u64 = 8 << 20;

/// Authorities of the system and of the configuration. Ours is never among them: an upstream that shows a
/// certificate of ours is not an upstream.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    system: Vec<CertificateDer<'static>>,
    upstream: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Reads the system's authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set,
    /// and the PEM files in `upstream_ca`. What is wrong with the system's is logged; a file that was named
    /// must be good.
    ///
    /// # Errors
    ///
    /// When a file in `upstream_ca` cannot be read or holds no usable certificate.
    pub fn read(upstream_ca: &[PathBuf]) -> Result<Self, TrustError> {
        let mut upstream = Vec::new();
        for path in upstream_ca {
            upstream.extend(read_authorities(path)?);
        }
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's certificate authorities could not be read");
        }
        if found.certs.is_empty() && upstream.is_empty() {
            tracing::warn!(
                "no certificate authorities were found: every HTTPS upstream will be refused; \
                 install the package ca-certificates, set SSL_CERT_FILE, or use --upstream-ca FILE"
            );
        }
        Ok(Self {
            system: found.certs,
            upstream,
        })
    }

    /// The authorities in one PEM file, and no others.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds no usable certificate.
    pub(super) fn only(path: &Path) -> Result<Self, TrustError> {
        Ok(Self {
            system: Vec::new(),
            upstream: read_authorities(path)?,
        })
    }

    /// Those that were named, without the system's.
    pub(super) fn named(&self) -> &[CertificateDer<'static>] {
        &self.upstream
    }

    /// How many authorities there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.system.len().saturating_add(self.upstream.len())
    }

    /// All authorities and ours, as PEM.
    #[must_use]
    pub fn bundle_pem(&self, ours: &CertificateDer<'static>) -> String {
        let mut text = String::with_capacity(self.count().saturating_mul(2048));
        for certificate in self.all().chain([ours]) {
            push_pem(&mut text, certificate);
        }
        text
    }

    /// All authorities and ours, as a Java key store without a password. Java reads neither PEM nor the
    /// environment; the format (`JKS`, version 2) is the one that every Java from 8 on opens unasked.
    #[must_use]
    pub fn java_store(&self, ours: &CertificateDer<'static>) -> Vec<u8> {
        let entries: Vec<&CertificateDer<'_>> = self.all().chain([ours]).collect();
        let mut store = Vec::with_capacity(entries.len().saturating_mul(1536));
        store.extend(0xFEED_FEED_u32.to_be_bytes());
        store.extend(2_u32.to_be_bytes());
        store.extend(u32::try_from(entries.len()).unwrap_or(0).to_be_bytes());
        for (number, certificate) in entries.into_iter().enumerate() {
            let alias = format!("openbox-{number}");
            store.extend(2_u32.to_be_bytes()); // a trusted certificate
            push_text(&mut store, &alias);
            store.extend(0_u64.to_be_bytes()); // when it was added
            push_text(&mut store, "X.509");
            store.extend(u32::try_from(certificate.len()).unwrap_or(0).to_be_bytes());
            store.extend_from_slice(certificate);
        }
        // A digest over password and contents belongs here. Java looks at it only when given a password.
        store.extend([0; 20]);
        store
    }

    /// The authorities in the form a TLS client verifies with.
    pub(super) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        let (_, ignored) = store.add_parsable_certificates(self.all().cloned());
        if ignored > 0 {
            tracing::debug!(
                ignored,
                "certificate authorities in a form that is not understood"
            );
        }
        store
    }

    fn all(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.system.iter().chain(&self.upstream)
    }
}

/// Text as Java's `DataOutput.writeUTF` has it; ours is ASCII and short.
fn push_text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}

fn push_pem(text: &mut String, certificate: &CertificateDer<'_>) {
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let encoded = STANDARD.encode(certificate);
    let mut rest = encoded.as_str();
    while let Some((line, after)) = rest.split_at_checked(64) {
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
}

/// One certificate as PEM.
#[must_use]
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::new();
    push_pem(&mut text, certificate);
    text
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let wrong = |problem: String| TrustError {
        path: path.to_owned(),
        problem,
    };
    let size = fs::metadata(path)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if size > UPSTREAM_CA_BYTES_MAX {
        return Err(wrong(format!("is {size} bytes, more than 8 MiB")));
    }
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("holds no \"-----BEGIN CERTIFICATE-----\"".into()));
    }
    for (number, certificate) in certificates.iter().enumerate() {
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|error| {
                let nth = number.saturating_add(1);
                wrong(format!("certificate {nth} in it is unusable: {error}"))
            })?;
    }
    Ok(certificates)
}

/// A file of authorities that was named but cannot be used.
#[derive(Debug)]
pub struct TrustError {
    /// The file.
    pub path: PathBuf,
    problem: String,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "upstream CA file \"{}\": {}; expected a PEM file with the certificates of your authorities",
            self.path.display(),
            self.problem
        )
    }
}

impl std::error::Error for TrustError {}

/// Whether `path` is a PEM file with the certificate whose SHA-256 is `sha256`, hex.
///
/// # Errors
/// It cannot be read, or is larger than any file of authorities.
pub fn holds(path: &Path, sha256: &str) -> io::Result<bool> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let read = file
        .take(UPSTREAM_CA_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > UPSTREAM_CA_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut all = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    Ok(all.any(|one| fingerprint(&one) == sha256))
}

/// SHA-256 of a certificate, in hex, as trust stores show it.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file so that a reader sees the old or the new one, never a part, and nobody without a right to it
/// sees either: it is created with `mode` under another name, synced and renamed.
///
/// # Errors
///
/// When the folder cannot be written.
pub fn write_atomically(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one worth telling.
        drop(fs::remove_file(&temporary));
    }
    written
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::net::authority::Authority;

    fn file(contents: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), contents).unwrap();
        file
    }

    #[test]
    fn the_bundle_holds_every_authority_and_ours() {
        let (theirs, ours) = (
            Authority::ephemeral().unwrap(),
            Authority::ephemeral().unwrap(),
        );
        let given = file(theirs.pem().as_bytes());
        let roots = Roots::read(&[given.path().to_owned()]).unwrap();
        let bundle = file(roots.bundle_pem(ours.certificate()).as_bytes());
        let read = read_authorities(bundle.path()).unwrap();
        assert_eq!(read.len(), roots.count() + 1);
        assert!(read.contains(theirs.certificate()));
        assert!(read.contains(ours.certificate()));
    }

    #[test]
    fn our_authority_is_not_trusted_upstream() {
        let ours = Authority::ephemeral().unwrap();
        let roots = Roots::read(&[]).unwrap();
        drop(roots.bundle_pem(ours.certificate()));
        assert!(roots.all().all(|root| root != ours.certificate()));
    }

    #[test]
    fn pem_that_we_write_is_what_others_write() {
        let authority = Authority::ephemeral().unwrap();
        let ours = to_pem(authority.certificate());
        assert!(ours.lines().all(|line| line.len() <= 64));
        assert_eq!(
            CertificateDer::from_pem_slice(ours.as_bytes()).unwrap(),
            *authority.certificate()
        );
        // 48 bytes fill a line exactly: no empty line may follow.
        assert_eq!(
            to_pem(&CertificateDer::from(vec![0; 48])).lines().count(),
            3
        );
    }

    #[test]
    fn a_named_file_that_is_no_authority_says_so_with_its_path() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let rows: [(&[u8], &str); 4] = [
            // contents                                                     complaint
            (b"", "holds no"),
            (b"hello", "holds no"),
            (key.as_bytes(), "holds no"),
            (
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1 in it is unusable",
            ),
        ];
        for (contents, complaint) in rows {
            let given = file(contents);
            let error = Roots::read(&[given.path().to_owned()])
                .unwrap_err()
                .to_string();
            assert!(error.contains(complaint), "{error}");
            assert!(error.contains(given.path().to_str().unwrap()), "{error}");
        }
        let error = Roots::read(&["/nonexistent/ca.pem".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn an_atomic_write_replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.pem");
        for contents in [b"one".as_slice(), b"two"] {
            write_atomically(&path, contents, 0o600).unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
        }
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("no/such"), b"", 0o600).is_err());
    }

    #[test]
    fn a_java_store_counts_its_entries_and_ends_with_the_digest() {
        let ours = Authority::ephemeral().unwrap();
        let store = Roots::default().java_store(ours.certificate());
        assert_eq!(
            store[..12],
            [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 1]
        );
        let end = store.len() - 20;
        assert!(store[..end].ends_with(ours.certificate()));
    }
}
