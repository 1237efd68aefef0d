//! What a program needs in its environment to go through a sidecar.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{BUNDLE, CA, JAVA_STORE};
use crate::net::agent_tls::{self, Demand};
use crate::protocols::http::canary::{Relay, Told};
use crate::protocols::{mysql, postgres, redis};
use crate::redact::Secret;

use super::child_databases::{Database, Leg, System};
use super::child_env::{self, Agent, Change, Given, Proxy};

/// The sidecar as its agent sees it.
#[derive(Debug)]
pub struct Environment {
    /// Where the HTTP proxy listens.
    pub http: Option<SocketAddr>,
    /// Where the agent API listens.
    pub agent: Option<SocketAddr>,
    /// The path of its socket.
    pub agent_socket: Option<PathBuf>,
    /// The database servers that are governed.
    pub databases: Vec<Database>,
    /// What opens the agent API.
    pub token: Secret,
    /// Where the certificates are.
    pub state_dir: PathBuf,
}

/// What a child must ask of TLS where agents are served as `settings` say.
pub fn leg(settings: Option<&agent_tls::Settings>) -> Leg {
    match settings.map(|settings| settings.demand) {
        Some(Demand::Required) => Leg::Encrypted,
        // In clear costs less, and stays inside the machine.
        Some(Demand::Offered) | None => Leg::Clear,
    }
}

/// What a child is to know of servers, where their listeners are known.
pub fn databases(
    (postgres, postgres_leg): (&[postgres::Upstream], Leg),
    (mysql, mysql_leg): (&[mysql::Upstream], Leg),
    redis: &[redis::Upstream],
) -> Vec<Database> {
    let postgres = postgres.iter().map(|one| {
        (
            System::Postgres,
            &one.listen,
            &one.host,
            one.port,
            (postgres_leg, one.login.is_some()),
        )
    });
    let mysql = mysql.iter().map(|one| {
        (
            System::Mysql,
            &one.listen,
            &one.host,
            one.port,
            (mysql_leg, false),
        )
    });
    let redis = redis.iter().map(|one| {
        (
            System::Redis,
            &one.listen,
            &one.host,
            one.port,
            (Leg::Clear, false),
        )
    });
    let all = postgres.chain(mysql).chain(redis);
    let all = all.filter_map(|(system, listen, host, port, (leg, takes_token))| {
        Some(Database {
            system,
            listen: listen.address()?,
            host: host.clone(),
            port,
            leg,
            takes_token,
        })
    });
    let known = |database: &Database| database.listen.port() != 0;
    all.filter(known).collect()
}

impl Environment {
    /// What whoever asks for the canary is told of a sidecar with this environment, whose agents find its
    /// certificates in `shared` where they do not see its state folder.
    pub fn told(
        &self,
        health: Option<SocketAddr>,
        transparent: &[SocketAddr],
        shared: Option<&Path>,
        authority_sha256: String,
    ) -> Told {
        let folder = shared.unwrap_or(&self.state_dir);
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        let relays = self.databases.iter().map(|database| Relay {
            system: database.system.as_str().to_owned(),
            listen: database.listen,
        });
        Told {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            authority_sha256,
            ca: folder.join(CA),
            bundle: folder.join(BUNDLE),
            java_store: folder.join(JAVA_STORE),
            agent: self.agent,
            health,
            transparent: transparent.to_vec(),
            relays: relays.collect(),
        }
    }

    /// The changes to our own environment, each variable once.
    pub fn changes(&self) -> Vec<Change> {
        let parent: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        self.changes_of(&parent)
    }

    /// The changes to the environment `parent`, each variable once.
    pub fn changes_of(&self, parent: &[(OsString, OsString)]) -> Vec<Change> {
        // Other programs may run elsewhere: they need whole paths.
        let folder = std::path::absolute(&self.state_dir);
        let folder = folder.unwrap_or_else(|_| self.state_dir.clone());
        let files = [CA, BUNDLE, JAVA_STORE].map(|name| folder.join(name));
        let [ca, bundle, java_store] = &files;
        let proxy = self.http.map(|address| Proxy {
            address,
            ca,
            bundle,
            java_store: Some(java_store),
        });
        let listens = self.agent.is_some() || self.agent_socket.is_some();
        let agent = listens.then(|| Agent {
            address: self.agent,
            socket: self.agent_socket.as_deref(),
            token: Some(self.token.expose()),
        });
        child_env::changes(
            parent,
            &Given {
                proxy,
                agent,
                databases: &self.databases,
            },
        )
    }
}
