//! Waiting for a person: what is held, who may decide it, and what becomes of
//! the decision. Without a clock or a socket of its own.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::domain::{ApprovalId, Context, Fingerprint, Reason, Stage, Timestamp};

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
    /// Why policy wants a person.
    pub reason: Option<Reason>,
    /// Which policy wants a person.
    pub policy: Option<Arc<str>>,
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
    /// The policy generation that asked.
    pub generation: u64,
    /// What the grant covers.
    pub covers: Covers,
    pub(super) state: watch::Sender<State>,
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
    pub(super) reason: Option<Reason>,
    pub(super) policy: Option<Arc<str>>,
    pub(super) context: Arc<Context>,
    pub(super) opened_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) deadline: Instant,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) generation: u64,
    pub(super) covers: Covers,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("id", &self.id)
            .field("stage", &self.stage)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Hold {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            id: opening.id,
            stage: opening.stage,
            summary: opening.summary,
            reason: opening.reason,
            policy: opening.policy,
            context: opening.context,
            opened_at: opening.opened_at,
            expires_at: opening.expires_at,
            deadline: opening.deadline,
            fingerprint: opening.fingerprint,
            generation: opening.generation,
            covers: opening.covers,
            state: watch::Sender::new(State::Pending),
            nudge: Notify::new(),
            parked: Mutex::new(None),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Moves from pending to `to`; `false` if it was decided before.
    pub(super) fn resolve(&self, to: State) -> bool {
        self.state.send_if_modified(|state| {
            let open = *state == State::Pending;
            if open {
                *state = to;
            }
            open
        })
    }

    /// Uses the grant; `false` if there is none, or somebody else had it.
    pub(super) fn consume(&self) -> bool {
        let mut had = false;
        self.state.send_if_modified(|state| {
            had = *state == State::Granted;
            let used = had && self.covers == Covers::Once;
            if used {
                *state = State::Consumed;
            }
            used
        });
        had
    }

    /// Sets an answer aside for the retry that comes for it.
    pub(super) fn park(&self, answer: Parked) {
        *self.lock() = Some(answer);
    }

    /// Whether an answer is set aside.
    pub(super) fn has_parked(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes the answer that was set aside.
    pub(super) fn unpark(&self) -> Option<Parked> {
        self.lock().take()
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
    pending: usize,
}

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
    pub(super) fn open(&self, hold: Hold, at_most: usize) -> Option<(Arc<Hold>, Opened)> {
        let mut table = self.lock();
        if let Some(print) = hold.fingerprint
            && let Some(twin) = table.by_fingerprint.get(&print)
            && matches!(twin.state(), State::Pending | State::Granted)
        {
            return Some((twin.clone(), Opened::Before));
        }
        if table.pending >= at_most {
            return None;
        }
        let hold = Arc::new(hold);
        table.pending = table.pending.saturating_add(1);
        table.by_id.insert(hold.id.clone(), hold.clone());
        if let Some(print) = hold.fingerprint {
            table.by_fingerprint.insert(print, hold.clone());
        }
        self.count(&table);
        Some((hold, Opened::Now))
    }

    pub(super) fn by_fingerprint(&self, print: Fingerprint) -> Option<Arc<Hold>> {
        self.lock().by_fingerprint.get(&print).cloned()
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

    /// Moves `hold` to `to` if it is pending. `false` if it was decided before.
    pub(super) fn resolve(&self, hold: &Hold, to: State) -> bool {
        let mut table = self.lock();
        let first = hold.resolve(to);
        if first {
            table.pending = table.pending.saturating_sub(1);
        }
        first
    }

    /// Makes sure that no retry joins `hold` any more.
    pub(super) fn forget_fingerprint(&self, hold: &Hold) {
        let mut table = self.lock();
        if let Some(print) = hold.fingerprint
            && table
                .by_fingerprint
                .get(&print)
                .is_some_and(|known| known.id == hold.id)
        {
            table.by_fingerprint.remove(&print);
        }
        self.count(&table);
    }

    /// Takes what is past its deadline out of reach and returns what expired
    /// by it.
    pub(super) fn sweep(&self, now: Instant) -> Vec<Arc<Hold>> {
        let mut table = self.lock();
        let over: Vec<_> = table
            .by_id
            .values()
            .filter(|h| h.deadline <= now)
            .cloned()
            .collect();
        let mut expired = Vec::new();
        for hold in over {
            if hold.resolve(State::Expired) {
                table.pending = table.pending.saturating_sub(1);
                expired.push(hold);
                // Its retry is told once that it expired; the next sweep forgets it.
                continue;
            }
            table.by_id.remove(&hold.id);
            if let Some(print) = hold.fingerprint
                && table
                    .by_fingerprint
                    .get(&print)
                    .is_some_and(|known| known.id == hold.id)
            {
                table.by_fingerprint.remove(&print);
            }
        }
        let decided = table.by_id.len().saturating_sub(table.pending);
        if decided > DECIDED_KEPT_MAX {
            // Unused grants are kept: a person's word outlives the list.
            table
                .by_id
                .retain(|_, hold| matches!(hold.state(), State::Pending | State::Granted));
        }
        self.count(&table);
        expired
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
    use std::time::Duration;

    use super::*;

    fn hold(id: &str, print: Option<u8>, deadline: Instant) -> Hold {
        Hold::new(Opening {
            id: ApprovalId(id.into()),
            stage: Stage::Started,
            summary: "POST http://x/".into(),
            reason: None,
            policy: None,
            context: Arc::new(Context {
                workflow_id: "w".into(),
                run_id: "r".into(),
                workflow_type: "t".into(),
                task_queue: "q".into(),
                activity: None,
            }),
            opened_at: Timestamp(0),
            expires_at: Timestamp(0),
            deadline,
            fingerprint: print.map(|byte| Fingerprint([byte; 16])),
            generation: 0,
            covers: Covers::Once,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_used_once() {
        let hold = hold("a", None, Instant::now());
        assert!(!hold.consume());
        assert!(hold.resolve(State::Granted));
        assert!(!hold.resolve(State::Rejected(Reason::from("too late"))));
        assert!(hold.consume());
        assert!(!hold.consume());
        assert_eq!(hold.state(), State::Consumed);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_join_one_hold_and_the_bound_counts_pending_ones() {
        let holds = Holds::default();
        let later = Instant::now() + Duration::from_secs(1);
        let (first, opened) = holds.open(hold("a", Some(1), later), 1).unwrap();
        assert_eq!(opened, Opened::Now);
        let (second, opened) = holds.open(hold("b", Some(1), later), 1).unwrap();
        assert_eq!((opened, &second.id), (Opened::Before, &first.id));
        assert!(holds.open(hold("c", Some(2), later), 1).is_none());
        assert!(holds.resolve(&first, State::Granted));
        assert!(holds.open(hold("c", Some(2), later), 1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_is_told_once_and_then_forgotten() {
        let holds = Holds::default();
        let deadline = Instant::now() + Duration::from_secs(1);
        let (held, _) = holds.open(hold("a", Some(1), deadline), 9).unwrap();
        assert!(holds.sweep(Instant::now()).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(holds.sweep(Instant::now()).len(), 1);
        assert_eq!((held.state(), holds.pending()), (State::Expired, 0));
        assert!(holds.any_joinable());
        assert!(holds.sweep(Instant::now()).is_empty());
        assert!(!holds.any_joinable());
        assert!(holds.by_id(&held.id).is_none());
    }
}
