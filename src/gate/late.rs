//! What policy says of something long after it happened: too late to stop it,
//! and not too late for what comes after it.

use crate::domain::{Context, Verdict};
use crate::journal::ship::{Heeds, Late};
use crate::process::clock;
use crate::session::RunKey;

use super::Gate;

impl Heeds for Gate {
    fn heed(&self, late: &Late<'_>) {
        match late.ruling.verdict {
            Verdict::Allow | Verdict::Constrain => {}
            Verdict::RequireApproval => {
                tracing::warn!(
                    run_id = late.run_id,
                    "policy wanted a person for what has happened long ago"
                );
            }
            Verdict::Block => self.abort_late(late),
            Verdict::Halt => self.halt_late(late),
        }
    }
}

impl Gate {
    fn abort_late(&self, late: &Late<'_>) {
        let run = self.registry().run(&key(late));
        let activity = run
            .zip(late.activity_id)
            .and_then(|(run, id)| run.activity(id));
        if let Some(activity) = activity {
            let reason = late.ruling.reason_or_default();
            self.inner.abort_activity(&activity, &reason);
        }
    }

    /// Also a run that is over, or was never known here: it may come again.
    fn halt_late(&self, late: &Late<'_>) {
        let registry = self.registry();
        let reason = late.ruling.reason_or_default();
        if let Some(run) = registry.run(&key(late)) {
            self.halt(&run, &reason, "policy");
            return;
        }
        let context = Context {
            workflow_id: late.workflow_id.into(),
            run_id: late.run_id.into(),
            workflow_type: "".into(),
            task_queue: "".into(),
            activity: None,
        };
        match registry.open_run(&context, clock::now()) {
            Ok(run) => {
                self.halt(&run, &reason, "policy");
                registry.close_run(&context);
            }
            // Nothing says whose an operation is that would be this run's.
            Err(_) => self.halt(&registry.own().run, &reason, "policy"),
        }
    }
}

fn key(late: &Late<'_>) -> RunKey {
    RunKey {
        workflow_id: late.workflow_id.into(),
        run_id: late.run_id.into(),
    }
}
