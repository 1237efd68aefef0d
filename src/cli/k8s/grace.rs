//! The time that a pod has to end, and what the sidecar takes of it: one that is killed while it drains cuts off what
//! the app is still waiting for.
//!
//! The app and the sidecar end one after the other within `terminationGracePeriodSeconds`, the sidecar last.

use std::time::Duration;

use serde_json::Value;

use super::annotations::{PREFIX, Refused, Wanted};

/// What Kubernetes takes where a pod does not say.
const DEFAULT_S: u64 = 30;
/// Left of the grace once connections are cut: state is written, and the process ends.
const TO_END: Duration = Duration::from_secs(2);
/// The shortest drain.
const DRAIN_MIN: Duration = Duration::from_secs(1);

const SETTING: &str = "OPENBOX_DRAIN_WITHIN";

/// Lets the sidecar of `spec` end within the pod's grace. Answers with what a person should know.
///
/// # Errors
/// What is said is longer than the grace.
pub(super) fn fit(spec: &Value, wanted: &mut Wanted) -> Result<Option<String>, Refused> {
    let said = spec.get("terminationGracePeriodSeconds");
    let grace_s = said.and_then(Value::as_u64).unwrap_or(DEFAULT_S);
    let grace = Duration::from_secs(grace_s);
    let drain = wanted.config.drain_within;
    if drain.saturating_add(TO_END) <= grace {
        return Ok(None);
    }
    if wanted.variables.iter().any(|(name, _)| *name == SETTING) {
        return Err(Refused::one(format!(
            "annotation {PREFIX}drain-within is {} ms, and spec.terminationGracePeriodSeconds {grace_s}: the sidecar would be killed while it drains; say at least {} s less, or a longer grace",
            drain.as_millis(),
            TO_END.as_secs()
        )));
    }
    let fits = grace.saturating_sub(TO_END).max(DRAIN_MIN);
    wanted.config.drain_within = fits;
    wanted
        .variables
        .push((SETTING, format!("{}s", fits.as_secs())));
    Ok((grace < fits.saturating_add(TO_END)).then(|| {
        format!("spec.terminationGracePeriodSeconds is {grace_s}: the sidecar may be killed before it has ended in good order")
    }))
}
