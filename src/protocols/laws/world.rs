//! A gate for machines to ask: it answers at once, by what a statement says,
//! and knows what it has admitted and what became of that.

use std::fs::OpenOptions;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use crate::domain::{
    Action, Answer, Completion, Context, Operation, OperationId, Timestamp, Verdict,
};
use crate::gate::{
    Constraints, Decision, FailMode, Gate, Govern, HaltScope, Housekeeping, Parts, Settings, Terms,
    Unasked, Unheld,
};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::policy::{
    ApprovalState, ApprovalsAt, Judging, Later, PolicyBackend, PolicyError, Question, Ruling,
};
use crate::session::{self, Registry, Session};
use crate::state::Store;

/// What is blocked wherever it stands in a statement.
pub(in crate::protocols) const FORBIDDEN: &str = "forbidden";
/// What gets so many rows of each result, wherever it stands in a statement.
pub(in crate::protocols) const CAPPED: &str = "capped";
pub(in crate::protocols) const CAPPED_ROWS: usize = 2;

/// How often a decision is asked for: more than its record takes.
const POLLS_MAX: usize = 1_000;

/// How an admitted operation ended.
#[derive(Clone, Debug)]
pub(in crate::protocols) struct Ended {
    id: OperationId,
    /// Rows that were counted.
    pub(in crate::protocols) rows: Option<u64>,
}

#[derive(Debug, Default)]
struct Account {
    admitted: Vec<OperationId>,
    ended: Vec<Ended>,
}

#[derive(Debug, Default)]
struct Judge(Mutex<Account>);

impl Judge {
    fn account<T>(&self, look: impl FnOnce(&mut Account) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn verdict(operation: &Operation) -> Verdict {
    let Action::Database(call) = &operation.action else {
        return Verdict::Block;
    };
    let text = call.statement.text.as_deref().unwrap_or_default();
    let reading = call.reading.as_ref().map_or("", |reading| &*reading.0);
    match text.contains(FORBIDDEN) || reading.contains(r#""class":"opaque""#) {
        true => Verdict::Block,
        false if text.contains(CAPPED) => Verdict::Constrain,
        false => Verdict::Allow,
    }
}

fn ruling(verdict: Verdict) -> Ruling {
    let mut ruling = Ruling::new(verdict, 0);
    if verdict == Verdict::Constrain {
        ruling.constraints = vec![format!("max_rows:{CAPPED_ROWS}").into()];
    }
    ruling
}

impl PolicyBackend for Judge {
    fn judge<'a>(&'a self, question: Question<'a>) -> Judging<'a> {
        let verdict = match question {
            Question::Started(operation) => {
                let verdict = verdict(operation);
                if verdict != Verdict::Block {
                    self.account(|account| account.admitted.push(operation.id));
                }
                verdict
            }
            Question::Completed(operation, completion) => {
                let ended = Ended {
                    id: operation.id,
                    rows: rows(completion),
                };
                self.account(|account| account.ended.push(ended));
                Verdict::Allow
            }
            Question::Event(_) => Verdict::Allow,
        };
        Judging::Now(Ok(Arc::new(ruling(verdict))))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Sidecar
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        Box::pin(std::future::ready(Ok(ApprovalState::Expired)))
    }

    fn generation(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        "the laws' own".to_owned()
    }
}

fn rows(completion: &Completion) -> Option<u64> {
    match &completion.answer {
        Some(Answer::Database(answer)) => answer.rows,
        Some(Answer::Http(_) | Answer::File(_) | Answer::Function(_)) | None => None,
    }
}

/// A journal that keeps nothing, and leaves nothing behind.
fn nowhere() -> io::Result<Arc<Journal>> {
    let mine = format!(
        "openbox-laws-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let folder = std::env::temp_dir().join(mine);
    std::fs::create_dir_all(&folder)?;
    let file = OpenOptions::new().write(true).open("/dev/null")?;
    let journal = Journal::on(file, &folder);
    std::fs::remove_dir_all(&folder)?;
    journal
}

/// See the module.
#[derive(Debug)]
pub(in crate::protocols) struct World {
    gate: Gate,
    judge: Arc<Judge>,
    _housekeeping: Housekeeping,
}

impl World {
    /// The one of this thread, which has admitted nothing.
    pub(in crate::protocols) fn with<T>(look: impl FnOnce(&Self) -> T) -> T {
        thread_local! {
            // Never dropped: a law that was broken leaves reports behind that
            // could not be made where a thread ends.
            static WORLD: &'static World = Box::leak(Box::new(World::new()));
        }
        WORLD.with(|world| {
            world.judge.account(|account| *account = Account::default());
            look(world)
        })
    }

    fn new() -> Self {
        let judge = Arc::new(Judge::default());
        let name = |name: &str| Arc::<str>::from(name);
        let own = Context {
            workflow_id: name("laws"),
            run_id: name("laws"),
            workflow_type: name("laws"),
            task_queue: name("laws"),
            activity: None,
        };
        let registry = session::Settings {
            own,
            unattributed: session::registry::Unattributed::Session,
            runs_max: 1,
            activities_max: 1,
            contexts_max: 1,
            context_lives: Duration::from_secs(1),
            callers: crate::net::caller::Callers::Unknown,
        };
        let (gate, housekeeping) = Gate::new(Parts {
            backend: judge.clone(),
            journal: nowhere().unwrap(),
            state: Store::nowhere(),
            registry: Arc::new(Registry::new(registry, Timestamp(1))),
            metrics: Arc::new(Metrics::new().unwrap()),
            settings: Settings {
                judge_within: Duration::from_secs(5),
                approval_lives: Duration::from_secs(300),
                holds_max: 1,
                reports_max: 1,
                fail_mode: FailMode::Closed,
                fail_closed_for: [].into(),
                constraints: Constraints::Advisory,
                halt_scope: HaltScope::Run,
                govern: Govern::Both,
                unasked: Unasked::default(),
                unheld: Unheld::default(),
                count_after: None,
            },
        });
        Self {
            gate,
            judge,
            _housekeeping: housekeeping,
        }
    }

    pub(in crate::protocols) fn session(&self) -> Session {
        self.gate.registry().own().clone()
    }

    /// The decision, which is made at once, or once its record is written.
    pub(in crate::protocols) fn admit(&self, operation: Box<Operation>, terms: &Terms) -> Decision {
        let mut admitting = pin!(self.gate.admit(operation, self.session(), terms));
        for _ in 0..POLLS_MAX {
            let mut context = TaskContext::from_waker(Waker::noop());
            if let Poll::Ready(decision) = admitting.as_mut().poll(&mut context) {
                return decision;
            }
        }
        panic!("policy answers at once")
    }

    /// How everything ended that was admitted: each of it once.
    pub(in crate::protocols) fn ended(&self) -> Vec<Ended> {
        self.judge.account(|account| {
            let mut ended: Vec<_> = account.ended.iter().map(|ended| ended.id).collect();
            ended.sort_unstable();
            account.admitted.sort_unstable();
            assert_eq!(ended, account.admitted, "each is completed once");
            std::mem::take(&mut account.ended)
        })
    }
}
