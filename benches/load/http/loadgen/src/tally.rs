//! What a run comes to: requests, errors, and how long answers took.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The JSON line on standard output.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Requests measured; messages, where one call is answered with many.
    requests: usize,
    /// Requests answered in all, warm-up included: what the proxy's CPU time is divided by.
    requests_total: usize,
    errors: usize,
    first_error: Option<String>,
    /// Connections opened after the first ones because the peer announced a close.
    reconnects: usize,
    seconds: f64,
    rps: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
}

#[derive(Default)]
pub(crate) struct Tally {
    latencies: Vec<Duration>,
    measured: usize,
    answered: usize,
    errors: usize,
    first_error: Option<String>,
    reconnects: usize,
    last: Option<Instant>,
}

impl Tally {
    /// An answer that counts as `requests`: as many as it has messages.
    pub(crate) fn answered(
        &mut self,
        begun: Instant,
        done: Instant,
        measured_from: Instant,
        requests: usize,
    ) {
        self.answered += requests;
        if begun >= measured_from {
            self.measured += requests;
            self.latencies.push(done - begun);
            self.last = Some(done);
        }
    }

    /// Errors of the warm-up count too: a peer has none to give away.
    pub(crate) fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    /// The peer announced a close, so that the next request takes another connection.
    pub(crate) fn reconnects(&mut self) {
        self.reconnects += 1;
    }

    /// Requests measured so far.
    pub(crate) fn measured(&self) -> usize {
        self.measured
    }

    pub(crate) fn report(mut self, measured_from: Instant) -> Report {
        self.latencies.sort_unstable();
        let seconds = self
            .last
            .map_or(0.0, |last| (last - measured_from).as_secs_f64());
        let count = f64::from(u32::try_from(self.measured).unwrap_or(u32::MAX));
        Report {
            requests: self.measured,
            requests_total: self.answered,
            errors: self.errors,
            rps: if seconds > 0.0 { count / seconds } else { 0.0 },
            seconds,
            p50_us: self.percentile_us(50),
            p90_us: self.percentile_us(90),
            p99_us: self.percentile_us(99),
            max_us: self.percentile_us(100),
            first_error: self.first_error,
            reconnects: self.reconnects,
        }
    }

    /// Nearest rank, of the sorted latencies.
    fn percentile_us(&self, percent: usize) -> f64 {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies
            .get(rank - 1)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}
