//! One thing that happened, as it is written down. Field names are part of the
//! product: tools read the journal.

use std::fmt::Display;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::chain::hex;
use super::counted::Counted;
use crate::domain::{
    Action, Answer, Captured, Completion, Context, Event, EventKind, JsonText, Operation,
    OperationId, Stage, Timestamp,
};
use crate::policy::{Ruling, Untold};

/// A line of the journal.
#[derive(Debug)]
pub enum Record<'a> {
    /// An operation was judged before it left.
    Decision {
        /// When the decision was made.
        at: Timestamp,
        /// What was judged.
        operation: &'a Operation,
        /// What was decided and how long it took.
        decided: Decided<'a>,
    },
    /// An admitted operation ended.
    Completion {
        /// What was admitted.
        operation: &'a Operation,
        /// When it was.
        admitted_at: Timestamp,
        /// How it ended.
        completion: &'a Completion,
        /// The series that tells of its decision, by the event that is the first of it;
        /// `None`: it has a [`Self::Decision`] of its own.
        series: Option<OperationId>,
        /// What was decided about the outcome.
        decided: Decided<'a>,
    },
    /// An operation was admitted over and over, by the same ruling: how often since the
    /// record before of the same series, and what came of it.
    Series {
        /// When.
        at: Timestamp,
        /// What was admitted: the last that has a [`Self::Decision`] of its own.
        like: &'a Operation,
        /// What was decided about each.
        decided: Decided<'a>,
        /// How many, and how they ended.
        counted: &'a Counted,
        /// The SHA-256 over the digests of what was admitted, in order.
        digests: [u8; 32],
        /// At most how many more may be admitted before the next record, and within
        /// what time; `None`: the series is over, or pauses.
        may_follow: Option<(u32, Duration)>,
    },
    /// A remote policy is about to be asked about how an operation ended. Where
    /// the process dies before that is a [`Self::Completion`], the next one
    /// tells it.
    Asking {
        /// When.
        at: Timestamp,
        /// What ended.
        operation: &'a Operation,
        /// What the next process tells, under the key of what is asked.
        untold: &'a Untold,
    },
    /// A lifecycle event was judged.
    Event {
        /// When the decision was made.
        at: Timestamp,
        /// What happened.
        event: &'a Event,
        /// What was decided.
        decided: Decided<'a>,
    },
    /// A person was asked, or decided, or did not.
    Approval {
        /// When.
        at: Timestamp,
        /// Its id.
        approval: &'a str,
        /// Whose operation or event it is about.
        context: &'a Context,
        /// `pending`, `granted`, `rejected`, `expired`, `cancelled`, `consumed`.
        state: &'static str,
        /// What the person is asked about, in one line.
        summary: &'a str,
        /// Who decided.
        by: Option<&'a str>,
        /// About what else, and for how long, where it is about more.
        scope: Option<(&'static str, Duration)>,
        /// Why.
        reason: Option<&'a str>,
    },
    /// A run was halted.
    Halt {
        /// When.
        at: Timestamp,
        /// Of which workflow.
        workflow_id: &'a str,
        /// Which.
        run_id: &'a str,
        /// Who: `policy` or the operator.
        by: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// A run was resumed.
    Resume {
        /// When.
        at: Timestamp,
        /// Of which workflow.
        workflow_id: &'a str,
        /// Which.
        run_id: &'a str,
        /// Who.
        by: &'a str,
    },
}

/// The outcome of asking policy.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// `allow`, `constrain`, or the code of a refusal.
    pub decision: &'a str,
    /// What policy said; absent when it was not asked or gave no answer.
    pub ruling: Option<&'a Ruling>,
    /// Why, when it is not the ruling's own reason.
    pub reason: Option<&'a str>,
    /// Whether the fail mode decided.
    pub by_fail_mode: bool,
    /// The approval that was consumed.
    pub approval: Option<&'a str>,
    /// Who decided about it, where the sidecar keeps it.
    pub decided_by: Option<&'a str>,
    /// What is to be told to policy later, because it gave no answer.
    pub untold: Option<&'a Untold>,
    /// Time policy took.
    pub policy_took: Duration,
    /// Time a person took.
    pub held_for: Duration,
    /// The operation whose evaluation was joined: its SDK told of it, or the
    /// wire showed it, before.
    pub joined: Option<OperationId>,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        match self {
            Self::Decision {
                at,
                operation,
                decided,
            } => {
                head(&mut line, "decision", *at)?;
                subject(&mut line, operation)?;
                line.serialize_entry("stage", Stage::Started.as_str())?;
                verdict(&mut line, decided)?;
            }
            Self::Completion {
                operation,
                admitted_at,
                completion,
                series,
                decided,
            } => {
                head(&mut line, "completion", completion.ended_at)?;
                subject(&mut line, operation)?;
                line.serialize_entry("stage", Stage::Completed.as_str())?;
                outcome(&mut line, operation, completion)?;
                let upstream = completion.ended_at.since(*admitted_at);
                line.serialize_entry("upstream_us", &micros(upstream))?;
                optional(&mut line, "series", series.as_ref().map(Text))?;
                verdict(&mut line, decided)?;
            }
            Self::Series {
                at,
                like,
                decided,
                counted,
                digests,
                may_follow,
            } => {
                head(&mut line, "series", *at)?;
                subject(&mut line, like)?;
                verdict(&mut line, decided)?;
                counted.write(&mut line, digests)?;
                if let Some((more, within)) = may_follow {
                    line.serialize_entry("may_follow", more)?;
                    line.serialize_entry("within_ms", &millis(*within))?;
                }
            }
            Self::Asking {
                at,
                operation,
                untold,
            } => {
                head(&mut line, "asking", *at)?;
                line.serialize_entry("event_id", &Text(&operation.id))?;
                ids(&mut line, &operation.context)?;
                line.serialize_entry("untold", &Kept(untold))?;
            }
            Self::Event { at, event, decided } => {
                head(&mut line, "event", *at)?;
                line.serialize_entry("event_id", &Text(&event.id))?;
                line.serialize_entry("event_type", event.kind.as_str())?;
                ids(&mut line, &event.context)?;
                line.serialize_entry("said", &Said(event))?;
                verdict(&mut line, decided)?;
            }
            Self::Approval {
                at,
                approval,
                context,
                state,
                summary,
                by,
                scope,
                reason,
            } => {
                head(&mut line, "approval", *at)?;
                line.serialize_entry("approval_id", approval)?;
                ids(&mut line, context)?;
                line.serialize_entry("state", state)?;
                line.serialize_entry("summary", summary)?;
                optional(&mut line, "by", *by)?;
                if let Some((scope, lives)) = scope {
                    line.serialize_entry("scope", scope)?;
                    line.serialize_entry("counts_for_s", &lives.as_secs_f64())?;
                }
                optional(&mut line, "reason", *reason)?;
            }
            Self::Halt {
                at,
                workflow_id,
                run_id,
                by,
                reason,
            } => {
                head(&mut line, "halt", *at)?;
                line.serialize_entry("workflow_id", workflow_id)?;
                line.serialize_entry("run_id", run_id)?;
                line.serialize_entry("by", by)?;
                line.serialize_entry("reason", reason)?;
            }
            Self::Resume {
                at,
                workflow_id,
                run_id,
                by,
            } => {
                head(&mut line, "resume", *at)?;
                line.serialize_entry("workflow_id", workflow_id)?;
                line.serialize_entry("run_id", run_id)?;
                line.serialize_entry("by", by)?;
            }
        }
        line.end()
    }
}

/// Written by way of `Display`, without a string of its own.
struct Text<'a, T>(&'a T);

impl<T: Display> Serialize for Text<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// A report for later, under its idempotency key.
struct Kept<'a>(&'a Untold);

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut kept = serializer.serialize_map(Some(2))?;
        kept.serialize_entry("key", &*self.0.key)?;
        kept.serialize_entry("text", &*self.0.text)?;
        kept.end()
    }
}

/// What an event says, by name.
struct Said<'a>(&'a Event);

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        let mut said = serializer.serialize_map(None)?;
        if event.kind == EventKind::ActivityStarted
            && let Some(activity) = &event.context.activity
        {
            said.serialize_entry("activity_input", &Digested(&activity.input))?;
        }
        for (name, value) in &event.fields {
            said.serialize_entry(name, &Digested(value))?;
        }
        said.end()
    }
}

/// The agent's own data is never written, only its length and digest.
struct Digested<'a>(&'a JsonText);

impl Serialize for Digested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.0.as_bytes();
        let mut digested = serializer.serialize_map(Some(2))?;
        digested.serialize_entry("bytes", &text.len())?;
        digested.serialize_entry("sha256", &hex(&Sha256::digest(text)))?;
        digested.end()
    }
}

fn head<M: SerializeMap>(line: &mut M, record: &str, at: Timestamp) -> Result<(), M::Error> {
    line.serialize_entry("record", record)?;
    line.serialize_entry("at_ns", &at.0)
}

fn optional<M: SerializeMap, T: Serialize>(
    line: &mut M,
    name: &'static str,
    value: Option<T>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => line.serialize_entry(name, &value),
        None => Ok(()),
    }
}

fn ids<M: SerializeMap>(line: &mut M, context: &Context) -> Result<(), M::Error> {
    line.serialize_entry("workflow_id", &*context.workflow_id)?;
    line.serialize_entry("workflow_type", &*context.workflow_type)?;
    line.serialize_entry("run_id", &*context.run_id)?;
    let Some(activity) = &context.activity else {
        return Ok(());
    };
    line.serialize_entry("activity_id", &*activity.id)?;
    line.serialize_entry("activity_type", &*activity.kind)
}

fn subject<M: SerializeMap>(line: &mut M, operation: &Operation) -> Result<(), M::Error> {
    line.serialize_entry("event_id", &Text(&operation.id))?;
    ids(line, &operation.context)?;
    line.serialize_entry("attribution", operation.attribution.as_str())?;
    line.serialize_entry("protocol", operation.protocol().as_str())?;
    match &operation.action {
        Action::Http(call) => {
            line.serialize_entry("http_method", &*call.method)?;
            line.serialize_entry("http_url", &*call.url)?;
            body(
                line,
                ["request_body", "request_bytes", "request_sha256"],
                &call.body,
            )
        }
        Action::Database(call) => {
            line.serialize_entry("db_system", &*call.system)?;
            optional(line, "db_name", call.name.as_deref())?;
            optional(line, "db_user", call.user.as_deref())?;
            line.serialize_entry("db_operation", &*call.operation)?;
            body(
                line,
                ["statement", "statement_bytes", "statement_sha256"],
                &call.statement,
            )
        }
        Action::File(call) => {
            line.serialize_entry("file_path", &*call.path)?;
            line.serialize_entry("file_operation", &*call.operation)
        }
        Action::Function(call) => {
            line.serialize_entry("function", &*call.function)?;
            optional(line, "module", call.module.as_deref())?;
            optional(line, "arguments", call.arguments.as_ref().map(Digested))
        }
    }
}

fn outcome<M: SerializeMap>(
    line: &mut M,
    operation: &Operation,
    completion: &Completion,
) -> Result<(), M::Error> {
    line.serialize_entry("outcome", completion.outcome.as_str())?;
    let took = completion.ended_at.since(operation.started_at);
    line.serialize_entry("took_us", &micros(took))?;
    optional(line, "error", completion.error.as_deref())?;
    match &completion.answer {
        Some(Answer::Http(answer)) => {
            line.serialize_entry("http_status_code", &answer.status)?;
            body(
                line,
                ["response_body", "response_bytes", "response_sha256"],
                &answer.body,
            )
        }
        Some(Answer::Database(answer)) => optional(line, "rows", answer.rows),
        Some(Answer::File(answer)) => {
            optional(line, "bytes_read", answer.bytes_read)?;
            optional(line, "bytes_written", answer.bytes_written)
        }
        Some(Answer::Function(answer)) => {
            optional(line, "result", answer.result.as_ref().map(Digested))
        }
        None => Ok(()),
    }
}

/// Bodies themselves are never written, only how much of them was seen.
fn body<M: SerializeMap>(
    line: &mut M,
    [state, bytes, sha256]: [&'static str; 3],
    body: &crate::domain::Capture,
) -> Result<(), M::Error> {
    if body.state == Captured::Empty {
        return Ok(());
    }
    line.serialize_entry(state, body.state.as_str())?;
    line.serialize_entry(bytes, &body.bytes)?;
    let hex = body.digest.map(|digest| hex(&digest));
    optional(line, sha256, hex)
}

fn verdict<M: SerializeMap>(line: &mut M, decided: &Decided<'_>) -> Result<(), M::Error> {
    line.serialize_entry("decision", decided.decision)?;
    if let Some(ruling) = decided.ruling {
        line.serialize_entry("verdict", ruling.verdict.as_str())?;
        optional(line, "policy", ruling.policy.as_deref())?;
        line.serialize_entry("policy_generation", &ruling.generation)?;
        optional(line, "core_event_id", ruling.event_id.as_deref())?;
        if !ruling.constraints.is_empty() {
            line.serialize_entry("constraints", &ruling.constraints)?;
        }
        if ruling.redacted.is_some() {
            line.serialize_entry("redacted", &true)?;
        }
        if decided.reason.is_none() {
            optional(line, "reason", ruling.reason.as_ref().map(|r| &*r.0))?;
        }
    }
    optional(line, "reason", decided.reason)?;
    if let Some(joined) = &decided.joined {
        line.serialize_entry("joined", &Text(joined))?;
    }
    if decided.by_fail_mode {
        line.serialize_entry("by_fail_mode", &true)?;
    }
    optional(line, "approval_id", decided.approval)?;
    optional(line, "decided_by", decided.decided_by)?;
    optional(line, "untold", decided.untold.map(Kept))?;
    line.serialize_entry("policy_us", &micros(decided.policy_took))?;
    if !decided.held_for.is_zero() {
        line.serialize_entry("held_us", &micros(decided.held_for))?;
    }
    Ok(())
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
