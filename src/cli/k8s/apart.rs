//! What keeps a container of the app apart from the sidecar: it is another user and of another group, and mounts nothing
//! that is the sidecar's alone.
//!
//! `fsGroup` may be the sidecar's: it says whose volumes are, and those of the sidecar are mounted by nobody else.

use serde_json::Value;

use super::annotations::{PREFIX, Wanted};
use super::pod::{containers, name_of};
use super::sidecar::{self, USER};

/// What is wrong with the users and groups that `spec` says for all its containers.
pub(super) fn of_pod(spec: &Value) -> Vec<String> {
    identities("spec.", spec.get("securityContext"))
}

/// What is wrong with the volumes of `spec` that are not the sidecar's: what the sidecar alone mounts has one name.
pub(super) fn of_volumes(spec: &Value, wanted: &Wanted) -> Vec<String> {
    let claimed = |volume: &&Value| {
        let claim = volume.pointer("/persistentVolumeClaim/claimName");
        let claim = claim.and_then(Value::as_str);
        claim.is_some() && claim == wanted.journal_claim.as_deref()
    };
    let theirs = theirs(spec).filter(claimed).map(name_of);
    theirs
        .map(|name| {
            format!("volume {name} is the claim of annotation {PREFIX}journal-claim, whose journal and state are for the sidecar alone")
        })
        .collect()
}

/// Where the app of `spec` is given Core's key, which the sidecar has for it.
pub(super) fn keys(spec: &Value, wanted: &Wanted) -> Vec<String> {
    let Some((secret, key)) = &wanted.api_key else {
        return Vec::new();
    };
    let told = |of: String| {
        format!(
            "{of} is of the Secret of annotation {PREFIX}api-key-secret: whoever has the key can ask OpenBox Core as the sidecar does"
        )
    };
    let mut all = Vec::new();
    for volume in theirs(spec) {
        if volume.pointer("/secret/secretName").and_then(Value::as_str) == Some(secret) {
            all.push(told(format!("volume {}", name_of(volume))));
        }
    }
    for (_, container) in containers(spec) {
        let variables = container.get("env").and_then(Value::as_array);
        let from = |entry: &Value, field: &str| {
            let field = entry.pointer(&format!("/valueFrom/secretKeyRef/{field}"));
            field.and_then(Value::as_str).map(str::to_owned)
        };
        let given = variables.into_iter().flatten().filter(|entry| {
            // That one is taken out.
            name_of(entry) != "OPENBOX_API_KEY"
                && from(entry, "name").as_ref() == Some(secret)
                && from(entry, "key").as_ref() == Some(key)
        });
        let name = name_of(container);
        all.extend(given.map(|entry| told(format!("container {name}: {}", name_of(entry)))));
    }
    all
}

fn theirs(spec: &Value) -> impl Iterator<Item = &Value> {
    let all = spec.get("volumes").and_then(Value::as_array);
    let all = all.into_iter().flatten();
    all.filter(|volume| !sidecar::is_ours(name_of(volume)))
}

/// What is wrong with `container`, which is no sidecar.
pub(super) fn of_container(container: &Value) -> Vec<String> {
    let name = name_of(container);
    let mut told: Vec<_> = mounted(container).collect();
    let at = format!("container {name}: ");
    told.extend(identities(&at, container.get("securityContext")));
    told
}

fn identities(at: &str, security: Option<&Value>) -> Vec<String> {
    let is = |value: &Value| value.as_i64() == Some(USER);
    let said = |field: &str| security.and_then(|security| security.get(field));
    let mut told = Vec::new();
    for (field, whose) in [("runAsUser", "user"), ("runAsGroup", "group")] {
        if said(field).is_some_and(is) {
            told.push(format!(
                "{at}securityContext.{field} is {USER}, which is the sidecar's own {whose}"
            ));
        }
    }
    let groups = said("supplementalGroups").and_then(Value::as_array);
    if groups.is_some_and(|groups| groups.iter().any(is)) {
        told.push(format!(
            "{at}securityContext.supplementalGroups has {USER}, which is the sidecar's own group"
        ));
    }
    told
}

/// Volumes of the sidecar's that a container mounts, other than the one that is for the app: the authority's key, the
/// journal and Core's key are in them.
fn mounted(container: &Value) -> impl Iterator<Item = String> {
    let name = name_of(container);
    let mounts = container.get("volumeMounts").and_then(Value::as_array);
    let mounts = mounts.into_iter().flatten().map(name_of);
    let ours = mounts.filter(|volume| sidecar::is_ours_alone(volume));
    ours.map(move |volume| {
        format!("container {name} mounts volume {volume}, which is for the sidecar alone")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_the_sidecars_user_or_of_its_group_is_told_by_which_field() {
        for (security, field) in [
            (json!({"runAsUser": 1580}), Some("runAsUser is 1580")),
            (json!({"runAsGroup": 1580}), Some("runAsGroup is 1580")),
            (
                json!({"supplementalGroups": [7, 1580]}),
                Some("supplementalGroups has 1580"),
            ),
            // It says whose the volumes are, and an injection with a claim says it itself.
            (json!({"fsGroup": 1580}), None),
            (
                json!({"runAsUser": 1581, "runAsGroup": 0, "supplementalGroups": [15_800]}),
                None,
            ),
        ] {
            let spec = json!({"securityContext": security});
            let container = json!({"name": "app", "securityContext": security});
            for (found, at) in [
                (of_pod(&spec), "spec.securityContext."),
                (of_container(&container), "container app: securityContext."),
            ] {
                let expected = field.map(|field| format!("{at}{field}, "));
                assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
                let begins = |expected: String| found[0].starts_with(&expected);
                assert!(expected.is_none_or(begins), "{found:?}");
            }
        }
    }
}
