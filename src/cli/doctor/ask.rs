//! What is asked of a sidecar over HTTP, with a token where it needs one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::super::question::{self, Bounds};

/// How much one answer may take. On a busy machine a sidecar that is well is slow; one that is gone says so at once.
const BOUNDS: Bounds = Bounds {
    within: Duration::from_secs(20),
    bytes_max: 256 * 1024,
};

/// Status and body of the answer to `GET target`, of `host`, at `address`; `token` opens what needs one.
///
/// # Errors
/// Nobody answers there in time, or not in HTTP.
pub(super) fn get(
    address: SocketAddr,
    target: &str,
    host: &str,
    token: Option<&str>,
) -> io::Result<(u16, String)> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let token = Zeroizing::new(token.unwrap_or_default());
    let request = Zeroizing::new(format!(
        "GET {target} HTTP/1.1\r\nhost: {host}\r\n{}connection: close\r\n\r\n",
        *token
    ));
    question::ask(address, request.as_bytes(), BOUNDS)
}
