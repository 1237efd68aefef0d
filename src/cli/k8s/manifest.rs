//! Manifests as files hold them: YAML documents (JSON is YAML), and the pods in them.

use serde::Deserialize;
use serde_json::Value;

use super::annotations::Refused;

/// Largest text read, bytes.
pub(super) const BYTES_MAX: usize = 16 << 20;

/// Where an object may hold a pod: itself, or the template of those it makes. Of objects nobody here knows,
/// too (Argo's `Rollout` has its template where a Deployment has).
const PODS: [&str; 4] = [
    "",
    "/spec/template",
    "/spec/jobTemplate/spec/template",
    "/template",
];

/// The documents of `text`, empty ones left out.
///
/// # Errors
/// It is no YAML, or not of the kind that Kubernetes reads.
pub(super) fn read(text: &str) -> Result<Vec<Value>, Refused> {
    let mut all = Vec::new();
    for (place, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let value = Value::deserialize(document).map_err(|error| {
            let number = place.saturating_add(1);
            Refused::one(format!("document {number} is no manifest: {error}"))
        })?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// Pointers (RFC 6901) to the pods of `object`; several where it is a list.
pub(super) fn pods(object: &Value) -> Vec<String> {
    if let Some(items) = object.get("items").and_then(Value::as_array) {
        let all = items.iter().enumerate();
        return all
            .flat_map(|(place, item)| {
                let inner = pods(item);
                inner
                    .into_iter()
                    .map(move |pointer| format!("/items/{place}{pointer}"))
            })
            .collect();
    }
    let has_containers = |pointer: &&&str| {
        let containers = object.pointer(&format!("{pointer}/spec/containers"));
        containers.is_some_and(Value::is_array)
    };
    PODS.iter()
        .find(has_containers)
        .map(|pointer| (*pointer).to_owned())
        .into_iter()
        .collect()
}

/// `kind/name` of the object that holds the pod at `pointer`.
pub(super) fn title(object: &Value, pointer: &str) -> String {
    let mut parts = pointer.split('/');
    let object = match (parts.next(), parts.next(), parts.next()) {
        (Some(""), Some("items"), Some(place)) => object.pointer(&format!("/items/{place}")),
        _ => Some(object),
    };
    let text = |pointer: &str| object.and_then(|object| object.pointer(pointer)?.as_str());
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
    format!(
        "{}/{}",
        text("/kind").unwrap_or("object"),
        name.unwrap_or("(no name)")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_wherever_kubernetes_has_them() {
        let text = "
kind: Service
spec: {ports: []}
---
---
kind: Pod
metadata: {name: a}
spec: {containers: [{name: x}]}
---
kind: CronJob
metadata: {name: b}
spec: {jobTemplate: {spec: {template: {spec: {containers: []}}}}}
---
kind: List
items:
- {kind: Deployment, metadata: {name: c}, spec: {template: {spec: {containers: []}}}}
- {kind: ConfigMap}
- {kind: Job, metadata: {generateName: d-}, spec: {template: {spec: {containers: []}}}}
";
        let found: Vec<_> = read(text)
            .unwrap()
            .iter()
            .flat_map(|object| {
                let pods = pods(object);
                pods.into_iter()
                    .map(|pointer| (title(object, &pointer), pointer))
                    .collect::<Vec<_>>()
            })
            .collect();
        let found: Vec<_> = found
            .iter()
            .map(|(title, pointer)| (&**title, &**pointer))
            .collect();
        assert_eq!(
            found,
            [
                ("Pod/a", ""),
                ("CronJob/b", "/spec/jobTemplate/spec/template"),
                ("Deployment/c", "/items/0/spec/template"),
                ("Job/d-", "/items/2/spec/template"),
            ]
        );
    }

    #[test]
    fn what_is_no_manifest_is_told_by_its_number() {
        let told = read("kind: Pod\n---\n- [").unwrap_err().to_string();
        assert!(told.contains("document 2 is no manifest"), "{told}");
        let told = read("{1: {? [a] : b}}").unwrap_err().to_string();
        assert!(told.contains("document 1 is no manifest"), "{told}");
    }
}
