//! openbox-sidecar.

#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::as_conversions,
        reason = "an overflow or a bad index in a test fails the test, which is its job"
    )
)]

pub mod domain;
pub mod net;

pub mod policy;
pub mod process;
pub mod redact;
