//! Reaching a server: a connection to it, and TLS on it as its settings ask
//! for it. Independent of how the agent reached us.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::metrics::Unaccepted;
use crate::net::database_tls::{Client, Mode, Negotiation, SetupError};
use crate::net::dial::{DialError, Dialer};
use crate::net::maybe_tls::MaybeTls;
use crate::net::stream::Stream;
use crate::net::tls::TlsError;
use crate::net::trust::Roots;

use super::{ALPN, Upstream, startup};

/// Longest wait for the one byte that answers a request for TLS.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A configured server, and what shakes hands with it.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) upstream: Upstream,
    tls: Option<Client>,
}

impl Server {
    /// `roots` are trusted where the settings name nobody else.
    ///
    /// # Errors
    ///
    /// When a file that the settings name cannot be used.
    pub fn new(upstream: Upstream, roots: &Roots) -> Result<Self, SetupError> {
        let tls = if socket_path(&upstream.host, upstream.port).is_some() {
            None
        } else {
            Client::new(&upstream.host, &upstream.tls, roots, ALPN)?
        };
        Ok(Self { upstream, tls })
    }

    /// As it was configured.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }
}

/// A connection to a server, on which nothing was said but for TLS.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) socket: MaybeTls<Stream>,
    pub(super) way: Way,
}

impl Reached {
    /// Whether others may read what is sent on it.
    pub(super) fn is_exposed(&self) -> bool {
        let leaves = match &self.way.address {
            Address::Tcp(address) => !address.ip().is_loopback(),
            Address::Unix(_) => false,
        };
        leaves && !self.socket.is_tls()
    }
}

/// The way a session took, for a cancel request to take it, too: the same
/// address in the same mode.
#[derive(Clone, Debug)]
pub(super) struct Way {
    address: Address,
    tls: Option<Client>,
}

#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Way {
    /// Goes it again.
    pub(super) async fn again(&self) -> io::Result<MaybeTls<Stream>> {
        let socket = match &self.address {
            Address::Tcp(address) => Stream::from(TcpStream::connect(address).await?),
            Address::Unix(path) => Stream::of_path(path).await?,
        };
        let Some(tls) = &self.tls else {
            return Ok(MaybeTls::Plain(socket));
        };
        // What was encrypted before is so again, or is not said.
        match encrypted(socket, tls).await {
            Ok(socket) => Ok(socket),
            Err(wrong) => Err(io::Error::other(wrong.to_string())),
        }
    }
}

/// Connects to `server` and sees to TLS.
///
/// # Errors
///
/// When it cannot be reached, or not as its `sslmode` asks; never in clear
/// where that asks for TLS.
pub(super) async fn reach(dialer: &Dialer, server: &Server) -> Result<Reached, Unreached> {
    let Upstream { host, port, .. } = &server.upstream;
    if let Some(path) = socket_path(host, *port) {
        return local(path).await;
    }
    let socket = dialer.dial(host, *port).await.map_err(Unreached::Dial)?;
    let address = socket.peer_addr().map_err(|source| Unreached::Lost {
        place: place(&server.upstream),
        source,
    })?;
    let address = Address::Tcp(address);
    let socket = Stream::from(socket);
    let in_clear = |socket| Reached {
        socket: MaybeTls::Plain(socket),
        way: Way {
            address: address.clone(),
            tls: None,
        },
    };
    let Some(tls) = &server.tls else {
        return Ok(in_clear(socket));
    };
    match encrypted(socket, tls).await {
        Ok(socket) => {
            let tls = Some(tls.clone());
            let way = Way { address, tls };
            Ok(Reached { socket, way })
        }
        // As clients do with `prefer`: what was tried first is past repair.
        Err(NoTls::Refused(socket)) if tls.mode() == Mode::Prefer => Ok(in_clear(socket)),
        Err(NoTls::Failed | NoTls::Tls(_)) if tls.mode() == Mode::Prefer => {
            let again = dialer.dial(host, *port).await.map_err(Unreached::Dial)?;
            Ok(in_clear(again.into()))
        }
        Err(why) => Err(Unreached::NoTls {
            place: place(&server.upstream),
            mode: tls.mode(),
            why,
        }),
    }
}

/// The socket of the server that listens for `port` in folder `host`, where that
/// is one: hosts have no slash in front.
pub(super) fn socket_path(host: &str, port: u16) -> Option<PathBuf> {
    let folder = host.starts_with('/').then_some(host)?;
    Some(PathBuf::from(folder).join(format!(".s.PGSQL.{port}")))
}

/// Connects to a server on this machine. There is no TLS: nobody is in between.
async fn local(path: PathBuf) -> Result<Reached, Unreached> {
    let connected = tokio::time::timeout(ANSWER_WITHIN, Stream::of_path(&path)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let socket = connected.map_err(|source| Unreached::Socket {
        path: path.clone(),
        source,
    })?;
    Ok(Reached {
        socket: MaybeTls::Plain(socket),
        way: Way {
            address: Address::Unix(path),
            tls: None,
        },
    })
}

fn place(upstream: &Upstream) -> String {
    format!("{}:{}", upstream.host, upstream.port)
}

async fn encrypted(mut socket: Stream, tls: &Client) -> Result<MaybeTls<Stream>, NoTls> {
    if tls.negotiation() == Negotiation::Asked {
        match tokio::time::timeout(ANSWER_WITHIN, asked(&mut socket)).await {
            Ok(Ok(b'S')) => {}
            Ok(Ok(b'N')) => return Err(NoTls::Refused(socket)),
            // An error message: of somebody who has proved nothing, so that
            // nobody is shown it.
            Ok(Ok(b'E')) => return Err(NoTls::Failed),
            Ok(Ok(other)) => return Err(NoTls::Foreign(other)),
            Ok(Err(source)) => return Err(NoTls::Io(source)),
            Err(_) => return Err(NoTls::Io(io::ErrorKind::TimedOut.into())),
        }
    }
    // Nothing has been read beyond the one byte: what follows it is TLS, or
    // the handshake fails.
    match tls.connect(socket).await {
        Ok(stream) => Ok(MaybeTls::Tls(Box::new(stream))),
        Err(error) => Err(NoTls::Tls(error)),
    }
}

async fn asked(socket: &mut Stream) -> io::Result<u8> {
    socket.write_all(&startup::ssl_request()).await?;
    socket.read_u8().await
}

/// Why there is no TLS.
#[derive(Debug)]
pub(super) enum NoTls {
    /// The server has none; this connection is still good without.
    Refused(Stream),
    /// The server answered with an error.
    Failed,
    /// The answer is none of this protocol.
    Foreign(u8),
    /// There was no answer.
    Io(io::Error),
    /// The handshake failed.
    Tls(TlsError),
}

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(_) => f.write_str("the server has no TLS"),
            Self::Failed => f.write_str("the server answered the request for TLS with an error"),
            Self::Foreign(byte) => write!(
                f,
                "the server answered the request for TLS with {:?}: it does not speak PostgreSQL's protocol",
                char::from(*byte)
            ),
            Self::Io(error) => write!(f, "the server did not answer the request for TLS: {error}"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

/// Why a server was not reached.
#[derive(Debug)]
pub(super) enum Unreached {
    /// There is no connection.
    Dial(DialError),
    /// Nobody listens at a path, or not for us.
    Socket {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended at once.
    Lost {
        /// Host and port.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is one, and not as it was asked for.
    NoTls {
        /// Host and port.
        place: String,
        /// What was asked for.
        mode: Mode,
        /// What is wrong.
        why: NoTls,
    },
}

impl Unreached {
    /// Whose fault it is.
    pub(super) fn cause(&self) -> Unaccepted {
        match self {
            Self::Dial(_) | Self::Socket { .. } | Self::Lost { .. } => Unaccepted::UpstreamDown,
            Self::NoTls {
                why: NoTls::Foreign(_),
                ..
            } => Unaccepted::Foreign,
            Self::NoTls { .. } => Unaccepted::UpstreamTls,
        }
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Socket { path, source } => write!(
                f,
                "cannot connect to {}: {source}; does the server listen there, and may the sidecar's user open it?",
                path.display()
            ),
            Self::Lost { place, source } => write!(f, "the connection to {place} broke: {source}"),
            Self::NoTls { place, mode, why } => write!(
                f,
                "no TLS with {place}: {why}; the sidecar's sslmode={} for this server asks for it (sslmode, sslrootcert, sslcert and sslkey of --pg)",
                mode.word()
            ),
        }
    }
}
