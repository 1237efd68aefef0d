//! What is put is there again, and what cannot be read is said.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::domain::{ActivityRef, ApprovalId, Context, JsonText, Reason, Timestamp};

fn open(folder: &Path) -> Result<(Store, Restored), OpenError> {
    Store::open(folder, Arc::new(Metrics::new().unwrap()))
}

/// What a process would find in `folder`.
fn found(folder: &Path) -> Restored {
    open(folder).unwrap().1
}

fn context(run: &str, activity: Option<&str>) -> Context {
    Context {
        workflow_id: "w".into(),
        run_id: run.into(),
        workflow_type: "t".into(),
        task_queue: "q".into(),
        activity: activity.map(|id| ActivityRef {
            id: id.into(),
            kind: "kind".into(),
            attempt: 3,
            input: JsonText("[{\"a\": 1}]".into()),
        }),
    }
}

fn approval(id: &str) -> KeptApproval {
    KeptApproval {
        id: id.to_owned(),
        state: KeptState::Pending,
        of_outcome: false,
        summary: "POST https://api.example/refunds".to_owned(),
        reason: Some("over the limit".to_owned()),
        policy: None,
        event_id: None,
        constraints: vec!["read_only".to_owned()],
        redacted: None,
        in_core: false,
        workflow_id: "w".to_owned(),
        run_id: "r".to_owned(),
        activity_id: Some("a".to_owned()),
        opened_at: 1,
        expires_at: u64::MAX,
        fingerprint: Some("0123456789abcdef0123456789abcdef".to_owned()),
        twin: Some("fedcba9876543210fedcba9876543210".to_owned()),
        decided_by: None,
    }
}

/// Puts one of everything, and takes back what can be.
fn put_everything(store: &Store) {
    let stop = Reason::from("stop");
    let (kept, used) = (approval("kept"), approval("used"));
    let changes = [
        Change::OwnRun("run-1"),
        Change::RunOpened(&context("r", None), Timestamp(1)),
        Change::ActivityOpened(&context("r", Some("a")), Timestamp(2)),
        Change::ActivityAborted(&context("r", Some("a")), &stop),
        Change::ActivityOpened(&context("r", Some("ended")), Timestamp(3)),
        Change::ActivityClosed(&context("r", Some("ended"))),
        // Named like the one that ends, as far as it goes.
        Change::ActivityOpened(&context("r2", Some("b")), Timestamp(4)),
        Change::ActivityOpened(&context("r\",\"x", Some("c")), Timestamp(5)),
        Change::ActivityOpened(&context("over", Some("d")), Timestamp(6)),
        Change::RunClosed(&context("over", None)),
        Change::Halted(&context("halted", None), &stop),
        Change::Halted(&context("resumed", None), &stop),
        Change::EverythingHalted(&stop),
        Change::Resumed(&context("resumed", None)),
        Change::Approval(&kept),
        Change::Approval(&used),
        Change::ApprovalOver(&ApprovalId("used".into())),
    ];
    for change in &changes {
        store.put(change).unwrap();
    }
}

fn is_everything(restored: &Restored) {
    assert_eq!(restored.own_run.as_deref(), Some("run-1"));
    let mut runs: Vec<_> = restored.runs.iter().map(|(c, _)| &*c.run_id).collect();
    runs.sort_unstable();
    assert_eq!(runs, ["r", "r\",\"x", "r2"]);
    let first = &restored
        .activities
        .iter()
        .find(|a| &*a.context.run_id == "r");
    let first = first.unwrap();
    assert_eq!(*first.context, context("r", Some("a")));
    assert_eq!(first.opened_at, Timestamp(2));
    assert_eq!(first.aborted, Some(Reason::from("stop")));
    let mut activities: Vec<_> = restored
        .activities
        .iter()
        .map(|a| &*a.context.activity.as_ref().unwrap().id)
        .collect();
    activities.sort_unstable();
    assert_eq!(activities, ["a", "b", "c"]);
    let halts = restored.halts.iter();
    let halts: Vec<_> = halts.map(|(run, why)| (&*run.run_id, &*why.0)).collect();
    assert_eq!(halts, [("halted", "stop")]);
    assert_eq!(restored.everything, None);
    assert_eq!(restored.approvals, [approval("kept")]);
}

#[test]
fn what_is_put_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    put_everything(&open(folder.path()).unwrap().0);
    is_everything(&found(folder.path()));
    // Committed when the store was dropped, so nothing is left to play.
    for log in ["state.log.0", "state.log.1"] {
        assert_eq!(fs::metadata(folder.path().join(log)).unwrap().len(), 0);
    }
}

/// As a killed process leaves its folder: at any time, committed or not.
#[test]
fn a_copy_made_while_a_store_works_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    put_everything(&store);
    // The log first: what moves to the file meanwhile is then in both.
    let copy = tempfile::tempdir().unwrap();
    for name in ["state.log.0", "state.log.1", tables::FILE] {
        fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    is_everything(&found(copy.path()));
}

#[test]
fn a_log_cut_at_any_byte_gives_its_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let ids = ["a", "b", "c"];
    let (mut log, _) = Log::open(folder.path()).unwrap();
    for (n, id) in ids.iter().enumerate() {
        log.append(&Change::Approval(&approval(id)).ops()).unwrap();
        if n == 0 {
            log.switch();
        }
    }
    let [first, second] =
        ["state.log.0", "state.log.1"].map(|name| fs::read(folder.path().join(name)).unwrap());
    let (first, second) = if first.len() < second.len() {
        (first, second)
    } else {
        (second, first)
    };
    for cut in 0..=second.len() {
        let whole = second[..cut].iter().filter(|byte| **byte == b'\n').count();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("state.log.1"), &first).unwrap();
        fs::write(folder.path().join("state.log.0"), &second[..cut]).unwrap();
        let (log, ops) = Log::open(folder.path()).unwrap();
        assert_eq!(ops.len(), 1 + whole, "cut at {cut}");
        drop(log);
        // What was cut off is gone, and does not come back behind new lines.
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&Change::OwnRun("x").ops()).unwrap();
        let (_, ops) = Log::open(folder.path()).unwrap();
        assert_eq!(ops.len(), 2 + whole, "cut at {cut}");
    }
}

#[test]
fn a_log_that_was_not_committed_is_played_once() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let (mut log, _) = Log::open(folder.path()).unwrap();
    log.append(&Change::OwnRun("left").ops()).unwrap();
    drop(log);
    assert_eq!(found(folder.path()).own_run.as_deref(), Some("left"));
    let (_, ops) = Log::open(folder.path()).unwrap();
    assert_eq!(ops, []);
    assert_eq!(found(folder.path()).own_run.as_deref(), Some("left"));
}

/// A file that cannot be used, and what is said of it.
fn refused(make: impl FnOnce(PathBuf)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(tables::FILE);
    make(path.clone());
    let text = open(folder.path()).unwrap_err().to_string();
    assert!(text.starts_with(&*path.to_string_lossy()), "{text}");
    // Never replaced by an empty one.
    assert_eq!(open(folder.path()).unwrap_err().to_string(), text);
    text
}

fn made(path: &Path, ops: &[Op]) {
    Tables::open(path).unwrap().apply(ops).unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_said_to_be_and_what_to_do() {
    let version = |path: PathBuf| {
        let (key, value) = ("version".to_owned(), "7".to_owned());
        made(&path, &[Op::Put(tables::Table::About, key, value)]);
    };
    let row = |path: PathBuf| {
        let (key, value) = ("[\"w\",\"r\"]".to_owned(), "{}".to_owned());
        made(&path, &[Op::Put(tables::Table::Runs, key, value)]);
    };
    let foreign = |path: PathBuf| {
        let database = redb::Database::create(path).unwrap();
        database.begin_write().unwrap().commit().unwrap();
    };
    #[rustfmt::skip]
    let table: [(String, &str); 5] = [
        (refused(version), "is of version 7, and this sidecar reads version 1"),
        (refused(row),     "is damaged (Runs [\"w\",\"r\"]: missing field"),
        (refused(foreign), "is no state file of this program"),
        (refused(|path| fs::write(path, [b'x'; 8192]).unwrap()), "cannot be used: "),
        (refused(|path| fs::create_dir(path).unwrap()),          "cannot be used: "),
    ];
    for (said, expected) in table {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn two_processes_never_have_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let second = open(folder.path()).unwrap_err().to_string();
    assert!(second.contains("is in use by another process"), "{second}");
    drop(first);
    drop(open(folder.path()).unwrap());
}

fn on_a_full_disk() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for log in ["state.log.0", "state.log.1"] {
        std::os::unix::fs::symlink("/dev/full", folder.path().join(log)).unwrap();
    }
    folder
}

#[test]
fn a_full_disk_is_an_error_each_time_and_counted() {
    let folder = on_a_full_disk();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (store, _) = Store::open(folder.path(), metrics.clone()).unwrap();
    for _ in 0..2 {
        assert!(store.put(&Change::OwnRun("x")).is_err());
    }
    let shown = metrics.render();
    assert!(
        shown.contains("openbox_state_write_errors_total 2"),
        "{shown}"
    );
}

#[test]
fn an_approval_takes_less_than_five_kilobytes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path()).unwrap();
    for n in 0..9_000 {
        store
            .put(&Change::Approval(&approval(&format!("apr_{n:032}"))))
            .unwrap();
    }
    drop(store);
    let bytes = fs::metadata(folder.path().join(tables::FILE))
        .unwrap()
        .len();
    assert!(bytes < 9_000 * 5 * 1024, "{bytes}");
    assert_eq!(found(folder.path()).approvals.len(), 9_000);
}
