//! Containers that are put into a running pod (`kubectl debug`): they are not sent through the sidecar, but must not
//! become it, either.

use serde_json::Value;

use super::annotations::Refused;
use super::pod::name_of;
use super::{apart, confined, sidecar};

/// The list that they are in.
const LIST: &str = "ephemeralContainers";

/// Looks at those of `pod`, an object with a `spec` as a Pod has it.
///
/// # Errors
/// One could read what the sidecar keeps, or go around it where the kernel leads to it.
pub(super) fn check(pod: &Value) -> Result<(), Refused> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let all = |of: &str| {
        let all = spec.get(of).and_then(Value::as_array);
        all.into_iter().flatten()
    };
    let redirected = all("initContainers").any(|one| name_of(one) == sidecar::INIT_NET);
    let mut told = Vec::new();
    for container in all(LIST) {
        let name = name_of(container);
        if sidecar::is_ours_to_run(name) {
            told.push(format!("container {name} has a name of the sidecar's"));
        }
        told.extend(apart::of_container(container));
        let beside = container.get("targetContainerName").and_then(Value::as_str);
        if beside.is_some_and(sidecar::is_ours_to_run) {
            told.push(format!("container {name}: targetContainerName is {}: it would see the sidecar's processes, and as root its files and keys", sidecar::NAME));
        }
        if redirected {
            told.extend(confined::missing(spec, container));
        }
    }
    if told.is_empty() {
        Ok(())
    } else {
        Err(Refused(told))
    }
}
