//! Lifecycle events: judged, held, and what they open or close.

use super::*;
use crate::gate::Noted;

impl<B: PolicyBackend + 'static> World<B> {
    async fn note(&self, kind: EventKind, context: &Arc<Context>) -> Noted {
        self.gate.note(&event(kind, context), HOLD_WITHIN).await
    }

    async fn noting(&self, kind: EventKind, context: &Arc<Context>) -> JoinHandle<Noted> {
        let (gate, event) = (self.gate.clone(), event(kind, context));
        let task = spawn_named("note", async move { gate.note(&event, HOLD_WITHIN).await });
        all_wait().await;
        task
    }

    /// Whether run and activity of `context` are open.
    fn is_open(&self, context: &Arc<Context>) -> (bool, bool) {
        let session = self.gate.registry().session_of(context);
        let run = session.run.context.run_id == context.run_id && !session.run.is_closed();
        (run, run && session.activity.is_some())
    }
}

fn code(noted: &Noted) -> &'static str {
    noted.refusal.as_ref().map_or("", Refusal::code)
}

fn on_events(answers: impl IntoIterator<Item = Result<Ruling, PolicyError>>) -> Scripted {
    Scripted::always(Verdict::Allow).on_events(answers)
}

#[tokio::test(start_paused = true)]
async fn every_answer_opens_or_does_not() {
    use FailMode::{Closed, Open};
    use Verdict::{Allow, Block, Constrain, Halt, RequireApproval};
    #[rustfmt::skip]
    let table = [
        // answer              fail mode  verdict          refusal               opened
        (say(Allow),           Closed,    Allow,           "",                   true),
        (say(Constrain),       Closed,    Constrain,       "",                   true),
        (say(RequireApproval), Closed,    RequireApproval, "approval_pending",   false),
        (say(Block),           Open,      Block,           "blocked",            false),
        (say(Halt),            Open,      Halt,            "halted",             true),
        (unavailable(),        Closed,    Block,           "policy_unavailable", false),
        (unavailable(),        Open,      Allow,           "",                   true),
        (unjudgeable(),        Closed,    Block,           "not_judgeable",      false),
        (unjudgeable(),        Open,      Block,           "not_judgeable",      false),
    ];
    for kind in [EventKind::WorkflowStarted, EventKind::ActivityStarted] {
        for (answer, fail_mode, verdict, refusal, opened) in &table {
            let row = format!("{kind:?} {answer:?} {fail_mode:?}");
            let settings = Settings {
                fail_mode: *fail_mode,
                ..settings()
            };
            let world = World::new(on_events([answer.clone()]), settings);
            let context = context("w", "r", Some("a"));
            let noted = world.note(kind, &context).await;
            assert_eq!((noted.verdict, code(&noted)), (*verdict, *refusal), "{row}");
            let halted = *verdict == Halt;
            let activity = *opened && kind == EventKind::ActivityStarted && !halted;
            assert_eq!(world.is_open(&context), (*opened, activity), "{row}");
            let line = &world.records("event")[0];
            let written = match (*refusal, verdict) {
                ("", Constrain) => "constrain",
                ("", _) => "allow",
                (code, _) => code,
            };
            assert_eq!(line["decision"], written, "{row}");
            assert_eq!(line["event_type"], kind.as_str(), "{row}");
            let by_fail_mode = answer == &unavailable();
            assert_eq!(line.get("by_fail_mode").is_some(), by_fail_mode, "{row}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_latches_the_run_it_is_about() {
    let world = world(on_events([say(Verdict::Halt)]));
    let run = context("w", "r", None);
    assert_eq!(
        code(&world.note(EventKind::WorkflowStarted, &run).await),
        "halted"
    );
    let asked = world.asked();
    let again = world.note(EventKind::WorkflowStarted, &run).await;
    assert_eq!((code(&again), again.verdict), ("halted", Verdict::Halt));
    assert_eq!(world.asked(), asked, "the latch answers");
    let other = context("w", "s", None);
    assert_eq!(
        code(&world.note(EventKind::WorkflowStarted, &other).await),
        ""
    );
    assert_eq!(world.refusal(&world.own(), POST).await.code(), "halted");
}

#[tokio::test(start_paused = true)]
async fn what_ended_is_closed_whatever_policy_thinks_of_it() {
    let answers = [
        say(Verdict::Allow),
        say(Verdict::Block),
        unjudgeable(),
        unavailable(),
    ];
    for answer in answers {
        let row = format!("{answer:?}");
        let world = world(on_events([answer.clone(), answer]));
        let session = world.activity("r", "a");
        drop(
            world
                .note(EventKind::ActivityCompleted, &session.context)
                .await,
        );
        assert_eq!(world.is_open(&session.context), (true, false), "{row}");
        drop(
            world
                .note(EventKind::WorkflowFailed, &session.context)
                .await,
        );
        assert_eq!(world.is_open(&session.context), (false, false), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ended_is_closed_even_if_nobody_waits_to_hear_it_judged() {
    let world = world(on_events([]).taking(Duration::from_secs(1)));
    let session = world.activity("r", "a");
    let task = world
        .noting(EventKind::ActivityCompleted, &session.context)
        .await;
    task.abort();
    all_wait().await;
    assert_eq!(world.is_open(&session.context), (true, false));
}

#[tokio::test(start_paused = true)]
async fn what_began_is_not_opened_if_nobody_waits_to_hear_it_judged() {
    let world = world(on_events([]).taking(Duration::from_secs(1)));
    let context = context("w", "r", Some("a"));
    world
        .noting(EventKind::ActivityStarted, &context)
        .await
        .abort();
    pass(Duration::from_secs(2)).await;
    assert_eq!(world.is_open(&context), (false, false));
}

#[tokio::test(start_paused = true)]
async fn an_identical_event_joins_and_its_grant_opens() {
    let ask = || say(Verdict::RequireApproval);
    let world = world(on_events([ask(), ask()]));
    let started = context("w", "r", Some("a"));
    let kind = EventKind::ActivityStarted;
    let first = world.note(kind, &started).await;
    assert_eq!(code(&first), "approval_pending");
    let again = world.noting(kind, &started).await;
    assert_eq!((world.gate.approvals().len(), world.asked()), (1, 1));
    world.approve();
    let noted = again.await.unwrap();
    assert_eq!((code(&noted), noted.verdict), ("", Verdict::Allow));
    assert_eq!(world.is_open(&started), (true, true));
    assert_eq!(world.approvals(), ["pending", "granted", "consumed"]);
    let other = context("w", "r", Some("b"));
    assert_eq!(code(&world.note(kind, &other).await), "approval_pending");
}

#[tokio::test(start_paused = true)]
async fn of_two_identical_events_one_uses_the_grant_and_one_asks_anew() {
    let world = world(on_events([say(Verdict::RequireApproval)]));
    let started = context("w", "r", Some("a"));
    let kind = EventKind::ActivityStarted;
    let tasks = [
        world.noting(kind, &started).await,
        world.noting(kind, &started).await,
    ];
    world.approve();
    for task in tasks {
        assert_eq!(code(&task.await.unwrap()), "");
    }
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_opens_nothing_and_is_told_again() {
    let world = world(on_events([say(Verdict::RequireApproval)]));
    let run = context("w", "r", None);
    let task = world.noting(EventKind::WorkflowStarted, &run).await;
    world.reject();
    let noted = task.await.unwrap();
    assert_eq!(
        (code(&noted), noted.verdict),
        ("approval_rejected", Verdict::Block)
    );
    let again = world.note(EventKind::WorkflowStarted, &run).await;
    assert_eq!((code(&again), world.asked()), ("approval_rejected", 1));
    assert_eq!(world.is_open(&run), (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_policy_reloaded_before_the_grant_of_an_event_has_the_last_word() {
    let asks = say(Verdict::RequireApproval);
    let world = world(on_events([asks, say(Verdict::Block)]));
    let run = context("w", "r", None);
    let task = world.noting(EventKind::WorkflowStarted, &run).await;
    world.policy.generation.store(1, Ordering::Relaxed);
    world.approve();
    assert_eq!(code(&task.await.unwrap()), "blocked");
    assert_eq!(world.is_open(&run), (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_an_event_that_is_judged_or_held() {
    let answers = [say(Verdict::Allow), say(Verdict::RequireApproval)];
    for answer in answers {
        let row = format!("{answer:?}");
        let world = world(on_events([answer]).taking(Duration::from_secs(1)));
        let session = world.activity("r", "a");
        let other = context("w", "r", Some("b"));
        let task = world.noting(EventKind::ActivityStarted, &other).await;
        world.halt(&session);
        assert_eq!(code(&task.await.unwrap()), "halted", "{row}");
        assert_eq!(world.is_open(&other), (true, false), "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_attempt_starts_without_the_refusals_of_the_last() {
    let policy = Scripted::always(Verdict::Allow).at(Stage::Started, [say(Verdict::Block)]);
    let world = world(policy);
    let session = world.activity("r", "a");
    assert_eq!(world.refusal(&session, POST).await.code(), "blocked");
    let mut retried = (*session.context).clone();
    retried.activity.as_mut().unwrap().attempt = 2;
    drop(
        world
            .note(EventKind::ActivityStarted, &session.context)
            .await,
    );
    let same = world.activity("r", "a");
    assert_eq!(world.refusal(&same, POST).await.code(), "activity_aborted");
    let retried = Arc::new(retried);
    drop(world.note(EventKind::ActivityStarted, &retried).await);
    let next = world.gate.registry().session_of(&retried);
    assert_eq!(word(&world.admit(&next, POST).await), "proceed");
}

#[tokio::test(start_paused = true)]
async fn too_many_runs_are_refused_and_counted() {
    let world = world(on_events([]));
    for run in ["1", "2", "3", "4"] {
        let run = context("w", run, None);
        assert_eq!(
            code(&world.note(EventKind::WorkflowStarted, &run).await),
            ""
        );
    }
    let fifth = context("w", "5", None);
    let noted = world.note(EventKind::WorkflowStarted, &fifth).await;
    assert_eq!(
        (code(&noted), noted.verdict),
        ("overloaded", Verdict::Block)
    );
    let hits = world.metric("openbox_limit_hits_total{limit=\"sessions\"}");
    assert_eq!(hits, "1");
    assert_eq!(world.decided("event").pop().unwrap(), "overloaded");
}

#[tokio::test(start_paused = true)]
async fn a_redacted_event_is_allowed_and_carries_the_redaction() {
    let redacted = Some(JsonText("[\"***\"]".into()));
    let ruling = Ruling {
        redacted: redacted.clone(),
        ..Ruling::new(Verdict::Allow, 0)
    };
    let world = world(on_events([Ok(ruling)]));
    let noted = world
        .note(EventKind::WorkflowStarted, &context("w", "r", None))
        .await;
    assert_eq!(
        (code(&noted), noted.ruling.unwrap().redacted.clone()),
        ("", redacted)
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_event_says_is_in_the_journal_by_length_and_digest_alone() {
    let world = world(on_events([]));
    let mut context = (*context("w", "r", Some("a"))).clone();
    if let Some(activity) = &mut context.activity {
        activity.input = JsonText("abc".into());
    }
    let context = Arc::new(context);
    world.note(EventKind::ActivityStarted, &context).await;
    let record = world.records("event").pop().unwrap();
    assert_eq!(record["said"]["activity_input"]["bytes"], 3, "{record}");
    // FIPS 180-4, the example of one block.
    assert_eq!(
        record["said"]["activity_input"]["sha256"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert!(!record.to_string().contains("\"abc\""), "{record}");
}

#[tokio::test(start_paused = true)]
async fn a_handoff_is_refused_by_a_halt_and_taken_by_no_fail_mode() {
    use crate::policy::HandedOver;
    let taken = |status| {
        Ok(HandedOver {
            status,
            text: b"{}".to_vec(),
        })
    };
    let gone = || Err(PolicyError::Unavailable(Reason::from("gone")));
    #[rustfmt::skip]
    let table = [
        // halted, answer,     what the agent gets,             recorded
        (false, taken(200),    Ok(200),                         "allow"),
        (false, taken(403),    Ok(403),                         "not_judgeable"),
        (false, gone(),        Err("policy_unavailable"),       "policy_unavailable"),
        (true,  taken(200),    Err("halted"),                   "halted"),
    ];
    for (halted, answer, expected, recorded) in table {
        let settings = Settings {
            fail_mode: FailMode::Open,
            ..settings()
        };
        let world = World::new(Scripted::always(Verdict::Allow), settings);
        let own = world.gate.registry().own().context.clone();
        if halted {
            let run = &world.gate.registry().own().run;
            world.gate.halt(run, &Reason::from("stop"), "test");
        }
        let event = event(EventKind::Handoff, &own);
        let got = world
            .gate
            .hand_over(&event, Box::pin(async { answer }))
            .await;
        let got = got
            .map(|handed| handed.status)
            .map_err(|refusal| refusal.code());
        assert_eq!(got, expected, "{recorded}");
        let lines = world.records("event");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["decision"], recorded);
    }
}
