//! What changes, and the rows that say so.

use serde::{Deserialize, Serialize};

use crate::domain::{ApprovalId, Context, Reason, Timestamp};

use super::rows::{self, Abort, Activity, KeptApproval, Run};
use super::tables::Table;

/// A change of what must survive a restart.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The run id of the sidecar's own session.
    OwnRun(&'a str),
    /// The run of the context was opened.
    RunOpened(&'a Context, Timestamp),
    /// The run of the context ended, and its activities with it.
    RunClosed(&'a Context),
    /// The activity of the context was opened.
    ActivityOpened(&'a Context, Timestamp),
    /// Later operations of the context's activity are refused.
    ActivityAborted(&'a Context, &'a Reason),
    /// The activity of the context ended.
    ActivityClosed(&'a Context),
    /// The run of the context is halted.
    Halted(&'a Context, &'a Reason),
    /// Everything of this sidecar is halted.
    EverythingHalted(&'a Reason),
    /// The run of the context goes on, and everything with it.
    Resumed(&'a Context),
    /// Everything goes on; runs that are halted stay so.
    EverythingResumed,
    /// An approval is open, or was decided and may still be used.
    Approval(&'a KeptApproval),
    /// An approval was used, or nobody can use it any more.
    ApprovalOver(&'a ApprovalId),
}

/// One step of a change: absolute, so that doing it twice is doing it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Op {
    Put(Table, String, String),
    Delete(Table, String),
    /// Every row whose key begins like this.
    Clear(Table, String),
}

impl Op {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::Put(table, ..) | Self::Delete(table, _) | Self::Clear(table, _) => *table,
        }
    }
}

impl Change<'_> {
    pub(super) fn ops(&self) -> Vec<Op> {
        match self {
            Self::OwnRun(id) => vec![put(Table::About, rows::OWN_RUN.to_owned(), id)],
            Self::RunOpened(context, at) => {
                let row = Run::of(context, *at);
                vec![put(Table::Runs, rows::run_key(context), &row)]
            }
            Self::RunClosed(context) => {
                let key = rows::run_key(context);
                let within = rows::within_run(&key);
                vec![
                    Op::Delete(Table::Runs, key),
                    Op::Clear(Table::Activities, within.clone()),
                    Op::Clear(Table::Aborts, within),
                ]
            }
            Self::ActivityOpened(context, at) => {
                let row = Activity::of(context, *at);
                // The event of an activity may be the first of its run.
                let run = Run::of(context, *at);
                vec![
                    put(Table::Runs, rows::run_key(context), &run),
                    put(Table::Activities, rows::activity_key(context), &row),
                ]
            }
            Self::ActivityAborted(context, reason) => {
                let row = Abort::of(context, reason);
                vec![put(Table::Aborts, rows::activity_key(context), &row)]
            }
            Self::ActivityClosed(context) => {
                let key = rows::activity_key(context);
                vec![
                    Op::Delete(Table::Activities, key.clone()),
                    Op::Delete(Table::Aborts, key),
                ]
            }
            Self::Halted(context, reason) => {
                vec![put(Table::Halts, rows::run_key(context), &&*reason.0)]
            }
            Self::EverythingHalted(reason) => {
                vec![put(Table::Halts, rows::EVERYTHING.to_owned(), &&*reason.0)]
            }
            Self::Resumed(context) => vec![
                Op::Delete(Table::Halts, rows::run_key(context)),
                Op::Delete(Table::Halts, rows::EVERYTHING.to_owned()),
            ],
            Self::EverythingResumed => {
                vec![Op::Delete(Table::Halts, rows::EVERYTHING.to_owned())]
            }
            Self::Approval(approval) => {
                vec![put(Table::Approvals, approval.id.clone(), approval)]
            }
            Self::ApprovalOver(id) => vec![Op::Delete(Table::Approvals, id.0.to_string())],
        }
    }
}

fn put(table: Table, key: String, row: &impl Serialize) -> Op {
    // Rows have string keys only, so this cannot fail; an empty value would be
    // seen as damage at the next start, and not be taken for a row.
    let value = serde_json::to_string(row).unwrap_or_default();
    Op::Put(table, key, value)
}
