//! `approvals`: what waits for a person, and the person's word.

use std::io;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::config::Source;

use super::operator_client::{ClientError, Operator, Target, segment, table, text};
use super::{Streams, report};

/// What about approvals.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List what waits for a person
    List {
        /// Also those that were decided
        #[arg(long)]
        all: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Let a held operation go
    Approve {
        /// Which, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        target: Target,
    },
    /// Refuse a held operation
    Reject {
        /// Which, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
        /// Why; the agent is told
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        target: Target,
    },
}

/// What a decision is about.
#[derive(clap::Args, Debug)]
pub(super) struct About {
    /// What it is about: this operation, or what the same rule asks in its activity or run
    #[arg(long, value_name = "once|activity|run", default_value = "once", value_parser = ["once", "activity", "run"])]
    scope: String,
    /// How long it counts beyond this operation [default: 30m]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
}

pub(super) fn approvals(verb: &Verb, env: &Source, streams: &mut Streams<'_>) -> io::Result<u8> {
    let done = match verb {
        Verb::List { all, json, target } => target
            .find(env)
            .and_then(|operator| list(&operator, *all, *json)),
        Verb::Approve { id, about, target } => {
            let body = json!({ "by": by(env), "scope": about.scope, "ttl": about.ttl });
            let found = target.find(env);
            found.and_then(|operator| decide(&operator, id, "approve", &body))
        }
        Verb::Reject {
            id,
            reason,
            about,
            target,
        } => {
            let body =
                json!({ "reason": reason, "by": by(env), "scope": about.scope, "ttl": about.ttl });
            target
                .find(env)
                .and_then(|operator| decide(&operator, id, "reject", &body))
        }
    };
    report::operated(done, streams)
}

/// Who decides, for the journal.
pub(super) fn by(env: &Source) -> String {
    let name = env.get("USER").or_else(|| env.get("LOGNAME"));
    let name = name.unwrap_or("operator");
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn list(operator: &Operator, all: bool, as_json: bool) -> Result<String, ClientError> {
    let path = match all {
        true => "/v1/approvals",
        false => "/v1/approvals?status=pending",
    };
    let answer = operator.get(path)?;
    let approvals = answer.get("approvals").unwrap_or(&Value::Null);
    if as_json {
        return Ok(format!("{approvals:#}\n"));
    }
    let Some(approvals) = approvals.as_array().filter(|all| !all.is_empty()) else {
        return Ok("nothing waits for a person\n".to_owned());
    };
    let head = [
        "APPROVAL", "STATE", "STAGE", "EXPIRES", "RUN", "WHAT", "WHY",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(approvals.iter().map(|approval| {
        let keys = [
            "approval_id",
            "state",
            "stage",
            "expires_at",
            "run_id",
            "summary",
            "reason",
        ];
        keys.map(|key| text(approval, key)).to_vec()
    }));
    Ok(table(&rows))
}

fn decide(operator: &Operator, id: &str, verb: &str, body: &Value) -> Result<String, ClientError> {
    let path = format!("/v1/approvals/{}/{verb}", segment(id));
    let answer = operator.post(&path, body)?;
    let [id, state, summary] = ["approval_id", "state", "summary"].map(|key| text(&answer, key));
    Ok(format!("{id} {state}: {summary}\n"))
}
