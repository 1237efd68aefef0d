//! How fast requests are taken: each waits for its turn, and is turned away
//! when that is too far off.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

/// Longest wait for a turn. An SDK that gives up first goes on without a verdict
/// where it fails open, so this is far below its own timeout.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// How much may come at once after a quiet time, in time.
const BURST: Duration = Duration::from_secs(1);

/// Turns, evenly spaced.
#[derive(Debug)]
pub(in crate::control) struct Rate {
    between: Duration,
    next: Mutex<Instant>,
}

/// The turn is too far off.
#[derive(Debug)]
pub(in crate::control) struct TooFast;

impl Rate {
    pub(in crate::control) fn new(per_second: usize) -> Self {
        let per_second = u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        let now = Instant::now();
        Self {
            between: Duration::from_secs(1)
                .checked_div(per_second)
                .unwrap_or_default(),
            // It begins after a quiet time.
            next: Mutex::new(now.checked_sub(BURST).unwrap_or(now)),
        }
    }

    /// Waits for a turn. Cancel-safe: a turn that nobody waits for is lost.
    pub(in crate::control) async fn turn(&self) -> Result<(), TooFast> {
        let now = Instant::now();
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let at = (*next).max(earliest);
            if at.saturating_duration_since(now) > TURN_WITHIN {
                return Err(TooFast);
            }
            *next = at.checked_add(self.between).unwrap_or(at);
            at
        };
        if at > now {
            time::sleep_until(at).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_what_comes_faster_waits_and_then_is_turned_away() {
        let rate = Rate::new(10);
        time::advance(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..=10 {
            rate.turn().await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        rate.turn().await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(100));
        let waiting: Vec<_> = (0..50).map(|_| rate.turn()).collect();
        let waiting = futures_join(waiting).await;
        assert_eq!(waiting, 50);
        // Turns beyond the longest wait are not given out.
        let mut turned_away = 0;
        let rate = Rate::new(1);
        let mut turns = Vec::new();
        for _ in 0..10 {
            let mut turn = Box::pin(rate.turn());
            match futures_poll(turn.as_mut()).await {
                Some(Err(TooFast)) => turned_away += 1,
                Some(Ok(())) | None => turns.push(turn),
            }
        }
        assert_eq!(turned_away, 3);
    }

    async fn futures_join(turns: Vec<impl Future<Output = Result<(), TooFast>>>) -> usize {
        let mut passed = 0;
        for turn in turns {
            passed += usize::from(turn.await.is_ok());
        }
        passed
    }

    async fn futures_poll<F: Future>(turn: std::pin::Pin<&mut F>) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = turn => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
