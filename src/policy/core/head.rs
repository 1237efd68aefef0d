//! What stands at the head of requests, in the order in which the SDKs write it.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::settings::{ApiKey, CoreUrl};

const VERSION: &str = concat!("openbox-sidecar-rust-v", env!("CARGO_PKG_VERSION"));
const AGENT: &str = concat!(
    "OpenBox-SDK/openbox-sidecar-rust-v",
    env!("CARGO_PKG_VERSION")
);

/// Of every question to Core.
pub(super) fn question(url: &CoreUrl, key: &ApiKey) -> HeaderMap {
    let mut headers = host(url);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    connection(&mut headers);
    ours(&mut headers, key);
    headers
}

/// Of what asks Core who we are.
pub(super) fn bootstrap(url: &CoreUrl, key: &ApiKey) -> HeaderMap {
    let mut headers = host(url);
    connection(&mut headers);
    ours(&mut headers, key);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

/// Of what asks an identity provider for a token: it is not Core, and is not
/// shown the API key.
pub(super) fn token(url: &CoreUrl) -> HeaderMap {
    let mut headers = host(url);
    connection(&mut headers);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form);
    headers
}

fn host(url: &CoreUrl) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    // The authority was checked: it has no byte that a header has not.
    if let Ok(host) = HeaderValue::from_str(url.authority()) {
        headers.insert(HOST, host);
    }
    headers
}

fn connection(headers: &mut HeaderMap) {
    // Answers are small, and read as they are.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
}

fn ours(headers: &mut HeaderMap, key: &ApiKey) {
    // The key was checked as the authority was.
    if let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {}", key.expose())) {
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(
        HeaderName::from_static("x-openbox-sdk-version"),
        HeaderValue::from_static(VERSION),
    );
}
