//! The HTTP forward proxy: absolute-form requests and CONNECT on one port.

mod chunks;
mod framing;
mod sentinel;
pub mod settings;

pub use settings::{Completed, OverCap, Settings};
