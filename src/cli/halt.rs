//! `halt` and `resume`: everything, or one run.

use std::io;

use serde_json::{Value, json};

use crate::config::Source;

use super::approvals::by;
use super::operator_client::{ClientError, Operator, Target, text};
use super::runs::{self, Which};
use super::{Streams, report};

/// What is to stop, and why.
#[derive(clap::Args, Debug)]
pub(super) struct Halt {
    #[command(flatten)]
    which: Optional,
    /// Why; the agent is told
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: Target,
}

/// What is to go on.
#[derive(clap::Args, Debug)]
pub(super) struct Resume {
    #[command(flatten)]
    which: Optional,
    #[command(flatten)]
    target: Target,
}

/// A run, or everything.
#[derive(clap::Args, Debug)]
struct Optional {
    /// The id of a run, or `own` for the sidecar's own session; without, everything
    #[arg(value_name = "RUN")]
    run_id: Option<String>,
    /// Its workflow, where several have a run of this id
    #[arg(long, value_name = "ID", requires = "run_id")]
    workflow: Option<String>,
}

impl Optional {
    fn run(&self) -> Option<Which> {
        Some(Which {
            run_id: self.run_id.clone()?,
            workflow: self.workflow.clone(),
        })
    }
}

pub(super) fn halt(args: &Halt, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let done = args
        .target
        .find(env)
        .and_then(|operator| match args.which.run() {
            Some(run) => runs::halt(&operator, &run, &args.reason, &by(env)),
            None => {
                let body = json!({ "engaged": true, "reason": args.reason, "by": by(env) });
                everything(&operator, &body)
            }
        });
    report::operated(done, streams)
}

pub(super) fn resume(args: &Resume, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let done = args
        .target
        .find(env)
        .and_then(|operator| match args.which.run() {
            Some(run) => runs::resume(&operator, &run, &by(env)),
            None => everything(&operator, &json!({ "engaged": false, "by": by(env) })),
        });
    report::operated(done, streams)
}

fn everything(operator: &Operator, body: &Value) -> Result<String, ClientError> {
    let answer = operator.put("/v1/killswitch", body)?;
    let reason = text(&answer, "reason");
    Ok(match reason.is_empty() {
        true => "everything goes on; runs that are halted by themselves stay so\n".to_owned(),
        false => format!("everything is halted: {reason}\n"),
    })
}
