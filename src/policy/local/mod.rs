//! The embedded policy engine: Rego, judged on the calling thread.
//!
//! Policies are one `.rego` file, a folder of them, or the built-in starter.
//! Every package that defines `result` is asked, and the strictest verdict
//! wins. Beside it, in YAML, stand behaviour rules and guardrails. What cannot be judged (an unknown word, a conflict, a runtime error,
//! no answer in time) is an error, never a verdict.

mod asked;
pub mod cases;
mod check;
mod classify;
mod evaluate;
mod fields;
mod input;
mod load;
mod member;
mod memory;
mod reads;
mod ruled;
mod rules;
mod syntax;
mod verdict;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use regorus::Engine;
use tokio::time::Instant;

use crate::domain::{Context, EventKind, Reason, Verdict};
use crate::policy::{
    ApprovalState, ApprovalsAt, Judging, Later, PolicyBackend, PolicyError, Question, Ruling,
};

use fields::Subject;
use input::Facts;
use load::Files;
use memory::Memory;
use reads::Reads;
use ruled::Ruled;
use rules::Rules;
use rules::behaviour::History;

pub use load::LoadError;
pub use watch::{Told, Watcher};

/// How the embedded policy is found and asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A `.rego` file, or a folder of them; absent: the built-in starter policy.
    pub path: Option<PathBuf>,
    /// What it means when no rule of any package decides.
    pub undefined: Undefined,
    /// Longest that one evaluation may have a processor; a longer one cannot be judged. Time in which the machine runs
    /// something else is not counted.
    pub evaluate_within: Duration,
    /// Memory for verdicts given before, bytes, about; 0 turns it off.
    pub memory_bytes_max: usize,
    /// `input.agent_id`.
    pub agent_id: Option<Arc<str>>,
    /// `input.risk_tier`: 1 (low) to 4 (critical).
    pub risk_tier: Option<u8>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: None,
            undefined: Undefined::Deny,
            evaluate_within: Duration::from_millis(50),
            memory_bytes_max: 8 << 20,
            agent_id: None,
            risk_tier: None,
        }
    }
}

/// What it means when no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Undefined {
    /// BLOCK.
    #[default]
    Deny,
    /// ALLOW, as OpenBox Core reads it.
    Allow,
}

/// The embedded policy.
#[derive(Debug)]
pub struct LocalPolicy {
    settings: Settings,
    current: ArcSwap<Loaded>,
    /// Outlives every generation: a reload does not undo what happened.
    history: History,
    reloading: Mutex<()>,
}

/// One generation of the policy.
struct Loaded {
    /// Unique in this process, unlike the generation, which each policy counts
    /// for itself.
    id: u64,
    generation: u64,
    engine: Engine,
    queries: Vec<(String, Arc<str>)>,
    facts: Facts,
    /// What is proved to be read of an operation, or why nothing is proved.
    reads: Result<Reads, String>,
    memory: Option<Memory>,
    /// Behaviour rules and guardrails, if there are any.
    further: Option<Rules>,
    rules: usize,
    files: usize,
    hash: String,
    origin: String,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("generation", &self.generation)
            .field("origin", &self.origin)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The files say what they said before; the generation stands.
    Unchanged,
    /// A new generation judges from now on.
    Changed {
        /// Its number.
        generation: u64,
    },
}

impl LocalPolicy {
    /// Reads, checks and compiles the policies of `settings`.
    ///
    /// # Errors
    /// Files that cannot be read, do not parse, call functions that do not
    /// exist or recurse, or of which none defines `result`.
    pub fn load(settings: Settings) -> Result<Self, LoadError> {
        let files = Files::read(settings.path.as_deref())?;
        let loaded = Loaded::new(&files, &settings, 1)?;
        loaded.say_loaded();
        Ok(Self {
            settings,
            current: ArcSwap::from_pointee(loaded),
            history: History::default(),
            reloading: Mutex::new(()),
        })
    }

    /// Reads the policies again. On an error the last good ones go on judging.
    ///
    /// # Errors
    /// As [`Self::load`]; the error is logged here.
    pub fn reload(&self) -> Result<Reloaded, LoadError> {
        let _one_at_a_time = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load();
        let loaded = Files::read(self.settings.path.as_deref()).and_then(|files| {
            if files.hash() == before.hash {
                return Ok(None);
            }
            let next = before.generation.saturating_add(1);
            Loaded::new(&files, &self.settings, next).map(Some)
        });
        match loaded {
            Ok(None) => Ok(Reloaded::Unchanged),
            Ok(Some(loaded)) => {
                loaded.say_loaded();
                let generation = loaded.generation;
                self.current.store(Arc::new(loaded));
                Ok(Reloaded::Changed { generation })
            }
            Err(error) => {
                tracing::error!(
                    generation = before.generation,
                    problem = %error,
                    "the policy was not reloaded; the last good one goes on judging"
                );
                Err(error)
            }
        }
    }

    /// What configured it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of rules of the generation that judges now.
    pub fn rules(&self) -> usize {
        self.current.load().rules
    }

    /// Twelve hex digits of the digest over all policy files.
    pub fn hash(&self) -> String {
        self.current.load().hash.clone()
    }

    /// What the policy reads of an operation, if that could be proved: the
    /// condition for remembering verdicts.
    ///
    /// # Errors
    /// Why it could not, in words for the policy's author.
    pub fn reads(&self) -> Result<Vec<String>, String> {
        self.current.load().reads()
    }

    fn answer(&self, question: Question<'_>) -> Result<Arc<Ruling>, PolicyError> {
        let loaded = self.current.load();
        if let Question::Event(event) = question
            && event.kind == EventKind::Handoff
        {
            // As in Core (contract §8.1): it is noted, and no policy sees it.
            return Ok(Arc::new(Ruling::new(Verdict::Allow, loaded.generation)));
        }
        let said = self.said_by_rego(question, &loaded);
        match &loaded.further {
            None => said,
            Some(further) => Ruled {
                rules: further,
                history: &self.history,
                now: Instant::now(),
                within: self.settings.evaluate_within,
                generation: loaded.generation,
            }
            .ruling(Subject::of(question, &loaded.facts), question, said),
        }
    }

    fn said_by_rego(
        &self,
        question: Question<'_>,
        loaded: &Loaded,
    ) -> Result<Arc<Ruling>, PolicyError> {
        let evaluate = || evaluate::evaluate(question, loaded, &self.settings).map(Arc::new);
        let (Some(memory), Some(subject)) = (&loaded.memory, Subject::of(question, &loaded.facts))
        else {
            return evaluate();
        };
        KEY.with_borrow_mut(|key| {
            if memory.key(&subject, key).is_none() {
                return evaluate();
            }
            if let Some(ruling) = memory.recall(key) {
                return Ok(ruling);
            }
            let ruling = evaluate()?;
            memory.remember(key.as_slice().into(), Arc::clone(&ruling));
            Ok(ruling)
        })
    }
}

thread_local! {
    /// Where keys are written, so that a remembered verdict allocates nothing.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Loaded {
    fn new(files: &Files, settings: &Settings, generation: u64) -> Result<Self, LoadError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let mut compiled = files.compile()?;
        evaluate::limit(&mut compiled.engine, settings.evaluate_within);
        let memory = match (&compiled.reads, settings.memory_bytes_max) {
            (Ok(_), 0) | (Err(_), _) => None,
            (Ok(reads), bytes_max) => Some(Memory::new(reads.clone(), bytes_max)),
        };
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            generation,
            engine: compiled.engine,
            queries: compiled.queries,
            facts: Facts {
                agent_id: settings.agent_id.clone(),
                risk_tier: settings.risk_tier,
            },
            reads: compiled.reads,
            memory,
            rules: compiled.rules,
            further: Some(compiled.further).filter(|further| !further.is_empty()),
            files: files.count(),
            hash: files.hash(),
            origin: files.origin.clone(),
        })
    }

    fn reads(&self) -> Result<Vec<String>, String> {
        let reads = self.reads.as_ref().map_err(Clone::clone)?;
        let fields = reads.keyed().into_iter().map(|field| format!("{field:?}"));
        let searched = reads.searched().into_iter();
        let searched = searched.map(|(field, part)| format!("{field:?} contains {part:?}"));
        let request = reads.request_headers.iter();
        let response = reads.response_headers.iter();
        let members = reads.reading.iter().filter(|_| !reads.whole_reading);
        Ok(fields
            .chain(searched)
            .chain(members.map(|name| format!("db_reading.{name}")))
            .chain(request.map(|name| format!("request header {name}")))
            .chain(response.map(|name| format!("response header {name}")))
            .collect())
    }

    /// What stands beside the Rego, if anything does.
    fn beside(&self) -> String {
        self.further.as_ref().map_or_else(String::new, |further| {
            format!(
                ", {} behaviour rules, {} guardrails",
                further.behaviour.len(),
                further.guardrails.len()
            )
        })
    }

    fn remembers(&self) -> String {
        match (&self.reads, &self.memory) {
            (Ok(_), Some(_)) => "verdicts remembered".to_owned(),
            (Ok(_), None) => "verdicts not remembered: it is turned off".to_owned(),
            (Err(why), _) => format!("verdicts not remembered: {why}"),
        }
    }

    fn say_loaded(&self) {
        tracing::info!(
            generation = self.generation,
            origin = %self.origin,
            rules = self.rules,
            behaviour_rules = self.further.as_ref().map_or(0, |f| f.behaviour.len()),
            guardrails = self.further.as_ref().map_or(0, |f| f.guardrails.len()),
            hash = %self.hash,
            memory = %self.remembers(),
            "policy loaded"
        );
    }
}

impl PolicyBackend for LocalPolicy {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        Judging::Now(self.answer(question))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Sidecar
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        Box::pin(async {
            Err(PolicyError::Unjudgeable(Reason::from(
                "approvals of the embedded policy are kept by the sidecar",
            )))
        })
    }

    fn generation(&self) -> u64 {
        self.current.load().generation
    }

    fn is_steady(&self, generation: u64) -> bool {
        let loaded = self.current.load();
        loaded.generation == generation && loaded.memory.is_some() && loaded.further.is_none()
    }

    fn describe(&self) -> String {
        let loaded = self.current.load();
        format!(
            "embedded policy: {} ({} rules in {} {}{}, {}, {})",
            loaded.origin,
            loaded.rules,
            loaded.files,
            if loaded.files == 1 { "file" } else { "files" },
            loaded.beside(),
            loaded.hash,
            loaded.remembers(),
        )
    }
}
