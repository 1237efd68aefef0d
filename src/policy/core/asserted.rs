//! Whether an assertion is over this request, by the Okta AI agent that this
//! sidecar knows: the other side of [`super::okta`] (contract §1.6).

use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::domain::Timestamp;

use super::identity;
use super::okta::{ASSERTION, OktaNames};
use super::verify::Signed;
use super::wire::object;

/// How long an assertion may hold.
const HOLDS_MAX: Duration = Duration::from_secs(60);

/// How far the clock of an agent may be off.
const LEEWAY: Duration = Duration::from_secs(30);

/// Longest assertion, bytes; one with a key of 8192 bits and long names has
/// about 3,000.
const BYTES_MAX: usize = 8_192;

/// What is wrong with an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is none.
    Missing,
    /// It cannot be read.
    Malformed,
    /// It is another kind of token.
    Kind,
    /// It is signed in another way.
    Algorithm,
    /// It brings its own key.
    EmbeddedKey,
    /// It is by another key.
    Signature,
    /// It is over another route.
    Endpoint,
    /// It is by another agent, for somebody else, or over another body.
    Binding,
    /// It holds no more, not yet, or for too long.
    Expired,
    /// It came before.
    Replayed,
}

impl Flaw {
    /// The reason code of the contract.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "assertion_missing",
            Self::Malformed => "assertion_malformed",
            Self::Kind => "typ_mismatch",
            Self::Algorithm => "alg_rejected",
            Self::EmbeddedKey => "embedded_key_rejected",
            Self::Signature => "signature_invalid",
            Self::Endpoint => "method_endpoint_mismatch",
            Self::Binding => "binding_invalid",
            Self::Expired => "proof_expired",
            Self::Replayed => "proof_replayed",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Missing => "requests to /api/v2 carry an assertion, and this one has none",
            Self::Malformed => "the assertion cannot be read",
            Self::Kind => "the assertion is another kind of token",
            Self::Algorithm => "the assertion is not signed with RS256",
            Self::EmbeddedKey => "the assertion brings its own key",
            Self::Signature => "the assertion is not signed by the agent's key",
            Self::Endpoint => "the assertion is over another method or path",
            Self::Binding => {
                "the assertion is by another agent, for another organization, deployment, audience or API key, or over another body"
            }
            Self::Expired => {
                "the assertion has expired, or holds for more than 60 s, by the sidecar's clock; compare the clocks"
            }
            Self::Replayed => "this assertion was used before",
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    body_sha256: String,
    exp: u64,
    htm: String,
    htu: String,
    iat: u64,
    iss: String,
    jti: String,
    obx_agent_id: String,
    obx_api_key_sha256: String,
    obx_deployment_id: String,
    obx_organization_id: String,
    sub: String,
}

/// Checks the assertion of one request at `now`, and answers its id and when it
/// was made. That it comes for the first time is left to who remembers.
pub(super) fn check(
    names: &OktaNames,
    key: &[u8],
    signed: Signed<'_>,
    now: Timestamp,
) -> Result<(String, Timestamp), Flaw> {
    let jws = signed.headers.get(ASSERTION).ok_or(Flaw::Missing)?;
    let jws = jws.to_str().map_err(|_| Flaw::Malformed)?;
    if jws.len() > BYTES_MAX {
        return Err(Flaw::Malformed);
    }
    let (text, signature) = jws.rsplit_once('.').ok_or(Flaw::Malformed)?;
    let (header, claims) = text.split_once('.').ok_or(Flaw::Malformed)?;
    is_ours(&part(header)?, names)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| Flaw::Malformed)?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
        .verify(text.as_bytes(), &signature)
        .map_err(|_| Flaw::Signature)?;
    let claims: Claims = part(claims)?;
    if claims.htm != signed.method || claims.htu != signed.path {
        return Err(Flaw::Endpoint);
    }
    if !claims.is_bound(names, signed) {
        return Err(Flaw::Binding);
    }
    Ok((claims.jti.clone(), claims.holds(now)?))
}

/// Whether the header says what the agent's assertions say.
fn is_ours(header: &Map<String, Value>, names: &OktaNames) -> Result<(), Flaw> {
    const KEYS: [&str; 4] = ["jwk", "jku", "x5c", "x5u"];
    const KNOWN: [&str; 3] = ["alg", "kid", "typ"];
    if header.get("typ").and_then(Value::as_str) != Some("openbox-agent-proof+jwt") {
        return Err(Flaw::Kind);
    }
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(Flaw::Algorithm);
    }
    if header.keys().any(|name| KEYS.contains(&name.as_str())) {
        return Err(Flaw::EmbeddedKey);
    }
    // Such as `crit`: what has to be understood, and is not.
    if header.keys().any(|name| !KNOWN.contains(&name.as_str())) {
        return Err(Flaw::Malformed);
    }
    if header.get("kid").and_then(Value::as_str) != Some(&names.key_id) {
        return Err(Flaw::Signature);
    }
    Ok(())
}

fn part<T: DeserializeOwned>(text: &str) -> Result<T, Flaw> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| Flaw::Malformed)?;
    object(&json).map_err(|_| Flaw::Malformed)
}

impl Claims {
    fn is_bound(&self, names: &OktaNames, signed: Signed<'_>) -> bool {
        let bearer = signed.headers.get(AUTHORIZATION);
        let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let key = bearer.map(|key| identity::digest(key.as_bytes()));
        key.as_ref() == Some(&self.obx_api_key_sha256)
            && self.body_sha256 == identity::digest(signed.body)
            && [
                (&self.iss, &names.external_agent_id),
                (&self.sub, &names.external_agent_id),
                (&self.aud, &names.audience),
                (&self.obx_agent_id, &names.agent_id),
                (&self.obx_deployment_id, &names.deployment_id),
                (&self.obx_organization_id, &names.organization_id),
            ]
            .iter()
            .all(|(said, known)| said.as_str() == &***known)
    }

    /// When it was made, if it holds at `now`.
    fn holds(&self, now: Timestamp) -> Result<Timestamp, Flaw> {
        let at = |seconds: u64| Timestamp(0).after(Duration::from_secs(seconds));
        let (issued, ends) = (at(self.iat), at(self.exp));
        let is_short = self.exp > self.iat && ends.since(issued) <= HOLDS_MAX;
        let is_now = issued.since(now) <= LEEWAY && now.since(ends) < LEEWAY;
        (is_short && is_now).then_some(issued).ok_or(Flaw::Expired)
    }
}

#[cfg(test)]
mod tests;
