//! Every metric, as typed methods. The only file that names `prometheus`.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::domain::{Attribution, Protocol, Stage};

/// What was decided: the verdicts, and what decided without one. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// Policy allowed it.
    Allow,
    /// Policy allowed it within limits.
    Constrain,
    /// It waits, or waited, for a person.
    RequireApproval,
    /// Policy refused it.
    Block,
    /// Policy halted the run, or the run was halted before.
    Halt,
    /// No verdict: refused by the fail mode, a bound, or because it cannot be judged.
    Refused,
}

impl Decided {
    const ALL: [Self; 6] = [
        Self::Allow,
        Self::Constrain,
        Self::RequireApproval,
        Self::Block,
        Self::Halt,
        Self::Refused,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Constrain => "constrain",
            Self::RequireApproval => "require_approval",
            Self::Block => "block",
            Self::Halt => "halt",
            Self::Refused => "refused",
        }
    }
}

/// Why bytes pass without a decision of their own. Every ungoverned byte has a
/// name, and reviewing for bypasses is reading this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Inside a TLS tunnel to a host on the passthrough list; the tunnel itself was judged.
    Passthrough,
    /// After an upgrade to WebSocket; the handshake was judged.
    WebSocket,
    /// Of a judged request body, behind what was captured for policy.
    RequestTail,
    /// Of an observed response body, behind what was captured for policy.
    ResponseTail,
    /// What a database client proves itself with.
    DatabaseLogin,
    /// What prepares statements of a database, and their values; each is judged
    /// when it is executed.
    DatabasePreparation,
    /// What asks a database for answers under way, or goes on with a judged one.
    DatabaseFlow,
    /// Data of a judged `COPY`.
    DatabaseCopy,
    /// A session that replicates a database, whose start was judged.
    DatabaseReplication,
}

impl Passage {
    const ALL: [Self; 9] = [
        Self::Passthrough,
        Self::WebSocket,
        Self::RequestTail,
        Self::ResponseTail,
        Self::DatabaseLogin,
        Self::DatabasePreparation,
        Self::DatabaseFlow,
        Self::DatabaseCopy,
        Self::DatabaseReplication,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::WebSocket => "websocket",
            Self::RequestTail => "request_tail",
            Self::ResponseTail => "response_tail",
            Self::DatabaseLogin => "database_login",
            Self::DatabasePreparation => "database_preparation",
            Self::DatabaseFlow => "database_flow",
            Self::DatabaseCopy => "database_copy",
            Self::DatabaseReplication => "database_replication",
        }
    }
}

/// A bound that was hit. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitHit {
    /// Held operations.
    Holds,
    /// Reports waiting to be judged.
    Reports,
    /// Connections of agents.
    Connections,
    /// Runs, activities or registered contexts.
    Sessions,
    /// A header section or body that was too large.
    TooLarge,
    /// Requests of SDKs, a second.
    Requests,
    /// Commands sent ahead of reading replies.
    Pipelined,
    /// Requests to cancel, at once or a second.
    Cancels,
    /// Memory for HTTP bodies that policy is shown.
    Bodies,
    /// Room for HTTP bodies in files.
    Spills,
}

impl LimitHit {
    const ALL: [Self; 10] = [
        Self::Holds,
        Self::Reports,
        Self::Connections,
        Self::Sessions,
        Self::TooLarge,
        Self::Requests,
        Self::Pipelined,
        Self::Cancels,
        Self::Bodies,
        Self::Spills,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Reports => "reports",
            Self::Connections => "connections",
            Self::Sessions => "sessions",
            Self::TooLarge => "too_large",
            Self::Requests => "requests",
            Self::Cancels => "cancels",
            Self::Pipelined => "pipelined",
            Self::Bodies => "bodies",
            Self::Spills => "spills",
        }
    }
}

/// What became of an HTTP body that is larger than policy sees. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverCap {
    /// Policy saw its beginning, and it streamed on.
    Partial,
    /// It was refused.
    Denied,
    /// It was written to a file first.
    Spilled,
}

impl OverCap {
    const ALL: [Self; 3] = [Self::Partial, Self::Denied, Self::Spilled];

    fn as_str(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Denied => "denied",
            Self::Spilled => "spilled",
        }
    }
}

/// Why a connection to a relay for databases did not become a session. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unaccepted {
    /// What the agent sent cannot be read, or has no place there.
    Malformed,
    /// It sent more than fits.
    TooLarge,
    /// It speaks a version that is not spoken here.
    Version,
    /// The agent's TLS: it failed, is not offered, or is required and was not asked for.
    Tls,
    /// The agent said or proved not who it is as it must.
    Credentials,
    /// It was too slow.
    Slow,
    /// There are as many sessions as there may be.
    Limit,
    /// The server cannot be reached.
    UpstreamDown,
    /// The server has no TLS as it was asked for.
    UpstreamTls,
    /// The server speaks another protocol.
    Foreign,
    /// Policy, a halt or a setting says no.
    Refused,
}

impl Unaccepted {
    const ALL: [Self; 11] = [
        Self::Malformed,
        Self::TooLarge,
        Self::Version,
        Self::Tls,
        Self::Credentials,
        Self::Slow,
        Self::Limit,
        Self::UpstreamDown,
        Self::UpstreamTls,
        Self::Foreign,
        Self::Refused,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Version => "version",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Slow => "slow",
            Self::Limit => "limit",
            Self::UpstreamDown => "upstream_down",
            Self::UpstreamTls => "upstream_tls",
            Self::Foreign => "foreign_protocol",
            Self::Refused => "refused",
        }
    }
}

/// Protocols whose connections are counted by [`Unaccepted`].
const SERVED: [Protocol; 4] = [
    Protocol::Postgresql,
    Protocol::Mysql,
    Protocol::Redis,
    Protocol::Http,
];

/// Why a segment of the journal was deleted. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentDeleted {
    /// Its last record is older than asked for.
    Age,
    /// All segments together are larger than asked for.
    Size,
    /// The disk took no more.
    Full,
    /// The same, and OpenBox Core had not been told all of it.
    FullUntold,
}

impl SegmentDeleted {
    const ALL: [Self; 4] = [Self::Age, Self::Size, Self::Full, Self::FullUntold];

    /// The word of metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Size => "size",
            Self::Full => "full",
            Self::FullUntold => "full_untold",
        }
    }
}

/// Who knows how many bytes of HTTP bodies there are.
#[derive(Default)]
struct BodiesHeld(Option<Box<dyn Fn() -> (usize, usize) + Send + Sync>>);

impl fmt::Debug for BodiesHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodiesHeld").finish_non_exhaustive()
    }
}

/// All metrics of one sidecar. Children are looked up once, here: a label
/// lookup on every operation would cost more than the increment.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    operations: Vec<IntCounter>,
    decision_seconds: Vec<Histogram>,
    attributions: Vec<IntCounter>,
    passages: Vec<IntCounter>,
    limits: Vec<IntCounter>,
    over_cap: Vec<IntCounter>,
    bodies: IntGauge,
    spilled: IntGauge,
    bodies_held: Mutex<BodiesHeld>,
    malformed: Vec<IntCounter>,
    fail_mode: [IntCounter; 2],
    holds_open: IntGauge,
    connections_open: IntGauge,
    tasks: IntGauge,
    policy_reloads: [IntCounter; 2],
    journal_failures: IntCounter,
    told_later: IntCounter,
    untold_bytes: IntGauge,
    untold_lag: IntGauge,
    journal_deleted: Vec<IntCounter>,
    state_not_written: IntCounter,
    unaccepted: Vec<IntCounter>,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Never in practice: only if two metrics had one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let operations = counters(
            &registry,
            "openbox_operations_total",
            "Operations decided, by protocol, stage and verdict.",
            &["protocol", "stage", "verdict"],
        )?;
        let decision_seconds = decision_histograms(&registry)?;
        let attributions = counters(
            &registry,
            "openbox_attributions_total",
            "Operations by the rule that attributed them.",
            &["rule"],
        )?;
        let passages = counters(
            &registry,
            "openbox_passage_bytes_total",
            "Bytes that passed without a decision of their own, by passage.",
            &["passage"],
        )?;
        let limits = counters(
            &registry,
            "openbox_limit_hits_total",
            "Bounds that were hit.",
            &["limit"],
        )?;
        let over_cap = counters(
            &registry,
            "openbox_http_over_cap_total",
            "HTTP bodies larger than policy sees, by what became of them: of requests, and of answers those denied.",
            &["choice"],
        )?;
        let malformed = counters(
            &registry,
            "openbox_malformed_total",
            "Connections that ended because one side broke the protocol.",
            &["protocol"],
        )?;
        let fail_mode = counters(
            &registry,
            "openbox_fail_mode_decisions_total",
            "Operations decided by the fail mode because policy gave no answer.",
            &["mode"],
        )?;
        let reloads = counters(
            &registry,
            "openbox_policy_reloads_total",
            "Policy reloads by result.",
            &["result"],
        )?;
        let journal_failures = counters(
            &registry,
            "openbox_journal_failures_total",
            "Writes and syncs of the journal that failed.",
            &[],
        )?;
        let journal_deleted = counters(
            &registry,
            "openbox_journal_segments_deleted_total",
            "Segments of the journal that were deleted, by reason.",
            &["reason"],
        )?;
        let unaccepted = counters(
            &registry,
            "openbox_connections_refused_total",
            "Connections of agents that became no session of a database, or of HTTP no request, by protocol and cause.",
            &["protocol", "cause"],
        )?;
        Ok(Self {
            unaccepted: SERVED
                .iter()
                .flat_map(|p| {
                    Unaccepted::ALL
                        .iter()
                        .map(move |c| [p.as_str(), c.as_str()])
                })
                .map(|labels| unaccepted.with_label_values(&labels))
                .collect(),
            operations: Protocol::ALL
                .iter()
                .flat_map(|p| Stage::ALL.iter().map(move |s| (p, s)))
                .flat_map(|(p, s)| {
                    Decided::ALL
                        .iter()
                        .map(move |d| [p.as_str(), s.as_str(), d.as_str()])
                })
                .map(|labels| operations.with_label_values(&labels))
                .collect(),
            decision_seconds,
            attributions: Attribution::ALL
                .iter()
                .map(|a| attributions.with_label_values(&[a.as_str()]))
                .collect(),
            passages: Passage::ALL
                .iter()
                .map(|p| passages.with_label_values(&[p.as_str()]))
                .collect(),
            limits: LimitHit::ALL
                .iter()
                .map(|l| limits.with_label_values(&[l.as_str()]))
                .collect(),
            over_cap: OverCap::ALL
                .iter()
                .map(|c| over_cap.with_label_values(&[c.as_str()]))
                .collect(),
            bodies: gauge(
                &registry,
                "openbox_http_bodies_bytes",
                "Memory for HTTP bodies that policy is shown.",
            )?,
            spilled: gauge(
                &registry,
                "openbox_http_spilled_bytes",
                "Bytes of HTTP bodies in files.",
            )?,
            bodies_held: Mutex::default(),
            malformed: Protocol::ALL
                .iter()
                .map(|p| malformed.with_label_values(&[p.as_str()]))
                .collect(),
            fail_mode: ["open", "closed"].map(|mode| fail_mode.with_label_values(&[mode])),
            holds_open: gauge(
                &registry,
                "openbox_holds_open",
                "Approvals a person has not decided yet.",
            )?,
            connections_open: gauge(
                &registry,
                "openbox_connections_open",
                "Agent connections open on the HTTP proxy.",
            )?,
            tasks: gauge(
                &registry,
                "openbox_tasks",
                "Tasks begun and not ended: of connections, and of the sidecar itself.",
            )?,
            policy_reloads: ["ok", "failed"].map(|result| reloads.with_label_values(&[result])),
            told_later: counter(
                &registry,
                "openbox_told_later_total",
                "Reports that OpenBox Core was told from the journal.",
            )?,
            untold_bytes: gauge(
                &registry,
                "openbox_untold_bytes",
                "Bytes of the journal that OpenBox Core may still have to be told of.",
            )?,
            untold_lag: gauge(
                &registry,
                "openbox_untold_lag_seconds",
                "Age of the oldest report that OpenBox Core was not told.",
            )?,
            journal_failures: journal_failures.with_label_values::<&str>(&[]),
            journal_deleted: SegmentDeleted::ALL
                .iter()
                .map(|reason| journal_deleted.with_label_values(&[reason.as_str()]))
                .collect(),
            state_not_written: counter(
                &registry,
                "openbox_state_write_errors_total",
                "Changes of approvals, runs and halts that the state file or its log did not take.",
            )?,
            registry,
        })
    }

    /// An operation was decided.
    pub fn decided(&self, protocol: Protocol, stage: Stage, decided: Decided, took: Duration) {
        let stages = Stage::ALL.len();
        let row = index(&Protocol::ALL, &protocol)
            .saturating_mul(stages)
            .saturating_add(index(&Stage::ALL, &stage));
        let cell = row
            .saturating_mul(Decided::ALL.len())
            .saturating_add(index(&Decided::ALL, &decided));
        if let Some(counter) = self.operations.get(cell) {
            counter.inc();
        }
        if let Some(histogram) = self.decision_seconds.get(row) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// An operation was attributed by `rule`.
    pub fn attributed(&self, rule: Attribution) {
        increase(&self.attributions, index(&Attribution::ALL, &rule), 1);
    }

    /// `bytes` passed without a decision of their own.
    pub fn passed(&self, passage: Passage, bytes: u64) {
        increase(&self.passages, index(&Passage::ALL, &passage), bytes);
    }

    /// A bound was hit.
    pub fn limit_hit(&self, limit: LimitHit) {
        increase(&self.limits, index(&LimitHit::ALL, &limit), 1);
    }

    /// This became of an HTTP body that is larger than policy sees.
    pub fn over_cap(&self, choice: OverCap) {
        increase(&self.over_cap, index(&OverCap::ALL, &choice), 1);
    }

    /// Asks `held`, whenever somebody looks, how many bytes of HTTP bodies are in memory and in files.
    pub fn bodies(&self, held: impl Fn() -> (usize, usize) + Send + Sync + 'static) {
        *self.bodies_held() = BodiesHeld(Some(Box::new(held)));
    }

    fn bodies_held(&self) -> MutexGuard<'_, BodiesHeld> {
        self.bodies_held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn look_at_bodies(&self) {
        let Some((memory, files)) = self.bodies_held().0.as_ref().map(|held| held()) else {
            return;
        };
        let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bodies.set(bytes(memory));
        self.spilled.set(bytes(files));
    }

    /// A connection of an agent that speaks `protocol`, or was to, became nothing that is served.
    pub fn unaccepted(&self, protocol: Protocol, cause: Unaccepted) {
        let row = index(&SERVED, &protocol).saturating_mul(Unaccepted::ALL.len());
        let cell = row.saturating_add(index(&Unaccepted::ALL, &cause));
        increase(&self.unaccepted, cell, 1);
    }

    /// A connection ends because one side broke the protocol.
    pub fn malformed(&self, protocol: Protocol) {
        increase(&self.malformed, index(&Protocol::ALL, &protocol), 1);
    }

    /// The fail mode let an operation pass.
    pub fn failed_open(&self) {
        increase(&self.fail_mode, 0, 1);
    }

    /// The fail mode refused an operation.
    pub fn failed_closed(&self) {
        increase(&self.fail_mode, 1, 1);
    }

    /// The state file or its log did not take a change.
    pub fn state_not_written(&self) {
        self.state_not_written.inc();
    }

    /// Approvals open now.
    pub fn holds_open(&self, open: usize) {
        self.holds_open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// An agent connected.
    pub fn connection_opened(&self) {
        self.connections_open.inc();
    }

    /// An agent's connection ended.
    pub fn connection_closed(&self) {
        self.connections_open.dec();
    }

    /// Tasks begun and not ended.
    pub fn tasks(&self, alive: usize) {
        self.tasks.set(i64::try_from(alive).unwrap_or(i64::MAX));
    }

    /// A policy was reloaded.
    pub fn policy_reloaded(&self) {
        increase(&self.policy_reloads, 0, 1);
    }

    /// A policy could not be reloaded; the last good one stays.
    pub fn policy_reload_failed(&self) {
        increase(&self.policy_reloads, 1, 1);
    }

    /// The journal could not be written or synced.
    pub fn journal_failed(&self) {
        self.journal_failures.inc();
    }

    /// A report was told from the journal.
    pub fn told_later(&self) {
        self.told_later.inc();
    }

    /// What Core was not told: so many bytes, the oldest so old.
    pub fn untold(&self, bytes: u64, oldest: Duration) {
        self.untold_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let seconds = i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX);
        self.untold_lag.set(seconds);
    }

    /// A segment of the journal was deleted.
    pub fn segment_deleted(&self, reason: SegmentDeleted) {
        let reason = index(&SegmentDeleted::ALL, &reason);
        increase(&self.journal_deleted, reason, 1);
    }

    /// The text exposition format 0.0.4.
    pub fn render(&self) -> String {
        self.look_at_bodies();
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# metrics cannot be written: {error}\n"),
        }
    }
}

/// Bounds of the decision histogram, seconds: from a remembered local verdict
/// to Core's own budget of 30 s.
const DECISION_BUCKETS: [f64; 12] = [
    0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 15.0, 30.0,
];

fn decision_histograms(registry: &Registry) -> Result<Vec<Histogram>, prometheus::Error> {
    let options = HistogramOpts::new(
        "openbox_decision_seconds",
        "Time policy took to decide, without the time a person took.",
    )
    .buckets(DECISION_BUCKETS.to_vec());
    let family = prometheus::HistogramVec::new(options, &["protocol", "stage"])?;
    register(registry, &family)?;
    Ok(Protocol::ALL
        .iter()
        .flat_map(|p| Stage::ALL.iter().map(move |s| [p.as_str(), s.as_str()]))
        .map(|labels| family.with_label_values(&labels))
        .collect())
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let family = IntCounterVec::new(Opts::new(name, help), labels)?;
    register(registry, &family)?;
    Ok(family)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    register(registry, &counter)?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    register(registry, &gauge)?;
    Ok(gauge)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: &C,
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(metric.clone()))
}

fn index<T: PartialEq>(all: &[T], one: &T) -> usize {
    all.iter()
        .position(|each| each == one)
        .unwrap_or(usize::MAX)
}

fn increase(counters: &[IntCounter], index: usize, by: u64) {
    if let Some(counter) = counters.get(index) {
        counter.inc_by(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_counted_under_its_own_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.decided(
            Protocol::Http,
            Stage::Completed,
            Decided::Block,
            Duration::from_micros(7),
        );
        metrics.passed(Passage::WebSocket, 42);
        metrics.failed_open();
        let text = metrics.render();
        for line in [
            r#"openbox_operations_total{protocol="http",stage="completed",verdict="block"} 1"#,
            r#"openbox_operations_total{protocol="http",stage="started",verdict="block"} 0"#,
            r#"openbox_decision_seconds_count{protocol="http",stage="completed"} 1"#,
            r#"openbox_passage_bytes_total{passage="websocket"} 42"#,
            r#"openbox_fail_mode_decisions_total{mode="open"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
