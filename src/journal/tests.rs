//! The journal on disk: what stands there, what damage is called, what goes on.

use std::fs;

use super::verify::{Break, Proof, verify};
use super::*;
use crate::domain::Timestamp;

fn settings(folder: &Path) -> Settings {
    Settings {
        sync_within: Duration::from_millis(5),
        ..Settings::new(folder)
    }
}

fn open(folder: &Path) -> Result<Arc<Journal>, OpenError> {
    Journal::open(&settings(folder))
}

fn resume(run: &str) -> Record<'_> {
    Record::Resume {
        at: Timestamp(1),
        workflow_id: "w",
        run_id: run,
        by: "operator",
    }
}

fn write(folder: &Path, runs: std::ops::Range<u32>) {
    let journal = open(folder).unwrap();
    for run in runs {
        journal.append(&resume(&run.to_string())).unwrap();
    }
}

fn whole(folder: &Path) -> Proof {
    verify(folder, None).unwrap().unwrap()
}

fn broken(folder: &Path) -> Break {
    verify(folder, None).unwrap().unwrap_err()
}

/// The `run_id` of every resume in the active segment.
fn runs(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter(|line| line["record"] == "resume")
        .map(|line| line["run_id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_waits_is_written_in_order_and_before_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = open(folder.path()).unwrap();
    journal.append_soon(&resume("a")).unwrap();
    journal.append(&resume("b")).unwrap();
    assert_eq!(runs(folder.path()), ["a", "b"]);
    journal.append_soon(&resume("c")).unwrap();
    while !fs::read_to_string(&path).unwrap().contains("\"c\"") {
        std::thread::yield_now();
    }
    journal.append_soon(&resume("d")).unwrap();
    drop(journal);
    assert_eq!(runs(folder.path()), ["a", "b", "c", "d"]);
    assert_eq!(whole(folder.path()).unsigned, 0);
}

#[test]
fn a_second_sidecar_is_told_that_the_folder_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path()).unwrap();
    let text = open(folder.path()).unwrap_err().to_string();
    assert!(text.contains("another openbox-sidecar"), "{text}");
    assert!(text.contains("--state-dir"), "{text}");
}

#[test]
fn many_threads_make_one_chain_and_each_record_stands_in_it_once() {
    for durability in [Durability::None, Durability::Batch, Durability::Every] {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            durability,
            ..settings(folder.path())
        };
        let journal = Journal::open(&settings).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for each in 0..50 {
                        let run = format!("{thread}-{each}");
                        journal.append(&resume(&run)).unwrap();
                        journal.append_soon(&resume(&format!("{run}s"))).unwrap();
                        if durability != Durability::None {
                            let path = journal.path();
                            let text = fs::read_to_string(path).unwrap();
                            assert!(text.contains(&format!("\"{run}\"")), "{run}");
                        }
                    }
                });
            }
        });
        drop(journal);
        let mut runs = runs(folder.path());
        runs.sort_unstable();
        runs.dedup();
        assert_eq!(runs.len(), 400, "{durability:?}");
        // With the header and the last checkpoint.
        assert_eq!(whole(folder.path()).next, 402, "{durability:?}");
    }
}

#[test]
fn a_full_segment_is_closed_and_the_chain_goes_on_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes: 2_000,
        ..settings(folder.path())
    };
    for _ in 0..3 {
        let journal = Journal::open(&settings).unwrap();
        for run in 0..20 {
            journal.append(&resume(&run.to_string())).unwrap();
        }
    }
    let proof = whole(folder.path());
    assert!(proof.segments > 5, "{proof:?}");
    // Older ones may be gone; one in between may not.
    fs::remove_file(folder.path().join("journal-000001.jsonl")).unwrap();
    let later = whole(folder.path());
    assert!(later.first > 0 && later.next == proof.next, "{later:?}");
    fs::remove_file(folder.path().join("journal-000003.jsonl")).unwrap();
    let gap = broken(folder.path());
    assert!(gap.segment.ends_with("journal-000004.jsonl"), "{gap}");
    assert_eq!(gap.at, 0, "{gap}");
}

#[test]
fn a_segment_cut_at_any_byte_is_continued_and_whole_again() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0..3);
    let path = folder.path().join("journal.jsonl");
    let bytes = fs::read(&path).unwrap();
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let before = whole(folder.path());
        write(folder.path(), 7..8);
        let after = whole(folder.path());
        assert_eq!(after.unfinished, 0, "cut at {cut}");
        assert!(after.next > before.next, "cut at {cut}");
        let runs = runs(folder.path());
        assert_eq!(runs.last().unwrap(), "7", "cut at {cut}");
        let whole_lines = bytes[..cut].iter().filter(|b| **b == b'\n').count();
        let kept = whole_lines.saturating_sub(1).min(3);
        assert_eq!(runs.len(), kept + 1, "cut at {cut}");
    }
}

#[test]
fn every_kind_of_tampering_is_named_at_its_record() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0..5);
    let path = folder.path().join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = |record: usize| lines[..record].concat().len() as u64;
    let swapped = [lines[0], lines[2], lines[1], lines[3]].concat();
    let missing = [lines[0], lines[1], lines[3]].concat();
    let doubled = [lines[0], lines[1], lines[1]].concat();
    let changed = text.replace("\"run_id\":\"2\"", "\"run_id\":\"9\"");
    for (bad, record) in [(swapped, 1), (missing, 2), (doubled, 2), (changed, 3)] {
        fs::write(&path, &bad).unwrap();
        let found = broken(folder.path());
        assert_eq!(
            (found.record, found.at),
            (record, at(usize::try_from(record).unwrap())),
            "{found}\n{bad}"
        );
    }
}

#[test]
fn a_chain_that_was_made_anew_lacks_the_signature() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0..3);
    let path = folder.path().join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("\"run_id\":\"1\"", "\"run_id\":\"9\"");
    let (mut link, mut forged) = (chain::Link::default(), Vec::new());
    for line in changed.lines() {
        let content = line.split(",\"seq\":").next().unwrap();
        link.frame(format!("{content}}}").as_bytes(), &mut forged);
    }
    fs::write(&path, forged).unwrap();
    let found = broken(folder.path());
    assert_eq!(found.record, 4, "{found}");
    assert!(found.why.contains("signature"), "{found}");
}

#[test]
fn a_damaged_segment_is_set_aside_and_the_sidecar_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0..3);
    let path = folder.path().join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"run_id\":\"1\"", "\"run_id\":\"9\"")).unwrap();
    write(folder.path(), 7..8);
    assert_eq!(runs(folder.path()), ["7"]);
    let found = broken(folder.path());
    assert!(found.segment.ends_with("journal-000001.jsonl"), "{found}");
    assert_eq!(found.record, 2, "{found}");
}

#[test]
fn the_journal_of_another_sidecar_or_version_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0..1);
    let path = folder.path().join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let old = "{\"record\":\"decision\"}\n".to_owned();
    let newer = text.replace("\"format\":1", "\"format\":2");
    for (there, why) in [(old, "no segment header"), (newer, "format 2")] {
        fs::write(&path, &there).unwrap();
        let told = open(folder.path()).unwrap_err().to_string();
        assert!(told.contains(why) && told.contains("--state-dir"), "{told}");
        assert_eq!(fs::read_to_string(&path).unwrap(), there);
    }
    fs::write(&path, &text).unwrap();
    fs::remove_file(folder.path().join("journal.key")).unwrap();
    let told = open(folder.path()).unwrap_err().to_string();
    assert!(told.contains("another sidecar"), "{told}");
}

#[test]
fn a_clock_that_is_set_back_is_noticed_and_one_that_is_kept_right_is_not() {
    let at = |seconds: u64| Timestamp(seconds * 1_000_000_000);
    assert_eq!(set_back(at(50), at(51)), None);
    assert_eq!(set_back(at(50), at(49)), None);
    assert_eq!(set_back(at(50), at(20)), Some(Duration::from_secs(30)));
}

#[test]
fn a_full_disk_is_an_error_and_not_a_lost_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let journal = open(folder.path()).unwrap();
    journal.append_soon(&resume("waits")).unwrap();
    journal.append(&resume("told")).unwrap_err();
    journal.append(&resume("told")).unwrap_err();
    // What nobody was told of still waits.
    journal.flush().unwrap_err();
}

#[tokio::test]
async fn tasks_that_append_together_are_all_written_before_any_goes_on() {
    // The journal's own thread may write between two of them, every few
    // milliseconds: what such a round shows is not what this test is about.
    let mut rounds = Vec::new();
    while rounds.len() < 20 {
        let round = seen_by_three().await;
        // Each had its turn before the first of them wrote.
        if round == [["a", "b", "c"]; 3] {
            return;
        }
        rounds.push(round);
    }
    panic!("never written together: {rounds:?}");
}

/// What three tasks that append to a new journal find in it when they go on.
async fn seen_by_three() -> [Vec<String>; 3] {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).unwrap();
    let seen = |run: &'static str| {
        let (journal, folder) = (journal.clone(), folder.path().to_owned());
        async move {
            let pending = journal.append_together(&resume(run)).unwrap();
            pending.written().await.unwrap();
            runs(&folder)
        }
    };
    let (a, b, c) = tokio::join!(seen("a"), seen("b"), seen("c"));
    [a, b, c]
}

#[tokio::test]
async fn who_appends_together_and_gives_up_leaves_the_record_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).unwrap();
    drop(journal.append_together(&resume("given up")).unwrap());
    let written = journal.append_together(&resume("waited for")).unwrap();
    written.written().await.unwrap();
    assert_eq!(runs(folder.path()), ["given up", "waited for"]);

    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let journal = Journal::on(full, folder.path()).unwrap();
    let three = ["a", "b", "c"].map(|run| journal.append_together(&resume(run)).unwrap());
    let [a, b, c] = three;
    // Takes all of them, and none is written.
    a.written().await.unwrap_err();
    b.written().await.unwrap_err();
    assert_eq!(journal.tail.untold_failures(), 1);
    drop(c);
    assert_eq!(journal.tail.untold_failures(), 0);
}

#[test]
fn a_full_disk_takes_the_oldest_segments_where_that_is_asked_for() {
    for (on_full, left) in [(OnFull::Refuse, 2), (OnFull::DropOldest, 1)] {
        let folder = tempfile::tempdir().unwrap();
        for number in [1, 2] {
            fs::write(segment::closed_path(folder.path(), number), "").unwrap();
        }
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let start = tail::Start {
            file: full,
            key: sign::Key::load_or_make(folder.path()).unwrap(),
            link: chain::Link::default(),
            segment: 3,
            length: 0,
            unsigned: 0,
            floor: u64::MAX,
        };
        let settings = Settings {
            on_full,
            ..settings(folder.path())
        };
        let tail = Tail::new(&settings, start);
        let metrics = Arc::new(Metrics::new().unwrap());
        tail.count_in(metrics.clone());
        tail.append(b"{\"record\":\"x\"}").unwrap_err();
        assert_eq!(segment::closed(folder.path()).unwrap().len(), left);
        let deleted = format!(
            "openbox_journal_segments_deleted_total{{reason=\"full\"}} {}",
            2 - left
        );
        let text = metrics.render();
        assert!(text.contains(&deleted), "{text}");
        assert!(text.contains("openbox_journal_failures_total 1"), "{text}");
    }
}

#[test]
fn nobody_else_reads_it_wherever_its_folder_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let small = Settings {
        segment_bytes: 500,
        ..settings(folder.path())
    };
    let journal = Journal::open(&small).unwrap();
    for run in 0..5 {
        journal.append(&resume(&run.to_string())).unwrap();
    }
    let files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    // The lock, the key, the active segment and closed ones.
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        // The public half of the key is for everybody.
        let is_public = file.file_name().to_string_lossy().ends_with(".pub");
        assert!(is_public || mode & 0o077 == 0, "{file:?} {mode:o}");
    }
}

/// Of all segments. One that goes meanwhile does not count.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let segments = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".jsonl"));
    let sizes = segments.map(|entry| entry.metadata().map_or(0, |file| file.len()));
    sizes.sum()
}

#[test]
fn old_segments_go_and_the_rest_is_still_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        segment_bytes: 2_000,
        ..settings(folder.path())
    };
    let journal = Journal::open(&settings).unwrap();
    for run in 0..40 {
        journal.append(&resume(&run.to_string())).unwrap();
    }
    drop(journal);
    let before = whole(folder.path());
    let kept = Settings {
        keep_bytes: 5_000,
        ..settings
    };
    let journal = Journal::open(&kept).unwrap();
    // Nothing is deleted any more once all of it fits.
    while bytes_in(folder.path()) > kept.keep_bytes {
        std::thread::yield_now();
    }
    drop(journal);
    let after = whole(folder.path());
    assert!(after.first > 0 && after.next == before.next, "{after:?}");
}
