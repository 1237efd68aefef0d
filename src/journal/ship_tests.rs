//! What is told later: all of it, in order, at a rate, and over a restart.

use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::domain::{
    Action, ActivityRef, Attribution, Completion, Context, Event, EventKind, FunctionCall,
    JsonText, Operation, OperationId, Outcome, Reason, SpanId, Timestamp, TraceId, Verdict,
};
use crate::journal::record::Decided;
use crate::journal::{Record, Settings, segment};
use crate::policy::{ApprovalState, ApprovalsAt, Judging, Later, Question, Ruling, Untold};
use crate::process::{drain, spawn_named};

/// A Core that is away until a time.
#[derive(Debug)]
struct Away {
    until: Instant,
    heard: Mutex<Vec<(String, Instant)>>,
    says: Option<Verdict>,
}

impl Away {
    fn until(until: Instant) -> Arc<Self> {
        Arc::new(Self::saying(until, None))
    }

    fn saying(until: Instant, says: Option<Verdict>) -> Self {
        Self {
            until,
            heard: Mutex::default(),
            says,
        }
    }

    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|(key, _)| key.clone()).collect()
    }
}

impl PolicyBackend for Away {
    fn judge<'a>(&'a self, _: Question<'a>) -> Judging<'a> {
        Judging::Now(Err(PolicyError::Unavailable(Reason::from("away"))))
    }

    fn approvals_at(&self) -> ApprovalsAt {
        ApprovalsAt::Core
    }

    fn approval<'a>(&'a self, _: &'a Context) -> Later<'a, Result<ApprovalState, PolicyError>> {
        Box::pin(std::future::ready(Err(PolicyError::Unavailable(
            Reason::from("away"),
        ))))
    }

    fn generation(&self) -> u64 {
        0
    }

    fn describe(&self) -> String {
        "away".to_owned()
    }

    fn tell<'a>(&'a self, untold: &'a Untold) -> Later<'a, Result<Option<Ruling>, PolicyError>> {
        let now = Instant::now();
        Box::pin(async move {
            if now < self.until {
                return Err(PolicyError::Unavailable(Reason::from("away")));
            }
            let mut heard = self.heard.lock().unwrap();
            heard.push((untold.key.to_string(), now));
            Ok(self.says.map(|verdict| Ruling::new(verdict, 0)))
        })
    }
}

fn settings(folder: &Path) -> Settings {
    Settings {
        segment_bytes: 8_000,
        keep_bytes: 1,
        ..Settings::new(folder)
    }
}

/// Writes an event of `activity` that Core was not told of.
fn leave(journal: &Journal, activity: u32, number: u32) {
    let untold = Untold {
        key: format!("{activity}-{number}").into(),
        text: "{\"a\":\"b\"}".into(),
    };
    let event = Event {
        id: OperationId::new(1, u128::from(number)),
        kind: EventKind::ActivityCompleted,
        at: Timestamp(1),
        context: context(activity),
        fields: Vec::new(),
    };
    let record = Record::Event {
        at: clock::now(),
        event: &event,
        decided: decided(Some(&untold)),
    };
    journal.append(&record).unwrap();
}

fn context(activity: u32) -> Arc<Context> {
    Arc::new(Context {
        workflow_id: "w".into(),
        run_id: "r".into(),
        workflow_type: "t".into(),
        task_queue: "q".into(),
        activity: Some(ActivityRef {
            id: activity.to_string().into(),
            kind: "k".into(),
            attempt: 1,
            input: JsonText::empty_array(),
        }),
    })
}

fn decided(untold: Option<&Untold>) -> Decided<'_> {
    Decided {
        decision: "allow",
        ruling: None,
        reason: None,
        by_fail_mode: untold.is_some(),
        approval: None,
        decided_by: None,
        untold,
        policy_took: Duration::ZERO,
        held_for: Duration::ZERO,
        joined: None,
    }
}

/// Writes that Core is being asked how `number` of `activity` ended.
fn asking(journal: &Journal, activity: u32, number: u32) {
    let untold = Untold {
        key: format!("{activity}-{number}").into(),
        text: "{}".into(),
    };
    let record = Record::Asking {
        at: clock::now(),
        operation: &operation(activity, number),
        untold: &untold,
    };
    journal.append(&record).unwrap();
}

/// Writes that Core has answered how it ended.
fn answered(journal: &Journal, activity: u32, number: u32) {
    let record = Record::Completion {
        series: None,
        operation: &operation(activity, number),
        admitted_at: Timestamp(1),
        completion: &Completion {
            ended_at: Timestamp(2),
            outcome: Outcome::Answered,
            answer: None,
            error: None,
        },
        decided: decided(None),
    };
    journal.append(&record).unwrap();
}

fn operation(activity: u32, number: u32) -> Operation {
    Operation {
        id: OperationId::new(1, u128::from(number)),
        trace: TraceId(1),
        span: SpanId(1),
        parent: None,
        started_at: Timestamp(1),
        context: context(activity),
        attribution: Attribution::OwnSession,
        fingerprint: None,
        action: Action::Function(FunctionCall {
            function: "f".into(),
            module: None,
            arguments: None,
        }),
        reported: None,
    }
}

fn shipper(journal: &Arc<Journal>, core: &Arc<Away>) -> Shipper {
    let metrics = Arc::new(Metrics::new().unwrap());
    Shipper::new(
        journal.clone(),
        core.clone(),
        metrics,
        Box::new(Heeded::default()),
    )
    .unwrap()
}

/// Notes what it should act on.
#[derive(Clone, Debug, Default)]
struct Heeded(Arc<Mutex<Vec<String>>>);

impl Heeds for Heeded {
    fn heed(&self, late: &Late<'_>) {
        let Late {
            workflow_id,
            run_id,
            activity_id,
            ruling,
        } = late;
        let noted = format!(
            "{workflow_id}/{run_id}/{activity_id:?} {:?}",
            ruling.verdict
        );
        self.0.lock().unwrap().push(noted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_policy_says_so_late_is_acted_on() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&settings(folder.path())).unwrap();
    leave(&journal, 3, 0);
    let core = Arc::new(Away::saying(Instant::now(), Some(Verdict::Halt)));
    let heeded = Heeded::default();
    let metrics = Arc::new(Metrics::new().unwrap());
    let heeds = Box::new(heeded.clone());
    let shipper = Shipper::new(journal.clone(), core, metrics, heeds).unwrap();
    let (end, drain) = drain::channel();
    end.begin();
    shipper.run(drain).await;
    let heard = heeded.0.lock().unwrap().clone();
    assert_eq!(heard, ["w/r/Some(\"3\") Halt"]);
}

/// Each activity's keys come in the order they were left in.
fn assert_in_order(heard: &[String]) {
    let mut last: HashMap<&str, u32> = HashMap::new();
    for key in heard {
        let (activity, number) = key.split_once('-').unwrap();
        let number = number.parse().unwrap();
        if let Some(before) = last.insert(activity, number) {
            assert!(before < number, "{key} after {before}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_hours_without_core_all_is_told_in_order_at_the_stated_rate() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&settings(folder.path())).unwrap();
    let hours = Duration::from_secs(3 * 3_600);
    let core = Away::until(Instant::now() + hours);
    let (end, drain) = drain::channel();
    let shipping = spawn_named("shipper", shipper(&journal, &core).run(drain));
    const REPORTS: u32 = 2_000;
    for number in 0..REPORTS {
        leave(&journal, number % 7, number);
    }
    tokio::time::sleep(hours + PAUSES.1).await;
    let enough = SPACING * REPORTS + Duration::from_secs(5);
    tokio::time::sleep(enough).await;
    assert_eq!(core.heard().len(), 2_000);
    assert_in_order(&core.heard());
    let times = core.heard.lock().unwrap().clone();
    let took = times[1_999].1 - times[0].1;
    let least = SPACING * (REPORTS - 1);
    assert!(took >= least, "{took:?} is a stampede");
    end.begin();
    shipping.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_last_was_and_nothing_untold_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Journal::open(&settings(folder.path())).unwrap();
    let away = Away::until(Instant::now() + Duration::from_secs(1 << 30));
    for round in 0..3 {
        let journal = open();
        let shipper = shipper(&journal, &away);
        for number in 0..50 {
            leave(&journal, number % 3, round * 50 + number);
        }
        let (end, drain) = drain::channel();
        end.begin();
        // It ends, though Core is away: the next start tells the rest.
        shipper.run(drain).await;
        journal.tail.retain();
    }
    let journal = open();
    assert!(segment_count(folder.path()) > 3);
    let back = Away::until(Instant::now());
    let (end, drain) = drain::channel();
    end.begin();
    shipper(&journal, &back).run(drain).await;
    assert_eq!(back.heard().len(), 150);
    assert_in_order(&back.heard());
    // Told and kept: now the segments may go, and nothing is told twice.
    journal.tail.retain();
    assert_eq!(segment_count(folder.path()), 0);
    let (end, drain) = drain::channel();
    end.begin();
    shipper(&journal, &back).run(drain).await;
    assert_eq!(back.heard().len(), 150);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_lost_up_to_where_core_was_told_all_is_told_again() {
    for left in ["", "{\"segment\":", "\0\0\0\0"] {
        let folder = tempfile::tempdir().unwrap();
        let core = Away::until(Instant::now());
        // Nothing may be deleted before it is known to have been told.
        for (round, keep_bytes) in [(1, u64::MAX), (2, 1)] {
            let settings = Settings {
                keep_bytes,
                ..settings(folder.path())
            };
            let journal = Journal::open(&settings).unwrap();
            journal.tail.retain();
            if round == 1 {
                (0..50).for_each(|number| leave(&journal, number % 3, number));
            }
            let (end, drain) = drain::channel();
            end.begin();
            shipper(&journal, &core).run(drain).await;
            assert_eq!(core.heard().len(), 50 * round, "{left:?}");
            std::fs::write(folder.path().join("journal.told"), left).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_being_asked_about_at_a_death_is_told_in_its_turn_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Journal::open(&settings(folder.path())).unwrap();
    let journal = open();
    asking(&journal, 1, 0);
    answered(&journal, 1, 0);
    asking(&journal, 1, 1);
    // The owner went away while it was asking: said again.
    asking(&journal, 1, 1);
    leave(&journal, 1, 2);
    asking(&journal, 2, 3);
    drop(journal);

    let journal = open();
    let core = Away::until(Instant::now());
    let (end, drain) = drain::channel();
    let shipping = spawn_named("shipper", shipper(&journal, &core).run(drain));
    // What this process asks about it hears of itself.
    asking(&journal, 2, 4);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut heard = core.heard();
    assert_in_order(&heard);
    heard.sort_unstable();
    assert_eq!(heard, ["1-1", "1-2", "2-3"]);
    // And what follows in the activity waits for that.
    leave(&journal, 2, 5);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(core.heard().len(), 3);
    answered(&journal, 2, 4);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(core.heard().last().unwrap(), "2-5");
    asking(&journal, 2, 6);
    end.begin();
    shipping.await.unwrap();
    drop(journal);

    // Nothing again but what was still being asked about.
    let journal = open();
    let (end, drain) = drain::channel();
    end.begin();
    shipper(&journal, &core).run(drain).await;
    assert_eq!(core.heard()[4..], ["2-6"]);
}

fn segment_count(folder: &Path) -> usize {
    segment::closed(folder).unwrap().len()
}
