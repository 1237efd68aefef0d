//! Rules in YAML beside the Rego: what must have happened before, and what may
//! not be said.
//!
//! ```yaml
//! behaviour:
//!   - {name: look before you delete, trigger: http_delete, states: [http_get], window: 10m, verdict: BLOCK}
//! guardrails:
//!   - {name: cards, type: pii, stage: input, action: redact, entities: [CREDIT_CARD]}
//! ```

pub(super) mod behaviour;
mod detect;
pub(super) mod guardrails;
pub(super) mod mask;

use super::yaml::Reader;
use behaviour::Rule;
use guardrails::Guardrail;

/// Most behaviour rules of a policy, and most guardrails.
const RULES_MAX: usize = 200;

/// Everything the files of rules say.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// The first that fires decides.
    pub(super) behaviour: Vec<Rule>,
    /// Each sees what the one before it left.
    pub(super) guardrails: Vec<Guardrail>,
}

impl Rules {
    /// Whether there is nothing to look at.
    pub(super) fn is_empty(&self) -> bool {
        self.behaviour.is_empty() && self.guardrails.is_empty()
    }

    /// Adds what `text` of `file` says.
    ///
    /// # Errors
    /// Every problem of the file.
    pub(super) fn add(&mut self, file: &str, text: &str) -> Result<(), Vec<String>> {
        let mut reader = Reader::new(file);
        if let Some(document) = reader.parse(text)
            && let Some(map) = reader.mapping("", &document, &["behaviour", "guardrails"])
        {
            for (index, value) in reader.list("", map, "behaviour").iter().enumerate() {
                let place = format!("behaviour[{index}]");
                self.behaviour
                    .extend(behaviour::read(&mut reader, &place, value));
            }
            for (index, value) in reader.list("", map, "guardrails").iter().enumerate() {
                let place = format!("guardrails[{index}]");
                self.guardrails
                    .extend(guardrails::read(&mut reader, &place, value));
            }
        }
        // Stable: rules of one priority stay in the order of their files.
        self.behaviour
            .sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        if self.behaviour.len().max(self.guardrails.len()) > RULES_MAX {
            let expected =
                format!("at most {RULES_MAX} behaviour rules and {RULES_MAX} guardrails");
            reader.tell("behaviour", "too many rules", &expected, "behaviour: []");
        }
        if reader.problems.is_empty() {
            Ok(())
        } else {
            Err(reader.problems)
        }
    }
}
