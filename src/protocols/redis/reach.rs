//! Reaching a server: a connection to it, and TLS on it where its URL says so.
//! There is no other way to TLS: a connection begins with it or has none.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::database_tls::{Client, SetupError};
use crate::net::dial::{DialError, Dialer};
use crate::net::listen_at::At;
use crate::net::maybe_tls::MaybeTls;
use crate::net::stream::Stream;
use crate::net::tls::TlsError;
use crate::net::trust::Roots;

use super::{Refusals, Upstream};

/// What is spoken inside TLS, where both sides name it.
const ALPN: &[u8] = b"redis";

/// A configured server, and what shakes hands with it.
#[derive(Debug)]
pub struct Server {
    pub(super) upstream: Upstream,
    tls: Option<Client>,
    /// Trusted where the settings name nobody else.
    roots: Arc<Roots>,
    /// It is no server but a proxy that ends a connection on what it does not know.
    ends_on_unknown: AtomicBool,
    /// It has answered a command that does not exist, as servers do.
    answers_unknown: AtomicBool,
}

impl Server {
    /// `roots` are trusted where the settings name nobody else.
    ///
    /// # Errors
    ///
    /// When a file that the settings name cannot be used.
    pub fn new(upstream: Upstream, roots: &Roots) -> Result<Self, SetupError> {
        let tls = Client::new(&upstream.host, &upstream.tls, roots, ALPN)?;
        let roots = match tls {
            Some(_) => Arc::new(roots.clone()),
            None => Arc::default(),
        };
        Ok(Self {
            upstream,
            tls,
            roots,
            ends_on_unknown: AtomicBool::new(false),
            answers_unknown: AtomicBool::new(false),
        })
    }

    /// Another server that is connected to in the same way.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub(super) fn like(
        &self,
        host: &str,
        port: u16,
        listen: SocketAddr,
    ) -> Result<Self, SetupError> {
        let upstream = Upstream {
            listen: At::Tcp(listen),
            host: host.into(),
            port,
            tls: self.upstream.tls.clone(),
        };
        Self::new(upstream, &self.roots)
    }

    /// How commands for it are refused, which are `set` to be so.
    pub(super) fn refusals(&self, set: Refusals) -> Refusals {
        match self.ends_on_unknown.load(Ordering::Relaxed) {
            true => Refusals::Local,
            false => set,
        }
    }

    /// It ended a connection while it owed an answer to a command that it may
    /// not know. Connections from now on get their refusals from the sidecar.
    /// Where it had another reason, that costs `CLIENT UNBLOCK` of what is held; so
    /// it does not count once it has answered one.
    pub(super) fn ends_on_unknown(&self) {
        let answers = self.answers_unknown.load(Ordering::Relaxed);
        if !answers && !self.ends_on_unknown.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = %self.upstream.host,
                port = self.upstream.port,
                "what is behind --redis ended a connection when a refused command was replaced by one that does not \
                 exist: from now on the sidecar answers refused commands itself, as with `redis.refusals: local`"
            );
        }
    }

    /// It has answered a command that does not exist.
    pub(super) fn answers_unknown(&self) {
        if !self.answers_unknown.load(Ordering::Relaxed) {
            self.answers_unknown.store(true, Ordering::Relaxed);
        }
    }

    /// As it was configured.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

/// Connects to `server`; never in clear where its URL asks for TLS.
///
/// # Errors
///
/// When it cannot be reached, or does not prove what it should.
pub(super) async fn reach(dialer: &Dialer, server: &Server) -> Result<MaybeTls<Stream>, Unreached> {
    let Upstream { host, port, .. } = &server.upstream;
    if host.starts_with('/') {
        let socket = Stream::of_path(Path::new(&**host)).await;
        let wrong = |error| Unreached::Path(host.clone(), error);
        return socket.map(MaybeTls::Plain).map_err(wrong);
    }
    let socket = dialer.dial(host, *port).await.map_err(Unreached::Dial)?;
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection to Redis keeps Nagle's delay");
    }
    let socket = Stream::from(socket);
    let Some(tls) = &server.tls else {
        return Ok(MaybeTls::Plain(socket));
    };
    let shaken = tls.connect(socket).await.map_err(Unreached::Tls)?;
    Ok(MaybeTls::Tls(Box::new(shaken)))
}

/// Why a server was not reached.
#[derive(Debug)]
pub(super) enum Unreached {
    /// There is no connection.
    Dial(DialError),
    /// Nobody listens at this path, or it may not be used.
    Path(Box<str>, io::Error),
    /// There is one, and no TLS on it.
    Tls(TlsError),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Path(path, error) => write!(f, "{path}: {error}"),
            Self::Tls(error) => write!(
                f,
                "{error} (rediss://, ssl_ca_certs, ssl_certfile of --redis)"
            ),
        }
    }
}
