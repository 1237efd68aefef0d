//! Asking a policy about a case, with a past of the case's own.

use std::sync::Arc;

use regorus::Value;
use tokio::time::Instant;

use crate::domain::Outcome;
use crate::policy::{PolicyError, Question as Put, Ruling};

use super::LocalPolicy;
use super::cases::{Case, Question};
use super::evaluate::{evaluate, evaluate_document};
use super::fields::Subject;
use super::ruled::Ruled;
use super::rules::behaviour::History;

impl LocalPolicy {
    /// Answers `case`. Nothing that agents did is seen, and nothing is left
    /// behind for them.
    ///
    /// # Errors
    /// As any question: the policy fails, takes too long or cannot judge.
    pub fn ask(&self, case: &Case) -> Result<Arc<Ruling>, PolicyError> {
        let loaded = self.current.load();
        let question = match &case.question {
            Question::Input(json) => {
                return evaluate_document(&loaded, &self.settings, |_| {
                    Value::from_json_str(&json.0).map_err(|_| "the input is not JSON".to_owned())
                })
                .map(Arc::new);
            }
            Question::Operation(operation, None) => Put::Started(operation),
            Question::Operation(operation, Some(completion)) => {
                Put::Completed(operation, completion)
            }
            Question::Event(event) => Put::Event(event),
        };
        let said = evaluate(question, &loaded, &self.settings).map(Arc::new);
        let Some(further) = &loaded.further else {
            return said;
        };
        let began = Instant::now();
        let longest = case.before.iter().map(|(_, ago)| *ago).max();
        let now = began
            .checked_add(longest.unwrap_or_default())
            .unwrap_or(began);
        let history = History::default();
        for (before, ago) in &case.before {
            if let Question::Operation(operation, Some(completion)) = before
                && completion.outcome == Outcome::Answered
                && let Some(subject) = Subject::of(Put::Started(operation), &loaded.facts)
            {
                let at = now.checked_sub(*ago).unwrap_or(began);
                history.happened(&operation.context, subject.semantic_type(), at);
            }
        }
        let ruled = Ruled {
            rules: further,
            history: &history,
            now,
            within: self.settings.evaluate_within,
            generation: loaded.generation,
        };
        ruled.ruling(Subject::of(question, &loaded.facts), question, said)
    }
}
