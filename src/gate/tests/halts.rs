//! A halt overtakes whatever was decided before it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_an_allow_that_comes_later() {
    let world = world(Scripted::always(Verdict::Allow).taking(Duration::from_secs(1)));
    let session = world.activity("r", "a");
    let task = world.admitting(&session, POST).await;
    world.halt(&session);
    assert_eq!(refusal(task.await.unwrap()).code(), "halted");
    assert_eq!(world.decided("decision"), ["halted"]);
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_an_allow_that_is_being_written() {
    let world = world(Scripted::always(Verdict::Allow));
    let session = world.activity("r", "a");
    let halt = async { world.halt(&session) };
    let (refusal, ()) = tokio::join!(world.refusal(&session, POST), halt);
    assert_eq!(refusal.code(), "halted");
    all_wait().await;
    // Policy let it begin, so it also ended.
    assert_eq!(world.decided("decision"), ["allow"]);
    assert_eq!(world.records("completion")[0]["outcome"], "abandoned");
}

/// Answers at once, after having halted the run of its test.
struct HaltsMeanwhile(std::sync::OnceLock<(Gate, Session)>, Verdict);

impl std::fmt::Debug for HaltsMeanwhile {
    /// The gate that it holds holds it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HaltsMeanwhile")
    }
}

impl PolicyBackend for HaltsMeanwhile {
    fn judge<'a>(&'a self, _: crate::policy::Question<'a>) -> crate::policy::Judging<'a> {
        if let Some((gate, session)) = self.0.get() {
            gate.halt(&session.run, &Reason::from("stop"), "alice");
        }
        crate::policy::Judging::Now(Ok(Arc::new(Ruling::new(self.1, 0))))
    }

    fn approvals_at(&self) -> crate::policy::ApprovalsAt {
        crate::policy::ApprovalsAt::Sidecar
    }

    fn approval<'a>(
        &'a self,
        _: &'a Context,
    ) -> crate::policy::Later<'a, Result<crate::policy::ApprovalState, PolicyError>> {
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
async fn the_latch_is_read_again_after_policy_has_answered() {
    for verdict in [Verdict::Allow, Verdict::Constrain, Verdict::RequireApproval] {
        let world = World::new(HaltsMeanwhile(Default::default(), verdict), settings());
        let session = world.activity("r", "a");
        let halts = (world.gate.clone(), session.clone());
        drop(world.policy.0.set(halts));
        let refusal = world.refusal(&session, POST).await;
        assert_eq!(refusal.code(), "halted", "{verdict}");
        assert!(
            world
                .gate
                .approvals()
                .iter()
                .all(|a| a.state.as_str() != "pending")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_an_approval_granted_later() {
    let world = world(asks(1));
    let session = world.activity("r", "a");
    let task = world.admitting(&session, POST).await;
    let approval = world.pending();
    world.halt(&session);
    assert!(world.gate.approve(&approval, "alice").is_err());
    assert_eq!(refusal(task.await.unwrap()).code(), "halted");
    assert_eq!(world.approvals(), ["pending", "cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn a_halt_overtakes_a_grant_that_nobody_has_used_yet() {
    let world = world(asks(1));
    let session = world.activity("r", "a");
    let task = world.admitting(&session, POST).await;
    world.approve();
    world.halt(&session);
    assert_eq!(refusal(task.await.unwrap()).code(), "halted");
    assert_eq!(
        world.approvals(),
        ["pending", "granted"],
        "the grant is not used up"
    );
    assert!(world.gate.resume(&session.run, "alice"));
    drop(world.permit(&session, POST).await);
    assert_eq!(world.asked(), 2, "started once, and the completion");
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_grant_after_a_halt_leaves_it_there() {
    use crate::gate::wait::{Waited, Waiter};
    let world = world(asks(1));
    let session = world.activity("r", "a");
    world.admitting(&session, POST).await.abort();
    let id = world.pending();
    world.approve();
    world.halt(&session);
    let inner = &world.gate.inner;
    let hold = inner.holds.by_id(&id).unwrap();
    let now = tokio::time::Instant::now();
    let waited = inner.wait(&hold, Waiter::Joiner, &session, now).await;
    assert!(matches!(waited, Waited::Ended(Refusal::Halted(_))));
    assert_eq!(hold.state().as_str(), "granted");
}

#[tokio::test(start_paused = true)]
async fn after_a_resume_a_retry_asks_anew_and_is_not_told_of_the_halt() {
    let world = world(asks(1));
    let session = world.activity("r", "a");
    let task = world.admitting(&session, POST).await;
    world.halt(&session);
    assert_eq!(refusal(task.await.unwrap()).code(), "halted");
    assert!(world.gate.resume(&session.run, "alice"));
    drop(world.permit(&session, POST).await);
    let lines = (world.records("halt"), world.records("resume"));
    assert_eq!((lines.0.len(), lines.1.len()), (1, 1));
    let asked = world.records("approval");
    assert_eq!(asked.first().unwrap()["activity_id"], "a");
    // A run is named by both: two workflows may use one run id.
    for line in lines.0.iter().chain(&lines.1).chain(&asked) {
        assert_eq!(line["run_id"], "r", "{line}");
        assert_eq!(
            line["workflow_id"], *session.run.context.workflow_id,
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_halt_scope_says_what_else_stops() {
    #[rustfmt::skip]
    let table = [
        // scope               halted run  another run  unattributed
        (HaltScope::Run,       "halted",   "proceed",   "halted"),
        (HaltScope::Agent,     "halted",   "halted",    "halted"),
    ];
    for (halt_scope, same, other, own) in table {
        let policy = Scripted::always(Verdict::Allow).at(Stage::Started, [say(Verdict::Halt)]);
        let world = World::new(
            policy,
            Settings {
                halt_scope,
                ..settings()
            },
        );
        let halted = world.activity("r", "a");
        let free = world.activity("s", "a");
        assert_eq!(world.refusal(&halted, POST).await.code(), "halted");
        let asked = world.asked();
        let mut found = Vec::new();
        for session in [&halted, &free, &world.own()] {
            found.push(word(&world.admit(session, POST).await));
        }
        assert_eq!(found, [same, other, own], "{halt_scope:?}");
        let allowed = found.iter().filter(|word| **word == "proceed").count();
        assert_eq!(world.asked(), asked + 2 * u64::try_from(allowed).unwrap());
        assert!(world.gate.resume(&halted.run, "alice"));
        for session in [&halted, &free, &world.own()] {
            assert_eq!(word(&world.admit(session, POST).await), "proceed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_halt_ends_the_holds_in_its_scope_and_no_others() {
    for (halt_scope, left) in [(HaltScope::Run, 1), (HaltScope::Agent, 0)] {
        let world = World::new(
            asks(2),
            Settings {
                halt_scope,
                ..settings()
            },
        );
        let halted = world.activity("r", "a");
        let other = world.activity("s", "a");
        let first = world.admitting(&halted, POST).await;
        let second = world.admitting(&other, POST).await;
        world.halt(&halted);
        all_wait().await;
        assert_eq!(refusal(first.await.unwrap()).code(), "halted");
        let all = world.gate.approvals();
        let open = all.iter().filter(|a| a.state.as_str() == "pending").count();
        assert_eq!(
            (open, second.is_finished()),
            (left, left == 0),
            "{halt_scope:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_halted_before_can_halt_the_agent_again() {
    let scope = Settings {
        halt_scope: HaltScope::Agent,
        ..settings()
    };
    let world = World::new(asks(1), scope);
    let [first, second] = ["r", "s"].map(|run| world.activity(run, "a"));
    world.halt(&first);
    world.halt(&second);
    assert!(world.gate.resume(&first.run, "alice"));
    let held = world.admitting(&first, POST).await;
    assert!(!held.is_finished());
    world.halt(&second);
    assert_eq!(refusal(held.await.unwrap()).code(), "halted");
    assert_eq!(world.records("halt").len(), 3);
    assert_eq!(world.approvals(), ["pending", "cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn a_halt_outlives_the_activity_and_the_run_it_came_from() {
    let policy = Scripted::always(Verdict::Allow).at(Stage::Started, [say(Verdict::Halt)]);
    let world = world(policy.taking(Duration::from_secs(1)));
    let session = world.activity("r", "a");
    let task = world.admitting(&session, POST).await;
    let registry = world.gate.registry();
    registry.close_run(&session.context);
    let again = world.activity("r", "a");
    assert!(again.halted().is_none());
    assert_eq!(refusal(task.await.unwrap()).code(), "halted");
    assert_eq!(world.refusal(&again, POST).await.code(), "halted");
}
