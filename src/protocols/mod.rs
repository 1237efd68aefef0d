//! Everything that speaks a wire, one folder a protocol.

mod accept;
pub mod http;
mod pipe;
pub mod postgres;
pub mod redis;
pub mod sql;
