//! What a record costs at each durability: records a second and processor time
//! per record, from one thread and from eight, a decision and its completion in
//! turn. The folder is the system's temporary one: set `TMPDIR` to what is to be
//! measured.
#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a benchmark that goes wrong must stop, and its figures are what it prints"
)]

mod exchange;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use openbox_sidecar::journal::record::Decided;
use openbox_sidecar::journal::{Durability, Journal, Record, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long each figure is measured; and when run as a test, to see that it works.
const EACH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(20));

const ROUNDS: usize = 3;

const DURABILITIES: [(&str, Durability); 3] = [
    ("none", Durability::None),
    ("batch", Durability::Batch),
    ("every", Durability::Every),
];

fn main() {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let each = if measuring { EACH.0 } else { EACH.1 };
    println!("| durability | threads | records/s | CPU µs per record |");
    println!("|---|---:|---:|---:|");
    for threads in [1, 8] {
        // Interleaved: what the machine does to one it does to all.
        let mut found = DURABILITIES.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (at, (_, durability)) in DURABILITIES.iter().enumerate() {
                found[at].push(measured(*durability, threads, each));
            }
        }
        for ((name, _), mut rounds) in DURABILITIES.iter().zip(found) {
            rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (records, cpu) = rounds[ROUNDS / 2];
            println!("| {name} | {threads} | {records:.0} | {cpu:.2} |");
        }
    }
}

/// Records a second, and microseconds of processor time for each, the syncing
/// thread's too.
fn measured(durability: Durability, threads: usize, each: Duration) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&Settings {
        durability,
        ..Settings::new(folder.path())
    })
    .unwrap();
    let (ended, written) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (began, cpu_before) = (Instant::now(), cpu());
    let writers: Vec<_> = (0..threads)
        .map(|_| {
            let (journal, ended, written) = (journal.clone(), ended.clone(), written.clone());
            thread::spawn(move || write_until(&ended, &written, &journal))
        })
        .collect();
    thread::sleep(each);
    ended.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let (took, cpu) = (began.elapsed(), cpu() - cpu_before);
    let written = written.load(Ordering::Relaxed) as f64;
    (
        written / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / written,
    )
}

fn write_until(ended: &AtomicBool, written: &AtomicU64, journal: &Journal) {
    let (operation, completion) = (exchange::request("POST", "/items"), exchange::answer());
    let decided = Decided {
        decision: "allow",
        ruling: None,
        reason: None,
        by_fail_mode: false,
        approval: None,
        decided_by: None,
        untold: None,
        policy_took: Duration::from_micros(3),
        held_for: Duration::ZERO,
        joined: None,
    };
    let mut own = 0;
    while !ended.load(Ordering::Relaxed) {
        let decision = Record::Decision {
            at: operation.started_at,
            operation: &operation,
            decided,
        };
        journal.append(&decision).unwrap();
        let completion = Record::Completion {
            series: None,
            operation: &operation,
            admitted_at: operation.started_at,
            completion: &completion,
            decided,
        };
        journal.append(&completion).unwrap();
        own += 2;
    }
    written.fetch_add(own, Ordering::Relaxed);
}

/// User and system time of this process so far.
fn cpu() -> Duration {
    // proc_pid_stat(5): fields 14 and 15, in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}
