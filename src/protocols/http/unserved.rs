//! Connections of agents that become no request: counted each time, and told to people once for each host and cause,
//! with what to do. Whoever runs an agent sees warnings; a client that tries on would bury them under one of its own
//! for each try.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::domain::Protocol;
use crate::metrics::Unaccepted;
use crate::net::intercept::AcceptError;

use super::canary;
use super::line::Line;

/// Most hosts and causes that are told. An agent chooses the names; what comes later is told as information.
const TOLD_MAX: usize = 256;

/// How a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// By a tunnel that it asked for, or one for the name in its hello.
    Named,
    /// Led by the kernel, to an address.
    Captured,
}

/// Why it is not served.
#[derive(Debug)]
pub(super) enum Why<'e> {
    /// It waits for the server to speak first.
    Silent,
    /// It speaks neither TLS nor HTTP.
    Foreign,
    /// TLS with it failed.
    Tls(&'e AcceptError),
    /// Its port may not be asked for.
    Port,
}

impl Why<'_> {
    fn cause(&self) -> Unaccepted {
        match self {
            Self::Silent | Self::Foreign => Unaccepted::Foreign,
            Self::Port => Unaccepted::Refused,
            Self::Tls(error) => match error {
                AcceptError::TimedOut { .. } => Unaccepted::Slow,
                AcceptError::WrongName { .. } => Unaccepted::Malformed,
                AcceptError::Mint(_)
                | AcceptError::NoProtocol
                | AcceptError::Distrusted { .. }
                | AcceptError::Protocol(_)
                | AcceptError::Io(_) => Unaccepted::Tls,
            },
        }
    }

    /// Whether a person can do something about it. A client that leaves, or is slow, may have its reasons.
    fn can_be_mended(&self) -> bool {
        match self {
            Self::Silent | Self::Foreign | Self::Port => true,
            Self::Tls(error) => match error {
                AcceptError::Distrusted { .. }
                | AcceptError::WrongName { .. }
                | AcceptError::Mint(_)
                | AcceptError::NoProtocol
                | AcceptError::Protocol(_) => true,
                AcceptError::Io(_) | AcceptError::TimedOut { .. } => false,
            },
        }
    }
}

/// One that is not served, in words.
struct Told<'w> {
    came: Came,
    why: &'w Why<'w>,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.came {
            Came::Named => "a connection is refused: ",
            Came::Captured => "a captured connection is refused: ",
        })?;
        match self.why {
            Why::Silent => f.write_str(
                "its client waits for the server to speak first, so it is neither TLS nor HTTP",
            )?,
            Why::Foreign => f.write_str("its first byte is neither TLS nor HTTP")?,
            Why::Tls(error) => write!(f, "{error}")?,
            Why::Port => return f.write_str("http.connect_ports does not name its port"),
        }
        match (self.came, self.why) {
            (Came::Captured, Why::Silent | Why::Foreign) => f.write_str(
                "; a database is governed where --pg, --mysql or --redis names its server, and what is on http.passthrough passes unread",
            ),
            (Came::Named, Why::Silent | Why::Foreign)
            | (_, Why::Tls(AcceptError::Distrusted { .. })) => {
                f.write_str("; put the host on http.passthrough to let it pass unread")
            }
            (_, Why::Tls(_) | Why::Port) => Ok(()),
        }
    }
}

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Unserved {
    told: Mutex<BTreeSet<(Box<str>, &'static str)>>,
}

impl Unserved {
    /// Whether this was never told, and is to be from here on.
    fn is_first(&self, host: &str, cause: &'static str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < TOLD_MAX && told.insert((host.into(), cause))
    }
}

/// Counts and tells that the client of `line` is not served at `host`.
pub(super) fn tell(line: &Line, (host, port): (&str, u16), came: Came, why: &Why<'_>) {
    let cause = why.cause();
    line.proxy.gate.metrics().unaccepted(Protocol::Http, cause);
    let told = Told { came, why };
    // Who asks for the canary finds out by itself.
    let is_news = why.can_be_mended() && host != canary::HOST;
    if is_news && line.proxy.unserved.is_first(host, cause.as_str()) {
        tracing::warn!(host, port, "{told}");
    } else {
        tracing::info!(host, port, "{told}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_and_cause_is_told_once_and_not_without_end() {
        let unserved = Unserved::default();
        assert!(unserved.is_first("a.test", "tls"));
        assert!(!unserved.is_first("a.test", "tls"));
        assert!(unserved.is_first("a.test", "foreign_protocol"));
        assert!(unserved.is_first("b.test", "tls"));
        let told = (0..1000).filter(|n| unserved.is_first(&n.to_string(), "tls"));
        assert_eq!(told.count(), TOLD_MAX - 3);
    }
}
