//! Who decides, made from the configuration.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::{Config, CoreConfig, PolicyMode, Validate};
use crate::metrics::Metrics;
use crate::net::tls::Upstreams;
use crate::policy::PolicyBackend;
use crate::policy::core::{self, BoxedIo, Connector, CoreClient, CoreUrl, Prepared, Scheme};
use crate::policy::local::{self, LocalPolicy, Reloaded, Watcher};
use crate::process::spawn_named;

use super::StartError;

/// How often idle connections to Core are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// Who decides, and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    pub(super) backend: Arc<dyn PolicyBackend>,
    local: Option<Arc<LocalPolicy>>,
    /// Reloads the policy when its files change; stops with the last clone.
    _watcher: Option<Arc<Watcher>>,
}

/// Loads the policy that `settings` name.
pub(super) fn load(settings: &local::Settings) -> Result<Arc<LocalPolicy>, StartError> {
    let policy = LocalPolicy::load(settings.clone());
    policy
        .map(Arc::new)
        .map_err(|error| StartError::Policy(error.to_string()))
}

impl Judge {
    /// The judge that `mode` names. Core is asked about the key first, where
    /// the configuration wants that.
    pub(super) async fn new(
        mode: &PolicyMode,
        tls: &Upstreams,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        match mode {
            PolicyMode::Local(config) => Self::local(config, metrics.clone()),
            PolicyMode::Core(config) => Self::core(config, tls).await,
        }
    }

    /// Loads the policy that `settings` name, and watches its files.
    fn local(settings: &local::Settings, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let policy = load(settings)?;
        let told = Box::new(move |reloaded: &Result<_, _>| match reloaded {
            Ok(Reloaded::Changed { .. }) => metrics.policy_reloaded(),
            Ok(Reloaded::Unchanged) => {}
            Err(_) => metrics.policy_reload_failed(),
        });
        let watcher = Watcher::start(policy.clone(), told).unwrap_or_else(|error| {
            tracing::warn!(%error, "policy changes will not be noticed; reload through the operator API");
            None
        });
        Ok(Self {
            backend: policy.clone(),
            local: Some(policy),
            _watcher: watcher.map(Arc::new),
        })
    }

    async fn core(config: &CoreConfig, tls: &Upstreams) -> Result<Self, StartError> {
        let client = Arc::new(CoreClient::new(
            config.client.clone(),
            connector(tls.clone()),
        ));
        if config.validate == Validate::AtStart {
            let known = client.validate().await;
            known.map_err(|error| StartError::Core(error.to_string()))?;
        }
        let swept = Arc::downgrade(&client);
        drop(spawn_named("core-sweep", async move {
            let mut tick = tokio::time::interval(SWEEP_EVERY);
            loop {
                tick.tick().await;
                let Some(client) = swept.upgrade() else {
                    return;
                };
                client.sweep(Instant::now());
            }
        }));
        Ok(Self {
            backend: client,
            local: None,
            _watcher: None,
        })
    }

    /// Reads the policy files again. Says what came of it.
    pub(super) fn reload(&self, metrics: &Metrics) -> Result<String, String> {
        let Some(local) = &self.local else {
            return Err("Core keeps the policies: there is nothing to reload here".to_owned());
        };
        match local.reload() {
            Ok(done) => {
                metrics.policy_reloaded();
                Ok(format!("{done:?}"))
            }
            Err(error) => {
                metrics.policy_reload_failed();
                Err(error.to_string())
            }
        }
    }
}

/// Proves to the Core of `config` that we hold the key that is configured, for
/// a transition to it.
///
/// # Errors
/// Core is not who judges, or does not take the proof.
pub async fn prove(config: &Config, prepared: &Prepared) -> Result<String, StartError> {
    let PolicyMode::Core(core) = &config.policy else {
        let why = "no OpenBox Core is set to prove anything to; set OPENBOX_CORE_URL";
        return Err(StartError::Core(why.to_owned()));
    };
    let (_, tls) = super::trust::upstreams(&config.upstream)?;
    let said = core::prove(&core.client, connector(tls), prepared).await;
    said.map_err(|error| StartError::Core(error.to_string()))
}

/// Connections to Core: in the clear to loopback, which its URL was checked
/// for, and else by TLS against the same authorities as every upstream. The
/// address rules are for what agents ask for, not for Core.
fn connector(tls: Upstreams) -> Connector {
    Arc::new(move |url: &CoreUrl| {
        let tls = tls.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((url.host(), url.port())).await?;
            stream.set_nodelay(true)?;
            let io: BoxedIo = match url.scheme() {
                Scheme::Http => Box::new(TokioIo::new(stream)),
                Scheme::Https => {
                    let stream = tls.connect(stream, url.host()).await;
                    Box::new(TokioIo::new(stream.map_err(io::Error::other)?))
                }
            };
            Ok(io)
        })
    })
}

/// A Core that is this sidecar would ask itself for ever.
///
/// # Errors
/// The URL of Core names one of `own`, the addresses that we listen on.
pub(super) fn is_another(mode: &PolicyMode, own: &[SocketAddr]) -> Result<(), StartError> {
    let PolicyMode::Core(core) = mode else {
        return Ok(());
    };
    let url = &core.client.url;
    let named: Vec<IpAddr> = match url.host() {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => host.parse().into_iter().collect(),
    };
    let is_ours = |at: &SocketAddr| {
        let hears = |ip: &IpAddr| at.ip() == *ip || (at.ip().is_unspecified() && ip.is_loopback());
        at.port() == url.port() && named.iter().any(hears)
    };
    if own.iter().any(is_ours) {
        return Err(StartError::Core(format!(
            "{url} is this sidecar itself; OPENBOX_CORE_URL (or core.url) must name OpenBox Core, and without it the embedded policy judges"
        )));
    }
    Ok(())
}
