//! What a container must not be able to do where the kernel leads its traffic to the sidecar: become the
//! sidecar's user, change the rules, or send around them.

use serde_json::Value;

use super::pod::name_of;

/// Each undoes the rules, or the difference between users that they rest on.
const CAPABILITIES: [&str; 7] = [
    "ALL",
    "BPF",
    "NET_ADMIN",
    "NET_RAW",
    "SETUID",
    "SYS_ADMIN",
    "SYS_PTRACE",
];

/// What is missing, or too much, of `container` of a pod of `spec`.
pub(super) fn missing(spec: &Value, container: &Value) -> Vec<String> {
    let name = name_of(container);
    let own = |path: &str| container.pointer(&format!("/securityContext/{path}"));
    let of_pod = |path: &str| spec.pointer(&format!("/securityContext/{path}"));
    let either = |path: &str| own(path).or_else(|| of_pod(path));
    let mut told = Vec::new();
    let mut tell = |what: &str| {
        told.push(format!(
            "container {name}: {what}, by which it could go around the sidecar in mode redirect"
        ));
    };
    match either("runAsUser").and_then(Value::as_i64) {
        Some(0) => tell("it runs as root (securityContext.runAsUser is 0)"),
        Some(_) => {}
        // `runAsNonRoot` would leave it to an image, which is not seen here and may say the sidecar's own user.
        None => tell(
            "it runs as whom its image says, be it root or user 1580 (securityContext.runAsUser is not said)",
        ),
    }
    if own("allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        tell("it may become root (securityContext.allowPrivilegeEscalation is not false)");
    }
    if own("privileged") == Some(&Value::Bool(true)) {
        tell("securityContext.privileged is true");
    }
    let added = own("capabilities/add").and_then(Value::as_array);
    let added = added.into_iter().flatten().filter_map(Value::as_str);
    for capability in added {
        let bare = capability.strip_prefix("CAP_").unwrap_or(capability);
        if CAPABILITIES.contains(&bare) {
            tell(&format!(
                "securityContext.capabilities.add has {capability}"
            ));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_could_go_around_the_rules_is_told_by_which_field() {
        let none = json!({});
        let bound = json!({"runAsUser": 4711, "runAsNonRoot": true});
        let fit = json!({"runAsUser": 4711, "allowPrivilegeEscalation": false});
        let with = |key: &str, value: Value| {
            let mut container = fit.clone();
            container[key] = value;
            container
        };
        #[rustfmt::skip]
        let table = [
            // pod     container                                               told
            (&none,    fit.clone(),                                            vec![]),
            (&bound,   json!({"allowPrivilegeEscalation": false}),             vec![]),
            (&bound,   json!({}),                                              vec!["allowPrivilegeEscalation"]),
            (&none,    json!({}),                                              vec!["runAsUser is not said", "allowPrivilegeEscalation"]),
            (&none,    json!({"runAsNonRoot": true}),                          vec!["runAsUser is not said", "allowPrivilegeEscalation"]),
            (&bound,   with("runAsUser", json!(0)),                            vec!["runAsUser is 0"]),
            (&none,    with("privileged", json!(true)),                        vec!["privileged"]),
            (&none,    with("capabilities", json!({"add": ["NET_BIND_SERVICE"]})), vec![]),
            (&none,    with("capabilities", json!({"add": ["CAP_NET_RAW", "SETUID"]})), vec!["CAP_NET_RAW", "SETUID"]),
        ];
        for (pod, container, expected) in table {
            let spec = json!({"securityContext": pod});
            let container = json!({"name": "app", "securityContext": container});
            let found = missing(&spec, &container);
            assert_eq!(found.len(), expected.len(), "{container}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with("container app: "), "{found}");
                assert!(found.contains(expected), "{found}");
            }
        }
    }
}
