//! Accepting agent connections and speaking HTTP/1.1 with them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};

use crate::metrics::LimitHit;
use crate::net::client_socket::ClientSocket;
use crate::net::listen::Bound;
use crate::process::{Drain, Workers};
use crate::protocols::captured::Databases;
use crate::session::Claim;

use super::exchange;
use super::framing::Limits;
use super::line::{Line, Place};
use super::sentinel::{Patience, Sentinel};
use super::{Doors, HttpProxy, Proxy, captured, socks};

/// How often idle upstream connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// Of so many captured connections, one is looked at whether it is our own.
const LOOKED_AT_EVERY: u64 = 16;

/// How much of an unread request is taken in before the connection is closed,
/// and how long that may last.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_FOR: Duration = Duration::from_secs(1);

impl HttpProxy {
    /// Serves until `drain` begins, then finishes what is under way. Returns
    /// when the last connection has ended.
    pub async fn run(self, doors: Doors, drain: Drain) {
        let Self { proxy, workers } = self;
        let places = Arc::new(Semaphore::new(proxy.settings.connections_max));
        let mut begun = drain.clone();
        let Doors {
            open,
            captured,
            databases,
        } = doors;
        let databases = Arc::new(databases);
        let accepting = async {
            let accept = |door, listener| accept(&proxy, &workers, door, listener, &places, &drain);
            let captured = |nth| accept(Door::Captured(databases.clone()), captured.get(nth));
            tokio::join!(accept(Door::Open, open.as_ref()), captured(0), captured(1));
        };
        let sweeping = async {
            let mut tick = time::interval(SWEEP_EVERY);
            loop {
                tick.tick().await;
                proxy.upstream.sweep(Instant::now());
            }
        };
        tokio::select! {
            () = begun.begun() => {}
            () = accepting => {}
            () = sweeping => {}
        }
        drop((open, captured));
        let all = u32::try_from(proxy.settings.connections_max).unwrap_or(u32::MAX);
        // Whoever drains us decides how long this may last.
        drop(places.acquire_many(all).await);
    }
}

/// How a client came in.
#[derive(Clone, Debug)]
enum Door {
    /// Knowing that this is a proxy.
    Open,
    /// Led by the kernel; these databases have relays of their own.
    Captured(Arc<Databases>),
}

async fn accept(
    proxy: &Arc<Proxy>,
    workers: &Workers,
    door: Door,
    listener: Option<&Bound>,
    places: &Arc<Semaphore>,
    drain: &Drain,
) {
    let Some(listener) = listener else {
        return;
    };
    loop {
        // The place first: what cannot be served waits in the backlog.
        let place = match places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                proxy.gate.metrics().limit_hit(LimitHit::Connections);
                match places.clone().acquire_owned().await {
                    Ok(place) => place,
                    Err(_) => return,
                }
            }
        };
        let (socket, _) = listener.accept().await;
        let Ok(socket) = socket.detach() else {
            // It ended before it began.
            continue;
        };
        let place = Place::take(proxy.gate.metrics(), place);
        let (proxy, drain, door) = (proxy.clone(), drain.clone(), door.clone());
        workers.spawn("http", async move {
            let Ok(socket) = ClientSocket::attach(socket) else {
                return;
            };
            let Some(mut socket) = not_for_a_database(&door, socket, &proxy).await else {
                return;
            };
            socket.identify(proxy.gate.registry().callers()).await;
            let watch = socket.watch();
            let line = Line::new(proxy, watch.clone(), place, drain.clone());
            let ended = match door {
                Door::Open => outer(socket, line, drain).await,
                Door::Captured(_) => Box::pin(captured::serve(line, socket)).await,
            };
            if ended == Ended::Closed {
                // Boxed: its buffer would be part of every connection.
                Box::pin(watch.linger(LINGER_BYTES, LINGER_FOR)).await;
            }
        });
    }
}

/// Gives a captured connection to the relay of its database, where it wanted to go to one.
async fn not_for_a_database(
    door: &Door,
    socket: ClientSocket,
    proxy: &Proxy,
) -> Option<ClientSocket> {
    match door {
        Door::Open => Some(socket),
        // Boxed: a name that is looked up would be part of every connection.
        Door::Captured(databases) => {
            let proceeds = async {
                if goes_in_circles(&socket, proxy).await {
                    return None;
                }
                databases.take(socket, proxy.gate.metrics()).await
            };
            Box::pin(proceeds).await
        }
    }
}

/// Whether a captured connection is one of our own. That takes a look at all connections, and one that goes in circles
/// makes many: it is enough to find one of them, and with it ends the whole row.
async fn goes_in_circles(socket: &ClientSocket, proxy: &Proxy) -> bool {
    let before = proxy.led.fetch_add(1, Ordering::Relaxed);
    let is_looked_at = before.checked_rem(LOOKED_AT_EVERY) == Some(LOOKED_AT_EVERY - 1);
    let found = is_looked_at && socket.is_our_own().await;
    if found {
        tracing::warn!(
            "a captured connection is the sidecar's own, and is closed: the rules that lead connections here must exempt the user that the sidecar runs as, as `openbox-sidecar init-net --uid` does"
        );
    }
    found
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its socket is closed.
    Closed,
    /// Its socket lives on in a tunnel.
    Upgraded,
}

/// The byte by which a client shows what it speaks; `None` if it says nothing.
async fn speaks_first(socket: &ClientSocket, line: &Line, drain: &mut Drain) -> Option<u8> {
    tokio::select! {
        biased;
        first = socket.peek() => first,
        () = drain.begun() => None,
        () = time::sleep(line.proxy.settings.idle_within) => None,
    }
}

async fn outer(socket: ClientSocket, line: Arc<Line>, mut drain: Drain) -> Ended {
    match speaks_first(&socket, &line, &mut drain).await {
        Some(socks::VERSION) => return Box::pin(socks::serve(line, socket)).await,
        Some(_) => {}
        None => return Ended::Closed,
    }
    let shared = line.shared.clone();
    let mut connection = std::pin::pin!(http(socket, Bytes::new(), line));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an agent connection ended early");
    }
    if shared.has_tunnel() {
        Ended::Upgraded
    } else {
        Ended::Closed
    }
}

/// Serves the inside of a tunnel until it ends, its run is halted, or we are. Boxed, since
/// what serves a tunnel is what opened it.
pub(super) fn connection<S>(
    stream: S,
    first: Bytes,
    line: Arc<Line>,
) -> Pin<Box<dyn Future<Output = ()> + Send>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(inner(stream, first, line))
}

async fn inner<S>(stream: S, first: Bytes, line: Arc<Line>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut drain = line.drain.clone();
    let mut connection = std::pin::pin!(http(stream, first, line.clone()));
    let over = async {
        tokio::select! {
            () = halted(&line) => {}
            () = drain.begun() => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over => {
            // What is under way gets its answer or its refusal, or ends; then the tunnel closes.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a tunnel ended early");
    }
}

/// Until the run is halted that a tunnel is attributed to when it opens.
pub(super) async fn halted(line: &Line) {
    let claim = Claim {
        proxy_user: line.user(),
        callers: line.watch.callers(),
        ..Claim::default()
    };
    let registry = line.proxy.gate.registry();
    match registry.attribute(&claim, crate::process::clock::now()) {
        Some(session) => drop(session.until_halted().await),
        None => std::future::pending().await,
    }
}

type Served<S, F> = http1::UpgradeableConnection<TokioIo<Sentinel<S>>, F>;

fn http<S>(
    stream: S,
    first: Bytes,
    line: Arc<Line>,
) -> Served<
    S,
    impl hyper::service::HttpService<
        hyper::body::Incoming,
        ResBody = super::outgoing::Outgoing,
        Error = std::convert::Infallible,
        Future: Send,
    >,
>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &line.proxy.settings;
    let limits = Limits {
        bytes_max: settings.head_bytes_max,
        fields_max: settings.head_fields_max,
    };
    let patience = Patience {
        head: settings.head_within,
        idle: settings.idle_within,
    };
    // The library's own bounds lie above ours, so that ours answer.
    let buffer = settings.head_bytes_max.saturating_add(16 * 1024);
    let fields = settings.head_fields_max.saturating_add(8);
    let sentinel = Sentinel::new(stream, first, limits, patience, line.shared.clone());
    http1::Builder::new()
        .preserve_header_case(true)
        .auto_date_header(false)
        .half_close(true)
        .max_buf_size(buffer)
        .max_headers(fields)
        .serve_connection(
            TokioIo::new(sentinel),
            service_fn(move |request| exchange::answer(line.clone(), request)),
        )
        .with_upgrades()
}
