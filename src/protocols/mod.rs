//! Everything that speaks a wire, one folder a protocol.

pub mod http;
pub mod postgres;
pub mod sql;
