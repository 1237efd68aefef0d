//! A person's word about more than one operation: what the same rule asks again
//! in the same activity or run, for a while. Kept in memory alone: after a
//! restart a person is asked again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{ApprovalId, Reason, Refusal};
use crate::policy::Ruling;
use crate::session::{Activity, Registry, Run, RunKey, Session};

use super::hold::Hold;

/// Most words kept at once.
const WORDS_MAX: usize = 1_000;

/// What a person's word is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The operation that they were asked about.
    Once,
    /// What the same rule asks in the same activity, for this long at most.
    Activity(Duration),
    /// What the same rule asks in the same run, for this long at most.
    Run(Duration),
}

impl Scope {
    /// Its name and how long it counts, where it is about more than once.
    pub(super) fn wider(self) -> Option<(&'static str, Duration)> {
        match self {
            Self::Once => None,
            Self::Activity(lives) => Some(("activity", lives)),
            Self::Run(lives) => Some(("run", lives)),
        }
    }
}

/// Who decides, and about how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    pub(super) who: &'a str,
    pub(super) scope: Scope,
}

impl<'a> From<&'a str> for By<'a> {
    fn from(who: &'a str) -> Self {
        let scope = Scope::Once;
        Self { who, scope }
    }
}

/// Why a word cannot be about more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeError {
    /// What was asked about is in no open activity.
    NoActivity,
    /// Its run has ended.
    NoRun,
    /// It is about an answer, and answers differ.
    Outcome,
    /// Too many are kept.
    Full,
}

/// Yes, or no and why.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Yes,
    No(Reason),
}

/// One word, and what it is about.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) approval: ApprovalId,
    pub(super) by: Arc<str>,
    said: Said,
    run: Arc<Run>,
    activity: Option<Arc<Activity>>,
    /// What asked: another rule, or another policy, asks anew.
    ruling: Arc<Ruling>,
    until: Instant,
}

impl Word {
    /// The word `said` by `by` about `hold`; `None` where it is about that alone.
    pub(super) fn about(
        hold: &Hold,
        scope: Scope,
        said: Said,
        by: &str,
        registry: &Registry,
    ) -> Result<Option<Self>, ScopeError> {
        let (lives, of_activity) = match scope {
            Scope::Once => return Ok(None),
            Scope::Activity(lives) => (lives, true),
            Scope::Run(lives) => (lives, false),
        };
        if hold.stage == crate::domain::Stage::Completed {
            return Err(ScopeError::Outcome);
        }
        let run = registry.run(&RunKey::of(&hold.context));
        let run = run
            .filter(|run| !run.is_closed())
            .ok_or(ScopeError::NoRun)?;
        let named = hold.context.activity.as_ref();
        let activity = match of_activity {
            true => {
                let open = named.and_then(|named| run.activity(&named.id));
                Some(open.ok_or(ScopeError::NoActivity)?)
            }
            false => None,
        };
        let now = Instant::now();
        Ok(Some(Self {
            approval: hold.id.clone(),
            by: by.into(),
            said,
            run,
            activity,
            ruling: hold.ruling.clone(),
            until: now.checked_add(lives).unwrap_or(now),
        }))
    }

    fn is_about(&self, session: &Session, ruling: &Ruling) -> bool {
        let activity = self.activity.as_ref().is_none_or(|mine| {
            let theirs = session.activity.as_ref();
            theirs.is_some_and(|theirs| Arc::ptr_eq(mine, theirs))
        });
        activity
            && Arc::ptr_eq(&self.run, &session.run)
            && self.ruling.policy == ruling.policy
            && self.ruling.reason == ruling.reason
            && self.ruling.generation == ruling.generation
    }

    fn counts(&self, now: Instant) -> bool {
        now < self.until && !self.run.is_closed()
    }

    /// What becomes of what it is about: nothing stands against it, or this.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match &self.said {
            Said::Yes => None,
            Said::No(reason) => Some(Refusal::Rejected {
                approval: self.approval.clone(),
                reason: reason.clone(),
            }),
        }
    }
}

/// All words that count still.
#[derive(Debug, Default)]
pub(super) struct Words(Mutex<Vec<Word>>);

impl Words {
    /// Keeps `word`.
    pub(super) fn keep(&self, word: Word) -> Result<(), ScopeError> {
        let now = Instant::now();
        let mut all = self.lock();
        all.retain(|known| known.counts(now));
        if all.len() >= WORDS_MAX {
            return Err(ScopeError::Full);
        }
        all.push(word);
        Ok(())
    }

    /// Forgets what was said under `approval`.
    pub(super) fn take_back(&self, approval: &ApprovalId) {
        self.lock().retain(|word| word.approval != *approval);
    }

    /// The newest word about what `ruling` asks in `session`.
    pub(super) fn about(&self, session: &Session, ruling: &Ruling) -> Option<Word> {
        let now = Instant::now();
        let all = self.lock();
        let mut newest = all.iter().rev().filter(|word| word.counts(now));
        newest.find(|word| word.is_about(session, ruling)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Word>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
