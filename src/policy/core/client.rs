//! One question and one answer, over HTTP.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
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

use super::errand::Errands;
use super::okta::Asserted;
use super::proof::{Prover, Shown, Unproven, Version};
use super::settings::{CoreUrl, Scheme, Settings};
use super::{head, time};

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
    Handoff,
}

impl Route {
    pub(super) const ALL: [Self; 4] = [
        Self::Validate,
        Self::Evaluate,
        Self::Approval,
        Self::Handoff,
    ];

    pub(super) fn method(self) -> Method {
        match self {
            Self::Validate => Method::GET,
            Self::Evaluate | Self::Approval | Self::Handoff => Method::POST,
        }
    }

    /// Behind the path of the base URL.
    pub(super) fn path(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Validate, Version::V1) => "/api/v1/auth/validate",
            (Self::Validate, Version::V2) => "/api/v2/auth/validate",
            (Self::Validate, Version::V3) => "/api/v3/auth/validate",
            (Self::Evaluate, Version::V1) => "/api/v1/governance/evaluate",
            (Self::Evaluate, Version::V2) => "/api/v2/governance/evaluate",
            (Self::Evaluate, Version::V3) => "/api/v3/governance/evaluate",
            (Self::Approval, Version::V1) => "/api/v1/governance/approval",
            (Self::Approval, Version::V2) => "/api/v2/governance/approval",
            (Self::Approval, Version::V3) => "/api/v3/governance/approval",
            (Self::Handoff, Version::V1) => "/api/v1/handoffs",
            (Self::Handoff, Version::V2) => "/api/v2/handoffs",
            (Self::Handoff, Version::V3) => "/api/v3/handoffs",
        }
    }
}

/// One request, before anybody has said who sends it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) route: Route,
    pub(super) body: Bytes,
    /// Names what is asked over all retries.
    pub(super) key: Option<HeaderValue>,
    /// The agent's own proof, where we have none.
    pub(super) proof: HeaderMap,
}

impl Call {
    pub(super) fn new(route: Route, body: impl Into<Bytes>) -> Self {
        Self {
            route,
            body: body.into(),
            key: None,
            proof: HeaderMap::new(),
        }
    }

    /// Under the `key` that all its retries have.
    pub(super) fn named(self, key: HeaderValue) -> Self {
        Self {
            key: Some(key),
            ..self
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
    /// It was not asked, for we cannot show who we are.
    Unproven(Unproven),
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
            Self::Unproven(why) => {
                write!(f, "was not asked, for we cannot show who we are: {why}")
            }
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
    prover: Prover,
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
            headers: head::question(&settings.url, &settings.key),
            prover: Prover::new(
                settings.identity.clone(),
                Errands::new(&settings, Arc::clone(&connector)),
            ),
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

    /// Whether requests show an identity beside the API key.
    pub(super) fn has_identity(&self) -> bool {
        self.prover.has_identity()
    }

    /// Asks, `within` so long: waiting for a slot, dialing, sending and reading
    /// together. Cancel-safe: dropping it closes the connection.
    pub(super) async fn call(&self, call: Call, within: Duration) -> Result<Answered, NoAnswer> {
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
        let left = || within.saturating_sub(begun.elapsed());
        let shown = timeout(left(), self.prover.shown()).await;
        let shown = shown.unwrap_or_else(|_| {
            let why = format!("nobody said it within {:?}", self.settings.answer_within);
            Err(Unproven::absent(why))
        });
        let shown = shown.map_err(NoAnswer::Unproven)?;
        let answered = timeout(left(), self.exchange(call, &shown)).await;
        drop(slot);
        let answered = answered.unwrap_or(Err(late))?;
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answered.status) {
            self.prover.doubt(&shown);
        }
        Ok(answered)
    }

    async fn exchange(&self, call: Call, shown: &Shown) -> Result<Answered, NoAnswer> {
        let max = self.settings.answer_bytes_max;
        if let Some(kept) = self.pool.take(&workers::current()) {
            match kept.send(self.request(call.clone(), shown)).await {
                Ok(response) => return read(response, max).await,
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
        match fresh.send(self.request(call, shown)).await {
            Ok(response) => read(response, max).await,
            Err(error) => Err(lost(error)),
        }
    }

    fn request(&self, call: Call, shown: &Shown) -> Request<Asked> {
        let Call {
            route,
            body,
            key,
            proof,
        } = call;
        let (method, path) = (route.method(), route.path(shown.version()));
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
        // Anew for every request: Core takes a nonce once.
        let asserted = Asserted {
            method: method.as_str(),
            path,
            body: &body,
        };
        let headers = request.headers_mut();
        self.prover.show(shown, headers, asserted, super::now());
        request.headers_mut().extend(proof);
        if let Some(key) = key {
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        request
    }
}

/// The whole answer, of at most `max` bytes.
pub(super) async fn read(
    response: Response<DrivenBody<Asked>>,
    max: usize,
) -> Result<Answered, NoAnswer> {
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

pub(super) fn lost(error: SendError<Asked>) -> NoAnswer {
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
