//! Completions that wait for a person. What ended has ended, so its activity is
//! closed at once; the identical completion sent again must still find it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Context, Timestamp};

/// Most of them remembered; beyond it the oldest is forgotten, and its retry is
/// told that the activity is unknown.
const KEPT_MAX: usize = 1_024;

/// An activity, and when it began.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) context: Arc<Context>,
    pub(super) began: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<VecDeque<Known>>);

impl Ended {
    /// The last one that `is_it` recognises.
    pub(super) fn find(&self, is_it: impl Fn(&Context) -> bool) -> Option<Known> {
        let kept = self.lock();
        kept.iter().rev().find(|k| is_it(&k.context)).cloned()
    }

    /// Remembers `known` once.
    pub(super) fn keep(&self, known: Known) {
        let mut kept = self.lock();
        kept.retain(|k| !same(&k.context, &known.context));
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(known);
    }

    /// Forgets the activity of `context`.
    pub(super) fn forget(&self, context: &Context) {
        self.lock().retain(|k| !same(&k.context, context));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(one: &Context, other: &Context) -> bool {
    let id = |context: &Context| context.activity.as_ref().map(|a| a.id.clone());
    one.run_id == other.run_id && one.workflow_id == other.workflow_id && id(one) == id(other)
}
