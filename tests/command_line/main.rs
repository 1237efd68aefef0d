//! The command line of the real binary: `run` and its child, `doctor`, and starts that fail.

#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "an overflow or a bad index in a test fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod check_http;
mod doctor;
mod doctor_apart;
mod examples;
mod operating;
mod pods;
mod policies;
mod run;
mod starts;
