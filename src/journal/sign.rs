//! The sidecar's signing key, and the checkpoints it signs.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::chain::{Link, hex, unhex};

/// File of the private key in the state folder, PKCS#8, its owner's only.
pub(super) const KEY_FILE: &str = "journal.key";

/// An Ed25519 public key; also what tells one sidecar's journal from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key that `text` spells in 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    /// Whether `signature`, in hex, is this key's for the chain at `link`.
    pub(super) fn signed(&self, link: &Link, signature: &str) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        unhex::<64>(signature).is_some_and(|s| key.verify(&message(link), &s).is_ok())
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The private key.
pub(super) struct Key(Ed25519KeyPair);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.public())
    }
}

impl Key {
    /// The key in `folder`; made if there is none.
    pub(super) fn load_or_make(folder: &Path) -> io::Result<Self> {
        match Self::load(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(folder),
            loaded => loaded,
        }
    }

    /// The key in `folder`.
    pub(super) fn load(folder: &Path) -> io::Result<Self> {
        let bytes = Zeroizing::new(std::fs::read(folder.join(KEY_FILE))?);
        let pair = Ed25519KeyPair::from_pkcs8(&bytes);
        let unreadable = "journal.key is not an Ed25519 key in PKCS#8";
        pair.map(Self)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, unreadable))
    }

    fn make(folder: &Path) -> io::Result<Self> {
        let denied = |_| io::Error::other("the system makes no random key");
        let bytes = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(denied)?;
        // Under another name first: half a key would be one for ever.
        let draft = folder.join("journal.key.new");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        std::fs::rename(&draft, folder.join(KEY_FILE))?;
        Self::load(folder)
    }

    /// What checks its signatures.
    pub(super) fn public(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref().try_into();
        PublicKey(bytes.unwrap_or_default())
    }

    /// The signature of the chain at `link`, in hex.
    pub(super) fn sign(&self, link: &Link) -> String {
        hex(self.0.sign(&message(link)).as_ref())
    }
}

/// What is signed: a purpose, the next record's number, the chain's hash.
fn message(link: &Link) -> Vec<u8> {
    let number = link.next.to_be_bytes();
    [
        b"openbox-sidecar journal checkpoint\n".as_slice(),
        &number,
        &link.hash,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_stays_and_is_its_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let made = Key::load_or_make(folder.path()).unwrap().public();
        assert_eq!(Key::load_or_make(folder.path()).unwrap().public(), made);
        let file = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert_eq!(PublicKey::from_hex(&made.to_string()), Some(made));
    }

    #[test]
    fn a_signature_holds_for_its_place_in_its_chain_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::load_or_make(folder.path()).unwrap();
        let link = Link {
            next: 3,
            hash: [1; 32],
        };
        let signature = key.sign(&link);
        assert!(key.public().signed(&link, &signature));
        assert!(!key.public().signed(&Link { next: 4, ..link }, &signature));
        let other = [2; 32];
        assert!(!key.public().signed(
            &Link {
                hash: other,
                ..link
            },
            &signature
        ));
    }
}
