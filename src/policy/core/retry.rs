//! Whether a question that got no answer is asked again, and when.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::client::{Answered, NoAnswer};

/// Pause before the first retry, doubled for each further one; half of it is
/// left to chance, so that many do not come back at once.
const PAUSE: Duration = Duration::from_millis(150);

/// What the budget holds, in tenths of a retry. Each question puts one tenth
/// in: in the long run retries add at most a tenth to Core's load.
const BUDGET_MAX: u32 = 100;
const RETRY_COSTS: u32 = 10;

/// The retries of one Core.
#[derive(Debug)]
pub(super) struct Retries {
    /// Most retries of one question.
    most: u32,
    budget: AtomicU32,
}

impl Retries {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            budget: AtomicU32::new(BUDGET_MAX),
        }
    }

    /// A new question, which earns a part of a retry.
    pub(super) fn earn(&self) {
        let earned = |budget: u32| (budget < BUDGET_MAX).then(|| budget.saturating_add(1));
        let _full = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// How long to wait before the question is asked once more, after `asked`
    /// retries; `None` if that is not worth it, not affordable, or not in time.
    pub(super) fn pause(
        &self,
        asked: u32,
        outcome: &Result<Answered, NoAnswer>,
        left: Duration,
    ) -> Option<Duration> {
        if asked >= self.most || !may_pass(outcome) {
            return None;
        }
        let pause = match outcome {
            Ok(Answered {
                retry_after: Some(after),
                ..
            }) => *after,
            Ok(_) | Err(_) => {
                let whole = PAUSE.saturating_mul(2_u32.saturating_pow(asked));
                let half = whole.checked_div(2).unwrap_or(whole);
                half.saturating_add(half.mul_f64(rand::random::<f64>()))
            }
        };
        // There must be time for an answer too.
        if pause >= left {
            return None;
        }
        let afford = |budget: u32| budget.checked_sub(RETRY_COSTS);
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, afford)
            .ok()?;
        Some(pause)
    }
}

/// Whether asking again may be answered differently. A deadline that is over is
/// over, and what was said is said.
fn may_pass(outcome: &Result<Answered, NoAnswer>) -> bool {
    match outcome {
        Ok(answered) => {
            let overloaded = answered.status == StatusCode::TOO_MANY_REQUESTS;
            (overloaded || answered.status.is_server_error()) && !answered.is_too_large()
        }
        Err(NoAnswer::Unreachable(_) | NoAnswer::BrokeOff(_)) => true,
        Err(
            NoAnswer::TooSlow(_)
            | NoAnswer::Resting(_)
            | NoAnswer::Queued(_)
            | NoAnswer::Unproven(_)
            | NoAnswer::NotHttp(_)
            | NoAnswer::TooLong(_),
        ) => false,
    }
}

/// Whether `outcome` says that Core is not there.
pub(super) fn is_absent(outcome: &Result<Answered, NoAnswer>) -> bool {
    match outcome {
        Ok(answered) => [
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ]
        .contains(&answered.status),
        Err(NoAnswer::Unreachable(_) | NoAnswer::BrokeOff(_) | NoAnswer::TooSlow(_)) => true,
        Err(
            NoAnswer::Resting(_)
            | NoAnswer::Queued(_)
            | NoAnswer::Unproven(_)
            | NoAnswer::NotHttp(_)
            | NoAnswer::TooLong(_),
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn said(status: u16, body: &str) -> Result<Answered, NoAnswer> {
        Ok(Answered {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.as_bytes().to_vec(),
            retry_after: None,
        })
    }

    fn unreachable() -> Result<Answered, NoAnswer> {
        Err(NoAnswer::Unreachable(io::Error::other("refused")))
    }

    #[test]
    fn what_may_pass_is_asked_again_and_nothing_else() {
        let large = r#"{"message": "Blob size exceeds limit"}"#;
        #[rustfmt::skip]
        let table = [
            (unreachable(),                     true),
            (said(429, ""),                     true),
            (said(500, ""),                     true),
            (said(503, ""),                     true),
            (said(500, large),                  false),
            (said(200, "{}"),                   false),
            (said(401, ""),                     false),
            (said(403, ""),                     false),
            (said(404, ""),                     false),
            (Err(NoAnswer::TooSlow(LONG)),      false),
            (Err(NoAnswer::Queued(1)),          false),
            (Err(NoAnswer::TooLong(1)),         false),
            (Err(NoAnswer::Resting(LONG)),      false),
        ];
        for (outcome, expected) in table {
            let pause = Retries::new(1).pause(0, &outcome, LONG);
            assert_eq!(pause.is_some(), expected, "{outcome:?}");
        }
    }

    #[test]
    fn pauses_grow_differ_and_end() {
        let retries = Retries::new(3);
        for asked in 0..3 {
            let whole = PAUSE * 2_u32.pow(asked);
            let pause = retries.pause(asked, &unreachable(), LONG).unwrap();
            assert!((whole / 2..=whole).contains(&pause), "{asked}: {pause:?}");
        }
        assert_eq!(retries.pause(3, &unreachable(), LONG), None);
        assert_eq!(Retries::new(0).pause(0, &unreachable(), LONG), None);
        let pauses: std::collections::HashSet<_> = (0..8)
            .filter_map(|_| Retries::new(1).pause(0, &unreachable(), LONG))
            .collect();
        assert!(pauses.len() > 1, "{pauses:?}");
    }

    #[test]
    fn core_says_when_it_wants_to_be_asked_again() {
        let after = Duration::from_secs(7);
        let outcome = Ok(Answered {
            status: StatusCode::TOO_MANY_REQUESTS,
            body: Vec::new(),
            retry_after: Some(after),
        });
        let retries = Retries::new(2);
        assert_eq!(retries.pause(1, &outcome, LONG), Some(after));
        assert_eq!(retries.pause(1, &outcome, after), None, "no time is left");
    }

    #[test]
    fn retries_are_a_tenth_of_the_questions_in_the_long_run() {
        let retries = Retries::new(1);
        let mut again = 0;
        for _ in 0..1_000 {
            retries.earn();
            if retries.pause(0, &unreachable(), LONG).is_some() {
                again += 1;
            }
        }
        assert!((100..=111).contains(&again), "{again}");
    }
}
