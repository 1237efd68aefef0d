//! Stands between the socket and the HTTP library: hands on only what
//! [`super::framing`] has read, and ends connections that fall silent.
//!
//! A head that is refused is replaced by one the library is certain to pass to
//! us, under a name only we know; so the refusal is answered in its turn, behind
//! the answers of the requests before it, and nothing after it is read.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::Reason;
use crate::process::clock;
use crate::session::Session;

use super::chunks::Chunks;
use super::framing::{self, Framing, Limits, Malformed};
use super::silence::Silence;

/// Bytes read at once while a head is awaited.
const READ_SIZE: usize = 4 * 1024;

/// How long a client may read nothing of what is said to it, once its run is halted.
const HALTED_WITHIN: Duration = Duration::from_secs(5);

thread_local! {
    static SPACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The field that marks a substituted head. Its value is unguessable, so no
/// client can make one.
pub(super) const SUBSTITUTE: &str = "openbox-substitute";

/// The value of [`SUBSTITUTE`] in this process.
pub(super) static SUBSTITUTE_KEY: LazyLock<String> = LazyLock::new(|| clock::secret_name(""));

/// How long the two kinds of silence may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a head that has begun.
    pub(super) head: Duration,
    /// For the next request, or the next bytes of a body; and for the client to read more of
    /// what is said to it.
    pub(super) idle: Duration,
}

/// What the connection's service and its sentinel tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Why the substituted head was substituted.
    malformed: Mutex<Option<Malformed>>,
    /// Exchanges under way: silence is then the upstream's, or a person's.
    busy: AtomicUsize,
    /// Whether one has ended: the client's silence begins there.
    ended: AtomicBool,
    /// Whether the body of the current request was refused.
    broken: AtomicBool,
    /// Whether what follows the current request is not HTTP.
    tunnel: AtomicBool,
    /// Whose the last request was that the gate was asked about.
    session: Mutex<Option<Session>>,
    /// When the answer is over that is going out, whatever its client takes of it.
    term: Mutex<Option<Instant>>,
    /// Told when an answer was the last.
    last: Notify,
    /// Whether a sentinel is there, which knows what is written.
    watched: AtomicBool,
    /// Whether somebody waits for all to be written.
    asked: AtomicBool,
    /// Who, while that is so.
    asks: Mutex<Option<Waker>>,
}

impl Shared {
    pub(super) fn malformed(&self) -> Option<Malformed> {
        *lock(&self.malformed)
    }

    /// Whether the last body turned out to be malformed.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// What follows the current request is not HTTP.
    pub(super) fn tunnel_follows(&self) {
        self.tunnel.store(true, Ordering::Release);
    }

    /// Whether the connection has become a tunnel.
    pub(super) fn has_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Acquire)
    }

    /// The request under way is this one's: once its run is halted, its client has little
    /// time to read.
    pub(super) fn belongs_to(&self, session: &Session) {
        *lock(&self.session) = Some(session.clone());
    }

    /// The answer that goes out now is over at `term`.
    pub(super) fn end_answer_at(&self, term: Option<Instant>) {
        *lock(&self.term) = term;
    }

    fn term(&self) -> Option<Instant> {
        *lock(&self.term)
    }

    /// Whether [`Shared::poll_written`] is ever ready.
    pub(super) fn tells_when_written(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// Has `waker` woken once all is written that the library has for the client by then.
    pub(super) fn ask_when_written(&self, waker: &Waker) {
        *lock(&self.asks) = Some(waker.clone());
        self.asked.store(true, Ordering::Release);
    }

    /// Ready once that was written.
    pub(super) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.asked.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.ask_when_written(cx.waker());
        Poll::Pending
    }

    fn all_is_written(&self) {
        if self.asked.load(Ordering::Acquire) {
            self.asked.store(false, Ordering::Release);
            if let Some(waker) = lock(&self.asks).take() {
                waker.wake();
            }
        }
    }

    /// Waits until the last answer has gone out; see [`Busy::end_after_this`].
    pub(super) async fn last_answer(&self) {
        self.last.notified().await;
    }

    /// Marks an exchange as under way until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy {
            shared: self.clone(),
            last: false,
        }
    }

    /// Whether an exchange is under way, or has ended since this was last asked.
    pub(super) fn was_busy(&self) -> bool {
        let ended = self.ended.swap(false, Ordering::AcqRel);
        ended || self.busy.load(Ordering::Acquire) > 0
    }

    fn refuse(&self, malformed: Malformed) {
        lock(&self.malformed).get_or_insert(malformed);
    }
}

/// One exchange under way.
#[derive(Debug)]
pub(super) struct Busy {
    shared: Arc<Shared>,
    last: bool,
}

impl Busy {
    /// No exchange follows this one.
    pub(super) fn end_after_this(&mut self) {
        self.last = true;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.busy.fetch_sub(1, Ordering::AcqRel);
        if self.last {
            self.shared.last.notify_one();
        }
    }
}

#[derive(Debug)]
enum Phase {
    Head {
        searched: usize,
    },
    Length(u64),
    Chunked(Box<Chunks>),
    Tunnel,
    /// A head was substituted: nothing behind it is read.
    Over,
}

/// A socket whose requests have one reading.
#[derive(Debug)]
pub(super) struct Sentinel<S> {
    io: S,
    phase: Phase,
    /// Read from the socket and not yet handed on.
    pending: BytesMut,
    /// How much of `pending` may be handed on.
    cleared: usize,
    limits: Limits,
    patience: Patience,
    silence: Silence,
    /// While the client reads nothing of what is said to it.
    stuck: Option<Stuck>,
    shared: Arc<Shared>,
}

/// A client that takes nothing.
struct Stuck {
    silence: Silence,
    /// Ready once its run is halted; none once it was.
    halted: Option<Halted>,
}

type Halted = Pin<Box<dyn Future<Output = Reason> + Send>>;

impl fmt::Debug for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stuck").finish_non_exhaustive()
    }
}

impl Stuck {
    fn new(silence: Silence, session: Option<Session>) -> Self {
        Self {
            silence,
            halted: session
                .map(|session| -> Halted { Box::pin(async move { session.until_halted().await }) }),
        }
    }

    /// Ready once it has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>, within: Duration) -> Poll<io::Error> {
        if let Some(halted) = &mut self.halted
            && halted.as_mut().poll(cx).is_ready()
        {
            self.halted = None;
            self.silence.allow(within.min(HALTED_WITHIN));
        }
        self.silence.poll(cx)
    }
}

impl<S> Sentinel<S> {
    /// `first` was read from `io` before.
    pub(super) fn new(
        io: S,
        first: Bytes,
        limits: Limits,
        patience: Patience,
        shared: Arc<Shared>,
    ) -> Self {
        shared.watched.store(true, Ordering::Release);
        Self {
            io,
            phase: Phase::Head { searched: 0 },
            pending: BytesMut::from(first),
            cleared: 0,
            limits,
            patience,
            silence: Silence::new(patience.idle),
            stuck: None,
            shared,
        }
    }

    /// The socket, and what was read from it and not handed on.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.io, self.pending.freeze())
    }

    /// A client that takes nothing keeps the library from polling anything else: neither the
    /// silence of the origin nor a halt would be noticed.
    fn poll_taken<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let within = self.patience.idle;
        let shared = &self.shared;
        let stuck = self.stuck.get_or_insert_with(|| {
            let silence = Silence::new(within).ending(shared.term());
            Stuck::new(silence, lock(&shared.session).clone())
        });
        stuck.poll(cx, within).map(Err)
    }

    /// Clears as much of `pending` as can be read. `false`: more is needed.
    fn read_on(&mut self) -> io::Result<bool> {
        if let Phase::Length(0) = self.phase {
            self.phase = Phase::Head { searched: 0 };
        }
        if self.pending.is_empty() {
            return Ok(false);
        }
        if self.shared.has_tunnel() {
            self.phase = Phase::Tunnel;
        }
        match &mut self.phase {
            Phase::Head { .. } => Ok(self.read_head()),
            Phase::Length(left) => {
                let available = self.pending.len();
                let step = usize::try_from(*left).map_or(available, |left| left.min(available));
                *left = left.saturating_sub(u64::try_from(step).unwrap_or(u64::MAX));
                self.cleared = step;
                Ok(true)
            }
            Phase::Chunked(chunks) => match chunks.read(&self.pending) {
                Ok(step) => {
                    self.cleared = step;
                    if chunks.has_ended() {
                        self.phase = Phase::Head { searched: 0 };
                    }
                    Ok(true)
                }
                Err(malformed) => {
                    // Its head has been handed on, so the refusal is the body's.
                    self.shared.refuse(malformed);
                    self.shared.broken.store(true, Ordering::Release);
                    self.phase = Phase::Over;
                    Err(io::Error::new(io::ErrorKind::InvalidData, malformed.detail))
                }
            },
            Phase::Tunnel => {
                self.cleared = self.pending.len();
                Ok(true)
            }
            Phase::Over => Ok(false),
        }
    }

    /// Those before a request (RFC 9112 §2.2).
    fn skip_empty_lines(&mut self) {
        if let Phase::Head { .. } = self.phase {
            while self.pending.starts_with(b"\r\n") {
                self.pending.advance(2);
            }
        }
    }

    /// Whether nothing is here that has yet to be read on, or half an empty line before a request.
    fn is_blank(&self) -> bool {
        let half = matches!(self.phase, Phase::Head { .. }) && *self.pending == *b"\r";
        self.pending.is_empty() || half
    }

    fn read_head(&mut self) -> bool {
        self.skip_empty_lines();
        let Phase::Head { searched } = self.phase else {
            return false;
        };
        let read = match framing::head_length(&self.pending, searched) {
            Some(length) => {
                let head = self.pending.get(..length).unwrap_or_default();
                framing::read_head(head, self.limits).map(|framing| (length, framing))
            }
            None if framing::has_bare_line_feed(&self.pending, searched) => {
                Err(framing::read_head(b"\n", self.limits)
                    .err()
                    .unwrap_or(framing::TOO_LARGE))
            }
            None if self.pending.len() > self.limits.bytes_max => Err(framing::TOO_LARGE),
            None => {
                self.phase = Phase::Head {
                    searched: self.pending.len(),
                };
                return false;
            }
        };
        match read {
            Ok((length, framing)) => {
                self.cleared = length;
                self.phase = match framing {
                    Framing::Length(length) => Phase::Length(length),
                    Framing::Chunked => {
                        Phase::Chunked(Box::new(Chunks::new(self.limits.bytes_max)))
                    }
                    Framing::Tunnel => Phase::Tunnel,
                };
            }
            Err(malformed) => self.substitute(malformed),
        }
        true
    }

    fn substitute(&mut self, malformed: Malformed) {
        self.shared.refuse(malformed);
        let head = format!(
            "GET http://malformed.invalid/ HTTP/1.1\r\nhost: malformed.invalid\r\nconnection: close\r\n{SUBSTITUTE}: {}\r\n\r\n",
            *SUBSTITUTE_KEY
        );
        self.pending.clear();
        self.pending.extend_from_slice(head.as_bytes());
        self.cleared = self.pending.len();
        self.phase = Phase::Over;
    }

    fn hand_on(&mut self, to: &mut ReadBuf<'_>) {
        let step = self.cleared.min(to.remaining());
        to.put_slice(self.pending.get(..step).unwrap_or_default());
        self.pending.advance(step);
        self.cleared = self.cleared.saturating_sub(step);
        if self.pending.is_empty() && self.pending.capacity() > 0 {
            // An idle or held connection keeps no buffer.
            self.pending = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> Sentinel<S> {
    /// Through space that the thread keeps: a buffer of its own would have to be
    /// cleared for every read, also for those that find nothing.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Taken and not borrowed: `io` may be a sentinel too.
        let mut space = SPACE.take();
        space.resize(READ_SIZE, 0);
        let mut buffer = ReadBuf::new(&mut space);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        self.pending.extend_from_slice(buffer.filled());
        SPACE.set(space);
        polled.map_ok(|()| read)
    }

    /// A body of known length needs no reading of ours: it goes from the socket
    /// to the library without a copy. `None` where that does not apply.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Option<Poll<io::Result<()>>> {
        let Phase::Length(left) = &mut self.phase else {
            return None;
        };
        if *left == 0 || !self.pending.is_empty() {
            return None;
        }
        let room = to.remaining();
        let room = usize::try_from(*left).map_or(room, |left| left.min(room));
        let mut space = ReadBuf::new(to.initialize_unfilled_to(room));
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut space);
        let read = space.filled().len();
        *left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        to.advance(read);
        if read > 0 {
            self.patience_from_now();
        }
        Some(polled)
    }

    /// Nothing came: waits, but not for ever.
    fn quiet(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.silence.poll(cx) {
                Poll::Pending => return Poll::Pending,
                // Not the client's silence, but the upstream's or a person's.
                Poll::Ready(_) if self.shared.was_busy() => {
                    self.silence.allow(self.patience.idle);
                }
                Poll::Ready(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn patience_from_now(&mut self) {
        self.silence.allow(match self.phase {
            Phase::Head { .. } if !self.pending.is_empty() => self.patience.head,
            Phase::Head { .. }
            | Phase::Length(_)
            | Phase::Chunked(_)
            | Phase::Tunnel
            | Phase::Over => self.patience.idle,
        });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sentinel<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.cleared > 0 {
                this.hand_on(to);
                return Poll::Ready(Ok(()));
            }
            if this.read_on()? {
                continue;
            }
            if let Phase::Over = this.phase {
                // Nothing more is read, and an end here would be mistaken for
                // the client's: the library closes after the refusal.
                return Poll::Pending;
            }
            let nothing = this.is_blank();
            if let Some(read) = this.poll_through(cx, to) {
                match read {
                    Poll::Ready(done) => return Poll::Ready(done),
                    Poll::Pending => return this.quiet(cx),
                }
            }
            match this.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) if nothing => {
                    this.skip_empty_lines();
                    // Empty lines are no word of a request, however many come.
                    if !this.is_blank() {
                        this.patience_from_now();
                    }
                }
                // A head that trickles in has one deadline, from its first byte.
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return this.quiet(cx),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sentinel<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.poll_taken(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.poll_taken(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The library flushes only once it has nothing left to write.
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = polled {
            this.shared.all_is_written();
        }
        this.poll_taken(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        this.poll_taken(cx, polled)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn empty_lines_do_not_keep_a_connection() {
        for piece in [&b"\r\n"[..], b"\r"] {
            let (mut client, io) = tokio::io::duplex(64);
            let patience = Patience {
                head: Duration::from_secs(5),
                idle: Duration::from_secs(20),
            };
            let limits = Limits {
                bytes_max: 1_024,
                fields_max: 10,
            };
            let shared = Arc::<Shared>::default();
            let mut sentinel = Sentinel::new(io, Bytes::new(), limits, patience, shared);
            let talks = async {
                let others = [&b"\r"[..], b"\n"];
                for turn in 0_usize..100 {
                    let said = if piece.len() == 2 {
                        piece
                    } else {
                        others[turn % 2]
                    };
                    client.write_all(said).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            let began = Instant::now();
            let mut space = [0; 16];
            let ended = tokio::select! {
                ended = sentinel.read(&mut space) => ended,
                () = talks => panic!("it lasts: {piece:?}"),
            };
            assert!(ended.is_err(), "{ended:?}");
            assert_eq!(began.elapsed().as_secs(), 20, "{piece:?}");
        }
    }
}
