//! The RSA key of an agent, and the compact signatures (JWS, RS256) made with
//! it (contract §1.6, §1.7).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::redact::{REDACTED, Secret};

use super::json::{Bracket, Json};
use super::settings::Unfit;

/// A private RSA key of at least 2048 bits. `Debug` does not show it, and its
/// memory is wiped when the last clone is dropped.
#[derive(Clone)]
pub struct RsaKey {
    pair: Arc<RsaKeyPair>,
    thumbprint: Arc<str>,
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl RsaKey {
    /// Reads an unencrypted PKCS#8 key in PEM.
    ///
    /// # Errors
    ///
    /// When it is anything else, or has fewer than 2048 bits. The key itself is
    /// never repeated.
    pub fn parse(pem: &Secret) -> Result<Self, Unfit> {
        let unfit = |found: &str| Unfit {
            found: found.to_owned(),
            expected: "an unencrypted RSA key of at least 2048 bits as PKCS#8 PEM (-----BEGIN PRIVATE KEY-----)",
            example: "openssl pkcs8 -topk8 -nocrypt -in key.pem",
        };
        let der = pkcs8(pem.expose()).map_err(unfit)?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|error| {
            unfit(match error.to_string().as_str() {
                "TooSmall" => "the private key has fewer than 2048 bits",
                "TooLarge" => "the private key has more than 8192 bits",
                _ => "the private key is PEM, and no RSA key",
            })
        })?;
        let public = public_numbers(pair.public_key().as_ref());
        let (n, e) = public.ok_or_else(|| unfit("the private key has no readable public half"))?;
        Ok(Self {
            thumbprint: thumbprint(n, e).into(),
            pair: Arc::new(pair),
        })
    }

    /// Whether `thumbprint` (RFC 7638, SHA-256, base64url) is of this key.
    pub(super) fn is_of(&self, thumbprint: &str) -> bool {
        self.thumbprint
            .as_bytes()
            .ct_eq(thumbprint.as_bytes())
            .into()
    }

    /// Header and claims, signed. `claims` stand in the order of their names,
    /// for the bytes are compared across languages. `None` if the system gives
    /// no random numbers.
    pub(super) fn jws(
        &self,
        kid: &str,
        kind: &str,
        claims: &[(&str, Claim<'_>)],
    ) -> Option<String> {
        let header = [
            ("alg", Claim::Text("RS256")),
            ("kid", Claim::Text(kid)),
            ("typ", Claim::Text(kind)),
        ];
        let mut text = URL_SAFE_NO_PAD.encode(object(&header));
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(object(claims), &mut text);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .ok()?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Some(text)
    }

    #[cfg(test)]
    pub(super) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The public half, PKCS#1 DER.
    pub(super) fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

/// The value of a claim.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim<'a> {
    /// A string.
    Text(&'a str),
    /// Seconds since 1970.
    Seconds(u64),
}

/// What makes one assertion differ from the next. `None` without random numbers.
pub(super) fn fresh_id() -> Option<String> {
    const BYTES: usize = 24;
    let mut id = [0; BYTES];
    rand::fill(&mut id).ok()?;
    Some(URL_SAFE_NO_PAD.encode(id))
}

fn object(members: &[(&str, Claim<'_>)]) -> Vec<u8> {
    const BYTES: usize = 768;
    debug_assert!(members.is_sorted_by_key(|(name, _)| *name));
    let mut json = Json::with_capacity(BYTES);
    json.open(Bracket::Object);
    for (name, value) in members {
        json.name(name);
        match value {
            Claim::Text(text) => json.string(text),
            Claim::Seconds(seconds) => json.number(*seconds),
        }
    }
    json.close(Bracket::Object);
    json.into_bytes()
}

/// The bytes between the lines of the one key in `pem`.
fn pkcs8(pem: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    const END: &str = "-----END PRIVATE KEY-----";
    let Some((_, rest)) = pem.split_once(BEGIN) else {
        return Err(if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            "the private key is encrypted"
        } else if pem.contains("-----BEGIN RSA PRIVATE KEY-----") {
            "the private key is PKCS#1, not PKCS#8"
        } else {
            "the private key is no PKCS#8 PEM"
        });
    };
    let (body, _) = rest
        .split_once(END)
        .ok_or("the private key has no -----END PRIVATE KEY-----")?;
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD
        .decode(body.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| "the private key is not base64 between its lines")
}

/// RFC 7638: the SHA-256 of the required members, in order, without a space.
fn thumbprint(n: &[u8], e: &[u8]) -> String {
    let [n, e] = [n, e].map(|number| URL_SAFE_NO_PAD.encode(number));
    let json = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(json))
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 A.1.1), without zeros
/// in front.
fn public_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (numbers, rest) = element(der, SEQUENCE)?;
    let (n, after) = element(numbers, INTEGER)?;
    let (e, left) = element(after, INTEGER)?;
    let is_whole = rest.is_empty() && left.is_empty();
    is_whole.then(|| (without_zeros(n), without_zeros(e)))
}

/// The content of the first element of `der`, which has this `tag`, and what
/// stands behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    const LONG: u8 = 0x80;
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first.checked_sub(LONG) {
        None => (usize::from(*first), rest),
        Some(bytes) => {
            let (length, rest) = rest.split_at_checked(usize::from(bytes))?;
            let add = |sum: usize, byte: &u8| sum.checked_mul(256)?.checked_add(usize::from(*byte));
            (length.iter().try_fold(0, add)?, rest)
        }
    };
    (*found == tag)
        .then(|| rest.split_at_checked(length))
        .flatten()
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number
        .split_at_checked(zeros)
        .map_or(number, |(_, rest)| rest)
}

#[cfg(test)]
pub(super) mod tests;
