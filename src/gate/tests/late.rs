//! Verdicts about what happened long ago.

use super::*;
use crate::journal::ship::{Heeds, Late};

fn late(world: &World, run: &str, activity: Option<&str>, verdict: Verdict) {
    let mut ruling = Ruling::new(verdict, 0);
    ruling.reason = Some(Reason::from("seen late"));
    world.gate.heed(&Late {
        workflow_id: "w",
        run_id: run,
        activity_id: activity,
        ruling: &ruling,
    });
}

fn allow() -> World {
    world(Scripted::always(Verdict::Allow))
}

#[tokio::test(start_paused = true)]
async fn a_halt_that_comes_late_stops_what_its_run_does_next() {
    let world = allow();
    let session = world.activity("r", "a");
    late(&world, "r", Some("a"), Verdict::Halt);
    let refused = world.refusal(&session, POST).await;
    assert_eq!(refused, Refusal::Halted(Reason::from("seen late")));
}

#[tokio::test(start_paused = true)]
async fn a_halt_of_a_run_that_is_over_meets_it_when_it_comes_again() {
    let world = allow();
    late(&world, "gone", None, Verdict::Halt);
    let started = event(EventKind::WorkflowStarted, &context("w", "gone", None));
    let noted = world.gate.note(&started, HOLD_WITHIN).await;
    assert_eq!(noted.verdict, Verdict::Halt);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_comes_late_ends_its_activity_and_no_other() {
    let world = allow();
    let (blocked, other) = (world.activity("r", "a"), world.activity("r", "b"));
    late(&world, "r", Some("a"), Verdict::Block);
    late(&world, "r", Some("none"), Verdict::Block);
    let refused = world.refusal(&blocked, POST).await;
    assert_eq!(refused.code(), "activity_aborted");
    drop(world.permit(&other, POST).await);
}

#[tokio::test(start_paused = true)]
async fn what_policy_lets_stand_stops_nothing() {
    let world = allow();
    let session = world.activity("r", "a");
    for verdict in [Verdict::Allow, Verdict::Constrain, Verdict::RequireApproval] {
        late(&world, "r", Some("a"), verdict);
    }
    drop(world.permit(&session, POST).await);
}
