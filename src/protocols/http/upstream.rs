//! Origins: pooled connections, and the only way to send anything to one.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::gate::Cleared;
use crate::net::dial::{DialError, Dialer};
use crate::net::http1::{ClientConnection, DrivenBody, Options, Pool, PoolSettings};
use crate::net::tls::{TlsError, Upstreams};
use crate::process::{spawn_named, workers};

use super::authority::Target;
use super::body::RequestBody;
use super::silence::Silence;

/// An origin's response body.
pub(super) type AnswerBody = DrivenBody<RequestBody>;

/// Connections to origins. One agent uses one sidecar, so connections are
/// pooled by destination alone.
pub(super) struct Upstream {
    /// One for each worker: a connection belongs to the thread that opened it.
    pools: Vec<Arc<Pool<Target, RequestBody>>>,
    dialer: Dialer,
    tls: Upstreams,
    answer_within: Duration,
    options: Options,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

/// Whether the request asks for another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrading {
    /// It does: its connection is not shared.
    Yes,
    /// It does not.
    No,
}

impl Upstream {
    pub(super) fn new(
        dialer: Dialer,
        tls: Upstreams,
        answer_within: Duration,
        idle_upstreams_max: usize,
        workers: usize,
    ) -> Self {
        let pool = || {
            Pool::new(PoolSettings {
                idle_max_per_key: idle_upstreams_max,
                ..PoolSettings::default()
            })
        };
        Self {
            pools: (0..workers.max(1)).map(|_| pool()).collect(),
            dialer,
            tls,
            answer_within,
            options: Options::default(),
        }
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self, now: Instant) {
        for pool in &self.pools {
            pool.sweep(now);
        }
    }

    fn pool(&self) -> Option<&Arc<Pool<Target, RequestBody>>> {
        self.pools.get(workers::current())
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends an admitted request and waits for the head of its answer.
    ///
    /// Sent again, once, only where an idle connection turned out to be closed
    /// and not a byte had been written. Redirects are not followed.
    pub(super) async fn send(
        &self,
        cleared: Cleared<Request<RequestBody>>,
        target: &Target,
        upgrading: Upgrading,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let mut request = cleared.into_inner();
        if upgrading == Upgrading::No {
            while let Some(idle) = self.pool().and_then(|pool| pool.take(target)) {
                match self.exchange(idle, request, upgrading).await {
                    Ok(response) => return Ok(response),
                    Err(Broken {
                        unsent: Some(unsent),
                        ..
                    }) => request = *unsent,
                    Err(Broken { error, .. }) => return Err(error),
                }
            }
        }
        let fresh = self.connect(target).await?;
        let fresh = match (upgrading, self.pool()) {
            (Upgrading::No, Some(pool)) => pool.adopt(target.clone(), fresh),
            (Upgrading::No | Upgrading::Yes, _) => fresh,
        };
        let sent = self.exchange(fresh, request, upgrading).await;
        sent.map_err(|broken| broken.error)
    }

    async fn connect(
        &self,
        target: &Target,
    ) -> Result<ClientConnection<RequestBody>, UpstreamError> {
        let stream = self.dialer.dial(&target.host, target.port).await?;
        let opened = if target.scheme == "https" {
            let stream = self.tls.connect(stream, &target.host).await?;
            ClientConnection::open(TokioIo::new(stream), self.options).await
        } else {
            ClientConnection::open(TokioIo::new(stream), self.options).await
        };
        opened.map_err(|error| UpstreamError::Broke(error.to_string()))
    }

    async fn exchange(
        &self,
        connection: ClientConnection<RequestBody>,
        request: Request<RequestBody>,
        upgrading: Upgrading,
    ) -> Result<Response<AnswerBody>, Broken> {
        let progress = request.body().progress();
        let sending = async {
            match upgrading {
                Upgrading::No => connection.send(request).await,
                Upgrading::Yes => {
                    let spawn = |rest| drop(spawn_named("upgrade", rest));
                    connection.send_upgradable(request, spawn).await
                }
            }
        };
        let mut sending = pin!(sending);
        let mut silence = Silence::new(self.answer_within);
        let mut sent_before = 0;
        let sent = poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(Some(sent)),
            Poll::Pending => {
                // The origin need not answer while it is still being told.
                let sent_now = progress.as_ref().map_or(0, |p| p.load(Ordering::Relaxed));
                if sent_now != sent_before {
                    sent_before = sent_now;
                    silence.allow(self.answer_within);
                }
                silence.poll(cx).map(|_| None)
            }
        })
        .await;
        match sent {
            Some(Ok(response)) => Ok(response),
            Some(Err(failed)) => Err(Broken {
                error: UpstreamError::Broke(failed.error.to_string()),
                unsent: failed.request.filter(|_| failed.reused),
            }),
            None => Err(Broken {
                error: UpstreamError::Silent(self.answer_within),
                unsent: None,
            }),
        }
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
}

impl UpstreamError {
    /// How it is answered: status and code.
    pub(super) fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Dial(DialError::Refused { .. }) => (StatusCode::FORBIDDEN, "address_refused"),
            Self::Dial(DialError::NotFound { .. }) => (StatusCode::BAD_GATEWAY, "host_not_found"),
            Self::Dial(DialError::Unreachable { .. }) => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable")
            }
            Self::Dial(DialError::TimedOut { .. }) | Self::Silent(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout")
            }
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
            Self::Broke(error) => write!(f, "the origin broke off: {error}"),
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
