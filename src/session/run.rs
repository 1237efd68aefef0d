//! One run of a workflow and the activities open in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Context, Timestamp};

use super::activity::Activity;
use super::latch::Latch;

/// A run, from an allowed WorkflowStarted to its end.
#[derive(Debug)]
pub struct Run {
    /// Its ids; never an activity.
    pub context: Arc<Context>,
    /// When it was opened here.
    pub opened_at: Timestamp,
    /// Its halt, shared with the run of the same name that it succeeds: a halt
    /// decided for an operation of then stops what runs under the name now.
    pub latch: Arc<Latch>,
    closed: AtomicBool,
    activities: Mutex<HashMap<Arc<str>, Arc<Activity>>>,
}

impl Run {
    pub(super) fn new(context: Arc<Context>, opened_at: Timestamp) -> Self {
        Self {
            context,
            opened_at,
            latch: Arc::default(),
            closed: AtomicBool::new(false),
            activities: Mutex::default(),
        }
    }

    /// A run of the name of `before`, which has ended, opened anew.
    pub(super) fn reopened(before: &Self, context: Arc<Context>, opened_at: Timestamp) -> Self {
        Self {
            latch: before.latch.clone(),
            ..Self::new(context, opened_at)
        }
    }

    /// The trace that a halt leaves of a run that is no longer known.
    pub(super) fn remembered(before: &Self) -> Self {
        let run = Self::reopened(before, before.context.clone(), before.opened_at);
        run.closed.store(true, Ordering::Release);
        run
    }

    /// Whether the agent said that it ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Activities open now.
    pub fn activities_open(&self) -> usize {
        self.lock().len()
    }

    /// The open activity called `id`.
    pub fn activity(&self, id: &str) -> Option<Arc<Activity>> {
        self.lock().get(id).cloned()
    }

    /// The only open activity, if there is exactly one.
    pub(super) fn only_activity(&self) -> Option<Arc<Activity>> {
        let open = self.lock();
        let mut all = open.values();
        match (all.next(), all.next()) {
            (Some(only), None) => Some(only.clone()),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// Opens an activity, replacing an earlier attempt of the same id: a new
    /// attempt starts without its predecessor's refusals, as the SDKs do; the
    /// same attempt told again changes nothing.
    /// `None` at the bound of `at_most` open activities.
    pub(super) fn open(&self, activity: Arc<Activity>, id: Arc<str>, at_most: usize) -> Option<()> {
        let mut open = self.lock();
        if open
            .get(&id)
            .is_some_and(|known| known.attempt() == activity.attempt())
        {
            return Some(());
        }
        if open.len() >= at_most && !open.contains_key(&id) {
            return None;
        }
        open.insert(id, activity);
        Some(())
    }

    pub(super) fn complete(&self, id: &str) -> Option<Arc<Activity>> {
        self.lock().remove(id)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Activity>>> {
        self.activities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
