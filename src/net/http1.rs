//! An HTTP/1.1 client connection that runs in the task of whoever uses it.
//!
//! hyper hands out a connection in two halves and means the second to be
//! spawned. That costs a task switch and a cross-thread wake-up per request,
//! and lets a connection outlive the request it was for (hyper#4176). Here both
//! halves stay together: sending polls the connection, reading the response
//! body polls it further, and dropping either drops the socket.

mod driver;
mod keep_alive;
mod kept;
mod pool;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use driver::Driver;
pub use kept::Kept;
pub use pool::{Pool, PoolSettings};

/// Work that must outlive the request that started it, for a task of its own.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How header names are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCase {
    /// As the request being forwarded spelled them (and responses likewise).
    Preserved,
    /// As the request names them: lower case.
    Lower,
    /// `Title-Case`.
    Title,
}

/// How a connection reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How header names are written.
    pub header_case: HeaderCase,
    /// Largest response head accepted, and largest chunked trailers, bytes.
    pub head_bytes_max: usize,
    /// Largest read and write buffer, bytes; at least 8 KiB are used.
    pub buffer_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_case: HeaderCase::Preserved,
            head_bytes_max: 64 * 1024,
            buffer_bytes_max: 128 * 1024,
        }
    }
}

/// Where a connection goes when it can be used again.
trait Home<B>: Send {
    fn take_back(self: Box<Self>, connection: ClientConnection<B>);
}

/// A connection between two requests.
pub struct ClientConnection<B> {
    sender: SendRequest<B>,
    driver: Driver,
    home: Option<Box<dyn Home<B>>>,
    /// When it last had nothing to do, once it has served a request.
    idle_since: Option<Instant>,
    /// How long its peer says that it keeps it so.
    idle_for_max: Option<Duration>,
}

impl<B> fmt::Debug for ClientConnection<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection")
            .field("ready", &self.sender.is_ready())
            .finish_non_exhaustive()
    }
}

impl<B> ClientConnection<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Speaks HTTP/1.1 over `io`. Writes nothing yet.
    ///
    /// # Errors
    ///
    /// None that hyper 1 is known to give; its signature allows them.
    pub async fn open<T>(io: T, options: Options) -> hyper::Result<Self>
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        // hyper panics below its minimum.
        const BUFFER_BYTES_MIN: usize = 8 * 1024;
        let mut builder = Builder::new();
        builder
            .max_buf_size(options.buffer_bytes_max.max(BUFFER_BYTES_MIN))
            .max_header_size(options.head_bytes_max);
        match options.header_case {
            HeaderCase::Preserved => builder.preserve_header_case(true),
            HeaderCase::Title => builder.title_case_headers(true),
            HeaderCase::Lower => &mut builder,
        };
        let (sender, connection) = builder.handshake(io).await?;
        Ok(Self {
            sender,
            driver: Driver::new(connection.with_upgrades()),
            home: None,
            idle_since: None,
            idle_for_max: None,
        })
    }

    /// How long it has had nothing to do at `now`, if it has served a request.
    pub fn idle_for(&self, now: Instant) -> Option<Duration> {
        self.idle_since
            .map(|since| now.saturating_duration_since(since))
    }

    /// Sends `request`, whose URI is written as it stands, and waits for the
    /// head of the answer. Dropping the future drops the connection.
    ///
    /// Of a `101`, [`hyper::upgrade::on`] gives the connection, provided that
    /// the request had been sent whole; see [`Self::send_upgradable`].
    ///
    /// # Errors
    ///
    /// When the connection broke before an answer. The error holds the request
    /// if none of it was written: it may be sent again, whatever its method.
    pub async fn send(self, request: Request<B>) -> Result<Response<DrivenBody<B>>, SendError<B>> {
        self.send_noting(request, |_, _| {}).await
    }

    /// As [`Self::send`]; `note` is shown the fields of the answer before the connection can go
    /// anywhere, and may say where.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_noting(
        self,
        request: Request<B>,
        note: impl FnOnce(&HeaderMap, &mut Self),
    ) -> Result<Response<DrivenBody<B>>, SendError<B>> {
        let (head, mut body) = self.exchange(request).await?.into_parts();
        if let Some(connection) = &mut body.connection {
            note(&head.headers, connection);
        }
        body.settle_early();
        Ok(Response::from_parts(head, body))
    }

    /// As [`Self::send`], for a request that asks for another protocol. Where a
    /// `101` arrives before the request was sent whole, the rest is given to
    /// `spawn` as a task, since the body of a `101` drives nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn send_upgradable(
        self,
        request: Request<B>,
        spawn: impl FnOnce(Background),
    ) -> Result<Response<DrivenBody<B>>, SendError<B>> {
        let mut response = self.exchange(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(connection) = response.body_mut().connection.take()
        {
            spawn(Box::pin(connection.driver.run()));
        }
        response.body_mut().settle_early();
        Ok(response)
    }

    async fn exchange(
        mut self,
        request: Request<B>,
    ) -> Result<Response<DrivenBody<B>>, SendError<B>> {
        let reused = self.idle_since.is_some();
        // Only the driver completes this future, and only below: waking this
        // very task for it would cost a second poll. `unconstrained`, because
        // an exhausted budget would leave its wake-up with the wrong waker.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let answer = poll_fn(|cx| {
            self.driver.poll(cx);
            answer
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        })
        .await;
        match answer {
            Ok(response) => {
                if let Some(said) = keep_alive::timeout(response.headers()) {
                    self.idle_for_max = Some(said);
                }
                Ok(response.map(|body| DrivenBody {
                    body,
                    connection: (!self.driver.has_ended()).then_some(self),
                }))
            }
            Err(mut error) => Err(SendError {
                request: error.take_message().map(Box::new),
                error: error.into_error(),
                reused,
            }),
        }
    }

    /// Whether the peer neither closed the idle connection nor said anything on it, nor is about
    /// to close it by what it said.
    pub fn is_alive(&mut self, now: Instant) -> bool {
        let is_over = |max| self.idle_for(now).is_some_and(|idle| idle >= max);
        !self.idle_for_max.is_some_and(is_over) && self.is_open()
    }

    fn is_open(&mut self) -> bool {
        self.driver.poll_idle();
        !self.driver.has_ended() && self.sender.is_ready()
    }
}

/// A response body that drives its connection while it is read.
///
/// At its end the connection goes back to its pool, if the request was sent
/// whole and both sides keep it alive; in every other case, also when the body
/// is dropped early, the connection is closed at once.
pub struct DrivenBody<B> {
    body: Incoming,
    connection: Option<ClientConnection<B>>,
}

impl<B> DrivenBody<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Lets go of the connection where the body no longer needs it: a short
    /// body has often arrived whole with its head.
    fn settle_early(&mut self) {
        let is_free = |c: &ClientConnection<B>| c.sender.is_ready();
        if self.body.is_end_stream() || self.connection.as_ref().is_some_and(is_free) {
            self.settle();
        }
    }

    /// Gives the connection back, or closes it.
    fn settle(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_open()
            && let Some(home) = connection.home.take()
        {
            connection.idle_since = Some(Instant::now());
            home.take_back(connection);
        }
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let body = Pin::new(&mut self.body);
        // Only the driver fills the body, and only when polled by `poll_frame`.
        let look = || body.poll_frame(&mut Context::from_waker(Waker::noop()));
        match &self.connection {
            Some(connection) => connection.driver.undisturbed(cx, look),
            None => look(),
        }
    }
}

type Received = Result<Frame<Bytes>, hyper::Error>;

impl<B> Body for DrivenBody<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let this = self.get_mut();
        let mut received = this.poll_received(cx);
        if received.is_pending()
            && let Some(connection) = &mut this.connection
        {
            connection.driver.poll(cx);
            received = this.poll_received(cx);
        }
        let ended = match &received {
            Poll::Ready(Some(Ok(_))) => this.body.is_end_stream(),
            Poll::Ready(Some(Err(_)) | None) => true,
            Poll::Pending => false,
        };
        if ended {
            this.settle();
        }
        received
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for DrivenBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrivenBody")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
pub struct SendError<B> {
    /// The request, if none of it was written.
    pub request: Option<Box<Request<B>>>,
    /// Whether the connection had served another request before: its peer may
    /// just have given up waiting for the next one.
    pub reused: bool,
    /// What hyper says.
    pub error: hyper::Error,
}

impl<B> fmt::Debug for SendError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("unsent", &self.request.is_some())
            .field("reused", &self.reused)
            .field("error", &self.error)
            .finish()
    }
}

impl<B> fmt::Display for SendError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> StdError for SendError<B> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}
