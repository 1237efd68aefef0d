//! The options of the SDKs that take something out of policy's hands.

use std::collections::BTreeSet;

use crate::gate::{Unasked, Unheld};

use super::raw;
use super::resolve::Resolver;
use super::value::{self, Wrong};

impl Resolver<'_> {
    pub(super) fn unasked(&mut self, raw: raw::Events) -> Unasked {
        let quoted = |text: &str| {
            value::name(text).map(|name| serde_json::Value::from(&*name).to_string().into())
        };
        let unasked = Unasked {
            workflow_starts: !self.truth("events.send_start", raw.send_start),
            activity_starts: !self.truth("events.send_activity_start", raw.send_activity_start),
            workflow_types: self.set(
                "events.skip_workflow_types",
                raw.skip_workflow_types,
                value::name,
            ),
            activity_types: self.set(
                "events.skip_activity_types",
                raw.skip_activity_types,
                value::name,
            ),
            signals: self.set("events.skip_signals", raw.skip_signals, quoted),
        };
        if unasked != Unasked::default() {
            let text = "`events` leaves some unasked: they pass unless their run is halted";
            self.warnings.push(text.to_owned());
        }
        unasked
    }

    pub(super) fn unheld(&mut self, enabled: Option<bool>, skip: Option<Vec<String>>) -> Unheld {
        let unheld = Unheld {
            all: !self.truth("approvals.enabled", enabled),
            activity_types: self.set("approvals.skip_activity_types", skip, value::name),
        };
        if unheld != Unheld::default() {
            let text = "`approvals` says of some that nobody is asked: where policy wants a person, \
                        their events go on and their operations are refused";
            self.warnings.push(text.to_owned());
        }
        unheld
    }

    fn set(
        &mut self,
        key: &str,
        in_file: Option<Vec<String>>,
        parse: impl Fn(&str) -> Result<Box<str>, Wrong>,
    ) -> BTreeSet<Box<str>> {
        self.list(key, in_file, parse).into_iter().collect()
    }
}
