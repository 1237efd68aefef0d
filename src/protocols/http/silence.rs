//! How long a peer may say nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Notices a peer that sends nothing for too long, without touching the timer
/// while it does send: the alarm is moved only when it rings, or when it would
/// ring too late.
#[derive(Debug)]
pub(super) struct Silence {
    until: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// From now, for this long.
    pub(super) fn new(within: Duration) -> Self {
        let mut silence = Self {
            until: Instant::now(),
            alarm: None,
        };
        silence.allow(within);
        silence
    }

    /// From now again, for this long: the peer said something, or is not the
    /// one to speak.
    pub(super) fn allow(&mut self, within: Duration) {
        let now = Instant::now();
        self.until = now.checked_add(within).unwrap_or(now);
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
                let text = "the peer was silent for too long";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, text));
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
}
