//! The real sidecar between real clients and origins, over HTTP and HTTPS.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test; the file is no data path"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../compat/mod.rs"]
mod compat;

mod approvals;
mod as_direct;
mod bad_input;
mod bodies;
mod chaining;
mod circles;
mod clients;
mod core_approvals;
mod core_mode;
mod crashes;
mod credentials;
mod disks;
mod egress;
mod encodings;
mod expectations;
mod git;
mod grpc;
mod halts;
mod health;
mod http2;
mod identities;
mod leaks;
mod lifecycle;
mod mcp;
mod origin_tls;
mod origins;
mod redaction;
mod rotation;
mod routes;
mod rules;
mod secrets;
mod smuggling;
mod socks;
mod streams;
mod terms;
mod trust;
mod upgrades;
mod verdicts;
mod violations;
mod websockets;

/// A field of proxy credentials.
fn basic(user: &str, token: &str) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
    format!("Basic {text}")
}
