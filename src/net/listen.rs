//! Listening sockets: bound at once so that the address is known and reserved, accepting for as long as the process lives.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use crate::net::client_socket::ClientSocket;
use crate::net::transparent;

/// Connections the kernel may hold for us before they are accepted.
pub(super) const BACKLOG: i32 = 4096;

/// Silence on a connection after which the kernel asks whether the peer still exists.
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// First wait after an accept that failed for want of resources; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(5);

/// Longest wait between two accepts while resources are short.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A socket that is bound and listening.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Binds and listens; port 0 takes a free one, which [`Bound::address`] then names.
///
/// # Errors
///
/// When the address is in use, not of this machine, or not ours to take.
pub fn bind(address: SocketAddr) -> Result<Bound, BindError> {
    bind_for(address, Capture::Redirect)
}

/// How the kernel leads connections to a listener that they were not made to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Capture {
    /// By changing their destination (REDIRECT), which its table of connections remembers.
    #[default]
    Redirect,
    /// By delivering them as they are (TPROXY): the listener may have any address.
    Tproxy,
}

fn bind_for(address: SocketAddr, capture: Capture) -> Result<Bound, BindError> {
    let failed = |source| BindError { address, source };
    let listener = listening_socket(address, capture).map_err(failed)?;
    let listener = TcpListener::from_std(listener.into()).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}

/// Binds and listens at both loopback addresses, at the port of `address`: the kernel leads each family to its
/// own, as `capture` says. Where the machine does not have the other one, at `address` alone.
///
/// # Errors
///
/// As [`bind`], for either; for TPROXY, where the process has neither `CAP_NET_ADMIN` nor `CAP_NET_RAW`.
pub fn bind_loopbacks(address: SocketAddr, capture: Capture) -> Result<Vec<Bound>, BindError> {
    let first = bind_for(address, capture)?;
    let other: IpAddr = match address {
        SocketAddr::V4(_) => Ipv6Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv4Addr::LOCALHOST.into(),
    };
    match bind_for(SocketAddr::new(other, first.address.port()), capture) {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.is_unknown_here() => Ok(vec![first]),
        Err(error) => Err(error),
    }
}

fn listening_socket(address: SocketAddr, capture: Capture) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit both options: set here once, they cost no system call per connection.
    socket.set_tcp_nodelay(true)?;

    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    match capture {
        Capture::Redirect => {}
        // Before anything can be delivered; accepted sockets inherit it.
        Capture::Tproxy => transparent::allow(&SockRef::from(&socket), address.ip())?,
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

impl Bound {
    /// The address that clients connect to, with the port the system chose where none was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Failures do not end the listener: a client that gave up is skipped,
    /// and while descriptors or memory are short it waits, then tries again.
    ///
    /// Cancel-safe: no connection is lost.
    pub async fn accept(&self) -> (ClientSocket, SocketAddr) {
        let mut patience = Patience::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (ClientSocket::new(stream), peer),
                Err(error) => patience.after(&error, &self.address).await,
            }
        }
    }
}

/// Waits between two tries to accept a connection, the longer the more have failed.
#[derive(Debug)]
pub(super) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Patience {
    /// Waits as `error` asks for; `at` is what is listened on.
    pub(super) async fn after(&mut self, error: &io::Error, at: &(dyn fmt::Display + Sync)) {
        if is_of_one_connection(error) {
            tracing::debug!(%at, %error, "a client left before it was accepted");
            tokio::task::yield_now().await;
            return;
        }
        tracing::warn!(
            %at, %error, wait_ms = self.0.as_millis(),
            "cannot accept connections for now; raise the limit of open files if this stays"
        );
        tokio::time::sleep(self.0).await;
        self.0 = self.0.saturating_mul(2).min(BACKOFF_MAX);
    }
}

/// Whether the error concerns the connection that was being accepted and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::TimedOut
    )
}

/// An address that could not be listened on.
#[derive(Debug)]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// Whether this machine has no such address, or no such family.
    fn is_unknown_here(&self) -> bool {
        // EAFNOSUPPORT, which has no kind of its own.
        const NO_SUCH_FAMILY: i32 = 97;
        self.source.kind() == ErrorKind::AddrNotAvailable
            || self.source.raw_os_error() == Some(NO_SUCH_FAMILY)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, ip, port) = (self.address, self.address.ip(), self.address.port());
        let kind = self.source.kind();
        write!(f, "cannot listen on {address}: ")?;
        if kind == ErrorKind::AddrInUse {
            write!(
                f,
                "another program (perhaps another sidecar) has port {port}; \
                 stop it, choose another port, or port 0 for a free one"
            )
        } else if kind == ErrorKind::AddrNotAvailable {
            write!(
                f,
                "{ip} is not an address of this machine; 127.0.0.1 always is"
            )
        } else if kind == ErrorKind::PermissionDenied {
            write!(
                f,
                "port {port} needs a privilege this process does not have; choose one above 1023"
            )
        } else {
            write!(f, "{}", self.source)
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::net::stream::Detached;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test]
    async fn the_bound_address_is_the_one_clients_reach() {
        let bound = bind(any()).unwrap();
        assert_ne!(bound.address().port(), 0);
        let (client, (_, peer)) = tokio::join!(TcpStream::connect(bound.address()), bound.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), peer);
    }

    #[tokio::test]
    async fn accepted_sockets_never_wait_for_more_to_send() {
        let bound = bind(any()).unwrap();
        let (_client, (socket, _)) =
            tokio::join!(TcpStream::connect(bound.address()), bound.accept());
        let Ok(Detached::Tcp(socket)) = socket.detach() else {
            panic!("it is of TCP");
        };
        assert!(socket.nodelay().unwrap(), "TCP_NODELAY is inherited");
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap(), "SO_KEEPALIVE is inherited");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_what_to_do() {
        let first = bind(any()).unwrap();
        let error = bind(first.address()).unwrap_err().to_string();
        assert!(error.contains(&first.address().to_string()), "{error}");
        assert!(error.contains("another program"), "{error}");
    }

    #[tokio::test]
    async fn a_foreign_address_is_told_from_a_taken_one() {
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err();
        assert!(error.to_string().contains("not an address of this machine"));
    }

    #[test]
    fn only_errors_of_one_connection_are_retried_at_once() {
        let rows = [
            // errno                     at once
            (103 /* ECONNABORTED */, true),
            (104 /* ECONNRESET */, true),
            (4 /* EINTR */, true),
            (24 /* EMFILE */, false),
            (23 /* ENFILE */, false),
            (12 /* ENOMEM */, false),
            (105 /* ENOBUFS */, false),
        ];
        for (errno, at_once) in rows {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_of_one_connection(&error), at_once, "{error}");
        }
    }
}
