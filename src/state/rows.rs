//! The rows of the state file, and what they are read back as.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{ActivityRef, Context, JsonText, Reason, Timestamp};

use super::tables::Table;

/// Key of the own run's id among the rows about the file.
pub(super) const OWN_RUN: &str = "own_run";
/// Key of the halt of everything; no run's, for those are JSON arrays.
pub(super) const EVERYTHING: &str = "everything";

/// What an earlier process left.
#[derive(Debug, Default)]
pub struct Restored {
    /// The run id of the sidecar's own session.
    pub own_run: Option<String>,
    /// Open runs, and when they were opened.
    pub runs: Vec<(Context, Timestamp)>,
    /// Open activities.
    pub activities: Vec<KeptActivity>,
    /// Halted runs, open or not.
    pub halts: Vec<(Context, Reason)>,
    /// Why everything is halted, if it is.
    pub everything: Option<Reason>,
    /// Open approvals, and grants and refusals that no retry has been told.
    pub approvals: Vec<KeptApproval>,
}

/// An activity that was open.
#[derive(Debug)]
pub struct KeptActivity {
    /// Ids of the run and the activity.
    pub context: Arc<Context>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Why its later operations are refused, if they are.
    pub aborted: Option<Reason>,
    key: String,
}

/// An approval as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptApproval {
    /// What it is decided under.
    pub id: String,
    /// Where it stands.
    pub state: KeptState,
    /// Whether it is about an outcome: then it stands for the later operations
    /// of its activity. An outcome that is held itself is lost with its process.
    pub of_outcome: bool,
    /// One line about what is asked.
    pub summary: String,
    /// Why policy wants a person.
    pub reason: Option<String>,
    /// Which policy wants a person.
    pub policy: Option<String>,
    /// The policy service's id of the evaluation.
    pub event_id: Option<String>,
    /// Under which conditions the operation goes on.
    pub constraints: Vec<String>,
    /// JSON text that replaces the judged input.
    pub redacted: Option<String>,
    /// Whether Core keeps it: the answer then needs no second look.
    pub in_core: bool,
    /// Ids of workflow, run and activity.
    pub workflow_id: String,
    /// See [`Self::workflow_id`].
    pub run_id: String,
    /// See [`Self::workflow_id`].
    pub activity_id: Option<String>,
    /// When it was opened, nanoseconds since the epoch.
    pub opened_at: u64,
    /// When it expires, nanoseconds since the epoch.
    pub expires_at: u64,
    /// What a retry is recognised by: 32 hex digits.
    pub fingerprint: Option<String>,
    /// What it is recognised by on the wire, where a hook told of it: 32 hex digits.
    #[serde(default)]
    pub twin: Option<String>,
    /// Who decided, once somebody has.
    #[serde(default)]
    pub decided_by: Option<String>,
}

/// Where a kept approval stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptState {
    /// Nobody has decided.
    Pending,
    /// A person agreed; nobody has used it.
    Granted,
    /// A person declined, with this reason.
    Rejected(String),
}

impl Restored {
    /// Takes one row in. Tables come in the order of [`Table`].
    pub(super) fn take(
        &mut self,
        table: Table,
        key: &str,
        value: &str,
    ) -> Result<(), serde_json::Error> {
        match table {
            Table::About if key == OWN_RUN => self.own_run = Some(serde_json::from_str(value)?),
            Table::About => {}
            Table::Runs => {
                let run: Run = serde_json::from_str(value)?;
                let context = run.context(key)?;
                self.runs.push((context, Timestamp(run.opened_at)));
            }
            Table::Activities => {
                let activity: Activity = serde_json::from_str(value)?;
                self.activities.push(KeptActivity {
                    opened_at: Timestamp(activity.opened_at),
                    context: Arc::new(activity.context(key)?),
                    aborted: None,
                    key: key.to_owned(),
                });
            }
            Table::Aborts => {
                let abort = serde_json::from_str(value)?;
                self.abort(key, abort);
            }
            Table::Halts => {
                let reason = Reason::from(&*serde_json::from_str::<String>(value)?);
                if key == EVERYTHING {
                    self.everything = Some(reason);
                } else {
                    self.halts.push((ids_only(key)?, reason));
                }
            }
            Table::Approvals => self.approvals.push(serde_json::from_str(value)?),
        }
        Ok(())
    }

    /// A new attempt of an activity starts without its predecessor's refusals.
    fn abort(&mut self, key: &str, abort: Abort) {
        let found = self.activities.iter_mut().find(|known| known.key == key);
        let Some(activity) = found else { return };
        let attempt = activity.context.activity.as_ref().map(|a| a.attempt);
        if attempt == Some(abort.attempt) {
            activity.aborted = Some(Reason::from(&*abort.reason));
        }
    }
}

/// An open run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    workflow_type: Arc<str>,
    task_queue: Arc<str>,
    opened_at: u64,
}

impl Run {
    pub(super) fn of(context: &Context, at: Timestamp) -> Self {
        Self {
            workflow_type: context.workflow_type.clone(),
            task_queue: context.task_queue.clone(),
            opened_at: at.0,
        }
    }

    fn context(&self, key: &str) -> Result<Context, serde_json::Error> {
        Ok(Context {
            workflow_type: self.workflow_type.clone(),
            task_queue: self.task_queue.clone(),
            ..ids_only(key)?
        })
    }
}

/// An open activity.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Activity {
    workflow_type: Arc<str>,
    task_queue: Arc<str>,
    kind: Arc<str>,
    attempt: u32,
    /// JSON text.
    input: Arc<str>,
    opened_at: u64,
}

impl Activity {
    pub(super) fn of(context: &Context, at: Timestamp) -> Self {
        let named = context.activity.as_ref();
        Self {
            workflow_type: context.workflow_type.clone(),
            task_queue: context.task_queue.clone(),
            kind: named.map_or_else(|| "".into(), |a| a.kind.clone()),
            attempt: named.map_or(1, |a| a.attempt),
            input: named.map_or_else(|| "[]".into(), |a| a.input.0.clone()),
            opened_at: at.0,
        }
    }

    fn context(self, key: &str) -> Result<Context, serde_json::Error> {
        let (workflow_id, run_id, id): (Arc<str>, Arc<str>, Arc<str>) = serde_json::from_str(key)?;
        Ok(Context {
            workflow_id,
            run_id,
            workflow_type: self.workflow_type,
            task_queue: self.task_queue,
            activity: Some(ActivityRef {
                id,
                kind: self.kind,
                attempt: self.attempt,
                input: JsonText(self.input),
            }),
        })
    }
}

/// Why later operations of one attempt of an activity are refused.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Abort {
    attempt: u32,
    reason: String,
}

impl Abort {
    pub(super) fn of(context: &Context, reason: &Reason) -> Self {
        Self {
            attempt: context.activity.as_ref().map_or(1, |a| a.attempt),
            reason: reason.0.to_string(),
        }
    }
}

/// `["workflow","run"]`: JSON, so that no id can run into the next.
pub(super) fn run_key(context: &Context) -> String {
    serde_json::json!([context.workflow_id, context.run_id]).to_string()
}

/// `["workflow","run","activity"]`.
pub(super) fn activity_key(context: &Context) -> String {
    let id = context.activity.as_ref().map_or("", |a| &*a.id);
    serde_json::json!([context.workflow_id, context.run_id, id]).to_string()
}

/// What the keys of all activities of the run with `key` begin with.
pub(super) fn within_run(key: &str) -> String {
    format!("{},", key.strip_suffix(']').unwrap_or(key))
}

fn ids_only(key: &str) -> Result<Context, serde_json::Error> {
    let (workflow_id, run_id): (Arc<str>, Arc<str>) = serde_json::from_str(key)?;
    Ok(Context {
        workflow_id,
        run_id,
        workflow_type: "".into(),
        task_queue: "".into(),
        activity: None,
    })
}
