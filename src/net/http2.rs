//! HTTP/2 client connections, shared by requests to one place.
//!
//! A place is asked once what it speaks, whatever the number of requests that
//! wait for the answer; the connection that found out is used. Who speaks
//! HTTP/1.1 is remembered for a while.

mod body;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::hash::Hash;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;

use crate::process::spawn_named;

pub use body::LeasedBody;

/// Most requests at once on one connection, also where the peer allows more.
const STREAMS_MAX: usize = 64;

/// Most connections to one place; beyond them, requests wait for one another.
const CONNECTIONS_MAX: usize = 64;

/// Most places that are remembered.
const PLACES_MAX: usize = 4096;

/// Longest use of what was found out about a place.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// Bytes of one answer that may come before they are passed on: 10 MB/s where
/// the peer is 100 ms away.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same of all answers on one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// While a request is under way and nothing comes, a peer is asked so often whether it is there.
///
/// Servers of gRPC end a connection that is pinged more often than every 5 minutes while
/// they say nothing (gRFC A8), with all the calls on it.
const PING_EVERY: Duration = Duration::from_secs(330);

/// A peer has so long to answer that, also behind what an upload has waiting in between;
/// then the connection has ended.
const PONG_WITHIN: Duration = Duration::from_secs(60);

/// When, counted from its beginning, a connection is looked at for what the peer allows on
/// it. hyper tells no one that SETTINGS came; a request that is sent has them seen, too.
const LOOKS: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(50),
    Duration::from_millis(500),
];

/// Starts the tasks of HTTP/2 connections.
#[derive(Clone, Copy, Debug)]
pub struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(spawn_named("http2", future));
    }
}

/// How connections behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Largest header list of an answer, and of its trailers, bytes as HPACK
    /// counts them (RFC 9113 §6.5.2).
    pub head_bytes_max: u32,
    /// A connection without a request for longer is closed.
    pub idle_for_max: Duration,
    /// Most connections to one place without a request; one more is closed at once.
    pub idle_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            idle_for_max: Duration::from_secs(90),
            idle_max: 256,
        }
    }
}

/// What a new connection turned out to speak.
#[derive(Debug)]
pub enum Opened<One, Two> {
    /// HTTP/1.1, of which the pool knows nothing more.
    Http1(One),
    /// HTTP/2.
    Http2(Two),
}

/// How a place is reached.
#[derive(Debug)]
pub enum Reached<One, B> {
    /// Over HTTP/1.1: by the connection that found out, where one did.
    Http1(Option<One>),
    /// Over HTTP/2.
    Http2(Lease<B>),
}

/// Shared connections, by place.
pub struct Places<K, B, E> {
    options: Options,
    places: Mutex<HashMap<K, Arc<Place<B, E>>>>,
}

struct Place<B, E> {
    idle_max: usize,
    /// Taken by the one request that opens a connection.
    opening: tokio::sync::Mutex<()>,
    inside: Mutex<Inside<B, E>>,
}

struct Inside<B, E> {
    connections: Vec<Connection<B>>,
    /// When it was last seen to speak HTTP/1.1.
    http1_since: Option<Instant>,
    /// The last failure to open a connection, for those who waited for it.
    failed: Option<(Instant, Arc<E>)>,
}

struct Connection<B> {
    sender: SendRequest<B>,
    load: Arc<Load>,
    used: Instant,
}

#[derive(Debug)]
struct Load {
    requests: AtomicUsize,
    /// What the peer allows, as far as it is known.
    allowed: AtomicUsize,
    /// A request was not answered on it.
    doubted: AtomicBool,
}

impl Load {
    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        !self.is_doubted()
            && self.requests() < self.allowed.load(Ordering::Relaxed).min(STREAMS_MAX)
    }
}

/// A place for one request on a connection, until this is dropped.
pub struct Lease<B> {
    sender: SendRequest<B>,
    slot: Slot,
}

impl<B> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// What is said of a connection on which a request was not answered.
#[derive(Debug)]
pub struct Doubt(Arc<Load>);

impl Doubt {
    /// No request is sent over it from now on; those that are under way go on.
    pub fn raise(&self) {
        self.0.doubted.store(true, Ordering::Relaxed);
    }
}

/// One of the requests that count as under way.
struct Slot {
    load: Arc<Load>,
    place: Weak<dyn Told + Send + Sync>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.load).finish()
    }
}

impl Slot {
    fn take(load: &Arc<Load>, place: Weak<dyn Told + Send + Sync>) -> Self {
        load.requests.fetch_add(1, Ordering::Relaxed);
        let load = Arc::clone(load);
        Self { load, place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let before = self.load.requests.fetch_sub(1, Ordering::Relaxed);
        if before == 1
            && let Some(place) = self.place.upgrade()
        {
            place.fall_idle();
        }
    }
}

/// What a place is told by the requests to it.
trait Told {
    /// A connection has no request any more.
    fn fall_idle(&self);
    /// The peer wants to be asked over HTTP/1.1.
    fn turn_to_http1(&self);
}

impl<B, E> Told for Place<B, E> {
    /// Closes connections without a request that are too many: the last, as requests go
    /// to the first that has room.
    fn fall_idle(&self) {
        let mut inside = lock(&self.inside);
        let mut kept = 0_usize;
        let idle_max = self.idle_max;
        inside.connections.retain(|connection| {
            let is_idle = connection.load.requests() == 0;
            kept = kept.saturating_add(usize::from(is_idle));
            !is_idle || kept <= idle_max
        });
    }

    /// Remembers it, and sends no request over the connections there are; those that are under way go on.
    fn turn_to_http1(&self) {
        let mut inside = lock(&self.inside);
        inside.http1_since = Some(Instant::now());
        for connection in &inside.connections {
            connection.load.doubted.store(true, Ordering::Relaxed);
        }
    }
}

impl<K, B, E> fmt::Debug for Places<K, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<K, B, E> Places<K, B, E>
where
    K: Hash + Eq + Clone,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    E: Send + Sync + 'static,
{
    /// No place is known.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            places: Mutex::default(),
        }
    }

    /// Whether the place was seen to speak HTTP/1.1 only, lately.
    pub fn speaks_http1(&self, key: &K) -> bool {
        let place = lock(&self.places).get(key).cloned();
        place.is_some_and(|place| lock(&place.inside).speaks_http1())
    }

    /// A way to send a request to `key`: over a connection there is, or over
    /// one that `open` makes. Where others open one already, waits for theirs,
    /// and shares its failure.
    ///
    /// Cancel-safe: whoever waited goes on with opening.
    ///
    /// # Errors
    ///
    /// The failure of `open`.
    pub async fn reach<One, Io>(
        &self,
        key: &K,
        open: impl Future<Output = Result<Opened<One, Io>, E>>,
        broke: impl Fn(hyper::Error) -> E,
    ) -> Result<Reached<One, B>, Arc<E>>
    where
        Io: Read + Write + Unpin + Send + 'static,
    {
        let asked = Instant::now();
        let place = self.place(key);
        if let Some(reached) = place.known() {
            return Ok(reached);
        }
        let _turn = place.opening.lock().await;
        {
            if let Some(reached) = place.known() {
                return Ok(reached);
            }
            if let Some((at, error)) = &lock(&place.inside).failed
                && *at > asked
            {
                return Err(Arc::clone(error));
            }
        }
        let opened = async {
            match open.await? {
                Opened::Http1(one) => Ok(Opened::Http1(one)),
                Opened::Http2(io) => self.start(io).await.map(Opened::Http2).map_err(broke),
            }
        };
        let opened = opened.await;
        Ok(match place.note(opened)? {
            Opened::Http1(one) => Reached::Http1(Some(one)),
            Opened::Http2(lease) => Reached::Http2(lease),
        })
    }

    /// Closes what has been idle for too long at `now`, and forgets places of
    /// which nothing is known any more. Meant to be called every few seconds.
    pub fn sweep(&self, now: Instant) {
        lock(&self.places).retain(|_, place| {
            let mut inside = lock(&place.inside);
            let idle_for_max = self.options.idle_for_max;
            inside.connections.retain(|connection| {
                let idle_for = now.saturating_duration_since(connection.used);
                let in_use = connection.load.requests() > 0;
                let idles = idle_for <= idle_for_max && !connection.load.is_doubted();
                !connection.sender.is_closed() && (in_use || idles)
            });
            // Someone may be opening one.
            Arc::strong_count(place) > 1 || inside.is_known()
        });
    }

    fn place(&self, key: &K) -> Arc<Place<B, E>> {
        let mut places = lock(&self.places);
        if let Some(place) = places.get(key) {
            return Arc::clone(place);
        }
        if places.len() >= PLACES_MAX {
            places.retain(|_, place| {
                Arc::strong_count(place) > 1 || !lock(&place.inside).connections.is_empty()
            });
        }
        let place = Arc::new(Place {
            idle_max: self.options.idle_max,
            opening: tokio::sync::Mutex::new(()),
            inside: Mutex::new(Inside {
                connections: Vec::new(),
                http1_since: None,
                failed: None,
            }),
        });
        places.insert(key.clone(), Arc::clone(&place));
        place
    }

    /// Begins HTTP/2, and gives the connection a task of its own.
    async fn start<Io>(&self, io: Io) -> hyper::Result<Connection<B>>
    where
        Io: Read + Write + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new(Tasks)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(self.options.head_bytes_max)
            .handshake(io)
            .await?;
        let load = Arc::new(Load {
            requests: AtomicUsize::new(0),
            allowed: AtomicUsize::new(STREAMS_MAX),
            doubted: AtomicBool::new(false),
        });
        let told = Arc::clone(&load);
        drop(spawn_named("http2-upstream", async move {
            let mut connection = pin!(connection);
            let mut ended = pin!(poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                let allowed = connection.current_max_send_streams();
                told.allowed.store(allowed, Ordering::Relaxed);
                ended
            }));
            let mut result = None;
            for look in LOOKS {
                // As it is polled again, it looks again.
                result = tokio::time::timeout(look, ended.as_mut()).await.ok();
                if result.is_some() {
                    break;
                }
            }
            let result = match result {
                Some(result) => result,
                None => ended.await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "an upstream connection ended with an error");
            }
        }));
        Ok(Connection {
            sender,
            load,
            used: Instant::now(),
        })
    }
}

impl<B, E> Inside<B, E> {
    fn speaks_http1(&self) -> bool {
        self.http1_since
            .is_some_and(|since| since.elapsed() < KNOWN_FOR)
    }

    fn is_known(&self) -> bool {
        !self.connections.is_empty() || self.speaks_http1()
    }
}

impl<B: Send + 'static, E: Send + Sync + 'static> Place<B, E> {
    /// How to get there, if nothing has to be opened for it.
    fn known<One>(self: &Arc<Self>) -> Option<Reached<One, B>> {
        let mut inside = lock(&self.inside);
        // One that is doubted finishes what it has without being listed.
        inside
            .connections
            .retain(|connection| !connection.sender.is_closed() && !connection.load.is_doubted());
        let speaks_http1 = inside.speaks_http1();
        let full = inside.connections.len() >= CONNECTIONS_MAX;
        // The first that has room, so that the last fall idle.
        let free = inside.connections.iter_mut().find(|c| c.load.has_room());
        let chosen = match free {
            Some(free) => Some(free),
            None if full => {
                let connections = inside.connections.iter_mut();
                connections.min_by_key(|one| one.load.requests())
            }
            None => None,
        };
        match chosen {
            Some(connection) => Some(Reached::Http2(self.lease(connection))),
            None if speaks_http1 => Some(Reached::Http1(None)),
            None => None,
        }
    }

    fn note<One>(
        self: &Arc<Self>,
        opened: Result<Opened<One, Connection<B>>, E>,
    ) -> Result<Opened<One, Lease<B>>, Arc<E>> {
        let mut inside = lock(&self.inside);
        match opened {
            Ok(Opened::Http1(one)) => {
                inside.http1_since = Some(Instant::now());
                Ok(Opened::Http1(one))
            }
            Ok(Opened::Http2(mut connection)) => {
                inside.http1_since = None;
                let lease = self.lease(&mut connection);
                inside.connections.push(connection);
                Ok(Opened::Http2(lease))
            }
            Err(error) => {
                let error = Arc::new(error);
                inside.failed = Some((Instant::now(), Arc::clone(&error)));
                Err(error)
            }
        }
    }

    fn lease(self: &Arc<Self>, connection: &mut Connection<B>) -> Lease<B> {
        connection.used = Instant::now();
        let place: Weak<Self> = Arc::downgrade(self);
        Lease {
            sender: connection.sender.clone(),
            slot: Slot::take(&connection.load, place),
        }
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// What to say where no answer came in time.
    pub fn doubt(&self) -> Doubt {
        Doubt(Arc::clone(&self.slot.load))
    }

    /// Sends `request`, whose URI has scheme and authority, and waits for the
    /// head of the answer. Dropping the future, or the answer's body, resets the
    /// stream; other requests go on.
    ///
    /// # Errors
    ///
    /// When the stream or the connection broke before an answer.
    pub async fn send(
        mut self,
        request: Request<B>,
    ) -> Result<Response<LeasedBody>, Unanswered<B>> {
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|body| LeasedBody::new(body, self.slot))),
            Err(mut failed) => {
                let request = failed.take_message().map(Box::new);
                let error = failed.into_error();
                if is_reset_for(&error, h2::Reason::HTTP_1_1_REQUIRED)
                    && let Some(place) = self.slot.place.upgrade()
                {
                    place.turn_to_http1();
                }
                Err(Unanswered {
                    unprocessed: request.is_some() || is_unprocessed(&error),
                    request,
                    error,
                })
            }
        }
    }
}

/// Why there is no answer.
pub struct Unanswered<B> {
    /// The request, if none of it was sent.
    pub request: Option<Box<Request<B>>>,
    /// Whether the peer has done nothing about the request: it may be sent again.
    pub unprocessed: bool,
    /// What hyper says.
    pub error: hyper::Error,
}

impl<B> fmt::Debug for Unanswered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unanswered")
            .field("unprocessed", &self.unprocessed)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Whether the peer says that it has not looked at the request (RFC 9113 §8.7):
/// by refusing the stream, by wanting to be asked over HTTP/1.1 (§7), or by ending the connection before it.
fn is_unprocessed(error: &hyper::Error) -> bool {
    use h2::Reason;
    let refused = [Reason::REFUSED_STREAM, Reason::HTTP_1_1_REQUIRED];
    let before = cause(error).is_some_and(|cause| {
        cause.is_go_away() && cause.is_remote() && cause.reason() == Some(Reason::NO_ERROR)
    });
    before || refused.iter().any(|reason| is_reset_for(error, *reason))
}

/// Whether the peer has reset the stream for `reason`.
fn is_reset_for(error: &hyper::Error, reason: h2::Reason) -> bool {
    cause(error).is_some_and(|cause| {
        cause.is_reset() && cause.is_remote() && cause.reason() == Some(reason)
    })
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is held leaves a shorter list at worst.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
