//! Governs what an AI agent does to the outside world, from beside it.
//!
//! What must always hold, and where it is made sure of:
//!
//! * Nothing leaves undecided. Only [`gate`] makes a [`gate::Permit`]; what is to
//!   be sent is [`gate::Held`] until a permit for it makes it [`gate::Cleared`].
//! * What passes without a decision of its own is named: [`metrics::Passage`].
//! * Every permit is completed exactly once; dropping one records `abandoned`.
//! * A halt is read again after policy has answered, and before an answer is
//!   handed out.
//! * No answer is never an answer: [`policy::PolicyError`] tells what the fail
//!   mode covers from what is refused under either.
//! * A request has one reading, or none: `protocols::http::framing`.
//! * The agent cannot govern itself: [`control::agent`] and [`control::operator`]
//!   are two listeners with two tokens.
//! * What a person decided, and what was halted, survives a restart: [`state`].
//! * Secrets do not travel: [`redact`].
//!
//! Imports point downwards only, in the order of the modules below;
//! `tests/layering.rs` keeps it so.

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
pub mod state;

pub mod gate;

pub mod control;
pub mod health;
pub mod protocols;

pub mod config;

pub mod app;

pub mod cli;
