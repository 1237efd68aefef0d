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

pub mod metrics;
pub mod process;
pub mod redact;

pub mod net;

pub mod policy;
pub mod session;

pub mod journal;

pub mod gate;

pub mod control;
pub mod health;
pub mod protocols;

pub mod config;

pub mod app;

pub mod cli;
