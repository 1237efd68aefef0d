//! What a hook tells and the wire shows is asked about once.

use super::*;
use crate::domain::{Reported, SpanId, TraceId, Trailers};
use crate::gate::Noted;

const TRACE: TraceId = TraceId(7);

/// `call`, as the wire shows it.
fn seen(call: Call<'_>, session: &Session) -> Box<Operation> {
    let mut operation = call.operation(session);
    operation.trace = TRACE;
    operation
}

/// `call`, as a hook tells it.
fn told(call: Call<'_>, session: &Session) -> Box<Operation> {
    let mut operation = seen(call, session);
    operation.span = SpanId(77);
    operation.reported = Some(Box::new(Reported {
        name: "POST".into(),
        kind: "CLIENT".into(),
        attributes: JsonText("{}".into()),
        envelope: Vec::new(),
    }));
    operation
}

fn with_body(status: u16, body: &str) -> Completion {
    let mut completion = answered(status);
    if let Some(Answer::Http(answer)) = &mut completion.answer {
        answer.body = Capture {
            text: Some(body.to_owned()),
            state: Captured::Whole,
            ..Capture::default()
        };
    }
    completion
}

impl<B: PolicyBackend + 'static> World<B> {
    async fn decide(&self, operation: Box<Operation>, session: &Session) -> Decision {
        self.gate.admit(operation, session.clone(), &TERMS).await
    }

    async fn goes(&self, operation: Box<Operation>, session: &Session) -> Permit {
        match self.decide(operation, session).await {
            Decision::Proceed(permit) => permit,
            other @ (Decision::Replay(_) | Decision::Refuse(_)) => panic!("{other:?}"),
        }
    }
}

fn allowing() -> Scripted {
    Scripted::always(Verdict::Allow)
}

#[tokio::test(start_paused = true)]
async fn the_later_of_both_joins_where_everything_agrees() {
    type Change = fn(&mut Operation);
    fn http(operation: &mut Operation) -> &mut HttpCall {
        match &mut operation.action {
            Action::Http(call) => call,
            Action::Database(_) | Action::File(_) | Action::Function(_) => unreachable!(),
        }
    }
    fn trailers() -> Option<Box<Trailers>> {
        Some(Box::new(Trailers {
            text: "x-end: yes".into(),
            digest: [1; 32],
        }))
    }
    #[rustfmt::skip]
    let table: [(&str, Change, bool); 10] = [
        ("nothing",       |_| {},                                              true),
        ("spelling",      |o| http(o).method = "post".into(),                  true),
        ("trace",         |o| o.trace = TraceId(8),                            false),
        ("method",        |o| http(o).method = "PUT".into(),                   false),
        ("query",         |o| http(o).url = "https://api.example/refunds?a".into(), false),
        ("host",          |o| http(o).host = "evil.example".into(),            false),
        ("body",          |o| http(o).body.text = Some("{}".into()),           false),
        ("no body",       |o| http(o).body = Capture::default(),               false),
        ("a body unseen", |o| http(o).body.state = Captured::Partial,          false),
        ("trailers",      |o| http(o).body.trailers = trailers(),              false),
    ];
    for (what, change, joins) in table {
        for hook_first in [true, false] {
            let world = world(allowing());
            let session = world.activity("r", "a");
            let (mut hook, mut wire) = (told(POST, &session), seen(POST, &session));
            change(&mut wire);
            // So that a wire operation that comes first can be joined.
            drop(
                world
                    .goes(told(Call { path: "/x", ..POST }, &session), &session)
                    .await,
            );
            let before = world.asked();
            if !hook_first {
                std::mem::swap(&mut hook, &mut wire);
            }
            let first = world.goes(hook, &session).await;
            let second = world.goes(wire, &session).await;
            let asked = world.asked() - before;
            assert_eq!(asked, if joins { 1 } else { 2 }, "{what} {hook_first}");
            let records = world.records("decision");
            let joined = &records.last().unwrap()["joined"];
            let event = first.operation().unwrap().id.to_string();
            assert_eq!(joined == &Value::from(event), joins, "{what} {joined}");
            drop((first, second));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_activity_never_joins_and_each_evaluation_is_joined_once() {
    let world = world(allowing());
    let (session, other) = (world.activity("r", "a"), world.activity("r", "b"));
    let _hook = world.goes(told(POST, &session), &session).await;
    let _other = world.goes(seen(POST, &other), &other).await;
    assert_eq!(world.asked(), 2);
    let wire = world.goes(seen(POST, &session), &session).await;
    assert_eq!(world.asked(), 2);
    let span = wire.operation().unwrap().span;
    assert_eq!(span, SpanId(77), "one thing has one span");
    let _again = world.goes(seen(POST, &session), &session).await;
    assert_eq!(world.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_is_joined_for_a_while_and_by_the_policy_that_made_it() {
    for (wait, generation, asked) in [(29, 0, 1), (30, 0, 2), (0, 1, 2)] {
        let world = world(allowing());
        let session = world.activity("r", "a");
        let _hook = world.goes(told(POST, &session), &session).await;
        tokio::time::advance(Duration::from_secs(wait)).await;
        world.policy.generation.store(generation, Ordering::Relaxed);
        let _wire = world.goes(seen(POST, &session), &session).await;
        assert_eq!(world.asked(), asked, "{wait} {generation}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_judged_or_was_refused_is_not_joined() {
    let answers = [unavailable(), say(Verdict::Block)];
    for answer in answers {
        let policy = allowing().at(Stage::Started, [answer.clone()]);
        let settings = Settings {
            fail_mode: FailMode::Open,
            ..settings()
        };
        let world = World::new(policy, settings);
        let session = world.activity("r", "a");
        let _hook = world.decide(told(POST, &session), &session).await;
        // A block aborts the activity; without one, policy is asked.
        let mut own = session.clone();
        own.activity = None;
        let before = world.asked();
        let _wire = world.decide(seen(POST, &session), &own).await;
        assert_eq!(world.asked(), before + 1, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_stops_what_could_join() {
    let world = world(allowing());
    let session = world.activity("r", "a");
    let _hook = world.goes(told(POST, &session), &session).await;
    world.halt(&session);
    let wire = world.decide(seen(POST, &session), &session).await;
    assert_eq!(word(&wire), "halted");
}

#[tokio::test(start_paused = true)]
async fn constraints_are_applied_where_they_can_be() {
    let constrained = |name: &str| Ruling {
        constraints: vec![name.into()],
        ..Ruling::new(Verdict::Constrain, 0)
    };
    for (name, expected) in [
        ("applied", "proceed"),
        ("contradicted", "constraint_not_applicable"),
    ] {
        let policy = allowing().at(Stage::Started, [Ok(constrained(name))]);
        let world = world(policy);
        let session = world.activity("r", "a");
        let hook = Terms {
            contradicts: |_| false,
            ..TERMS
        };
        let first = world
            .gate
            .admit(told(POST, &session), session.clone(), &hook)
            .await;
        assert_eq!(word(&first), "proceed");
        let wire = world.decide(seen(POST, &session), &session).await;
        assert_eq!((word(&wire), world.asked()), (expected, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_wire_showed_is_what_the_hook_hears_of() {
    #[rustfmt::skip]
    let table = [
        // what the hook tells   asked
        (with_body(200, "{}"),    1),
        (answered(200),           1),
        (with_body(200, "[]"),    2),
        (answered(500),           2),
    ];
    for (told_of_it, asked) in table {
        let world = world(then(Verdict::Block));
        let session = world.activity("r", "a");
        let hook = world.goes(told(POST, &session), &session).await;
        let wire = world.goes(seen(POST, &session), &session).await;
        let before = world.asked();
        let end = wire.complete(with_body(200, "{}"), &TERMS).await;
        assert_eq!(after(&end), "outcome_blocked");
        let Noted { verdict, .. } = hook.account(told_of_it.clone()).await;
        assert_eq!(world.asked() - before, asked, "{told_of_it:?}");
        let expected = if asked == 1 {
            Verdict::Block
        } else {
            Verdict::Allow
        };
        assert_eq!(verdict, expected, "{told_of_it:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_hook_told_of_an_answer_stands_for_the_wire_only_if_it_is_the_same() {
    #[rustfmt::skip]
    let table = [
        (with_body(200, "{}"),    1),
        (answered(200),           2),
        (with_body(200, "[]"),    2),
        (with_body(201, "{}"),    2),
    ];
    for (told_of_it, asked) in table {
        let world = world(allowing());
        let session = world.activity("r", "a");
        let hook = world.goes(told(POST, &session), &session).await;
        let wire = world.goes(seen(POST, &session), &session).await;
        let before = world.asked();
        drop(hook.account(told_of_it.clone()).await);
        wire.report(with_body(200, "{}"));
        all_wait().await;
        assert_eq!(world.asked() - before, asked, "{told_of_it:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wire_waits_for_the_person_that_its_hook_asked() {
    let world = world(asks(2));
    let session = world.activity("r", "a");
    let at_once = Terms {
        hold_within: Duration::ZERO,
        ..TERMS
    };
    let hook = world
        .gate
        .admit(told(POST, &session), session.clone(), &at_once)
        .await;
    assert_eq!(word(&hook), "approval_pending");
    let (gate, waiting, wire) = (world.gate.clone(), session.clone(), seen(POST, &session));
    let wire = spawn_named(
        "wire",
        async move { gate.admit(wire, waiting, &TERMS).await },
    );
    all_wait().await;
    assert_eq!((world.gate.approvals().len(), world.asked()), (1, 1));
    world.approve();
    let wire = wire.await.unwrap();
    assert_eq!(word(&wire), "proceed");
    // The hook that tells how it went was never admitted: it joins the wire.
    let hook = world.decide(told(POST, &session), &session).await;
    assert_eq!((word(&hook), world.asked()), ("proceed", 1));
    assert_eq!(world.approvals(), ["pending", "granted", "consumed"]);
    // The grant was for one.
    let again = world
        .gate
        .admit(seen(POST, &session), session.clone(), &at_once)
        .await;
    assert_eq!((word(&again), world.asked()), ("approval_pending", 2));
}

#[tokio::test(start_paused = true)]
async fn govern_says_what_is_asked_and_a_halt_stops_all_of_it() {
    #[rustfmt::skip]
    let table = [
        // govern           hook asked, wire asked
        (Govern::Both,      2, 2),
        (Govern::Boundary,  0, 2),
        (Govern::Hooks,     2, 0),
    ];
    for (govern, by_hook, by_wire) in table {
        let policy = Scripted::always(Verdict::Allow);
        let world = World::new(
            policy,
            Settings {
                govern,
                ..settings()
            },
        );
        let session = world.activity("r", "a");
        let hook = world.goes(told(POST, &session), &session).await;
        drop(hook.account(answered(200)).await);
        assert_eq!(world.asked(), by_hook, "{govern:?}");
        let other = Call {
            path: "/other",
            ..POST
        };
        let wire = world.goes(seen(other, &session), &session).await;
        drop(wire.complete(answered(200), &TERMS).await);
        assert_eq!(world.asked(), by_hook + by_wire, "{govern:?}");
        assert_eq!(
            world.records("decision").len(),
            2,
            "what is not asked is recorded"
        );
        world.halt(&session);
        for operation in [told(POST, &session), seen(POST, &session)] {
            assert_eq!(word(&world.decide(operation, &session).await), "halted");
        }
    }
}
