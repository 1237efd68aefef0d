//! As which workload we ask: a service account of Core's identity provider,
//! whose short-lived token stands in each request (contract §1.7).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::redact::Secret;

use super::okta::Text;
use super::proof::Unproven;
use super::rsa::{Claim, RsaKey, fresh_id};
use super::settings::CoreUrl;
use super::wire::object;

/// The header with the token.
pub(super) const TOKEN: &str = "x-openbox-workload-token";

/// A token that holds for no longer than this is as good as expired.
const SKEW: Duration = Duration::from_secs(30);

/// Longest that a token is kept, whatever it says.
const KEPT_MAX: Duration = Duration::from_secs(300);

/// How long before a token is given up a new one is fetched, while the old one
/// is still shown: nobody waits for it.
const RENEWED_BEFORE: Duration = Duration::from_secs(60);

/// How long a client assertion holds, seconds.
const HOLDS_SECONDS: u64 = 60;

/// Longest token, bytes: more no server takes in a header.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Where tokens come from, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) endpoint: CoreUrl,
    /// As Core wrote it: what assertions are for.
    audience: Box<str>,
    client_id: Box<str>,
    kid: Box<str>,
}

/// A token, and until when it is shown.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) value: Secret,
    /// From now on a new one is fetched.
    pub(super) renew_at: Instant,
    /// From now on it is shown no more.
    pub(super) ends_at: Instant,
}

#[derive(Deserialize)]
struct Document {
    bootstrap_version: Value,
    contract_version: Value,
    issuer: Text,
    token_endpoint: Text,
    #[expect(dead_code, reason = "the contract has the document checked as a whole")]
    audience: Text,
    client_id: Text,
    service_account_id: Text,
    activation_version: Text,
    identity_source: Text,
    kid: Text,
}

#[derive(Deserialize)]
struct TransitionDocument {
    bootstrap_version: Value,
    contract_version: Value,
    transition_id: Text,
    token_endpoint: Text,
    client_id: Text,
    kid: Text,
    identity_source: Text,
}

#[derive(Deserialize)]
struct Granted {
    access_token: Text,
    token_type: Text,
    expires_in: f64,
}

/// What a path at the end of the issuer leads to.
const TOKEN_PATH: &str = "/protocol/openid-connect/token";

/// The account that Core names in `body`.
///
/// # Errors
///
/// It cannot be read, or names an endpoint that no secret may be sent to: then
/// no request may be asked, for an identity is never downgraded.
pub(super) fn account(body: &[u8]) -> Result<Account, Unproven> {
    let document: Document = object(body).map_err(|why| unreadable(&why))?;
    versions(&document.bootstrap_version, &document.contract_version)?;
    for uuid in [&document.service_account_id, &document.activation_version] {
        if !super::identity::is_uuid(uuid.0.trim()) {
            return Err(unreadable("an id in it is no UUID"));
        }
    }
    source(&document.identity_source)?;
    let issuer = document.issuer.0.trim().trim_end_matches('/');
    let endpoint = document.token_endpoint.0.trim();
    if endpoint.strip_prefix(issuer) != Some(TOKEN_PATH) {
        return Err(unreadable(
            "its token_endpoint is not the one of its issuer",
        ));
    }
    named(endpoint, document.client_id, document.kid)
}

/// The account whose key is to be proved before transition `id`.
///
/// # Errors
///
/// As [`account`], and where it is about another transition.
pub(super) fn candidate(body: &[u8], id: &str) -> Result<Account, Unproven> {
    let document: TransitionDocument = object(body).map_err(|why| unreadable(&why))?;
    versions(&document.bootstrap_version, &document.contract_version)?;
    source(&document.identity_source)?;
    if !document.transition_id.0.trim().eq_ignore_ascii_case(id) {
        return Err(unreadable("it is about another transition"));
    }
    let endpoint = document.token_endpoint.0.trim();
    if !endpoint.ends_with(TOKEN_PATH) {
        return Err(unreadable("its token_endpoint is none"));
    }
    named(endpoint, document.client_id, document.kid)
}

fn versions(bootstrap: &Value, contract: &Value) -> Result<(), Unproven> {
    if *bootstrap != 3 || *contract != 3 {
        return Err(unreadable(
            "only version 3 is known to this sidecar; update it",
        ));
    }
    Ok(())
}

fn source(source: &Text) -> Result<(), Unproven> {
    const KNOWN: [&str; 3] = ["openbox", "okta", "entra"];
    let source = source.0.trim().to_ascii_lowercase();
    if !KNOWN.contains(&source.as_str()) {
        return Err(unreadable("its identity_source is unknown"));
    }
    Ok(())
}

fn named(endpoint: &str, client_id: Text, kid: Text) -> Result<Account, Unproven> {
    let url = CoreUrl::parse(endpoint);
    Ok(Account {
        endpoint: url
            .map_err(|unfit| unreadable(&format!("its token_endpoint {}", unfit.found)))?,
        audience: endpoint.into(),
        client_id: client_id.0.trim().into(),
        kid: kid.0.trim().into(),
    })
}

fn unreadable(why: &str) -> Unproven {
    Unproven::rejected(format!(
        "its workload document (/api/v3/auth) cannot be used: {why}"
    ))
}

impl Account {
    /// What is shown to the identity provider instead of a password.
    pub(super) fn assertion(&self, key: &RsaKey, id: &str, at: Timestamp) -> Option<String> {
        let issued = at.unix_seconds();
        key.jws(
            &self.kid,
            "JWT",
            &[
                ("aud", Claim::Text(&self.audience)),
                ("exp", Claim::Seconds(issued.saturating_add(HOLDS_SECONDS))),
                ("iat", Claim::Seconds(issued)),
                ("iss", Claim::Text(&self.client_id)),
                ("jti", Claim::Text(id)),
                ("sub", Claim::Text(&self.client_id)),
            ],
        )
    }

    /// The form that asks for a token. `None` without random numbers.
    pub(super) fn form(&self, key: &RsaKey, at: Timestamp) -> Option<String> {
        let assertion = self.assertion(key, &fresh_id()?, at)?;
        let client_id = form_encoded(&self.client_id);
        Some(format!(
            "grant_type=client_credentials&client_id={client_id}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
        ))
    }
}

/// Reads what the identity provider granted at `now`.
///
/// # Errors
///
/// It cannot be read, is no bearer token, or holds for too short.
pub(super) fn token(body: &[u8], now: Instant) -> Result<Token, Unproven> {
    let unusable = |why: &str| {
        Unproven::rejected(format!(
            "the token endpoint answered with no usable token: {why}"
        ))
    };
    // What cannot be read may be the token itself: it is not repeated.
    let granted: Granted = object(body).map_err(|_| unusable("it cannot be read"))?;
    let value = Secret::new(granted.access_token.0);
    if !granted.token_type.0.eq_ignore_ascii_case("bearer") {
        return Err(unusable("its type is not Bearer"));
    }
    let is_sendable = value.expose().bytes().all(|b| b.is_ascii_graphic());
    if !is_sendable || value.expose().len() > TOKEN_BYTES_MAX {
        return Err(unusable("a header cannot carry it"));
    }
    let lives = granted.expires_in.min(KEPT_MAX.as_secs_f64());
    // What is below zero has ended.
    let lives = Duration::try_from_secs_f64(lives).unwrap_or_default();
    if lives <= SKEW {
        return Err(unusable("it expires within 30 s"));
    }
    let shown = lives.saturating_sub(SKEW);
    let after = |lapse: Duration| now.checked_add(lapse).unwrap_or(now);
    Ok(Token {
        value,
        // Short-lived ones are renewed half way.
        renew_at: after(shown.saturating_sub(RENEWED_BEFORE.min(shown.mul_f64(0.5)))),
        ends_at: after(shown),
    })
}

/// `application/x-www-form-urlencoded`, as the SDKs write it.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_for_five_minutes_at_most_and_never_in_its_last_seconds() {
        let now = Instant::now();
        // expires_in, renewed after, shown for
        let table = [
            ("300", 210.0, 270.0),
            ("86400", 210.0, 270.0),
            ("1e300", 210.0, 270.0),
            ("150", 60.0, 120.0),
            ("90", 30.0, 60.0),
            ("60.5", 15.25, 30.5),
            ("30", 0.0, 0.0),
            ("0", 0.0, 0.0),
        ];
        for (lives, renewed, shown) in table {
            let body =
                format!(r#"{{"access_token":"a","token_type":"bearer","expires_in":{lives}}}"#);
            let Ok(token) = token(body.as_bytes(), now) else {
                assert_eq!(shown, 0.0, "{lives}");
                continue;
            };
            let after = |at: Instant| at.duration_since(now).as_secs_f64();
            assert_eq!(
                (after(token.renew_at), after(token.ends_at)),
                (renewed, shown),
                "{lives}"
            );
            assert_eq!(format!("{:?}", token.value), "[REDACTED]");
        }
    }

    #[test]
    fn a_form_says_what_it_says_in_the_letters_of_a_form() {
        assert_eq!(form_encoded("svc-1_a.b~"), "svc-1_a.b~");
        assert_eq!(form_encoded("a b&c=ä/+"), "a+b%26c%3D%C3%A4%2F%2B");
    }
}
