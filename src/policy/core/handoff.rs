//! A handoff whose source is proved by whoever sends it (contract §1.1,
//! `handoffs`). What Core answers is passed on in its own words.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::policy::{HandedOver, Handoff, PolicyError};

use super::client::{Call, Route};
use super::{CoreClient, answer, identity, wire};

/// The headers by which an agent with a DID proves that a request is its own.
pub const PROOF: [&str; 5] = [
    identity::DID,
    identity::TIMESTAMP,
    identity::NONCE,
    identity::SIGNATURE,
    identity::BODY,
];

impl CoreClient {
    /// Asks Core to take `handoff`, once: contract and SDKs know no retry of it.
    /// Cancel-safe.
    pub(super) async fn handed_over(
        &self,
        handoff: Handoff<'_>,
    ) -> Result<HandedOver, PolicyError> {
        let mut call = Call::new(Route::Handoff, Bytes::copy_from_slice(handoff.text));
        // Hex digits and letters.
        call.key = HeaderValue::try_from(format!("{}-handoff", handoff.id)).ok();
        if !self.client.has_identity() {
            call.proof = proof(handoff);
        }
        let began = Instant::now();
        let deadline = began.checked_add(self.answer_within).unwrap_or(began);
        let answered = self.called(call, deadline).await?;
        if let Err(why) = wire::object::<IgnoredAny>(&answered.body) {
            return Err(match answered.status.is_success() {
                true => answer::unreadable(&why),
                false => answer::refused(&answered),
            });
        }
        Ok(HandedOver {
            status: answered.status.as_u16(),
            text: answered.body,
        })
    }
}

fn proof(handoff: Handoff<'_>) -> HeaderMap {
    let headers = handoff.proof.unwrap_or_default().iter();
    headers
        .filter_map(|(name, value)| {
            let value = HeaderValue::from_str(value).ok()?;
            Some((HeaderName::from_static(name), value))
        })
        .collect()
}
