//! What a database statement is and does, read from its text alone.
//!
//! The rule: a text that is not understood is [`Class::Opaque`], and where two
//! readings are possible the stricter one counts.
//!
//! A text passes through these files in this order: [`lexer`] cuts it into
//! tokens, [`words`] drops what says nothing, `analysis` cuts it into
//! statements, `commands` (and `mysql`, for what only that has) looks
//! at how each begins, `reading` walks over a
//! query or change, `second` asks another parser, `redaction` and `tags` read
//! what is left, `told` writes it for policy, `named` finds what goes by a name. `memory` and `shape` spare all that
//! for what was seen before.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "SQL has more words than a region of it gives a meaning to; all others are one case"
)]

mod analysis;
mod commands;
mod dialect;
mod functions;
mod keywords;
#[cfg(any(test, feature = "testing"))]
pub mod laws;
mod lexer;
mod memory;
mod mysql;
pub mod named;
mod reading;
mod redaction;
mod second;
mod shape;
mod tags;
#[cfg(test)]
mod tests;
pub mod told;
mod words;

pub use analysis::{Access, Analysis, Class, Flags, Relation, Statement, TEXT_BYTES_MAX};
pub use dialect::{Conditional, Dialect};
pub use lexer::{Kind, Lexer, Token};
pub use memory::{Analyses, Read};
pub use words::contains_ignoring_case;
