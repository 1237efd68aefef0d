//! Behaviour rules: an operation that must not come before others.
//!
//! A rule names a trigger and the states that have to precede it in the same
//! run. Where one is missing, the rule fires. What is forgotten (an evicted
//! run, a restart) counts as missing, so that forgetting never opens anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;
use serde_norway::Value;
use tokio::time::Instant;

use crate::domain::{Context, Reason, Verdict};
use crate::policy::local::classify::SEMANTIC_TYPES;
use crate::policy::local::verdict::decision;
use crate::policy::local::yaml::{Reader, within};
use crate::policy::{Approval, Ruling};
use crate::process::clock;

/// Runs whose past is kept; of more, the ones longest unused are forgotten.
const RUNS_MAX: usize = 10_000;

/// One rule.
#[derive(Debug)]
pub(in crate::policy::local) struct Rule {
    name: Arc<str>,
    /// 1 to 100; high ones are looked at first.
    pub(super) priority: u64,
    trigger: usize,
    states: Vec<usize>,
    window: Duration,
    verdict: Verdict,
    message: Reason,
    approval_lives: Option<Duration>,
}

/// What happened in each run: when each semantic type was last seen.
#[derive(Debug)]
pub(in crate::policy::local) struct History {
    runs: Cache<(Arc<str>, Arc<str>), Arc<Past>>,
}

/// By index into [`SEMANTIC_TYPES`].
type Past = Mutex<[Option<Instant>; SEMANTIC_TYPES.len()]>;

impl Default for History {
    fn default() -> Self {
        Self {
            runs: Cache::new(RUNS_MAX),
        }
    }
}

impl History {
    /// Notes that an operation of type `semantic` was answered at `now`.
    pub(in crate::policy::local) fn happened(
        &self,
        context: &Context,
        semantic: &str,
        now: Instant,
    ) {
        let key = (context.workflow_id.clone(), context.run_id.clone());
        let made = self
            .runs
            .get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(past) = made;
        let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = index_of(semantic).and_then(|index| past.get_mut(index)) {
            *last = Some(now);
        }
    }

    #[cfg(test)]
    pub(in crate::policy::local) fn runs(&self) -> usize {
        self.runs.len()
    }

    fn last(&self, context: &Context, state: usize) -> Option<Instant> {
        let key = (context.workflow_id.clone(), context.run_id.clone());
        let past = self.runs.get(&key)?;
        let past = past.lock().unwrap_or_else(PoisonError::into_inner);
        *past.get(state)?
    }
}

fn index_of(semantic: &str) -> Option<usize> {
    SEMANTIC_TYPES.iter().position(|known| *known == semantic)
}

/// What the first rule that fires says about an operation of type `semantic`.
pub(in crate::policy::local) fn ruling(
    rules: &[Rule],
    history: &History,
    context: &Context,
    semantic: &str,
    now: Instant,
    generation: u64,
) -> Option<Ruling> {
    let trigger = index_of(semantic)?;
    let preceded = |rule: &Rule| {
        rule.states.iter().all(|state| {
            history
                .last(context, *state)
                .is_some_and(|last| now.saturating_duration_since(last) <= rule.window)
        })
    };
    let rule = rules
        .iter()
        .find(|rule| rule.trigger == trigger && !preceded(rule))?;
    Some(Ruling {
        reason: Some(rule.message.clone()),
        policy: Some(format!("behaviour rule {:?}", rule.name).into()),
        violations: vec![(*rule.name).into()],
        approval: rule.approval_lives.map(|lives| Approval {
            id: None,
            expires_at: Some(clock::now().after(lives)),
        }),
        ..Ruling::new(rule.verdict, generation)
    })
}

const KEYS: [&str; 8] = [
    "name",
    "priority",
    "trigger",
    "states",
    "window",
    "verdict",
    "message",
    "approval_timeout",
];

/// Reads the rule at `place`.
pub(super) fn read(reader: &mut Reader<'_>, place: &str, value: &Value) -> Option<Rule> {
    let map = reader.mapping(place, value, &KEYS)?;
    let name = reader.needed_text(place, map, "name");
    let priority = reader.number(place, map, "priority", 1..=100).unwrap_or(50);
    let trigger = reader
        .needed_text(place, map, "trigger")
        .and_then(|word| semantic(reader, &within(place, "trigger"), word));
    let words = reader.texts(place, map, "states");
    if words.is_empty() {
        let expected = "the semantic types that must come first";
        reader.missing(&within(place, "states"), expected, "states: [http_get]");
    }
    let states: Vec<usize> = words
        .into_iter()
        .filter_map(|word| semantic(reader, &within(place, "states"), word))
        .collect();
    let window = reader.seconds(place, map, "window");
    if !map.contains_key("window") {
        let expected = "how long ago the states may lie, from 1s to 24h";
        reader.missing(&within(place, "window"), expected, "window: 10m");
    }
    let verdict = verdict(reader, place, map.get("verdict"));
    let message = reader.text(place, map, "message");
    let lives = reader.seconds(place, map, "approval_timeout");
    match (verdict, lives) {
        (Some(Verdict::RequireApproval), None) if !map.contains_key("approval_timeout") => {
            let expected = "how long a person may take: REQUIRE_APPROVAL needs it";
            let place = within(place, "approval_timeout");
            reader.missing(&place, expected, "approval_timeout: 30m");
        }
        (Some(Verdict::RequireApproval) | None, _) | (Some(_), None) => {}
        (Some(_), Some(_)) => reader.tell(
            &within(place, "approval_timeout"),
            "no person is asked by this verdict",
            "it with `verdict: REQUIRE_APPROVAL` only",
            "verdict: REQUIRE_APPROVAL",
        ),
    }
    let name = name?;
    let message = message.map_or_else(
        || format!("behaviour rule {name:?}: something else has to come first"),
        str::to_owned,
    );
    Some(Rule {
        name: name.into(),
        priority,
        trigger: trigger?,
        states,
        window: Duration::from_secs(window?),
        verdict: verdict?,
        message: Reason::from_peer(&message),
        approval_lives: lives.map(Duration::from_secs),
    })
}

fn semantic(reader: &mut Reader<'_>, place: &str, word: &str) -> Option<usize> {
    let index = index_of(word);
    if index.is_none() {
        let what = format!("{word:?} is no semantic type");
        reader.tell(place, &what, &SEMANTIC_TYPES.join(", "), "http_delete");
    }
    index
}

/// A word, or Core's number for it.
fn verdict(reader: &mut Reader<'_>, place: &str, value: Option<&Value>) -> Option<Verdict> {
    let expected = "ALLOW, CONSTRAIN, REQUIRE_APPROVAL, BLOCK, HALT, or 0 to 4";
    let place = within(place, "verdict");
    let Some(value) = value else {
        reader.missing(&place, expected, "verdict: BLOCK");
        return None;
    };
    let verdict = match (value.as_str(), value.as_u64()) {
        (Some(word), _) => decision(word).ok(),
        (None, Some(0)) => Some(Verdict::Allow),
        (None, Some(1)) => Some(Verdict::Constrain),
        (None, Some(2)) => Some(Verdict::RequireApproval),
        (None, Some(3)) => Some(Verdict::Block),
        (None, Some(4)) => Some(Verdict::Halt),
        (None, _) => None,
    };
    if verdict.is_none() {
        reader.wrong(&place, value, expected, "verdict: BLOCK");
    }
    verdict
}
