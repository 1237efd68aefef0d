//! All runs of this sidecar, and the rules that say whose an operation is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use tokio::sync::watch;

use crate::domain::{Attribution, Context, Process, Reason, Timestamp, TraceId};
use crate::net::caller::Callers;

use super::Session;
use super::activity::Activity;
use super::claim::Claim;
use super::latch::Latch;
use super::run::Run;

/// Bounds and identity. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workflow id, run id, type and task queue of the sidecar's own session.
    pub own: Context,
    /// Whether an operation that no evidence attributes is refused.
    pub unattributed: Unattributed,
    /// Most runs known at once; a WorkflowStarted beyond it is refused.
    pub runs_max: usize,
    /// Most open activities of one run; an ActivityStarted beyond it is refused.
    pub activities_max: usize,
    /// Most registered contexts (trace ids, proxy user names).
    pub contexts_max: usize,
    /// How long a registered context lives.
    pub context_lives: Duration,
    /// Whether a process may stand for a run or activity.
    pub callers: Callers,
}

/// What becomes of an operation that no evidence attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unattributed {
    /// It belongs to the sidecar's own session.
    Session,
    /// It is refused.
    Refuse,
}

/// A bound of the registry was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub &'static str);

/// Names a run: workflow id and run id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// `workflow_id`.
    pub workflow_id: Arc<str>,
    /// `run_id`.
    pub run_id: Arc<str>,
}

impl RunKey {
    /// The run that `context` names.
    pub fn of(context: &Context) -> Self {
        Self {
            workflow_id: context.workflow_id.clone(),
            run_id: context.run_id.clone(),
        }
    }
}

/// What is halted, shared with every session.
#[derive(Debug)]
pub(in crate::session) struct Halts {
    pub(super) everything: Latch,
    runs: AtomicUsize,
    any: AtomicUsize,
    changed: watch::Sender<u64>,
    /// Held while a latch and the counts are brought to agree.
    turn: Mutex<()>,
}

impl Halts {
    /// Whether anything at all is halted: one load on the hot path.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire) > 0
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.load(Ordering::Acquire)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn announce(&self) {
        self.changed
            .send_modify(|epoch| *epoch = epoch.wrapping_add(1));
    }
}

/// A context that evidence may name.
#[derive(Clone, Debug)]
struct Registered {
    run: Arc<Run>,
    activity: Option<Arc<str>>,
    until: Timestamp,
    /// What else was registered under its name.
    signs: Signs,
}

/// What may stand for a run or activity beside a name.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// A trace.
    pub trace: Option<TraceId>,
    /// The name of a database session.
    pub application: Option<Arc<str>>,
    /// A process, and those that it starts.
    pub process: Option<Process>,
}

impl Registered {
    /// Whether what it names is open still.
    fn is_open(&self) -> bool {
        let activity = self.activity.as_deref();
        !self.run.is_closed() && activity.is_none_or(|id| self.run.activity(id).is_some())
    }
}

/// All runs of this sidecar.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    own: Session,
    runs: DashMap<RunKey, Arc<Run>>,
    by_trace: Mutex<HashMap<TraceId, Registered>>,
    by_name: Mutex<HashMap<Arc<str>, Registered>>,
    by_process: Mutex<HashMap<Process, Registered>>,
    /// Contexts registered, so that a claim costs nothing where none is.
    contexts: AtomicUsize,
    /// Rule 5, recomputed when an event changes it.
    only: ArcSwapOption<Session>,
    recomputing: Mutex<()>,
    halts: Arc<Halts>,
}

impl Registry {
    /// A registry that knows only the sidecar's own session, opened at `now`.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        let halts = Arc::new(Halts {
            everything: Latch::default(),
            runs: AtomicUsize::new(0),
            any: AtomicUsize::new(0),
            changed: watch::Sender::new(0),
            turn: Mutex::new(()),
        });
        let context = Arc::new(settings.own.clone());
        let own = Session {
            run: Arc::new(Run::new(context.clone(), now)),
            activity: None,
            context,
            attribution: Attribution::OwnSession,
            registry: halts.clone(),
        };
        Self {
            settings,
            own,
            runs: DashMap::new(),
            by_trace: Mutex::default(),
            by_name: Mutex::default(),
            by_process: Mutex::default(),
            contexts: AtomicUsize::new(0),
            only: ArcSwapOption::empty(),
            recomputing: Mutex::new(()),
            halts,
        }
    }

    /// The sidecar's own session.
    pub fn own(&self) -> &Session {
        &self.own
    }

    /// Whose an operation is; `None` if no evidence says so and `unattributed`
    /// is `refuse`. First match wins, in the order of [`Attribution`].
    pub fn attribute(&self, claim: &Claim<'_>, now: Timestamp) -> Option<Session> {
        self.by_headers(claim)
            .or_else(|| self.by_trace(claim, now))
            .or_else(|| self.by_name(claim.proxy_user, Attribution::ProxyCredentials, now))
            .or_else(|| self.by_name(claim.database_hint, Attribution::DatabaseHint, now))
            .or_else(|| self.by_process(claim.callers, now))
            .or_else(|| self.only.load_full().map(|only| (*only).clone()))
            .or_else(|| match self.settings.unattributed {
                Unattributed::Session => Some(self.own.clone()),
                Unattributed::Refuse => None,
            })
    }

    /// Whose an operation is by the ids that `claim` names alone (rule 1).
    pub fn named(&self, claim: &Claim<'_>) -> Option<Session> {
        self.by_headers(claim)
    }

    fn by_headers(&self, claim: &Claim<'_>) -> Option<Session> {
        let run = self.find(claim.workflow_id, claim.run_id, claim.activity_id)?;
        self.session(run, claim.activity_id, Attribution::Headers)
    }

    fn by_trace(&self, claim: &Claim<'_>, now: Timestamp) -> Option<Session> {
        let mapped = claim
            .trace
            .filter(|_| self.has_contexts())
            .and_then(|trace| {
                let known = lock(&self.by_trace);
                known.get(&trace).filter(|r| now < r.until).cloned()
            });
        if let Some(Registered { run, activity, .. }) = mapped {
            return self.session(run, activity.as_deref(), Attribution::Trace);
        }
        let run = self.find(None, claim.baggage_run, claim.baggage_activity)?;
        self.session(run, claim.baggage_activity, Attribution::Trace)
    }

    fn by_name(
        &self,
        name: Option<&str>,
        attribution: Attribution,
        now: Timestamp,
    ) -> Option<Session> {
        let name = name.filter(|_| self.has_contexts())?;
        let registered = lock(&self.by_name)
            .get(name)
            .filter(|r| now < r.until)
            .cloned()?;
        let activity = registered.activity.as_deref();
        self.session(registered.run, activity, attribution)
    }

    /// The nearest process counts that was registered, be it the one that
    /// connects or one that started it.
    fn by_process(&self, callers: &[Process], now: Timestamp) -> Option<Session> {
        if callers.is_empty() || !self.has_contexts() {
            return None;
        }
        let registered = {
            let known = lock(&self.by_process);
            let open = |r: &&Registered| now < r.until && r.is_open();
            let mut all = callers.iter();
            all.find_map(|process| known.get(process).filter(open).cloned())?
        };
        let activity = registered.activity.as_deref();
        self.session(registered.run, activity, Attribution::Process)
    }

    fn has_contexts(&self) -> bool {
        self.contexts.load(Ordering::Acquire) > 0
    }

    /// The open run that the ids name. A run id or an activity id alone is
    /// enough where only one open run has it; an ambiguous one names nothing.
    fn find(
        &self,
        workflow_id: Option<&str>,
        run_id: Option<&str>,
        activity_id: Option<&str>,
    ) -> Option<Arc<Run>> {
        if (workflow_id, run_id, activity_id) == (None, None, None) || self.runs.is_empty() {
            return None;
        }
        if let (Some(workflow_id), Some(run_id)) = (workflow_id, run_id) {
            let (workflow_id, run_id) = (workflow_id.into(), run_id.into());
            return self
                .runs
                .get(&RunKey {
                    workflow_id,
                    run_id,
                })
                .map(|e| e.value().clone());
        }
        let mut matches = self.runs.iter().filter(|entry| {
            let run = entry.value();
            !run.is_closed()
                && workflow_id.is_none_or(|id| *run.context.workflow_id == *id)
                && run_id.is_none_or(|id| *run.context.run_id == *id)
                && activity_id.is_none_or(|id| run.activity(id).is_some())
        });
        let found = matches.next().map(|entry| entry.value().clone());
        found.filter(|_| matches.next().is_none())
    }

    fn session(
        &self,
        run: Arc<Run>,
        activity: Option<&str>,
        attribution: Attribution,
    ) -> Option<Session> {
        if run.is_closed() {
            return None;
        }
        let activity = match activity {
            Some(id) => Some(run.activity(id)?),
            None => None,
        };
        let context = activity
            .as_ref()
            .map_or_else(|| run.context.clone(), |a| a.context.clone());
        Some(Session {
            run,
            activity,
            context,
            attribution,
            registry: self.halts.clone(),
        })
    }

    /// The run called `workflow_id`/`run_id`, open or halted.
    pub fn run(&self, key: &RunKey) -> Option<Arc<Run>> {
        if RunKey::of(&self.own.context) == *key {
            return Some(self.own.run.clone());
        }
        self.runs.get(key).map(|entry| entry.value().clone())
    }

    /// The session an event about `context` speaks in: its run's, or the
    /// sidecar's own for a run that was never opened here.
    pub fn session_of(&self, context: &Arc<Context>) -> Session {
        let run = self.run(&RunKey::of(context));
        Session {
            activity: run
                .as_ref()
                .zip(context.activity.as_ref())
                .and_then(|(run, named)| run.activity(&named.id)),
            run: run.unwrap_or_else(|| self.own.run.clone()),
            context: context.clone(),
            attribution: Attribution::Headers,
            registry: self.halts.clone(),
        }
    }

    /// Every run, the sidecar's own first.
    pub fn all_runs(&self) -> Vec<Arc<Run>> {
        let mut all = vec![self.own.run.clone()];
        all.extend(self.runs.iter().map(|entry| entry.value().clone()));
        all
    }

    /// Opens the run of `context`, or finds it open already.
    ///
    /// # Errors
    /// The bound of known runs is reached and none of them is closed.
    pub fn open_run(&self, context: &Context, now: Timestamp) -> Result<Arc<Run>, Limit> {
        let key = RunKey::of(context);
        if let Some(run) = self.run(&key).filter(|run| !run.is_closed()) {
            return Ok(run);
        }
        if self.runs.len() >= self.settings.runs_max {
            self.runs
                .retain(|_, run| !run.is_closed() || run.latch.reason().is_some());
        }
        if self.runs.len() >= self.settings.runs_max {
            return Err(Limit("runs"));
        }
        let own = Context {
            activity: None,
            ..context.clone()
        };
        // A halted run stays halted when the agent starts it again.
        let run = self
            .runs
            .entry(key)
            .and_modify(|known| {
                // Another caller may have opened it since we looked.
                if known.is_closed() && known.latch.reason().is_none() {
                    *known = Arc::new(Run::reopened(known, Arc::new(own.clone()), now));
                }
            })
            .or_insert_with(|| Arc::new(Run::new(Arc::new(own.clone()), now)))
            .clone();
        self.recompute_only();
        Ok(run)
    }

    /// Closes the run of `context` and all its activities.
    pub fn close_run(&self, context: &Context) {
        if let Some(run) = self.runs.get(&RunKey::of(context)) {
            run.close();
        }
        self.recompute_only();
    }

    /// Opens the activity that `context` names, in a run that is open or is
    /// opened by this.
    ///
    /// # Errors
    /// A bound is reached.
    pub fn open_activity(&self, context: &Arc<Context>, now: Timestamp) -> Result<(), Limit> {
        let Some(activity) = &context.activity else {
            return Ok(());
        };
        let run = self.open_run(context, now)?;
        let opened = Arc::new(Activity::new(context.clone(), now));
        run.open(opened, activity.id.clone(), self.settings.activities_max)
            .ok_or(Limit("open activities"))?;
        self.recompute_only();
        Ok(())
    }

    /// Closes the activity that `context` names.
    pub fn complete_activity(&self, context: &Context) {
        if let (Some(run), Some(activity)) = (self.run(&RunKey::of(context)), &context.activity) {
            run.complete(&activity.id);
        }
        self.recompute_only();
    }

    /// Lets `trace` name the run and activity of `context` (rule 2).
    ///
    /// # Errors
    /// The bound of registered contexts is reached.
    pub fn register_trace(
        &self,
        trace: TraceId,
        context: &Context,
        now: Timestamp,
    ) -> Result<bool, Limit> {
        let lives = self.settings.context_lives;
        let Some(registered) = self.registered(context, now, lives) else {
            return Ok(false);
        };
        self.put(&self.by_trace, trace, registered, now)
            .map(|()| true)
    }

    /// Lets the proxy user `name` name the run and activity of `context` (rule 3).
    ///
    /// # Errors
    /// The bound of registered contexts is reached.
    pub fn register_name(
        &self,
        name: &str,
        context: &Context,
        now: Timestamp,
    ) -> Result<bool, Limit> {
        let lives = self.settings.context_lives;
        self.register(name, &Signs::default(), context, now, lives)
    }

    /// Whether a process may stand for a run or activity.
    pub fn callers(&self) -> Callers {
        self.settings.callers
    }

    /// Longest time that a registered context lives.
    pub fn context_lives(&self) -> Duration {
        self.settings.context_lives
    }

    /// Lets `name` and `signs` stand for the run and activity of `context`, for
    /// `lives` at most. What the name stood for before, it stands for no more.
    ///
    /// # Errors
    /// The bound of registered contexts is reached; then none of them stands
    /// for it.
    pub fn register(
        &self,
        name: &str,
        signs: &Signs,
        context: &Context,
        now: Timestamp,
        lives: Duration,
    ) -> Result<bool, Limit> {
        self.forget_name(name);
        let Some(mut registered) = self.registered(context, now, lives) else {
            return Ok(false);
        };
        let done = self.put_signs(signs, &registered, now).and_then(|()| {
            registered.signs = signs.clone();
            self.put(&self.by_name, name.into(), registered.clone(), now)
        });
        if done.is_err() {
            self.forget_signs(signs, &registered.run);
        }
        done.map(|()| true)
    }

    fn put_signs(&self, signs: &Signs, to: &Registered, now: Timestamp) -> Result<(), Limit> {
        if let Some(trace) = signs.trace {
            self.put(&self.by_trace, trace, to.clone(), now)?;
        }
        if let Some(application) = &signs.application {
            self.put(&self.by_name, application.clone(), to.clone(), now)?;
        }
        if let Some(process) = signs.process {
            self.put(&self.by_process, process, to.clone(), now)?;
        }
        Ok(())
    }

    /// Forgets what the context `name` stood for, and what was registered with it.
    pub fn forget_name(&self, name: &str) -> bool {
        let Some(known) = lock(&self.by_name).remove(name) else {
            return false;
        };
        self.contexts.fetch_sub(1, Ordering::AcqRel);
        self.forget_signs(&known.signs, &known.run);
        true
    }

    /// Forgets `signs`, unless they stand for another run than `of` by now.
    fn forget_signs(&self, signs: &Signs, of: &Arc<Run>) {
        if let Some(trace) = signs.trace {
            self.take(&self.by_trace, &trace, of);
        }
        if let Some(application) = &signs.application {
            self.take(&self.by_name, application, of);
        }
        if let Some(process) = signs.process {
            self.take(&self.by_process, &process, of);
        }
    }

    fn take<K: Hash + Eq>(&self, names: &Mutex<HashMap<K, Registered>>, name: &K, of: &Arc<Run>) {
        let mut names = lock(names);
        if names.get(name).is_some_and(|r| Arc::ptr_eq(&r.run, of)) {
            names.remove(name);
            self.contexts.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// `None` if `context` names no open run or activity.
    fn registered(&self, context: &Context, now: Timestamp, lives: Duration) -> Option<Registered> {
        let run = self.run(&RunKey::of(context)).filter(|r| !r.is_closed())?;
        let activity = context.activity.as_ref().map(|a| a.id.clone());
        let registered = Registered {
            run,
            activity,
            until: now.after(lives.min(self.settings.context_lives)),
            signs: Signs::default(),
        };
        registered.is_open().then_some(registered)
    }

    fn put<K: Hash + Eq>(
        &self,
        names: &Mutex<HashMap<K, Registered>>,
        name: K,
        registered: Registered,
        now: Timestamp,
    ) -> Result<(), Limit> {
        let mut names = lock(names);
        if names.len() >= self.settings.contexts_max {
            let before = names.len();
            names.retain(|_, r| now < r.until && r.is_open());
            self.contexts
                .fetch_sub(before.saturating_sub(names.len()), Ordering::AcqRel);
        }
        if names.len() >= self.settings.contexts_max {
            return Err(Limit("registered contexts"));
        }
        if names.insert(name, registered).is_none() {
            self.contexts.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Halts `run`, and with it whatever is open under its name. Returns
    /// whether it was not halted before.
    pub fn halt(&self, run: &Run, reason: &Reason) -> bool {
        let key = RunKey::of(&run.context);
        // A run that ended meanwhile may be forgotten, or opened anew: the halt
        // must reach it where the operator finds it.
        let known = (key != RunKey::of(&self.own.context)).then(|| {
            let entry = self.runs.entry(key);
            let known = entry.or_insert_with(|| Arc::new(Run::remembered(run)));
            known.value().latch.clone()
        });
        let turn = lock(&self.halts.turn);
        let latch = known.as_ref().unwrap_or(&run.latch);
        let first = latch.trip(reason);
        if !Arc::ptr_eq(latch, &run.latch) {
            run.latch.trip(reason);
        }
        if first {
            self.halts.runs.fetch_add(1, Ordering::AcqRel);
            self.halts.any.fetch_add(1, Ordering::AcqRel);
        }
        drop(turn);
        self.halts.announce();
        first
    }

    /// Halts everything. Returns whether it was not halted before.
    pub fn halt_everything(&self, reason: &Reason) -> bool {
        let turn = lock(&self.halts.turn);
        let first = self.halts.everything.trip(reason);
        if first {
            self.halts.any.fetch_add(1, Ordering::AcqRel);
        }
        drop(turn);
        self.halts.announce();
        first
    }

    /// Resumes `run`, and everything if everything was halted. Returns whether
    /// anything was.
    pub fn resume(&self, run: &Run) -> bool {
        let turn = lock(&self.halts.turn);
        let run_was = run.latch.reset();
        if run_was {
            self.halts.runs.fetch_sub(1, Ordering::AcqRel);
            self.halts.any.fetch_sub(1, Ordering::AcqRel);
        }
        let everything_was = self.halts.everything.reset();
        if everything_was {
            self.halts.any.fetch_sub(1, Ordering::AcqRel);
        }
        drop(turn);
        self.halts.announce();
        run_was || everything_was
    }

    /// Ends a halt of everything; runs that are halted stay so. Returns whether
    /// everything was.
    pub fn resume_everything(&self) -> bool {
        let turn = lock(&self.halts.turn);
        let was = self.halts.everything.reset();
        if was {
            self.halts.any.fetch_sub(1, Ordering::AcqRel);
        }
        drop(turn);
        self.halts.announce();
        was
    }

    /// Why everything is halted, if it is.
    pub fn everything_halted(&self) -> Option<Reason> {
        self.halts.everything.reason()
    }

    /// Changes whenever something is halted or resumed.
    pub fn halt_changes(&self) -> watch::Receiver<u64> {
        self.halts.changes()
    }

    /// Rule 5 holds while exactly one run is open and exactly one activity in it.
    fn recompute_only(&self) {
        // Two events at once must not leave the older one's view behind.
        let _turn = lock(&self.recomputing);
        let mut open = self.runs.iter().filter(|entry| !entry.value().is_closed());
        let first = open.next().map(|entry| entry.value().clone());
        let alone = open.next().is_none();
        drop(open);
        let only = first.filter(|_| alone).and_then(|run| {
            let activity = run.only_activity()?;
            let context = activity.context.clone();
            Some(Arc::new(Session {
                run,
                activity: Some(activity),
                context,
                attribution: Attribution::OnlyActivity,
                registry: self.halts.clone(),
            }))
        });
        self.only.store(only);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ActivityRef, JsonText};

    const NOW: Timestamp = Timestamp(1);

    fn registry(unattributed: Unattributed) -> Registry {
        let settings = Settings {
            own: context("own", "own", None),
            unattributed,
            runs_max: 3,
            activities_max: 2,
            contexts_max: 2,
            context_lives: Duration::from_nanos(100),
            callers: Callers::Identified,
        };
        Registry::new(settings, NOW)
    }

    fn context(workflow: &str, run: &str, activity: Option<&str>) -> Context {
        Context {
            workflow_id: workflow.into(),
            run_id: run.into(),
            workflow_type: "t".into(),
            task_queue: "q".into(),
            activity: activity.map(|id| ActivityRef {
                id: id.into(),
                kind: "kind".into(),
                attempt: 1,
                input: JsonText::empty_array(),
            }),
        }
    }

    fn two_activities() -> Registry {
        let registry = registry(Unattributed::Session);
        for id in ["a1", "a2"] {
            let context = Arc::new(context("w", "r", Some(id)));
            registry.open_activity(&context, NOW).unwrap();
        }
        let first = context("w", "r", Some("a1"));
        assert_eq!(registry.register_trace(TraceId(7), &first, NOW), Ok(true));
        assert_eq!(registry.register_name("alice", &first, NOW), Ok(true));
        registry
    }

    #[test]
    fn the_first_rule_that_matches_attributes() {
        let registry = two_activities();
        let headers = Claim {
            workflow_id: Some("w"),
            run_id: Some("r"),
            activity_id: Some("a2"),
            ..Claim::default()
        };
        let trace = Claim {
            trace: Some(TraceId(7)),
            ..Claim::default()
        };
        let user = Claim {
            proxy_user: Some("alice"),
            ..Claim::default()
        };
        let baggage = Claim {
            baggage_run: Some("r"),
            baggage_activity: Some("a2"),
            ..Claim::default()
        };
        let unknown = Claim {
            run_id: Some("no such run"),
            ..Claim::default()
        };
        #[rustfmt::skip]
        let table = [
            // claim                                              rule                            activity
            (headers,                                             Attribution::Headers,          Some("a2")),
            (trace,                                               Attribution::Trace,            Some("a1")),
            (baggage,                                             Attribution::Trace,            Some("a2")),
            (user,                                                Attribution::ProxyCredentials, Some("a1")),
            (Claim { proxy_user: Some("alice"), ..headers },      Attribution::Headers,          Some("a2")),
            (Claim { proxy_user: Some("alice"), ..baggage },      Attribution::Trace,            Some("a2")),
            (Claim { trace: Some(TraceId(7)), ..unknown },        Attribution::Trace,            Some("a1")),
            (Claim { trace: Some(TraceId(8)), ..Claim::default()},Attribution::OwnSession,       None),
            (unknown,                                             Attribution::OwnSession,       None),
            (Claim { activity_id: Some("a3"), ..headers },        Attribution::OwnSession,       None),
            (Claim::default(),                                    Attribution::OwnSession,       None),
        ];
        for (claim, rule, activity) in table {
            let session = registry.attribute(&claim, NOW).unwrap();
            let named = session.context.activity.as_ref().map(|a| &*a.id);
            assert_eq!((session.attribution, named), (rule, activity), "{claim:?}");
        }
    }

    #[test]
    fn the_nearest_process_counts_and_one_that_took_its_number_does_not() {
        let process = |id: u32| Process { id, started: 100 };
        let registry = Registry::new(
            Settings {
                contexts_max: 3,
                ..registry(Unattributed::Session).settings
            },
            NOW,
        );
        for (id, number) in [("a1", 10), ("a2", 20)] {
            let context = Arc::new(context("w", "r", Some(id)));
            registry.open_activity(&context, NOW).unwrap();
            let signs = Signs {
                process: Some(process(number)),
                ..Signs::default()
            };
            let lives = Duration::from_nanos(50);
            assert_eq!(
                registry.register(id, &signs, &context, NOW, lives),
                Ok(true)
            );
        }
        let whose = |callers: &[Process], now| {
            let claim = Claim {
                callers,
                ..Claim::default()
            };
            let session = registry.attribute(&claim, now).unwrap();
            let activity = session.context.activity.as_ref().map(|a| a.id.to_string());
            (session.attribution, activity)
        };
        let by = |id: &str| (Attribution::Process, Some(id.to_owned()));
        let nobodys = (Attribution::OwnSession, None);
        let [a1, a2, another] = [10, 20, 30].map(process);
        assert_eq!(whose(&[another, a1], NOW), by("a1"));
        assert_eq!(whose(&[another, a2, a1], NOW), by("a2"));
        let again = Process { started: 200, ..a1 };
        assert_eq!(whose(&[again], NOW), nobodys);
        assert_eq!(whose(&[again, a2], NOW), by("a2"));
        let late = NOW.after(Duration::from_nanos(50));
        assert_eq!(whose(&[a1], late), nobodys);
        // What has ended hides nothing behind it.
        registry.complete_activity(&context("w", "r", Some("a2")));
        registry
            .open_activity(&Arc::new(context("w", "r", Some("a3"))), NOW)
            .unwrap();
        assert_eq!(whose(&[a2, a1], NOW), by("a1"));
        assert!(registry.forget_name("a1"));
        assert_eq!(whose(&[a2, a1], NOW), nobodys);
    }

    #[test]
    fn the_only_open_activity_attributes_until_there_are_two() {
        let registry = registry(Unattributed::Refuse);
        let none = Claim::default();
        assert!(registry.attribute(&none, NOW).is_none());
        let first = Arc::new(context("w", "r", Some("a1")));
        registry.open_activity(&first, NOW).unwrap();
        let session = registry.attribute(&none, NOW).unwrap();
        assert_eq!(session.attribution, Attribution::OnlyActivity);
        let second = Arc::new(context("w", "r", Some("a2")));
        registry.open_activity(&second, NOW).unwrap();
        assert!(registry.attribute(&none, NOW).is_none());
        registry.complete_activity(&second);
        assert!(registry.attribute(&none, NOW).is_some());
        registry.close_run(&first);
        assert!(registry.attribute(&none, NOW).is_none());
    }

    #[test]
    fn names_of_activities_that_ended_make_room() {
        let registry = two_activities();
        let [first, second] = ["a1", "a2"].map(|id| context("w", "r", Some(id)));
        registry.register_trace(TraceId(8), &first, NOW).unwrap();
        let full = registry.register_trace(TraceId(9), &second, NOW);
        assert!(full.is_err(), "{full:?}");
        registry.complete_activity(&first);
        assert_eq!(registry.register_trace(TraceId(9), &second, NOW), Ok(true));
    }

    #[test]
    fn a_registered_context_expires() {
        let registry = two_activities();
        let trace = Claim {
            trace: Some(TraceId(7)),
            ..Claim::default()
        };
        let late = NOW.after(Duration::from_nanos(100));
        let session = registry.attribute(&trace, late).unwrap();
        assert_eq!(session.attribution, Attribution::OwnSession);
    }

    #[test]
    fn a_halted_run_refuses_its_own_and_what_nobody_claims() {
        let registry = two_activities();
        registry.open_run(&context("w2", "r2", None), NOW).unwrap();
        let halted = Claim {
            run_id: Some("r"),
            ..Claim::default()
        };
        let other = Claim {
            run_id: Some("r2"),
            ..Claim::default()
        };
        let of = |claim: &Claim<'_>| registry.attribute(claim, NOW).unwrap().halted().is_some();
        assert_eq!([of(&halted), of(&other), of(&Claim::default())], [false; 3]);
        let run = registry.attribute(&halted, NOW).unwrap().run;
        assert!(registry.halt(&run, &Reason::from("stop")));
        assert_eq!(
            [of(&halted), of(&other), of(&Claim::default())],
            [true, false, true]
        );
        assert!(registry.halt_everything(&Reason::from("stop all")));
        assert!(of(&other));
        assert!(registry.resume(&run));
        assert_eq!([of(&halted), of(&other), of(&Claim::default())], [false; 3]);
    }

    #[test]
    fn starting_a_halted_run_again_does_not_resume_it() {
        let registry = registry(Unattributed::Session);
        let context = context("w", "r", None);
        let run = registry.open_run(&context, NOW).unwrap();
        registry.halt(&run, &Reason::from("stop"));
        registry.close_run(&context);
        let again = registry.open_run(&context, NOW).unwrap();
        assert!(again.latch.reason().is_some());
    }

    #[test]
    fn every_bound_refuses_instead_of_growing() {
        let registry = registry(Unattributed::Session);
        for run in ["1", "2", "3"] {
            registry.open_run(&context("w", run, None), NOW).unwrap();
        }
        assert_eq!(
            registry
                .open_run(&context("w", "4", None), NOW)
                .unwrap_err(),
            Limit("runs")
        );
        registry.close_run(&context("w", "2", None));
        registry.open_run(&context("w", "4", None), NOW).unwrap();
        for id in ["a", "b"] {
            registry
                .open_activity(&Arc::new(context("w", "1", Some(id))), NOW)
                .unwrap();
        }
        let third = Arc::new(context("w", "1", Some("c")));
        assert_eq!(
            registry.open_activity(&third, NOW),
            Err(Limit("open activities"))
        );
        let run = context("w", "1", None);
        for trace in [1, 2] {
            assert_eq!(registry.register_trace(TraceId(trace), &run, NOW), Ok(true));
        }
        let over = registry.register_trace(TraceId(3), &run, NOW);
        assert_eq!(over, Err(Limit("registered contexts")));
    }

    #[test]
    fn a_halt_reaches_the_run_that_was_opened_under_the_name_meanwhile() {
        let registry = registry(Unattributed::Session);
        let name = context("w", "r", None);
        let before = registry.open_run(&name, NOW).unwrap();
        registry.close_run(&name);
        let now = registry.open_run(&name, NOW).unwrap();
        assert!(!Arc::ptr_eq(&before, &now));
        assert!(registry.halt(&before, &Reason::from("stop")));
        assert!(now.latch.reason().is_some());
        assert!(registry.resume(&now));
        assert!(registry.own().halted().is_none());
    }

    #[test]
    fn a_halt_of_a_forgotten_run_can_be_found_and_resumed() {
        let registry = registry(Unattributed::Session);
        let name = context("w", "r", None);
        let run = registry.open_run(&name, NOW).unwrap();
        registry.close_run(&name);
        for id in ["1", "2", "3"] {
            registry.open_run(&context("w", id, None), NOW).unwrap();
        }
        let key = RunKey::of(&name);
        assert!(registry.run(&key).is_none(), "it was to be forgotten");
        assert!(registry.halt(&run, &Reason::from("stop")));
        let found = registry.run(&key).unwrap();
        assert!(found.is_closed() && found.latch.reason().is_some());
        assert!(registry.own().halted().is_some());
        assert!(registry.resume(&found));
        assert!(registry.own().halted().is_none() && run.latch.reason().is_none());
    }

    #[test]
    fn only_a_new_attempt_starts_without_the_refusals_of_the_last() {
        let registry = registry(Unattributed::Session);
        let first = Arc::new(context("w", "r", Some("a")));
        let mut second = context("w", "r", Some("a"));
        if let Some(activity) = &mut second.activity {
            activity.attempt = 2;
        }
        let aborted = || {
            let run = registry.run(&RunKey::of(&first)).unwrap();
            run.activity("a").unwrap().aborted().is_some()
        };
        registry.open_activity(&first, NOW).unwrap();
        let session = registry.session_of(&first);
        session.activity.unwrap().abort(&Reason::from("no"));
        registry.open_activity(&first, NOW).unwrap();
        assert!(aborted(), "the same attempt, told again");
        registry.open_activity(&Arc::new(second), NOW).unwrap();
        assert!(!aborted());
    }
}
