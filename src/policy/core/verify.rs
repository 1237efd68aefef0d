//! Whether a request was signed by the agent that this sidecar knows: the other
//! side of [`super::identity`] (contract §1.5), and with `asserted` of `okta`.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::process::Kept;

use super::asserted::{self, Flaw};
use super::identity::{self, AgentDid};
use super::okta::{ASSERTION, OktaKnown};
use super::settings::Unfit;
use super::time;
use super::workload;

/// How far the clock of an agent may be off.
const WINDOW: Duration = Duration::from_secs(300);

/// Most nonces remembered. When older ones have to leave, what was signed no
/// later than they were counts as replayed: nobody can tell any more.
const NONCES_MAX: usize = 200_000;

/// Longest nonce, bytes; SDKs send 32 or 36.
const NONCE_BYTES_MAX: usize = 128;

/// The agent that signs: its DID, and the public half of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    did: AgentDid,
    key: [u8; Self::KEY_BYTES],
}

impl Signer {
    const KEY_BYTES: usize = 32;

    /// `key` is the base64 of the Ed25519 public key.
    ///
    /// # Errors
    ///
    /// When it is anything else.
    pub fn parse(did: AgentDid, key: &str) -> Result<Self, Unfit> {
        let read = STANDARD.decode(key).ok();
        let signer = read.and_then(|bytes| Self::new(did, &bytes));
        signer.ok_or_else(|| Unfit {
            found: "the agent's public key is not the base64 of 32 bytes".to_owned(),
            expected: "the standard base64 (44 characters, the last one =) of an Ed25519 public key",
            example: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        })
    }

    /// `None` if `key` is no key by its length.
    pub(super) fn new(did: AgentDid, key: &[u8]) -> Option<Self> {
        let key = key.try_into().ok()?;
        Some(Self { did, key })
    }
}

/// The agent whose requests are checked.
#[derive(Clone, Debug)]
pub enum Known {
    /// It signs with the key of its DID.
    Did(Signer),
    /// It asserts as this Okta AI agent.
    Okta(OktaKnown),
}

/// What becomes of requests that are not signed, where signatures are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// They are rejected.
    Rejected,
    /// They are taken: the sidecar signs for its agent, whose key the agent need
    /// not have.
    Taken,
}

/// Why a signed request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Something of a signature is missing.
    Missing(&'static str),
    /// The body is not what was signed.
    BodyDiffers,
    /// The signature is not over this request, or by another key.
    SignatureWrong,
    /// It was signed too long ago, or by a clock that is ahead.
    OutsideWindow,
    /// It came before.
    Replayed,
    /// Another agent signed it.
    OtherAgent,
    /// It is signed, and this sidecar knows no key to check it with.
    NoVerifier,
    /// Core has not told yet what the assertions of its agent name.
    NotToldYet,
    /// Its assertion is not one.
    Assertion(Flaw),
    /// It shows a workload's token, and tokens are Core's to check.
    Workload,
}

impl Rejection {
    /// The reason code of the contract.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing(_) | Self::BodyDiffers | Self::SignatureWrong => "signature_invalid",
            Self::OutsideWindow => "timestamp_outside_window",
            Self::Replayed => "nonce_replayed",
            Self::OtherAgent => "did_agent_mismatch",
            Self::NoVerifier | Self::NotToldYet | Self::Workload => "verifier_not_configured",
            Self::Assertion(flaw) => flaw.code(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(
                f,
                "requests must be signed here, and {name} is missing or unreadable"
            ),
            Self::BodyDiffers => f.write_str("the body is not the one that was signed"),
            Self::SignatureWrong => f.write_str("the signature is not over this request"),
            Self::OutsideWindow => write!(
                f,
                "signed more than {} s from now by the sidecar's clock; compare the clocks",
                WINDOW.as_secs()
            ),
            Self::Replayed => f.write_str("this nonce was used before"),
            Self::Assertion(flaw) => f.write_str(flaw.words()),
            Self::NotToldYet => f.write_str(
                "OpenBox Core has not yet told this sidecar which Okta AI agent its key is of; try again, and see whether Core answers the sidecar (/readyz)",
            ),
            Self::Workload => f.write_str(
                "the request shows the token of a workload, which only Core can check; unset OPENBOX_WORKLOAD_PRIVATE_KEY for the agent, the sidecar shows who it is",
            ),
            Self::OtherAgent => f.write_str("signed as another agent than sdk.agent_did"),
            Self::NoVerifier => f.write_str(
                "the request is signed, and this sidecar has no key to check it with; set sdk.agent_did and sdk.agent_public_key (for /api/v2, the core.okta_… settings whole), or do not sign",
            ),
        }
    }
}

/// What was found of a request that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The agent sent it: it is signed, and the signature holds.
    Signed,
    /// It is not signed, and need not be.
    Unsigned,
}

/// What is signed, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, without query.
    pub path: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body, byte by byte.
    pub body: &'a [u8],
}

/// Checks signatures, and remembers nonces for as long as they could be used.
#[derive(Debug)]
pub struct Verifier {
    known: Option<(Known, Unsigned)>,
    nonces: Kept<Box<str>, Timestamp>,
    /// What was signed no later than this may have come before.
    forgotten: Mutex<Timestamp>,
}

impl Verifier {
    /// What is signed must be signed by who is `known`; without one, nothing may
    /// be signed.
    pub fn new(known: Option<(Known, Unsigned)>) -> Self {
        Self::bounded(known, NONCES_MAX)
    }

    fn bounded(known: Option<(Known, Unsigned)>, nonces_max: usize) -> Self {
        Self {
            known,
            // Signed by a clock that is ahead, it stays usable twice as long.
            nonces: Kept::new(WINDOW.saturating_mul(2), nonces_max),
            forgotten: Mutex::new(Timestamp(0)),
        }
    }

    /// Checks one request, at `now`.
    ///
    /// # Errors
    ///
    /// It is not signed by the agent, or was taken before.
    pub fn check(&self, signed: Signed<'_>, now: Timestamp) -> Result<Checked, Rejection> {
        if signed.path.starts_with("/api/v3/") || signed.headers.contains_key(workload::TOKEN) {
            return Err(Rejection::Workload);
        }
        if signed.path.starts_with("/api/v2/") || signed.headers.contains_key(ASSERTION) {
            return self.check_assertion(signed, now).map(|()| Checked::Signed);
        }
        self.check_signature(signed, now)
    }

    /// The Okta AI agent whose assertions are checked, if it is one.
    pub fn okta(&self) -> Option<&OktaKnown> {
        match &self.known {
            Some((Known::Okta(okta), _)) => Some(okta),
            Some((Known::Did(_), _)) | None => None,
        }
    }

    fn check_assertion(&self, signed: Signed<'_>, now: Timestamp) -> Result<(), Rejection> {
        let okta = self.okta().ok_or(Rejection::NoVerifier)?;
        let names = okta.names().ok_or(Rejection::NotToldYet)?;
        let (id, at) =
            asserted::check(&names, okta.key(), signed, now).map_err(Rejection::Assertion)?;
        self.first(&id, at)
            .map_err(|_| Rejection::Assertion(Flaw::Replayed))
    }

    fn check_signature(&self, signed: Signed<'_>, now: Timestamp) -> Result<Checked, Rejection> {
        let header = |name: &'static str| {
            let value = signed.headers.get(name)?.to_str().ok();
            value.filter(|value| !value.is_empty())
        };
        let is_signed = [identity::SIGNATURE, identity::DID, identity::NONCE]
            .iter()
            .any(|name| signed.headers.contains_key(*name));
        let signer = match &self.known {
            None | Some((Known::Okta(_), _)) if is_signed => return Err(Rejection::NoVerifier),
            None => return Ok(Checked::Unsigned),
            Some((_, Unsigned::Taken)) if !is_signed => return Ok(Checked::Unsigned),
            Some((Known::Okta(_), _)) => return Err(Rejection::Assertion(Flaw::Missing)),
            Some((Known::Did(signer), Unsigned::Taken | Unsigned::Rejected)) => signer,
        };
        let must = |name: &'static str| header(name).ok_or(Rejection::Missing(name));
        let did = must(identity::DID)?;
        let timestamp = must(identity::TIMESTAMP)?;
        let nonce = must(identity::NONCE)?;
        let signature = must(identity::SIGNATURE)?;
        let digest = must(identity::BODY)?;
        if AgentDid::parse(did).as_ref() != Ok(&signer.did) {
            return Err(Rejection::OtherAgent);
        }
        let at = time::read(timestamp).ok_or(Rejection::Missing(identity::TIMESTAMP))?;
        if at.since(now).max(now.since(at)) > WINDOW {
            return Err(Rejection::OutsideWindow);
        }
        if digest != identity::digest(signed.body) {
            return Err(Rejection::BodyDiffers);
        }
        // The texts as they came: a time that is written anew is another text.
        let text = identity::canonical(signed.method, signed.path, timestamp, nonce, digest);
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| Rejection::SignatureWrong)?;
        UnparsedPublicKey::new(&ED25519, signer.key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| Rejection::SignatureWrong)?;
        // Last: nobody else can use up the nonces of an agent.
        self.first(nonce, at).map(|()| Checked::Signed)
    }

    fn first(&self, nonce: &str, at: Timestamp) -> Result<(), Rejection> {
        let mut forgotten = self
            .forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let key: Box<str> = nonce.into();
        if nonce.len() > NONCE_BYTES_MAX || at <= *forgotten || self.nonces.has(&key, now) {
            return Err(Rejection::Replayed);
        }
        for left in self.nonces.keep(key, at, now) {
            *forgotten = left.max(*forgotten);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::core::identity::{Identity, SigningKey};
    use crate::redact::Secret;

    const VECTORS: &str = include_str!("golden/ed25519_v1.json");
    const BODY: &[u8] = b"{\"a\": 1}";
    const PATH: &str = "/api/v1/governance/evaluate";

    fn now() -> Timestamp {
        Timestamp(1_767_323_045_000_000_000)
    }

    fn vectors() -> Value {
        serde_json::from_str(VECTORS).unwrap()
    }

    fn did(vectors: &Value) -> AgentDid {
        AgentDid::parse(vectors["did"].as_str().unwrap()).unwrap()
    }

    fn verifier() -> Verifier {
        let vectors = vectors();
        let hex = vectors["public_key_hex"].as_str().unwrap();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let signer = Signer::parse(did(&vectors), &STANDARD.encode(bytes)).unwrap();
        Verifier::bounded(Some((Known::Did(signer), Unsigned::Rejected)), 3)
    }

    #[test]
    fn what_is_not_signed_is_taken_where_the_sidecar_signs_for_its_agent() {
        let Verifier { known, .. } = verifier();
        let (known, _) = known.unwrap();
        let lenient = Verifier::new(Some((known, Unsigned::Taken)));
        assert_eq!(check(&lenient, &HeaderMap::new()), Ok(Checked::Unsigned));
        let mut headers = signed_at(now());
        assert_eq!(check(&lenient, &headers), Ok(Checked::Signed));
        headers.remove(identity::SIGNATURE);
        let half = check(&lenient, &headers);
        assert_eq!(half, Err(Rejection::Missing(identity::SIGNATURE)));
        let strict = check(&verifier(), &HeaderMap::new());
        assert_eq!(strict, Err(Rejection::Missing(identity::DID)));
    }

    fn signed_at(at: Timestamp) -> HeaderMap {
        let vectors = vectors();
        let seed = vectors["private_seed_b64"].as_str().unwrap();
        let key = SigningKey::parse(&Secret::new(seed)).unwrap();
        let mut headers = HeaderMap::new();
        Identity::new(did(&vectors), key).sign(&mut headers, "POST", PATH, BODY, at);
        headers
    }

    fn check(verifier: &Verifier, headers: &HeaderMap) -> Result<Checked, Rejection> {
        let signed = Signed {
            method: "POST",
            path: PATH,
            headers,
            body: BODY,
        };
        verifier.check(signed, now())
    }

    #[test]
    fn what_the_sdk_signed_is_taken_in_its_time() {
        let vectors = vectors();
        for case in vectors["cases"].as_array().unwrap() {
            let text = |name: &str| case[name].as_str().unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in [
                (identity::DID, vectors["did"].as_str().unwrap()),
                (identity::TIMESTAMP, text("timestamp")),
                (identity::NONCE, text("nonce")),
                (identity::SIGNATURE, text("signature_b64")),
                (identity::BODY, text("body_sha256")),
            ] {
                headers.insert(name, value.parse().unwrap());
            }
            let signed = Signed {
                method: text("method"),
                path: text("path"),
                headers: &headers,
                body: text("body_utf8").as_bytes(),
            };
            let at = time::read(text("timestamp")).unwrap();
            let taken = verifier().check(signed, at);
            assert_eq!(taken, Ok(Checked::Signed), "{case}");
            let late = at.after(WINDOW + Duration::from_secs(1));
            let taken = verifier().check(signed, late);
            assert_eq!(taken, Err(Rejection::OutsideWindow), "{case}");
        }
    }

    #[test]
    fn every_rejection_has_its_reason_code() {
        type Change = fn(&mut HeaderMap);
        #[rustfmt::skip]
        let table: [(Change, &str); 10] = [
            (|h| drop(h.remove(identity::SIGNATURE)),                     "signature_invalid"),
            (|h| drop(h.remove(identity::NONCE)),                         "signature_invalid"),
            (|h| drop(h.insert(identity::SIGNATURE, "AAAA".parse().unwrap())), "signature_invalid"),
            (|h| drop(h.insert(identity::SIGNATURE, "%".parse().unwrap())), "signature_invalid"),
            (|h| drop(h.insert(identity::NONCE, "another".parse().unwrap())), "signature_invalid"),
            (|h| drop(h.insert(identity::BODY, "00".parse().unwrap())),   "signature_invalid"),
            (|h| drop(h.insert(identity::TIMESTAMP, "now".parse().unwrap())), "signature_invalid"),
            (|h| drop(h.insert(identity::DID, "did:aip:00000000-0000-0000-0000-000000000001".parse().unwrap())), "did_agent_mismatch"),
            (|h| drop(h.insert(identity::DID, "me".parse().unwrap())),    "did_agent_mismatch"),
            // The same moment in another spelling is another text.
            (|h| {
                let same = h[identity::TIMESTAMP].to_str().unwrap().replace("+00:00", "Z");
                h.insert(identity::TIMESTAMP, same.parse().unwrap());
            }, "signature_invalid"),
        ];
        for (row, (change, code)) in table.iter().enumerate() {
            let mut headers = signed_at(now());
            change(&mut headers);
            let rejected = check(&verifier(), &headers).unwrap_err();
            assert_eq!(rejected.code(), *code, "{row}");
            assert!(!rejected.to_string().is_empty());
        }
        let headers = signed_at(now());
        let other_body = Signed {
            method: "POST",
            path: PATH,
            headers: &headers,
            body: b"{}",
        };
        let rejected = verifier().check(other_body, now());
        assert_eq!(rejected, Err(Rejection::BodyDiffers));
        let other_path = Signed {
            path: "/api/v1/governance/approval",
            body: BODY,
            ..other_body
        };
        let rejected = verifier().check(other_path, now());
        assert_eq!(rejected, Err(Rejection::SignatureWrong));
        assert_eq!(
            check(&Verifier::new(None), &headers),
            Err(Rejection::NoVerifier)
        );
        let taken = check(&Verifier::new(None), &HeaderMap::new());
        assert_eq!(taken, Ok(Checked::Unsigned));
    }

    #[test]
    fn the_window_is_five_minutes_to_either_side() {
        let seconds = |n: u64| Duration::from_secs(n);
        let before = |n: u64| Timestamp(now().0 - n * 1_000_000_000);
        for (at, taken) in [
            (before(300), true),
            (before(301), false),
            (now().after(seconds(300)), true),
            (now().after(seconds(301)), false),
        ] {
            assert_eq!(check(&verifier(), &signed_at(at)).is_ok(), taken, "{at:?}");
        }
    }

    #[test]
    fn a_nonce_is_taken_once_and_nobody_else_can_use_it_up() {
        let verifier = verifier();
        let headers = signed_at(now());
        let mut forged = headers.clone();
        forged.insert(identity::SIGNATURE, "AAAA".parse().unwrap());
        assert!(check(&verifier, &forged).is_err());
        assert_eq!(check(&verifier, &headers), Ok(Checked::Signed));
        assert_eq!(check(&verifier, &headers), Err(Rejection::Replayed));
    }

    #[test]
    fn a_nonce_that_had_to_be_forgotten_is_not_taken_again() {
        let verifier = verifier();
        let at = |n: u64| Timestamp(now().0 - (10 - n) * 1_000_000_000);
        let first = signed_at(at(0));
        assert_eq!(check(&verifier, &first), Ok(Checked::Signed));
        for n in 1..=3 {
            assert_eq!(check(&verifier, &signed_at(at(n))), Ok(Checked::Signed));
        }
        assert_eq!(check(&verifier, &first), Err(Rejection::Replayed));
        assert_eq!(check(&verifier, &signed_at(at(4))), Ok(Checked::Signed));
    }

    #[test]
    fn a_public_key_that_is_none_is_refused() {
        let vectors = vectors();
        for text in ["", "zqx!", "AAAA"] {
            assert!(Signer::parse(did(&vectors), text).is_err(), "{text:?}");
        }
    }
}
