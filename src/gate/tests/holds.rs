//! Waiting for a person where the sidecar keeps the approvals.

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_person_decides_is_what_happens() {
    #[rustfmt::skip]
    let table: [(Act, &str, &[&str]); 3] = [
        (|world| world.approve(),    "proceed",           &["pending", "granted", "consumed"]),
        (|world| world.reject(),     "approval_rejected", &["pending", "rejected"]),
        (|world| world.gate.close(), "shutting_down",     &["pending"]),
    ];
    for (act, expected, written) in table {
        let world = world(asks(1));
        let began = Instant::now();
        let task = world.admitting(&world.own(), POST).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        act(&world);
        let decision = task.await.unwrap();
        assert_eq!(word(&decision), expected);
        assert_eq!(began.elapsed(), Duration::ZERO, "{expected}: told at once");
        assert_eq!(world.approvals(), written);
    }
}

#[tokio::test(start_paused = true)]
async fn who_decided_what_stands_in_the_journal_before_the_permit() {
    let world = world(asks(1));
    let task = world.admitting(&world.own(), POST).await;
    world.approve();
    let granted = world.records("approval").pop().unwrap();
    assert_eq!(
        (&granted["state"], &granted["by"]),
        (&"granted".into(), &"alice".into())
    );
    let Decision::Proceed(permit) = task.await.unwrap() else {
        panic!("not permitted")
    };
    let line = world.records("decision").pop().unwrap();
    assert_eq!(line["decision"], "allow");
    assert_eq!(line["verdict"], "require_approval");
    assert_eq!(line["approval_id"], granted["approval_id"]);
    assert_eq!(permit.ruling().unwrap().verdict, Verdict::RequireApproval);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gives_up_before_the_approval_does() {
    let world = world(asks(1));
    let began = Instant::now();
    let refusal = world.refusal(&world.own(), POST).await;
    assert_eq!(began.elapsed(), HOLD_WITHIN);
    let Refusal::ApprovalPending {
        approval,
        retry_after,
    } = refusal
    else {
        panic!("{refusal:?}")
    };
    assert_eq!(
        (approval, retry_after),
        (world.pending(), Duration::from_secs(5))
    );
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_approval_expires_for_who_waits_and_for_who_does_not() {
    let lives = Duration::from_secs(10);
    let world = World::new(
        asks(2),
        Settings {
            approval_lives: lives,
            ..settings()
        },
    );
    let began = Instant::now();
    let refusal = world.refusal(&world.own(), POST).await;
    assert_eq!(refusal.code(), "approval_expired");
    assert_eq!(began.elapsed(), lives);
    let other = Call {
        path: "/other",
        ..POST
    };
    world.admitting(&world.own(), other).await.abort();
    pass(lives + Duration::from_secs(2)).await;
    assert_eq!(
        world.approvals(),
        ["pending", "expired", "pending", "expired"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_told_once_and_then_policy_is_asked_anew() {
    let world = world(asks(2));
    world.admitting(&world.own(), POST).await.abort();
    pass(LIVES + Duration::from_secs(20)).await;
    let told = world.refusal(&world.own(), POST).await;
    assert_eq!((told.code(), world.asked()), ("approval_expired", 1));
    let anew = world.refusal(&world.own(), POST).await;
    assert_eq!((anew.code(), world.asked()), ("approval_pending", 2));
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_what_was_rejected_is_told_so_without_asking() {
    let world = world(asks(1));
    let task = world.admitting(&world.own(), POST).await;
    world.reject();
    assert_eq!(refusal(task.await.unwrap()).code(), "approval_rejected");
    for _ in 0..2 {
        let again = world.refusal(&world.own(), POST).await;
        let Refusal::Rejected { reason, .. } = again else {
            panic!("{again:?}")
        };
        assert_eq!(reason, Reason::from("not today"));
    }
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn identical_retries_share_one_approval_and_one_of_them_uses_it() {
    let world = world(asks(9));
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(world.admitting(&world.own(), POST).await);
    }
    assert_eq!((world.gate.approvals().len(), world.asked()), (1, 1));
    world.approve();
    all_wait().await;
    let done: Vec<_> = tasks.iter().filter(|task| task.is_finished()).collect();
    assert_eq!(done.len(), 1, "the others need a person of their own");
    assert_eq!(world.gate.approvals().len(), 2);
    let mut words = Vec::new();
    for task in tasks {
        words.push(word(&task.await.unwrap()));
    }
    words.sort_unstable();
    let pending = "approval_pending";
    assert_eq!(words, [pending, pending, pending, pending, "proceed"]);
    assert_eq!(
        world
            .approvals()
            .iter()
            .filter(|s| *s == "consumed")
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_second_person_does_not_wait_longer() {
    let world = world(asks(9));
    let began = Instant::now();
    let tasks = [
        world.admitting(&world.own(), POST).await,
        world.admitting(&world.own(), POST).await,
    ];
    pass(HOLD_WITHIN - Duration::from_secs(5)).await;
    world.approve();
    for task in tasks {
        drop(task.await.unwrap());
    }
    assert_eq!(began.elapsed(), HOLD_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn only_the_identical_operation_joins() {
    let world = world(asks(99));
    let session = world.activity("r", "a");
    let same_id_elsewhere = world.activity("s", "a");
    let other_activity = world.activity("r", "b");
    world.admitting(&session, POST).await.abort();
    assert_eq!(world.gate.approvals().len(), 1);
    let json = Some(("Content-Type", "application/json"));
    #[rustfmt::skip]
    let table = [
        // session            call                                                        joins
        (&session,            POST,                                                       true),
        (&session,            Call { header: Some(("Date", "today")), ..POST },           true),
        (&session,            Call { method: "PUT", ..POST },                             false),
        (&session,            Call { path: "/refunds?n=1", ..POST },                      false),
        (&session,            Call { body: "{\"amount\":6}", ..POST },                    false),
        (&session,            Call { body: "", captured: Captured::Empty, ..POST },       false),
        (&session,            Call { header: json, ..POST },                              false),
        (&session,            Call { header: Some(("X-Method-Override", "DELETE")), ..POST }, false),
        (&same_id_elsewhere,  POST,                                                       false),
        (&other_activity,     POST,                                                       false),
        (&world.own(),        POST,                                                       false),
    ];
    for (session, call, joins) in table {
        let before = world.gate.approvals().len();
        world.admitting(session, call).await.abort();
        let opened = world.gate.approvals().len() - before;
        assert_eq!(
            opened,
            usize::from(!joins),
            "{call:?} in {:?}",
            session.context
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_seen_whole_never_joins() {
    for captured in [Captured::Partial, Captured::Skipped, Captured::WholeBinary] {
        let world = world(asks(9));
        let call = Call {
            captured,
            body: "",
            ..POST
        };
        world.admitting(&world.own(), call).await.abort();
        world.approve();
        world.admitting(&world.own(), call).await.abort();
        assert_eq!(world.gate.approvals().len(), 2, "{captured:?}");
        assert_eq!(world.asked(), 2, "{captured:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_abandons_its_wait_and_not_the_approval() {
    let world = world(asks(1));
    world.admitting(&world.own(), POST).await.abort();
    all_wait().await;
    world.approve();
    drop(world.permit(&world.own(), POST).await);
    assert_eq!(world.approvals(), ["pending", "granted", "consumed"]);
    assert_eq!(world.asked(), 2, "started once, and the completion");
}

#[tokio::test(start_paused = true)]
async fn a_retry_carries_the_constraints_it_was_approved_with() {
    let ruling = Ruling {
        constraints: vec!["applied".into()],
        policy: Some("p".into()),
        ..Ruling::new(Verdict::RequireApproval, 0)
    };
    let world = world(Scripted::always(Verdict::Allow).at(Stage::Started, [Ok(ruling)]));
    world.admitting(&world.own(), POST).await.abort();
    world.approve();
    let permit = world.permit(&world.own(), POST).await;
    assert_eq!(permit.constraints(), [Box::from("applied")]);
    assert_eq!(world.records("decision")[0]["policy"], "p");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_uses_expires_with_its_approval() {
    let world = world(asks(2));
    world.admitting(&world.own(), POST).await.abort();
    world.approve();
    pass(LIVES + Duration::from_secs(2)).await;
    assert_eq!(world.approvals(), ["pending", "granted", "expired"]);
    assert_eq!(
        world.refusal(&world.own(), POST).await.code(),
        "approval_expired"
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_reloaded_before_the_grant_has_the_last_word() {
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    #[rustfmt::skip]
    let table = [
        // new policy             decision
        (say(Allow),              "proceed"),
        (say(Constrain),          "proceed"),
        (say(RequireApproval),    "proceed"),
        (say(Block),              "blocked"),
        (say(Halt),               "halted"),
        (unjudgeable(),           "not_judgeable"),
        (unavailable(),           "policy_unavailable"),
    ];
    for (answer, expected) in table {
        let row = format!("{answer:?}");
        let world = world(Scripted::default().at(Stage::Started, [say(RequireApproval), answer]));
        let task = world.admitting(&world.own(), POST).await;
        world.policy.generation.store(1, Ordering::Relaxed);
        world.approve();
        assert_eq!(word(&task.await.unwrap()), expected, "{row}");
        assert_eq!(world.decided("decision").len(), 1, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_policy_is_not_asked_again() {
    let world = world(asks(1));
    let task = world.admitting(&world.own(), POST).await;
    world.approve();
    let decision = task.await.unwrap();
    assert_eq!((word(&decision), world.asked()), ("proceed", 1));
}

#[tokio::test(start_paused = true)]
async fn open_holds_are_bounded_and_the_bound_is_counted() {
    let world = World::new(
        asks(9),
        Settings {
            holds_max: 1,
            ..settings()
        },
    );
    let _first = world.admitting(&world.own(), POST).await;
    let other = Call {
        path: "/other",
        ..POST
    };
    assert_eq!(
        world.refusal(&world.own(), other).await.code(),
        "overloaded"
    );
    let hits = world.metric("openbox_limit_hits_total{limit=\"holds\"}");
    assert_eq!(hits, "1");
    world.reject();
    let _second = world.admitting(&world.own(), other).await;
    assert_eq!(world.approvals(), ["pending", "rejected", "pending"]);
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_made_once() {
    use super::super::DecideError;
    let world = world(asks(1));
    let unknown = ApprovalId("none".into());
    let error = world.gate.approve(&unknown, "alice").unwrap_err();
    assert!(matches!(error, DecideError::Unknown));
    world.admitting(&world.own(), POST).await.abort();
    let id = world.pending();
    world.approve();
    let late = world
        .gate
        .reject(&id, Reason::from("no"), "bob")
        .unwrap_err();
    let DecideError::Already(view) = late else {
        panic!("{late:?}")
    };
    assert_eq!(view.state.as_str(), "granted");
    drop(world.permit(&world.own(), POST).await);
}
