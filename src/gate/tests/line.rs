//! Several decisions whose records are written together.

use super::super::{InLine, Now};
use super::*;

/// What `call`s come to as far as nobody is waited for.
fn in_line<'a>(world: &'a World, session: &Session, call: Call<'_>) -> InLine<'a> {
    let now = world
        .gate
        .admit_now(call.operation(session), session.clone(), &TERMS);
    match now {
        Now::InLine(line) => line,
        other @ (Now::Refused(_) | Now::Later(_)) => panic!("not in line: {other:?}"),
    }
}

fn lines(world: &World) -> usize {
    let text = std::fs::read_to_string(world.folder.path().join("journal.jsonl")).unwrap();
    text.lines()
        .filter(|line| line.starts_with(r#"{"record":"decision""#))
        .count()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_permitted_before_its_record_is_written_and_one_write_takes_all() {
    let world = world(Scripted::always(Verdict::Allow));
    let session = world.own();
    let mut all: Vec<_> = (0..3).map(|_| in_line(&world, &session, POST)).collect();
    assert_eq!(lines(&world), 0);
    assert_eq!(world.gate.tally().allowed, 0);
    let last = all.pop().unwrap();
    let mut permits = Vec::new();
    for line in all {
        permits.push(line.settle());
        assert_eq!(lines(&world), 3);
    }
    permits.push(last.settle());
    for permit in &permits {
        assert_eq!(word(permit), "proceed");
    }
    assert_eq!(world.gate.tally().allowed, 3);
    drop(permits);
    assert_eq!(world.records("completion").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_everything_that_stands_in_line() {
    let world = world(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    let all: Vec<_> = (0..3).map(|_| in_line(&world, &session, POST)).collect();
    let mut words = Vec::new();
    for (at, line) in all.into_iter().enumerate() {
        if at == 1 {
            world.halt(&session);
        }
        let decision = line.settle();
        words.push(word(&decision));
    }
    assert_eq!(words, ["proceed", "halted", "halted"]);
    // Policy let all of them begin, so all of them ended.
    assert_eq!(world.records("completion").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_does_not_take_is_refused_one_and_all() {
    let policy = Scripted::always(Verdict::Allow);
    let world = World::with_a_full_disk(policy, settings());
    let session = world.own();
    let all: Vec<_> = (0..3).map(|_| in_line(&world, &session, POST)).collect();
    for line in all {
        assert_eq!(refusal(line.settle()), Refusal::NotRecorded);
    }
    assert_eq!(world.gate.tally().allowed, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_in_line_is_recorded_and_abandoned() {
    let world = world(Scripted::always(Verdict::Allow));
    drop(in_line(&world, &world.own(), POST));
    assert_eq!(world.decided("decision"), ["allow"]);
    let ended = world.records("completion");
    assert_eq!(ended[0]["outcome"], "abandoned");
    assert_eq!(world.gate.tally().allowed, 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_has_to_be_waited_for_is_neither_asked_twice_nor_let_through() {
    let world = world(asks(1));
    let session = world.own();
    let operation = POST.operation(&session);
    let Now::Later(undecided) = world.gate.admit_now(operation, session.clone(), &TERMS) else {
        panic!("a person was not waited for");
    };
    let gate = world.gate.clone();
    let task = spawn_named(
        "later",
        async move { gate.admit_later(undecided, &TERMS).await },
    );
    all_wait().await;
    world.approve();
    assert_eq!(word(&task.await.unwrap()), "proceed");
    assert_eq!(world.asked(), 2, "at `started`, and as abandoned");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_answers_later_is_asked_once_and_waited_for() {
    let policy = Scripted::always(Verdict::Allow).taking(Duration::from_secs(1));
    let world = world(policy);
    let session = world.own();
    let Now::Later(undecided) =
        world
            .gate
            .admit_now(POST.operation(&session), session.clone(), &TERMS)
    else {
        panic!("it answered at once");
    };
    assert_eq!(world.asked(), 0);
    let decision = world.gate.admit_later(undecided, &TERMS).await;
    assert_eq!(word(&decision), "proceed");
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_policy_refuses_never_stands_in_line() {
    let world = world(Scripted::always(Verdict::Block));
    let session = world.own();
    let now = world
        .gate
        .admit_now(POST.operation(&session), session.clone(), &TERMS);
    let Now::Refused(refused) = now else {
        panic!("not refused: {now:?}");
    };
    assert_eq!(refused.refusal.code(), "blocked");
    assert_eq!(world.decided("decision"), ["blocked"]);
}
