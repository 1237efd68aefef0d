//! From flags, environment and file to a checked [`Config`], or every problem at once.
//!
//! Flag before environment before file before default. Each module owns its
//! `Settings`; this one builds them. Nobody imports it but what starts things.

mod check;
mod credentials;
mod database_url;
mod identity;
mod mysql;
mod options;
mod postgres;
mod problem;
mod raw;
mod redis;
mod resolve;
mod resolved;
mod routes;
mod schema;
mod secret;
mod sections;
mod settings;
mod source;
mod structure;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::control::agent::served;
use crate::control::auth::Token;
use crate::net::listen_at::At;
use crate::net::origins::Origin;
use crate::net::{dial, listen};
use crate::policy::{core, local};
use crate::protocols::{
    http as http_proxy, mysql as mysql_relay, postgres as postgres_relay, redis as redis_relay,
};
use crate::{gate, journal, session};

pub use check::check;
pub use problem::{Problem, Problems};
pub use resolve::Flags;
pub use schema::{documented, schema};
pub use settings::{Fallback, OUTSIDE, Outside, SETTINGS, Setting};
pub use source::Source;

/// The annotated default configuration, as shipped in `config/`.
pub const ANNOTATED: &str = include_str!("../../config/openbox-sidecar.yaml");

/// What the configuration is for: a few defaults differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A sidecar that others connect to: well-known ports, a halt stops its run.
    Serve,
    /// One command: free ports, a halt stops everything.
    Run,
}

/// Everything a sidecar is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who decides.
    pub policy: PolicyMode,
    /// The gate's.
    pub gate: gate::Settings,
    /// The registry's.
    pub session: session::Settings,
    /// Whether the id of the own run was made up for this start.
    pub own_run_is_new: bool,
    /// The journal's.
    pub journal: journal::Settings,
    /// The HTTP proxy's.
    pub http: http_proxy::Settings,
    /// The relay's for PostgreSQL.
    pub postgres: postgres_relay::Settings,
    /// What it takes from SDKs.
    pub sdk: SdkConfig,
    /// The relay's for MySQL.
    pub mysql: mysql_relay::Settings,
    /// The relay's for Redis.
    pub redis: redis_relay::Settings,
    /// Where it listens.
    pub listen: Listen,
    /// How it connects.
    pub upstream: UpstreamConfig,
    /// Folder of journal, state, CA and tokens.
    pub state_dir: PathBuf,
    /// Folder of the authority and its key.
    pub ca_dir: PathBuf,
    /// Where agents that do not see the state folder find what they need: certificates and their token.
    pub share_dir: Option<PathBuf>,
    /// What is written to standard error.
    pub log: LogConfig,
    /// How long open connections may finish when told to stop.
    pub drain_within: Duration,
    /// Once this file is there, it ends as if it were told to.
    pub end_file: Option<PathBuf>,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Every setting with its value, as it was said, and who said it; passwords
    /// are masked.
    pub resolved: Vec<Resolved>,
    /// What is allowed and probably not meant; to be logged once.
    pub warnings: Vec<String>,
}

impl Config {
    /// The addresses where it listens, as far as they are known before it does: whose port is not 0.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let Listen {
            http,
            transparent,
            agent,
            operator,
            health,
            ..
        } = &self.listen;
        let own = [http, transparent, agent, operator, health];
        let own = own.into_iter().filter_map(|listener| match listener {
            Listener::At(address) => Some(*address),
            Listener::Off => None,
        });
        let postgres = self.postgres.upstreams.iter().map(|server| &server.listen);
        let mysql = self.mysql.upstreams.iter().map(|server| &server.listen);
        let redis = self.redis.upstreams.iter().map(|server| &server.listen);
        let relays = postgres.chain(mysql).chain(redis);
        own.chain(relays.filter_map(At::address))
            .filter(|address| address.port() != 0)
            .collect()
    }
}

/// A setting and who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its key.
    pub key: &'static str,
    /// What was said; items of a list separated by commas.
    pub value: String,
    /// `flag`, `variable`, `file` or `default`.
    pub from: &'static str,
}

/// Who decides.
#[derive(Clone, Debug)]
pub enum PolicyMode {
    /// The embedded engine.
    Local(local::Settings),
    /// OpenBox Core.
    Core(CoreConfig),
}

/// OpenBox Core.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The client's.
    pub client: core::Settings,
    /// Whether the key is checked before the sidecar starts.
    pub validate: Validate,
}

/// Whether Core is asked about the key at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validate {
    /// It is, and a refused key ends the start.
    AtStart,
    /// The first evaluation shows.
    Never,
}

/// What the sidecar takes from OpenBox SDKs.
#[derive(Clone, Debug)]
pub struct SdkConfig {
    /// How much.
    pub served: served::Settings,
    /// Who signs it; without one, nobody may.
    pub signer: Option<(core::Known, core::Unsigned)>,
}

/// Where the sidecar listens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The HTTP proxy.
    pub http: Listener,
    /// Captured connections, at both loopback addresses.
    pub transparent: Listener,
    /// How they are led there.
    pub capture: listen::Capture,
    /// The agent API.
    pub agent: Listener,
    /// The agent API too, at a path.
    pub agent_socket: Option<AgentSocket>,
    /// What opens the agent API; a new one where nobody made it.
    pub agent_token: Option<Token>,
    /// The operator API.
    pub operator: Listener,
    /// Health and metrics.
    pub health: Listener,
}

/// A Unix socket of the agent API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSocket {
    /// Its path.
    pub path: PathBuf,
    /// Its permissions, as of a file.
    pub mode: u32,
}

/// One listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Here; port 0 takes a free one.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// How connections to the outside are made.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// PEM files of authorities to trust besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Those whose TLS is not like that of the others.
    pub origins: Vec<Origin>,
    /// The dialer's.
    pub dial: dial::Settings,
    /// Whose address captured connections go on from.
    pub source: dial::Source,
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How.
    pub format: LogFormat,
    /// Which: a level, or directives of `tracing_subscriber::EnvFilter`; parses.
    pub filter: String,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests;
