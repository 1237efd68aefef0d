//! `runs`: the runs of agents, halted and resumed.

use std::io;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::config::Source;

use super::approvals::by;
use super::operator_client::{ClientError, Operator, Target, segment, table, text};
use super::{Streams, report};

/// What about runs.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the runs of a sidecar, its own session first
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Refuse everything a run does from now on
    Halt {
        #[command(flatten)]
        run: Which,
        /// Why; the agent is told
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        target: Target,
    },
    /// Let a halted run go on
    Resume {
        #[command(flatten)]
        run: Which,
        #[command(flatten)]
        target: Target,
    },
}

/// Which run.
#[derive(clap::Args, Debug)]
pub(super) struct Which {
    /// Its id, or `own` for the sidecar's own session
    #[arg(value_name = "RUN")]
    pub(super) run_id: String,
    /// Its workflow, where several have a run of this id
    #[arg(long, value_name = "ID")]
    pub(super) workflow: Option<String>,
}

pub(super) fn runs(verb: &Verb, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let done = match verb {
        Verb::List { json, target } => {
            let found = target.find(env);
            found.and_then(|operator| list(&operator, *json))
        }
        Verb::Halt {
            run,
            reason,
            target,
        } => {
            let found = target.find(env);
            found.and_then(|operator| halt(&operator, run, reason, &by(env)))
        }
        Verb::Resume { run, target } => {
            let found = target.find(env);
            found.and_then(|operator| resume(&operator, run, &by(env)))
        }
    };
    report::operated(done, streams)
}

fn list(operator: &Operator, as_json: bool) -> Result<String, ClientError> {
    let answer = operator.get("/v1/runs")?;
    let runs = answer.get("runs").unwrap_or(&Value::Null);
    if as_json {
        return Ok(format!("{runs:#}\n"));
    }
    let head = ["RUN", "WORKFLOW", "TYPE", "SINCE", "STATE", "ACTIVITIES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for run in runs.as_array().into_iter().flatten() {
        let number = run.get("activities_open").and_then(Value::as_u64);
        let mut row = ["run_id", "workflow_id", "workflow_type", "opened_at"]
            .map(|key| text(run, key))
            .to_vec();
        row.push(state(run));
        row.push(number.unwrap_or(0).to_string());
        rows.push(row);
    }
    let mut shown = table(&rows);
    let everything = text(&answer, "everything_halted");
    if !everything.is_empty() {
        shown.push_str(&format!("everything is halted: {everything}\n"));
    }
    Ok(shown)
}

fn state(run: &Value) -> String {
    let is = |key: &str| run.get(key).and_then(Value::as_bool) == Some(true);
    let halted = text(run, "halted");
    match (halted.is_empty(), is("open"), is("own")) {
        (false, _, _) => format!("halted: {halted}"),
        (true, true, true) => "own session".to_owned(),
        (true, true, false) => "open".to_owned(),
        (true, false, _) => "ended".to_owned(),
    }
}

pub(super) fn halt(
    operator: &Operator,
    run: &Which,
    reason: &str,
    by: &str,
) -> Result<String, ClientError> {
    let body = json!({ "reason": reason, "workflow_id": run.workflow, "by": by });
    let path = format!("/v1/runs/{}/halt", segment(&run.run_id));
    let answer = operator.post(&path, &body)?;
    let [run, reason] = ["run_id", "halted"].map(|key| text(&answer, key));
    Ok(format!("{run} halted: {reason}\n"))
}

pub(super) fn resume(operator: &Operator, run: &Which, by: &str) -> Result<String, ClientError> {
    let body = json!({ "workflow_id": run.workflow, "by": by });
    let path = format!("/v1/runs/{}/resume", segment(&run.run_id));
    let answer = operator.post(&path, &body)?;
    let was = answer.get("resumed").and_then(Value::as_bool) == Some(true);
    let what = match was {
        true => "resumed",
        false => "was not halted",
    };
    Ok(format!("{} {what}\n", text(&answer, "run_id")))
}
