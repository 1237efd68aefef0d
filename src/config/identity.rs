//! As which agent Core is asked: a DID, an Okta AI agent, a workload, or none.

use std::sync::Arc;

use crate::policy::core::{
    AgentDid, Identities, Identity, Okta, OktaNames, Own, RsaKey, SigningKey, ToldByCore,
};

use super::raw;
use super::resolve::{Given, Resolver};
use super::secret::Kept;
use super::value::Wrong;

const DID_KEY: &str = "OPENBOX_AGENT_PRIVATE_KEY";
const OKTA_KEY: &str = "OPENBOX_OKTA_AGENT_PRIVATE_KEY";
const WORKLOAD_KEY: &str = "OPENBOX_WORKLOAD_PRIVATE_KEY";

/// What Core tells of an Okta AI agent where it is not configured, by key and
/// variable.
const OKTA_NAMES: [(&str, &str); 6] = [
    ("core.agent_id", "OPENBOX_AGENT_ID"),
    ("core.organization_id", "OPENBOX_ORGANIZATION_ID"),
    ("core.deployment_id", "OPENBOX_DEPLOYMENT_ID"),
    ("core.agent_proof_audience", "OPENBOX_AGENT_PROOF_AUDIENCE"),
    ("core.okta_agent_id", "OPENBOX_OKTA_AGENT_ID"),
    ("core.okta_agent_key_id", "OPENBOX_OKTA_AGENT_KEY_ID"),
];

/// What an agent may say that it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Did,
    Okta,
}

/// What was said of one identity.
struct Said {
    did: Option<Given>,
    did_key: Option<Kept>,
    okta: [Option<Given>; 6],
    okta_key: Option<Kept>,
    method: Option<Method>,
}

impl Said {
    /// Where a DID was said first.
    fn did_at(&self) -> Option<&str> {
        let did = self.did.as_ref().map(|given| given.at.as_str());
        did.or(self.did_key.as_ref().map(|kept| kept.at.as_str()))
    }

    /// Where an Okta AI agent was.
    fn okta_at(&self) -> Option<&str> {
        let key = self.okta_key.as_ref().map(|kept| kept.at.as_str());
        key.or_else(|| {
            self.okta
                .iter()
                .flatten()
                .map(|given| given.at.as_str())
                .next()
        })
    }
}

impl Resolver<'_> {
    /// As which agent questions are asked, and which setting said so first.
    pub(super) fn identities(&mut self, core: &mut raw::Core) -> (Identities, Option<String>) {
        let workload = self
            .kept(
                WORKLOAD_KEY,
                "core.workload_private_key_file",
                core.workload_private_key_file.take(),
            )
            .unwrap_or_default();
        self.algorithm(core.okta_agent_algorithm.take());
        let Some(said) = self.said(core) else {
            return (Identities::default(), None);
        };
        let first = said.did_at().or(said.okta_at()).map(str::to_owned);
        let first = first.or(workload.as_ref().map(|kept| kept.at.clone()));
        let workload = workload.and_then(|kept| {
            let key = RsaKey::parse(&kept.secret);
            self.fit(key, &kept.at)
        });
        let own = self.own(said);
        let workload = workload.or_else(|| match &own {
            // Its key is the one of its service account too.
            Own::Okta(okta) => Some(okta.key.clone()),
            Own::Unsigned | Own::Did(_) => None,
        });
        (Identities { own, workload }, first)
    }

    fn said(&mut self, core: &mut raw::Core) -> Option<Said> {
        let in_file = [
            core.agent_id.take(),
            core.organization_id.take(),
            core.deployment_id.take(),
            core.agent_proof_audience.take(),
            core.okta_agent_id.take(),
            core.okta_agent_key_id.take(),
        ];
        let mut in_file = in_file.into_iter();
        let okta = OKTA_NAMES.map(|(key, _)| {
            let given = self.given(key, in_file.next().flatten());
            given.filter(|given| !given.text.trim().is_empty())
        });
        let method = self.method(core.identity_method.take());
        let did_key = self.kept(
            DID_KEY,
            "core.agent_private_key_file",
            core.agent_private_key_file.take(),
        );
        let okta_key = self.kept(
            OKTA_KEY,
            "core.okta_agent_private_key_file",
            core.okta_agent_private_key_file.take(),
        );
        Some(Said {
            did: self.given("core.agent_did", core.agent_did.take()),
            did_key: did_key.ok()?,
            okta,
            okta_key: okta_key.ok()?,
            method: method.ok()?,
        })
    }

    fn method(&mut self, in_file: Option<String>) -> Result<Option<Method>, ()> {
        let Some(given) = self.given("core.identity_method", in_file) else {
            return Ok(None);
        };
        match given.text.as_str() {
            "openbox_did" => Ok(Some(Method::Did)),
            "okta_ai_agent" => Ok(Some(Method::Okta)),
            other => {
                let expected = "openbox_did or okta_ai_agent, or nothing";
                let wrong = Wrong::is_not(other, "an identity method", expected, "okta_ai_agent");
                self.tell(&given.at, wrong);
                Err(())
            }
        }
    }

    fn algorithm(&mut self, in_file: Option<String>) {
        if let Some(given) = self.given("core.okta_agent_algorithm", in_file)
            && given.text != "RS256"
        {
            let wrong = Wrong::is_not(&given.text, "an algorithm for Okta", "RS256", "RS256");
            self.tell(&given.at, wrong);
        }
    }

    fn own(&mut self, said: Said) -> Own {
        if let (Some(did), Some(okta)) = (said.did_at(), said.okta_at()) {
            let found = format!("{did} is set too, and an agent shows itself in one way");
            let expected = "the settings of a DID, or those of an Okta AI agent";
            let example = format!("unset {did}");
            let at = okta.to_owned();
            self.tell(&at, Wrong::new(found, expected, &example));
            return Own::Unsigned;
        }
        let by_method = said.method;
        let is_okta = said.okta_at().is_some() || by_method == Some(Method::Okta);
        let is_did = said.did_at().is_some() || by_method == Some(Method::Did);
        if is_okta && is_did {
            let found = "another kind of identity is set".to_owned();
            let expected = "the method of the identity that is set, or nothing";
            self.tell(
                "OPENBOX_AGENT_IDENTITY_METHOD",
                Wrong::new(found, expected, "unset OPENBOX_AGENT_IDENTITY_METHOD"),
            );
            return Own::Unsigned;
        }
        if is_okta {
            self.okta(said).map_or(Own::Unsigned, Own::Okta)
        } else if is_did {
            self.did(said).map_or(Own::Unsigned, Own::Did)
        } else {
            Own::Unsigned
        }
    }

    /// A DID and its key.
    fn did(&mut self, said: Said) -> Option<Identity> {
        match (&said.did, &said.did_key) {
            (Some(did), None) => {
                let found = "a DID is set, and no private key to sign with".to_owned();
                let expected = "the key too, in OPENBOX_AGENT_PRIVATE_KEY or a file, or neither";
                let example = "OPENBOX_AGENT_PRIVATE_KEY_FILE=/run/secrets/openbox-agent-key";
                self.tell(&did.at.clone(), Wrong::new(found, expected, example));
            }
            (None, Some(key)) => {
                let found = "a private key is set, and no DID to sign as".to_owned();
                let expected = "the DID too, in OPENBOX_AGENT_DID or core.agent_did, or neither";
                let example = "OPENBOX_AGENT_DID=did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11";
                self.tell(&key.at, Wrong::new(found, expected, example));
            }
            (None, None) => {
                let found = "openbox_did is set, and neither a DID nor its key".to_owned();
                let expected = "OPENBOX_AGENT_DID and OPENBOX_AGENT_PRIVATE_KEY too";
                let example = "OPENBOX_AGENT_DID=did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11";
                let wrong = Wrong::new(found, expected, example);
                self.tell("OPENBOX_AGENT_IDENTITY_METHOD", wrong);
            }
            (Some(_), Some(_)) => {}
        }
        let did = said.did.map(|did| (AgentDid::parse(&did.text), did.at));
        let key = said
            .did_key
            .map(|key| (SigningKey::parse(&key.secret), key.at));
        let did = did.and_then(|(did, at)| self.fit(did, &at));
        let key = key.and_then(|(key, at)| self.fit(key, &at));
        Some(Identity::new(did?, key?))
    }

    /// The key of an Okta AI agent, and all of its names or none.
    fn okta(&mut self, said: Said) -> Option<Okta> {
        let given = said.okta.iter().flatten();
        let set: Vec<_> = given.map(|given| given.at.clone()).collect();
        let missing = OKTA_NAMES.iter().zip(&said.okta);
        let missing: Vec<_> = missing
            .filter(|(_, given)| given.is_none())
            .map(|((_, variable), _)| *variable)
            .collect();
        if let Some(first) = set.first()
            && !missing.is_empty()
        {
            let found = format!(
                "of what an Okta AI agent is, {} is set, and {} is not",
                set.join(", "),
                missing.join(", ")
            );
            let expected = "all six, or none: then Core tells them";
            let example = format!("unset {}", set.join(" "));
            self.tell(first, Wrong::new(found, expected, &example));
        }
        let Some(kept) = said.okta_key else {
            let at = set.first().cloned();
            let at = at.unwrap_or_else(|| "OPENBOX_AGENT_IDENTITY_METHOD".to_owned());
            let found = "an Okta AI agent is set, and no private key to sign with".to_owned();
            let expected = "the key too, in OPENBOX_OKTA_AGENT_PRIVATE_KEY or a file";
            let example = "OPENBOX_OKTA_AGENT_PRIVATE_KEY_FILE=/run/secrets/okta-agent-key.pem";
            self.tell(&at, Wrong::new(found, expected, example));
            return None;
        };
        let key = RsaKey::parse(&kept.secret);
        let key = self.fit(key, &kept.at)?;
        let names = match said.okta.map(|given| given.map(|given| given.text.into())) {
            [
                Some(agent_id),
                Some(organization_id),
                Some(deployment_id),
                Some(audience),
                Some(external_agent_id),
                Some(key_id),
            ] => Some(Arc::new(OktaNames {
                agent_id,
                organization_id,
                deployment_id,
                audience,
                external_agent_id,
                key_id,
            })),
            _ => None,
        };
        Some(Okta {
            key,
            names,
            told: ToldByCore::default(),
        })
    }
}
