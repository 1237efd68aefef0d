//! Before an operation leaves: verdicts, fail modes, constraints, aborts.

use super::*;

#[tokio::test(start_paused = true)]
async fn every_answer_under_every_fail_mode_has_its_decision() {
    use FailMode::{Closed, Open};
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    #[rustfmt::skip]
    let table = [
        // answer                fail mode  decision              journal               by fail mode
        (say(Allow),             Closed,    "proceed",            "allow",              false),
        (say(Allow),             Open,      "proceed",            "allow",              false),
        (say(Constrain),         Closed,    "proceed",            "constrain",          false),
        (say(Constrain),         Open,      "proceed",            "constrain",          false),
        (say(RequireApproval),   Closed,    "approval_pending",   "approval_pending",   false),
        (say(RequireApproval),   Open,      "approval_pending",   "approval_pending",   false),
        (say(Block),             Closed,    "blocked",            "blocked",            false),
        (say(Block),             Open,      "blocked",            "blocked",            false),
        (say(Halt),              Closed,    "halted",             "halted",             false),
        (say(Halt),              Open,      "halted",             "halted",             false),
        (unavailable(),          Closed,    "policy_unavailable", "policy_unavailable", true),
        (unavailable(),          Open,      "proceed",            "allow",              true),
        (unjudgeable(),          Closed,    "not_judgeable",      "not_judgeable",      false),
        (unjudgeable(),          Open,      "not_judgeable",      "not_judgeable",      false),
    ];
    for (answer, fail_mode, expected, written, by_fail_mode) in table {
        let row = format!("{answer:?} {fail_mode:?}");
        let policy = Scripted::default().at(Stage::Started, [answer]);
        let world = World::new(
            policy,
            Settings {
                fail_mode,
                ..settings()
            },
        );
        let decision = world.admit(&world.own(), POST).await;
        assert_eq!(word(&decision), expected, "{row}");
        let line = &world.records("decision")[0];
        assert_eq!(line["decision"], written, "{row}");
        let marked = line.get("by_fail_mode").is_some();
        assert_eq!(marked, by_fail_mode, "{row}: {line}");
        let counts = ["open", "closed"].map(|mode| {
            world.metric(&format!(
                "openbox_fail_mode_decisions_total{{mode=\"{mode}\"}}"
            ))
        });
        let expected = match (by_fail_mode, fail_mode) {
            (false, _) => ["0", "0"],
            (true, Open) => ["1", "0"],
            (true, Closed) => ["0", "1"],
        };
        assert_eq!(counts, expected, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_too_long_is_none() {
    let policy = Scripted::always(Verdict::Allow).taking(Duration::from_secs(6));
    let world = world(policy);
    let began = tokio::time::Instant::now();
    let refusal = world.refusal(&world.own(), POST).await;
    assert_eq!(refusal.code(), "policy_unavailable");
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_given_up_leaves_nothing_behind() {
    let world = world(asks(1).taking(Duration::from_secs(1)));
    let task = world.admitting(&world.own(), POST).await;
    task.abort();
    pass(Duration::from_secs(2)).await;
    assert_eq!(world.gate.approvals().len(), 0);
    assert_eq!(world.journal().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_block_aborts_its_activity_without_asking_again() {
    let policy = Scripted::always(Verdict::Allow).at(Stage::Started, [say(Verdict::Block)]);
    let world = world(policy);
    let blocked = world.activity("r", "a");
    let other = world.activity("r", "b");
    assert_eq!(world.refusal(&blocked, POST).await.code(), "blocked");
    let call = Call {
        path: "/other",
        ..POST
    };
    let later = world.refusal(&blocked, call).await;
    assert_eq!(later.code(), "activity_aborted");
    assert_eq!(world.asked(), 1);
    assert_eq!(word(&world.admit(&other, POST).await), "proceed");
    assert_eq!(
        world.decided("decision"),
        ["blocked", "activity_aborted", "allow"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_block_outside_any_activity_does_not_spill_over() {
    let policy = Scripted::always(Verdict::Allow).at(Stage::Started, [say(Verdict::Block)]);
    let world = world(policy);
    assert_eq!(world.refusal(&world.own(), POST).await.code(), "blocked");
    assert_eq!(word(&world.admit(&world.own(), POST).await), "proceed");
}

#[tokio::test(start_paused = true)]
async fn a_block_that_lands_while_another_is_judged_refuses_it() {
    let policy = Scripted::always(Verdict::Allow).taking(Duration::from_secs(1));
    let world = world(policy);
    let session = world.activity("r", "a");
    let task = world.admitting(&session, POST).await;
    let reason = Reason::from("no");
    session.activity.as_ref().unwrap().abort(&reason);
    assert_eq!(refusal(task.await.unwrap()).code(), "activity_aborted");
}

#[tokio::test(start_paused = true)]
async fn constraints_are_refused_only_where_they_must_hold_and_cannot() {
    use Constraints::{Advisory, Enforce};
    use Verdict::{Allow, Constrain, RequireApproval};
    let redacted = Some(JsonText::empty_array());
    let replaced = Some(JsonText("\"replaced\"".into()));
    #[rustfmt::skip]
    let table = [
        // verdict         asks for         redacts           constraints  decision
        (Constrain,        "unknown",       None,             Advisory,    "proceed"),
        (Constrain,        "unknown",       None,             Enforce,     "constraint_not_applicable"),
        (Constrain,        "applied",       None,             Enforce,     "proceed"),
        (Constrain,        "contradicted",  None,             Advisory,    "constraint_not_applicable"),
        (Constrain,        "contradicted",  None,             Enforce,     "constraint_not_applicable"),
        (Constrain,        "applied",       redacted.clone(), Advisory,    "constraint_not_applicable"),
        (Allow,            "applied",       redacted.clone(), Advisory,    "constraint_not_applicable"),
        (RequireApproval,  "applied",       redacted,         Advisory,    "constraint_not_applicable"),
        (Allow,            "applied",       replaced,         Advisory,    "proceed"),
        (RequireApproval,  "unknown",       None,             Enforce,     "constraint_not_applicable"),
    ];
    for (verdict, name, redacted, constraints, expected) in table {
        let row = format!("{verdict} {name} {redacted:?} {constraints:?}");
        let ruling = Ruling {
            constraints: vec![name.into()],
            redacted,
            ..Ruling::new(verdict, 0)
        };
        let policy = Scripted::default().at(Stage::Started, [Ok(ruling)]);
        let world = World::new(
            policy,
            Settings {
                constraints,
                ..settings()
            },
        );
        let decision = world.admit(&world.own(), POST).await;
        assert_eq!(word(&decision), expected, "{row}");
        if let Decision::Proceed(permit) = decision {
            assert_eq!(permit.constraints(), [Box::from(name)], "{row}");
            assert_eq!(
                world.records("decision")[0]["constraints"][0],
                name,
                "{row}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_opens_only_what_is_held_for_its_operation() {
    use super::super::Held;
    let world = world(Scripted::always(Verdict::Allow));
    let permit = world.permit(&world.own(), POST).await;
    let id = permit.operation().unwrap().id;
    let stranger = clock::operation_id(Timestamp(1));
    assert!(Held::new(stranger, "bytes").release(&permit).is_none());
    let cleared = Held::new(id, "bytes").release(&permit).unwrap();
    assert_eq!(cleared.into_inner(), "bytes");
}

#[tokio::test(start_paused = true)]
async fn the_tally_counts_each_kind_of_decision() {
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    let answers = [Allow, Constrain, RequireApproval, Block].map(say);
    let policy = Scripted::always(Halt)
        .at(Stage::Started, answers.into_iter().chain([unjudgeable()]))
        .at(Stage::Completed, [say(Block), say(Allow)]);
    let world = world(policy);
    let own = world.own();
    let withheld = world.permit(&own, POST).await;
    drop(withheld.complete(answered(200), &TERMS).await);
    world.permit(&own, POST).await.report(answered(200));
    for code in ["approval_pending", "blocked", "not_judgeable", "halted"] {
        let call = Call { path: code, ..POST };
        assert_eq!(world.refusal(&own, call).await.code(), code);
    }
    let tally = world.gate.tally();
    let counts = [
        tally.allowed,
        tally.constrained,
        tally.approvals,
        tally.blocked,
    ];
    assert_eq!(counts, [1; 4], "{tally:?}");
    assert_eq!(
        [tally.halted, tally.refused, tally.withheld],
        [1; 3],
        "{tally:?}"
    );
}
