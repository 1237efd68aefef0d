//! A full disk, a full queue, a policy that panics: refused or recorded, and
//! never twice.

use super::*;
use crate::domain::{DatabaseCall, Told};
use crate::policy::{ApprovalState, ApprovalsAt, Judging, Later, Question};

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_permitted() {
    let answers = [say(Verdict::Allow), say(Verdict::Constrain), unavailable()];
    for answer in answers {
        let row = format!("{answer:?}");
        let settings = Settings {
            fail_mode: FailMode::Open,
            ..settings()
        };
        let policy = Scripted::default().at(Stage::Started, [answer]);
        let world = World::with_a_full_disk(policy, settings);
        let refusal = world.refusal(&world.own(), POST).await;
        assert_eq!(refusal, Refusal::NotRecorded, "{row}");
        assert_eq!(world.gate.tally().allowed, 0, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_approved_operation_that_cannot_be_recorded_is_not_permitted() {
    let world = World::with_a_full_disk(asks(1), settings());
    let task = world.admitting(&world.own(), POST).await;
    world.approve();
    assert_eq!(refusal(task.await.unwrap()), Refusal::NotRecorded);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_recorded_is_refused() {
    let world = World::with_a_full_disk(Scripted::always(Verdict::Allow), settings());
    let run = context("w", "r", None);
    let noted = world
        .gate
        .note(&event(EventKind::WorkflowStarted, &run), HOLD_WITHIN)
        .await;
    assert_eq!(noted.refusal, Some(Refusal::NotRecorded));
    assert_eq!(noted.verdict, Verdict::Block);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stands_even_if_it_cannot_be_recorded() {
    let world = World::with_a_full_disk(Scripted::always(Verdict::Block), settings());
    assert_eq!(world.refusal(&world.own(), POST).await.code(), "blocked");
}

/// Slow only at `completed`, where it never answers.
fn hangs() -> Scripted {
    Scripted::always(Verdict::Allow).taking(Duration::from_secs(4))
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_finds_the_queue_full_is_counted_and_journaled() {
    let world = World::new(
        hangs(),
        Settings {
            reports_max: 1,
            ..settings()
        },
    );
    let mut permits = Vec::new();
    for _ in 0..3 {
        permits.push(world.permit(&world.own(), POST).await);
    }
    // No task runs meanwhile, so none makes room.
    for permit in permits {
        permit.report(answered(200));
    }
    let unreported = ["unreported", "unreported"];
    assert_eq!(world.decided("completion"), unreported);
    let hits = world.metric("openbox_limit_hits_total{limit=\"reports\"}");
    assert_eq!(hits, "2");
    pass(Duration::from_secs(5)).await;
    assert_eq!(
        world.decided("completion"),
        ["unreported", "unreported", "observed"]
    );
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_wait_for_policy_are_recorded_when_nobody_judges_them_any_more() {
    for queued in [true, false] {
        let world = world(hangs());
        world.permit(&world.own(), POST).await.report(answered(418));
        if !queued {
            all_wait().await;
        }
        world.housekeeping.abort();
        all_wait().await;
        assert_eq!(
            world.decided("completion"),
            ["unreported"],
            "queued: {queued}"
        );
        assert_eq!(world.records("completion")[0]["http_status_code"], 418);
        world.permit(&world.own(), POST).await.report(answered(200));
        assert_eq!(world.decided("completion").len(), 2, "queued: {queued}");
    }
}

/// Panics when asked about outcomes.
#[derive(Debug)]
struct Explosive;

impl PolicyBackend for Explosive {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        match question {
            Question::Completed(..) => panic!("policy exploded"),
            Question::Started(_) | Question::Event(_) => {
                Judging::Now(say(Verdict::Allow).map(Arc::new))
            }
        }
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Sidecar
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        Box::pin(std::future::pending())
    }

    fn generation(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        String::new()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_holding_a_permit_records_it_once() {
    let world = world(Scripted::always(Verdict::Allow));
    let permit = world.permit(&world.own(), POST).await;
    let task = spawn_named("panics", async move {
        let _permit = permit;
        panic!("a bug");
    });
    assert!(task.await.unwrap_err().is_panic());
    all_wait().await;
    let lines = world.records("completion");
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["outcome"], &lines[0]["decision"]),
        (&"abandoned".into(), &"observed".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_ends_one_task_and_loses_no_outcome() {
    let world = World::new(Explosive, settings());
    let complete = world.permit(&world.own(), POST).await;
    let task = spawn_named("completes", async move {
        drop(complete.complete(answered(200), &TERMS).await);
    });
    assert!(task.await.unwrap_err().is_panic());
    let report = world.permit(&world.own(), POST).await;
    let task = spawn_named("reports", async move { report.report(answered(201)) });
    assert!(task.await.unwrap_err().is_panic());
    all_wait().await;
    let mut statuses: Vec<_> = world
        .records("completion")
        .iter()
        .map(|r| r["http_status_code"].clone())
        .collect();
    statuses.sort_by_key(Value::as_u64);
    assert_eq!(statuses, [200, 201]);
    assert!(!world.housekeeping.is_finished());
}

#[tokio::test(start_paused = true)]
async fn c_4_without_an_answer_classes_of_statements_may_fail_closed_on_their_own() {
    let reading = |class: &str| format!(r#"{{"class":"{class}","flags":[]}}"#);
    for (reading, mode, refused) in [
        (Some(reading("read")), FailMode::Open, false),
        (Some(reading("write")), FailMode::Open, true),
        (Some(reading("opaque")), FailMode::Open, true),
        (None, FailMode::Open, true),
        (Some(reading("read")), FailMode::Closed, true),
    ] {
        let settings = Settings {
            fail_mode: mode,
            fail_closed_for: ["write".into(), "opaque".into()].into(),
            ..settings()
        };
        let world = World::new(
            Scripted::default().at(Stage::Started, [unavailable()]),
            settings,
        );
        let session = world.own();
        let mut operation = POST.operation(&session);
        operation.action = Action::Database(DatabaseCall {
            system: "postgresql".into(),
            name: None,
            user: None,
            operation: "X".into(),
            statement: Capture {
                trailers: None,
                text: Some("X".into()),
                bytes: 1,
                digest: None,
                state: Captured::Whole,
                ..Capture::default()
            },
            server_address: None,
            server_port: None,
            reading: reading.clone().map(|text| JsonText(text.into())),
            told: Told::default(),
        });
        let decision = world.gate.admit(operation, session, &TERMS).await;
        let found = matches!(decision, Decision::Refuse(_));
        assert_eq!(found, refused, "{reading:?} {mode:?}");
    }
}
