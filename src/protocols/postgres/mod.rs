//! A relay for PostgreSQL: one listener for each configured server; every
//! execution is judged before it reaches the server.
//!
//! A connection passes through these files in this order: [`serve`] accepts,
//! [`begin`] and [`startup`] read how it begins, [`reach`] connects to the server,
//! [`login`] proves who it is where the agent does not, [`session`] moves bytes, [`conversation`] says what they are and what is owed,
//! [`describe`] tells policy, [`limits`] knows what may be asked of an execution,
//! [`refuse`] says no, [`cancel`] ends what a client no longer wants.

mod begin;
mod binding;
mod cancel;
mod conversation;
mod describe;
#[cfg(any(test, feature = "testing"))]
pub(in crate::protocols) mod laws;
mod limits;
mod login;
mod reach;
mod refuse;
mod serve;
mod session;
mod startup;
mod statement;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::gate::Gate;
use crate::net::agent_tls::{self, Acceptor};
use crate::net::database_tls;
use crate::net::dial::Dialer;
use crate::net::listen_at::At;
use crate::process::Workers;
use crate::protocols::sql::Analyses;

use cancel::Cancels;
pub use describe::as_seen;
pub use login::{TokenVerifier, Unfit};
pub use reach::Server;

/// The name of the protocol inside TLS.
pub const ALPN: &[u8] = b"postgresql";

/// Most connections that are no sessions: that begin, or ask to cancel. They have
/// places of their own, so that a full relay can still be told to cancel.
const BEGINNING_MAX: usize = 256;

/// A server that is governed, and where agents reach it through the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where the sidecar listens for it.
    pub listen: At,
    /// Its host, or the folder of its socket.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// TLS to it.
    pub tls: database_tls::Settings,
    /// Who logs in to it: `None`, the agent itself.
    pub login: Option<Login>,
}

/// A login in the agent's place, with a password that the agent need not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The role; `None`, the one that the agent names.
    pub role: Option<Box<str>>,
    /// A file of lines `host:port:database:role:password`, as clients of
    /// PostgreSQL have it in `.pgpass`; read for each session.
    pub passfile: PathBuf,
}

/// When the first execution of a prepared statement is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AskAt {
    /// When it is executed; what is not understood, when it is bound.
    Execute,
    /// When it is bound: planning may run functions declared immutable.
    Bind,
    /// When it is parsed, and later executions when they are bound.
    Parse,
}

/// What becomes of a session that asks for replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// It is refused.
    Refuse,
    /// Its start is judged; what follows is another protocol, and passes.
    Judge,
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
    /// See [`AskAt`].
    pub ask_at: AskAt,
    /// Whether sessions may replicate, which is judged once and then not read.
    pub replication: Replication,
    /// Longest wait for a person outside a transaction.
    pub hold_within: Duration,
    /// The same inside one, where a wait keeps locks.
    pub hold_in_transaction_within: Duration,
    /// Longest time from the first byte to a session that is ready.
    pub login_within: Duration,
    /// Most sessions at once; one beyond it is told so.
    pub connections_max: usize,
    /// Memory for analyses of statements seen before, bytes, about.
    pub memory_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            agent_tls: None,
            socket_mode: 0o600,
            ask_at: AskAt::Execute,
            replication: Replication::Refuse,
            hold_within: Duration::from_secs(300),
            hold_in_transaction_within: Duration::from_secs(30),
            login_within: Duration::from_secs(60),
            connections_max: 10_000,
            memory_bytes_max: 16 << 20,
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
    /// What agents prove that come by a network to a server that the sidecar logs in to; without it they are refused.
    pub token: Option<TokenVerifier>,
    /// Who serves connections.
    pub workers: Arc<Workers>,
}

/// The relay, ready to run for any of its listeners. Cloning shares it.
#[derive(Clone, Debug)]
pub struct PostgresRelay {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    gate: Gate,
    dialer: Dialer,
    acceptor: Option<Acceptor>,
    token: Option<TokenVerifier>,
    workers: Arc<Workers>,
    known: Arc<Analyses>,
    cancels: Arc<Cancels>,
    places: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

impl PostgresRelay {
    /// A relay that has no listener yet; see [`PostgresRelay::run`].
    pub fn new(parts: Parts) -> Self {
        let Parts {
            settings,
            gate,
            dialer,
            acceptor,
            token,
            workers,
        } = parts;
        let most = settings.connections_max;
        Self {
            shared: Arc::new(Shared {
                known: Arc::new(Analyses::new(settings.memory_bytes_max)),
                cancels: Arc::default(),
                sessions: Arc::new(Semaphore::new(most)),
                places: Arc::new(Semaphore::new(most.saturating_add(BEGINNING_MAX))),
                settings,
                gate,
                dialer,
                acceptor,
                token,
                workers,
            }),
        }
    }
}
