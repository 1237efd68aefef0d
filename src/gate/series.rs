//! The same execution over and over on one connection, recorded together.
//!
//! An agent that runs one statement ten thousand times writes ten thousand times the
//! same two records. Where policy is proved to answer the same each time
//! ([`crate::policy::PolicyBackend::is_steady`]), those that follow [`Repeats`] in a row
//! are counted, and a record says how many there were, from when to when, and what came
//! of them. It also says how many more may follow, and within what time: that is written
//! before they are let go, so a journal that ends there never says less than was let go.
//! What is not answered without an error has a record of its own, as ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::domain::{
    Action, Answer, Completion, Operation, OperationId, Outcome, Stage, Timestamp, Verdict,
};
use crate::journal::{Counted, Record};
use crate::metrics::Decided;
use crate::policy::{Question, Ruling};
use crate::process::clock;
use crate::session::Session;

use super::admit::{Trail, refused_already, waits};
use super::outcome::Whereabouts;
use super::permit::{Admitted, Permit};
use super::{Govern, Inner, Unanswered};

/// Most executions that are let go on one record.
const MORE_MAX: u32 = 1_000;

/// How long they may be let go on it.
const MORE_WITHIN: Duration = Duration::from_secs(1);

/// What a connection did last, how often in a row, and its series once that is often.
///
/// `K` is what makes two executions the same: everything that policy is shown of them.
#[derive(Debug)]
pub struct Repeats<K> {
    last: Option<K>,
    times: u32,
    series: Option<Series>,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self {
            last: None,
            times: 0,
            series: None,
        }
    }
}

impl<K> Repeats<K> {
    /// A permit for one more of the series, where what is asked about `is_like` the last and
    /// nothing has changed since that was judged. `None`: it has to be admitted by itself.
    ///
    /// `digest` is that of the execution (see [`crate::domain::DatabaseCall::statement`]). Blocks,
    /// once for [`MORE_MAX`] executions, for as long as the journal's durability asks.
    pub fn again(
        &mut self,
        is_like: impl FnOnce(&K) -> bool,
        session: &Session,
        digest: Option<&[u8; 32]>,
        at: Timestamp,
    ) -> Option<Permit> {
        let series = self.series.as_ref()?;
        if !self.last.as_ref().is_some_and(is_like) {
            return None;
        }
        let permit = series.again(session, digest?, at);
        if permit.is_none() {
            self.series = None;
        }
        permit
    }

    /// `like` was admitted by itself, by `permit`.
    pub fn admitted(&mut self, like: K, is_like: impl FnOnce(&K, &K) -> bool, permit: &Permit) {
        if !self.last.as_ref().is_some_and(|last| is_like(last, &like)) {
            (self.last, self.times) = (Some(like), 0);
            self.series = None;
        }
        self.times = self.times.saturating_add(1);
        if self.series.is_none() {
            self.series = Series::of(permit, self.times);
        }
    }
}

/// Executions that one record tells of. Dropped, it is over, and recorded once the last of
/// them has ended.
#[derive(Debug)]
struct Series(Arc<Shared>);

/// What all of a series have in common.
#[derive(Debug)]
pub(super) struct Shared {
    gate: Arc<Inner>,
    /// The last that was admitted by itself.
    like: Operation,
    session: Session,
    ruling: Arc<Ruling>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many more may go on the last record, and until when.
    left: u32,
    until: Instant,
    /// Since the last record.
    counted: Counted,
    digests: Sha256,
    /// The rows of an outcome that policy lets stand.
    stands: Option<Option<u64>>,
}

/// The series of a gate, so that what they counted is recorded though nothing follows.
#[derive(Debug, Default)]
pub(super) struct AllSeries(Mutex<Vec<Weak<Shared>>>);

impl AllSeries {
    fn add(&self, series: &Arc<Shared>) {
        let weak = Arc::downgrade(series);
        self.lock().push(weak);
    }

    /// Records what was counted and has not been for [`MORE_WITHIN`].
    pub(super) fn sweep(&self, now: Instant) {
        let mut all = std::mem::take(&mut *self.lock());
        all.retain(|weak| {
            let series = weak.upgrade();
            series.map(|series| series.recorded_by(now)).is_some()
        });
        self.lock().append(&mut all);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    /// A series of what `permit` admits, which was admitted `times` in a row.
    fn of(permit: &Permit, times: u32) -> Option<Self> {
        let admitted = permit.admitted.as_deref()?;
        let gate = &admitted.gate;
        let after = gate.parts.settings.count_after?;
        let ruling = admitted.ruling.as_ref()?;
        let plain = admitted.plain && lets_pass(ruling);
        let is_steady = || {
            gate.parts.backend.is_steady(ruling.generation)
                && gate.stands(&admitted.session, ruling)
        };
        if times < after.get() || !plain || !is_steady() {
            return None;
        }
        let shared = Arc::new(Shared {
            gate: gate.clone(),
            like: (*admitted.operation).clone(),
            session: admitted.session.clone(),
            ruling: ruling.clone(),
            state: Mutex::new(State {
                left: 0,
                until: Instant::now(),
                counted: Counted::default(),
                digests: Sha256::new(),
                stands: None,
            }),
        });
        gate.series.add(&shared);
        Some(Self(shared))
    }

    fn again(&self, session: &Session, digest: &[u8; 32], at: Timestamp) -> Option<Permit> {
        let shared = &self.0;
        if !session.is(&shared.session) || !shared.gate.stands(session, &shared.ruling) {
            return None;
        }
        let mut state = shared.state();
        if state.left == 0 || Instant::now() >= state.until {
            shared.lets_more_go(&mut state, at)?;
        }
        // Looked at behind the record, as ever: a halt may have come meanwhile.
        if refused_already(session).is_some() {
            return None;
        }
        state.left = state.left.saturating_sub(1);
        state.counted.admitted(at);
        state.digests.update(digest);
        drop(state);
        let metrics = &shared.gate.parts.metrics;
        metrics.attributed(session.attribution);
        shared.count(Stage::Started);
        Some(Permit::again(Again {
            shared: shared.clone(),
            id: clock::operation_id(at),
            digest: *digest,
            at,
        }))
    }
}

impl Inner {
    /// Whether `ruling`, by a policy that is steady, is what would be said in `session` now.
    fn stands(&self, session: &Session, ruling: &Ruling) -> bool {
        let by_hooks = match self.parts.settings.govern {
            Govern::Both => self.joins.any(),
            Govern::Boundary => false,
            Govern::Hooks => true,
        };
        !by_hooks
            && !self.holds.any_joinable()
            && !waits(session)
            && self.parts.backend.generation() == ruling.generation
    }
}

impl Shared {
    /// Records what was counted, and that more may follow. `None`: the journal takes nothing.
    fn lets_more_go(&self, state: &mut State, at: Timestamp) -> Option<()> {
        let told = self.record(state, at, Some((MORE_MAX, MORE_WITHIN)));
        if let Err(error) = told {
            tracing::error!(%error, "the journal takes no decision: what follows is decided one by one");
            return None;
        }
        let now = Instant::now();
        state.left = MORE_MAX;
        state.until = now.checked_add(MORE_WITHIN).unwrap_or(now);
        Some(())
    }

    fn record(
        &self,
        state: &mut State,
        at: Timestamp,
        may_follow: Option<(u32, Duration)>,
    ) -> std::io::Result<()> {
        let trail = Trail {
            ruling: Some(self.ruling.clone()),
            ..Trail::default()
        };
        let record = Record::Series {
            at,
            like: &self.like,
            decided: trail.as_record("allow", None),
            counted: &state.counted,
            digests: state.digests.clone().finalize().into(),
            may_follow,
        };
        let journal = &self.gate.parts.journal;
        match may_follow {
            Some(_) => journal.append(&record)?,
            None => journal.append_soon(&record)?,
        }
        state.counted = Counted::default();
        state.digests = Sha256::new();
        Ok(())
    }

    /// Records what was counted, where that was not done for long; then nothing more may follow.
    fn recorded_by(&self, now: Instant) {
        let mut state = self.state();
        if now >= state.until {
            self.ends(&mut state);
        }
    }

    fn ends(&self, state: &mut State) {
        state.left = 0;
        if state.counted.is_empty() {
            return;
        }
        if let Err(error) = self.record(state, clock::now(), None) {
            tracing::error!(%error, event_id = %self.like.id, "how often an operation was repeated could not be written to the journal");
        }
    }

    /// Whether policy lets an outcome of this series stand.
    fn stands(&self, state: &mut State, rows: Option<u64>, completion: &Completion) -> bool {
        if !self.gate.stands(&self.session, &self.ruling) || self.session.halted().is_some() {
            return false;
        }
        if state.stands == Some(rows) {
            return true;
        }
        let question = Question::Completed(&self.like, completion);
        let judged = self.gate.judge_now(question);
        let stands =
            judged.is_some_and(|judged| judged.answer.is_ok_and(|ruling| lets_pass(&ruling)));
        if stands {
            state.stands = Some(rows);
        }
        stands
    }

    fn count(&self, stage: Stage) {
        let protocol = self.like.protocol();
        self.gate
            .count(protocol, stage, Decided::Allow, &Trail::default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ends(&mut self.state());
    }
}

/// Whether it allows, and asks for nothing besides.
fn lets_pass(ruling: &Ruling) -> bool {
    ruling.verdict == Verdict::Allow && ruling.constraints.is_empty() && ruling.redacted.is_none()
}

/// One of a series, admitted.
#[derive(Debug)]
pub(super) struct Again {
    shared: Arc<Shared>,
    id: OperationId,
    digest: [u8; 32],
    at: Timestamp,
}

impl Again {
    pub(super) fn id(&self) -> OperationId {
        self.id
    }

    pub(super) fn like(&self) -> &Operation {
        &self.shared.like
    }

    pub(super) fn ruling(&self) -> &Ruling {
        &self.shared.ruling
    }

    pub(super) fn session(&self) -> &Session {
        &self.shared.session
    }

    /// Counts how it ended, or lets it have a record of its own.
    pub(super) fn settle(self, completion: Completion) {
        if let Some(completion) = self.counted(completion) {
            self.alone().settle_observed(completion, Whereabouts::Out);
        }
    }

    /// `completion` comes back where it cannot be counted.
    fn counted(&self, completion: Completion) -> Option<Completion> {
        let shared = &self.shared;
        let mut state = shared.state();
        let rows = match &completion.answer {
            Some(Answer::Database(answer))
                if completion.outcome == Outcome::Answered && completion.error.is_none() =>
            {
                Some(answer.rows)
            }
            Some(_) | None => None,
        };
        let stands = rows.filter(|rows| shared.stands(&mut state, *rows, &completion));
        let Some(rows) = stands else {
            state.counted.ended_apart();
            return Some(completion);
        };
        let took = completion.ended_at.since(self.at);
        state.counted.answered(rows, took);
        drop(state);
        shared.count(Stage::Completed);
        None
    }

    /// As if it had been admitted by itself.
    pub(super) fn alone(self) -> Box<Admitted> {
        let Self {
            shared,
            id,
            digest,
            at,
        } = self;
        let mut operation = Box::new(shared.like.clone());
        operation.id = id;
        operation.span = clock::span_id();
        operation.started_at = at;
        if let Action::Database(call) = &mut operation.action {
            call.statement.digest = Some(digest);
        }
        Box::new(Admitted {
            gate: shared.gate.clone(),
            operation,
            session: shared.session.clone(),
            at,
            ruling: Some(shared.ruling.clone()),
            plain: true,
            series: Some(shared.like.id),
            unanswered: Unanswered::AsSet,
        })
    }
}
