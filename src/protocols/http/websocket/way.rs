//! One direction of a WebSocket: from its frames to what was judged, in order.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::metrics::Passage;

use super::super::body::length;
use super::frame::Side;
use super::judge::{Judge, No};
use super::message::{Message, Messages, Next, Run};

/// Room for one read, bytes.
const READ_BYTES: usize = 16 << 10;

/// How long a message that waits may go on waiting when its sender has closed: it
/// did not take it back, but nobody waits for ever.
const GRACE: Duration = Duration::from_secs(2);

/// Why a direction ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its Close frame went through.
    Closed,
    /// Its sender or its receiver is gone.
    Gone,
    /// It was ended here.
    No(No),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way<'a, R, W> {
    from: Side,
    reads: R,
    writes: W,
    judge: &'a Judge<'a>,
    messages: Messages,
    /// What came while a message was waiting, in order.
    ahead: VecDeque<Next>,
    ahead_bytes: usize,
    /// What may go, and was not taken yet.
    out: BytesMut,
    /// Whether what went so far ends in the middle of a frame.
    inside: bool,
    /// Whether a Close frame went.
    closed: bool,
    /// When the first piece of the message that is coming had come.
    since: Option<Instant>,
}

impl<'a, R, W> Way<'a, R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    pub(super) fn new(from: Side, reads: R, writes: W, judge: &'a Judge<'a>) -> Self {
        Self {
            from,
            reads,
            writes,
            messages: Messages::new(from, judge.cap()),
            judge,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            out: BytesMut::new(),
            inside: false,
            closed: false,
            since: None,
        }
    }

    /// Relays until this direction ends. Dropped, it has lost nothing that
    /// [`Self::end`] does not still send.
    pub(super) async fn run(&mut self) -> Ended {
        match self.relay().await {
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        }
    }

    async fn relay(&mut self) -> Result<(), Ended> {
        loop {
            let next = match self.ahead.pop_front() {
                Some(next) => next,
                None => {
                    self.ahead_bytes = 0;
                    self.messages.next().map_err(No::wrong)?
                }
            };
            match next {
                Next::Nothing => {
                    if let Some(message) = self.wait().await? {
                        self.judged(message).await?;
                    }
                }
                Next::Control(frame) => self.pass(frame).await?,
                Next::Close(frame) => {
                    self.pass(frame).await?;
                    self.closed = true;
                    return Ok(());
                }
                Next::Message(message) => self.judged(message).await?,
                Next::Rest(Run { bytes, inside }) => {
                    self.inside = inside;
                    self.pass(bytes).await?;
                }
            }
        }
    }

    /// Waits for more bytes; gives out what there is of a message that comes too
    /// slowly to be waited for.
    async fn wait(&mut self) -> Result<Option<Message>, Ended> {
        if !self.messages.is_gathering() {
            self.since = None;
            self.read().await?;
            return Ok(None);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let until = since.checked_add(self.judge.waits());
        let reading = tokio::time::timeout_at(until.unwrap_or(since), self.read());
        match reading.await {
            Ok(read) => read.map(|()| None),
            Err(_) => {
                self.since = None;
                Ok(self.messages.give_up_waiting())
            }
        }
    }

    /// Cancel-safe.
    async fn read(&mut self) -> Result<(), Ended> {
        self.messages.came.reserve(READ_BYTES);
        match self.reads.read_buf(&mut self.messages.came).await {
            Ok(0) | Err(_) => Err(Ended::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Has a message judged, and sends it on.
    async fn judged(&mut self, message: Message) -> Result<(), Ended> {
        self.since = None;
        let inside = message.raw.inside;
        let judge = self.judge;
        let from = self.from;
        let asked = async {
            match from {
                Side::Client => judge.said_by_agent(message).await,
                Side::Server => judge.said_by_server(message).await,
            }
        };
        // Boxed: most of the time nothing is asked.
        let mut asked = Box::pin(asked);
        let judged = tokio::select! {
            biased;
            judged = asked.as_mut() => judged,
            ended = self.read_ahead() => return Err(ended),
        };
        drop(asked);
        let judged = judged.map_err(Ended::No)?;
        self.inside = inside;
        let sent = self.send(judged.bytes).await;
        if let Some(permit) = judged.permit {
            judge.sent(permit, sent.is_ok());
        }
        sent
    }

    /// Goes on reading while a message waits: pings must be answered, and whoever
    /// leaves must be noticed. Ends with that; cancel-safe.
    async fn read_ahead(&mut self) -> Ended {
        match self.keep_ahead().await {
            Err(ended) => ended,
            Ok(()) => Ended::Gone,
        }
    }

    async fn keep_ahead(&mut self) -> Result<(), Ended> {
        loop {
            while self.ahead_bytes <= self.judge.cap() {
                match self.messages.next().map_err(No::wrong)? {
                    Next::Nothing => break,
                    Next::Control(frame) => self.pass(frame).await?,
                    next @ Next::Close(_) => {
                        self.ahead.push_back(next);
                        tokio::time::sleep(GRACE).await;
                        return Err(Ended::No(No::Left));
                    }
                    next @ (Next::Message(_) | Next::Rest(_)) => {
                        self.ahead_bytes = self.ahead_bytes.saturating_add(bytes_of(&next));
                        self.ahead.push_back(next);
                    }
                }
            }
            if self.ahead_bytes > self.judge.cap() {
                match self.from {
                    Side::Client => self.judge.line().watch.hung_up().await,
                    Side::Server => std::future::pending().await,
                }
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// What nobody is asked about, counted under its name.
    async fn pass(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let metrics = self.judge.line().proxy.gate.metrics();
        metrics.passed(Passage::WebSocket, length(&bytes));
        self.send(bytes).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Ended> {
        self.judge
            .moved
            .fetch_add(length(&bytes), Ordering::Relaxed);
        self.out.extend_from_slice(&bytes);
        self.flush().await
    }

    /// Cancel-safe.
    async fn flush(&mut self) -> Result<(), Ended> {
        while !self.out.is_empty() {
            match self.writes.write(&self.out).await {
                Ok(0) | Err(_) => return Err(Ended::Gone),
                Ok(written) => self.out.advance(written),
            }
        }
        self.writes.flush().await.map_err(|_| Ended::Gone)
    }

    /// Sends what may still go, then `close` where a frame may begin, and ends it.
    pub(super) async fn end(&mut self, close: &[u8]) {
        if !self.inside && !self.closed {
            self.out.extend_from_slice(close);
        }
        if self.flush().await.is_ok() {
            drop(self.writes.shutdown().await);
        }
    }

    /// Reads to the end what nobody needs any more.
    pub(super) async fn hear_out(&mut self) {
        self.messages.came.clear();
        while self.read().await.is_ok() {
            self.messages.came.clear();
        }
    }
}

fn bytes_of(next: &Next) -> usize {
    // Each has a cost of its own.
    let own = size_of::<Next>();
    own.saturating_add(match next {
        Next::Message(message) => message.raw.bytes.len(),
        Next::Rest(run) => run.bytes.len(),
        Next::Nothing | Next::Control(_) | Next::Close(_) => 0,
    })
}
