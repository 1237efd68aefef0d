//! What must hold whatever a client or a server of MySQL says: see
//! [`crate::protocols::laws`].

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a law that is broken panics: that is how it is told"
)]

mod codec;
mod machine;
mod script;
mod server;

pub(in crate::protocols) use codec::check as codec;
pub(in crate::protocols) use machine::check as machine;
