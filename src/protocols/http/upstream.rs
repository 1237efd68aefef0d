//! Origins: pooled connections, and the only way to send anything to one.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::gate::Cleared;
use crate::net::dial::{Asker, DialError, Dialer};
use crate::net::http1::{ClientConnection, Kept, Options, Pool, PoolSettings};
use crate::net::http2::{self, Lease, Opened, Places, Reached};
use crate::net::maybe_tls::MaybeTls;
use crate::net::tls::{Speaks, TlsError, Upstreams};
use crate::process::{spawn_named, workers};

use super::answer_body::AnswerBody;
use super::authority::Target;
use super::expect::Told;
use super::request_body::{Progress, RequestBody};
use super::rewrite;
use super::silence::{Silence, TOO_LONG};

/// How long a connection was idle whose origin may just have given up waiting: none is known to wait
/// for less. Below it nothing is copied, which a request over a busy connection would pay for.
const RESTED: Duration = Duration::from_millis(500);

/// How often a request is sent again that an origin of HTTP/2 has not looked at.
const RESENT_MAX: usize = 3;

/// The connection to an origin that no other client may use.
pub(super) type Own = Kept<Destination, RequestBody>;

/// What connections are known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    /// Where they lead.
    target: Target,
    /// For whom they were made.
    asker: Asker,
    /// Which of the identities that we have had there made them.
    edition: u64,
}

/// Connections to origins, pooled by destination: what a request may do at an origin, it
/// says itself. Where an origin knows a connection's requests by the connection (NTLM, Negotiate)
/// it is the client's [`Own`], and never pooled.
pub(super) struct Upstream {
    /// One for each worker: a connection belongs to the thread that opened it.
    workers: Vec<Worker>,
    dialer: Dialer,
    tls: Upstreams,
    options: Options,
}

struct Worker {
    pool: Arc<Pool<Destination, RequestBody>>,
    places: Places<Destination, RequestBody, UpstreamError>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

/// By what kind of connection a request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// HTTP/1.1, as the client speaks.
    Http1,
    /// The same, for a request that asks for another protocol: it gets a
    /// connection of its own.
    Upgrade,
    /// HTTP/2, as the client speaks, if the origin does.
    Either,
}

/// How a request is sent, whatever connection it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending<'a> {
    pub(super) way: Way,
    /// Its client's own connection.
    pub(super) own: &'a Arc<Own>,
    /// Longest wait for the head of its answer.
    pub(super) answer_within: Duration,
}

impl Upstream {
    pub(super) fn new(
        dialer: Dialer,
        tls: Upstreams,
        idle_upstreams_max: usize,
        workers: usize,
    ) -> Self {
        let worker = || Worker {
            pool: Pool::new(PoolSettings {
                idle_max_per_key: idle_upstreams_max,
                ..PoolSettings::default()
            }),
            places: Places::new(http2::Options {
                idle_max: idle_upstreams_max,
                ..http2::Options::default()
            }),
        };
        Self {
            workers: (0..workers.max(1)).map(|_| worker()).collect(),
            dialer,
            tls,
            options: Options::default(),
        }
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for worker in &self.workers {
            worker.pool.sweep(now);
            worker.places.sweep(now);
        }
    }

    fn worker(&self) -> Option<&Worker> {
        self.workers.get(workers::current())
    }

    /// What a client that speaks both should be answered with: what the origin
    /// speaks, where that is known, or HTTP/2.
    pub(super) fn speaks(&self, target: &Target, asker: &Asker) -> Speaks {
        let to = self.destination(target, asker);
        match self.worker() {
            Some(worker) if worker.places.speaks_http1(&to) => Speaks::Http1,
            Some(_) | None => Speaks::Http2,
        }
    }

    /// Whatever is asked of `target` for `asker` from now on, by whom we are there by now.
    fn destination(&self, target: &Target, asker: &Asker) -> Destination {
        let identity = match target.scheme {
            "https" => self.tls.edition(&target.host),
            _ => 0,
        };
        Destination {
            target: target.clone(),
            asker: asker.clone(),
            // Neither ever shrinks, so where one has changed their sum has.
            edition: identity.saturating_add(self.dialer.edition()),
        }
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends an admitted request and waits for the head of its answer.
    ///
    /// Sent again only where a connection turned out to be closed and not a byte
    /// had been written, where an origin of HTTP/2 says that it has not looked
    /// at the request, and once where an idle connection broke under a request that is safe
    /// (RFC 9110 §9.2.1): its origin had closed it when the request was on its way, and a client
    /// without a sidecar would have asked over a connection of its own. Redirects are not followed.
    pub(super) async fn send(
        &self,
        cleared: Cleared<Request<RequestBody>>,
        (target, asker): (&Target, &Asker),
        how: Sending<'_>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let request = cleared.into_inner();
        let to = &self.destination(target, asker);
        // In boxes what few requests need: a request over an idle connection would
        // otherwise have room for all of it made, moved and freed.
        match (how.way, self.worker()) {
            (Way::Either, Some(worker)) => {
                Box::pin(self.send_either(worker, request, to, how)).await
            }
            (Way::Http1, Some(worker)) => self.send_http1(worker, request, to, (how, None)).await,
            (Way::Upgrade, _) | (_, None) => Box::pin(self.send_alone(request, to, how)).await,
        }
    }

    /// Over the client's own connection, an idle one, over `fresh`, or over a new one.
    async fn send_http1(
        &self,
        worker: &Worker,
        mut request: Request<RequestBody>,
        to: &Destination,
        (how, fresh): (Sending<'_>, Option<ClientConnection<RequestBody>>),
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        rewrite::for_http1(&mut request, &to.target);
        if fresh.is_none() {
            let idle = || how.own.take(to).or_else(|| worker.pool.take(to));
            while let Some(mut idle) = idle() {
                let mut again = None;
                if has_rested(&idle) {
                    // First is heard what its origin said meanwhile.
                    yield_now().await;
                    if !idle.is_alive(Instant::now()) {
                        continue;
                    }
                    again = request.method().is_safe().then(|| spare(&request));
                }
                let sent = self.exchange(idle, request, to, how).await;
                let broken = match sent {
                    Ok(response) => return Ok(response),
                    Err(broken) => broken,
                };
                match (broken, again.flatten()) {
                    (
                        Broken {
                            unsent: Some(unsent),
                            ..
                        },
                        _,
                    ) => request = *unsent,
                    (
                        Broken {
                            error: UpstreamError::Broke(_),
                            ..
                        },
                        Some(again),
                    ) => {
                        request = *again;
                        break;
                    }
                    (Broken { error, .. }, _) => return Err(error),
                }
            }
        }
        Box::pin(self.send_fresh(worker, request, to, (how, fresh))).await
    }

    async fn send_fresh(
        &self,
        worker: &Worker,
        request: Request<RequestBody>,
        to: &Destination,
        (how, fresh): (Sending<'_>, Option<ClientConnection<RequestBody>>),
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let fresh = match fresh {
            Some(fresh) => fresh,
            None => self.connect(to).await?,
        };
        let fresh = worker.pool.adopt(to.clone(), fresh);
        let sent = self.exchange(fresh, request, to, how).await;
        sent.map_err(|broken| broken.error)
    }

    async fn send_alone(
        &self,
        mut request: Request<RequestBody>,
        to: &Destination,
        how: Sending<'_>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        rewrite::for_http1(&mut request, &to.target);
        let alone = self.connect(to).await?;
        let sent = self.exchange(alone, request, to, how).await;
        sent.map_err(|broken| broken.error)
    }

    /// Over a shared connection of HTTP/2, or over HTTP/1.1 where the origin
    /// does not speak it.
    async fn send_either(
        &self,
        worker: &Worker,
        mut request: Request<RequestBody>,
        to: &Destination,
        how: Sending<'_>,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let mut resent = 0_usize;
        loop {
            let broke = |error: hyper::Error| UpstreamError::Broke(in_words(&error));
            let reached = worker.places.reach(to, self.open(to), broke);
            let lease = match reached.await.map_err(UpstreamError::Others)? {
                Reached::Http1(fresh) => {
                    return self.send_http1(worker, request, to, (how, fresh)).await;
                }
                Reached::Http2(lease) => lease,
            };
            rewrite::for_http2(&mut request, &to.target);
            match self.share(lease, request, how).await {
                Ok(response) => return Ok(response),
                Err(Broken {
                    unsent: Some(unsent),
                    ..
                }) if resent < RESENT_MAX => {
                    resent = resent.saturating_add(1);
                    request = *unsent;
                }
                Err(Broken { error, .. }) => return Err(error),
            }
        }
    }

    async fn connect(
        &self,
        to: &Destination,
    ) -> Result<ClientConnection<RequestBody>, UpstreamError> {
        let Destination { target, asker, .. } = to;
        let stream = self.dialer.dial_for(&target.host, target.port, asker);
        let stream = stream.await?;
        let opened = if target.scheme == "https" {
            let stream = self.tls.connect(stream, &target.host).await?;
            ClientConnection::open(TokioIo::new(stream), self.options).await
        } else {
            ClientConnection::open(TokioIo::new(stream), self.options).await
        };
        opened.map_err(|error| UpstreamError::Broke(error.to_string()))
    }

    /// Connects for a client of HTTP/2. Without TLS, nothing says what the
    /// origin speaks but that the client knew.
    async fn open(
        &self,
        to: &Destination,
    ) -> Result<Opened<ClientConnection<RequestBody>, Io>, UpstreamError> {
        let Destination { target, asker, .. } = to;
        let stream = self.dialer.dial_for(&target.host, target.port, asker);
        let stream = stream.await?;
        if target.scheme != "https" {
            return Ok(Opened::Http2(TokioIo::new(MaybeTls::Plain(stream))));
        }
        let (stream, speaks) = self.tls.connect_either(stream, &target.host).await?;
        match speaks {
            Speaks::Http2 => Ok(Opened::Http2(TokioIo::new(MaybeTls::Tls(Box::new(
                stream.into(),
            ))))),
            Speaks::Http1 => ClientConnection::open(TokioIo::new(stream), self.options)
                .await
                .map(Opened::Http1)
                .map_err(|error| UpstreamError::Broke(error.to_string())),
        }
    }

    async fn share(
        &self,
        lease: Lease<RequestBody>,
        request: Request<RequestBody>,
        how: Sending<'_>,
    ) -> Result<Response<AnswerBody>, Broken> {
        let progress = request.body().progress();
        let spare = spare(&request);
        let doubt = lease.doubt();
        let sending = lease.send(request);
        match how.patiently(sending, progress.as_deref()).await {
            Some(Ok(response)) => Ok(response.map(AnswerBody::Shared)),
            Some(Err(failed)) => Err(Broken {
                unsent: match failed.unprocessed {
                    true => failed.request.or(spare),
                    false => None,
                },
                error: broke(in_words(&failed.error), progress.as_deref()),
            }),
            None => {
                // It may be dead, and whoever comes next must not wait for it as long.
                doubt.raise();
                Err(how.silent())
            }
        }
    }

    async fn exchange(
        &self,
        mut connection: ClientConnection<RequestBody>,
        request: Request<RequestBody>,
        to: &Destination,
        how: Sending<'_>,
    ) -> Result<Response<AnswerBody>, Broken> {
        let progress = request.body().progress();
        let told = Told::about(&request);
        if speaks_for_connection(request.headers(), &header::AUTHORIZATION) {
            how.own.adopt(to, &mut connection);
        }
        let sending = async {
            match how.way {
                Way::Http1 | Way::Either => {
                    let note = |answer: &HeaderMap, connection: &mut ClientConnection<_>| {
                        if speaks_for_connection(answer, &header::WWW_AUTHENTICATE) {
                            how.own.adopt(to, connection);
                        }
                    };
                    connection.send_noting(request, note).await
                }
                Way::Upgrade => {
                    let spawn = |rest| drop(spawn_named("upgrade", rest));
                    Box::pin(connection.send_upgradable(request, spawn)).await
                }
            }
        };
        match how.patiently(sending, progress.as_deref()).await {
            Some(Ok(mut response)) => {
                if let Some(told) = told {
                    told.answered(&mut response);
                }
                Ok(response.map(AnswerBody::alone))
            }
            Some(Err(failed)) => Err(Broken {
                error: broke(in_words(&failed.error), progress.as_deref()),
                unsent: failed.request.filter(|_| failed.reused),
            }),
            None => Err(how.silent()),
        }
    }
}

impl Sending<'_> {
    /// What comes of `sending`; `None` where the origin is silent for too long.
    async fn patiently<T>(
        self,
        sending: impl Future<Output = T>,
        progress: Option<&Progress>,
    ) -> Option<T> {
        let mut sending = pin!(sending);
        let mut silence = Silence::new(self.answer_within);
        let mut sent_before = 0;
        poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => {
                // The origin need not answer while it is still being told.
                let sent_now = progress.map_or(0, Progress::bytes);
                if sent_now != sent_before {
                    sent_before = sent_now;
                    silence.allow(self.answer_within);
                }
                silence.poll(cx).map(|_| None)
            }
        })
        .await
    }

    fn silent(self) -> Broken {
        Broken {
            error: UpstreamError::Silent(self.answer_within),
            unsent: None,
        }
    }
}

/// Whether the field `name` is about a scheme that says whose a connection is from then on, and
/// not whose a request is (RFC 4559 §6, MS-NTHT).
fn speaks_for_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    // Challenges may stand in one field, behind commas; so may their parameters.
    let is_scheme = |part: &str| {
        let word = part.split_ascii_whitespace().next().unwrap_or_default();
        ["ntlm", "negotiate"]
            .iter()
            .any(|scheme| word.eq_ignore_ascii_case(scheme))
    };
    headers.get_all(name).iter().any(|value| {
        String::from_utf8_lossy(value.as_bytes())
            .split(',')
            .any(is_scheme)
    })
}

fn has_rested(connection: &ClientConnection<RequestBody>) -> bool {
    let idle_for = connection.idle_for(Instant::now());
    idle_for.is_some_and(|idle_for| idle_for >= RESTED)
}

/// A connection on which HTTP/2 may be spoken.
type Io = TokioIo<MaybeTls<TcpStream>>;

/// The request once more, if all of it is here, for where the origin does not look at the first.
fn spare(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    let body = request.body().again()?;
    let mut again = Request::new(body);
    // How its names are written is there.
    again.extensions_mut().clone_from(request.extensions());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(Box::new(again))
}

/// hyper's own words say only where it broke.
fn in_words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Why a request came to nothing: its own body, or what the connection says.
fn broke(said: String, progress: Option<&Progress>) -> UpstreamError {
    match progress.is_some_and(Progress::is_late) {
        true => UpstreamError::Slow,
        false => UpstreamError::Broke(said),
    }
}

struct Broken {
    error: UpstreamError,
    /// The request, if not a byte of it was written.
    unsent: Option<Box<Request<RequestBody>>>,
}

/// Why an origin gave no answer.
#[derive(Debug)]
pub(super) enum UpstreamError {
    Dial(DialError),
    Tls(TlsError),
    Broke(String),
    Silent(Duration),
    /// The body of the request took too long.
    Slow,
    /// The failure of a connection that others wait for too.
    Others(Arc<UpstreamError>),
}

impl UpstreamError {
    /// Whether the origin may have had the request, and have carried it out.
    pub(super) fn may_have_arrived(&self) -> bool {
        match self {
            Self::Broke(_) | Self::Silent(_) | Self::Slow => true,
            Self::Dial(_) | Self::Tls(_) | Self::Others(_) => false,
        }
    }

    /// How it is answered: status and code.
    pub(super) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Dial(DialError::Refused { .. } | DialError::Unclear { .. }) => {
                (StatusCode::FORBIDDEN, "address_refused")
            }
            Self::Dial(DialError::NotFound { .. }) => (StatusCode::BAD_GATEWAY, "host_not_found"),
            Self::Dial(DialError::Unreachable { .. } | DialError::Proxy { .. }) => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable")
            }
            Self::Dial(DialError::Circle { .. }) => (StatusCode::LOOP_DETECTED, "proxy_loop"),
            Self::Dial(DialError::TimedOut { .. }) | Self::Silent(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout")
            }
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            Self::Others(error) => error.answer(),
            Self::Tls(_) => (StatusCode::BAD_GATEWAY, "upstream_tls"),
            Self::Broke(_) => (StatusCode::BAD_GATEWAY, "upstream_broke_off"),
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Others(error) => error.fmt(f),
            Self::Broke(error) => write!(f, "the origin broke off: {error}"),
            Self::Slow => f.write_str(TOO_LONG),
            Self::Silent(within) => {
                write!(f, "the origin did not answer within {} s", within.as_secs())
            }
        }
    }
}

impl From<DialError> for UpstreamError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<TlsError> for UpstreamError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
