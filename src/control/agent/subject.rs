//! What an event is about: the run or activity that its ids name.

use std::sync::Arc;

use http::StatusCode;

use crate::domain::{ActivityRef, Context};
use crate::session::{Run, RunKey};

use super::super::problem::Problem;
use super::Shared;
use super::ended::Known;

impl Shared {
    /// The run of these ids, ended or not.
    pub(super) fn run(&self, workflow_id: &str, run_id: &str) -> Result<Arc<Run>, Problem> {
        let key = RunKey {
            workflow_id: workflow_id.into(),
            run_id: run_id.into(),
        };
        self.api.gate.registry().run(&key).ok_or_else(|| {
            let detail = format!(
                "no run \"{run_id}\" of workflow \"{workflow_id}\" is open; POST /v1/workflows opens one, if policy allows it"
            );
            Problem::new(StatusCode::NOT_FOUND, "unknown_run", detail)
        })
    }

    /// The run of these ids, which must not have ended. A halted one counts, so
    /// that the agent is told of the halt.
    pub(super) fn open_run(&self, workflow_id: &str, run_id: &str) -> Result<Arc<Run>, Problem> {
        let run = self.run(workflow_id, run_id)?;
        if run.is_closed() && run.latch.reason().is_none() {
            let detail = format!("run \"{run_id}\" of workflow \"{workflow_id}\" has ended");
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_run", detail));
        }
        Ok(run)
    }

    /// Refuses to start what has been started and has not ended.
    pub(super) fn not_started(&self, workflow_id: &str, run_id: &str) -> Result<(), Problem> {
        let open = self
            .run(workflow_id, run_id)
            .is_ok_and(|run| !run.is_closed() && run.latch.reason().is_none());
        if !open {
            return Ok(());
        }
        let detail = format!(
            "run \"{run_id}\" of workflow \"{workflow_id}\" was started before and is open; a run needs an id of its own"
        );
        Err(Problem::new(
            StatusCode::CONFLICT,
            "run_already_started",
            detail,
        ))
    }

    /// The open activity of these ids, or one whose completion waits for a
    /// person. Its own id is enough where only one run has it.
    pub(super) fn activity(
        &self,
        activity_id: &str,
        workflow_id: Option<&str>,
        run_id: Option<&str>,
    ) -> Result<Known, Problem> {
        let fits = |context: &Context| {
            workflow_id.is_none_or(|id| *context.workflow_id == *id)
                && run_id.is_none_or(|id| *context.run_id == *id)
        };
        let runs = self.api.gate.registry().all_runs();
        let mut found = runs
            .iter()
            .filter(|run| fits(&run.context))
            .filter_map(|run| run.activity(activity_id));
        if let Some(activity) = found.next() {
            if found.next().is_some() {
                let detail = format!(
                    "activity \"{activity_id}\" is open in several runs; say `workflow_id` and `run_id` too"
                );
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "ambiguous_activity",
                    detail,
                ));
            }
            return Ok(Known {
                context: activity.context.clone(),
                began: activity.opened_at,
            });
        }
        let waits = |context: &Context| {
            let named = context.activity.as_ref();
            fits(context) && named.is_some_and(|named| *named.id == *activity_id)
        };
        self.ended.find(waits).ok_or_else(|| {
            let detail = format!(
                "no activity \"{activity_id}\" is open; POST /v1/activities opens one, if policy allows it"
            );
            Problem::new(StatusCode::NOT_FOUND, "completion_without_start", detail)
        })
    }
}

/// `activity` inside the run of `context`.
pub(super) fn inside(context: &Context, activity: ActivityRef) -> Arc<Context> {
    Arc::new(Context {
        activity: Some(activity),
        ..context.clone()
    })
}
