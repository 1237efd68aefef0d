//! How long a peer may say nothing, and how long it may take in all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Said of a peer that says nothing.
pub(super) const TOO_SILENT: &str = "the peer was silent for too long";
/// Said of a body that takes too long in all.
pub(super) const TOO_LONG: &str = "the body took longer than it may in all (http.body_within)";

/// When a body is over that begins now and may take so long; `None` for never.
pub(super) fn term(within: Option<Duration>) -> Option<Instant> {
    within.and_then(|within| Instant::now().checked_add(within))
}

/// Notices a peer that sends nothing for too long, without touching the timer
/// while it does send: the alarm is moved only when it rings, or when it would
/// ring too late.
#[derive(Debug)]
pub(super) struct Silence {
    until: Instant,
    /// When it is over whatever the peer says; `None` for never.
    term: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// From now, for this long.
    pub(super) fn new(within: Duration) -> Self {
        let mut silence = Self {
            until: Instant::now(),
            term: None,
            alarm: None,
        };
        silence.allow(within);
        silence
    }

    /// Whatever the peer says, this long from now.
    pub(super) fn term(within: Duration) -> Self {
        let silence = Self::new(within);
        let term = Some(silence.until);
        silence.ending(term)
    }

    /// The same, and `term` is the end of it whatever the peer says.
    pub(super) fn ending(mut self, term: Option<Instant>) -> Self {
        self.term = term;
        self.until = term.map_or(self.until, |term| self.until.min(term));
        self
    }

    /// From now again, for this long: the peer said something, or is not the
    /// one to speak.
    pub(super) fn allow(&mut self, within: Duration) {
        let now = Instant::now();
        let until = now.checked_add(within).unwrap_or(now);
        self.until = self.term.map_or(until, |term| until.min(term));
    }

    /// The error of a term that has passed.
    pub(super) fn passed(&self) -> Option<io::Error> {
        let has_passed = self.term.is_some_and(|term| term <= Instant::now());
        has_passed.then(|| io::Error::new(io::ErrorKind::TimedOut, TOO_LONG))
    }

    /// Ready once it has lasted too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let until = self.until;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if until < alarm.deadline() {
            alarm.as_mut().reset(until);
        }
        loop {
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.until <= Instant::now() {
                let silent = || io::Error::new(io::ErrorKind::TimedOut, TOO_SILENT);
                return Poll::Ready(self.passed().unwrap_or_else(silent));
            }
            alarm.as_mut().reset(self.until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn over_after(silence: &mut Silence) -> Duration {
        let from = Instant::now();
        poll_fn(|cx| silence.poll(cx)).await;
        from.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_when_it_was_last_allowed_to_be_it_later_or_earlier() {
        let second = Duration::from_secs(1);
        for (first, then) in [(5, 9), (300, 30), (7, 7)] {
            let mut silence = Silence::new(second * first);
            // The alarm is set for the first.
            let waiting = poll_fn(|cx| Poll::Ready(silence.poll(cx).is_pending())).await;
            assert!(waiting);
            silence.allow(second * then);
            let lasted = over_after(&mut silence).await;
            let late = lasted.saturating_sub(second * then);
            assert!(
                late < Duration::from_millis(10),
                "{first} {then}: {lasted:?}"
            );
            assert!(lasted >= second * then, "{first} {then}: {lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_falls_silent_is_over_at_its_term() {
        let second = Duration::from_secs(1);
        let mut silence = Silence::new(second * 5).ending(term(Some(second * 12)));
        for _ in 0..3 {
            tokio::time::advance(second * 4).await;
            silence.allow(second * 5);
        }
        assert!(silence.passed().is_some());
        let error = poll_fn(|cx| silence.poll(cx)).await;
        assert_eq!(error.to_string(), TOO_LONG);

        let mut silence = Silence::new(second * 5).ending(term(None));
        tokio::time::advance(second * 4).await;
        assert!(silence.passed().is_none());
        let error = poll_fn(|cx| silence.poll(cx)).await;
        assert_eq!(error.to_string(), TOO_SILENT);
    }
}
