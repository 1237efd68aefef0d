//! Connections that are for an address: those that the kernel led here (`init-net`), as whoever does not know
//! of a proxy, or ignores it, is governed all the same, and those whose client looked the name up by itself
//! before it asked for a tunnel (`socks5://`).
//!
//! Their destination is an address, and policy knows names. A name is taken where it cannot be a pretence:
//! that of a TLS hello, as nothing is sent but to an origin that proves the name by its certificate; that of
//! plain HTTP, where it resolves to the address. Everything else is judged, and asked for, by its address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use http::uri::Authority;
use http::{Request, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::captured::named_in_hello;
use crate::net::client_socket::ClientSocket;
use crate::net::dial::Source;

use super::authority::{Mismatch, Target};
use super::connect::{self, NotReached};
use super::line::Line;
use super::raw;
use super::rewind::Rewind;
use super::rewrite;
use super::serve::Ended;
use super::settings::Leads;
use super::unserved::{Came, Why, tell};

/// Room for what a client says first.
const FIRST_BYTES: usize = 4096;

/// Serves a client that wanted to go somewhere else, to its end.
pub(super) async fn serve(line: Arc<Line>, socket: ClientSocket) -> Ended {
    let address = match socket.wanted() {
        Ok(address) => address,
        Err(error) => {
            tracing::info!(
                "a client is not served: listen.transparent is for connections that the kernel leads there, as `openbox-sidecar init-net` has it do: {error}"
            );
            return Ended::Closed;
        }
    };
    line.shared.tunnel_follows();
    let line = match line.proxy.source {
        Source::Own => line,
        Source::Client => line.from_client(),
    };
    let wanted = Wanted {
        address,
        came: Came::Captured,
        user: None,
    };
    let by_address = wanted.target();
    let settings = &line.proxy.settings;
    // Of a port that is refused it is looked first whether it is a tunnel: HTTP in the clear is none.
    if settings.leads(&by_address.host, by_address.port) == Leads::Unread {
        pass(&line, socket, (by_address, None)).await;
    } else {
        carried(line, socket, wanted).await;
    }
    Ended::Upgraded
}

/// Where a client wanted to go that knows an address.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) address: SocketAddr,
    /// How it said so.
    pub(super) came: Came,
    /// Whose it says it is.
    pub(super) user: Option<Box<str>>,
}

impl Wanted {
    fn target(&self) -> Target {
        Target::of_address("https", self.address)
    }
}

/// Serves whatever the connection turns out to carry, by the name that it says where that is no pretence.
pub(super) async fn carried(line: Arc<Line>, mut socket: ClientSocket, wanted: Wanted) {
    let within = line.proxy.settings.first_byte_within;
    let mut first = BytesMut::with_capacity(FIRST_BYTES);
    let reading = async {
        if socket.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
        Ok::<_, std::io::Error>(first.first().copied())
    };
    match tokio::time::timeout(within, reading).await {
        Ok(Ok(Some(raw::HANDSHAKE))) => over_tls(line, socket, first, wanted).await,
        Ok(Ok(Some(byte))) if byte.is_ascii_alphabetic() => {
            let line = line.led_from(wanted.address, wanted.user);
            connect::plain(line, socket, first.freeze()).await;
        }
        Ok(Ok(Some(_))) => {
            unserved(&line, (&wanted.target(), wanted.came), &Why::Foreign);
        }
        Ok(Ok(None) | Err(_)) => {}
        Err(_) => {
            unserved(&line, (&wanted.target(), wanted.came), &Why::Silent);
        }
    }
}

async fn over_tls(line: Arc<Line>, mut socket: ClientSocket, mut first: BytesMut, wanted: Wanted) {
    let (by_address, came) = (wanted.target(), wanted.came);
    let within = line.proxy.settings.head_within;
    let naming = named_in_hello(&mut socket, &mut first);
    let named = match tokio::time::timeout(within, naming).await {
        Ok(Ok(named)) => named,
        Ok(Err(error)) => {
            unserved(&line, (&by_address, came), &Why::Tls(&error));
            return;
        }
        Err(_) => return,
    };
    let named = named.and_then(|host| {
        let authority: Authority = format!("{host}:{}", by_address.port).parse().ok()?;
        Target::new("https", &authority).ok()
    });
    let target = named.unwrap_or(by_address);
    let first = first.freeze();
    match line.proxy.settings.leads(&target.host, target.port) {
        Leads::Unread => pass(&line, Rewind::new(socket, first), (target, wanted.user)).await,
        Leads::Read => connect::carried(line, socket, first, target, wanted.user).await,
        Leads::Refused => {
            unserved(&line, (&target, came), &Why::Port);
        }
    }
}

fn unserved(line: &Line, (target, came): (&Target, Came), why: &Why<'_>) {
    tell(line, (&target.host, target.port), came, why);
}

/// Has the whole connection judged, and lets its content pass unread.
async fn pass<S>(line: &Line, mut client: S, (target, user): (Target, Option<Box<str>>))
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    match connect::reach(line, &target, user.as_deref()).await {
        Ok((permit, upstream)) => {
            // What it is called is what its hello says, where that was looked for.
            connect::carry(line, permit, async { Ok(client) }, (upstream, None)).await;
        }
        Err(not) => {
            say_why(&target, &not);
            drop(client.shutdown().await);
        }
    }
}

/// Nobody else can be told. What policy says is for the journal: in a log it would be read by
/// whom it is not for.
fn say_why(target: &Target, not: &NotReached) {
    let (host, port) = (&*target.host, target.port);
    match not {
        NotReached::Left => {
            tracing::debug!(
                host,
                port,
                "a captured connection is not carried: its client left"
            );
        }
        NotReached::Refused(refused) => {
            let (code, event) = (refused.refusal.code(), refused.event);
            tracing::info!(host, port, code, %event, "a captured connection is refused");
        }
        NotReached::Failed(event, error) => {
            tracing::info!(host, port, %event, %error, "a captured connection leads nowhere");
        }
    }
}

/// The destination of a request in the clear, whose client wanted to go to `address`. Where what it names is
/// not there, the request names the address alone from here on.
pub(super) async fn destination<B>(
    line: &Line,
    address: SocketAddr,
    request: &mut Request<B>,
) -> Result<Target, Mismatch> {
    if let Some(named) = Target::named(request, address.port())?
        && leads_to(line, &named, address.ip()).await
    {
        named.check_inner(request)?;
        return Ok(named);
    }
    request.headers_mut().remove(header::HOST);
    *request.uri_mut() = rewrite::path_alone(request.uri());
    Ok(Target::of_address("http", address))
}

async fn leads_to(line: &Line, named: &Target, ip: IpAddr) -> bool {
    if let Ok(named) = named.host.parse::<IpAddr>() {
        return named.to_canonical() == ip.to_canonical();
    }
    let dialer = line.proxy.upstream.dialer();
    match dialer.resolve(&named.host, named.port).await {
        Ok(checked) => {
            let mut all = checked.addresses().iter();
            all.any(|found| found.ip().to_canonical() == ip.to_canonical())
        }
        Err(_) => false,
    }
}
