//! Sockets, addresses and TLS: everything about a connection except what is said on it and whether it may be said.

pub mod address;
pub mod client_socket;
pub mod dial;
pub mod listen;
