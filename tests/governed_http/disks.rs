//! A full disk that the oldest segments make room on.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::crashes::proved;
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;

fn full(state: &Path) {
    let mut filler = File::create(state.join("filler")).unwrap();
    for size in [4_096, 1] {
        let error = loop {
            if let Err(error) = filler.write_all(&vec![0; size]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}

fn served(sidecar: &Sidecar, site: &Origin, requests: u32) {
    for _ in 0..requests {
        assert_eq!(sidecar.get(&site.url("/served")).status(), 200);
    }
}

#[test]
fn on_a_full_disk_the_oldest_segments_make_room_where_that_is_asked_for() {
    let site = Origin::site();
    let config = "journal: {segment_bytes: 65536, on_full: drop_oldest}\n";
    let sidecar = Setup::new()
        .policy(ALLOW)
        .config(config)
        .state_on_a_disk("size=8m");
    let sidecar = sidecar.reach(&site).start();
    let first = sidecar.state.join("journal-000001.jsonl");
    until("two segments to be closed", || {
        served(&sidecar, &site, 10);
        let second = sidecar.state.join("journal-000002.jsonl");
        second.exists().then_some(())
    });
    full(&sidecar.state);
    until("a segment to make room", || {
        served(&sidecar, &site, 1);
        (!first.exists()).then_some(())
    });
    served(&sidecar, &site, 10);
    let deleted = "openbox_journal_segments_deleted_total{reason=\"full\"}";
    assert_eq!(sidecar.metric(deleted), 1);
    proved(&sidecar.state);
}
