//! A sidecar from a configuration: [`bind`] reserves everything that can fail, [`Bound::run`] serves.
//!
//! The only file that knows all modules. Tests call the same functions with
//! port 0, so production wiring is what is tested.

mod apis;
pub mod child_databases;
pub mod child_env;
pub mod child_leads;
pub mod env_text;
pub mod environment;
mod error;
mod judge;
mod state;
mod trust;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{AgentSocket, Config, For, Listener, PolicyMode, UpstreamConfig};
use crate::control::auth::Token;
use crate::control::operator::Shutdown;
use crate::control::serve::{Limits, serve as serve_api};
use crate::domain::Reason;
use crate::gate::{FailMode, Gate, Housekeeping, Parts};
use crate::health::{self, Draining, Health};
use crate::journal::Journal;
use crate::journal::ship::Shipper;
use crate::metrics::Metrics;
use crate::net;
use crate::net::agent_tls::Acceptor;
use crate::net::caller::Callers;
use crate::net::dial::Dialer;
use crate::net::listen_at::{At, BindError, Listening};
use crate::net::trust::Roots;
use crate::policy::{ApprovalsAt, PolicyBackend};
use crate::process::drain::DrainTrigger;
use crate::process::readiness::{Pending, Readiness};
use crate::process::{Drain, Tasks, Workers, clock, drain, end_file, spawn_named};
use crate::protocols::captured;
use crate::protocols::http::{self, HttpProxy};
use crate::protocols::mysql::{self, MysqlRelay};
use crate::protocols::postgres::{self, PostgresRelay};
use crate::protocols::redis::{self, RedisRelay};
use crate::redact::Secret;
use crate::session::{Registry, Run, RunKey};
use crate::state::{Change, Restored, Store};

use apis::Apis;
use environment::Environment;
pub use error::StartError;
use judge::Judge;
pub use judge::prove;
pub use state::AGENT_TOKEN;
use state::{StateFiles, Tokens};
pub use trust::{BUNDLE, CA, JAVA_STORE};

/// Where a sidecar listens; `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The HTTP proxy.
    pub http: Option<SocketAddr>,
    /// Captured connections, of each family; empty where it is off.
    pub transparent: Vec<SocketAddr>,
    /// The agent API.
    pub agent: Option<SocketAddr>,
    /// The agent API's socket.
    pub agent_socket: Option<PathBuf>,
    /// The operator API.
    pub operator: Option<SocketAddr>,
    /// Health and metrics.
    pub health: Option<SocketAddr>,
}

impl Addresses {
    /// Each address with its name, in a stable order.
    pub fn named(&self) -> [(&'static str, Option<SocketAddr>); 4] {
        [
            ("http", self.http),
            ("agent", self.agent),
            ("operator", self.operator),
            ("health", self.health),
        ]
    }
}

impl Addresses {
    /// All of them: an agent must not reach them through its own proxy.
    fn own(&self) -> Vec<SocketAddr> {
        self.named()
            .into_iter()
            .filter_map(|(_, address)| address)
            .chain(self.transparent.iter().copied())
            .collect()
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (name, address) in self.named() {
            if let Some(address) = address {
                write!(f, "{space}{name}={address}")?;
                space = " ";
            }
        }
        for address in &self.transparent {
            write!(f, "{space}transparent={address}")?;
            space = " ";
        }
        match &self.agent_socket {
            Some(path) => write!(f, "{space}agent_socket={}", path.display()),
            None => Ok(()),
        }
    }
}

/// What others may know of a sidecar, bound or running. Cloning shares it.
#[derive(Clone, Debug)]
pub struct View {
    /// Decides; also counts and knows the runs.
    pub gate: Gate,
    /// Where it listens.
    pub addresses: Addresses,
    /// The PostgreSQL servers that it governs, each with where it listens.
    pub postgres: Vec<postgres::Upstream>,
    /// How their agents are served TLS.
    pub postgres_tls: Option<net::agent_tls::Settings>,
    /// The same of MySQL.
    pub mysql: Vec<mysql::Upstream>,
    /// How their agents are served TLS.
    pub mysql_tls: Option<net::agent_tls::Settings>,
    /// The same of Redis.
    pub redis: Vec<redis::Upstream>,
    /// One line: who judges, and from where.
    pub policy: String,
    /// What happens while Core gives no answer: `open` or `closed`.
    pub fail_mode: &'static str,
    /// The state folder.
    pub state_dir: PathBuf,
    /// The journal in it.
    pub journal: PathBuf,
    /// What opens the agent API.
    pub agent_token: Secret,
    /// SHA-256 of our authority's certificate, hex; `None` where nothing is intercepted.
    pub ca_fingerprint: Option<String>,
    /// Runs that an earlier process had halted.
    halted_before: Arc<[RunKey]>,
}

impl View {
    /// Why something is halted since the start, if something is: everything, or
    /// one run.
    pub fn halted(&self) -> Option<Reason> {
        let registry = self.gate.registry();
        registry.everything_halted().or_else(|| {
            let runs = registry.all_runs();
            let before = |run: &Run| self.halted_before.contains(&RunKey::of(&run.context));
            let mut since = runs.iter().filter(|run| !before(run));
            since.find_map(|run| run.latch.reason())
        })
    }

    /// Resolves with the reason once [`Self::halted`] has one. Cancel-safe.
    pub async fn until_halted(&self) -> Reason {
        let mut changes = self.gate.registry().halt_changes();
        loop {
            changes.mark_unchanged();
            if let Some(reason) = self.halted() {
                return reason;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A sidecar whose addresses are known and reserved, and which serves nobody yet.
#[derive(Debug)]
pub struct Bound {
    view: View,
    housekeeping: Housekeeping,
    /// Tells Core what it was not told, where Core judges.
    shipper: Option<Shipper>,
    serving: Serving,
    draining: Draining,
    readiness: Readiness,
    starting: Pending,
    drain_within: Duration,
    end_file: Option<PathBuf>,
    shutdown: Shutdown,
    /// Removes what names a running sidecar when it ends.
    _state: StateFiles,
    // Last: its lock is given up when everything else is gone.
    _journal: Arc<Journal>,
}

/// Every server, and where it listens.
#[derive(Debug)]
struct Serving {
    sockets: Sockets,
    proxy: HttpProxy,
    postgres: Option<PostgresRelay>,
    mysql: Option<MysqlRelay>,
    redis: Option<RedisRelay>,
    /// Who are recognised when they are asked for by address.
    databases: captured::Databases,
    agent: Router,
    operator: Router,
    health: Router,
    metrics: Arc<Metrics>,
    /// Whether it is looked which process speaks to the agent API.
    callers: Callers,
}

#[derive(Debug)]
struct Sockets {
    http: Option<net::listen::Bound>,
    transparent: Vec<net::listen::Bound>,
    agent: Option<net::listen::Bound>,
    agent_socket: Option<Listening>,
    operator: Option<net::listen::Bound>,
    health: Option<net::listen::Bound>,
    postgres: Vec<(Listening, postgres::Server)>,
    mysql: Vec<(Listening, mysql::Server)>,
    redis: Vec<(Listening, redis::Server)>,
}

/// Loads what `mode` names, to see whether it loads. Describes it in one line.
///
/// # Errors
/// A policy that cannot be loaded, with file and line.
pub fn check_policy(mode: &PolicyMode) -> Result<String, StartError> {
    match mode {
        PolicyMode::Local(local) => judge::load(local).map(|policy| policy.describe()),
        PolicyMode::Core(core) => Ok(format!("OpenBox Core at {}", core.client.url)),
    }
}

/// Reserves everything that a sidecar of `config` needs.
///
/// # Errors
/// A policy that cannot be loaded, a state folder that cannot be used, a port
/// that is taken, a Core that does not know the key.
pub async fn bind(mut config: Config, purpose: For) -> Result<Bound, StartError> {
    let readiness = Readiness::default();
    let starting = readiness.pending("listeners");
    state::create_folder(&config.state_dir)?;
    // First of all: its lock says that the folder is ours.
    let journal = Journal::open(&config.journal).map_err(StartError::Journal)?;
    if let Some(path) = &config.end_file {
        end_file::clear(path).map_err(|source| StartError::EndFile {
            path: path.clone(),
            source,
        })?;
    }
    let (roots, tls) = trust::upstreams(&config.upstream)?;
    let (sockets, addresses) = listen(&config, &roots)?;
    judge::is_another(&config.policy, &addresses.own())?;
    state::create_folder(&config.ca_dir)?;
    let mint = trust::mint(&config.ca_dir, purpose)?;
    trust::publish(&config.state_dir, &roots, &mint)?;
    if let Some(folder) = &config.share_dir {
        state::create_shared(folder)?;
        trust::publish(folder, &roots, &mint)?;
    }
    let callers = config.session.callers;
    let metrics = Arc::new(Metrics::new().map_err(StartError::internal)?);
    journal.count_in(metrics.clone());
    let judge = Judge::new(&config.policy, &tls, &metrics).await?;
    let policy = judge.backend.describe();
    let (store, restored) =
        Store::open(&config.state_dir, metrics.clone()).map_err(StartError::Kept)?;
    let restored = take_up(&mut config, restored, &store, purpose).map_err(StartError::internal)?;
    let halted_before = restored.halts.iter();
    let halted_before = halted_before.map(|(run, _)| RunKey::of(run)).collect();
    let (gate, housekeeping) = Gate::new(Parts {
        backend: judge.backend.clone(),
        journal: journal.clone(),
        state: store,
        registry: Arc::new(Registry::new(config.session, clock::now())),
        metrics: metrics.clone(),
        settings: config.gate.clone(),
    });
    gate.restore(restored);
    let shipper = match judge.backend.approvals_at() {
        ApprovalsAt::Sidecar => None,
        ApprovalsAt::Core => Some(
            Shipper::new(
                journal.clone(),
                judge.backend.clone(),
                metrics.clone(),
                Box::new(gate.clone()),
            )
            .map_err(StartError::internal)?,
        ),
    };
    let tokens = Tokens {
        agent: config.listen.agent_token.unwrap_or_else(Token::for_agent),
        operator: Token::for_operator(),
    };
    let state = StateFiles::write(&config.state_dir, &addresses, &tokens)?;
    if let Some(folder) = &config.share_dir {
        state::share_token(folder, &tokens.agent)?;
    }
    let agent_token = Secret::new(tokens.agent.expose());
    let governed: Vec<_> = sockets
        .postgres
        .iter()
        .map(|(_, server)| server.upstream().clone())
        .collect();
    let mysql = sockets.mysql.iter();
    let mysql: Vec<_> = mysql.map(|(_, server)| server.upstream().clone()).collect();
    let redis = sockets.redis.iter();
    let redis: Vec<_> = redis.map(|(_, server)| server.upstream().clone()).collect();
    let mut own = addresses.own();
    own.extend(
        governed
            .iter()
            .filter_map(|upstream| upstream.listen.address()),
    );
    own.extend(
        mysql
            .iter()
            .filter_map(|upstream| upstream.listen.address()),
    );
    own.extend(
        redis
            .iter()
            .filter_map(|upstream| upstream.listen.address()),
    );
    let environment = Environment {
        http: addresses.http,
        agent: addresses.agent,
        agent_socket: addresses.agent_socket.clone(),
        databases: environment::databases(
            (
                &governed,
                environment::leg(config.postgres.agent_tls.as_ref()),
            ),
            (&mysql, environment::leg(config.mysql.agent_tls.as_ref())),
            &redis,
        ),
        token: agent_token.clone(),
        state_dir: config.state_dir.clone(),
    };
    let told = environment.told(
        addresses.health,
        &addresses.transparent,
        config.share_dir.as_deref(),
        trust::fingerprint(&mint),
    );
    let workers = Workers::start(config.workers.get()).map_err(StartError::internal)?;
    let workers = Arc::new(workers);
    let tasks = Tasks::of(workers.runtimes().chain([Handle::current()]));
    let proxy = HttpProxy::new(http::Parts {
        settings: config.http,
        gate: gate.clone(),
        dialer: Dialer::new(config.upstream.dial.clone(), own.clone()),
        source: config.upstream.source,
        tls,
        mint: mint.clone(),
        workers: workers.clone(),
        agent_token: Some(agent_token.clone()),
        spill_folder: config.state_dir.clone(),
        told,
    });
    let databases = databases(&config.upstream, own);
    let postgres_tls = config.postgres.agent_tls.clone();
    let postgres_acceptor = acceptor(
        postgres_tls.as_ref(),
        &mint,
        Some(postgres::ALPN),
        "postgres",
    )?;
    let logs_in = governed.iter().any(|upstream| upstream.login.is_some());
    let postgres_token = logs_in.then(|| postgres::TokenVerifier::new(&agent_token));
    let postgres_token = postgres_token.transpose().map_err(StartError::internal)?;
    let mysql_tls = config.mysql.agent_tls.clone();
    let mysql_acceptor = acceptor(mysql_tls.as_ref(), &mint, None, "mysql")?;
    let relay = (!config.postgres.upstreams.is_empty()).then(|| {
        PostgresRelay::new(postgres::Parts {
            settings: config.postgres,
            gate: gate.clone(),
            dialer: databases.clone(),
            acceptor: postgres_acceptor,
            token: postgres_token,
            workers: workers.clone(),
        })
    });
    let mysql_relay = (!config.mysql.upstreams.is_empty()).then(|| {
        MysqlRelay::new(mysql::Parts {
            settings: config.mysql,
            gate: gate.clone(),
            dialer: databases.clone(),
            acceptor: mysql_acceptor,
            workers: workers.clone(),
        })
    });
    let redis_relay = (!config.redis.upstreams.is_empty()).then(|| {
        RedisRelay::new(redis::Parts {
            settings: config.redis,
            gate: gate.clone(),
            dialer: databases.clone(),
            workers,
        })
    });
    let draining = Draining::default();
    let health = health::router(Health {
        readiness: readiness.clone(),
        draining: draining.clone(),
        metrics: metrics.clone(),
        tasks,
    });
    let shutdown = Shutdown::default();
    let apis = Apis {
        environment,
        gate: &gate,
        addresses: &addresses,
        state_dir: &config.state_dir,
        mint: &mint,
        sdk: &config.sdk,
        resolved: &config.resolved,
        shutdown: &shutdown,
    };
    Ok(Bound {
        serving: Serving {
            sockets,
            proxy,
            postgres: relay,
            mysql: mysql_relay,
            redis: redis_relay,
            databases: captured::Databases::new(databases),
            operator: apis.operator(tokens.operator, judge),
            agent: apis.agent(tokens.agent),
            health,
            metrics,
            callers,
        },
        draining,
        view: View {
            gate,
            addresses,
            postgres: governed,
            postgres_tls,
            mysql,
            mysql_tls,
            redis,
            policy,
            fail_mode: match config.gate.fail_mode {
                FailMode::Open => "open",
                FailMode::Closed => "closed",
            },
            journal: journal.path().to_path_buf(),
            state_dir: config.state_dir,
            agent_token,
            ca_fingerprint: Some(trust::fingerprint(&mint)),
            halted_before,
        },
        housekeeping,
        shipper,
        readiness,
        starting,
        drain_within: config.drain_within,
        end_file: config.end_file,
        shutdown,
        _state: state,
        _journal: journal,
    })
}

/// What of an earlier process concerns this one. `serve` goes on where it was;
/// `run` begins a new run of its own, so a halt of an earlier command stops
/// nothing but the workflow runs that it names.
fn take_up(
    config: &mut Config,
    mut restored: Restored,
    store: &Store,
    purpose: For,
) -> io::Result<Restored> {
    let own = &mut config.session.own;
    match purpose {
        For::Serve => {
            if let Some(run_id) = restored.own_run.take().filter(|_| config.own_run_is_new) {
                own.run_id = run_id.into();
            }
            store.put(&Change::OwnRun(&own.run_id))?;
        }
        For::Run => {
            restored.everything = None;
            let key = RunKey::of(own);
            restored.halts.retain(|(run, _)| RunKey::of(run) != key);
            store.put(&Change::Resumed(own))?;
        }
    }
    Ok(restored)
}

fn listen(config: &Config, roots: &Roots) -> Result<(Sockets, Addresses), StartError> {
    let listen = &config.listen;
    let sockets = Sockets {
        http: listener("--http-listen", listen.http)?,
        transparent: loopbacks(listen.transparent, listen.capture)?,
        agent: listener("--agent-listen", listen.agent)?,
        agent_socket: agent_socket(listen.agent_socket.as_ref())?,
        operator: listener("--operator-listen", listen.operator)?,
        health: listener("--health-listen", listen.health)?,
        postgres: postgres_listeners(&config.postgres, roots)?,
        mysql: mysql_listeners(&config.mysql, roots)?,
        redis: redis_listeners(&config.redis, roots)?,
    };
    let address = |bound: &Option<net::listen::Bound>| bound.as_ref().map(|b| b.address());
    let addresses = Addresses {
        http: address(&sockets.http),
        transparent: sockets
            .transparent
            .iter()
            .map(net::listen::Bound::address)
            .collect(),
        agent: address(&sockets.agent),
        agent_socket: listen.agent_socket.as_ref().map(|at| at.path.clone()),
        operator: address(&sockets.operator),
        health: address(&sockets.health),
    };
    Ok((sockets, addresses))
}

/// Who serves TLS to agents of `relay`, as its `settings` say.
fn acceptor(
    settings: Option<&net::agent_tls::Settings>,
    mint: &Arc<net::mint::Mint>,
    protocol: Option<&'static [u8]>,
    relay: &str,
) -> Result<Option<Acceptor>, StartError> {
    let serves = settings.map(|settings| Acceptor::new(settings, mint, protocol));
    serves.transpose().map_err(|error| {
        StartError::trust(format!("TLS to agents: {error} ({relay}.agent_sslcert)"))
    })
}

/// One listener for each server, each with the address it got.
fn postgres_listeners(
    settings: &postgres::Settings,
    roots: &Roots,
) -> Result<Vec<(Listening, postgres::Server)>, StartError> {
    let bind = |upstream: &postgres::Upstream| {
        let bound = Listening::bind(&upstream.listen, settings.socket_mode);
        let bound = bound.map_err(|error| StartError::Listen {
            flag: "--pg",
            error,
        })?;
        let listen = bound.at();
        let upstream = upstream.clone();
        let (host, port) = (upstream.host.clone(), upstream.port);
        let server = postgres::Server::new(postgres::Upstream { listen, ..upstream }, roots);
        let server = server.map_err(|error| {
            StartError::trust(format!(
                "TLS to PostgreSQL at {host}:{port}: {error} (--pg)"
            ))
        })?;
        Ok((bound, server))
    };
    settings.upstreams.iter().map(bind).collect()
}

/// The same for MySQL.
fn mysql_listeners(
    settings: &mysql::Settings,
    roots: &Roots,
) -> Result<Vec<(Listening, mysql::Server)>, StartError> {
    let bind = |upstream: &mysql::Upstream| {
        let bound = Listening::bind(&upstream.listen, settings.socket_mode);
        let bound = bound.map_err(|error| StartError::Listen {
            flag: "--mysql",
            error,
        })?;
        let listen = bound.at();
        let upstream = upstream.clone();
        let (host, port) = (upstream.host.clone(), upstream.port);
        let server = mysql::Server::new(mysql::Upstream { listen, ..upstream }, roots);
        let server = server.map_err(|error| {
            StartError::trust(format!("TLS to MySQL at {host}:{port}: {error} (--mysql)"))
        })?;
        Ok((bound, server))
    };
    settings.upstreams.iter().map(bind).collect()
}

/// The same for Redis.
fn redis_listeners(
    settings: &redis::Settings,
    roots: &Roots,
) -> Result<Vec<(Listening, redis::Server)>, StartError> {
    let bind = |upstream: &redis::Upstream| {
        let bound = Listening::bind(&upstream.listen, settings.socket_mode);
        let bound = bound.map_err(|error| StartError::Listen {
            flag: "--redis",
            error,
        })?;
        let listen = bound.at();
        let upstream = upstream.clone();
        let (host, port) = (upstream.host.clone(), upstream.port);
        let server = redis::Server::new(redis::Upstream { listen, ..upstream }, roots);
        let server = server.map_err(|error| {
            StartError::trust(format!("TLS to Redis at {host}:{port}: {error} (--redis)"))
        })?;
        Ok((bound, server))
    };
    settings.upstreams.iter().map(bind).collect()
}

/// Who connects to the databases that are configured.
fn databases(upstream: &UpstreamConfig, own: Vec<SocketAddr>) -> Dialer {
    // Our own listeners stay out.
    Dialer::new(upstream.dial.clone().anywhere(), own)
}

fn listener(flag: &'static str, at: Listener) -> Result<Option<net::listen::Bound>, StartError> {
    match at {
        Listener::Off => Ok(None),
        Listener::At(address) => {
            net::listen::bind(address)
                .map(Some)
                .map_err(|error| StartError::Listen {
                    flag,
                    error: BindError::Address(error),
                })
        }
    }
}

fn loopbacks(
    at: Listener,
    capture: net::listen::Capture,
) -> Result<Vec<net::listen::Bound>, StartError> {
    match at {
        Listener::Off => Ok(Vec::new()),
        Listener::At(address) => {
            net::listen::bind_loopbacks(address, capture).map_err(|error| StartError::Listen {
                flag: "listen.transparent",
                error: BindError::Address(error),
            })
        }
    }
}

fn agent_socket(at: Option<&AgentSocket>) -> Result<Option<Listening>, StartError> {
    let bound = at.map(|at| Listening::bind(&At::Unix(at.path.clone()), at.mode));
    bound.transpose().map_err(|error| StartError::Listen {
        flag: "listen.agent_socket",
        error,
    })
}

impl Bound {
    /// What others may know; outlives [`Self::run`].
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// What start-up waits for.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Serves until `drain` begins, the operator ends it, or the end file is there. Then, in this
    /// order: nothing new is accepted, holds are answered as shutting down, what runs may finish
    /// within the grace time, and what is left is dropped.
    pub async fn run(self, mut drain: Drain) {
        let gate = self.view.gate.clone();
        let housekeeping = spawn_named("housekeeping", self.housekeeping.run());
        let (tell_the_rest, ending) = drain::channel();
        let shipping = self
            .shipper
            .map(|shipper| spawn_named("shipper", shipper.run(ending)));
        let (servers, stopping) = drain::channel();
        let tasks = serve(self.serving, &stopping);
        drop(stopping);
        drop(self.starting);
        tokio::select! {
            () = drain.begun() => {}
            () = self.shutdown.begun() => {}
            () = end_file::appears(self.end_file.as_deref()) => {
                tracing::info!("told to end by the end file");
            }
        }
        self.draining.begin();
        let grace_ends = Instant::now().checked_add(self.drain_within);
        stop(servers, &gate, self.drain_within).await;
        tell_the_rest.begin();
        if let (Some(shipping), Some(until)) = (shipping, grace_ends) {
            // What is not told within the grace is told by the next start.
            let _told = tokio::time::timeout_at(until, shipping).await;
        }
        for task in tasks {
            task.abort();
        }
        housekeeping.abort();
    }
}

/// Starts every server. Each, and each of its connections, keeps a clone of
/// `stopping` for as long as it has something to finish.
fn serve(serving: Serving, stopping: &Drain) -> Vec<JoinHandle<()>> {
    let Serving {
        sockets,
        proxy,
        postgres,
        mysql,
        redis,
        mut databases,
        agent,
        operator,
        health,
        metrics,
        callers,
    } = serving;
    let api = |name, socket, router, limits| {
        let (metrics, stopping) = (metrics.clone(), stopping.clone());
        spawn_named(
            name,
            serve_api(name, socket, router, limits, metrics, stopping),
        )
    };
    let of_agents = Limits {
        callers,
        ..Limits::API
    };
    let at_path = sockets
        .agent_socket
        .map(|socket| api("agent-api", socket, agent.clone(), of_agents));
    let agent = sockets
        .agent
        .map(|socket| api("agent-api", Listening::Tcp(socket), agent, of_agents));
    let operator = sockets.operator.map(|socket| {
        let socket = Listening::Tcp(socket);
        api("operator-api", socket, operator, Limits::API)
    });
    let postgres: Vec<_> = sockets
        .postgres
        .into_iter()
        .filter_map(|(socket, server)| {
            let led = databases.lead_to(&socket, &server.upstream().host, server.upstream().port);
            let relay = postgres.clone()?.run(socket, led, server, stopping.clone());
            Some(spawn_named("postgres-relay", relay))
        })
        .collect();
    let mysql: Vec<_> = sockets
        .mysql
        .into_iter()
        .filter_map(|(socket, server)| {
            let led = databases.lead_to(&socket, &server.upstream().host, server.upstream().port);
            let relay = mysql.clone()?.run(socket, led, server, stopping.clone());
            Some(spawn_named("mysql-relay", relay))
        })
        .collect();
    let redis: Vec<_> = sockets
        .redis
        .into_iter()
        .filter_map(|(socket, server)| {
            let led = databases.lead_to(&socket, &server.upstream().host, server.upstream().port);
            let relay = redis.clone()?.run(socket, led, server, stopping.clone());
            Some(spawn_named("redis-relay", relay))
        })
        .collect();
    let doors = http::Doors {
        open: sockets.http,
        captured: sockets.transparent,
        databases,
    };
    let http =
        (!doors.is_empty()).then(|| spawn_named("http-proxy", proxy.run(doors, stopping.clone())));
    // Until the very end, so that a draining sidecar can say that it drains.
    let (forever, never) = drain::channel();
    let metrics = metrics.clone();
    let health = sockets.health.map(|socket| {
        spawn_named("health", async move {
            let _forever = forever;
            let socket = Listening::Tcp(socket);
            serve_api("health", socket, health, Limits::HEALTH, metrics, never).await;
        })
    });
    [http, agent, at_path, operator, health]
        .into_iter()
        .flatten()
        .chain(postgres)
        .chain(mysql)
        .chain(redis)
        .collect()
}

async fn stop(servers: DrainTrigger, gate: &Gate, within: Duration) {
    servers.begin();
    gate.close();
    if tokio::time::timeout(within, servers.finished())
        .await
        .is_err()
    {
        tracing::warn!(
            within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            "open connections are cut"
        );
    }
}

/// The folder of a sidecar, for those who look for a running one.
pub fn operator_file(state_dir: &Path) -> PathBuf {
    state_dir.join(state::OPERATOR)
}

#[cfg(test)]
mod tests;
