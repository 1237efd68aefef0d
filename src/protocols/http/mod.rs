//! The HTTP forward proxy: absolute-form requests and CONNECT on one port.

pub mod settings;

pub use settings::{Completed, OverCap, Settings};
