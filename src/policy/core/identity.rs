//! As which agent we sign: an AIP DID and its Ed25519 key (contract §1.5).
//!
//! What is signed is what is sent: the method, the path below the base of the
//! URL, a moment, a nonce and the digest of the very bytes of the body.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::domain::Timestamp;
use crate::redact::Secret;

use super::settings::Unfit;
use super::time;
use super::verify::Signer;

/// The header with the DID.
pub(super) const DID: &str = "x-openbox-agent-did";
/// The header with the moment of signing.
pub(super) const TIMESTAMP: &str = "x-openbox-agent-timestamp";
/// The header with what makes a signature differ from the next.
pub(super) const NONCE: &str = "x-openbox-agent-nonce";
/// The header with the signature.
pub(super) const SIGNATURE: &str = "x-openbox-agent-signature";
/// The header with the digest of the body.
pub(super) const BODY: &str = "x-openbox-body-sha256";

/// A checked agent DID, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDid(Arc<str>);

impl AgentDid {
    /// Reads `did:aip:` and a UUID.
    ///
    /// # Errors
    ///
    /// When it has another shape.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        match text.strip_prefix("did:aip:") {
            Some(uuid) if is_uuid(uuid) => Ok(Self(text.into())),
            Some(_) | None => Err(Unfit {
                found: format!("\"{}\" is no agent DID", text.escape_debug()),
                expected: "did:aip: and the UUID of the agent",
                example: "did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11",
            }),
        }
    }
}

/// Whether `text` is a UUID as it is usually written.
pub(super) fn is_uuid(text: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    text.split('-').map(str::len).eq(GROUPS)
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// The private key of an agent. `Debug` does not show it, and its memory is
/// wiped when the last clone is dropped.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::redact::REDACTED)
    }
}

impl SigningKey {
    const SEED_BYTES: usize = 32;

    /// Reads the base64 of an Ed25519 seed.
    ///
    /// # Errors
    ///
    /// When it is anything else. The key itself is never repeated.
    pub fn parse(secret: &Secret) -> Result<Self, Unfit> {
        let unfit = |found: String| Unfit {
            found,
            expected: "the standard base64 (44 characters, the last one =) of an Ed25519 seed of 32 bytes",
            example: "base64 of 32 random bytes: openssl rand -base64 32",
        };
        let seed = STANDARD
            .decode(secret.expose())
            .map(Zeroizing::new)
            .map_err(|_| unfit("the agent's private key is not base64".to_owned()))?;
        if seed.len() != Self::SEED_BYTES {
            let bytes = seed.len();
            return Err(unfit(format!(
                "the agent's private key has {bytes} bytes, not {}",
                Self::SEED_BYTES
            )));
        }
        Ed25519KeyPair::from_seed_unchecked(&seed)
            .map(|pair| Self(Arc::new(pair)))
            .map_err(|_| unfit("the agent's private key is no Ed25519 seed".to_owned()))
    }

    /// The public half.
    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

/// An agent that signs what it asks.
#[derive(Clone, Debug)]
pub struct Identity {
    did: AgentDid,
    key: SigningKey,
}

/// What makes one signature differ from the next.
#[derive(Debug)]
struct Moment {
    timestamp: String,
    nonce: String,
}

impl Moment {
    /// `at`, and a nonce that nobody used before.
    fn fresh(at: Timestamp) -> Option<Self> {
        const NONCE_BYTES: usize = 24;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).ok()?;
        Some(Self {
            timestamp: time::written_signed(at),
            nonce: URL_SAFE_NO_PAD.encode(nonce),
        })
    }
}

impl Identity {
    /// This agent, with its key.
    pub fn new(did: AgentDid, key: SigningKey) -> Self {
        Self { did, key }
    }

    /// What this agent's signatures are checked with.
    pub fn signer(&self) -> Option<Signer> {
        Signer::new(self.did.clone(), self.key.public())
    }

    /// Adds the five headers of one request, sent at `at`. `path` is the route
    /// alone, without the base of the URL. Without random numbers nothing is
    /// added, and Core refuses the request.
    pub fn sign(
        &self,
        headers: &mut HeaderMap,
        method: &str,
        path: &str,
        body: &[u8],
        at: Timestamp,
    ) {
        let Some(moment) = Moment::fresh(at) else {
            tracing::error!("the system gives no random numbers: a request to Core is not signed");
            return;
        };
        let digest = digest(body);
        let signature = self.signature(&canonical(
            method,
            path,
            &moment.timestamp,
            &moment.nonce,
            &digest,
        ));
        for (name, value) in [
            (DID, &*self.did.0),
            (TIMESTAMP, &moment.timestamp),
            (NONCE, &moment.nonce),
            (SIGNATURE, &signature),
            (BODY, &digest),
        ] {
            // All five are of characters that a header may have.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    /// Whether `signature` is ours over `canonical`.
    #[cfg(test)]
    pub(super) fn has_signed(&self, canonical: &str, signature: &str) -> bool {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
        let signature = STANDARD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, self.key.public())
            .verify(canonical.as_bytes(), &signature)
            .is_ok()
    }

    fn signature(&self, canonical: &str) -> String {
        STANDARD.encode(self.key.0.sign(canonical.as_bytes()))
    }
}

/// What is signed: the one place that says so, for signing and for checking.
pub(super) fn canonical(
    method: &str,
    path: &str,
    timestamp: &str,
    nonce: &str,
    digest: &str,
) -> String {
    let method = method.to_ascii_uppercase();
    format!("{method}\n{path}\n{timestamp}\n{nonce}\n{digest}")
}

/// Lower-case hex of the SHA-256.
pub(super) fn digest(body: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    Sha256::digest(body)
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)])
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = include_str!("golden/ed25519_v1.json");

    fn identity(vectors: &Value) -> Identity {
        let seed = vectors["private_seed_b64"].as_str().unwrap();
        Identity::new(
            AgentDid::parse(vectors["did"].as_str().unwrap()).unwrap(),
            SigningKey::parse(&Secret::new(seed)).unwrap(),
        )
    }

    #[test]
    fn signatures_are_those_of_the_sdk_byte_for_byte() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let identity = identity(&vectors);
        let public: String = identity
            .key
            .public()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(public, vectors["public_key_hex"]);
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let text = |name: &str| case[name].as_str().unwrap().to_owned();
            let moment = Moment {
                timestamp: text("timestamp"),
                nonce: text("nonce"),
            };
            let digest = digest(text("body_utf8").as_bytes());
            assert_eq!(digest, text("body_sha256"));
            let canonical = canonical(
                &text("method"),
                &text("path"),
                &moment.timestamp,
                &moment.nonce,
                &digest,
            );
            assert_eq!(canonical, text("canonical"));
            assert_eq!(identity.signature(&canonical), text("signature_b64"));
        }
    }

    #[test]
    fn a_signed_request_verifies_from_its_own_headers_and_never_repeats_a_nonce() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let identity = identity(&vectors);
        let at = Timestamp(1_767_323_045_678_901_234);
        let mut nonces = Vec::new();
        for _ in 0..2 {
            let mut headers = HeaderMap::new();
            identity.sign(&mut headers, "POST", "/api/v1/x", b"{}", at);
            assert_eq!(headers.len(), 5);
            let header = |name: &str| headers[name].to_str().unwrap();
            let timestamp = header("x-openbox-agent-timestamp");
            assert_eq!(timestamp, "2026-01-02T03:04:05.678901+00:00");
            let nonce = header("x-openbox-agent-nonce");
            assert_eq!(nonce.len(), 32);
            let signed = format!(
                "POST\n/api/v1/x\n{timestamp}\n{nonce}\n{}",
                header("x-openbox-body-sha256")
            );
            assert!(identity.has_signed(&signed, header("x-openbox-agent-signature")));
            nonces.push(nonce.to_owned());
        }
        assert_ne!(nonces[0], nonces[1]);
    }

    #[test]
    fn a_did_is_exact() {
        for (text, good) in [
            ("did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11", true),
            ("did:aip:7B9D6C1E-4F3A-4C55-9A1B-0F6F3B0C2D11", true),
            ("did:web:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11", false),
            ("did:aip:7b9d6c1e4f3a4c559a1b0f6f3b0c2d11", false),
            ("did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d1", false),
            ("did:aip:7b9d6c1g-4f3a-4c55-9a1b-0f6f3b0c2d11", false),
            ("did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11\n", false),
            ("", false),
        ] {
            assert_eq!(AgentDid::parse(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn a_key_that_is_no_seed_is_refused_and_not_repeated() {
        for (text, why) in [
            ("zqx!", "not base64"),
            ("", "0 bytes"),
            ("enF4enF4", "6 bytes"),
            ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "not base64"),
        ] {
            let error = SigningKey::parse(&Secret::new(text)).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert!(
                text.is_empty() || !error.to_string().contains(text),
                "{error}"
            );
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let shown = format!("{:?}", identity(&vectors));
        assert!(
            shown.contains("[REDACTED]") && !shown.contains("seed"),
            "{shown}"
        );
    }
}
