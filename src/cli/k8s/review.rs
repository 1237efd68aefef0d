//! What the API server asks an admission webhook, and the answer: `AdmissionReview` of `admission.k8s.io/v1`,
//! with a JSON Patch (RFC 6902).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::annotations::Refused;
use super::pod::{Asked, Done, Injection, inject};
use super::{ephemeral, manifest};

/// Longest warning and most of them: `kubectl` shows each on a line, and the API server drops the rest.
const WARNING_CHARS_MAX: usize = 240;
const WARNINGS_MAX: usize = 8;

/// Something that is no review, so that no answer can name it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAReview(pub(super) &'static str);

/// The answer to `review`.
///
/// # Errors
/// It is no `AdmissionReview` with a request.
pub(super) fn answer(review: &Value, injection: &Injection) -> Result<Value, NotAReview> {
    if review.get("kind").and_then(Value::as_str) != Some("AdmissionReview") {
        return Err(NotAReview("it is no AdmissionReview"));
    }
    if review.get("apiVersion").and_then(Value::as_str) != Some("admission.k8s.io/v1") {
        return Err(NotAReview("its apiVersion is not admission.k8s.io/v1"));
    }
    let request = review
        .get("request")
        .ok_or(NotAReview("it has no request"))?;
    let uid = request.get("uid").and_then(Value::as_str);
    let uid = uid.ok_or(NotAReview("its request has no uid"))?;
    let part = request.get("subResource").and_then(Value::as_str);
    let response = match request.get("object") {
        // What is deleted has none.
        None | Some(Value::Null) => json!({"uid": uid, "allowed": true}),
        // The API server takes nothing of the pod but these, so there is nothing to inject.
        Some(object) if part == Some("ephemeralcontainers") => match ephemeral::check(object) {
            Ok(()) => json!({"uid": uid, "allowed": true}),
            Err(why) => denied(uid, &why),
        },
        Some(object) => respond(uid, object, injection),
    };
    Ok(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

fn respond(uid: &str, object: &Value, injection: &Injection) -> Value {
    let mut patched = object.clone();
    match injected(&mut patched, injection) {
        Ok(warnings) => {
            let patch = json_patch::diff(object, &patched);
            let mut response = json!({"uid": uid, "allowed": true});
            if !patch.is_empty()
                && let Some(response) = response.as_object_mut()
            {
                let text = json!(patch).to_string();
                response.insert("patchType".to_owned(), "JSONPatch".into());
                response.insert("patch".to_owned(), BASE64_STANDARD.encode(text).into());
            }
            if !warnings.is_empty()
                && let Some(response) = response.as_object_mut()
            {
                response.insert("warnings".to_owned(), warnings.into());
            }
            response
        }
        Err(why) => denied(uid, &why),
    }
}

fn denied(uid: &str, why: &Refused) -> Value {
    json!({"uid": uid, "allowed": false, "status": {
        "code": 422,
        "reason": "Invalid",
        "message": format!("openbox-sidecar: {why}"),
    }})
}

fn injected(object: &mut Value, injection: &Injection) -> Result<Vec<String>, Refused> {
    let mut warnings = Vec::new();
    for pointer in manifest::pods(object) {
        let Some(template) = object.pointer_mut(&pointer) else {
            continue;
        };
        match inject(template, injection, Asked::ByLabel)? {
            Done::Injected(told) => warnings.extend(told),
            Done::Left(_) => {}
        }
    }
    warnings.truncate(WARNINGS_MAX);
    let short = |warning: String| {
        format!("openbox-sidecar: {warning}")
            .chars()
            .take(WARNING_CHARS_MAX)
            .collect()
    };
    Ok(warnings.into_iter().map(short).collect())
}
