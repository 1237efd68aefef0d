//! What the HTTP proxy can be told.

use std::time::Duration;

use crate::net::origins::is_host;

use super::credentials::Credential;
use super::places::Place;
use super::routes::{Route, Treatment};

/// Durations, bounds and choices of the HTTP proxy. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How requests are treated that no route is about.
    pub treatment: Treatment,
    /// How others are; the first that fits holds.
    pub routes: Vec<Route>,
    /// What requests get once they may leave; the first whose place fits.
    pub credentials: Vec<Credential>,
    /// Longest wait for a body that is being captured, before it streams on.
    pub capture_within: Duration,
    /// Hosts whose TLS is not intercepted: exact names, or `*.example.com`.
    pub passthrough: Vec<String>,
    /// Ports that tunnels may lead to; empty for any.
    pub connect_ports: Vec<u16>,
    /// Where each message of a WebSocket, and each event of a stream, is judged.
    pub judge_each: Vec<Place>,
    /// Largest header section of a request, bytes.
    pub head_bytes_max: usize,
    /// Most header fields of a request.
    pub head_fields_max: usize,
    /// Longest time a request may take to send its head.
    pub head_within: Duration,
    /// Longest wait for the first byte inside a tunnel.
    pub first_byte_within: Duration,
    /// Longest silence of a client, in a body and between requests; of what it is answered with and of tunnels, its
    /// [`Treatment`] says.
    pub idle_within: Duration,
    /// Most agent connections at once.
    pub connections_max: usize,
    /// Most idle connections that each worker keeps to one origin, of either version of HTTP.
    pub idle_upstreams_max: usize,
    /// Memory for bodies that policy is shown, all together, bytes, about.
    pub bodies_bytes_max: usize,
    /// Most bytes of all bodies in files.
    pub spill_bytes_max: usize,
    /// Longest time that a body may take which is to be here whole.
    pub spill_within: Duration,
}

/// What becomes of a body larger than [`Treatment::capture_bytes_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverCap {
    /// Policy sees its beginning, marked `partial`, and it streams on.
    Partial,
    /// It is refused: a request with 413, an answer that is withheld as one that policy blocks.
    Deny,
    /// Of a request, policy sees its beginning, and its length and digest, once all of it is
    /// here: in a file. An answer is as [`Self::Partial`]: whoever waits for it would have nothing
    /// of a long one, or of a stream, until its end.
    Spill,
}

/// What is done with the answer while policy judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// What is within the cap is withheld until its verdict.
    Enforce,
    /// It goes out at once; a verdict marks activity or run.
    Observe,
}

/// How a request gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// It is read.
    Read,
    /// It is inside a tunnel that passes unread: `http.passthrough`.
    Unread,
    /// There is no tunnel to that port: `http.connect_ports`.
    Refused,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            treatment: Treatment::default(),
            routes: Vec::new(),
            credentials: Vec::new(),
            capture_within: Duration::from_secs(2),
            passthrough: Vec::new(),
            connect_ports: Vec::new(),
            judge_each: Vec::new(),
            head_bytes_max: 65_536,
            head_fields_max: 100,
            head_within: Duration::from_secs(30),
            first_byte_within: Duration::from_secs(5),
            idle_within: Duration::from_secs(300),
            connections_max: 20_000,
            idle_upstreams_max: 256,
            bodies_bytes_max: 64 << 20,
            spill_bytes_max: 1 << 30,
            spill_within: Duration::from_secs(300),
        }
    }
}

impl Settings {
    /// Whether `host` is on the passthrough list: by name, or under `*.suffix`.
    #[must_use]
    pub fn passes_through(&self, host: &str) -> bool {
        let patterns = &self.passthrough;
        patterns.iter().any(|pattern| is_host(pattern, host))
    }

    /// Whether a tunnel may lead to `port`, whatever policy says of what is in it.
    #[must_use]
    pub fn tunnels_to(&self, port: u16) -> bool {
        self.connect_ports.is_empty() || self.connect_ports.contains(&port)
    }

    /// What becomes of a tunnel to `port` of `host`: the port is asked about first, by whatever
    /// door it is to lead there.
    #[must_use]
    pub fn leads(&self, host: &str, port: u16) -> Leads {
        match () {
            () if !self.tunnels_to(port) => Leads::Refused,
            () if self.passes_through(host) => Leads::Unread,
            () => Leads::Read,
        }
    }

    /// Whether the messages and events of an answer from there are judged one by one.
    #[must_use]
    pub fn judges_each(&self, host: &str, path: &str) -> bool {
        let places = &self.judge_each;
        places.iter().any(|place| place.covers(host, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_named_is_refused_whatever_the_host() {
        let settings = Settings {
            passthrough: vec!["pinned.test".to_owned(), "192.0.2.1".to_owned()],
            connect_ports: vec![443],
            ..Settings::default()
        };
        for (host, port, expected) in [
            ("pinned.test", 443, Leads::Unread),
            ("pinned.test", 25, Leads::Refused),
            ("192.0.2.1", 443, Leads::Unread),
            ("192.0.2.1", 25, Leads::Refused),
            ("a.test", 443, Leads::Read),
            ("a.test", 25, Leads::Refused),
        ] {
            assert_eq!(settings.leads(host, port), expected, "{host}:{port}");
        }
    }
}
