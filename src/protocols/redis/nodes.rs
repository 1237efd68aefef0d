//! Where the nodes of a cluster, and what Sentinel names, are reached through
//! the sidecar: at the listener of the server that is configured for them, or,
//! where that is asked for, at one that is opened when a node is first named.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::net::listen::{self, Bound};
use crate::net::listen_at::At;

use super::reach::Server;

/// Most listeners that are opened for nodes; more than a cluster has masters
/// and replicas in practice.
const OPENED_MAX: usize = 256;

/// What becomes of nodes that no server is configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// Answers that name one are refused, and say so.
    Refuse,
    /// A listener is opened for each, on a free port of the same address.
    Open,
}

/// A listener that was opened, and what it is for.
pub(super) type Opened = (Bound, Server);

/// See the module.
#[derive(Debug)]
pub(super) struct Nodes {
    unlisted: Unlisted,
    known: Mutex<Known>,
    opened: mpsc::Sender<Opened>,
    to_serve: Mutex<Option<mpsc::Receiver<Opened>>>,
}

#[derive(Debug, Default)]
struct Known {
    places: HashMap<(Box<str>, u16), SocketAddr>,
    opened: usize,
}

impl Nodes {
    pub(super) fn new(unlisted: Unlisted) -> Self {
        let (opened, to_serve) = mpsc::channel(OPENED_MAX);
        Self {
            unlisted,
            known: Mutex::default(),
            opened,
            to_serve: Mutex::new(Some(to_serve)),
        }
    }

    /// `host` and `port` are reached at `listen`; the first to say so is right.
    /// Answers name no paths, so what has only one has no place.
    pub(super) fn learn(&self, host: &str, port: u16, listen: &At) {
        let Some(listen) = listen.address() else {
            return;
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host.to_ascii_lowercase();
        let loopback: &[&str] = match &*host {
            "localhost" => &["127.0.0.1", "::1"],
            _ => &[],
        };
        for host in [&*host].iter().chain(loopback) {
            known.places.entry(((*host).into(), port)).or_insert(listen);
        }
    }

    /// What is opened from now on; for the first who asks.
    pub(super) fn to_serve(&self) -> Option<mpsc::Receiver<Opened>> {
        let mut all = self.to_serve.lock().unwrap_or_else(PoisonError::into_inner);
        all.take()
    }

    fn place(&self, host: &str, port: u16, named_by: &Server) -> Option<SocketAddr> {
        let key = (host.to_ascii_lowercase().into(), port);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listen) = known.places.get(&key) {
            return Some(*listen);
        }
        if self.unlisted == Unlisted::Refuse || known.opened >= OPENED_MAX {
            return None;
        }
        let failed = |why: String| {
            tracing::warn!(host, port, "no listener for a node of Redis: {why}");
        };
        let beside = named_by.upstream().listen.address();
        let ip = beside.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |beside| beside.ip());
        let bound = listen::bind(SocketAddr::new(ip, 0)).map_err(|error| failed(error.to_string()));
        let bound = bound.ok()?;
        let listen = bound.address();
        let node = named_by.like(host, port, listen);
        let node = node.map_err(|error| failed(error.to_string())).ok()?;
        self.opened.try_send((bound, node)).ok()?;
        tracing::info!(host, port, %listen, "a node of Redis got a listener");
        known.places.insert(key, listen);
        known.opened = known.opened.saturating_add(1);
        Some(listen)
    }
}

/// What a connection needs to know to lead its client to other nodes.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) nodes: Arc<Nodes>,
    pub(super) server: Arc<Server>,
    /// The address its client came to.
    pub(super) at: Option<IpAddr>,
}

impl Route {
    /// Where the node is reached through the sidecar; no host means that of the
    /// server that says so.
    pub(super) fn place(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let host = match host {
            "" | "?" => &self.server.upstream().host,
            host => host,
        };
        let mut place = self.nodes.place(host, port, &self.server)?;
        if place.ip().is_unspecified() {
            let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
            place.set_ip(self.at.unwrap_or(here));
        }
        Some(place)
    }
}
