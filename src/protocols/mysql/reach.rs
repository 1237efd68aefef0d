//! Reaching a server: a connection to it, and what shakes hands with it once its
//! greeting says that it can.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Logins in clear that have failed for want of TLS.
    in_vain: Arc<InVain>,
    /// It was said that it is connected to in clear.
    told_in_clear: Arc<AtomicBool>,
}

/// Most users of one server that are remembered to need TLS; others are refused in clear each time.
const USERS_MAX: usize = 1_024;
/// Longest name of them, bytes: the servers' own is 80 letters.
const USER_BYTES_MAX: usize = 320;

/// Who cannot log in where the server's leg is in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MissesTls {
    /// Anybody: the server says so.
    Anybody,
    /// Who logs in by this name: their password would cross the network in clear. They claim it,
    /// and must change nothing for others.
    User(Box<str>),
}

/// Logins that have failed since the server's leg was in clear.
#[derive(Debug, Default)]
struct InVain {
    all: AtomicBool,
    users: Mutex<HashSet<Box<str>>>,
}

impl InVain {
    fn has(&self, user: Option<&str>) -> bool {
        let users = || self.users.lock().unwrap_or_else(PoisonError::into_inner);
        self.all.load(Ordering::Relaxed) || user.is_some_and(|user| users().contains(user))
    }

    /// Whether nobody knew.
    fn note(&self, who: MissesTls) -> bool {
        match who {
            MissesTls::Anybody => !self.all.swap(true, Ordering::Relaxed),
            MissesTls::User(user) => {
                let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
                let has_place = users.len() < USERS_MAX && user.len() <= USER_BYTES_MAX;
                has_place && users.insert(user)
            }
        }
    }
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
            in_vain: Arc::default(),
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
    /// need legs that are alike. `user` logs in.
    pub(super) fn may_mirror(&self, flavour: Flavour, at: IpAddr, user: Option<&str>) -> bool {
        let at = at.to_canonical();
        self.upstream.unsaid == WhereUnsaid::LikeTheClient
            && flavour == Flavour::Mysql
            && (at.is_loopback() || address::is_private(at))
            && !self.in_vain.has(user)
    }

    /// It offers TLS `at` this address, and has none, as its client has none: nobody is to
    /// find that out from the network.
    pub(super) fn mirrored(&self, at: IpAddr) {
        if !at.is_loopback() && !self.told_in_clear.swap(true, Ordering::Relaxed) {
            let Upstream { host, port, .. } = &self.upstream;
            tracing::warn!(%host, port, "MySQL is connected to in clear over the network, as its client has no TLS and the URL says nothing of it: ssl-mode=PREFERRED has TLS, ssl-mode=VERIFY_IDENTITY proves the server, too");
        }
    }

    /// From now on it has TLS for `who`, where it offers that.
    pub(super) fn misses_tls(&self, who: MissesTls) {
        let is_open = self.upstream.unsaid == WhereUnsaid::LikeTheClient;
        let whose = match &who {
            MissesTls::Anybody => "all",
            MissesTls::User(_) => "one user",
        };
        if is_open && self.in_vain.note(who) {
            let Upstream { host, port, .. } = &self.upstream;
            tracing::info!(%host, port, "MySQL is connected to inside TLS from now on, for {whose}: a login in clear needs it");
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
            in_vain: Arc::default(),
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
            assert_eq!(
                open.may_mirror(flavour, at, None),
                expected,
                "{at} {flavour:?}"
            );
            let said = server(WhereUnsaid::Nothing);
            assert!(!said.may_mirror(flavour, at, None), "{at}");
        }
    }

    #[test]
    fn my_5_what_one_user_needs_changes_nothing_for_others() {
        let open = server(WhereUnsaid::LikeTheClient);
        let near = IpAddr::from([127, 0, 0, 1]);
        let may = |user: &str| open.may_mirror(Flavour::Mysql, near, Some(user));
        open.misses_tls(MissesTls::User("bob".into()));
        assert!(!may("bob") && may("eve"));
        // As many as are remembered.
        for number in 0..USERS_MAX {
            open.misses_tls(MissesTls::User(format!("user{number}").into()));
        }
        assert!(!may("bob") && !may("user7") && may("eve"));
        assert_eq!(open.in_vain.users.lock().unwrap().len(), USERS_MAX);
        open.misses_tls(MissesTls::Anybody);
        assert!(!may("eve"));
        // What is said does not change.
        let said = server(WhereUnsaid::Nothing);
        said.misses_tls(MissesTls::Anybody);
        assert!(!said.in_vain.has(None));
    }
}
