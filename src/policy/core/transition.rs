//! Proving to Core that we hold the key of an identity that an agent is about
//! to change to (contract §1.1: `transition-proof`, `workload-transition`).
//!
//! The identity that is configured is the one that is proved, never the one
//! that is active: nobody proves a key by another.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::answer;
use super::client::{Answered, Connector};
use super::errand::{Errand, Errands};
use super::head;
use super::identity::{Identity, is_uuid};
use super::json::{Bracket, Json};
use super::okta::{self, Asserted, Okta, OktaNames, Transition};
use super::proof::Own;
use super::rsa::{RsaKey, fresh_id};
use super::settings::Settings;
use super::workload;
use super::{StartError, now};

const PROOF_V1: &str = "/api/v1/auth/transition-proof";
const PROOF_V2: &str = "/api/v2/auth/transition-proof";
const BOOTSTRAP_V3: &str = "/api/v3/auth/workload-transition/bootstrap";
const PROOF_V3: &str = "/api/v3/auth/workload-transition/proof";

/// A transition that waits for its proof, as whoever began it was told.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its id.
    pub id: String,
    /// Its challenge; without one it is a transition to a workload identity.
    pub challenge: Option<String>,
}

/// Proves the key of `settings` for `prepared`, and answers what Core said.
/// Nothing becomes active by it. Cancel-safe.
///
/// # Errors
///
/// There is no key to prove, or Core does not take the proof.
pub async fn prove(
    settings: &Settings,
    connector: Connector,
    prepared: &Prepared,
) -> Result<String, StartError> {
    let errands = Errands::new(settings, connector);
    let core = Proving { errands, settings };
    match (&prepared.challenge, &settings.identity.own) {
        (Some(challenge), Own::Did(identity)) => core.did(identity, &prepared.id, challenge).await,
        (Some(challenge), Own::Okta(Okta { key, names: Some(names), .. })) => {
            let transition = Transition {
                id: &prepared.id,
                challenge,
            };
            core.okta(key, names, transition).await
        }
        (Some(_), Own::Okta(_)) => Err(core.unproven(
            "Core tells only of the identity that is active: of one that is not yet, all has to be set, OPENBOX_OKTA_AGENT_ID, OPENBOX_OKTA_AGENT_KEY_ID, OPENBOX_AGENT_ID, OPENBOX_ORGANIZATION_ID, OPENBOX_DEPLOYMENT_ID and OPENBOX_AGENT_PROOF_AUDIENCE",
        )),
        (Some(_), Own::Unsigned) => Err(core.unproven(
            "a challenge is answered with a DID or as an Okta AI agent, and neither is set; a transition to a workload identity has no challenge",
        )),
        (None, _) => match &settings.identity.workload {
            Some(key) => core.workload(key, &prepared.id).await,
            None => Err(core.unproven(
                "without a challenge it is a transition to a workload identity, and OPENBOX_WORKLOAD_PRIVATE_KEY is not set",
            )),
        },
    }
}

struct Proving<'a> {
    errands: Errands,
    settings: &'a Settings,
}

impl Proving<'_> {
    async fn did(
        &self,
        identity: &Identity,
        id: &str,
        challenge: &str,
    ) -> Result<String, StartError> {
        let body = body(&[("transition_id", id), ("challenge", challenge)]);
        let mut headers = self.headers();
        identity.sign(&mut headers, "POST", PROOF_V1, &body, now());
        self.send(PROOF_V1, headers, body).await
    }

    async fn okta(
        &self,
        key: &RsaKey,
        names: &OktaNames,
        transition: Transition<'_>,
    ) -> Result<String, StartError> {
        let body = body(&[("transition_id", transition.id)]);
        let mut headers = self.headers();
        let request = Asserted {
            method: "POST",
            path: PROOF_V2,
            body: &body,
        };
        let assertion = fresh_id().and_then(|id| {
            let api_key = &self.settings.key;
            names.assertion(key, api_key, request, (&id, now()), Some(transition))
        });
        okta::insert(&mut headers, okta::ASSERTION, assertion.as_deref());
        self.send(PROOF_V2, headers, body).await
    }

    async fn workload(&self, key: &RsaKey, id: &str) -> Result<String, StartError> {
        // It stands in a URL.
        if !is_uuid(id) {
            return Err(self.unproven("the id of a transition to a workload identity is a UUID"));
        }
        let errand = Errand {
            method: Method::GET,
            path: &format!("{BOOTSTRAP_V3}?transition_id={id}"),
            headers: self.headers(),
            body: Bytes::new(),
        };
        let answered = self.run(errand).await?;
        if answered.status != StatusCode::OK {
            return Err(self.refused(&answered));
        }
        let account = workload::candidate(&answered.body, id);
        let account = account.map_err(|why| self.unproven(&why.to_string()))?;
        let assertion = fresh_id().and_then(|id| account.assertion(key, &id, now()));
        let assertion =
            assertion.ok_or_else(|| self.unproven("the system gives no random numbers"))?;
        let id = id.to_ascii_lowercase();
        let body = body(&[("transition_id", &id), ("client_assertion", &assertion)]);
        self.send(PROOF_V3, self.headers(), body).await
    }

    fn headers(&self) -> HeaderMap {
        head::question(&self.settings.url, &self.settings.key)
    }

    async fn send(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<String, StartError> {
        let errand = Errand {
            method: Method::POST,
            path,
            headers,
            body,
        };
        let answered = self.run(errand).await?;
        if !answered.status.is_success() {
            return Err(self.refused(&answered));
        }
        let said = String::from_utf8_lossy(&answered.body);
        Ok(said.chars().filter(|c| !c.is_control()).collect())
    }

    async fn run(&self, errand: Errand<'_>) -> Result<Answered, StartError> {
        let answered = self.errands.run(&self.settings.url, errand).await;
        answered.map_err(|error| StartError::Unreachable {
            url: self.settings.url.to_string(),
            why: error.to_string(),
        })
    }

    fn refused(&self, answered: &Answered) -> StartError {
        if answered.status == StatusCode::CONFLICT {
            return self.unproven(
                "the transition does not wait for a proof (any more); begin it anew in OpenBox",
            );
        }
        answer::rejected(answered, self.settings.url.to_string())
    }

    fn unproven(&self, why: &str) -> StartError {
        StartError::Unproven {
            url: self.settings.url.to_string(),
            why: why.to_owned(),
        }
    }
}

/// The compact object of these members.
fn body(members: &[(&str, &str)]) -> Bytes {
    const BYTES: usize = 1_024;
    let mut json = Json::with_capacity(BYTES);
    json.open(Bracket::Object);
    for (name, value) in members {
        json.name(name);
        json.string(value);
    }
    json.close(Bracket::Object);
    json.into_bytes().into()
}
