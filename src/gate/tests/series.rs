//! The same execution over and over: counted, and never less than was let go.

use std::num::NonZeroU32;

use sha2::{Digest, Sha256};

use super::super::Repeats;
use super::*;
use crate::domain::{DatabaseAnswer, DatabaseCall, Told};
use crate::policy::local::{self, LocalPolicy};

/// Answers are bounded; what a run is called and when it is does not matter.
const STEADY: &str = r#"
package p
default result := {"decision": "ALLOW"}
result := {"decision": "BLOCK", "reason": "too much"} if {
	input.spans[0].stage == "completed"
	input.spans[0].rowcount > 100
}
"#;

/// The same, by a policy that nothing can be proved of.
const UNSTEADY: &str = r#"
package p
default result := {"decision": "ALLOW"}
result := {"decision": "BLOCK"} if time.now_ns() < 0
"#;

/// Two in a row have records of their own.
fn world_of(policy: &str) -> World<LocalPolicy> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.rego");
    std::fs::write(&path, policy).unwrap();
    let policy = LocalPolicy::load(local::Settings {
        path: Some(path),
        ..local::Settings::default()
    });
    let settings = Settings {
        count_after: NonZeroU32::new(2),
        ..settings()
    };
    World::at(folder, policy.unwrap(), settings)
}

fn statement(session: &Session, text: &str) -> Box<Operation> {
    let mut operation = POST.operation(session);
    operation.action = Action::Database(DatabaseCall {
        system: "postgresql".into(),
        name: None,
        user: None,
        operation: "SELECT".into(),
        statement: Capture {
            trailers: None,
            text: Some(text.to_owned()),
            bytes: 8,
            digest: Some([7; 32]),
            state: Captured::Whole,
            ..Capture::default()
        },
        server_address: None,
        server_port: None,
        reading: None,
        told: Told::AsItIs,
    });
    operation
}

fn rows(rows: u64) -> Completion {
    Completion {
        ended_at: Timestamp(2_000_000),
        outcome: Outcome::Answered,
        answer: Some(Answer::Database(DatabaseAnswer { rows: Some(rows) })),
        error: None,
    }
}

/// A connection, which says the same again and again.
struct Connection<'a> {
    world: &'a World<LocalPolicy>,
    session: Session,
    repeats: Repeats<&'static str>,
    digest: Option<[u8; 32]>,
}

impl<'a> Connection<'a> {
    fn new(world: &'a World<LocalPolicy>, session: Session) -> Self {
        Self {
            world,
            session,
            repeats: Repeats::default(),
            digest: Some([7; 32]),
        }
    }

    /// As relays do: counted where that goes, else admitted by itself.
    async fn say(&mut self, text: &'static str) -> Permit {
        let digest = self.digest.as_ref();
        let is_like = |last: &&str| *last == text;
        let again = self
            .repeats
            .again(is_like, &self.session, digest, Timestamp(1_000_000));
        if let Some(permit) = again {
            return permit;
        }
        let operation = statement(&self.session, text);
        let session = self.session.clone();
        let decision = self.world.gate.admit(operation, session, &TERMS).await;
        let Decision::Proceed(permit) = decision else {
            panic!("not permitted: {decision:?}");
        };
        self.repeats
            .admitted(text, |one, other| one == other, &permit);
        permit
    }

    async fn repeat(&mut self, times: usize) {
        for _ in 0..times {
            self.say("SELECT 1").await.report(rows(1));
        }
    }
}

/// Of each kind of record, how many there are.
fn counts(world: &World<LocalPolicy>) -> [usize; 3] {
    ["decision", "completion", "series"].map(|kind| world.records(kind).len())
}

#[tokio::test(start_paused = true)]
async fn what_follows_in_a_row_is_counted_in_one_record() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(7).await;
    assert_eq!(counts(&world), [2, 2, 1]);
    drop(connection);
    let series = world.records("series");
    let [first, last] = &*series else {
        panic!("{series:?}");
    };
    assert_eq!(first["admitted"], 0);
    assert_eq!(first["may_follow"], 1_000);
    assert_eq!(first["within_ms"], 1_000);
    assert_eq!(first["event_id"], world.records("decision")[1]["event_id"]);
    for (name, value) in [
        ("admitted", 5),
        ("answered", 5),
        ("rows", 5),
        ("ended_apart", 0),
    ] {
        assert_eq!(last[name], value, "{name} of {last}");
    }
    assert_eq!(last["decision"], "allow");
    assert_eq!(last["first_ns"], 1_000_000);
    assert_eq!(last["longest_us"], 1_000);
    assert_eq!(last["took_us"], 5_000);
    assert!(last["may_follow"].is_null());
    let digests = Sha256::digest([7; 5 * 32]);
    let digests: String = digests.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(last["statements_sha256"], *digests);
    assert_eq!(world.gate.tally().allowed, 7);
    let line =
        r#"openbox_operations_total{protocol="postgresql",stage="completed",verdict="allow"}"#;
    assert_eq!(world.metric(line), "7");
}

#[tokio::test(start_paused = true)]
async fn that_more_may_follow_is_written_before_it_does() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(2).await;
    let permit = connection.say("SELECT 1").await;
    // Not flushed: as a process finds it after this one was killed.
    let text = std::fs::read_to_string(world.folder.path().join("journal.jsonl")).unwrap();
    assert!(text.contains(r#""may_follow":1000"#), "{text}");
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn so_many_follow_a_record_and_no_more() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(2 + 1_000).await;
    assert_eq!(counts(&world), [2, 2, 1]);
    connection.repeat(1).await;
    let series = world.records("series");
    assert_eq!(series.len(), 2);
    assert_eq!(series[1]["admitted"], 1_000);
    assert_eq!(series[1]["may_follow"], 1_000);
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_is_recorded_though_nothing_follows() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(5).await;
    pass(Duration::from_secs(3)).await;
    let series = world.records("series");
    assert_eq!(series.len(), 2, "{series:?}");
    assert_eq!(series[1]["admitted"], 3);
    assert!(series[1]["may_follow"].is_null());
    // It goes on behind a record that says so.
    connection.repeat(1).await;
    assert_eq!(world.records("series")[2]["may_follow"], 1_000);
    assert_eq!(counts(&world), [2, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_like_the_others_has_a_record_of_its_own() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(2).await;
    let event = |permit: &Permit| permit.id().unwrap().to_string();
    let failed = connection.say("SELECT 1").await;
    let blocked = connection.say("SELECT 1").await;
    let dropped = connection.say("SELECT 1").await;
    let events = [&failed, &blocked, &dropped].map(event);
    failed.report(Completion {
        error: Some("SQLSTATE 22012".into()),
        ..rows(1)
    });
    // Policy does not let this answer stand.
    blocked.report(rows(101));
    drop(dropped);
    drop(connection);
    let completions = world.records("completion").split_off(2);
    let told = completions.iter().map(|one| text(&one["event_id"]));
    assert_eq!(told.collect::<Vec<_>>(), events);
    let series = world.records("series").pop().unwrap();
    assert_eq!(series["ended_apart"], 3);
    assert_eq!(series["answered"], 0);
    for completion in &completions {
        assert_eq!(completion["series"], series["event_id"]);
    }
    let said = completions.iter().map(|one| text(&one["decision"]));
    assert_eq!(
        said.collect::<Vec<_>>()[..2],
        ["observed", "outcome_blocked"]
    );
    assert_eq!(completions[0]["error"], "SQLSTATE 22012");
    assert_eq!(completions[2]["outcome"], "abandoned");
}

#[tokio::test(start_paused = true)]
async fn another_execution_between_ends_it() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(4).await;
    connection.say("SELECT 2").await.report(rows(1));
    connection.repeat(1).await;
    drop(connection);
    assert_eq!(counts(&world), [4, 4, 2]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_of_a_policy_that_is_not_proved_to_say_the_same() {
    let world = world_of(UNSTEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(5).await;
    assert_eq!(counts(&world), [5, 5, 0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_that_may_happen_with_conditions_only() {
    for answer in [
        r#"{"decision": "CONSTRAIN", "constraints": ["max_rows:3"]}"#,
        r#"{"decision": "ALLOW", "constraints": ["max_rows:3"]}"#,
    ] {
        let world = world_of(&format!("package p\nresult := {answer}\n"));
        let mut connection = Connection::new(&world, world.own());
        connection.repeat(5).await;
        assert_eq!(counts(&world), [5, 5, 0], "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_that_was_not_read_whole() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.digest = None;
    connection.repeat(5).await;
    assert_eq!(counts(&world), [5, 5, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_halt_stops_a_series_and_what_it_did_is_recorded() {
    let world = world_of(STEADY);
    let session = world.activity("r", "a");
    let mut connection = Connection::new(&world, session.clone());
    connection.repeat(2).await;
    let running = connection.say("SELECT 1").await;
    let reason = Reason::from("stop");
    world.gate.halt(&session.run, &reason, "alice");
    let again = connection.repeats.again(
        |last| *last == "SELECT 1",
        &session,
        Some(&[7; 32]),
        Timestamp(1),
    );
    assert!(again.is_none());
    running.report(rows(1));
    drop(connection);
    let completions = world.records("completion");
    assert_eq!(completions.last().unwrap()["decision"], "halted");
}

#[tokio::test(start_paused = true)]
async fn another_session_a_reload_and_a_hook_each_end_it() {
    let world = world_of(STEADY);
    let mut connection = Connection::new(&world, world.own());
    connection.repeat(3).await;
    connection.session = world.activity("r", "a");
    connection.repeat(1).await;
    assert_eq!(counts(&world)[0], 3, "of another activity");
    connection.repeat(3).await;
    let before = counts(&world)[0];
    let path = world.folder.path().join("p.rego");
    std::fs::write(&path, STEADY.replace("100", "99")).unwrap();
    world.policy.reload().unwrap();
    connection.repeat(1).await;
    assert_eq!(counts(&world)[0], before + 1, "of another policy");
    connection.repeat(3).await;
    let before = counts(&world)[0];
    world.gate.inner.joins.join(
        crate::policy::Question::Started(&reported(&connection.session)),
        1,
    );
    connection.repeat(1).await;
    assert_eq!(counts(&world)[0], before + 1, "a hook may tell of it, too");
}

/// What a hook tells.
fn reported(session: &Session) -> Operation {
    let mut operation = *POST.operation(session);
    operation.reported = Some(Box::new(crate::domain::Reported {
        name: "POST".into(),
        kind: "CLIENT".into(),
        attributes: JsonText("{}".into()),
        envelope: Vec::new(),
    }));
    operation
}
