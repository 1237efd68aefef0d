//! Sockets and connections, without policy.

pub mod http1;
