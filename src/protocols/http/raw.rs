//! Bytes that pass without being read: both directions of a tunnel, counted
//! under the name of their passage, and ended when nothing moves for too long.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::metrics::{Metrics, Passage};

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
        let (mut a_reads, mut a_writes) = tokio::io::split(a);
        let (mut b_reads, mut b_writes) = tokio::io::split(b);
        let moved = AtomicU64::new(0);
        let there = self.one_way(&mut a_reads, &mut b_writes, &moved);
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
        tokio::select! {
            ended = async { tokio::try_join!(there, back) } => {
                ended?;
                Ok(moved.load(Ordering::Relaxed))
            }
            () = idle => Err(io::Error::new(io::ErrorKind::TimedOut, "the tunnel was silent for too long")),
        }
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
            piece.clear();
            let bytes = u64::try_from(read).unwrap_or(u64::MAX);
            moved.fetch_add(bytes, Ordering::Relaxed);
            self.metrics.passed(self.passage, bytes);
        }
    }
}
