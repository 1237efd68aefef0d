//! What is meant by the reason codes with which Core rejects us.

use http::StatusCode;

use super::answer::text;
use super::client::Answered;
use super::wire::{Complaint, object};

const CLOCK: &str =
    "the clock of this machine is more than five minutes off; set it, for example with NTP";

/// Reason code, and what to do about it.
const MEANINGS: [(&str, &str); 31] = [
    ("timestamp_outside_window", CLOCK),
    ("timestamp_skew", CLOCK),
    (
        "signature_invalid",
        "it holds another public key for this agent; check OPENBOX_AGENT_PRIVATE_KEY or OPENBOX_OKTA_AGENT_PRIVATE_KEY, whichever is set",
    ),
    (
        "nonce_replayed",
        "it saw this request before; does something between us repeat requests?",
    ),
    (
        "did_agent_mismatch",
        "the DID is of another agent than the API key; check OPENBOX_AGENT_DID and OPENBOX_API_KEY",
    ),
    (
        "verifier_not_configured",
        "it cannot check signatures of this agent; register its key, or unset OPENBOX_AGENT_DID",
    ),
    (
        "invalid_api_key",
        "it does not accept our API key; check OPENBOX_API_KEY",
    ),
    // Of an Okta AI agent (contract §1.6), at its bootstrap.
    ("agent_inactive", "this agent is not active in OpenBox"),
    (
        "identity_method_mismatch",
        "this agent shows itself in another way; unset OPENBOX_OKTA_AGENT_PRIVATE_KEY, or set up Okta for it in OpenBox",
    ),
    (
        "selected_credential_missing",
        "no Okta credential is selected for this agent; select or register one in OpenBox",
    ),
    (
        "selected_credential_inactive",
        "the Okta credential of this agent, or its provider, is not active in OpenBox",
    ),
    (
        "credential_algorithm_unsupported",
        "the Okta credential of this agent is for another algorithm than RS256; select another in OpenBox",
    ),
    (
        "provider_metadata_stale",
        "it has not heard of this credential from Okta for too long; try again shortly",
    ),
    (
        "identity_configuration_invalid",
        "the identity configuration of this Core is not complete; tell whoever operates it",
    ),
    (
        "verifier_unavailable",
        "it cannot check identities at the moment; try again shortly",
    ),
    // And at its requests.
    (
        "assertion_missing",
        "it wants an assertion of an Okta AI agent, and found none; does something between us drop headers?",
    ),
    (
        "assertion_malformed",
        "it cannot read our assertion; does something between us change headers?",
    ),
    (
        "typ_mismatch",
        "it takes our assertion for another kind of token; update Core or this sidecar",
    ),
    (
        "alg_rejected",
        "it does not take RS256 for this agent; select another credential in OpenBox",
    ),
    (
        "embedded_key_rejected",
        "it found a key inside our assertion, where we put none; does something between us change headers?",
    ),
    (
        "key_too_small",
        "our RSA key is too small; register one of at least 2048 bits",
    ),
    (
        "method_endpoint_mismatch",
        "our assertion is for another route than the request came to; does something between us rewrite paths?",
    ),
    (
        "binding_invalid",
        "our assertion names another agent, organization, deployment or API key than it expects; check OPENBOX_AGENT_ID, OPENBOX_ORGANIZATION_ID, OPENBOX_DEPLOYMENT_ID, OPENBOX_AGENT_PROOF_AUDIENCE and OPENBOX_API_KEY, or unset all but the key and the API key",
    ),
    (
        "transition_proof_invalid",
        "the transition has ended, or its challenge is another; begin it anew in OpenBox",
    ),
    (
        "proof_expired",
        "our assertion had expired when it came: the clock of this machine is off; set it, for example with NTP",
    ),
    (
        "proof_replayed",
        "it saw this assertion before; does something between us repeat requests?",
    ),
    (
        "identity_ineligible",
        "this agent may not show itself in this way now; check its identity in OpenBox",
    ),
    // Of a workload (contract §1.7), from Core or its identity provider.
    (
        "workload_identity_unavailable",
        "it has no active workload identity for this agent",
    ),
    (
        "invalid_client",
        "the identity provider does not accept our key; check OPENBOX_WORKLOAD_PRIVATE_KEY, the clock of this machine, and the workload identity of this agent in OpenBox",
    ),
    (
        "unauthorized_client",
        "the identity provider gives this client no token; check the workload identity of this agent in OpenBox",
    ),
    (
        "invalid_grant",
        "the identity provider does not take our assertion; check the clock of this machine",
    ),
];

/// What a rejection with these words means for whoever configured us.
pub(super) fn meaning(complaint: &str) -> Option<&'static str> {
    let mut known = MEANINGS.iter();
    known
        .find(|(code, _)| complaint.contains(code))
        .map(|(_, meaning)| *meaning)
}

/// As [`meaning`], with a guess where there are no words.
pub(super) fn why_rejected(complaint: &str) -> &'static str {
    meaning(complaint).unwrap_or(
        "it does not accept our API key; check OPENBOX_API_KEY, and OPENBOX_AGENT_DID where it is set",
    )
}

/// `HTTP 401, invalid_api_key`.
pub(super) fn said(status: StatusCode, complaint: &str) -> String {
    if complaint.is_empty() {
        return format!("HTTP {}", status.as_u16());
    }
    format!("HTTP {}, {complaint}", status.as_u16())
}

/// The reason code alone.
pub(super) fn code(answered: &Answered) -> Option<String> {
    let body: Complaint = object(&answered.body).unwrap_or_default();
    let code = text(&body.reason_code).or_else(|| text(&body.code));
    code.map(str::to_owned)
}

/// Core's words for what is wrong, if it found any.
pub(super) fn complaint(answered: &Answered) -> String {
    const CHARS_MAX: usize = 200;
    let body: Complaint = object(&answered.body).unwrap_or_default();
    [
        &body.reason_code,
        &body.code,
        &body.reason,
        &body.message,
        &body.error,
    ]
    .into_iter()
    .filter_map(text)
    .collect::<Vec<_>>()
    .join(", ")
    .chars()
    .take(CHARS_MAX)
    .map(|c| if c.is_control() { ' ' } else { c })
    .collect()
}
