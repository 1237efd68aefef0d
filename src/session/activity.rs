//! One activity of a run, from an allowed ActivityStarted to its completion.

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{Context, Reason};

/// An open activity.
#[derive(Debug)]
pub struct Activity {
    /// Ids of the run and of this activity.
    pub context: Arc<Context>,
    aborted: Mutex<Option<Reason>>,
}

impl Activity {
    /// An activity nothing has been refused in. `context` names it.
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            aborted: Mutex::new(None),
        }
    }

    /// Why later operations are refused without asking, if they are.
    pub fn aborted(&self) -> Option<Reason> {
        self.lock().clone()
    }

    /// Refuses later operations; the first reason stays.
    pub fn abort(&self, reason: &Reason) {
        self.lock().get_or_insert_with(|| reason.clone());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Reason>> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
