//! The `completed` stage: what becomes of an answer, and of what comes later.

use super::super::Parking;
use super::*;

impl<B: PolicyBackend + 'static> World<B> {
    /// Completes in a task of its own, and lets it get as far as it can at once.
    async fn completing(&self, permit: Permit) -> JoinHandle<After> {
        let task = spawn_named("complete", async move {
            permit.complete(answered(200), &TERMS).await
        });
        all_wait().await;
        task
    }

    /// The place of an answer whose wait for a person was too short.
    async fn parking(&self, session: &Session, call: Call<'_>) -> Parking {
        let permit = self.permit(session, call).await;
        match permit.complete(answered(200), &TERMS).await {
            After::Withhold(refused, Some(parking)) => {
                assert_eq!(refused.refusal.code(), "approval_pending");
                parking
            }
            other @ (After::Release(_) | After::Withhold(..)) => {
                panic!("not to be parked: {other:?}")
            }
        }
    }

    async fn replayed(&self, session: &Session, call: Call<'_>) -> &'static str {
        match self.admit(session, call).await {
            Decision::Replay(replay) => *replay.parked.downcast::<&'static str>().unwrap(),
            other @ (Decision::Proceed(_) | Decision::Refuse(_)) => {
                panic!("not replayed: {other:?}")
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_about_an_outcome_has_its_consequence() {
    use FailMode::{Closed, Open};
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    #[rustfmt::skip]
    let table = [
        // answer              fail mode  in enforce            observed              later in the activity
        (say(Allow),           Closed,    "release",            "observed",           "proceed"),
        (say(Constrain),       Closed,    "release",            "observed",           "proceed"),
        (say(RequireApproval), Closed,    "approval_pending",   "require_approval",   "approval_pending"),
        (say(Block),           Open,      "outcome_blocked",    "outcome_blocked",    "activity_aborted"),
        (say(Halt),            Open,      "halted",             "halted",             "halted"),
        (unavailable(),        Closed,    "policy_unavailable", "policy_unavailable", "proceed"),
        (unavailable(),        Open,      "release",            "observed",           "proceed"),
        (unjudgeable(),        Closed,    "not_judgeable",      "not_judgeable",      "proceed"),
        (unjudgeable(),        Open,      "not_judgeable",      "not_judgeable",      "proceed"),
    ];
    for slowly in [None, Some(Duration::from_secs(1))] {
        for (answer, fail_mode, enforced, observed, later) in table.clone() {
            for enforce in [true, false] {
                let row = format!("{answer:?} {fail_mode:?} enforce: {enforce} {slowly:?}");
                let mut policy = Scripted::always(Allow).at(Stage::Completed, [answer.clone()]);
                if let Some(long) = slowly {
                    policy = policy.taking(long);
                }
                let world = World::new(
                    policy,
                    Settings {
                        fail_mode,
                        ..settings()
                    },
                );
                let session = world.activity("r", "a");
                let permit = world.permit(&session, POST).await;
                let expected = if enforce {
                    let end = permit.complete(answered(404), &TERMS).await;
                    assert_eq!(after(&end), enforced, "{row}");
                    enforced
                } else {
                    permit.report(answered(404));
                    observed
                };
                pass(Duration::from_secs(2)).await;
                let lines = world.records("completion");
                assert_eq!(lines.len(), 1, "{row}");
                assert_eq!(lines[0]["decision"], expected, "{row}");
                assert_eq!(lines[0]["outcome"], "answered", "{row}");
                let by_fail_mode = answer == unavailable();
                assert_eq!(
                    lines[0].get("by_fail_mode").is_some(),
                    by_fail_mode,
                    "{row}"
                );
                let other = Call {
                    path: "/later",
                    ..POST
                };
                let next = world.admit(&session, other).await;
                let waits = enforce && expected == "approval_pending";
                let later = if waits { "proceed" } else { later };
                assert_eq!(word(&next), later, "{row}");
                let withheld = u64::from(enforce && enforced != "release");
                assert_eq!(world.gate.tally().withheld, withheld, "{row}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_withheld_by_its_protocol_is_refused_whatever_policy_says() {
    use FailMode::{Closed, Open};
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    #[rustfmt::skip]
    let table = [
        // answer              fail mode  refused               later in the activity
        (say(Allow),           Closed,    "outcome_blocked",    "proceed"),
        (say(Constrain),       Closed,    "outcome_blocked",    "proceed"),
        (say(RequireApproval), Closed,    "outcome_blocked",    "proceed"),
        (say(Block),           Open,      "outcome_blocked",    "activity_aborted"),
        (say(Halt),            Open,      "halted",             "halted"),
        (unavailable(),        Closed,    "policy_unavailable", "proceed"),
        (unavailable(),        Open,      "outcome_blocked",    "proceed"),
    ];
    for (answer, fail_mode, expected, later) in table {
        let row = format!("{answer:?} {fail_mode:?}");
        let policy = Scripted::always(Allow).at(Stage::Completed, [answer.clone()]);
        let settings = Settings {
            fail_mode,
            ..settings()
        };
        let world = World::new(policy, settings);
        let session = world.activity("r", "a");
        let permit = world.permit(&session, POST).await;
        let refused = permit.withhold(answered(200), "too large".into()).await;
        assert_eq!(refused.refusal.code(), expected, "{row}");
        pass(Duration::from_secs(2)).await;
        assert_eq!(world.decided("completion"), [expected], "{row}");
        assert_eq!(world.gate.tally().withheld, 1, "{row}");
        // No person is asked for what nobody gets.
        assert!(world.records("approval").is_empty(), "{row}");
        let other = Call {
            path: "/later",
            ..POST
        };
        assert_eq!(word(&world.admit(&session, other).await), later, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_withheld_answer_whose_judging_is_dropped_is_recorded_once() {
    let world = world(Scripted::always(Verdict::Allow).taking(Duration::from_secs(1)));
    let permit = world.permit(&world.own(), POST).await;
    let task = spawn_named("withhold", async move {
        permit.withhold(answered(200), "too large".into()).await
    });
    all_wait().await;
    task.abort();
    pass(Duration::from_secs(3)).await;
    let lines = world.records("completion");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["http_status_code"], 200);
}

#[tokio::test(start_paused = true)]
async fn a_redacted_answer_is_withheld_whatever_the_verdict() {
    for verdict in [Verdict::Allow, Verdict::Constrain, Verdict::RequireApproval] {
        let ruling = Ruling {
            redacted: Some(JsonText::empty_array()),
            ..Ruling::new(verdict, 0)
        };
        let policy = Scripted::always(Verdict::Allow).at(Stage::Completed, [Ok(ruling)]);
        let world = world(policy);
        let permit = world.permit(&world.own(), POST).await;
        let end = permit.complete(answered(200), &TERMS).await;
        assert_eq!(after(&end), "constraint_not_applicable", "{verdict}");
        assert_eq!(world.gate.approvals().len(), 0, "{verdict}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redaction_that_the_protocol_applies_comes_with_the_release() {
    let replacement = JsonText("\"replaced\"".into());
    for verdict in [Verdict::Allow, Verdict::RequireApproval] {
        let ruling = Ruling {
            redacted: Some(replacement.clone()),
            ..Ruling::new(verdict, 0)
        };
        let policy = Scripted::always(Verdict::Allow).at(Stage::Completed, [Ok(ruling)]);
        let world = world(policy);
        let permit = world.permit(&world.own(), POST).await;
        let completing = spawn_named("completing", async move {
            permit.complete(answered(200), &TERMS).await
        });
        pass(Duration::from_secs(1)).await;
        for approval in world.gate.approvals() {
            world.gate.approve(&approval.id, "test").unwrap();
        }
        match completing.await.unwrap() {
            After::Release(redacted) => assert_eq!(redacted.as_ref(), Some(&replacement)),
            other @ After::Withhold(..) => panic!("{verdict}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redaction_of_what_has_gone_out_is_not_built_on() {
    let ruling = Ruling {
        redacted: Some(JsonText("\"replaced\"".into())),
        ..Ruling::new(Verdict::Allow, 0)
    };
    let policy = Scripted::always(Verdict::Allow).at(Stage::Completed, [Ok(ruling)]);
    let world = world(policy);
    let session = world.activity("r", "a");
    world.permit(&session, POST).await.report(answered(200));
    let lines = world.records("completion");
    assert_eq!(lines[0]["decision"], "constraint_not_applicable");
    let next = world.admit(&session, POST).await;
    assert_eq!(word(&next), "activity_aborted");
}

#[tokio::test(start_paused = true)]
async fn a_redaction_of_what_nobody_got_is_recorded_and_ends_nothing() {
    let ruling = Ruling {
        redacted: Some(JsonText("\"replaced\"".into())),
        ..Ruling::new(Verdict::Allow, 0)
    };
    let policy = Scripted::always(Verdict::Allow)
        .at(Stage::Completed, [Ok(ruling.clone()), Ok(ruling)])
        .taking(Duration::from_secs(1));
    let world = world(policy);
    let session = world.activity("r", "a");
    // Its client leaves while it is judged.
    let permit = world.permit(&session, POST).await;
    world.completing(permit).await.abort();
    pass(Duration::from_secs(3)).await;
    let lines = world.records("completion");
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["decision"], &lines[0]["redacted"]),
        (&"observed".into(), &true.into())
    );
    let next = world.admit(&session, POST).await;
    assert_eq!(word(&next), "proceed");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_is_recorded_as_abandoned_once() {
    for policy in [
        Scripted::always(Verdict::Allow),
        Scripted::always(Verdict::Allow).taking(Duration::from_secs(1)),
        Scripted::always(Verdict::Allow).polled([]),
    ] {
        let world = world(policy);
        drop(world.permit(&world.own(), POST).await);
        pass(Duration::from_secs(2)).await;
        let lines = world.records("completion");
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["outcome"], "abandoned");
        assert_eq!(world.asked(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_dropped_while_it_is_judged_is_recorded_once_as_it_was() {
    let world = world(Scripted::always(Verdict::Allow).taking(Duration::from_secs(1)));
    let permit = world.permit(&world.own(), POST).await;
    world.completing(permit).await.abort();
    pass(Duration::from_secs(3)).await;
    let lines = world.records("completion");
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["outcome"], &lines[0]["http_status_code"]),
        (&"answered".into(), &200.into())
    );
    assert_eq!(lines[0]["decision"], "observed");
}

#[tokio::test(start_paused = true)]
async fn a_held_answer_goes_out_as_a_person_decides() {
    #[rustfmt::skip]
    let table: [(Act, &str, &[&str]); 3] = [
        (|world| world.approve(),    "release",           &["pending", "granted", "consumed"]),
        (|world| world.reject(),     "approval_rejected", &["pending", "rejected"]),
        (|world| world.gate.close(), "shutting_down",     &["pending", "cancelled"]),
    ];
    for (act, expected, written) in table {
        let world = world(then(Verdict::RequireApproval));
        let permit = world.permit(&world.own(), POST).await;
        let task = world.completing(permit).await;
        assert_eq!(world.records("completion").len(), 0);
        act(&world);
        assert_eq!(after(&task.await.unwrap()), expected);
        assert_eq!(world.approvals(), written, "{expected}");
        assert_eq!(world.decided("completion"), [expected]);
        let line = &world.records("completion")[0];
        assert_eq!(
            line["approval_id"],
            world.records("approval")[0]["approval_id"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_aside_answer_is_replayed_once_and_nothing_is_done_twice() {
    let world = world(then(Verdict::RequireApproval));
    world
        .parking(&world.own(), POST)
        .await
        .park(Box::new("the answer"));
    let still = world.refusal(&world.own(), POST).await;
    assert_eq!(still.code(), "approval_pending");
    world.approve();
    assert_eq!(world.replayed(&world.own(), POST).await, "the answer");
    assert_eq!(world.asked(), 2, "one start, one completion");
    assert_eq!(
        world.decided("decision"),
        ["allow", "approval_pending", "replay"]
    );
    assert_eq!(world.decided("completion"), ["approval_pending"]);
    drop(world.permit(&world.own(), POST).await);
    assert_eq!(world.approvals(), ["pending", "granted", "consumed"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_gets_the_answer_as_soon_as_a_person_agrees() {
    let world = world(then(Verdict::RequireApproval));
    world
        .parking(&world.own(), POST)
        .await
        .park(Box::new("the answer"));
    let tasks = [
        world.admitting(&world.own(), POST).await,
        world.admitting(&world.own(), POST).await,
    ];
    world.approve();
    let mut words = Vec::new();
    for task in tasks {
        words.push(word(&task.await.unwrap()));
    }
    words.sort_unstable();
    assert_eq!(
        words,
        ["proceed", "replay"],
        "the other one is a new operation"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_cannot_take_the_answer_from_who_waits_for_it() {
    let world = world(then(Verdict::RequireApproval));
    let permit = world.permit(&world.own(), POST).await;
    let retry = world.own();
    let owner = world.completing(permit).await;
    let retry = world.admitting(&retry, POST).await;
    world.approve();
    assert_eq!(after(&owner.await.unwrap()), "release");
    assert_ne!(word(&retry.await.unwrap()), "replay");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_comes_before_the_answer_is_set_aside_is_not_lost() {
    let world = world(then(Verdict::RequireApproval));
    let parking = world.parking(&world.own(), POST).await;
    world.approve();
    let early = world.refusal(&world.own(), POST).await;
    let Refusal::ApprovalPending { retry_after, .. } = early else {
        panic!("{early:?}")
    };
    assert_eq!(retry_after, Duration::from_secs(1));
    parking.park(Box::new("the answer"));
    assert_eq!(world.replayed(&world.own(), POST).await, "the answer");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_answer_is_told_to_its_retries_and_nothing_is_done_twice() {
    for parked in [true, false] {
        let world = world(then(Verdict::RequireApproval));
        if parked {
            world
                .parking(&world.own(), POST)
                .await
                .park(Box::new("the answer"));
            world.reject();
        } else {
            let permit = world.permit(&world.own(), POST).await;
            let task = world.completing(permit).await;
            world.reject();
            assert_eq!(after(&task.await.unwrap()), "approval_rejected");
        }
        let retry = world.refusal(&world.own(), POST).await;
        assert_eq!(retry.code(), "approval_rejected", "parked: {parked}");
        assert_eq!(world.asked(), 2, "parked: {parked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_gone_while_its_answer_is_held_cancels_the_approval() {
    let world = world(then(Verdict::RequireApproval));
    let permit = world.permit(&world.own(), POST).await;
    let owner = world.completing(permit).await;
    let retry = world.admitting(&world.own(), POST).await;
    let asked = world.asked();
    owner.abort();
    all_wait().await;
    assert_eq!(world.approvals(), ["pending", "cancelled"]);
    assert_eq!(world.decided("completion"), ["cancelled"]);
    assert_eq!(world.records("completion")[0]["outcome"], "answered");
    assert_eq!(word(&retry.await.unwrap()), "proceed", "not told of a halt");
    assert_eq!(world.asked(), asked + 2, "the retry alone was asked about");
}

#[tokio::test(start_paused = true)]
async fn a_parking_that_is_dropped_ends_what_the_person_was_asked() {
    for granted in [true, false] {
        let world = world(then(Verdict::RequireApproval));
        let parking = world.parking(&world.own(), POST).await;
        if granted {
            world.approve();
        }
        drop(parking);
        assert_eq!(
            world.approvals().pop().unwrap(),
            "cancelled",
            "granted: {granted}"
        );
        drop(world.permit(&world.own(), POST).await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_no_retry_can_come_for_is_not_pending() {
    let world = world(then(Verdict::RequireApproval));
    let call = Call {
        captured: Captured::Partial,
        ..POST
    };
    let permit = world.permit(&world.own(), call).await;
    match permit.complete(answered(200), &TERMS).await {
        After::Withhold(refused, None) => assert_eq!(refused.refusal.code(), "approval_expired"),
        other @ (After::Release(_) | After::Withhold(..)) => panic!("{other:?}"),
    }
    assert_eq!(world.approvals(), ["pending", "cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn a_word_about_a_request_is_none_about_an_answer() {
    let ask = || say(Verdict::RequireApproval);
    let policy = Scripted::always(Verdict::Allow)
        .at(Stage::Started, [say(Verdict::Allow), ask()])
        .at(Stage::Completed, [ask()]);
    let world = world(policy);
    let permit = world.permit(&world.own(), POST).await;
    let request = world.admitting(&world.own(), POST).await;
    let asked = world.pending();
    let answer = world.completing(permit).await;
    assert_eq!(world.gate.approvals().len(), 2);
    world.gate.approve(&asked, "alice").unwrap();
    assert_eq!(word(&request.await.unwrap()), "proceed");
    all_wait().await;
    assert!(!answer.is_finished());
    world.approve();
    assert_eq!(after(&answer.await.unwrap()), "release");
}

#[tokio::test(start_paused = true)]
async fn a_request_judged_meanwhile_does_not_take_the_grant_of_an_answer() {
    let ask = || say(Verdict::RequireApproval);
    let policy = Scripted::always(Verdict::Allow)
        .at(Stage::Started, [say(Verdict::Allow), ask()])
        .at(Stage::Completed, [ask()]);
    let world = world(policy.taking(Duration::from_secs(1)));
    let permit = world.permit(&world.own(), POST).await;
    let answer = world.completing(permit).await;
    pass(Duration::from_millis(500)).await;
    let request = world.admitting(&world.own(), POST).await;
    // The answer gives up its wait half a second before the request would.
    let After::Withhold(_, Some(parking)) = answer.await.unwrap() else {
        panic!("not to be parked")
    };
    assert!(!request.is_finished());
    world.approve();
    let pending = refusal(request.await.unwrap());
    assert_eq!(pending.code(), "approval_pending");
    parking.park(Box::new("the answer"));
    assert_eq!(world.replayed(&world.own(), POST).await, "the answer");
}

#[tokio::test(start_paused = true)]
async fn two_held_answers_of_one_request_are_two_approvals() {
    let ask = || say(Verdict::RequireApproval);
    let world = world(Scripted::always(Verdict::Allow).at(Stage::Completed, [ask(), ask()]));
    let permits = [
        world.permit(&world.own(), POST).await,
        world.permit(&world.own(), POST).await,
    ];
    let mut tasks = Vec::new();
    for permit in permits {
        tasks.push(world.completing(permit).await);
    }
    let all = world.gate.approvals();
    assert_eq!(all.len(), 2);
    tasks[0].abort();
    all_wait().await;
    world.approve();
    let [_, second] = <[_; 2]>::try_from(tasks).unwrap();
    assert_eq!(after(&second.await.unwrap()), "release");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_run_halted_meanwhile_stays_here_and_policy_hears_of_it() {
    let slow = Duration::from_secs(1);
    for policy in [
        Scripted::always(Verdict::Allow),
        Scripted::always(Verdict::Allow).taking(slow),
    ] {
        let world = world(policy);
        let session = world.activity("r", "a");
        let permit = world.permit(&session, POST).await;
        world.halt(&session);
        let end = permit.complete(answered(200), &TERMS).await;
        assert_eq!(after(&end), "halted");
        pass(Duration::from_secs(2)).await;
        assert_eq!(world.asked(), 2);
        assert_eq!(world.decided("completion"), ["halted"]);
        assert_eq!(world.records("completion")[0]["verdict"], "allow");
        assert_eq!(world.gate.tally().withheld, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_the_grant_of_an_answer() {
    let world = world(then(Verdict::RequireApproval));
    let session = world.activity("r", "a");
    let permit = world.permit(&session, POST).await;
    let task = world.completing(permit).await;
    world.approve();
    world.halt(&session);
    assert_eq!(after(&task.await.unwrap()), "halted");
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_a_replay() {
    let world = world(then(Verdict::RequireApproval));
    let session = world.activity("r", "a");
    world
        .parking(&session, POST)
        .await
        .park(Box::new("the answer"));
    let retry = world.admitting(&session, POST).await;
    world.approve();
    world.halt(&session);
    assert_eq!(refusal(retry.await.unwrap()).code(), "halted");
    assert_eq!(world.refusal(&session, POST).await.code(), "halted");
}

#[tokio::test(start_paused = true)]
async fn a_policy_reloaded_before_the_grant_of_an_answer_has_the_last_word() {
    #[rustfmt::skip]
    let table = [
        (say(Verdict::Allow),           "release"),
        (say(Verdict::RequireApproval), "release"),
        (say(Verdict::Block),           "outcome_blocked"),
        (unjudgeable(),                 "not_judgeable"),
    ];
    for (answer, expected) in table {
        let first = say(Verdict::RequireApproval);
        let policy = Scripted::always(Verdict::Allow).at(Stage::Completed, [first, answer]);
        let world = world(policy);
        let permit = world.permit(&world.own(), POST).await;
        let task = world.completing(permit).await;
        world.policy.generation.store(1, Ordering::Relaxed);
        world.approve();
        assert_eq!(after(&task.await.unwrap()), expected);
        assert_eq!(world.decided("completion"), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_reloaded_before_a_replay_has_the_last_word() {
    let policy = then(Verdict::RequireApproval)
        .at(Stage::Started, [say(Verdict::Allow), say(Verdict::Block)]);
    let world = world(policy);
    world
        .parking(&world.own(), POST)
        .await
        .park(Box::new("the answer"));
    world.policy.generation.store(1, Ordering::Relaxed);
    world.approve();
    assert_eq!(world.refusal(&world.own(), POST).await.code(), "blocked");
}

#[tokio::test(start_paused = true)]
async fn an_answer_gone_out_makes_the_later_operations_of_its_activity_wait() {
    #[rustfmt::skip]
    let table: [(Act, &str, &str); 2] = [
        // a person            next                 and then
        (|w| w.approve(),      "proceed",           "proceed"),
        (|w| w.reject(),       "approval_rejected", "activity_aborted"),
    ];
    for (act, next, then_on) in table {
        let world = world(then(Verdict::RequireApproval));
        let session = world.activity("r", "a");
        let other = world.activity("r", "b");
        world.permit(&session, POST).await.report(answered(200));
        let tasks = [
            world.admitting(&session, Call { path: "/1", ..POST }).await,
            world.admitting(&session, Call { path: "/2", ..POST }).await,
        ];
        assert_eq!(word(&world.admit(&other, POST).await), "proceed");
        assert!(tasks.iter().all(|task| !task.is_finished()));
        act(&world);
        for task in tasks {
            assert_eq!(word(&task.await.unwrap()), next);
        }
        assert_eq!(word(&world.admit(&session, POST).await), then_on);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_gone_out_that_nobody_decides_about_aborts_its_activity() {
    for attended in [true, false] {
        let lives = Duration::from_secs(10);
        let policy = then(Verdict::RequireApproval);
        let world = World::new(
            policy,
            Settings {
                approval_lives: lives,
                ..settings()
            },
        );
        let session = world.activity("r", "a");
        world.permit(&session, POST).await.report(answered(200));
        if attended {
            assert_eq!(
                world.refusal(&session, POST).await.code(),
                "approval_expired"
            );
        }
        pass(Duration::from_secs(3600)).await;
        let late = world.refusal(&session, POST).await;
        assert_eq!(late.code(), "activity_aborted", "attended: {attended}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_nobody_waited_for_counts_long_after() {
    #[rustfmt::skip]
    let table: [(Act, &str); 2] = [
        (|world| world.approve(), "proceed"),
        (|world| world.reject(),  "activity_aborted"),
    ];
    for (act, expected) in table {
        let world = world(then(Verdict::RequireApproval));
        let session = world.activity("r", "a");
        world.permit(&session, POST).await.report(answered(200));
        act(&world);
        pass(LIVES * 2).await;
        assert_eq!(world.gate.approvals().len(), 0, "it is forgotten");
        assert_eq!(word(&world.admit(&session, POST).await), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_activity_does_not_go_on_because_its_approval_is_unknown() {
    let world = world(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    let activity = session.activity.as_ref().unwrap();
    activity.wait_for(ApprovalId("gone".into()));
    let refusal = world.refusal(&session, POST).await;
    assert_eq!(refusal.code(), "approval_expired");
}

#[tokio::test(start_paused = true)]
async fn every_answer_gone_out_needs_its_own_consent() {
    let ask = || say(Verdict::RequireApproval);
    for order in [[0, 1], [1, 0]] {
        let world = world(Scripted::always(Verdict::Allow).at(Stage::Completed, [ask(), ask()]));
        let session = world.activity("r", "a");
        let permits = [
            world.permit(&session, POST).await,
            world.permit(&session, POST).await,
        ];
        let mut ids = Vec::new();
        for permit in permits {
            permit.report(answered(200));
            let mut new = world.gate.approvals();
            new.retain(|approval| !ids.contains(&approval.id));
            ids.push(new[0].id.clone());
        }
        let call = Call {
            path: "/later",
            ..POST
        };
        let later = world.admitting(&session, call).await;
        for n in order {
            assert!(!later.is_finished(), "{order:?}: before decision {n}");
            world.gate.approve(&ids[n], "alice").unwrap();
            all_wait().await;
        }
        assert_eq!(word(&later.await.unwrap()), "proceed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_gone_out_of_no_activity_can_only_be_recorded() {
    let world = world(then(Verdict::RequireApproval));
    world.permit(&world.own(), POST).await.report(answered(200));
    assert_eq!(world.decided("completion"), ["require_approval"]);
    assert_eq!(world.gate.approvals().len(), 0);
    drop(world.permit(&world.own(), POST).await);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_beyond_the_bound_of_holds_is_refused_or_aborts() {
    for enforce in [true, false] {
        let policy = then(Verdict::RequireApproval);
        let world = World::new(
            policy,
            Settings {
                holds_max: 0,
                ..settings()
            },
        );
        let session = world.activity("r", "a");
        let permit = world.permit(&session, POST).await;
        if enforce {
            let end = permit.complete(answered(200), &TERMS).await;
            assert_eq!(after(&end), "overloaded");
        } else {
            permit.report(answered(200));
            let refusal = world.refusal(&session, POST).await;
            assert_eq!(refusal.code(), "activity_aborted");
        }
        let hits = world.metric("openbox_limit_hits_total{limit=\"holds\"}");
        assert_eq!(hits, "1", "enforce: {enforce}");
        assert_eq!(world.records("completion").len(), 1, "enforce: {enforce}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_carried_out_may_be_tried_again_only_where_its_answer_was_set_aside() {
    let ask = || say(Verdict::RequireApproval);
    #[rustfmt::skip]
    let table = [
        // answer         holds  refusal               again in
        (ask(),           100,   "approval_pending",   Some(5)),
        (ask(),           0,     "overloaded",         None),
        (unavailable(),   100,   "policy_unavailable", None),
        (unjudgeable(),   100,   "not_judgeable",      None),
    ];
    for (answer, holds_max, code, again) in table {
        let policy = Scripted::always(Verdict::Allow).at(Stage::Completed, [answer]);
        let settings = Settings {
            holds_max,
            ..settings()
        };
        let world = World::new(policy, settings);
        let permit = world.permit(&world.own(), POST).await;
        let After::Withhold(refused, _) = permit.complete(answered(200), &TERMS).await else {
            panic!("released: {code}");
        };
        let found = (refused.refusal.code(), refused.stage, refused.retry_after());
        assert_eq!(found, (code, Stage::Completed, again));
        assert_eq!(refused.is_retryable(), again.is_some(), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_withheld_anyway_is_not_to_be_tried_for_again() {
    let policy = Scripted::always(Verdict::Allow).at(Stage::Completed, [unavailable()]);
    let world = world(policy);
    let permit = world.permit(&world.own(), POST).await;
    let refused = permit.withhold(answered(200), "too large".into()).await;
    let found = (refused.refusal.code(), refused.stage, refused.retry_after());
    assert_eq!(found, ("policy_unavailable", Stage::Completed, None));
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_is_refused_is_of_what_was_carried_out() {
    let world = world(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    let permit = world.permit(&session, POST).await;
    world.halt(&session);
    let refused = permit.piece().await.unwrap_err();
    assert_eq!(
        (refused.refusal.code(), refused.stage),
        ("halted", Stage::Completed)
    );
}

/// What refuses the retry of a request whose answer is held.
async fn refused_retry(world: &World) -> (&'static str, Stage, Option<u64>) {
    match world.admit(&world.own(), POST).await {
        Decision::Refuse(refused) => (refused.refusal.code(), refused.stage, refused.retry_after()),
        other @ (Decision::Proceed(_) | Decision::Replay(_)) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_hears_that_its_request_was_carried_out_before() {
    let asked = || {
        then(Verdict::RequireApproval)
            .at(Stage::Started, [say(Verdict::Allow), say(Verdict::Block)])
    };
    let world = World::new(asked(), settings());
    let parking = world.parking(&world.own(), POST).await;
    parking.park(Box::new("the answer"));
    let pending = ("approval_pending", Stage::Completed, Some(5));
    assert_eq!(refused_retry(&world).await, pending);
    pass(LIVES).await;
    let expired = ("approval_expired", Stage::Completed, None);
    assert_eq!(refused_retry(&world).await, expired);

    let world = World::new(asked(), settings());
    let parking = world.parking(&world.own(), POST).await;
    parking.park(Box::new("the answer"));
    world.policy.generation.store(1, Ordering::Relaxed);
    world.approve();
    let blocked = ("blocked", Stage::Completed, None);
    assert_eq!(refused_retry(&world).await, blocked);
}
