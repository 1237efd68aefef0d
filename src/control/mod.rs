//! The local APIs: what the agent tells, and what the operator decides. Two
//! listeners with two tokens, so that the agent cannot govern itself.

pub mod agent;
pub mod auth;
mod body;
#[cfg(test)]
mod codes_tests;
mod described;
mod idempotency;
mod openapi;
pub mod operator;
mod problem;
mod rate;
pub mod serve;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod text;
