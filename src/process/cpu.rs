//! How much of a processor a thread has had. A deadline by the clock alone would also count what the machine did
//! otherwise: a container that has used up its share of processors waits for up to 100 ms at a time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Until when a computation may go on that never leaves its thread: over once the thread has had `within` of a
/// processor. Reading the clock is quicker than asking for that, so it is asked for only when that can be.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    by_clock: Instant,
    by_cpu: Duration,
}

impl Deadline {
    /// `within` from now, of this thread.
    pub fn after(within: Duration) -> Self {
        let now = Instant::now();
        Self {
            by_clock: now.checked_add(within).unwrap_or(now),
            by_cpu: had_by_thread().saturating_add(within),
        }
    }

    /// Whether the thread that asks, which is to be the one it was made by, has had its time.
    pub fn is_over(self) -> bool {
        Instant::now() > self.by_clock && had_by_thread() > self.by_cpu
    }
}

/// CLOCK_THREAD_CPUTIME_ID (clock_gettime(2)).
fn had_by_thread() -> Duration {
    // It is never negative.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_a_thread_does_not_have_is_not_counted() {
        let deadline = Deadline::after(Duration::from_millis(50));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!deadline.is_over());
        let mut rounds = 0_u64;
        while !deadline.is_over() {
            rounds = std::hint::black_box(rounds.wrapping_add(1));
        }
        let had = had_by_thread();
        assert!(had > deadline.by_cpu, "{had:?} {rounds}");
    }
}
