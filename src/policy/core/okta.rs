//! As which Okta AI agent we ask: an assertion over each request, signed with
//! the agent's RSA key (contract §1.6).
//!
//! What the assertion names is either configured whole, or Core tells it
//! (`/api/v2/auth/bootstrap`); never a part of each.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::domain::Timestamp;

use super::identity;
use super::proof::Unproven;
use super::rsa::{Claim, RsaKey, fresh_id};
use super::settings::ApiKey;
use super::wire::object;

/// The header with the assertion.
pub(super) const ASSERTION: &str = "x-openbox-agent-assertion";

/// How long an assertion holds, seconds: what Core takes at most.
const HOLDS_SECONDS: u64 = 60;

/// What an assertion says besides its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OktaNames {
    /// OpenBox's id of the agent.
    pub agent_id: Box<str>,
    /// Of the organization.
    pub organization_id: Box<str>,
    /// Of this deployment of Core.
    pub deployment_id: Box<str>,
    /// For whom assertions are.
    pub audience: Box<str>,
    /// Okta's id of the agent.
    pub external_agent_id: Box<str>,
    /// Okta's id of the key.
    pub key_id: Box<str>,
}

/// An Okta AI agent.
#[derive(Clone, Debug)]
pub struct Okta {
    /// Its key.
    pub key: RsaKey,
    /// What is configured; without, Core is asked.
    pub names: Option<Arc<OktaNames>>,
    /// What Core told, shared by all who have this agent from one another.
    pub told: ToldByCore,
}

impl Okta {
    /// What others check this agent's assertions with.
    pub fn known(&self) -> OktaKnown {
        OktaKnown {
            names: self.names.clone(),
            told: self.told.clone(),
            key: self.key.public().into(),
        }
    }
}

/// What Core told of an Okta AI agent last, if it was asked.
#[derive(Clone, Debug, Default)]
pub struct ToldByCore(Arc<RwLock<Option<Bootstrap>>>);

#[derive(Clone, Debug)]
struct Bootstrap {
    names: Arc<OktaNames>,
    /// The document as it came.
    text: Bytes,
}

impl ToldByCore {
    /// Core told `names`, in the document `text`.
    pub(super) fn keep(&self, names: Arc<OktaNames>, text: Bytes) {
        let mut told = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *told = Some(Bootstrap { names, text });
    }

    fn get(&self) -> Option<Bootstrap> {
        let told = self.0.read().unwrap_or_else(PoisonError::into_inner);
        told.clone()
    }
}

/// The public side of an [`Okta`]: what its assertions are checked with.
#[derive(Clone, Debug)]
pub struct OktaKnown {
    names: Option<Arc<OktaNames>>,
    told: ToldByCore,
    /// The public half of its key, PKCS#1 DER.
    key: Box<[u8]>,
}

impl OktaKnown {
    /// What assertions name; `None` until Core told it.
    pub(super) fn names(&self) -> Option<Arc<OktaNames>> {
        let told = || self.told.get().map(|told| told.names);
        self.names.clone().or_else(told)
    }

    /// Core's own document about the agent, for an SDK that asks for it.
    pub fn bootstrap(&self) -> Option<Bytes> {
        self.told.get().map(|told| told.text)
    }

    /// Whether Core is to tell what assertions name.
    pub fn is_told_by_core(&self) -> bool {
        self.names.is_none()
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }
}

/// One request that is asserted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asserted<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
}

/// What makes an assertion one of a transition's proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transition<'a> {
    pub(super) id: &'a str,
    pub(super) challenge: &'a str,
}

impl OktaNames {
    /// Adds the one header. Without random numbers nothing is added, and Core
    /// refuses the request.
    pub(super) fn assert(
        &self,
        headers: &mut HeaderMap,
        key: &RsaKey,
        api_key: &ApiKey,
        request: Asserted<'_>,
        at: Timestamp,
    ) {
        let id = fresh_id();
        let assertion = id.and_then(|id| self.assertion(key, api_key, request, (&id, at), None));
        insert(headers, ASSERTION, assertion.as_deref());
    }

    /// The assertion over `request`, with its own `id`, from `at` on.
    pub(super) fn assertion(
        &self,
        key: &RsaKey,
        api_key: &ApiKey,
        request: Asserted<'_>,
        (id, at): (&str, Timestamp),
        transition: Option<Transition<'_>>,
    ) -> Option<String> {
        const KIND: &str = "openbox-agent-proof+jwt";
        let issued = at.unix_seconds();
        let method = request.method.to_ascii_uppercase();
        let body = identity::digest(request.body);
        let api_key = identity::digest(api_key.expose().as_bytes());
        let mut claims = vec![
            ("aud", Claim::Text(&self.audience)),
            ("body_sha256", Claim::Text(&body)),
            ("exp", Claim::Seconds(issued.saturating_add(HOLDS_SECONDS))),
            ("htm", Claim::Text(&method)),
            ("htu", Claim::Text(request.path)),
            ("iat", Claim::Seconds(issued)),
            ("iss", Claim::Text(&self.external_agent_id)),
            ("jti", Claim::Text(id)),
            ("obx_agent_id", Claim::Text(&self.agent_id)),
            ("obx_api_key_sha256", Claim::Text(&api_key)),
            ("obx_deployment_id", Claim::Text(&self.deployment_id)),
            ("obx_organization_id", Claim::Text(&self.organization_id)),
        ];
        if let Some(Transition { id, challenge }) = transition {
            claims.extend([
                ("obx_transition_challenge", Claim::Text(challenge)),
                ("obx_transition_id", Claim::Text(id)),
                ("obx_transition_purpose", Claim::Text("okta_ai_agent")),
            ]);
        }
        claims.push(("sub", Claim::Text(&self.external_agent_id)));
        key.jws(&self.key_id, KIND, &claims)
    }
}

/// Sets a header whose value is ours, or says that there is none.
pub(super) fn insert(headers: &mut HeaderMap, name: &'static str, value: Option<&str>) {
    match value.and_then(|value| HeaderValue::from_str(value).ok()) {
        Some(mut value) => {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        None => {
            tracing::error!(
                "a request to OpenBox Core is not signed: the system gives no random numbers"
            );
        }
    }
}

#[derive(Deserialize)]
struct Document {
    bootstrap_version: serde_json::Value,
    identity_method: Text,
    openbox_agent_id: Text,
    organization_id: Text,
    deployment_id: Text,
    assertion_audience: Text,
    #[expect(dead_code, reason = "the contract has the document checked as a whole")]
    authority: Authority,
    okta: Credential,
}

/// Of the identity that Core holds for active; nothing of it is used but that it is
/// whole.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the contract has the document checked as a whole")]
struct Authority {
    assignment_id: Text,
    provider_generation_id: Text,
    generation_number: std::num::NonZeroU64,
    activation_version: Text,
    identity_id: Text,
    credential_id: Text,
    projection_version: Text,
}

#[derive(Deserialize)]
struct Credential {
    external_agent_id: Text,
    credential_kid: Text,
    algorithm: Text,
    public_jwk_thumbprint: Text,
}

/// A text that says something.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text(pub(super) Box<str>);

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.trim().is_empty() {
            return Err("an empty text");
        }
        Ok(Self(text.into()))
    }
}

/// What Core says that assertions of `key` name.
///
/// # Errors
///
/// It cannot be read, is of another version or method, or is about another key:
/// then no request may be asked.
pub(super) fn names(body: &[u8], key: &RsaKey) -> Result<OktaNames, Unproven> {
    let unreadable = |why: &str| {
        Unproven::rejected(format!(
            "its identity document (/api/v2/auth/bootstrap) cannot be used: {why}"
        ))
    };
    let document: Document = object(body).map_err(|why| unreadable(&why))?;
    if document.bootstrap_version != 1 {
        return Err(unreadable(
            "only version 1 is known to this sidecar; update it",
        ));
    }
    if &*document.identity_method.0 != "okta_ai_agent" {
        return Err(unreadable(
            "this agent does not show itself as an Okta AI agent; unset OPENBOX_OKTA_AGENT_PRIVATE_KEY, or select an Okta credential for it in OpenBox",
        ));
    }
    if !document.okta.algorithm.0.eq_ignore_ascii_case("RS256") {
        return Err(unreadable(
            "its credential is for another algorithm than RS256",
        ));
    }
    if !key.is_of(&document.okta.public_jwk_thumbprint.0) {
        return Err(Unproven::rejected(
            "the key in OPENBOX_OKTA_AGENT_PRIVATE_KEY is not the one of the Okta credential that is selected for this agent (its thumbprint differs); set the key of that credential, or select the other credential in OpenBox".to_owned(),
        ));
    }
    Ok(OktaNames {
        agent_id: document.openbox_agent_id.0,
        organization_id: document.organization_id.0,
        deployment_id: document.deployment_id.0,
        audience: document.assertion_audience.0,
        external_agent_id: document.okta.external_agent_id.0,
        key_id: document.okta.credential_kid.0,
    })
}
