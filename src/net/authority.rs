//! Our certificate authority: it signs the certificates shown to the agent, and nothing else trusts it.
//!
//! Strict verifiers (Python 3.13) ask for every extension here: basic constraints and key usage on the
//! authority, and in each leaf the identifier of the key that signed it, byte for byte.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

use crate::net::trust;

/// File of the private key in the state directory.
pub const KEY_FILE: &str = "ca.key";

/// File of the certificate in the state directory.
pub const CERTIFICATE_FILE: &str = "ca.pem";

/// How long an authority lives that exists only in memory.
const EPHEMERAL_LIFE: Duration = Duration::days(7);

/// How long an authority lives that is kept in files.
const KEPT_LIFE: Duration = Duration::days(365);

/// How far certificates are dated back, for clients whose clocks are behind.
pub(super) const BACKDATED: Duration = Duration::hours(48);

/// A certificate authority with its private key. The key is wiped when the authority is dropped.
pub struct Authority {
    issuer: Issuer<'static, AuthorityKey>,
    certificate: CertificateDer<'static>,
    not_after: OffsetDateTime,
}

/// Where a kept authority came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// There was none; it was made now.
    Created,
    /// It was read from its files.
    Loaded,
    /// The one in the files had expired, and was replaced: clients need the new certificate.
    Renewed,
}

impl Authority {
    /// A new authority that lives in this process only, for at most seven days.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn ephemeral() -> Result<Self, AuthorityError> {
        Self::create(AuthorityKey::generate()?, EPHEMERAL_LIFE)
    }

    /// The authority kept in a folder as [`KEY_FILE`] and [`CERTIFICATE_FILE`]; made where there is none,
    /// and made anew where it has expired.
    ///
    /// # Errors
    ///
    /// When the files cannot be read or written, are damaged, do not belong together, or everybody may read
    /// the key.
    pub fn load_or_create(folder: &Path) -> Result<(Self, Provenance), AuthorityError> {
        let key_path = folder.join(KEY_FILE);
        let certificate_path = folder.join(CERTIFICATE_FILE);
        let (Some(key), Some(certificate)) = (
            read_if_there(&key_path)?.map(Zeroizing::new),
            read_if_there(&certificate_path)?,
        ) else {
            // A certificate alone was an ephemeral one; a key alone never signed anything that is known.
            return Ok((Self::create_in(folder)?, Provenance::Created));
        };
        check_mode(&key_path)?;
        let key = AuthorityKey::from_pem(&key).map_err(|problem| damaged(&key_path, problem))?;
        let kept = Self::from_pem(key, certificate.as_bytes())
            .map_err(|problem| damaged(&certificate_path, problem))?;
        if kept.not_after > OffsetDateTime::now_utc() {
            return Ok((kept, Provenance::Loaded));
        }
        tracing::warn!(
            expired = %kept.not_after, certificate = %certificate_path.display(),
            "the certificate authority has expired and is replaced; clients that trusted the old one need the new certificate"
        );
        Ok((Self::create_in(folder)?, Provenance::Renewed))
    }

    fn create_in(folder: &Path) -> Result<Self, AuthorityError> {
        let key = AuthorityKey::generate()?;
        let key_pem = Zeroizing::new(key.0.serialize_pem());
        let made = Self::create(key, KEPT_LIFE)?;
        for (name, contents, mode) in [
            (KEY_FILE, key_pem.as_bytes(), 0o600),
            (CERTIFICATE_FILE, made.pem().as_bytes(), 0o644),
        ] {
            let path = folder.join(name);
            trust::write_atomically(&path, contents, mode).map_err(|source| {
                AuthorityError::File {
                    path,
                    doing: "written",
                    source,
                }
            })?;
        }
        Ok(made)
    }

    fn create(key: AuthorityKey, life: Duration) -> Result<Self, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now.saturating_sub(BACKDATED);
        params.not_after = now.saturating_add(life);
        params.serial_number = Some(random_serial());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "OpenBox Sidecar");
        // Two authorities of ours in one bundle must not look alike to a verifier that searches by name.
        let name = format!("OpenBox Sidecar CA {:08x}", rand::random::<u32>());
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params
            .self_signed(&key)
            .map_err(AuthorityError::Crypto)?
            .der()
            .clone();
        Ok(Self {
            not_after: params.not_after,
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The authority of a stored certificate, or what is wrong with it.
    fn from_pem(key: AuthorityKey, pem: &[u8]) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(pem)
            .map_err(|error| format!("is not a PEM certificate ({error})"))?;
        let (_, parsed) = parse_x509_certificate(&certificate)
            .map_err(|error| format!("is not a certificate ({error})"))?;
        let tbs = &parsed.tbs_certificate;
        if !tbs.is_ca() {
            return Err("is not the certificate of an authority".into());
        }
        if tbs.subject_pki.raw != key.subject_public_key_info() {
            return Err(format!("does not belong to the key in {KEY_FILE}"));
        }
        let not_after = tbs.validity.not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| format!("cannot be used to sign ({error})"))?;
        Ok(Self {
            issuer,
            certificate,
            not_after,
        })
    }

    /// The certificate, which is public.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        trust::to_pem(&self.certificate)
    }

    /// When it expires, and everything it signed with it.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Signs a certificate for somebody's public key.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A serial number of 127 random bits: positive, and never the same twice.
pub(super) fn random_serial() -> SerialNumber {
    let bits = rand::random::<u128>() & (u128::MAX >> 1);
    SerialNumber::from_slice(&bits.to_be_bytes())
}

/// The private key, wiped when dropped as far as rcgen allows: its encoded form by us, its parsed form by the
/// cryptographic library.
struct AuthorityKey(Zeroizing<KeyPair>);

impl AuthorityKey {
    fn generate() -> Result<Self, AuthorityError> {
        // P-256, with SHA-256.
        let pair = KeyPair::generate().map_err(AuthorityError::Crypto)?;
        Ok(Self(Zeroizing::new(pair)))
    }

    fn from_pem(pem: &str) -> Result<Self, String> {
        let pair =
            KeyPair::from_pem(pem).map_err(|error| format!("is not a private key ({error})"))?;
        Ok(Self(Zeroizing::new(pair)))
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&*self.0)
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::File {
            path: path.to_owned(),
            doing: "read",
            source,
        }),
    }
}

/// A key that everybody may read is not a secret. One that its group may read is told about only: volumes of
/// Kubernetes with an `fsGroup` are changed to that behind our back.
fn check_mode(path: &Path) -> Result<(), AuthorityError> {
    let mode = fs::metadata(path)
        .map_err(|source| AuthorityError::File {
            path: path.to_owned(),
            doing: "read",
            source,
        })?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        return Err(AuthorityError::Exposed {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    if mode & 0o070 != 0 {
        tracing::warn!(key = %path.display(), "the private key of the certificate authority is readable by its group");
    }
    Ok(())
}

fn damaged(path: &Path, problem: String) -> AuthorityError {
    AuthorityError::Damaged {
        path: path.to_owned(),
        problem,
    }
}

/// Why there is no authority.
#[derive(Debug)]
pub enum AuthorityError {
    /// A file could not be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// "read" or "written".
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Everybody may read the private key.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Making a key or a signature failed.
    Crypto(rcgen::Error),
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                doing,
                source,
            } => write!(
                f,
                "the certificate authority's file \"{}\" cannot be {doing}: {source}; \
                 give its folder room and rights, or name another with --state-dir",
                path.display()
            ),
            Self::Damaged { path, problem } => write!(
                f,
                "the certificate authority's file \"{}\" {problem}; \
                 restore it, or delete {KEY_FILE} and {CERTIFICATE_FILE} to have a new authority made",
                path.display()
            ),
            Self::Exposed { path, mode } => write!(
                f,
                "the certificate authority's key \"{0}\" may be read by everybody (mode {mode:04o}); \
                 run: chmod 600 {0}",
                path.display()
            ),
            Self::Crypto(error) => write!(f, "the certificate authority cannot be made: {error}"),
        }
    }
}

impl std::error::Error for AuthorityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Crypto(source) => Some(source),
            Self::Damaged { .. } | Self::Exposed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_kept_authority_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (first, made) = Authority::load_or_create(folder.path()).unwrap();
        let (second, found) = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!((made, found), (Provenance::Created, Provenance::Loaded));
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(mode(&folder.path().join(KEY_FILE)), 0o600);
        assert_eq!(mode(&folder.path().join(CERTIFICATE_FILE)), 0o644);
    }

    #[test]
    fn an_expired_authority_is_replaced_and_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let key = AuthorityKey::generate().unwrap();
        let key_pem = key.0.serialize_pem();
        let old = Authority::create(key, Duration::hours(-1)).unwrap();
        trust::write_atomically(&folder.path().join(KEY_FILE), key_pem.as_bytes(), 0o600).unwrap();
        trust::write_atomically(
            &folder.path().join(CERTIFICATE_FILE),
            old.pem().as_bytes(),
            0o644,
        )
        .unwrap();
        let (new, provenance) = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(provenance, Provenance::Renewed);
        assert_ne!(new.certificate(), old.certificate());
        let (kept, provenance) = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(provenance, Provenance::Loaded);
        assert_eq!(kept.certificate(), new.certificate());
    }

    #[test]
    fn a_certificate_alone_was_an_ephemeral_one() {
        let folder = tempfile::tempdir().unwrap();
        let pem = Authority::ephemeral().unwrap().pem();
        fs::write(folder.path().join(CERTIFICATE_FILE), pem).unwrap();
        let (_, provenance) = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(provenance, Provenance::Created);
    }

    #[test]
    fn damaged_files_are_named_with_what_to_do() {
        let other = Authority::ephemeral().unwrap().pem();
        let rows = [
            // file              contents            complaint
            (KEY_FILE, "", "is not a private key"),
            (KEY_FILE, other.as_str(), "is not a private key"),
            (CERTIFICATE_FILE, "garbage", "is not a PEM certificate"),
            (
                CERTIFICATE_FILE,
                other.as_str(),
                "does not belong to the key",
            ),
        ];
        for (file, contents, complaint) in rows {
            let folder = tempfile::tempdir().unwrap();
            Authority::load_or_create(folder.path()).unwrap();
            fs::write(folder.path().join(file), contents).unwrap();
            let error = Authority::load_or_create(folder.path())
                .unwrap_err()
                .to_string();
            assert!(error.contains(complaint) && error.contains(file), "{error}");
            assert!(error.contains("delete ca.key and ca.pem"), "{error}");
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        let key = folder.path().join(KEY_FILE);
        for (mode, used) in [(0o644, false), (0o604, false), (0o660, true), (0o400, true)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let answer = Authority::load_or_create(folder.path());
            assert_eq!(answer.is_ok(), used, "{mode:o}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_the_path() {
        let error = Authority::load_or_create(Path::new("/nonexistent/state")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/state/ca.key"),
            "{error}"
        );
    }

    #[test]
    fn the_certificate_carries_what_strict_verifiers_ask_for() {
        let authority = Authority::ephemeral().unwrap();
        let (_, parsed) = parse_x509_certificate(authority.certificate()).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = parsed.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        let oid = x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
        assert!(parsed.get_extension_unique(&oid).unwrap().is_some());
        let validity = parsed.validity();
        let life = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(life, (BACKDATED + EPHEMERAL_LIFE).whole_seconds());
        let other = Authority::ephemeral().unwrap();
        let (_, other) = parse_x509_certificate(other.certificate()).unwrap();
        assert_ne!(parsed.serial, other.serial);
        assert_ne!(parsed.subject(), other.subject());
    }

    #[test]
    fn nothing_of_the_key_is_in_its_debug_form() {
        let authority = Authority::ephemeral().unwrap();
        let text = format!("{authority:?}");
        assert!(!text.to_lowercase().contains("key"), "{text}");
    }
}
