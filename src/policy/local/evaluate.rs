//! Asking the engine, on the calling thread.
//!
//! An engine is changed by each evaluation, so every thread clones its own of
//! each generation; the parsed policy behind the clones is shared.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::domain::{Reason, Verdict};
use crate::policy::{PolicyError, Question, Ruling};
use crate::process::cpu::Deadline;

use super::input::Builder;
use super::load::shown;
use super::verdict::ruling;
use super::{Loaded, Settings, Undefined};

/// How often the engine looks at its clock, in its own units of work: a look
/// costs as much as a few units.
const CHECK_EVERY: NonZeroU32 = match NonZeroU32::new(64) {
    Some(every) => every,
    None => NonZeroU32::MIN,
};

struct Desk {
    builder: Builder,
    engine: Option<(u64, Engine)>,
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// Limits every engine evaluates under.
pub(super) fn limit(engine: &mut Engine, within: Duration) {
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: within,
        check_interval: CHECK_EVERY,
    });
}

/// Evaluates every package and merges what they say.
pub(super) fn evaluate(
    question: Question<'_>,
    loaded: &Loaded,
    settings: &Settings,
) -> Result<Ruling, PolicyError> {
    evaluate_document(loaded, settings, |builder| {
        builder.document(question, &loaded.facts, loaded.reads.as_ref().ok())
    })
}

/// Evaluates every package over the document that `made` makes.
pub(super) fn evaluate_document(
    loaded: &Loaded,
    settings: &Settings,
    made: impl FnOnce(&mut Builder) -> Result<Value, String>,
) -> Result<Ruling, PolicyError> {
    DESK.with_borrow_mut(|desk| {
        let desk = desk.get_or_insert_with(|| Desk {
            builder: Builder::new(),
            engine: None,
        });
        let document = made(&mut desk.builder).map_err(|why| unjudgeable(&why))?;
        let engine = desk.engine(loaded);
        let deadline = Deadline::after(settings.evaluate_within);
        engine.set_input(document);
        let answer = ask_until(deadline, engine, loaded, settings.undefined);
        // What was asked about must not outlive the answer.
        engine.set_input(Value::Undefined);
        for line in engine.take_prints().unwrap_or_default() {
            tracing::debug!(target: "policy", %line, "policy printed");
        }
        // The engine cannot interrupt one long built-in function.
        if answer.is_ok() && deadline.is_over() {
            return Err(too_long(settings.evaluate_within));
        }
        answer.map_err(|why| {
            if is_too_long(&why) {
                return too_long(settings.evaluate_within);
            }
            tracing::warn!(target: "policy", problem = %why, "policy cannot judge");
            unjudgeable(first_words(&why))
        })
    })
}

impl Desk {
    fn engine(&mut self, loaded: &Loaded) -> &mut Engine {
        if self.engine.as_ref().is_some_and(|(id, _)| *id != loaded.id) {
            self.engine = None;
        }
        let (_, engine) = self
            .engine
            .get_or_insert_with(|| (loaded.id, loaded.engine.clone()));
        engine
    }
}

/// How often an evaluation is begun whose time went by without it.
const BEGUN_MAX: usize = 5;

/// Asks as long as it takes no longer than `deadline`. The engine goes by the clock, which runs on while the thread waits
/// for a processor: what it gives up then is begun again.
pub(super) fn ask_until(
    deadline: Deadline,
    engine: &mut Engine,
    loaded: &Loaded,
    undefined: Undefined,
) -> Result<Ruling, String> {
    let mut answer = ask(engine, loaded, undefined);
    for _ in 1..BEGUN_MAX {
        match &answer {
            Err(why) if is_too_long(why) && !deadline.is_over() => {}
            Ok(_) | Err(_) => break,
        }
        answer = ask(engine, loaded, undefined);
    }
    answer
}

/// Whether that is what the engine says where it ends an evaluation.
fn is_too_long(why: &str) -> bool {
    why.contains("execution exceeded time limit")
}

fn ask(engine: &mut Engine, loaded: &Loaded, undefined: Undefined) -> Result<Ruling, String> {
    let mut answer: Option<Ruling> = None;
    for (query, package) in &loaded.queries {
        let result = engine
            .eval_rule(query.clone())
            .map_err(|error| shown(&error))?;
        // A package that is silent leaves the others their say.
        if result == Value::Undefined {
            continue;
        }
        let said = ruling(&result, package, undefined, loaded.generation)
            .map_err(|why| format!("{package}: {why}"))?;
        answer = Some(match answer {
            None => said,
            Some(before) => merge(before, said)?,
        });
    }
    match (answer, loaded.queries.first()) {
        (Some(answer), _) => Ok(answer),
        (None, Some((_, package))) => {
            ruling(&Value::Undefined, package, undefined, loaded.generation)
        }
        (None, None) => Err("no policy is loaded".to_owned()),
    }
}

/// The strictest verdict wins, the first of equals; what others ask to be
/// constrained or redacted stays asked.
pub(super) fn merge(before: Ruling, said: Ruling) -> Result<Ruling, String> {
    let (mut winner, loser) = if said.verdict > before.verdict {
        (said, before)
    } else {
        (before, said)
    };
    if winner.redacted.is_some() && loser.redacted.is_some() {
        return Err("two packages redact the same input".to_owned());
    }
    if loser.verdict == Verdict::Constrain {
        for constraint in loser.constraints {
            if !winner.constraints.contains(&constraint) {
                winner.constraints.push(constraint);
            }
        }
    }
    winner.redacted = winner.redacted.or(loser.redacted);
    winner.violations.extend(loser.violations);
    Ok(winner)
}

pub(super) fn unjudgeable(why: &str) -> PolicyError {
    PolicyError::Unjudgeable(Reason::from_peer(why))
}

fn too_long(within: Duration) -> PolicyError {
    unjudgeable(&format!("the policy took longer than {within:?}"))
}

/// The place and the message of an engine's error, without the source text
/// between them: the agent may read this.
fn first_words(why: &str) -> &str {
    why.lines()
        .rev()
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or(why)
}
