//! The whole password of a client in clear, which a server behind TLS asks for: the
//! client hides it under a key of ours, as it does for a server without TLS under that
//! server's. It is passed on inside TLS, and kept nowhere. And that of a client behind TLS,
//! which a server in clear on this machine asks for: it is hidden here under that server's.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

/// How many bytes a nonce has.
pub(super) const NONCE_BYTES: usize = 20;
/// The older of the two methods that ask for a whole password: it remembers nobody.
pub(super) const SHA256: &[u8] = b"sha256_password";

/// What a client asks for the key with, by its method.
pub(super) fn question(plugin: &[u8]) -> u8 {
    match plugin {
        SHA256 => 1,
        _ => 2,
    }
}

/// `password` as the packet of this number, which is wiped where it is let go of.
pub(super) fn packet(sequence: u8, password: &[u8]) -> Bytes {
    let length = u32::try_from(password.len()).unwrap_or(u32::MAX);
    let [a, b, c, _] = length.to_le_bytes();
    Bytes::from_owner(Zeroizing::new([&[a, b, c, sequence], password].concat()))
}

/// What a client has said, until the server has told its key.
pub(super) struct Said(Zeroizing<Vec<u8>>);

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Said")
    }
}

impl Said {
    /// The password in `body`, with the NUL behind it, which is wiped there.
    pub(super) fn taken(body: &mut [u8]) -> Self {
        let said = Zeroizing::new(body.to_vec());
        body.zeroize();
        Self(said)
    }

    /// As a client hides it with this nonce under the key in this PEM; `None` where that is
    /// none, or too small for it.
    pub(super) fn hidden(self, pem: &[u8], nonce: &[u8]) -> Option<Vec<u8>> {
        let Self(mut bytes) = self;
        for (byte, mask) in bytes.iter_mut().zip(nonce.iter().cycle()) {
            *byte ^= mask;
        }
        let lines = std::str::from_utf8(pem).ok()?.lines();
        let text: String = lines.filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(text).ok()?;
        let key = PublicEncryptingKey::from_der(&der).ok()?;
        let key = OaepPublicEncryptingKey::new(key).ok()?;
        let mut hidden = vec![0; key.ciphertext_size()];
        let length = key
            .encrypt(&OAEP_SHA1_MGF1SHA1, &bytes, &mut hidden, None)
            .ok()?
            .len();
        hidden.truncate(length);
        Some(hidden)
    }
}

/// What becomes of a login that needs a whole password, where only one of the legs has
/// TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholePassword {
    /// It is refused.
    Refuse,
    /// The sidecar receives the password, and passes it on.
    Receive,
}

/// What a client hides its password under. As new with each start.
pub(super) struct Key {
    private: OaepPrivateDecryptingKey,
    /// As clients want to be told it: PEM.
    public: Box<str>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new one, where passwords are received.
    pub(super) fn of(setting: WholePassword) -> Option<Self> {
        match setting {
            WholePassword::Refuse => None,
            WholePassword::Receive => {
                let key = Self::new();
                if key.is_none() {
                    tracing::error!("no RSA key could be made: mysql.whole_password is refuse");
                }
                key
            }
        }
    }

    fn new() -> Option<Self> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).ok()?;
        let public: PublicKeyX509Der<'_> = private.public_key().as_der().ok()?;
        let text = STANDARD.encode(public.as_ref());
        let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for line in text.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).ok()?);
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Some(Self {
            private: OaepPrivateDecryptingKey::new(private).ok()?,
            public: pem.into(),
        })
    }

    /// The body of the packet that tells it.
    pub(super) fn told(&self) -> Vec<u8> {
        [b"\x01", self.public.as_bytes()].concat()
    }

    /// The password, with the NUL behind it, that a client `hidden` with this nonce;
    /// `None` where it was hidden under another key.
    pub(super) fn password(&self, hidden: &[u8], nonce: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let found = self
            .private
            .decrypt(&OAEP_SHA1_MGF1SHA1, hidden, &mut bytes, None);
        let length = found.ok()?.len();
        bytes.truncate(length);
        for (byte, mask) in bytes.iter_mut().zip(nonce.iter().cycle()) {
            *byte ^= mask;
        }
        (bytes.last() == Some(&0)).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn my_5_only_what_was_hidden_under_this_key_and_nonce_is_a_password() {
        let nonce = [7; NONCE_BYTES];
        let key = Key::of(WholePassword::Receive).unwrap();
        let mut body = *b"it's secret\0";
        let said = Said::taken(&mut body);
        assert_eq!(body, [0; 12]);
        assert_eq!(format!("{said:?}"), "Said");
        let hidden = said.hidden(key.public.as_bytes(), &nonce).unwrap();
        let none = Said::taken(&mut [0]);
        assert_eq!(none.hidden(b"no key", &nonce), None);
        let said = key.password(&hidden, &nonce).unwrap();
        assert_eq!(&**said, b"it's secret\0");
        assert!(key.password(&hidden, &[8; NONCE_BYTES]).is_none());
        assert!(key.password(&hidden[1..], &nonce).is_none());
        assert!(Key::new().unwrap().password(&hidden, &nonce).is_none());
        assert!(Key::of(WholePassword::Refuse).is_none());
        assert_eq!(&packet(5, &said)[..], b"\x0c\0\0\x05it's secret\0");
    }
}
