//! Reaching a server: a connection to it, and what shakes hands with it once its
//! greeting says that it can.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;

use crate::metrics::Unaccepted;
use crate::net::address;
use crate::net::database_tls::{Client, Mode, SetupError};
use crate::net::dial::{DialError, Dialer};
use crate::net::maybe_tls::MaybeTls;
use crate::net::tls::TlsError;
use crate::net::trust::Roots;

use super::capability::Flavour;
use super::{Upstream, WhereUnsaid};

/// A configured server, and what shakes hands with it.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) upstream: Upstream,
    tls: Option<Client>,
    /// A login in clear has failed for want of TLS.
    misses_tls: Arc<AtomicBool>,
    /// It was said that it is connected to in clear.
    told_in_clear: Arc<AtomicBool>,
}

impl Server {
    /// `roots` are trusted where the settings name nobody else.
    ///
    /// # Errors
    ///
    /// When a file that the settings name cannot be used.
    pub fn new(upstream: Upstream, roots: &Roots) -> Result<Self, SetupError> {
        let tls = Client::new(&upstream.host, &upstream.tls, roots, b"mysql")?;
        Ok(Self {
            upstream,
            tls,
            misses_tls: Arc::default(),
            told_in_clear: Arc::default(),
        })
    }

    /// As it was configured.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether inside TLS it has proven who it is.
    pub(super) fn proves_itself(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.mode() >= Mode::VerifyCa)
    }

    /// Whether a client in clear may have it in clear, too: nobody has said otherwise, and
    /// what is said does not leave this machine or a private network. Only a MySQL's methods
    /// need legs that are alike.
    pub(super) fn may_mirror(&self, flavour: Flavour, at: IpAddr) -> bool {
        let at = at.to_canonical();
        self.upstream.unsaid == WhereUnsaid::LikeTheClient
            && flavour == Flavour::Mysql
            && (at.is_loopback() || address::is_private(at))
            && !self.misses_tls.load(Ordering::Relaxed)
    }

    /// It offers TLS `at` this address, and has none, as its client has none: nobody is to
    /// find that out from the network.
    pub(super) fn mirrored(&self, at: IpAddr) {
        if !at.is_loopback() && !self.told_in_clear.swap(true, Ordering::Relaxed) {
            let Upstream { host, port, .. } = &self.upstream;
            tracing::warn!(%host, port, "MySQL is connected to in clear over the network, as its client has no TLS and the URL says nothing of it: ssl-mode=PREFERRED has TLS, ssl-mode=VERIFY_IDENTITY proves the server, too");
        }
    }

    /// From now on it has TLS, where it offers that.
    pub(super) fn misses_tls(&self) {
        let is_open = self.upstream.unsaid == WhereUnsaid::LikeTheClient;
        if is_open && !self.misses_tls.swap(true, Ordering::Relaxed) {
            let Upstream { host, port, .. } = &self.upstream;
            tracing::info!(%host, port, "MySQL is connected to inside TLS from now on: a login in clear needs it");
        }
    }

    /// Connects to it, in clear.
    ///
    /// # Errors
    ///
    /// When it cannot be reached.
    pub(super) async fn dial(&self, dialer: &Dialer) -> Result<TcpStream, Unreached> {
        let Upstream { host, port, .. } = &self.upstream;
        let socket = dialer.dial(host, *port).await.map_err(Unreached::Dial)?;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection to MySQL keeps Nagle's delay");
        }
        Ok(socket)
    }

    /// What shakes hands with it, where it `offers` TLS and its settings do not
    /// say to do without.
    ///
    /// # Errors
    ///
    /// Where it offers none, and its settings ask for it.
    pub(super) fn wants_tls(&self, offers: bool) -> Result<Option<&Client>, Unreached> {
        match &self.tls {
            Some(tls) if !offers && tls.mode() != Mode::Prefer => Err(Unreached::NoTls),
            Some(tls) if offers => Ok(Some(tls)),
            Some(_) | None => Ok(None),
        }
    }
}

/// Shakes hands.
///
/// # Errors
///
/// When the server does not prove what it should.
pub(super) async fn encrypted(
    tls: &Client,
    socket: TcpStream,
) -> Result<MaybeTls<TcpStream>, Unreached> {
    let shaken = tls.connect(socket).await.map_err(Unreached::Tls)?;
    Ok(MaybeTls::Tls(Box::new(shaken)))
}

/// Why a server was not reached.
#[derive(Debug)]
pub(super) enum Unreached {
    /// There is no connection.
    Dial(DialError),
    /// There is one, and no TLS on it.
    Tls(TlsError),
    /// It has none.
    NoTls,
    /// It ended the connection, or it broke.
    Lost,
    /// It says something else than a server of MySQL does.
    Foreign(String),
}

impl Unreached {
    /// As it is counted.
    pub(super) fn cause(&self) -> Unaccepted {
        match self {
            Self::Dial(_) | Self::Lost => Unaccepted::UpstreamDown,
            Self::Tls(_) | Self::NoTls => Unaccepted::UpstreamTls,
            Self::Foreign(_) => Unaccepted::Foreign,
        }
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "{error} (ssl-mode, ssl-ca, ssl-cert of --mysql)"),
            Self::NoTls => {
                f.write_str("the server has no TLS, and ssl-mode of --mysql asks for it")
            }
            Self::Lost => f.write_str("the server ended the connection before it said anything"),
            Self::Foreign(why) => write!(f, "the server does not speak MySQL's protocol: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::database_tls;
    use crate::net::listen_at::At;

    fn server(unsaid: WhereUnsaid) -> Server {
        let upstream = Upstream {
            listen: At::Tcp(([127, 0, 0, 1], 1).into()),
            host: "db".into(),
            port: 3306,
            tls: database_tls::Settings::default(),
            unsaid,
        };
        Server {
            upstream,
            tls: None,
            misses_tls: Arc::default(),
            told_in_clear: Arc::default(),
        }
    }

    #[test]
    fn my_5_only_a_mysql_that_is_near_or_private_may_be_in_clear_for_a_client_in_clear() {
        let open = server(WhereUnsaid::LikeTheClient);
        for (at, flavour, expected) in [
            ("127.0.0.1", Flavour::Mysql, true),
            ("::1", Flavour::Mysql, true),
            ("10.1.2.3", Flavour::Mysql, true),
            ("::ffff:10.1.2.3", Flavour::Mysql, true),
            ("fd00::1", Flavour::Mysql, true),
            ("192.0.2.1", Flavour::Mysql, false),
            ("2001:db8::1", Flavour::Mysql, false),
            ("10.1.2.3", Flavour::Mariadb, false),
        ] {
            let at: IpAddr = at.parse().unwrap();
            assert_eq!(open.may_mirror(flavour, at), expected, "{at} {flavour:?}");
            let said = server(WhereUnsaid::Nothing);
            assert!(!said.may_mirror(flavour, at), "{at}");
        }
        let near = IpAddr::from([127, 0, 0, 1]);
        open.misses_tls();
        assert!(!open.may_mirror(Flavour::Mysql, near));
        // What is said does not change.
        let said = server(WhereUnsaid::Nothing);
        said.misses_tls();
        assert!(!said.misses_tls.load(Ordering::Relaxed));
    }
}
