//! Sockets, addresses and TLS: everything about a connection except what is said on it and whether it may be said.

pub mod client_socket;
pub mod listen;
