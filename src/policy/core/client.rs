//! One question and one answer, over HTTP.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::net::http1::{
    ClientConnection, DrivenBody, HeaderCase, Options, Pool, PoolSettings, SendError,
};
use crate::policy::Later;
use crate::process::workers;

use super::settings::{CoreUrl, Scheme, Settings};
use super::time;

/// A connection's bytes, whatever carries them.
pub trait Io: Read + Write + Unpin + Send {}
impl<T: Read + Write + Unpin + Send> Io for T {}

/// A connection's bytes, without their type.
pub type BoxedIo = Box<dyn Io>;

/// Opens connections to Core, with TLS where the URL asks for it.
pub type Connector =
    Arc<dyn for<'a> Fn(&'a CoreUrl) -> Later<'a, io::Result<BoxedIo>> + Send + Sync>;

/// A connector for `http` only.
pub fn connect_plain() -> Connector {
    Arc::new(|url| {
        Box::pin(async move {
            match url.scheme() {
                Scheme::Http => {}
                Scheme::Https => return Err(io::Error::other("no TLS here")),
            }
            let stream = TcpStream::connect((url.host(), url.port())).await?;
            stream.set_nodelay(true)?;
            let io: BoxedIo = Box::new(TokioIo::new(stream));
            Ok(io)
        })
    })
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    Validate,
    Evaluate,
    Approval,
}

impl Route {
    pub(super) const ALL: [Self; 3] = [Self::Validate, Self::Evaluate, Self::Approval];

    pub(super) fn method(self) -> Method {
        match self {
            Self::Validate => Method::GET,
            Self::Evaluate | Self::Approval => Method::POST,
        }
    }

    /// Behind the path of the base URL.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Validate => "/api/v1/auth/validate",
            Self::Evaluate => "/api/v1/governance/evaluate",
            Self::Approval => "/api/v1/governance/approval",
        }
    }
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// When Core wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// Why nothing was answered, or nothing that can be read.
#[derive(Debug)]
pub(super) enum NoAnswer {
    Unreachable(io::Error),
    BrokeOff(hyper::Error),
    TooSlow(Duration),
    /// It did not answer before, and is left alone for so long.
    Resting(Duration),
    /// It would have waited for our own other questions.
    Queued(usize),
    NotHttp(hyper::Error),
    TooLong(usize),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::BrokeOff(error) => write!(f, "broke off before it had answered: {error}"),
            Self::TooSlow(within) => write!(f, "did not answer within {within:?}"),
            Self::Resting(rest) => {
                write!(f, "did not answer before, and is left alone for {rest:.1?}")
            }
            Self::Queued(max) => write!(f, "was not asked in time: {max} questions were open"),
            Self::NotHttp(error) => write!(f, "does not speak HTTP: {error}"),
            Self::TooLong(max) => write!(f, "answered with more than {max} bytes"),
        }
    }
}

/// Names a question over all its retries.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How many may wait for each question that is being asked.
const WAITING_PER_SLOT: usize = 16;

type Asked = Full<Bytes>;

/// Speaks to one Core over a few kept connections.
pub(super) struct Client {
    settings: Settings,
    connector: Connector,
    /// By worker: a connection is served best by the thread that opened it.
    pool: Arc<Pool<usize, Asked>>,
    slots: Semaphore,
    /// Who waits for a slot.
    places: Semaphore,
    headers: HeaderMap,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.settings)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(settings: Settings, connector: Connector) -> Self {
        Self {
            pool: Pool::new(PoolSettings {
                idle_max_per_key: settings.in_flight_max,
                idle_max: settings.in_flight_max,
                ..PoolSettings::default()
            }),
            slots: Semaphore::new(settings.in_flight_max.clamp(1, Semaphore::MAX_PERMITS)),
            places: Semaphore::new(
                settings
                    .in_flight_max
                    .saturating_mul(WAITING_PER_SLOT)
                    .clamp(1, Semaphore::MAX_PERMITS),
            ),
            headers: headers(&settings),
            settings,
            connector,
        }
    }

    pub(super) fn url(&self) -> &CoreUrl {
        &self.settings.url
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.pool.sweep(now);
    }

    /// Asks, `within` so long: waiting for a slot, dialing, sending and reading
    /// together. `key` names what is asked over all retries. Cancel-safe:
    /// dropping it closes the connection.
    pub(super) async fn call(
        &self,
        route: Route,
        body: Bytes,
        key: Option<HeaderValue>,
        within: Duration,
    ) -> Result<Answered, NoAnswer> {
        let begun = Instant::now();
        let queued = || NoAnswer::Queued(self.settings.in_flight_max);
        let (slot, late) = match self.slots.try_acquire() {
            Ok(slot) => (slot, NoAnswer::TooSlow(self.settings.answer_within)),
            Err(_) => {
                // Before memory grows with those who wait.
                let place = self.places.try_acquire().map_err(|_| queued())?;
                let slot = timeout(within, self.slots.acquire()).await;
                drop(place);
                match slot {
                    // Too little time was left for Core: not Core's doing.
                    Ok(Ok(slot)) => (slot, queued()),
                    Ok(Err(_)) | Err(_) => return Err(queued()),
                }
            }
        };
        let left = within.saturating_sub(begun.elapsed());
        let answered = timeout(left, self.exchange(route, body, key)).await;
        drop(slot);
        answered.unwrap_or(Err(late))
    }

    async fn exchange(
        &self,
        route: Route,
        body: Bytes,
        key: Option<HeaderValue>,
    ) -> Result<Answered, NoAnswer> {
        if let Some(kept) = self.pool.take(&workers::current()) {
            match kept
                .send(self.request(route, body.clone(), key.clone()))
                .await
            {
                Ok(response) => return self.read(response).await,
                // Core may close a kept connection just when it is used again:
                // that says nothing about Core, so a fresh one is asked once.
                Err(error) if !error.error.is_parse() => {
                    tracing::debug!(%error, "a kept connection to Core was closed");
                }
                Err(error) => return Err(lost(error)),
            }
        }
        let io = (self.connector)(&self.settings.url)
            .await
            .map_err(NoAnswer::Unreachable)?;
        let options = Options {
            header_case: HeaderCase::Title,
            ..Options::default()
        };
        let fresh = ClientConnection::open(io, options)
            .await
            .map_err(NoAnswer::BrokeOff)?;
        let fresh = self.pool.adopt(workers::current(), fresh);
        match fresh.send(self.request(route, body, key)).await {
            Ok(response) => self.read(response).await,
            Err(error) => Err(lost(error)),
        }
    }

    fn request(&self, route: Route, body: Bytes, key: Option<HeaderValue>) -> Request<Asked> {
        let (method, path) = (route.method(), route.path());
        let base = self.settings.url.base();
        let uri = if base.is_empty() {
            Uri::from_static(path)
        } else {
            // Base and path were both checked, so together they are a path too.
            Uri::try_from(format!("{base}{path}")).unwrap_or(Uri::from_static(path))
        };
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        if let Some(identity) = &self.settings.identity {
            // Anew for every request: Core takes a nonce once.
            let (headers, at) = (request.headers_mut(), super::now());
            identity.sign(headers, method.as_str(), path, &body, at);
        }
        if let Some(key) = key {
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        request
    }

    async fn read(&self, response: Response<DrivenBody<Asked>>) -> Result<Answered, NoAnswer> {
        let max = self.settings.answer_bytes_max;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after =
            retry_after.and_then(|value| time::retry_after(value.to_str().ok()?, super::now()));
        let mut body = response.into_body();
        let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if said > max {
            return Err(NoAnswer::TooLong(max));
        }
        let mut read = Vec::with_capacity(said);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(cut_short)?;
            if let Some(data) = frame.data_ref() {
                if read.len().saturating_add(data.len()) > max {
                    return Err(NoAnswer::TooLong(max));
                }
                read.extend_from_slice(data);
            }
        }
        Ok(Answered {
            status,
            body: read,
            retry_after,
        })
    }
}

fn lost(error: SendError<Asked>) -> NoAnswer {
    if error.error.is_parse() {
        NoAnswer::NotHttp(error.error)
    } else {
        NoAnswer::BrokeOff(error.error)
    }
}

/// A body that ends too early is no answer; one that is framed wrongly is one
/// that cannot be read.
fn cut_short(error: hyper::Error) -> NoAnswer {
    let cause = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => NoAnswer::NotHttp(error),
        _ => NoAnswer::BrokeOff(error),
    }
}

/// What every request carries, in the order of the vectors.
fn headers(settings: &Settings) -> HeaderMap {
    const VERSION: &str = concat!("openbox-sidecar-rust-v", env!("CARGO_PKG_VERSION"));
    const AGENT: &str = concat!(
        "OpenBox-SDK/openbox-sidecar-rust-v",
        env!("CARGO_PKG_VERSION")
    );
    let mut headers = HeaderMap::with_capacity(8);
    let mut insert = |name: HeaderName, value: HeaderValue| {
        headers.insert(name, value);
    };
    // Authority and key were checked; neither has a byte that a header has not.
    if let Ok(host) = HeaderValue::from_str(settings.url.authority()) {
        insert(HOST, host);
    }
    insert(ACCEPT, HeaderValue::from_static("*/*"));
    // Answers are small, and read as they are.
    insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    if let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {}", settings.key.expose())) {
        bearer.set_sensitive(true);
        insert(AUTHORIZATION, bearer);
    }
    insert(USER_AGENT, HeaderValue::from_static(AGENT));
    insert(
        HeaderName::from_static("x-openbox-sdk-version"),
        HeaderValue::from_static(VERSION),
    );
    headers
}
