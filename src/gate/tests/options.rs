//! What the operator takes out of policy's hands, and nothing more than that.

use super::*;

fn names(names: &[&str]) -> std::collections::BTreeSet<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn signal(context: &Arc<Context>, name: &str) -> Event {
    let name = JsonText(Value::from(name).to_string().into());
    Event {
        fields: vec![("signal_name", name)],
        ..event(EventKind::SignalReceived, context)
    }
}

#[tokio::test(start_paused = true)]
async fn each_option_leaves_out_its_events_and_no_others() {
    use EventKind::*;
    let none = Unasked::default;
    #[rustfmt::skip]
    let table: [(Unasked, &str, &[EventKind]); 7] = [
        (none(),                                                       "", &[]),
        (Unasked { workflow_starts: true, ..none() },                  "events.send_start", &[WorkflowStarted]),
        (Unasked { activity_starts: true, ..none() },                  "events.send_activity_start", &[ActivityStarted]),
        (Unasked { workflow_types: names(&["t"]), ..none() },          "events.skip_workflow_types", &[WorkflowStarted, WorkflowCompleted, WorkflowFailed, SignalReceived]),
        (Unasked { activity_types: names(&["kind"]), ..none() },       "events.skip_activity_types", &[ActivityStarted, ActivityCompleted]),
        (Unasked { signals: names(&["\"tick\""]), ..none() },          "events.skip_signals", &[SignalReceived]),
        (Unasked { workflow_types: names(&["T"]), activity_types: names(&["kin"]), signals: names(&["tick"]), ..none() }, "", &[]),
    ];
    for (unasked, setting, left_out) in table {
        for kind in EventKind::ALL {
            let row = format!("{setting} {kind:?}");
            let settings = Settings {
                unasked: unasked.clone(),
                ..settings()
            };
            let world = World::new(Scripted::always(Verdict::Block), settings);
            let activity = matches!(kind, ActivityStarted | ActivityCompleted).then_some("a");
            let context = context("w", "r", activity);
            let told = if kind == SignalReceived {
                signal(&context, "tick")
            } else {
                event(kind, &context)
            };
            let noted = world.gate.note(&told, HOLD_WITHIN).await;
            let (verdict, asked) = match left_out.contains(&kind) {
                true => (Verdict::Allow, 0),
                false => (Verdict::Block, 1),
            };
            assert_eq!((noted.verdict, world.asked()), (verdict, asked), "{row}");
            let line = &world.records("event")[0];
            if asked == 0 {
                let reason = format!("not asked: `{setting}` leaves this out");
                assert_eq!(line["reason"], reason, "{row}: {line}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_opens_what_it_opens_and_its_operations_are_asked_about() {
    let settings = Settings {
        unasked: Unasked {
            workflow_starts: true,
            workflow_types: names(&["t"]),
            activity_types: names(&["kind"]),
            ..Unasked::default()
        },
        ..settings()
    };
    let world = World::new(Scripted::always(Verdict::Block), settings);
    let (run, inside) = (context("w", "r", None), context("w", "r", Some("a")));
    for (kind, context) in [
        (EventKind::WorkflowStarted, &run),
        (EventKind::ActivityStarted, &inside),
    ] {
        let noted = world.gate.note(&event(kind, context), HOLD_WITHIN).await;
        assert_eq!(noted.verdict, Verdict::Allow);
    }
    let session = world.gate.registry().session_of(&inside);
    assert!(session.activity.is_some(), "it is open");
    assert_eq!(world.refusal(&session, POST).await.code(), "blocked");
    assert_eq!(world.asked(), 1, "the operation");
    world.halt(&session);
    let told = event(EventKind::ActivityCompleted, &inside);
    let noted = world.gate.note(&told, HOLD_WITHIN).await;
    assert_eq!(noted.verdict, Verdict::Halt, "a halt is above all options");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_asked_events_go_on_and_operations_are_refused_at_once() {
    let by_type = |kind: &str| Unheld {
        all: false,
        activity_types: names(&[kind]),
    };
    let all = Unheld {
        all: true,
        ..Unheld::default()
    };
    #[rustfmt::skip]
    let table = [
        // unheld               event               started             its answer
        (Unheld::default(),     "approval_pending", "approval_pending", "approval_pending"),
        (by_type("other"),      "approval_pending", "approval_pending", "approval_pending"),
        (by_type("kind"),       "",                 "blocked",          "outcome_blocked"),
        (all,                   "",                 "blocked",          "outcome_blocked"),
    ];
    for (unheld, of_event, of_operation, of_answer) in table {
        let row = format!("{unheld:?}");
        let world = |policy: Scripted| {
            let settings = Settings {
                unheld: unheld.clone(),
                ..settings()
            };
            World::new(policy, settings)
        };
        let asking = world(Scripted::always(Verdict::RequireApproval));
        let told = event(EventKind::ActivityStarted, &context("w", "r", Some("e")));
        let noted = asking.gate.note(&told, HOLD_WITHIN).await;
        let code = noted.refusal.as_ref().map_or("", Refusal::code);
        assert_eq!(code, of_event, "{row}");
        let session = asking.activity("r", "a");
        let refused = asking.refusal(&session, POST).await;
        assert_eq!(refused.code(), of_operation, "{row}");
        let nobody = of_operation == "blocked";
        assert_eq!(asking.gate.approvals().is_empty(), nobody, "{row}");

        let later = world(then(Verdict::RequireApproval));
        let session = later.activity("r", "a");
        let permit = later.permit(&session, POST).await;
        let end = permit.complete(answered(200), &TERMS).await;
        assert_eq!(after(&end), of_answer, "{row}");

        // Where the answer has gone out, what comes after it is refused.
        let gone = world(then(Verdict::RequireApproval));
        let session = gone.activity("r", "a");
        let permit = gone.permit(&session, POST).await;
        drop(permit.account(answered(200)).await);
        let next = gone.refusal(&session, POST).await;
        let expected = if nobody {
            "activity_aborted"
        } else {
            "approval_pending"
        };
        assert_eq!(next.code(), expected, "{row}");
    }
}
