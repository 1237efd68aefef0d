//! SOCKS5 on the proxy's own port, known by its first byte (RFC 1928; user names
//! as in RFC 1929): what is connected to is a tunnel like one that CONNECT opens,
//! and is governed as one.
//!
//! Nobody has to say a name. Who does says what proxy credentials say: whose the
//! traffic is, with the agent's token as the password.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::client_socket::ClientSocket;
use crate::net::dial::DialError;

use super::authority::Target;
use super::captured::{self, Wanted};
use super::connect::{self, NotReached};
use super::line::Line;
use super::serve::Ended;
use super::settings::Leads;
use super::unserved::Came;
use super::upstream::UpstreamError;

/// The first byte of every message but those of the user name.
pub(super) const VERSION: u8 = 5;

/// The version of the exchange of a user name.
const NAME_VERSION: u8 = 1;
const NO_NAME: u8 = 0;
const BY_NAME: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reply(u8);

impl Reply {
    const SUCCEEDED: Self = Self(0);
    const FAILURE: Self = Self(1);
    const NOT_ALLOWED: Self = Self(2);
    const HOST_UNREACHABLE: Self = Self(4);
    const CONNECTION_REFUSED: Self = Self(5);
    const NO_SUCH_COMMAND: Self = Self(7);
    const NO_SUCH_ADDRESS: Self = Self(8);
}

/// Why a client is not served.
#[derive(Debug)]
enum Wrong {
    /// It went, or was too slow.
    Left(io::Error),
    /// It does not speak the protocol: what was found.
    Malformed(&'static str),
    /// Its request has this answer.
    Refused(Reply, &'static str),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Left(error)
    }
}

/// Serves a client whose first byte is [`VERSION`].
pub(super) async fn serve(line: Arc<Line>, mut socket: ClientSocket) -> Ended {
    let within = line.proxy.settings.head_within;
    let asked = tokio::time::timeout(within, asked(&line, &mut socket)).await;
    let wrong = match asked {
        Ok(Ok((target, user))) => return open(line, socket, target, user).await,
        Ok(Err(wrong)) => wrong,
        Err(_) => Wrong::Left(io::ErrorKind::TimedOut.into()),
    };
    match wrong {
        Wrong::Left(error) => tracing::debug!(%error, "a SOCKS client left before it asked"),
        Wrong::Malformed(found) => {
            tracing::info!("a SOCKS client is not served: {found}");
        }
        Wrong::Refused(reply, found) => {
            tracing::info!("a SOCKS client is not served: {found}");
            drop(socket.write_all(&answer(reply)).await);
        }
    }
    drop(socket.shutdown().await);
    Ended::Closed
}

/// Where the client wants to go, and whose it says it is.
async fn asked(
    line: &Line,
    socket: &mut ClientSocket,
) -> Result<(Target, Option<Box<str>>), Wrong> {
    let user = match method(socket).await? {
        NO_NAME => None,
        _ => Some(named(line, socket).await?),
    };
    Ok((target(socket).await?, user))
}

/// Agrees on whether the client says a name: whoever can, does.
async fn method(socket: &mut ClientSocket) -> Result<u8, Wrong> {
    if socket.read_u8().await? != VERSION {
        return Err(Wrong::Malformed("its first message is not of version 5"));
    }
    let offered = text(socket).await?;
    let method = match () {
        () if offered.contains(&BY_NAME) => BY_NAME,
        () if offered.contains(&NO_NAME) => NO_NAME,
        () => NO_METHOD,
    };
    socket.write_all(&[VERSION, method]).await?;
    match method {
        NO_METHOD => Err(Wrong::Malformed(
            "it offers neither `no authentication` nor `username/password`",
        )),
        method => Ok(method),
    }
}

/// The name that the client says; its password must be the agent's token.
async fn named(line: &Line, socket: &mut ClientSocket) -> Result<Box<str>, Wrong> {
    if socket.read_u8().await? != NAME_VERSION {
        return Err(Wrong::Malformed("its user name is not of version 1"));
    }
    let name = text(socket).await?;
    let token = text(socket).await?;
    let name = String::from_utf8(name)
        .ok()
        .filter(|_| line.is_token(&token));
    let status = u8::from(name.is_none());
    socket.write_all(&[NAME_VERSION, status]).await?;
    name.map(String::into_boxed_str).ok_or(Wrong::Malformed(
        "its credentials are not <context>:<agent token>; leave them out, or use the token in OPENBOX_SIDECAR_TOKEN",
    ))
}

async fn target(socket: &mut ClientSocket) -> Result<Target, Wrong> {
    let [version, command, _reserved, kind] = socket.read_u32().await?.to_be_bytes();
    if version != VERSION {
        return Err(Wrong::Malformed("its request is not of version 5"));
    }
    let host = match kind {
        1 => std::net::Ipv4Addr::from(socket.read_u32().await?).to_string(),
        3 => String::from_utf8(text(socket).await?)
            .map_err(|_| Wrong::Refused(Reply::FAILURE, "its host is not ASCII"))?,
        4 => format!("[{}]", std::net::Ipv6Addr::from(socket.read_u128().await?)),
        _ => {
            let found = "its kind of address is none of IPv4, IPv6 and a name";
            return Err(Wrong::Refused(Reply::NO_SUCH_ADDRESS, found));
        }
    };
    let port = socket.read_u16().await?;
    if command != CONNECT {
        let found = "it asks for BIND or UDP; only CONNECT is served";
        return Err(Wrong::Refused(Reply::NO_SUCH_COMMAND, found));
    }
    let unfit = Wrong::Refused(Reply::FAILURE, "its host or port cannot be one");
    match format!("{host}:{port}").parse::<Authority>() {
        // Replaced once the first bytes of the tunnel are known.
        Ok(authority) => Target::new("https", &authority).map_err(|_| unfit),
        Err(_) => Err(unfit),
    }
}

/// Up to 255 bytes, after a byte that says how many.
async fn text(socket: &mut ClientSocket) -> io::Result<Vec<u8>> {
    let mut text = vec![0; usize::from(socket.read_u8().await?)];
    socket.read_exact(&mut text).await?;
    Ok(text)
}

/// The address of the connection is nobody's business: it is all zeroes.
fn answer(reply: Reply) -> [u8; 10] {
    [VERSION, reply.0, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// Opens the tunnel, and serves what comes through it to its end.
async fn open(
    line: Arc<Line>,
    mut socket: ClientSocket,
    target: Target,
    user: Option<Box<str>>,
) -> Ended {
    match line.proxy.settings.leads(&target.host, target.port) {
        Leads::Refused => {
            drop(socket.write_all(&answer(Reply::NOT_ALLOWED)).await);
            drop(socket.shutdown().await);
            return Ended::Closed;
        }
        Leads::Read => {
            if socket.write_all(&answer(Reply::SUCCEEDED)).await.is_ok() {
                inside(line, socket, target, user).await;
            }
            return Ended::Upgraded;
        }
        Leads::Unread => {}
    }
    match connect::reach(&line, &target, user.as_deref()).await {
        Ok((permit, upstream)) => {
            let client = async move {
                socket.write_all(&answer(Reply::SUCCEEDED)).await?;
                Ok(socket)
            };
            connect::carry(&line, permit, client, (upstream, Some(&target.host))).await;
            Ended::Upgraded
        }
        Err(not) => {
            drop(socket.write_all(&answer(reply_to(&not))).await);
            drop(socket.shutdown().await);
            Ended::Closed
        }
    }
}

/// Serves what comes through. A client that looked the name up by itself says it once it is connected.
async fn inside(line: Arc<Line>, socket: ClientSocket, target: Target, user: Option<Box<str>>) {
    match target.host.parse::<IpAddr>() {
        Ok(ip) => {
            let wanted = Wanted {
                address: SocketAddr::new(ip, target.port),
                came: Came::Named,
                user,
            };
            captured::carried(line, socket, wanted).await;
        }
        Err(_) => connect::carried(line, socket, Bytes::new(), target, user).await,
    }
}

fn reply_to(not: &NotReached) -> Reply {
    match not {
        NotReached::Left => Reply::FAILURE,
        // What may help later is no rule.
        NotReached::Refused(refused) if refused.is_retryable() => Reply::FAILURE,
        NotReached::Refused(_) => Reply::NOT_ALLOWED,
        NotReached::Failed(
            _,
            UpstreamError::Dial(DialError::Refused { .. } | DialError::Unclear { .. }),
        ) => Reply::NOT_ALLOWED,
        NotReached::Failed(_, UpstreamError::Dial(DialError::Unreachable { source, .. }))
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            Reply::CONNECTION_REFUSED
        }
        NotReached::Failed(..) => Reply::HOST_UNREACHABLE,
    }
}
