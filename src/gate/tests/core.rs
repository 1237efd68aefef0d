//! Approvals that Core keeps: one poller asks, and errors mean "pending".

use std::sync::Mutex;

use tokio::time::Instant;

use super::super::DecideError;
use super::*;
use crate::policy::{ApprovalState, ApprovalsAt, Judging, Later, Question};

/// Notes when it is asked about an approval, and whose.
#[derive(Debug)]
struct Core {
    script: Scripted,
    looks: Mutex<Vec<(Instant, Context)>>,
    look_takes: Duration,
}

impl Core {
    fn new(script: Scripted) -> Self {
        Self {
            script,
            looks: Mutex::default(),
            look_takes: Duration::ZERO,
        }
    }

    /// When it was asked, in ms after `began`.
    fn looks(&self, began: Instant) -> Vec<u128> {
        let looks = self.looks.lock().unwrap();
        let after = looks.iter().map(|(at, _)| at.duration_since(began));
        after.map(|after| after.as_millis()).collect()
    }
}

impl PolicyBackend for Core {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        self.script.judge(question)
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Core
    }

    fn approval<'a>(
        &'a self,
        context: &'a Context,
    ) -> Later<'a, Result<ApprovalState, PolicyError>> {
        let mut looks = self.looks.lock().unwrap();
        looks.push((Instant::now(), context.clone()));
        drop(looks);
        Box::pin(async {
            tokio::time::sleep(self.look_takes).await;
            self.script.approval(context).await
        })
    }

    fn generation(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        self.script.describe()
    }
}

type Polled = Result<ApprovalState, PolicyError>;

fn still() -> Polled {
    Ok(ApprovalState::Pending { expires_at: None })
}

fn core(times: usize, polled: impl IntoIterator<Item = Polled>) -> World<Core> {
    World::new(Core::new(asks(times).polled(polled)), settings())
}

#[tokio::test(start_paused = true)]
async fn core_is_asked_on_schedule_however_many_wait() {
    let world = core(9, std::iter::repeat_with(still).take(99));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(world.admitting(&world.own(), POST).await);
    }
    pass(Duration::from_secs(80)).await;
    for task in tasks {
        assert_eq!(refusal(task.await.unwrap()).code(), "approval_pending");
    }
    // 2.5 s, doubled, at most 15 s; and a last look a second before all five
    // waiters give up at 25 s, which moves nothing else.
    let expected = [2_500, 7_500, 17_500, 24_000, 32_500, 47_500, 62_500, 77_500];
    assert_eq!(world.policy.looks(began), expected);
    assert_eq!(world.policy.script.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_core_says_is_what_happens() {
    let no = || ApprovalState::Rejected(Reason::from("no"));
    let error = || Err(PolicyError::Unavailable(Reason::from("404")));
    let garbled = || Err(PolicyError::Unjudgeable(Reason::from("{}")));
    #[rustfmt::skip]
    let table: [(Vec<Polled>, &str, u128); 6] = [
        // polls                                              decision              after ms
        (vec![Ok(ApprovalState::Granted)],                    "proceed",            2_500),
        (vec![Ok(no())],                                      "approval_rejected",  2_500),
        (vec![Ok(ApprovalState::Expired)],                    "approval_expired",   2_500),
        (vec![still(), Ok(ApprovalState::Granted)],           "proceed",            7_500),
        (vec![error(), garbled(), Ok(ApprovalState::Granted)],"proceed",            17_500),
        (vec![error(), error(), error(), Ok(no())],           "approval_rejected",  24_000),
    ];
    for (polls, expected, ms) in table {
        let row = format!("{polls:?}");
        let world = core(1, polls);
        let began = Instant::now();
        let decision = world.admit(&world.own(), POST).await;
        assert_eq!(word(&decision), expected, "{row}");
        assert_eq!(began.elapsed().as_millis(), ms, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_hangs_is_given_up_and_tried_again() {
    let mut policy = Core::new(asks(1).polled([]));
    policy.look_takes = Duration::from_secs(3600);
    let world = World::new(policy, settings());
    let began = Instant::now();
    let refusal = world.refusal(&world.own(), POST).await;
    assert_eq!(refusal.code(), "approval_pending");
    assert_eq!(began.elapsed(), HOLD_WITHIN);
    assert!(world.policy.looks(began).len() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_joins_and_uses_what_was_decided_meanwhile() {
    let polls = [
        still(),
        still(),
        still(),
        still(),
        Ok(ApprovalState::Granted),
    ];
    let world = core(1, polls);
    let first = world.refusal(&world.own(), POST).await;
    assert_eq!(first.code(), "approval_pending");
    pass(Duration::from_secs(10)).await;
    let permit = world.permit(&world.own(), POST).await;
    permit.report(answered(200));
    all_wait().await;
    assert_eq!(world.policy.script.asked.load(Ordering::Relaxed), 2);
    let by: Vec<_> = world
        .records("approval")
        .iter()
        .map(|r| text(&r["by"]))
        .collect();
    assert_eq!(by, ["", "core", ""]);
}

#[tokio::test(start_paused = true)]
async fn core_is_asked_no_more_once_the_approval_is_over() {
    let lives = Duration::from_secs(20);
    let policy = Core::new(asks(1).polled(std::iter::repeat_with(still).take(99)));
    let world = World::new(
        policy,
        Settings {
            approval_lives: lives,
            ..settings()
        },
    );
    let began = Instant::now();
    let refusal = world.refusal(&world.own(), POST).await;
    assert_eq!(refusal.code(), "approval_expired");
    assert_eq!(began.elapsed(), lives);
    pass(Duration::from_secs(60)).await;
    assert_eq!(world.policy.looks(began), [2_500, 7_500, 17_500, 19_000]);
    assert_eq!(world.approvals(), ["pending", "expired"]);
}

#[tokio::test(start_paused = true)]
async fn two_operations_of_one_approval_are_two_holds() {
    let ask = || {
        Ok(Ruling {
            approval: Some(crate::policy::Approval {
                id: Some(ApprovalId("core-1".into())),
                expires_at: None,
            }),
            ..Ruling::new(Verdict::RequireApproval, 0)
        })
    };
    let granted = || Ok(ApprovalState::Granted);
    let script = Scripted::always(Verdict::Allow)
        .at(Stage::Started, [ask(), ask()])
        .polled([granted(), granted()]);
    let world = World::new(Core::new(script), settings());
    let session = world.activity("r", "a");
    let first = world.admitting(&session, POST).await;
    let second = world
        .admitting(
            &session,
            Call {
                path: "/other",
                ..POST
            },
        )
        .await;
    assert_eq!(world.gate.approvals().len(), 2);
    for task in [first, second] {
        assert_eq!(word(&task.await.unwrap()), "proceed");
    }
    let looks = world.policy.looks.lock().unwrap();
    let asked: Vec<_> = looks
        .iter()
        .map(|(_, c)| c.activity.as_ref().unwrap().id.to_string())
        .collect();
    assert_eq!(asked, ["a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn an_operation_of_no_activity_is_asked_about_by_its_fingerprint() {
    let world = core(2, [Ok(ApprovalState::Granted), Ok(ApprovalState::Granted)]);
    drop(world.permit(&world.own(), POST).await);
    drop(world.permit(&world.own(), POST).await);
    let looks = world.policy.looks.lock().unwrap();
    let ids: Vec<_> = looks
        .iter()
        .map(|(_, c)| c.activity.as_ref().unwrap().id.clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0].len(), 32);
}

#[tokio::test(start_paused = true)]
async fn what_core_decides_cannot_be_decided_here() {
    let world = core(1, []);
    world.admitting(&world.own(), POST).await.abort();
    let id = world.pending();
    let error = world.gate.approve(&id, "alice").unwrap_err();
    assert!(matches!(error, DecideError::InCore));
    assert_eq!(world.approvals(), ["pending"]);
}

/// Asks slowly, and writes down what was asked in which order.
#[derive(Debug)]
struct Heard {
    core: Core,
    order: Mutex<Vec<&'static str>>,
}

impl PolicyBackend for Heard {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        Judging::Later(Box::pin(async move {
            let what = match question {
                Question::Started(_) => "started",
                Question::Completed(..) => "completed",
                Question::Event(event) => event.kind.as_str(),
            };
            self.order.lock().unwrap().push(what);
            match self.core.judge(question) {
                Judging::Now(answer) => answer,
                Judging::Later(answer) => answer.await,
            }
        }))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Core
    }

    fn approval<'a>(
        &'a self,
        context: &'a Context,
    ) -> Later<'a, Result<ApprovalState, PolicyError>> {
        self.core.approval(context)
    }

    fn generation(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        self.core.describe()
    }
}

fn heard(script: Scripted) -> World<Heard> {
    let policy = Heard {
        core: Core::new(script.taking(Duration::from_secs(1)).polled([])),
        order: Mutex::default(),
    };
    World::new(policy, settings())
}

#[tokio::test(start_paused = true)]
async fn what_follows_an_outcome_in_its_activity_is_asked_after_it() {
    let world = heard(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    world.permit(&session, POST).await.report(answered(200));
    let began = Instant::now();
    let next = world.admitting(&session, POST).await;
    // Another activity waits for nobody.
    let other = world.activity("r2", "b");
    world.permit(&other, POST).await.report(answered(200));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    // Not dropped: that would be one more outcome.
    let next = next.await.unwrap();
    assert_eq!(word(&next), "proceed");
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    world.permit(&other, POST).await.report(answered(200));
    let ended = event(EventKind::ActivityCompleted, &other.context);
    world.gate.note(&ended, HOLD_WITHIN).await;
    let order = world.policy.order.lock().unwrap().clone();
    #[rustfmt::skip]
    let expected = [
        // a       a            b          a again    b            b again    b again      b
        "started", "completed", "started", "started", "completed", "started", "completed", "ActivityCompleted",
    ];
    assert_eq!(order, expected);
}

#[tokio::test(start_paused = true)]
async fn a_refused_outcome_counts_for_what_was_begun_before_it_was_judged() {
    let script = Scripted::always(Verdict::Allow).at(Stage::Completed, [say(Verdict::Block)]);
    let world = heard(script);
    let session = world.activity("r", "a");
    world.permit(&session, POST).await.report(answered(200));
    let decision = world.admit(&session, POST).await;
    assert_eq!(word(&decision), "activity_aborted");
    assert_eq!(
        *world.policy.order.lock().unwrap(),
        ["started", "completed"]
    );
}

#[tokio::test(start_paused = true)]
async fn outcomes_side_by_side_do_not_wait_for_each_other() {
    let world = heard(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    let mut permits = Vec::new();
    for _ in 0..8 {
        permits.push(world.permit(&session, POST).await);
    }
    let began = Instant::now();
    for permit in permits {
        permit.report(answered(200));
    }
    assert_eq!(word(&world.admit(&session, POST).await), "proceed");
    // One round trip for all eight, and one for what follows.
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_never_judged_delays_what_follows_once_and_a_halt_ends_the_wait() {
    let world = heard(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    let stuck = session.activity.as_ref().unwrap().untold.add();
    let began = Instant::now();
    assert_eq!(word(&world.admit(&session, POST).await), "proceed");
    let limit = settings().judge_within + Duration::from_secs(1);
    assert_eq!(began.elapsed(), limit);
    let waiting = world.admitting(&session, POST).await;
    world.halt(&session);
    assert_eq!(word(&waiting.await.unwrap()), "halted");
    assert_eq!(began.elapsed(), limit);
    drop(stuck);
}
