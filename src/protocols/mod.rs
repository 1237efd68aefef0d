//! Everything that speaks a wire, one folder a protocol.

mod accept;
pub mod captured;
pub mod http;
#[cfg(any(test, feature = "testing"))]
pub mod laws;
pub mod mysql;
mod pipe;
pub mod postgres;
pub mod redis;
pub mod sql;
