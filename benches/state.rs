//! What survives a restart, with 9,000 approvals open: bytes of each in the
//! store, how long a start takes to have them again, and how long whoever waits
//! for one of them waits once a person has agreed. `OPENBOX_BENCH_APPROVALS`
//! says another number; run as a test, it is 200, to see that it works.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark that goes wrong must stop, and its figures are what it prints"
)]

mod exchange;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use openbox_sidecar::domain::{ApprovalId, Timestamp};
use openbox_sidecar::gate::{
    Constraints, Decision, FailMode, Gate, Govern, HaltScope, Housekeeping, Parts,
    Settings as GateSettings, Terms, Unanswered, Unasked, Unheld,
};
use openbox_sidecar::journal::{self, Journal};
use openbox_sidecar::metrics::Metrics;
use openbox_sidecar::policy::local::{LocalPolicy, Settings};
use openbox_sidecar::session::{Registry, Settings as SessionSettings, registry::Unattributed};
use openbox_sidecar::state::Store;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOLD_POLICY: &str = r#"package openbox
result := {"decision": "REQUIRE_APPROVAL", "reason": "the benchmark holds everything"}
"#;

/// Of how many wake-ups the slowest is told.
const WOKEN: usize = 100;

const TERMS: Terms = Terms {
    hold_within: Duration::from_secs(600),
    unanswered: Unanswered::AsSet,
    applies: |_| false,
    contradicts: |_| false,
    replaces: |_| false,
};

#[tokio::main]
async fn main() {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let approvals = match std::env::var("OPENBOX_BENCH_APPROVALS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) if measuring => 9_000,
        Err(_) => 200,
    };
    let folder = tempfile::tempdir().unwrap();

    let (gate, housekeeping) = opened(folder.path());
    let work = tokio::spawn(housekeeping.run());
    let waiting: Vec<_> = (0..approvals).map(|n| admit(&gate, n)).collect();
    while gate.approvals().len() < approvals {
        let refused = waiting.iter().any(tokio::task::JoinHandle::is_finished);
        assert!(!refused, "one was decided without a person");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let slowest = woken(&gate, waiting).await;
    let left = gate.approvals().len() - WOKEN;
    work.abort();
    drop((work.await, gate));

    let bytes = folder.path().join("state.redb").metadata().unwrap().len();
    let began = Instant::now();
    let (gate, housekeeping) = opened(folder.path());
    let restarted = began.elapsed();
    drop(housekeeping);
    let pending = gate.approvals();
    let pending = pending.iter().filter(|a| a.state.as_str() == "pending");
    assert_eq!(pending.count(), left, "not all were taken up again");

    println!("| {approvals} open approvals | asked | found |");
    println!("|---|---:|---:|");
    println!(
        "| bytes of each in the store | 5,120 | {} |",
        bytes / u64::try_from(left).unwrap()
    );
    println!(
        "| restart, ms | 1,000 | {:.0} |",
        restarted.as_secs_f64() * 1e3
    );
    println!(
        "| slowest of {WOKEN} wake-ups, ms | 5 | {:.3} |",
        slowest.as_secs_f64() * 1e3
    );
}

type Waiting = tokio::task::JoinHandle<(Decision, Instant)>;

/// Agrees to some, and says how long the slowest of them still waited.
async fn woken(gate: &Gate, waiting: Vec<Waiting>) -> Duration {
    let mut of_each: std::collections::HashMap<String, Waiting> = waiting
        .into_iter()
        .enumerate()
        .map(|(n, task)| (path(n), task))
        .collect();
    let every = gate.approvals().len() / WOKEN;
    let chosen: Vec<(ApprovalId, String)> = gate
        .approvals()
        .iter()
        .step_by(every)
        .take(WOKEN)
        .map(|view| {
            let (_, url) = view.summary.split_once(":8080").unwrap();
            let (path, _) = url.split_once('?').unwrap();
            (view.id.clone(), path.to_owned())
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for (id, path) in chosen {
        let task = of_each.remove(&path).unwrap();
        let began = Instant::now();
        gate.approve(&id, "bench").unwrap();
        let (decision, at) = task.await.unwrap();
        let Decision::Proceed(permit) = decision else {
            panic!("not let through: {decision:?}")
        };
        slowest = slowest.max(at.duration_since(began));
        permit.report(exchange::answer());
    }
    for task in of_each.values() {
        task.abort();
    }
    // Each holds the gate, and with it the store, until it has ended.
    for (_, task) in of_each {
        drop(task.await);
    }
    slowest
}

/// What the approval of the request with this number is called by.
fn path(number: usize) -> String {
    format!("/items/{number}")
}

fn admit(gate: &Gate, number: usize) -> Waiting {
    let gate = gate.clone();
    tokio::spawn(async move {
        let session = gate.registry().own().clone();
        let operation = Box::new(exchange::request("POST", &path(number)));
        let decision = gate.admit(operation, session, &TERMS).await;
        (decision, Instant::now())
    })
}

fn opened(folder: &Path) -> (Gate, Housekeeping) {
    let policy = folder.join("hold.rego");
    std::fs::write(&policy, HOLD_POLICY).unwrap();
    let backend = LocalPolicy::load(Settings {
        path: Some(policy),
        ..Settings::default()
    })
    .unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (state, restored) = Store::open(folder, metrics.clone()).unwrap();
    let sessions = SessionSettings {
        own: (*exchange::context()).clone(),
        unattributed: Unattributed::Session,
        runs_max: 10,
        activities_max: 10,
        contexts_max: 10,
        context_lives: Duration::from_secs(60),
        callers: openbox_sidecar::net::caller::Callers::Unknown,
    };
    let (gate, housekeeping) = Gate::new(Parts {
        backend: Arc::new(backend),
        journal: Journal::open(&journal::Settings::new(folder)).unwrap(),
        state,
        registry: Arc::new(Registry::new(sessions, Timestamp(1))),
        metrics,
        settings: GateSettings {
            judge_within: Duration::from_secs(5),
            approval_lives: Duration::from_secs(3_600),
            holds_max: 100_000,
            reports_max: 100,
            fail_mode: FailMode::Closed,
            fail_closed_for: [].into(),
            constraints: Constraints::Advisory,
            halt_scope: HaltScope::Run,
            govern: Govern::Both,
            unasked: Unasked::default(),
            unheld: Unheld::default(),
            count_after: None,
        },
    });
    gate.restore(restored);
    (gate, housekeeping)
}
