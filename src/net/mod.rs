//! Sockets, addresses and TLS: everything about a connection except what is said on it and whether it may be said.

pub mod address;
pub mod agent_tls;
pub mod authority;
pub mod caller;
pub mod captured;
pub mod chain;
pub mod client_socket;
pub mod connections;
pub mod database_tls;
pub mod dial;
mod hello;
mod hello_cap;
pub mod http1;
pub mod http2;
pub mod intercept;
pub mod listen;
pub mod listen_at;
pub mod maybe_tls;
pub mod mint;
pub mod origins;
pub mod passed;
pub mod reread;
pub mod stream;
pub mod tls;
mod transparent;
pub mod trust;
