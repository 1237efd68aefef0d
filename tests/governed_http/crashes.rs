//! Killed at random points under load: what clients were told, what origins
//! heard and what the journal holds are compared.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::Value;

use crate::core_mode;
use crate::support::core::{Core, Say, verdict};
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::process;
use crate::support::sidecar::{BINARY, Setup, Sidecar};
use crate::support::until;
use crate::support::wire::Wire;

/// Kills of a sidecar that judges by itself and of one that asks Core, unless
/// `OPENBOX_TEST_CRASHES` asks for more of them.
const KILLS: (u32, u32) = (10, 10);
const CLIENTS: u32 = 4;

fn kills(unless_said: u32) -> u32 {
    let said = std::env::var_os("OPENBOX_TEST_CRASHES");
    said.map_or(unless_said, |said| said.to_str().unwrap().parse().unwrap())
}

#[test]
fn nothing_a_client_was_told_is_lost_and_nothing_is_invented_by_kills_under_load() {
    let kills = kills(KILLS.0);
    let site = Origin::site();
    let mut sidecar = Setup::new()
        .policy(ALLOW)
        .config("journal:\n  segment_bytes: 65536\n")
        .reach(&site)
        .start();
    let (mut sent, mut told) = (HashSet::new(), HashSet::new());
    for round in 0..kills {
        let load = Load::start(&sidecar, &site, round);
        std::thread::sleep(Duration::from_millis(rand::random_range(5..120)));
        sidecar = sidecar.killed_and_started_again();
        load.end(&mut sent, &mut told);
        proved(&sidecar.state);
    }
    assert!(told.len() > usize::try_from(kills).unwrap(), "{told:?}");
    let heard = site.heard();
    let heard: HashSet<_> = heard.iter().map(|m| m.head.path().to_owned()).collect();
    let state = sidecar.state.clone();
    // Ended and not killed: the journal is whole to its last signature.
    sidecar.running.signal("TERM");
    assert!(sidecar.running.ended().status.success());
    proved(&state);
    let (decided, completed) = journal(&state);
    for path in told.iter().chain(&heard) {
        assert!(decided.contains_key(path), "{path} is not in the journal");
    }
    for (path, event) in &decided {
        assert!(sent.contains(path), "nobody asked for {path}");
        let times = completed.get(event).copied().unwrap_or_default();
        assert!(times <= 1, "{path} was completed {times} times");
    }
}

/// Answers go out before Core has judged them, and Core takes every tenth
/// outcome only in the end: at each kill there is some it is being asked about.
#[test]
fn core_hears_of_every_outcome_a_client_was_told_however_often_the_sidecar_is_killed() {
    let kills = kills(KILLS.1);
    let (core, site) = (Core::start(), Origin::site());
    let taken = Arc::new(Mutex::new(HashSet::new()));
    let (log, busy) = (taken.clone(), Arc::new(AtomicBool::new(true)));
    let still_busy = busy.clone();
    core.script(move |_, body| {
        let span = &body["spans"][0];
        if span["stage"] == "completed" {
            let url = span["http_url"].as_str().unwrap().to_owned();
            if still_busy.load(Ordering::Relaxed) && url.ends_with('7') {
                return Say::Answer(503, String::new());
            }
            log.lock().unwrap().insert(url);
        }
        verdict("allow")
    });
    let config = "http: {completed: observe}\njournal: {segment_bytes: 65536}\n";
    let mut sidecar = core_mode::setup(&core.url(), "closed", &site)
        .config(config)
        .start();
    let (mut sent, mut told) = (HashSet::new(), HashSet::new());
    for round in 0..kills {
        let load = Load::start(&sidecar, &site, round);
        std::thread::sleep(Duration::from_millis(rand::random_range(20..150)));
        sidecar = sidecar.killed_and_started_again();
        load.end(&mut sent, &mut told);
        proved(&sidecar.state);
    }
    assert!(told.len() > usize::try_from(kills).unwrap(), "{told:?}");
    busy.store(false, Ordering::Relaxed);
    until("Core to be told", || {
        let taken = taken.lock().unwrap();
        let mut urls = told.iter().map(|path| site.url(path));
        urls.all(|url| taken.contains(&url)).then_some(())
    });
    let (state, reports) = (sidecar.state.clone(), Reports::of(&core, &site));
    sidecar.running.signal("TERM");
    assert!(sidecar.running.ended().status.success());
    proved(&state);
    let (decided, _) = journal(&state);
    for path in told.iter().chain(reports.completed.keys()) {
        assert!(decided.contains_key(path), "{path} is not in the journal");
        assert!(reports.started.contains(path), "{path} was not judged");
        assert!(sent.contains(path), "nobody asked for {path}");
    }
    for (path, keys) in &reports.completed {
        assert_eq!(keys.len(), 1, "{path} was reported under {keys:?}");
    }
}

/// What Core was asked, by path.
#[derive(Default)]
struct Reports {
    started: HashSet<String>,
    /// The idempotency keys of each.
    completed: HashMap<String, HashSet<String>>,
}

impl Reports {
    fn of(core: &Core, site: &Origin) -> Self {
        let mut reports = Self::default();
        for (key, asked) in core.keyed("evaluate") {
            let span = &asked["spans"][0];
            let url = span["http_url"].as_str().unwrap();
            let path = format!("/{}", url.strip_prefix(&site.url("/")).unwrap());
            if span["stage"] == "started" {
                reports.started.insert(path);
            } else {
                assert!(!key.is_empty(), "{asked}");
                reports.completed.entry(path).or_default().insert(key);
            }
        }
        reports
    }
}

/// Clients that ask for one path each until the sidecar is gone.
struct Load(Vec<mpsc::Receiver<(String, bool)>>);

impl Load {
    fn start(sidecar: &Sidecar, site: &Origin, round: u32) -> Self {
        let clients = 0..CLIENTS;
        let clients = clients.map(|client| {
            let (proxy, base) = (sidecar.http, site.url("/"));
            let (report, reports) = mpsc::channel();
            std::thread::spawn(move || {
                for request in 0.. {
                    let path = format!("{round}-{client}-{request}");
                    let done = asked(proxy, &format!("{base}{path}"));
                    let _nobody = report.send((format!("/{path}"), done));
                    if !done {
                        return;
                    }
                }
            });
            reports
        });
        Self(clients.collect())
    }

    fn end(self, sent: &mut HashSet<String>, told: &mut HashSet<String>) {
        for (path, done) in self.0.into_iter().flatten() {
            if done {
                told.insert(path.clone());
            }
            sent.insert(path);
        }
    }
}

/// Whether a whole answer came; the sidecar may be killed at any point.
fn asked(proxy: SocketAddr, url: &str) -> bool {
    let Ok(socket) = TcpStream::connect(proxy) else {
        return false;
    };
    let mut wire = Wire::over(socket);
    let host = url.split('/').nth(2).unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    wire.try_say(request).is_ok()
        && wire
            .try_answer_to("GET")
            .is_some_and(|answer| answer.status() == 200)
}

/// Has the journal in `state` proved.
pub(crate) fn proved(state: &Path) {
    let mut verify = process::command(BINARY);
    let ended = process::run(verify.args(["audit", "verify"]).arg(state));
    assert!(ended.status.success(), "{}{}", ended.out, ended.err);
}

/// The event of each path that was decided, and how often each was completed.
fn journal(state: &Path) -> (HashMap<String, String>, HashMap<String, u32>) {
    let mut export = process::command(BINARY);
    let ended = process::run(export.args(["audit", "export"]).arg(state));
    assert!(ended.status.success(), "{}", ended.err);
    let (mut decided, mut completed) = (HashMap::new(), HashMap::new());
    for line in ended.out.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let event = record["event_id"].as_str().unwrap_or_default().to_owned();
        match record["record"].as_str() {
            Some("decision") => {
                let url = record["http_url"].as_str().unwrap();
                let path = url.splitn(4, '/').nth(3).unwrap();
                let before = decided.insert(format!("/{path}"), event);
                assert_eq!(before, None, "{path} was decided twice");
            }
            Some("completion") => *completed.entry(event).or_default() += 1,
            _ => {}
        }
    }
    (decided, completed)
}

#[test]
fn what_core_could_not_be_told_is_told_after_a_kill_once_core_is_back() {
    let (core, site) = (Core::start(), Origin::site());
    core.at("completed", Say::Answer(503, String::new()));
    let setup = core_mode::setup(&core.url(), "open", &site);
    let config = setup.config("core:\n  timeout: 10s\n  retries: 0\n");
    let sidecar = config.start();
    for path in ["/a", "/b", "/c"] {
        assert_eq!(sidecar.get(&site.url(path)).status(), 200);
    }
    let sidecar = sidecar.killed_and_started_again();
    // What it takes from now on, and nothing that it had still refused.
    let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = taken.clone();
    core.script(move |route, body| {
        if route == "evaluate" {
            log.lock().unwrap().push(body.clone());
        }
        verdict("allow")
    });
    let told = until("Core to be told", || {
        let told = taken.lock().unwrap().clone();
        (told.len() >= 3).then_some(told)
    });
    let mut urls: Vec<_> = told
        .iter()
        .map(|asked| {
            let span = &asked["spans"][0];
            assert_eq!(span["stage"], "completed", "{asked}");
            assert_eq!(span["http_status_code"], 200, "{asked}");
            span["http_url"].as_str().unwrap().to_owned()
        })
        .collect();
    urls.sort_unstable();
    assert_eq!(urls, ["/a", "/b", "/c"].map(|path| site.url(path)));
    // Told in order, it is told once: a start after a good end tells nothing.
    let setup = sidecar.ended_and_started_again();
    assert_eq!(setup.get(&site.url("/d")).status(), 200);
    let after = taken.lock().unwrap().clone();
    let of = |path: &str| {
        after
            .iter()
            .filter(|a| a["spans"][0]["http_url"] == site.url(path))
            .count()
    };
    assert_eq!((of("/a"), of("/b"), of("/c"), of("/d")), (1, 1, 1, 2));
}

#[test]
fn a_disk_that_is_full_refuses_what_needs_a_record_until_there_is_room() {
    let site = Origin::site();
    let sidecar = Setup::new()
        .policy(ALLOW)
        .state_on_a_disk("size=8m")
        .reach(&site)
        .start();
    let get = |path: &str| sidecar.get(&site.url(path));
    assert_eq!(get("/before").status(), 200);
    let ballast = sidecar.state.join("ballast");
    let filled = std::fs::write(&ballast, vec![0; 16 << 20]);
    assert_eq!(
        filled.unwrap_err().kind(),
        std::io::ErrorKind::StorageFull,
        "the disk is larger than said"
    );
    // What is left of the last page is soon used up.
    let refused = until("the journal to take no more", || {
        let answer = get("/during");
        (answer.status() != 200).then_some(answer)
    });
    assert_eq!((refused.status(), &*refused.code()), (503, "not_recorded"));
    let heard = site.heard().len();
    assert_eq!(get("/during").code(), "not_recorded");
    assert_eq!(site.heard().len(), heard, "it left without a record");
    let told = |what: &str| {
        // What it writes down is read by a thread of its own.
        until(what, || sidecar.running.err().contains(what).then_some(()));
    };
    told("the journal takes no records");
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(get("/after").status(), 200);
    told("takes records again");
}
