//! A backend that says what a test told it to. Silence afterwards is
//! [`PolicyError::Unavailable`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Context, Reason, Stage, Verdict};

use super::{
    ApprovalState, ApprovalsAt, Judging, Later, PolicyBackend, PolicyError, Question, Ruling,
};

type Answers = Mutex<VecDeque<Result<Ruling, PolicyError>>>;

/// Answers each stage from its own list, in order.
#[derive(Debug)]
pub struct Scripted {
    started: Answers,
    completed: Answers,
    events: Answers,
    states: Mutex<VecDeque<Result<ApprovalState, PolicyError>>>,
    always: Option<Verdict>,
    approvals_at: ApprovalsAt,
    slowly: Option<std::time::Duration>,
    /// Changes when the test says that policy was reloaded.
    pub generation: AtomicU64,
    /// Questions asked so far.
    pub asked: AtomicU64,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            started: Mutex::default(),
            completed: Mutex::default(),
            events: Mutex::default(),
            states: Mutex::default(),
            always: None,
            approvals_at: ApprovalsAt::Sidecar,
            slowly: None,
            generation: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }
    }
}

impl Scripted {
    /// The same verdict for everything not listed otherwise.
    pub fn always(verdict: Verdict) -> Self {
        Self {
            always: Some(verdict),
            ..Self::default()
        }
    }

    /// What `stage` is answered, before `always`.
    #[must_use]
    pub fn at(
        self,
        stage: Stage,
        answers: impl IntoIterator<Item = Result<Ruling, PolicyError>>,
    ) -> Self {
        let list = match stage {
            Stage::Started => &self.started,
            Stage::Completed => &self.completed,
        };
        lock(list).extend(answers);
        self
    }

    /// What events are answered, before `always`.
    #[must_use]
    pub fn on_events(self, answers: impl IntoIterator<Item = Result<Ruling, PolicyError>>) -> Self {
        lock(&self.events).extend(answers);
        self
    }

    /// Approvals live in "Core", and its polls are answered like this, then
    /// with "unavailable".
    #[must_use]
    pub fn polled(
        mut self,
        states: impl IntoIterator<Item = Result<ApprovalState, PolicyError>>,
    ) -> Self {
        self.approvals_at = ApprovalsAt::Core;
        lock(&self.states).extend(states);
        self
    }

    /// Every judgement takes this long.
    #[must_use]
    pub fn taking(mut self, long: std::time::Duration) -> Self {
        self.slowly = Some(long);
        self
    }
}

impl Scripted {
    fn answer(&self, question: Question<'_>) -> Result<Arc<Ruling>, PolicyError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let list = match question {
            Question::Started(_) => &self.started,
            Question::Completed(..) => &self.completed,
            Question::Event(_) => &self.events,
        };
        let next = lock(list).pop_front().unwrap_or_else(|| match self.always {
            Some(verdict) => Ok(Ruling::new(verdict, self.generation())),
            None => Err(PolicyError::Unavailable(Reason::from("the script is over"))),
        });
        next.map(Arc::new)
    }
}

impl PolicyBackend for Scripted {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        match self.slowly {
            None => Judging::Now(self.answer(question)),
            // As a real one: a question is asked once it is waited for.
            Some(long) => Judging::Later(Box::pin(async move {
                let answer = self.answer(question);
                tokio::time::sleep(long).await;
                answer
            })),
        }
    }

    fn approvals_at(&self) -> ApprovalsAt {
        self.approvals_at
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        let next = lock(&self.states)
            .pop_front()
            .unwrap_or_else(|| Err(PolicyError::Unavailable(Reason::from("the script is over"))));
        Box::pin(async move { next })
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn describe(&self) -> String {
        "scripted".to_owned()
    }
}

fn lock<T>(list: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
