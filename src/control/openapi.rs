//! The OpenAPI documents of the local APIs: made from the handlers themselves,
//! and served beside them.

use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths};

/// The name of the token in both documents.
const TOKEN: &str = "token";

/// What the document of the API called `whose` begins with.
pub(in crate::control) fn document(whose: &str) -> OpenApi {
    let info = InfoBuilder::new()
        .title(format!("openbox-sidecar: the {whose}'s API"))
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "For this machine only: Host must be a loopback name or address, and foreign origins are refused.",
        ))
        .license(None)
        .build();
    let token = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    OpenApiBuilder::new()
        .info(info)
        .paths(Paths::new())
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme(TOKEN, token)
                .build(),
        ))
        .security(Some([SecurityRequirement::new(
            TOKEN,
            std::iter::empty::<&str>(),
        )]))
        .build()
}

/// Serves `document`.
pub(in crate::control) fn serve<S: Clone + Send + Sync + 'static>(
    document: &OpenApi,
) -> MethodRouter<S> {
    let text = match serde_json::to_value(document).map(finished) {
        Ok(document) => Bytes::from(document.to_string()),
        Err(error) => {
            tracing::error!(%error, "an OpenAPI document could not be written");
            Bytes::new()
        }
    };
    get(move || async move { written(text) })
}

/// What the handlers' descriptions leave out. A response must have a
/// description, a body may be left out where nothing in it must be said, and
/// numbers go further than `int64` (a format that stops at 2^63 - 1).
fn finished(mut document: Value) -> Value {
    let schemas = document.pointer("/components/schemas").cloned();
    let may_be_empty = |body: &Value| {
        let named = body.pointer("/content/application~1json/schema/$ref");
        let name = named
            .and_then(Value::as_str)
            .and_then(|name| name.rsplit('/').next());
        let schema = name.and_then(|name| schemas.as_ref()?.get(name));
        schema.is_some_and(|schema| {
            schema.get("properties").is_some() && schema.get("required").is_none()
        })
    };
    let operations = document.get_mut("paths").and_then(Value::as_object_mut);
    let operations = operations.into_iter().flat_map(|paths| paths.values_mut());
    let operations = operations.filter_map(Value::as_object_mut);
    for operation in operations.flat_map(|path| path.values_mut()) {
        if let Some(body) = operation.get_mut("requestBody") {
            let required = !may_be_empty(body);
            if let Some(body) = body.as_object_mut() {
                body.insert("required".to_owned(), required.into());
            }
        }
        let responses = operation
            .get_mut("responses")
            .and_then(Value::as_object_mut);
        for response in responses.into_iter().flat_map(|all| all.values_mut()) {
            if let Some(response) = response.as_object_mut() {
                let done = || Value::from("What was asked for");
                response.entry("description").or_insert_with(done);
            }
        }
    }
    unlimited(&mut document);
    document
}

fn unlimited(part: &mut Value) {
    match part {
        Value::Object(members) => {
            let counts = members
                .get("minimum")
                .is_some_and(|least| least.as_f64() >= Some(0.0));
            if counts
                && members
                    .get("format")
                    .is_some_and(|format| format == "int64")
            {
                members.remove("format");
                members.entry("maximum").or_insert(u64::MAX.into());
            }
            members.values_mut().for_each(unlimited);
        }
        Value::Array(items) => items.iter_mut().for_each(unlimited),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn written(text: Bytes) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], text).into_response()
}
