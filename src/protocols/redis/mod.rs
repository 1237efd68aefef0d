//! A relay for Redis and Valkey: one listener for each configured server;
//! every command is judged before it reaches the server.
//!
//! A connection passes through these files in this order: [`serve`] accepts,
//! [`reach`] dials, [`session`] moves bytes, [`request`] reads where commands
//! end, [`treat`] says which need no decision, [`describe`] tells policy of the
//! others, [`conversation`] says what becomes of each, [`sent`] keeps account
//! of what is owed, [`answers`] of whose reply is whose, [`refuse`] says no.

mod ahead;
mod answers;
mod commands;
mod conversation;
mod describe;
mod effect;
#[cfg(any(test, feature = "testing"))]
pub(in crate::protocols) mod laws;
mod limits;
mod nodes;
mod reach;
mod refuse;
mod reply;
mod request;
mod scripts;
mod sent;
mod serve;
mod session;
#[cfg(test)]
mod tests;
mod topology;
mod treat;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use crate::gate::Gate;
use crate::net::database_tls;
use crate::net::dial::Dialer;
use crate::net::listen_at::At;
use crate::process::Workers;

use self::ahead::Budget;
pub use self::describe::as_seen;
use self::nodes::Nodes;
pub use self::nodes::Unlisted;
pub use self::reach::Server;
use self::scripts::Scripts;
pub use self::treat::Dangerous;
use self::waiting::Waiting;

/// A server that is governed, and where agents reach it through the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where the sidecar listens for it.
    pub listen: At,
    /// Its host, or the path of its socket.
    pub host: Box<str>,
    /// Its port; 0 of a path.
    pub port: u16,
    /// How it is connected to.
    pub tls: database_tls::Settings,
}

/// How a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusals {
    /// The server gets one that cannot exist instead, and its error is
    /// rewritten: replies, transactions and silence stay the server's. One
    /// that ends a connection over it is refused for as by [`Self::Local`] from
    /// then on.
    Substitute,
    /// The sidecar answers in its turn: for proxies that end a connection on
    /// a command they do not know.
    Local,
}

/// Durations and bounds of the relay. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The servers; none is off.
    pub upstreams: Vec<Upstream>,
    /// Permissions of listeners at paths, as of files.
    pub socket_mode: u32,
    /// Longest wait for a person.
    pub hold_within: Duration,
    /// The same inside a transaction, or while keys are watched for one, which
    /// others change meanwhile.
    pub hold_in_transaction_within: Duration,
    /// Most connections at once.
    pub connections_max: usize,
    /// Memory for the texts of scripts, bytes, about.
    pub scripts_bytes_max: usize,
    /// Memory for commands that clients send ahead of reading replies, all
    /// connections together, bytes.
    pub pipeline_bytes_max: usize,
    /// See [`Refusals`].
    pub refusals: Refusals,
    /// See [`Dangerous`].
    pub dangerous: Dangerous,
    /// See [`Unlisted`].
    pub nodes: Unlisted,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            socket_mode: 0o600,
            hold_within: Duration::from_secs(300),
            hold_in_transaction_within: Duration::from_secs(30),
            connections_max: 10_000,
            scripts_bytes_max: 16 << 20,
            pipeline_bytes_max: 256 << 20,
            refusals: Refusals::Substitute,
            dangerous: Dangerous::Refuse,
            nodes: Unlisted::Refuse,
        }
    }
}

/// What the relay is built from.
#[derive(Debug)]
pub struct Parts {
    /// See [`Settings`].
    pub settings: Settings,
    /// Who decides.
    pub gate: Gate,
    /// Who connects to the configured servers.
    pub dialer: Dialer,
    /// Who serves connections.
    pub workers: Arc<Workers>,
}

/// The relay, ready to run for any of its listeners. Cloning shares it.
#[derive(Clone, Debug)]
pub struct RedisRelay {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    gate: Gate,
    dialer: Dialer,
    workers: Arc<Workers>,
    scripts: Arc<Scripts>,
    ahead: Arc<Budget>,
    nodes: Arc<Nodes>,
    waiting: Arc<Waiting>,
    places: Arc<tokio::sync::Semaphore>,
}

impl RedisRelay {
    /// A relay that has no listener yet; see [`RedisRelay::run`].
    pub fn new(parts: Parts) -> Self {
        let Parts {
            settings,
            gate,
            dialer,
            workers,
        } = parts;
        Self {
            shared: Arc::new(Shared {
                scripts: Arc::new(Scripts::new(settings.scripts_bytes_max)),
                ahead: Arc::new(Budget::new(settings.pipeline_bytes_max)),
                nodes: Arc::new(Nodes::new(settings.nodes)),
                waiting: Arc::default(),
                places: Arc::new(tokio::sync::Semaphore::new(settings.connections_max)),
                settings,
                gate,
                dialer,
                workers,
            }),
        }
    }
}
