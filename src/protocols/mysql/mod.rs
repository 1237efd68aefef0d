//! A relay for MySQL and MariaDB: one listener for each configured server; every
//! execution is judged before it reaches the server.
//!
//! A connection passes through these files in this order: [`serve`] accepts,
//! [`reach`] connects to the server, [`startup`] brings both sides to one set of
//! what they can ([`capability`], [`greeting`]), [`session`] moves bytes,
//! [`conversation`] says what they are and what is owed, [`commands`] what becomes
//! of each command, [`statement`] how the server reads a text, [`answer`] where
//! an answer ends, [`describe`] tells policy, [`limits`] knows what may be asked
//! of an execution, [`whole_password`] receives what a server asks of a client in
//! clear, [`refuse`] says no, [`kills`] ends what somebody else does
//! not want.

mod answer;
mod attributes;
mod capability;
mod commands;
mod conversation;
mod describe;
mod dynamic;
mod greeting;
mod kills;
#[cfg(any(test, feature = "testing"))]
pub(in crate::protocols) mod laws;
mod limits;
mod reach;
mod refuse;
mod serve;
mod session;
mod startup;
mod statement;
mod whole_password;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::gate::Gate;
use crate::net::agent_tls::{self, Acceptor};
use crate::net::client_socket::ClientSocket;
use crate::net::database_tls;
use crate::net::dial::Dialer;
use crate::net::listen_at::At;
use crate::net::maybe_tls::MaybeTls;
use crate::process::Workers;
use crate::protocols::sql::Analyses;

pub use self::capability::LocalFiles;
use self::kills::Kills;
pub use self::reach::Server;
use self::whole_password::Key;
pub use self::whole_password::WholePassword;

/// The connection of an agent.
type Agent = MaybeTls<ClientSocket>;

/// A server that is governed, and where agents reach it through the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where the sidecar listens for it.
    pub listen: At,
    /// Its host.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// TLS to it.
    pub tls: database_tls::Settings,
    /// See [`WhereUnsaid`].
    pub unsaid: WhereUnsaid,
}

/// What holds where TLS to a server is left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhereUnsaid {
    /// Nothing is open: somebody has said what they want.
    Nothing,
    /// Nobody has: a MySQL of this machine or a private network is spoken to in clear for a
    /// client in clear, so that their proof of a whole password passes between the two.
    LikeTheClient,
}

/// Durations and bounds of the relay. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The servers; none is off.
    pub upstreams: Vec<Upstream>,
    /// TLS from agents; `None` is none.
    pub agent_tls: Option<agent_tls::Settings>,
    /// Permissions of listeners at paths, as of files.
    pub socket_mode: u32,
    /// Longest wait for a person outside a transaction.
    pub hold_within: Duration,
    /// The same inside one, where a wait keeps locks.
    pub hold_in_transaction_within: Duration,
    /// Longest time from the first byte to a session that is ready.
    pub login_within: Duration,
    /// Most connections at once.
    pub connections_max: usize,
    /// Memory for analyses of statements seen before, bytes, about.
    pub memory_bytes_max: usize,
    /// See [`LocalFiles`].
    pub local_files: LocalFiles,
    /// See [`Replication`].
    pub replication: Replication,
    /// See [`WholePassword`].
    pub whole_password: WholePassword,
    /// See [`Sessions`].
    pub sessions: Sessions,
}

/// What becomes of a server that follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// It is refused.
    Refuse,
    /// That it begins is judged, and what the other has changed passes unread.
    Judge,
}

/// Whether policy is asked about a session that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// It is not: what is executed in it is judged.
    Pass,
    /// It is, and what it asks for is set before the client has the session.
    Judge,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            agent_tls: None,
            socket_mode: 0o600,
            hold_within: Duration::from_secs(300),
            hold_in_transaction_within: Duration::from_secs(30),
            login_within: Duration::from_secs(60),
            connections_max: 10_000,
            memory_bytes_max: 16 << 20,
            local_files: LocalFiles::Refuse,
            replication: Replication::Refuse,
            whole_password: WholePassword::Refuse,
            sessions: Sessions::Pass,
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
    /// Who serves TLS to agents, where anybody does.
    pub acceptor: Option<Acceptor>,
    /// Who serves connections.
    pub workers: Arc<Workers>,
}

/// The relay, ready to run for any of its listeners. Cloning shares it.
#[derive(Clone, Debug)]
pub struct MysqlRelay {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    gate: Gate,
    dialer: Dialer,
    acceptor: Option<Acceptor>,
    workers: Arc<Workers>,
    known: Arc<Analyses>,
    kills: Arc<Kills>,
    /// Of passwords that are received.
    key: Option<Arc<Key>>,
    places: Arc<tokio::sync::Semaphore>,
}

impl MysqlRelay {
    /// A relay that has no listener yet; see [`MysqlRelay::run`].
    pub fn new(parts: Parts) -> Self {
        let Parts {
            settings,
            gate,
            dialer,
            acceptor,
            workers,
        } = parts;
        Self {
            shared: Arc::new(Shared {
                known: Arc::new(Analyses::new(settings.memory_bytes_max)),
                kills: Arc::default(),
                key: Key::of(settings.whole_password).map(Arc::new),
                places: Arc::new(tokio::sync::Semaphore::new(settings.connections_max)),
                settings,
                gate,
                dialer,
                acceptor,
                workers,
            }),
        }
    }
}
