//! What holds whatever happens in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::policy::{ApprovalState, ApprovalsAt, Judging, Later, Question};

/// xorshift64*: the same numbers for the same seed.
#[derive(Debug)]
struct Dice(AtomicU64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    fn below(&self, n: usize) -> usize {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.store(x, Ordering::Relaxed);
        let high = x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % n
    }
}

/// Answers at random, at once or later.
#[derive(Debug)]
struct Moody {
    dice: Dice,
    core: bool,
    generation: AtomicU64,
}

impl Moody {
    fn answer(&self, happened: bool) -> Result<Arc<Ruling>, PolicyError> {
        let verdict = match self.dice.below(40) {
            0 => return Err(PolicyError::Unavailable(Reason::from("503"))),
            1 => return Err(PolicyError::Unjudgeable(Reason::from("{}"))),
            2 => Verdict::Block,
            3 if !happened && self.dice.below(3) == 0 => Verdict::Halt,
            4..=5 => Verdict::Constrain,
            6..=24 => Verdict::RequireApproval,
            _ => Verdict::Allow,
        };
        Ok(Arc::new(Ruling::new(verdict, self.generation())))
    }
}

impl PolicyBackend for Moody {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        let happened = matches!(question, Question::Completed(..));
        if !self.core {
            return Judging::Now(self.answer(happened));
        }
        Judging::Later(Box::pin(async move {
            let long = u64::try_from(self.dice.below(6_000)).unwrap();
            tokio::time::sleep(Duration::from_millis(long)).await;
            self.answer(happened)
        }))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        match self.core {
            true => ApprovalsAt::Core,
            false => ApprovalsAt::Sidecar,
        }
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        Box::pin(async {
            match self.dice.below(6) {
                0 | 1 => Ok(ApprovalState::Granted),
                2 => Ok(ApprovalState::Rejected(Reason::from("no"))),
                3 => Err(PolicyError::Unavailable(Reason::from("503"))),
                _ => Ok(ApprovalState::Pending { expires_at: None }),
            }
        })
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn describe(&self) -> String {
        String::new()
    }
}

/// What is going on at once.
struct Crowd {
    world: World<Moody>,
    dice: Dice,
    sessions: Vec<Session>,
    admitting: Vec<JoinHandle<Decision>>,
    completing: Vec<JoinHandle<After>>,
    permits: Vec<Permit>,
    granted: usize,
    replayed: usize,
    parked: Mutex<Vec<super::super::Parking>>,
}

const CALLS: [Call<'static>; 3] = [
    POST,
    Call {
        path: "/other",
        ..POST
    },
    Call {
        captured: Captured::Partial,
        ..POST
    },
];

impl Crowd {
    fn new(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let policy = Moody {
            dice: Dice::new(seed ^ 0xffff),
            core: dice.below(2) == 0,
            generation: AtomicU64::new(0),
        };
        let halt_scope = [HaltScope::Run, HaltScope::Agent][dice.below(2)];
        let fail_mode = [FailMode::Open, FailMode::Closed][dice.below(2)];
        let bounds = [1, 4, 100];
        let world = World::new(
            policy,
            Settings {
                halt_scope,
                fail_mode,
                reports_max: bounds[dice.below(3)],
                holds_max: bounds[dice.below(3)],
                approval_lives: LIVES,
                ..settings()
            },
        );
        let sessions = vec![
            world.own(),
            world.activity("r", "a"),
            world.activity("s", "a"),
        ];
        Self {
            world,
            dice,
            sessions,
            admitting: Vec::new(),
            completing: Vec::new(),
            permits: Vec::new(),
            granted: 0,
            replayed: 0,
            parked: Mutex::default(),
        }
    }

    async fn step(&mut self) {
        let roll = self.dice.below(28);
        let session = self.sessions[self.dice.below(self.sessions.len())].clone();
        match roll {
            0..=7 => {
                let call = CALLS[self.dice.below(CALLS.len())];
                self.admitting
                    .push(self.world.admitting(&session, call).await);
            }
            8..=11 => {
                if let Some(permit) = self.pick_permit() {
                    let complete = async move { permit.complete(answered(200), &TERMS).await };
                    self.completing.push(spawn_named("complete", complete));
                }
            }
            12 => drop(self.pick_permit()),
            13 => {
                if let Some(permit) = self.pick_permit() {
                    permit.report(answered(200));
                }
            }
            14..=16 => self.decide(),
            17 => hang_up(&self.dice, &self.admitting),
            18 => hang_up(&self.dice, &self.completing),
            19 => self.world.halt(&session),
            20 | 21 => self.resume_all(),
            22 => drop(self.world.policy.generation.fetch_add(1, Ordering::Relaxed)),
            23 => self.begin_next_attempt(&session),
            _ => {
                let long = u64::try_from(self.dice.below(30_000)).unwrap();
                tokio::time::sleep(Duration::from_millis(long)).await;
            }
        }
        self.collect().await;
    }

    fn resume_all(&self) {
        for session in &self.sessions {
            self.world.gate.resume(&session.run, "alice");
        }
    }

    /// An aborted activity refuses everything: its next attempt does not.
    fn begin_next_attempt(&mut self, session: &Session) {
        let mut next = (*session.context).clone();
        let Some(activity) = &mut next.activity else {
            return;
        };
        activity.attempt += 1;
        let next = Arc::new(next);
        let registry = self.world.gate.registry();
        registry.open_activity(&next, Timestamp(1)).unwrap();
        let next = registry.session_of(&next);
        for known in &mut self.sessions {
            if known.context.run_id == next.context.run_id {
                *known = next.clone();
            }
        }
    }

    fn pick_permit(&mut self) -> Option<Permit> {
        let n = self.permits.len();
        (n > 0).then(|| self.permits.swap_remove(self.dice.below(n)))
    }

    fn decide(&self) {
        let mut open = self.world.gate.approvals();
        open.retain(|a| a.state.as_str() == "pending");
        if open.is_empty() {
            return;
        }
        let id = &open[self.dice.below(open.len())].id;
        let gate = &self.world.gate;
        drop(match self.dice.below(4) {
            0 => gate.reject(id, Reason::from("no"), "alice"),
            _ => gate.approve(id, "alice"),
        });
    }

    async fn collect(&mut self) {
        all_wait().await;
        for task in take_finished(&mut self.admitting) {
            match task.await {
                Ok(Decision::Proceed(permit)) => {
                    self.granted += 1;
                    self.permits.push(permit);
                }
                Ok(Decision::Replay(_)) => self.replayed += 1,
                Ok(Decision::Refuse(_)) => {}
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
        for task in take_finished(&mut self.completing) {
            match task.await {
                Ok(After::Withhold(_, Some(parking))) if self.dice.below(4) > 0 => {
                    parking.park(Box::new("the answer"));
                }
                Ok(After::Withhold(_, Some(parking))) => self.parked.lock().unwrap().push(parking),
                Ok(After::Withhold(_, None) | After::Release(_)) => {}
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
    }

    /// Everybody goes away, and everything is over.
    async fn end(&mut self) {
        self.admitting.iter().for_each(JoinHandle::abort);
        self.completing.iter().for_each(JoinHandle::abort);
        all_wait().await;
        self.collect().await;
        self.permits.clear();
        self.parked.lock().unwrap().clear();
        pass(Duration::from_secs(3600)).await;
    }
}

fn hang_up<T>(dice: &Dice, tasks: &[JoinHandle<T>]) {
    if !tasks.is_empty() {
        tasks[dice.below(tasks.len())].abort();
    }
}

fn take_finished<T>(tasks: &mut Vec<JoinHandle<T>>) -> Vec<JoinHandle<T>> {
    tasks.extract_if(.., |task| task.is_finished()).collect()
}

fn is_permit(line: &Value) -> bool {
    line["record"] == "decision" && (line["decision"] == "allow" || line["decision"] == "constrain")
}

/// Lets something out: an operation, or a withheld answer.
fn lets_out(line: &Value) -> bool {
    is_permit(line) || line["decision"] == "replay" || line["decision"] == "release"
}

fn every_permit_has_one_completion(journal: &[Value], seed: u64) {
    let ids = |kept: fn(&Value) -> bool| -> Vec<String> {
        let mut ids: Vec<_> = journal
            .iter()
            .filter(|l| kept(l))
            .map(|l| text(&l["event_id"]))
            .collect();
        ids.sort_unstable();
        ids
    };
    let permitted = ids(is_permit);
    let completed = ids(|line| line["record"] == "completion");
    assert_eq!(permitted, completed, "seed {seed}");
    let distinct: BTreeSet<_> = completed.iter().collect();
    assert_eq!(distinct.len(), completed.len(), "seed {seed}");
}

fn a_grant_lets_out_one_thing(journal: &[Value], seed: u64) {
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for line in journal {
        let approval = text(&line["approval_id"]);
        if line["record"] == "approval" {
            states
                .entry(approval)
                .or_default()
                .push(text(&line["state"]));
        } else if lets_out(line) && !approval.is_empty() {
            *used.entry(approval).or_default() += 1;
        }
    }
    for (approval, states) in &states {
        let states: Vec<_> = states.iter().map(String::as_str).collect();
        let uses = used.remove(approval).unwrap_or(0);
        let allowed = match states.as_slice() {
            ["pending"] | ["pending", "rejected" | "expired" | "cancelled"] => 0,
            ["pending", "granted"] | ["pending", "granted", "expired" | "cancelled"] => 0,
            ["pending", "granted", "consumed"] => 1,
            other => panic!("seed {seed}: {approval} went {other:?}"),
        };
        assert!(
            uses <= allowed,
            "seed {seed}: {approval} used {uses} times: {states:?}"
        );
    }
    assert!(
        used.is_empty(),
        "seed {seed}: used but never asked for: {used:?}"
    );
}

fn nothing_of_a_halted_run_goes_out(journal: &[Value], agent: bool, seed: u64) {
    let mut halted = BTreeSet::new();
    let mut everything = false;
    for line in journal {
        let run = text(&line["run_id"]);
        match line["record"].as_str() {
            Some("halt") => {
                everything = agent;
                halted.insert(run);
            }
            Some("resume") => {
                everything = false;
                halted.remove(&run);
            }
            _ if lets_out(line) => {
                let stopped = everything
                    || halted.contains(&run)
                    || (!halted.is_empty() && line["attribution"] == "own_session");
                assert!(!stopped, "seed {seed}: let out while halted: {line}");
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn grants_completions_and_halts_hold_in_any_order() {
    let (mut granted, mut replayed, mut consumed) = (0, 0, 0);
    for seed in 1..=40 {
        let mut crowd = Crowd::new(seed);
        for _ in 0..250 {
            crowd.step().await;
        }
        crowd.end().await;
        let journal = crowd.world.journal();
        assert_eq!(
            journal.iter().filter(|l| is_permit(l)).count(),
            crowd.granted,
            "seed {seed}"
        );
        every_permit_has_one_completion(&journal, seed);
        a_grant_lets_out_one_thing(&journal, seed);
        let agent = crowd.world.gate.inner.parts.settings.halt_scope == HaltScope::Agent;
        nothing_of_a_halted_run_goes_out(&journal, agent, seed);
        let holds = &crowd.world.gate.inner.holds;
        let left = (holds.all().len(), holds.pending(), holds.any_joinable());
        assert_eq!(left, (0, 0, false), "seed {seed}: held for ever");
        granted += crowd.granted;
        replayed += crowd.replayed;
        consumed += journal.iter().filter(|l| l["state"] == "consumed").count();
    }
    // The laws say little about what never happens.
    assert!(
        granted > 500 && consumed > 100 && replayed > 3,
        "{granted} {consumed} {replayed}"
    );
}
