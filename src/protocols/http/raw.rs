//! Bytes that pass without being read: both directions of a tunnel, counted
//! under the name of their passage, and ended when nothing moves for too long.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::metrics::{Metrics, Passage};
use crate::net::captured::named_in_hello;
use crate::net::intercept::{UNRECOGNIZED_NAME, is_same_host};

/// The first byte of what begins with TLS: a record of a handshake.
pub(super) const HANDSHAKE: u8 = 0x16;

/// Bytes moved at once in one direction.
const PIECE: usize = 16 * 1024;

/// How a tunnel is relayed.
#[derive(Debug)]
pub(super) struct Tunnel<'a> {
    pub(super) passage: Passage,
    /// Longest time in which nothing moves in either direction. Bounds also a
    /// tunnel of which one side has closed and the other never will.
    pub(super) idle_within: Duration,
    pub(super) metrics: &'a Metrics,
}

impl Tunnel<'_> {
    /// Relays until both directions have ended. Returns the bytes moved.
    pub(super) async fn relay<A, B>(&self, a: A, b: B) -> io::Result<u64>
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        self.relay_checked(a, b, None).await
    }

    /// As [`Self::relay`], of a tunnel that was judged as one to `host`: where what `client` says
    /// begins with TLS, nothing of it goes on before its hello has named this host, or none. Who
    /// names another is told so as TLS does.
    ///
    /// Cancelled, both are dropped.
    pub(super) async fn relay_to<A, B>(&self, client: A, b: B, host: &str) -> io::Result<u64>
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        self.relay_checked(client, b, Some(host)).await
    }

    async fn relay_checked<A, B>(&self, a: A, b: B, host: Option<&str>) -> io::Result<u64>
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        let (mut a_reads, mut a_writes) = tokio::io::split(a);
        let (mut b_reads, mut b_writes) = tokio::io::split(b);
        let moved = AtomicU64::new(0);
        let there = async {
            if let Some(host) = host {
                self.beginning(&mut a_reads, &mut b_writes, (host, &moved))
                    .await?;
            }
            self.one_way(&mut a_reads, &mut b_writes, &moved).await
        };
        let back = self.one_way(&mut b_reads, &mut a_writes, &moved);
        let idle = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(self.idle_within).await;
                let now = moved.load(Ordering::Relaxed);
                if now == before {
                    return;
                }
                before = now;
            }
        };
        let ended = tokio::select! {
            ended = async { tokio::try_join!(there, back) } => {
                ended.map(|_| moved.load(Ordering::Relaxed))
            }
            () = idle => Err(io::Error::new(io::ErrorKind::TimedOut, "the tunnel was silent for too long")),
        };
        if let Err(error) = &ended
            && error.get_ref().is_some_and(|error| error.is::<WrongName>())
        {
            // The client may be gone already; why the tunnel ended is worth more.
            drop(a_writes.write_all(&UNRECOGNIZED_NAME).await);
            drop(a_writes.shutdown().await);
        }
        ended
    }

    /// Passes on what comes first, once it is known whether it is a hello, and for whom.
    async fn beginning<R, W>(
        &self,
        from: &mut R,
        to: &mut W,
        (host, moved): (&str, &AtomicU64),
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut first = BytesMut::with_capacity(PIECE);
        from.read_buf(&mut first).await?;
        if first.first() == Some(&HANDSHAKE) {
            let named = named_in_hello(from, &mut first).await;
            let named = named.map_err(io::Error::other)?;
            if let Some(named) = named.filter(|named| !is_same_host(named, host)) {
                let wrong = WrongName {
                    named,
                    judged: host.into(),
                };
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, wrong));
            }
        }
        to.write_all(&first).await?;
        to.flush().await?;
        self.count(first.len(), moved);
        Ok(())
    }

    fn count(&self, bytes: usize, moved: &AtomicU64) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        moved.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.passed(self.passage, bytes);
    }

    async fn one_way<R, W>(&self, from: &mut R, to: &mut W, moved: &AtomicU64) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut piece = BytesMut::new();
        loop {
            let read = poll_fn(|cx| {
                piece.reserve(PIECE);
                let polled = pin!(from.read_buf(&mut piece)).poll(cx);
                if polled.is_pending() {
                    // Tunnels are silent most of their time, and there may be thousands.
                    piece = BytesMut::new();
                }
                polled
            });
            let read = read.await?;
            if read == 0 {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
            to.flush().await?;
            self.count(read, moved);
            piece.clear();
        }
    }
}

/// A tunnel is for one host, and what is in it for another.
#[derive(Debug)]
struct WrongName {
    named: Box<str>,
    judged: Box<str>,
}

impl fmt::Display for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { named, judged } = self;
        write!(
            f,
            "the tunnel was judged as one to \"{judged}\", and the TLS hello in it names \"{named}\""
        )
    }
}

impl std::error::Error for WrongName {}
