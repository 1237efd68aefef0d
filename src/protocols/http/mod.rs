//! The HTTP forward proxy: absolute-form requests and CONNECT on one port,
//! HTTP/1.1 and, inside tunnels, HTTP/2 on both sides.
//!
//! A request passes through these files in this order: [`serve`] accepts,
//! [`sentinel`] reads its framing (or [`multiplexed`] its streams), [`exchange`] pins ([`authority`]), describes
//! ([`describe`]) and admits it, [`credentials`] are added, [`upstream`] sends it, [`outgoing`] carries the
//! answer ([`events`] where its events are judged); [`connect`] opens tunnels, [`upgrade`] relays WebSocket
//! ([`websocket`] where its messages are judged), [`refuse`] says no; [`socks`] opens tunnels for who speaks SOCKS5.
//! [`canary`] is answered here; [`unserved`] tells of connections that become no request.

mod answer_body;
mod authority;
mod body;
mod budget;
pub mod canary;
mod captured;
mod chunks;
mod connect;
pub mod credentials;
mod decode;
mod describe;
mod events;
mod exchange;
mod expect;
mod failed;
mod fields;
mod framing;
mod grpc;
mod halt;
mod line;
mod mask;
mod mcp;
mod multiplexed;
mod outgoing;
mod pace;
mod places;
mod preview;
mod raw;
mod refuse;
mod replace;
mod request_body;
mod rewind;
mod rewrite;
mod routes;
mod seen;
mod sentinel;
mod serve;
pub mod settings;
mod silence;
mod socks;
mod spill;
mod unseen;
mod unserved;
mod upgrade;
mod upstream;
mod websocket;
mod withhold;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::gate::Gate;
use crate::metrics::LimitHit;
use crate::net::dial::{Dialer, Source};
use crate::net::listen::Bound;
use crate::net::mint::Mint;
use crate::net::tls::Upstreams;
use crate::process::Workers;
use crate::protocols::captured::Databases;
use crate::redact::Secret;

use budget::Budget;
use credentials::Credentials;

pub use places::Place;
pub use preview::{Asked, Judged, Preview, preview, tool_called};
pub use routes::{Route, Treatment};
pub use settings::{Completed, Leads, OverCap, Settings};

/// What the proxy is built from.
#[derive(Debug)]
pub struct Parts {
    /// See [`Settings`].
    pub settings: Settings,
    /// Who decides.
    pub gate: Gate,
    /// Who connects, under the address rules.
    pub dialer: Dialer,
    /// Whose address captured connections go on from.
    pub source: Source,
    /// Who verifies origins.
    pub tls: Upstreams,
    /// Who makes certificates for intercepted hosts.
    pub mint: Arc<Mint>,
    /// Who serves connections.
    pub workers: Arc<Workers>,
    /// The token that proxy credentials must carry, where there are any.
    pub agent_token: Option<Secret>,
    /// Where bodies are spilled, to files without names.
    pub spill_folder: PathBuf,
    /// What whoever asks for the canary is told.
    pub told: canary::Told,
}

/// The HTTP proxy, ready to run.
#[derive(Debug)]
pub struct HttpProxy {
    proxy: Arc<Proxy>,
    workers: Arc<Workers>,
}

/// Where agents come in.
#[derive(Debug)]
pub struct Doors {
    /// Whoever knows that this is a proxy.
    pub open: Option<Bound>,
    /// Whoever does not: the kernel leads them here.
    pub captured: Vec<Bound>,
    /// Where those go that wanted to go to a database.
    pub databases: Databases,
}

impl Doors {
    /// Whether nobody comes in.
    pub fn is_empty(&self) -> bool {
        self.open.is_none() && self.captured.is_empty()
    }
}

#[derive(Debug)]
struct Proxy {
    settings: Settings,
    gate: Gate,
    upstream: upstream::Upstream,
    source: Source,
    led: AtomicU64,
    mint: Arc<Mint>,
    agent_token: Option<Secret>,
    /// Halves of the room for bodies. What a request takes, it takes until it is answered: were that its answer's too,
    /// requests could wait for one another.
    requests: Budget,
    answers: Arc<Budget>,
    spills: Budget,
    spill_folder: PathBuf,
    credentials: Credentials,
    canary: canary::Canary,
    unserved: unserved::Unserved,
}

impl Proxy {
    /// Bytes of bodies in memory and in files.
    fn bodies_held(&self) -> (usize, usize) {
        let memory = self.requests.taken().saturating_add(self.answers.taken());
        (memory, self.spills.taken())
    }
}

impl HttpProxy {
    /// A proxy that has no listener yet; see [`HttpProxy::run`].
    pub fn new(parts: Parts) -> Self {
        let settings = parts.settings;
        let upstream = upstream::Upstream::new(
            parts.dialer,
            parts.tls,
            settings.idle_upstreams_max,
            parts.workers.count(),
        );
        let half = settings.bodies_bytes_max.div_ceil(2);
        let budget = |bytes_max, limit| Budget::new(bytes_max, limit, parts.gate.metrics().clone());
        let proxy = Proxy {
            requests: budget(half, LimitHit::Bodies),
            answers: Arc::new(budget(half, LimitHit::Bodies)),
            spills: budget(settings.spill_bytes_max, LimitHit::Spills),
            spill_folder: parts.spill_folder,
            credentials: Credentials::new(&settings.credentials),
            canary: canary::Canary::new(&parts.told),
            unserved: unserved::Unserved::default(),
            upstream,
            source: parts.source,
            led: AtomicU64::new(0),
            settings,
            gate: parts.gate,
            mint: parts.mint,
            agent_token: parts.agent_token,
        };
        let proxy = Arc::new(proxy);
        let held = Arc::downgrade(&proxy);
        let metrics = proxy.gate.metrics();
        metrics.bodies(move || held.upgrade().map_or((0, 0), |proxy| proxy.bodies_held()));
        Self {
            proxy,
            workers: parts.workers,
        }
    }
}
