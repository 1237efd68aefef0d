//! Waiting for a person: what is held, who may decide it, and what becomes of
//! the decision. Without a clock or a socket of its own.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::domain::{ApprovalId, Context, Fingerprint, Reason, Stage, Timestamp};
use crate::policy::Ruling;
use crate::session::Activity;

use super::fingerprint;

/// What an approval covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// One operation: the first to take the grant has it.
    Once,
    /// Everything that waits for it: the later operations of an activity.
    All,
}

/// Where a hold stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A person has not decided.
    Pending,
    /// A person agreed; nobody has used it yet.
    Granted,
    /// A person agreed, and it was used.
    Consumed,
    /// A person declined.
    Rejected(Reason),
    /// Nobody decided in time.
    Expired,
    /// The run was halted, or the answer it was about is gone.
    Cancelled(Reason),
}

impl State {
    /// The word of the operator API and the journal.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::Consumed => "consumed",
            Self::Rejected(_) => "rejected",
            Self::Expired => "expired",
            Self::Cancelled(_) => "cancelled",
        }
    }
}

/// Where a hold stands, for those who wait for that to change. A channel that
/// does this keeps a third of a kilobyte for each of thousands of holds.
#[derive(Debug)]
pub(super) struct Standing {
    state: Mutex<State>,
    changes: Notify,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::Pending),
            changes: Notify::new(),
        }
    }
}

impl Standing {
    fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    fn replace(&self, to: State) {
        *self.lock() = to;
        self.changes.notify_waiters();
    }

    /// `false`, and nothing changed, if it is not `from`.
    fn replace_if(&self, from: &State, to: State) -> bool {
        let mut state = self.lock();
        if *state != *from {
            return false;
        }
        *state = to;
        drop(state);
        self.changes.notify_waiters();
        true
    }

    /// Ready once it has changed after this was called.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changes.notified()
    }

    /// Until it is no longer pending.
    pub(super) async fn decided(&self) {
        loop {
            let changed = self.changed();
            if self.with(|state| *state != State::Pending) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer set aside until a person decides about it.
pub type Parked = Box<dyn Any + Send>;

/// One thing a person is asked.
pub struct Hold {
    /// What the person is asked under.
    pub id: ApprovalId,
    /// Whether the operation may leave, or its outcome may be handed out.
    pub stage: Stage,
    /// One line about what is asked.
    pub summary: Box<str>,
    /// Why policy wants a person, which policy, and under which conditions the
    /// operation then goes on.
    pub ruling: Arc<Ruling>,
    /// Whose it is; in Core mode also what Core is polled with.
    pub context: Arc<Context>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it expires, for people.
    pub expires_at: Timestamp,
    /// When it expires, for timers.
    pub deadline: Instant,
    /// What a retry is recognised by.
    pub fingerprint: Option<Fingerprint>,
    /// What it is recognised by on the wire, where a hook told of it.
    pub(super) twin: Option<Fingerprint>,
    /// Who decided, once a person has whom the sidecar knows.
    pub(super) decided_by: OnceLock<Arc<str>>,
    /// What the grant covers.
    pub covers: Covers,
    /// Whose later operations wait for it: only with [`Covers::All`].
    pub activity: Option<Arc<Activity>>,
    pub(super) state: Standing,
    /// Asks the poller to look once more, now.
    pub(super) nudge: Notify,
    parked: Mutex<Option<Parked>>,
}

/// What a [`Hold`] is made from.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: ApprovalId,
    pub(super) stage: Stage,
    pub(super) summary: Box<str>,
    pub(super) ruling: Arc<Ruling>,
    pub(super) context: Arc<Context>,
    pub(super) opened_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) deadline: Instant,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) twin: Option<Fingerprint>,
    pub(super) covers: Covers,
    pub(super) activity: Option<Arc<Activity>>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("id", &self.id)
            .field("stage", &self.stage)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Hold {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            id: opening.id,
            stage: opening.stage,
            summary: opening.summary,
            ruling: opening.ruling,
            context: opening.context,
            opened_at: opening.opened_at,
            expires_at: opening.expires_at,
            deadline: opening.deadline,
            fingerprint: opening.fingerprint,
            twin: opening.twin,
            decided_by: OnceLock::new(),
            covers: opening.covers,
            activity: opening.activity,
            state: Standing::default(),
            nudge: Notify::new(),
            parked: Mutex::new(None),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state.with(State::clone)
    }

    /// Uses the grant; `false` if there is none, or somebody else had it.
    fn consume(&self) -> bool {
        let (from, once) = (State::Granted, self.covers == Covers::Once);
        let to = if once {
            State::Consumed
        } else {
            State::Granted
        };
        self.state.replace_if(&from, to)
    }

    /// Sets an answer aside for the retry that comes for it, unless there is
    /// no way any more that it gets it.
    pub(super) fn park(&self, answer: Parked) {
        let mut parked = self.lock();
        // Under the lock: whoever ends the hold empties it afterwards.
        if self
            .state
            .with(|state| matches!(state, State::Pending | State::Granted))
        {
            *parked = Some(answer);
        }
    }

    /// Whether an answer is set aside.
    pub(super) fn has_parked(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes the answer that was set aside.
    pub(super) fn unpark(&self) -> Option<Parked> {
        self.lock().take()
    }

    /// Whether it must be said to expire: it is not decided, or not used. What
    /// covers everything is used by being granted.
    fn is_owed(&self) -> bool {
        let from = match self.covers {
            Covers::Once => EndsFrom::Unused,
            Covers::All => EndsFrom::Pending,
        };
        self.state.with(|state| from.includes(state))
    }

    /// Whether nobody will ask for it any more.
    fn is_over(&self, now: Instant) -> bool {
        let kept = self.state.with(|state| match state {
            State::Expired => EXPIRED_KEPT,
            State::Pending
            | State::Granted
            | State::Consumed
            | State::Rejected(_)
            | State::Cancelled(_) => Duration::ZERO,
        });
        !self.is_owed() && self.deadline <= now && now.duration_since(self.deadline) >= kept
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All holds, by id and by what a retry is recognised by.
#[derive(Debug, Default)]
pub(super) struct Holds {
    table: Mutex<Table>,
    /// Holds that a retry may join, so that looking costs nothing without any.
    joinable: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<ApprovalId, Arc<Hold>>,
    by_fingerprint: HashMap<Fingerprint, Arc<Hold>>,
    /// What hooks told of, by what it is recognised by on the wire.
    by_twin: HashMap<Fingerprint, Arc<Hold>>,
    /// The newest of each activity, by what [`fingerprint::of_subject`] makes
    /// of its ids.
    by_subject: HashMap<Fingerprint, Arc<Hold>>,
    pending: usize,
    /// Approvals that got an id of ours because Core gave theirs twice.
    renamed: u64,
}

/// What [`Holds::end`] starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndsFrom {
    /// Only a hold that nobody has decided.
    Pending,
    /// Also one whose grant nobody has used.
    Unused,
}

impl EndsFrom {
    fn includes(self, state: &State) -> bool {
        match state {
            State::Pending => true,
            State::Granted => self == Self::Unused,
            State::Consumed | State::Rejected(_) | State::Expired | State::Cancelled(_) => false,
        }
    }
}

/// How long an expired hold is kept so that its retry is told.
const EXPIRED_KEPT: Duration = Duration::from_secs(60);

/// How many decided holds are kept so that a second decision can be told apart
/// from an unknown one.
const DECIDED_KEPT_MAX: usize = 10_000;

impl Holds {
    /// Whether any retry could join anything.
    pub(super) fn any_joinable(&self) -> bool {
        self.joinable.load(std::sync::atomic::Ordering::Acquire) > 0
    }

    /// Registers `hold`, or hands back the one that a concurrent twin opened
    /// first. `None` at the bound of `at_most` pending holds.
    ///
    /// An outcome never joins: it has an answer of its own, and a person's word
    /// about a request is none about an answer. No retry finds it while the
    /// fingerprint names another.
    pub(super) fn open(&self, mut hold: Hold, at_most: usize) -> Option<(Arc<Hold>, Opened)> {
        let mut table = self.lock();
        let twin = hold
            .fingerprint
            .and_then(|print| table.by_fingerprint.get(&print))
            .filter(|twin| twin.state.with(|state| EndsFrom::Unused.includes(state)));
        let named = match (hold.stage, twin) {
            (Stage::Started, Some(twin)) => return Some((twin.clone(), Opened::Before)),
            (Stage::Completed, Some(_)) => None,
            (Stage::Started | Stage::Completed, None) => hold.fingerprint,
        };
        if table.pending >= at_most {
            return None;
        }
        // Core knows one approval for all operations of an activity.
        let told = hold.id.0.clone();
        while table.by_id.contains_key(&hold.id) {
            table.renamed = table.renamed.wrapping_add(1);
            hold.id = ApprovalId(format!("{told}.{}", table.renamed).into());
        }
        let hold = Arc::new(hold);
        table.pending = table.pending.saturating_add(1);
        table.by_id.insert(hold.id.clone(), hold.clone());
        if let Some(subject) = fingerprint::of_subject(&hold.context) {
            table.by_subject.insert(subject, hold.clone());
        }
        if let Some(print) = named {
            table.by_fingerprint.insert(print, hold.clone());
        }
        if let Some(twin) = hold.twin {
            table.by_twin.insert(twin, hold.clone());
        }
        self.count(&table);
        Some((hold, Opened::Now))
    }

    pub(super) fn by_fingerprint(&self, print: Fingerprint) -> Option<Arc<Hold>> {
        self.lock().by_fingerprint.get(&print).cloned()
    }

    /// The hold of what a hook told, by what `twin` recognises on the wire.
    pub(super) fn by_twin(&self, twin: Fingerprint) -> Option<Arc<Hold>> {
        self.lock().by_twin.get(&twin).cloned()
    }

    /// The newest hold of the activity that `subject` stands for.
    pub(super) fn by_subject(&self, subject: Fingerprint) -> Option<Arc<Hold>> {
        self.lock().by_subject.get(&subject).cloned()
    }

    pub(super) fn by_id(&self, id: &ApprovalId) -> Option<Arc<Hold>> {
        self.lock().by_id.get(id).cloned()
    }

    /// Every hold still known, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Hold>> {
        let mut all: Vec<_> = self.lock().by_id.values().cloned().collect();
        all.sort_by_key(|hold| hold.opened_at);
        all
    }

    /// Holds a person has not decided.
    pub(super) fn pending(&self) -> usize {
        self.lock().pending
    }

    /// Moves `hold` to `to`, unless it is past `from`; then `false`. `record`
    /// runs before anybody can act on it, and must not come back here.
    pub(super) fn end(
        &self,
        hold: &Hold,
        from: EndsFrom,
        to: State,
        record: impl FnOnce(&State),
    ) -> bool {
        let mut table = self.lock();
        let was = hold.state();
        if !from.includes(&was) {
            return false;
        }
        record(&to);
        let granted = to == State::Granted;
        hold.state.replace(to);
        if was == State::Pending {
            table.pending = table.pending.saturating_sub(1);
        }
        drop(table);
        if !granted {
            drop(hold.unpark());
        }
        true
    }

    /// Uses the grant of `hold`, and makes sure that no retry joins it once it
    /// is used up. `false` if there is none, or somebody else had it.
    pub(super) fn consume(&self, hold: &Hold) -> bool {
        let mut table = self.lock();
        let had = hold.consume();
        if had && hold.covers == Covers::Once {
            table.forget_fingerprint(hold);
            self.count(&table);
        }
        had
    }

    /// Makes sure that no retry joins `hold` any more.
    pub(super) fn forget_fingerprint(&self, hold: &Hold) {
        let mut table = self.lock();
        table.forget_fingerprint(hold);
        self.count(&table);
    }

    /// Whether a retry can find `hold`.
    pub(super) fn is_joinable(&self, hold: &Hold) -> bool {
        self.lock().names(hold)
    }

    /// Forgets what is over.
    pub(super) fn sweep(&self, now: Instant) -> Swept {
        let mut table = self.lock();
        let overdue: Vec<_> = table
            .by_id
            .values()
            .filter(|hold| hold.deadline <= now && hold.is_owed())
            .cloned()
            .collect();
        let known = table.by_id.len();
        let mut rejected = Vec::new();
        let mut forget = |hold: &Hold| {
            if hold.state.with(|state| matches!(state, State::Rejected(_))) {
                rejected.push(hold.id.clone());
            }
        };
        table.by_id.retain(|_, hold| {
            let over = hold.is_over(now);
            if over {
                forget(hold);
            }
            !over
        });
        let decided = table.by_id.len().saturating_sub(table.pending);
        if decided > DECIDED_KEPT_MAX {
            // Unused grants are kept: a person's word outlives the list.
            table.by_id.retain(|_, hold| {
                let unused = hold.state.with(|state| EndsFrom::Unused.includes(state));
                if !unused {
                    forget(hold);
                }
                unused
            });
        }
        if table.by_id.len() < known {
            let Table {
                by_id,
                by_fingerprint,
                by_twin,
                by_subject,
                ..
            } = &mut *table;
            by_twin.retain(|_, hold| by_id.contains_key(&hold.id));
            by_fingerprint.retain(|_, hold| by_id.contains_key(&hold.id));
            by_subject.retain(|_, hold| by_id.contains_key(&hold.id));
        }
        self.count(&table);
        Swept { overdue, rejected }
    }

    fn count(&self, table: &Table) {
        self.joinable.store(
            table.by_fingerprint.len(),
            std::sync::atomic::Ordering::Release,
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn names(&self, hold: &Hold) -> bool {
        let named = hold
            .fingerprint
            .and_then(|print| self.by_fingerprint.get(&print));
        named.is_some_and(|known| known.id == hold.id)
    }

    fn forget_fingerprint(&mut self, hold: &Hold) {
        if let Some(twin) = &hold.twin
            && self
                .by_twin
                .get(twin)
                .is_some_and(|known| known.id == hold.id)
        {
            self.by_twin.remove(twin);
        }
        if self.names(hold)
            && let Some(print) = &hold.fingerprint
        {
            self.by_fingerprint.remove(print);
        }
    }
}

/// What [`Holds::sweep`] found.
#[derive(Debug)]
pub(super) struct Swept {
    /// Past its deadline, and not decided, or not used.
    pub(super) overdue: Vec<Arc<Hold>>,
    /// Rejected, and forgotten.
    pub(super) rejected: Vec<ApprovalId>,
}

/// Whether a hold is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// By this call.
    Now,
    /// By an identical operation before.
    Before,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ActivityRef, JsonText, Verdict};

    fn opening(id: &str, print: Option<u8>, deadline: Instant) -> Opening {
        Opening {
            id: ApprovalId(id.into()),
            stage: Stage::Started,
            summary: "POST http://x/".into(),
            ruling: Arc::new(Ruling::new(Verdict::RequireApproval, 0)),
            context: Arc::new(Context {
                workflow_id: "w".into(),
                run_id: "r".into(),
                workflow_type: "t".into(),
                task_queue: "q".into(),
                activity: Some(ActivityRef {
                    id: "a".into(),
                    kind: "k".into(),
                    attempt: 1,
                    input: JsonText::empty_array(),
                }),
            }),
            opened_at: Timestamp(0),
            expires_at: Timestamp(0),
            deadline,
            fingerprint: print.map(|byte| Fingerprint([byte; 16])),
            twin: None,
            covers: Covers::Once,
            activity: None,
        }
    }

    fn hold(id: &str, print: Option<u8>, deadline: Instant) -> Hold {
        Hold::new(opening(id, print, deadline))
    }

    fn end(holds: &Holds, hold: &Hold, to: State) -> bool {
        holds.end(hold, EndsFrom::Pending, to, |_| ())
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_used_once_and_no_retry_joins_it_afterwards() {
        let holds = Holds::default();
        let (hold, _) = holds.open(hold("a", Some(1), later()), 9).unwrap();
        assert!(!holds.consume(&hold));
        let mut written = None;
        assert!(holds.end(&hold, EndsFrom::Pending, State::Granted, |to| {
            assert_eq!(hold.state(), State::Pending, "written before it is seen");
            written = Some(to.clone());
        }));
        assert_eq!(written, Some(State::Granted));
        assert!(!end(&holds, &hold, State::Rejected(Reason::from("late"))));
        assert!(holds.is_joinable(&hold));
        assert!(holds.consume(&hold));
        assert!(!holds.any_joinable());
        assert!(!holds.consume(&hold));
        assert_eq!((hold.state(), holds.pending()), (State::Consumed, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_join_one_hold_and_the_bound_counts_pending_ones() {
        let holds = Holds::default();
        let (first, opened) = holds.open(hold("a", Some(1), later()), 1).unwrap();
        assert_eq!(opened, Opened::Now);
        let (second, opened) = holds.open(hold("b", Some(1), later()), 1).unwrap();
        assert_eq!((opened, &second.id), (Opened::Before, &first.id));
        assert!(holds.open(hold("c", Some(2), later()), 1).is_none());
        assert!(end(&holds, &first, State::Granted));
        assert!(holds.open(hold("c", Some(2), later()), 1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outcome_never_joins_and_is_found_only_under_a_free_name() {
        let holds = Holds::default();
        let outcome = |id: &str| {
            Hold::new(Opening {
                stage: Stage::Completed,
                ..opening(id, Some(1), later())
            })
        };
        let (request, _) = holds.open(hold("a", Some(1), later()), 9).unwrap();
        let (first, opened) = holds.open(outcome("b"), 9).unwrap();
        assert_eq!((opened, &*first.id.0), (Opened::Now, "b"));
        assert!(!holds.is_joinable(&first));
        holds.forget_fingerprint(&first);
        assert!(holds.is_joinable(&request), "its name is not taken away");
        holds.forget_fingerprint(&request);
        let (second, _) = holds.open(outcome("c"), 9).unwrap();
        assert!(holds.is_joinable(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_given_twice_names_two_holds() {
        let holds = Holds::default();
        let (first, _) = holds.open(hold("core", Some(1), later()), 9).unwrap();
        let (second, _) = holds.open(hold("core", Some(2), later()), 9).unwrap();
        let (third, _) = holds.open(hold("core", Some(3), later()), 9).unwrap();
        assert_eq!(holds.all().len(), 3);
        for hold in [first, second, third] {
            assert!(Arc::ptr_eq(&holds.by_id(&hold.id).unwrap(), &hold));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_hold_is_kept_for_its_retry_and_then_forgotten() {
        let holds = Holds::default();
        let (held, _) = holds.open(hold("a", Some(1), later()), 9).unwrap();
        let subject = fingerprint::of_subject(&held.context).unwrap();
        assert!(holds.by_subject(subject).is_some());
        assert!(holds.sweep(Instant::now()).overdue.is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(holds.sweep(Instant::now()).overdue.len(), 1);
        assert!(end(&holds, &held, State::Expired));
        assert!(holds.sweep(Instant::now()).overdue.is_empty());
        assert!(holds.any_joinable());
        tokio::time::advance(EXPIRED_KEPT).await;
        assert!(holds.sweep(Instant::now()).overdue.is_empty());
        assert!(!holds.any_joinable());
        assert!(holds.by_id(&held.id).is_none());
        assert!(holds.by_subject(subject).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_is_used_is_not_found_on_the_wire_any_more() {
        let holds = Holds::default();
        let twin = Fingerprint([9; 16]);
        let told = Hold::new(Opening {
            twin: Some(twin),
            ..opening("a", Some(1), later())
        });
        let (hold, _) = holds.open(told, 9).unwrap();
        assert!(end(&holds, &hold, State::Granted));
        assert_eq!(holds.by_twin(twin).unwrap().id, hold.id);
        assert!(holds.consume(&hold));
        assert!(holds.by_twin(twin).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_hold_of_an_activity_is_found_by_its_ids() {
        let holds = Holds::default();
        let (first, _) = holds.open(hold("a", Some(1), later()), 9).unwrap();
        let (second, _) = holds.open(hold("b", Some(2), later()), 9).unwrap();
        let subject = fingerprint::of_subject(&first.context).unwrap();
        assert_eq!(holds.by_subject(subject).unwrap().id, second.id);
    }

    #[tokio::test(start_paused = true)]
    async fn decided_holds_are_bounded_and_leave_no_name_behind() {
        let holds = Holds::default();
        let long = Instant::now() + Duration::from_secs(3600);
        let no = State::Rejected(Reason::from("no"));
        for n in 0..=DECIDED_KEPT_MAX {
            let mut opening = opening(&n.to_string(), None, long);
            let mut print = [0; 16];
            print[..8].copy_from_slice(&n.to_be_bytes());
            opening.fingerprint = Some(Fingerprint(print));
            let (hold, _) = holds.open(Hold::new(opening), 9).unwrap();
            assert!(end(&holds, &hold, no.clone()));
        }
        let (granted, _) = holds.open(hold("granted", None, long), 9).unwrap();
        assert!(end(&holds, &granted, State::Granted));
        assert!(holds.sweep(Instant::now()).overdue.is_empty());
        let kept: Vec<_> = holds.all().iter().map(|h| h.id.0.to_string()).collect();
        assert_eq!(kept, ["granted"]);
        assert!(!holds.any_joinable());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_set_aside_only_while_somebody_may_get_it() {
        let no = || State::Rejected(Reason::from("no"));
        for ends_first in [true, false] {
            let holds = Holds::default();
            let (hold, _) = holds.open(hold("a", Some(1), later()), 9).unwrap();
            if ends_first {
                assert!(end(&holds, &hold, no()));
                hold.park(Box::new("answer"));
            } else {
                hold.park(Box::new("answer"));
                assert!(hold.has_parked());
                assert!(end(&holds, &hold, no()));
            }
            assert!(!hold.has_parked(), "ends first: {ends_first}");
        }
    }
}
