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

/// A Secret that is the sidecar's.
struct Kept<'a> {
    secret: &'a str,
    /// The only key of it that is; all, where there is none.
    key: Option<&'a str>,
    annotation: &'static str,
    /// What it means that the app has it.
    means: &'static str,
}

/// Where the app of `spec` is given what the sidecar has for it: Core's key, or credentials.
pub(super) fn keys(spec: &Value, wanted: &Wanted) -> Vec<String> {
    let core = wanted.api_key.as_ref().map(|(secret, key)| Kept {
        secret,
        key: Some(key),
        annotation: "api-key-secret",
        means: "whoever has the key can ask OpenBox Core as the sidecar does",
    });
    let added = wanted.credentials.as_deref().map(|secret| Kept {
        secret,
        key: None,
        annotation: "credentials-secret",
        means: "the sidecar adds them to requests so that the app need not have them",
    });
    let all = core.into_iter().chain(added);
    all.flat_map(|kept| given(spec, &kept)).collect()
}

fn given(spec: &Value, kept: &Kept<'_>) -> Vec<String> {
    let Kept {
        annotation, means, ..
    } = kept;
    let told =
        |of: String| format!("{of} is of the Secret of annotation {PREFIX}{annotation}: {means}");
    let text =
        |value: &Value, at: &str| value.pointer(at).and_then(Value::as_str) == Some(kept.secret);
    let volumes = theirs(spec).filter(|volume| text(volume, "/secret/secretName"));
    let mut all: Vec<_> = volumes
        .map(|volume| told(format!("volume {}", name_of(volume))))
        .collect();
    for (_, container) in containers(spec) {
        let variables = container.get("env").and_then(Value::as_array);
        let key = |entry: &Value| entry.pointer("/valueFrom/secretKeyRef/key").cloned();
        let given = variables.into_iter().flatten().filter(|entry| {
            // That one is taken out.
            name_of(entry) != "OPENBOX_API_KEY"
                && text(entry, "/valueFrom/secretKeyRef/name")
                && kept
                    .key
                    .is_none_or(|only| key(entry).as_ref().and_then(Value::as_str) == Some(only))
        });
        let name = name_of(container);
        all.extend(given.map(|entry| told(format!("container {name}: {}", name_of(entry)))));
        let whole = container.get("envFrom").and_then(Value::as_array);
        let whole = whole.into_iter().flatten();
        let given = whole.filter(|from| kept.key.is_none() && text(from, "/secretRef/name"));
        all.extend(given.map(|_| told(format!("container {name}: envFrom"))));
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
