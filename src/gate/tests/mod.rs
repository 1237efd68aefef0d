//! The gate as its callers see it: decisions, and what the journal says of them.

mod core;
mod events;
mod failures;
mod halts;
mod holds;
mod joins;
mod late;
mod laws;
mod line;
mod options;
mod outcomes;
mod restarts;
mod series;
mod started;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{
    After, Constraints, Decision, FailMode, Gate, Govern, HaltScope, Parts, Permit, Refused,
    Settings, Terms, Unanswered, Unasked, Unheld,
};
use crate::domain::{
    Action, ActivityRef, Answer, ApprovalId, Capture, Captured, Completion, Context, Event,
    EventKind, Headers, HttpAnswer, HttpCall, JsonText, Operation, Outcome, Reason, Refusal, Stage,
    Timestamp, Verdict,
};
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::policy::scripted::Scripted;
use crate::policy::{PolicyBackend, PolicyError, Ruling};
use crate::process::{clock, spawn_named};
use crate::session::{self, Claim, Registry, Session};
use crate::state::{Restored, Store};

/// How long an operation of these tests waits for a person.
const HOLD_WITHIN: Duration = Duration::from_secs(25);

/// How long an approval of these tests lives.
const LIVES: Duration = Duration::from_secs(300);

const TERMS: Terms = Terms {
    hold_within: HOLD_WITHIN,
    unanswered: Unanswered::AsSet,
    applies: |name| name == "applied",
    contradicts: |name| name == "contradicted",
    replaces: |redacted| &*redacted.0 == "\"replaced\"",
};

fn settings() -> Settings {
    Settings {
        judge_within: Duration::from_secs(5),
        approval_lives: LIVES,
        holds_max: 100,
        reports_max: 100,
        fail_mode: FailMode::Closed,
        fail_closed_for: [].into(),
        constraints: Constraints::Advisory,
        halt_scope: HaltScope::Run,
        govern: Govern::Both,
        unasked: Unasked::default(),
        unheld: Unheld::default(),
        count_after: None,
    }
}

/// A gate, its journal, and the policy that answers it.
struct World<B = Scripted> {
    gate: Gate,
    policy: Arc<B>,
    folder: TempDir,
    housekeeping: JoinHandle<()>,
}

fn world(policy: Scripted) -> World {
    World::new(policy, settings())
}

impl<B: PolicyBackend + 'static> World<B> {
    fn new(policy: B, settings: Settings) -> Self {
        Self::at(tempfile::tempdir().unwrap(), policy, settings)
    }

    /// A gate that takes up what another left in `folder`.
    fn at(folder: TempDir, policy: B, settings: Settings) -> Self {
        let journal = Journal::open(&journal::Settings {
            sync_within: Duration::from_secs(3600),
            ..journal::Settings::new(folder.path())
        });
        let metrics = Arc::new(Metrics::new().unwrap());
        let state = Store::open(folder.path(), metrics.clone()).unwrap();
        Self::on(journal.unwrap(), state, metrics, folder, policy, settings)
    }

    /// A gate whose disk is full.
    fn with_a_full_disk(policy: B, settings: Settings) -> Self {
        let full = std::fs::OpenOptions::new().append(true).open("/dev/full");
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let nothing = (Store::nowhere(), Restored::default());
        let journal = Journal::on(full.unwrap(), folder.path()).unwrap();
        Self::on(journal, nothing, metrics, folder, policy, settings)
    }

    fn on(
        journal: Arc<Journal>,
        (state, restored): (Store, Restored),
        metrics: Arc<Metrics>,
        folder: TempDir,
        policy: B,
        settings: Settings,
    ) -> Self {
        let policy = Arc::new(policy);
        let registry = session::Settings {
            own: (*context("own", "own", None)).clone(),
            unattributed: session::registry::Unattributed::Session,
            runs_max: 4,
            activities_max: 4,
            contexts_max: 4,
            context_lives: Duration::from_secs(60),
            callers: crate::net::caller::Callers::Unknown,
        };
        let (gate, housekeeping) = Gate::new(Parts {
            backend: policy.clone(),
            journal,
            state,
            registry: Arc::new(Registry::new(registry, Timestamp(1))),
            metrics,
            settings,
        });
        gate.restore(restored);
        Self {
            gate,
            policy,
            folder,
            housekeeping: spawn_named("housekeeping", housekeeping.run()),
        }
    }

    /// The sidecar's own session.
    fn own(&self) -> Session {
        self.gate.registry().own().clone()
    }

    /// A session of the only activity `id` of run `run`, which this opens.
    fn activity(&self, run: &str, id: &str) -> Session {
        let context = context("w", run, Some(id));
        self.gate
            .registry()
            .open_activity(&context, Timestamp(1))
            .unwrap();
        let claim = Claim {
            run_id: Some(run),
            activity_id: Some(id),
            ..Claim::default()
        };
        let session = self.gate.registry().attribute(&claim, Timestamp(1));
        session.unwrap()
    }

    async fn admit(&self, session: &Session, call: Call<'_>) -> Decision {
        self.gate
            .admit(call.operation(session), session.clone(), &TERMS)
            .await
    }

    /// Admits in a task of its own, and lets it get as far as it can at once.
    async fn admitting(&self, session: &Session, call: Call<'_>) -> JoinHandle<Decision> {
        let (gate, session) = (self.gate.clone(), session.clone());
        let operation = call.operation(&session);
        let task = spawn_named("admit", async move {
            gate.admit(operation, session, &TERMS).await
        });
        all_wait().await;
        task
    }

    async fn permit(&self, session: &Session, call: Call<'_>) -> Permit {
        match self.admit(session, call).await {
            Decision::Proceed(permit) => permit,
            other @ (Decision::Replay(_) | Decision::Refuse(_)) => {
                panic!("not permitted: {other:?}")
            }
        }
    }

    async fn refusal(&self, session: &Session, call: Call<'_>) -> Refusal {
        refusal(self.admit(session, call).await)
    }

    /// The only approval that is open.
    fn pending(&self) -> ApprovalId {
        let all = self.gate.approvals();
        let open: Vec<_> = all
            .iter()
            .filter(|a| a.state.as_str() == "pending")
            .collect();
        assert_eq!(open.len(), 1, "{all:?}");
        open[0].id.clone()
    }

    fn approve(&self) {
        self.gate.approve(&self.pending(), "alice").unwrap();
    }

    fn reject(&self) {
        let no = Reason::from("not today");
        self.gate.reject(&self.pending(), no, "alice").unwrap();
    }

    fn halt(&self, session: &Session) {
        self.gate.halt(&session.run, &Reason::from("stop"), "alice");
    }

    fn journal(&self) -> Vec<Value> {
        self.gate.inner.parts.journal.flush().unwrap();
        let text = std::fs::read_to_string(self.folder.path().join("journal.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["record"] != "segment" && line["record"] != "checkpoint")
            .collect()
    }

    fn records(&self, kind: &str) -> Vec<Value> {
        let mut lines = self.journal();
        lines.retain(|line| line["record"] == kind);
        lines
    }

    /// `decision` of every record of this kind, in order.
    fn decided(&self, kind: &str) -> Vec<String> {
        let records = self.records(kind);
        records.iter().map(|r| text(&r["decision"])).collect()
    }

    /// `state` of every approval record, in order.
    fn approvals(&self) -> Vec<String> {
        let records = self.records("approval");
        records.iter().map(|r| text(&r["state"])).collect()
    }

    fn metric(&self, line: &str) -> String {
        let all = self.gate.metrics().render();
        let found = all.lines().find_map(|l| l.strip_prefix(line));
        found.map_or_else(|| panic!("no {line} in\n{all}"), |v| v.trim().to_owned())
    }
}

impl World {
    fn asked(&self) -> u64 {
        self.policy.asked.load(Ordering::Relaxed)
    }
}

/// What somebody does about what is held.
type Act = fn(&World);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Lets every task go on until all of them wait for something. Time stands
/// still meanwhile.
async fn all_wait() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Lets `duration` pass, and everything happen that happens in it.
async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
    all_wait().await;
}

fn refusal(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(Refused { refusal, .. }) => refusal,
        other @ (Decision::Proceed(_) | Decision::Replay(_)) => panic!("not refused: {other:?}"),
    }
}

/// `proceed`, `replay`, or the code of the refusal.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Proceed(_) => "proceed",
        Decision::Replay(_) => "replay",
        Decision::Refuse(refused) => refused.refusal.code(),
    }
}

/// `release`, or the code of the refusal.
fn after(after: &After) -> &'static str {
    match after {
        After::Release(_) => "release",
        After::Withhold(refused, _) => refused.refusal.code(),
    }
}

fn say(verdict: Verdict) -> Result<Ruling, PolicyError> {
    Ok(Ruling::new(verdict, 0))
}

fn unavailable() -> Result<Ruling, PolicyError> {
    Err(PolicyError::Unavailable(Reason::from("503")))
}

fn unjudgeable() -> Result<Ruling, PolicyError> {
    Err(PolicyError::Unjudgeable(Reason::from("not JSON")))
}

/// REQUIRE_APPROVAL at `started`, as often as it is asked for up to `times`.
fn asks(times: usize) -> Scripted {
    let ask = || say(Verdict::RequireApproval);
    Scripted::always(Verdict::Allow).at(Stage::Started, (0..times).map(|_| ask()))
}

/// ALLOW at `started`, and this at `completed`.
fn then(verdict: Verdict) -> Scripted {
    Scripted::always(Verdict::Allow).at(Stage::Completed, [say(verdict)])
}

fn context(workflow: &str, run: &str, activity: Option<&str>) -> Arc<Context> {
    Arc::new(Context {
        workflow_id: workflow.into(),
        run_id: run.into(),
        workflow_type: "t".into(),
        task_queue: "q".into(),
        activity: activity.map(|id| ActivityRef {
            id: id.into(),
            kind: "kind".into(),
            attempt: 1,
            input: JsonText::empty_array(),
        }),
    })
}

fn event(kind: EventKind, context: &Arc<Context>) -> Event {
    Event {
        id: clock::operation_id(Timestamp(1)),
        kind,
        context: context.clone(),
        at: Timestamp(1),
        fields: Vec::new(),
    }
}

/// A request, as far as these tests tell one from another.
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    body: &'a str,
    captured: Captured,
    header: Option<(&'a str, &'a str)>,
}

const POST: Call<'static> = Call {
    method: "POST",
    path: "/refunds",
    body: "{\"amount\":5}",
    captured: Captured::Whole,
    header: None,
};

impl Call<'_> {
    fn operation(self, session: &Session) -> Box<Operation> {
        let mut headers = Headers::default();
        if let Some((name, value)) = self.header {
            headers.push(name, value);
        }
        Box::new(Operation {
            id: clock::operation_id(Timestamp(1)),
            trace: clock::trace_id(),
            span: clock::span_id(),
            parent: None,
            started_at: Timestamp(1),
            context: session.context.clone(),
            attribution: session.attribution,
            fingerprint: None,
            action: Action::Http(HttpCall {
                method: self.method.into(),
                secrets: None,
                url: format!("https://api.example{}", self.path).into(),
                scheme: "https",
                host: "api.example".into(),
                port: 443,
                path: self.path.into(),
                headers,
                body: Capture {
                    trailers: None,
                    text: (!self.body.is_empty()).then(|| self.body.to_owned()),
                    bytes: 0,
                    digest: None,
                    state: self.captured,
                    ..Capture::default()
                },
                tool: None,
            }),
            reported: None,
        })
    }
}

fn answered(status: u16) -> Completion {
    Completion {
        ended_at: Timestamp(2),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(HttpAnswer {
            status,
            headers: Headers::default(),
            body: Capture::default(),
        })),
        error: None,
    }
}
