//! Leaves a Core alone that does not answer, and asks it now and then whether
//! it does again.
//!
//! Only what says that Core is not there counts: no connection, no answer in
//! time, 502, 503, 504. A plain 500 may be the question's doing, and an agent
//! must not be able to have Core taken for gone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which Core is left alone.
const FAILURES: u32 = 5;
/// For how long at first, and at most; doubled each time it fails again.
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Core is asked.
    Closed { failures: u32 },
    /// It is not asked before `until`.
    Open { until: Instant, rest: Duration },
    /// One question finds out.
    HalfOpen { rest: Duration },
}

/// Leave to ask once. Dropped without a word, it says nothing about Core.
#[derive(Debug)]
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    /// Whether this is the question that finds out.
    probe: Option<Duration>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::Closed { failures: 0 }),
        }
    }
}

impl Breaker {
    /// Leave to ask now, or how long Core is still left alone.
    pub(super) fn enter(&self, now: Instant) -> Result<Leave<'_>, Duration> {
        let mut state = self.lock();
        let probe = match *state {
            State::Closed { .. } => None,
            State::Open { until, rest } if until <= now => {
                *state = State::HalfOpen { rest };
                Some(rest)
            }
            State::Open { until, .. } => return Err(until.saturating_duration_since(now)),
            State::HalfOpen { rest } => return Err(rest),
        };
        Ok(Leave {
            breaker: self,
            probe,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// Core answered, whatever it said.
    pub(super) fn answered(mut self) {
        let mut state = self.breaker.lock();
        // A late answer to an early question says nothing about now.
        if let (None, State::Open { .. } | State::HalfOpen { .. }) = (self.probe, *state) {
            return;
        }
        *state = State::Closed { failures: 0 };
        drop(state);
        if self.probe.take().is_some() {
            tracing::info!("OpenBox Core answers again");
        }
    }

    /// Core did not answer.
    pub(super) fn failed(mut self, now: Instant) {
        let mut state = self.breaker.lock();
        let rest = match (self.probe.take(), *state) {
            (Some(rest), _) => rest.saturating_mul(2).min(REST_MAX),
            (None, State::Closed { failures }) if failures.saturating_add(1) < FAILURES => {
                let failures = failures.saturating_add(1);
                *state = State::Closed { failures };
                return;
            }
            (None, State::Closed { .. }) => REST_FIRST,
            (None, State::Open { .. } | State::HalfOpen { .. }) => return,
        };
        let until = now.checked_add(rest).unwrap_or(now);
        *state = State::Open { until, rest };
        drop(state);
        tracing::warn!(
            rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX),
            "OpenBox Core does not answer and is left alone for a while"
        );
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // Given up before it found out: the next question may.
        if let Some(rest) = self.probe {
            let until = Instant::now();
            *self.breaker.lock() = State::Open { until, rest };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker
                .enter(Instant::now())
                .unwrap()
                .failed(Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_question_at_a_time_finds_out() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES - 1);
        breaker.enter(Instant::now()).unwrap().answered();
        fail(&breaker, FAILURES - 1);
        let late = breaker.enter(Instant::now()).unwrap();
        fail(&breaker, 1);
        assert_eq!(breaker.enter(Instant::now()).unwrap_err(), REST_FIRST);
        late.answered();
        assert!(
            breaker.enter(Instant::now()).is_err(),
            "opened by a late answer"
        );
        let mut rest = REST_FIRST;
        for _ in 0..8 {
            tokio::time::advance(rest).await;
            let probe = breaker.enter(Instant::now()).unwrap();
            assert!(breaker.enter(Instant::now()).is_err(), "two at a time");
            probe.failed(Instant::now());
            rest = (rest * 2).min(REST_MAX);
            assert_eq!(breaker.enter(Instant::now()).unwrap_err(), rest);
        }
        tokio::time::advance(rest).await;
        // Given up: somebody else finds out.
        drop(breaker.enter(Instant::now()).unwrap());
        breaker.enter(Instant::now()).unwrap().answered();
        fail(&breaker, FAILURES - 1);
        assert!(breaker.enter(Instant::now()).is_ok());
    }
}
