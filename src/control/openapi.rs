//! The OpenAPI documents of the local APIs: made from the handlers themselves,
//! and served beside them.

use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
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
    let text = match document.to_json() {
        Ok(text) => Bytes::from(text),
        Err(error) => {
            tracing::error!(%error, "an OpenAPI document could not be written");
            Bytes::new()
        }
    };
    get(move || async move { written(text) })
}

fn written(text: Bytes) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], text).into_response()
}
