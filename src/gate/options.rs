//! What the operator takes out of policy's hands: events that it is not asked
//! about, and whom nobody waits for. The options that the SDKs know.
//!
//! Only events can be left out. An operation is asked about whatever activity
//! it is said to belong to: that is the agent's word.

use std::collections::BTreeSet;

use crate::domain::{Context, Event, EventKind, Reason, Refusal, Stage};

/// Events that policy is not asked about. They are recorded all the same, open
/// and close what they are about, and are refused in a run that was halted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unasked {
    /// `WorkflowStarted`, of all.
    pub workflow_starts: bool,
    /// `ActivityStarted`, of all.
    pub activity_starts: bool,
    /// Events and signals of workflows of these types; not of their activities.
    pub workflow_types: BTreeSet<Box<str>>,
    /// Both events of activities of these types.
    pub activity_types: BTreeSet<Box<str>>,
    /// Signals of these names, each as JSON text, as events carry it.
    pub signals: BTreeSet<Box<str>>,
}

impl Unasked {
    /// The setting that leaves `event` out, if one does.
    pub(super) fn by(&self, event: &Event) -> Option<&'static str> {
        let in_workflow = self.workflow_types.contains(&*event.context.workflow_type);
        let rows = match event.kind {
            EventKind::WorkflowStarted => [
                (self.workflow_starts, "events.send_start"),
                (in_workflow, "events.skip_workflow_types"),
            ],
            EventKind::WorkflowCompleted | EventKind::WorkflowFailed => {
                [(in_workflow, "events.skip_workflow_types"), (false, "")]
            }
            EventKind::SignalReceived => [
                (in_workflow, "events.skip_workflow_types"),
                (self.is_signal(event), "events.skip_signals"),
            ],
            EventKind::ActivityStarted => [
                (self.activity_starts, "events.send_activity_start"),
                (
                    is_of(&self.activity_types, &event.context),
                    "events.skip_activity_types",
                ),
            ],
            EventKind::ActivityCompleted => [
                (
                    is_of(&self.activity_types, &event.context),
                    "events.skip_activity_types",
                ),
                (false, ""),
            ],
            EventKind::Handoff => [(false, ""), (false, "")],
        };
        rows.into_iter()
            .find_map(|(is_so, setting)| is_so.then_some(setting))
    }

    fn is_signal(&self, event: &Event) -> bool {
        let mut fields = event.fields.iter();
        let name = fields.find(|(name, _)| *name == "signal_name");
        name.is_some_and(|(_, name)| self.signals.contains(&*name.0))
    }
}

/// Who does not wait where policy asks for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unheld {
    /// Nobody does.
    pub all: bool,
    /// Activities of these types do not.
    pub activity_types: BTreeSet<Box<str>>,
}

impl Unheld {
    /// The setting by which nothing in `context` waits, if one says so. An event
    /// then goes on, as in the SDKs.
    pub(super) fn by(&self, context: &Context) -> Option<&'static str> {
        if self.all {
            return Some("approvals.enabled");
        }
        is_of(&self.activity_types, context).then_some("approvals.skip_activity_types")
    }

    /// Why an operation that needs a person is refused at once, if nothing in
    /// `context` waits: nobody has agreed to it, and nobody will.
    pub(super) fn refusal(&self, context: &Context, stage: Stage) -> Option<Refusal> {
        let setting = self.by(context)?;
        let text = format!("a person must agree to it, and `{setting}` says that nobody is asked");
        let reason = Reason(text.into());
        Some(match stage {
            Stage::Started => Refusal::Blocked(reason),
            Stage::Completed => Refusal::OutcomeBlocked(reason),
        })
    }
}

fn is_of(types: &BTreeSet<Box<str>>, context: &Context) -> bool {
    let activity = context.activity.as_ref();
    activity.is_some_and(|activity| types.contains(&*activity.kind))
}
