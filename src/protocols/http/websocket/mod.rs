//! A WebSocket whose messages are judged one by one.
//!
//! What the agent says is an operation of its own, asked about before it is sent on.
//! What the server says is judged as a piece of the handshake's answer, and withheld
//! until then where answers are. Frames go on as they came, masks and all, but for a text
//! that policy redacted, which goes in a frame of its own; pings and pongs pass ahead of a
//! message that waits.

mod frame;
mod judge;
mod message;
mod way;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::domain::Refusal;
use crate::gate::Permit;
use crate::process::clock;

use super::line::Line;
use super::mask::Mask;
use frame::Side;
use judge::{Judge, No};
use way::{Ended, Way};

/// Longest wait for a peer to take what it is told at the end, and to leave.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait for the second Close frame behind the first.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Relays until both sides have closed, one is gone, or something is refused;
/// returns the bytes moved.
///
/// # Errors
/// Why it ended otherwise than by the sides' own will.
pub(super) async fn relay(
    line: &Line,
    (handshake, mask): (&Permit, Mask),
    client: Upgraded,
    server: Upgraded,
) -> io::Result<u64> {
    let moved = AtomicU64::new(0);
    let judge = Judge::new(line, handshake, &moved, mask);
    let (client_reads, client_writes) = tokio::io::split(TokioIo::new(client));
    let (server_reads, server_writes) = tokio::io::split(TokioIo::new(server));
    let mut there = Way::new(Side::Client, client_reads, server_writes, &judge);
    let mut back = Way::new(Side::Server, server_reads, client_writes, &judge);
    let ended = both(&mut there, &mut back, &judge, &moved).await;
    match ended {
        Ok(()) => {
            farewell(&mut there, &mut back, None).await;
            Ok(moved.load(Ordering::Relaxed))
        }
        Err(no) => {
            farewell(&mut there, &mut back, Some(&no)).await;
            Err(io::Error::other(no.to_client()))
        }
    }
}

async fn both<R, W>(
    there: &mut Way<'_, R, W>,
    back: &mut Way<'_, R, W>,
    judge: &Judge<'_>,
    moved: &AtomicU64,
) -> Result<(), No>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut there = std::pin::pin!(there.run());
    let mut back = std::pin::pin!(back.run());
    let mut open = [true, true];
    let closing = tokio::time::sleep(Duration::MAX);
    let mut closing = std::pin::pin!(closing);
    let mut silent = std::pin::pin!(silence(judge.idles(), moved));
    let mut halted = std::pin::pin!(judge.halted());
    loop {
        let (which, ended) = tokio::select! {
            reason = halted.as_mut() => return Err(No::refused(Refusal::Halted(reason))),
            ended = there.as_mut(), if open[0] => (0, ended),
            ended = back.as_mut(), if open[1] => (1, ended),
            () = silent.as_mut() => return Err(No::Silent),
            () = closing.as_mut() => return Ok(()),
        };
        match ended {
            Ended::No(no) => return Err(no),
            // Whoever is gone hears nothing more.
            Ended::Gone => return Ok(()),
            Ended::Closed => {
                if let Some(open) = open.get_mut(which) {
                    *open = false;
                }
                if open == [false, false] {
                    return Ok(());
                }
                let until = tokio::time::Instant::now().checked_add(CLOSE_WITHIN);
                if let Some(until) = until {
                    closing.as_mut().reset(until);
                }
            }
        }
    }
}

/// Over once nothing has moved for `within`.
async fn silence(within: Duration, moved: &AtomicU64) {
    let mut before = 0;
    loop {
        tokio::time::sleep(within).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// Ends both sides, saying why where there is something to say.
async fn farewell<R, W>(there: &mut Way<'_, R, W>, back: &mut Way<'_, R, W>, no: Option<&No>)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let (to_server, to_client) = match no {
        Some(no) => {
            // Masks need not be secret from anybody but scripts of a browser.
            let mask = clock::span_id().0.to_be_bytes();
            let [a, b, c, d, ..] = mask;
            let to_server = frame::close(Side::Client, no.code(), &no.to_server(), [a, b, c, d]);
            let to_client = frame::close(Side::Server, no.code(), &no.to_client(), [0; 4]);
            (to_server, to_client)
        }
        None => (Vec::new(), Vec::new()),
    };
    let told = async { tokio::join!(there.end(&to_server), back.end(&to_client)) };
    if tokio::time::timeout(FAREWELL_WITHIN, told).await.is_err() {
        tracing::debug!("a WebSocket's side took nothing more at its end");
        return;
    }
    // What is closed while something of it is unread is reset, and then the
    // client may not hear why.
    let heard = async { tokio::join!(there.hear_out(), back.hear_out()) };
    drop(tokio::time::timeout(FAREWELL_WITHIN, heard).await);
}
