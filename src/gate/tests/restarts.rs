//! What survives a restart, and what must not.

use super::*;
use crate::policy::ApprovalState;
use crate::state::Change;

/// Ends the gate of `world`, and begins another where it was.
async fn restarted(world: World, policy: Scripted) -> World {
    World::at(ended(world).await, policy, settings())
}

/// Ends the gate of `world`; what it leaves.
async fn ended(world: World) -> TempDir {
    let World {
        gate,
        policy: _,
        folder,
        housekeeping,
    } = world;
    housekeeping.abort();
    all_wait().await;
    let ended = Arc::downgrade(&gate.inner);
    drop(gate);
    assert!(ended.upgrade().is_none(), "something still has the gate");
    folder
}

/// Asks for a person, and loses its client.
async fn abandoned(world: &World) {
    world.admitting(&world.own(), POST).await.abort();
    all_wait().await;
}

#[tokio::test(start_paused = true)]
async fn an_approval_given_after_a_restart_serves_the_identical_retry_once() {
    let world = world(asks(1));
    abandoned(&world).await;
    let asked = world.gate.approvals().pop().unwrap();
    // Once for what the policy of now says of the first, too.
    let world = restarted(world, asks(3)).await;
    let known = world.gate.approvals().pop().unwrap();
    assert_eq!(
        (known.id, known.summary, known.opened_at, known.expires_at),
        (asked.id, asked.summary, asked.opened_at, asked.expires_at)
    );
    assert_eq!(world.metric("openbox_holds_open"), "1");
    let other = Call {
        path: "/other",
        ..POST
    };
    world.approve();
    let refused = world.refusal(&world.own(), other).await;
    assert_eq!(refused.code(), "approval_pending");
    drop(world.permit(&world.own(), POST).await);
    assert_eq!(
        world.records("decision").last().unwrap()["decided_by"],
        "alice"
    );
    let again = world.refusal(&world.own(), POST).await;
    assert_eq!(again.code(), "approval_pending", "served twice");
}

#[tokio::test(start_paused = true)]
async fn a_grant_is_kept_until_it_is_used_and_no_longer() {
    let world = world(asks(1));
    abandoned(&world).await;
    world.approve();
    // Twice: what was taken up is kept as what was decided here.
    let world = restarted(world, asks(1)).await;
    let world = restarted(world, asks(1)).await;
    drop(world.permit(&world.own(), POST).await);
    assert_eq!(
        world.records("decision").last().unwrap()["decided_by"],
        "alice"
    );
    let world = restarted(world, asks(1)).await;
    let again = world.refusal(&world.own(), POST).await;
    assert_eq!(again.code(), "approval_pending", "served twice");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_told_after_a_restart() {
    let world = world(asks(1));
    abandoned(&world).await;
    world.reject();
    let world = restarted(world, asks(1)).await;
    let told = world.refusal(&world.own(), POST).await;
    let Refusal::Rejected { reason, .. } = told else {
        panic!("{told:?}")
    };
    assert_eq!((reason, world.asked()), (Reason::from("not today"), 0));
    // And forgotten once its time is over.
    pass(LIVES + Duration::from_secs(2)).await;
    let world = restarted(world, asks(0)).await;
    drop(world.permit(&world.own(), POST).await);
}

#[tokio::test(start_paused = true)]
async fn an_approval_expires_also_while_nothing_runs() {
    let world = World::new(
        asks(1),
        Settings {
            approval_lives: Duration::from_secs(2),
            ..settings()
        },
    );
    abandoned(&world).await;
    // The wall's time, by which an expiry is kept.
    std::thread::sleep(Duration::from_millis(2_100));
    let world = restarted(world, asks(0)).await;
    pass(Duration::from_secs(1)).await;
    let told = world.refusal(&world.own(), POST).await;
    assert_eq!(told.code(), "approval_expired");
    assert_eq!(world.approvals(), ["pending", "expired"]);
}

/// As a clock leaves it that was hours ahead, and has been set back since.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_lengthens_no_approval() {
    let world = world(asks(1));
    abandoned(&world).await;
    let asked = world.gate.approvals().pop().unwrap();
    let folder = ended(world).await;
    let metrics = Arc::new(Metrics::new().unwrap());
    let (store, restored) = Store::open(folder.path(), metrics.clone()).unwrap();
    let hours = Duration::from_secs(5 * 3_600);
    let [mut kept] = <[_; 1]>::try_from(restored.approvals).unwrap();
    for time in [&mut kept.opened_at, &mut kept.expires_at] {
        *time += u64::try_from(hours.as_nanos()).unwrap();
    }
    assert!(store.put(&Change::Approval(&kept)).is_ok());
    drop(store);

    let world = World::at(folder, asks(0), settings());
    let again = world.gate.approvals().pop().unwrap();
    assert_eq!((again.id, again.state.as_str()), (asked.id, "pending"));
    pass(LIVES + Duration::from_secs(2)).await;
    assert_eq!(world.approvals(), ["pending", "expired"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_of_now_forbids_no_old_approval_allows() {
    #[rustfmt::skip]
    let table = [
        (Verdict::Block,           "blocked"),
        (Verdict::Halt,            "halted"),
        (Verdict::RequireApproval, "proceed"),
        (Verdict::Allow,           "proceed"),
    ];
    for (now, expected) in table {
        let world = world(asks(1));
        abandoned(&world).await;
        world.approve();
        let world = restarted(world, Scripted::always(now)).await;
        let decision = world.admit(&world.own(), POST).await;
        assert_eq!(word(&decision), expected, "{now:?}");
        assert_eq!(world.asked(), 1, "{now:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_approval_in_core_is_looked_at_after_a_restart_and_never_asked_about() {
    let mut ask = Ruling::new(Verdict::RequireApproval, 0);
    ask.constraints = vec![Box::<str>::from("applied")];
    let first = Scripted::default().at(Stage::Started, [Ok(ask)]).polled([]);
    let world = world(first);
    abandoned(&world).await;
    let granted = Scripted::default().polled([Ok(ApprovalState::Granted)]);
    let world = restarted(world, granted).await;
    let permit = world.permit(&world.own(), POST).await;
    assert_eq!(
        &*permit.ruling().unwrap().constraints,
        [Box::<str>::from("applied")]
    );
    assert_eq!(world.asked(), 0);
}

/// Their operations may have left long before a person looks.
#[tokio::test(start_paused = true)]
async fn who_keeps_approvals_is_not_changed_by_a_restart() {
    let world = world(asks(1));
    abandoned(&world).await;
    let world = restarted(world, Scripted::default().polled([])).await;
    assert!(world.gate.approvals().is_empty());
    let world = restarted(world, asks(0)).await;
    assert!(world.gate.approvals().is_empty(), "kept though unusable");
}

#[tokio::test(start_paused = true)]
async fn a_halted_run_stays_halted_until_it_is_resumed() {
    let policy = || Scripted::always(Verdict::Allow);
    let mut world = world(policy());
    let context = context("w", "halted", Some("a"));
    tell(&world, EventKind::ActivityStarted, &context).await;
    let halted = world.activity("halted", "a");
    world.halt(&halted);
    drop(halted);
    for _ in 0..2 {
        world = restarted(world, policy()).await;
        let session = world.activity("halted", "a");
        let refused = world.refusal(&session, POST).await;
        assert_eq!(refused, Refusal::Halted(Reason::from("stop")));
        assert_eq!(word(&world.admit(&world.own(), POST).await), "halted");
    }
    let run = world.activity("halted", "a").run;
    assert!(world.gate.resume(&run, "alice"));
    drop(run);
    let world = restarted(world, policy()).await;
    drop(world.permit(&world.own(), POST).await);
}

#[tokio::test(start_paused = true)]
async fn a_halt_of_everything_stays_until_it_is_resumed() {
    let policy = || Scripted::always(Verdict::Allow);
    let agent = Settings {
        halt_scope: HaltScope::Agent,
        ..settings()
    };
    let world = World::new(policy(), agent);
    world.halt(&world.own());
    let world = restarted(world, policy()).await;
    assert_eq!(word(&world.admit(&world.own(), POST).await), "halted");
    assert!(world.gate.resume(&world.own().run, "alice"));
    let world = restarted(world, policy()).await;
    drop(world.permit(&world.own(), POST).await);
}

async fn tell(world: &World, kind: EventKind, context: &Arc<Context>) {
    let noted = world.gate.note(&event(kind, context), HOLD_WITHIN).await;
    assert_eq!(noted.refusal, None);
}

#[tokio::test(start_paused = true)]
async fn open_runs_and_activities_are_open_again_and_ended_ones_are_not() {
    let policy = || Scripted::always(Verdict::Allow);
    let world = world(policy());
    let open = context("w", "r", Some("open"));
    let ended = context("w", "r", Some("ended"));
    let other = context("w", "over", Some("b"));
    tell(&world, EventKind::WorkflowStarted, &context("w", "r", None)).await;
    for context in [&open, &ended, &other] {
        tell(&world, EventKind::ActivityStarted, context).await;
    }
    tell(&world, EventKind::ActivityCompleted, &ended).await;
    tell(&world, EventKind::WorkflowFailed, &other).await;
    let world = restarted(world, policy()).await;
    // The only one left.
    let claim = Claim::default();
    let session = world
        .gate
        .registry()
        .attribute(&claim, Timestamp(1))
        .unwrap();
    assert_eq!(session.context, open);
    let runs = world.gate.registry().all_runs();
    assert_eq!(runs.len(), 2, "the own one and the open one");
}

#[tokio::test(start_paused = true)]
async fn an_activity_that_was_refused_stays_refused_but_its_next_attempt_does_not() {
    let world = world(
        Scripted::default()
            .on_events([say(Verdict::Allow)])
            .at(Stage::Started, [say(Verdict::Block)]),
    );
    let context = context("w", "r", Some("a"));
    tell(&world, EventKind::ActivityStarted, &context).await;
    let session = world.activity("r", "a");
    assert_eq!(world.refusal(&session, POST).await.code(), "blocked");
    drop(session);
    let world = restarted(world, Scripted::always(Verdict::Allow)).await;
    let refused = world.refusal(&world.activity("r", "a"), POST).await;
    assert_eq!(refused.code(), "activity_aborted");
    let mut next = Context::clone(&context);
    next.activity.as_mut().unwrap().attempt = 2;
    tell(&world, EventKind::ActivityStarted, &Arc::new(next)).await;
    let world = restarted(world, Scripted::always(Verdict::Allow)).await;
    drop(world.permit(&world.activity("r", "a"), POST).await);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_person_after_an_answer_waits_after_a_restart() {
    #[rustfmt::skip]
    let table: [(Act, &str, &str); 2] = [
        (|world| world.approve(), "proceed",           "proceed"),
        (|world| world.reject(),  "approval_rejected", "activity_aborted"),
    ];
    for (act, expected, later) in table {
        let world = world(then(Verdict::RequireApproval));
        let context = context("w", "r", Some("a"));
        tell(&world, EventKind::ActivityStarted, &context).await;
        let session = world.activity("r", "a");
        let permit = world.permit(&session, POST).await;
        permit.report(Completion {
            ended_at: Timestamp(2),
            outcome: Outcome::Answered,
            answer: None,
            error: None,
        });
        all_wait().await;
        drop(session);
        let world = restarted(world, Scripted::always(Verdict::Allow)).await;
        let task = world.admitting(&world.activity("r", "a"), POST).await;
        assert!(!task.is_finished());
        act(&world);
        all_wait().await;
        assert_eq!(word(&task.await.unwrap()), expected);
        // And so is what was decided.
        let world = restarted(world, Scripted::always(Verdict::Allow)).await;
        let decision = world.admit(&world.activity("r", "a"), POST).await;
        assert_eq!(word(&decision), later);
    }
}

/// A disk that takes nothing: a grant that could be used again after a restart
/// must not be used now.
#[tokio::test(start_paused = true)]
async fn a_grant_whose_use_cannot_be_kept_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    for log in ["state.log.0", "state.log.1"] {
        std::os::unix::fs::symlink("/dev/full", folder.path().join(log)).unwrap();
    }
    let world = World::at(folder, asks(1), settings());
    abandoned(&world).await;
    world.approve();
    let refused = world.refusal(&world.own(), POST).await;
    assert_eq!(refused, Refusal::NotRecorded);
    assert_ne!(world.metric("openbox_state_write_errors_total"), "0");
}
