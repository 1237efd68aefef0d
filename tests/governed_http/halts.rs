//! A halt ends what is under way, by whatever door it came and however far it is.

use std::time::Duration;

use tokio::time::Instant;

use crate::http2;
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::process::Running;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::Wire;
use crate::support::{PATIENCE, until};

/// How a client comes in.
#[derive(Clone, Copy, Debug)]
enum Door {
    Absolute,
    Tunnel,
    Intercepted,
}

const DOORS: [Door; 3] = [Door::Absolute, Door::Tunnel, Door::Intercepted];

struct World {
    site: Origin,
    sidecar: Sidecar,
    door: Door,
}

impl World {
    fn new(door: Door, config: &str) -> Self {
        let authority = Authority::new();
        let site = match door {
            Door::Absolute | Door::Tunnel => Origin::site(),
            Door::Intercepted => Origin::site_tls(authority.server("secure.test", Dates::Current)),
        };
        let setup = Setup::new().policy(ALLOW).config(config);
        let sidecar = setup.reach(&site).trust(&authority).start();
        Self {
            site,
            sidecar,
            door,
        }
    }

    fn wire(&self) -> Wire {
        match self.door {
            Door::Absolute => self.sidecar.wire(),
            Door::Tunnel => self.sidecar.tunnel(&self.site),
            Door::Intercepted => self.sidecar.tls_tunnel(&self.site),
        }
    }

    /// Says the head of a request, as it is said by this door.
    fn ask(&self, wire: &mut Wire, method: &str, path: &str, fields: &[(&str, &str)]) {
        let head = request(method, &self.site.url(path), fields, "");
        let inside = |head: String| {
            let origin = self.site.url("");
            head.replacen(&origin, "", 1)
        };
        wire.say(match self.door {
            Door::Absolute => head,
            Door::Tunnel | Door::Intercepted => inside(head),
        });
    }

    /// There is one completion, and it says so.
    fn halted_once(&self, path: &str) {
        let of = |path: &str| {
            let journal = self.sidecar.journal();
            let url = self.site.url(path);
            let lines = journal
                .into_iter()
                .filter(|line| line["record"] == "completion" && line["http_url"] == *url);
            lines.collect::<Vec<_>>()
        };
        until("the completion", || (!of(path).is_empty()).then_some(()));
        std::thread::sleep(Duration::from_millis(50));
        let found = of(path);
        assert_eq!(found.len(), 1, "{:?} {found:?}", self.door);
        assert_eq!(found[0]["outcome"], "failed", "{:?}", self.door);
        let error = found[0]["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains("halted"), "{:?}: {}", self.door, found[0]);
    }
}

fn halt(sidecar: &Sidecar) {
    let body = r#"{"reason":"stop it"}"#;
    assert_eq!(sidecar.operator("POST", "/v1/runs/own/halt", body).0, 200);
}

#[test]
fn an_answer_that_streams_breaks_off() {
    for door in DOORS {
        for judged in ["", "http:\n  judge_each: [\"*\"]\n"] {
            let world = World::new(door, judged);
            let mut wire = world.wire();
            world.ask(&mut wire, "GET", "/events/never", &[]);
            assert_eq!(wire.head().unwrap().status(), 200);
            assert_eq!(wire.chunk().unwrap(), b"data: first\n\n");
            halt(&world.sidecar);
            let halted = Instant::now();
            let rest = String::from_utf8(wire.rest()).unwrap();
            // The origin waits as long as we do, and would then say more.
            assert!(halted.elapsed() < PATIENCE / 2, "{door:?} {judged}");
            assert!(
                !rest.contains("second") && !rest.ends_with("0\r\n\r\n"),
                "{rest}"
            );
            if judged.is_empty() {
                world.halted_once("/events/never");
            }
        }
    }
}

#[test]
fn a_request_on_its_way_is_answered_with_the_halt() {
    let upload = [
        ("content-type", "application/octet-stream"),
        ("content-length", "1000000"),
    ];
    for door in DOORS {
        let world = World::new(door, "");
        #[rustfmt::skip]
        let table: [(&str, &str, &[_]); 2] = [
            ("GET",  "/wait/never", &[]),
            ("POST", "/upload",     &upload),
        ];
        let mut wires: Vec<_> = table
            .into_iter()
            .map(|(method, path, fields)| {
                let mut wire = world.wire();
                world.ask(&mut wire, method, path, fields);
                (wire, method, path)
            })
            .collect();
        wires[1].0.say(vec![b'x'; 50_000]);
        until("both to be let through", || {
            let journal = world.sidecar.journal();
            let decided = journal.iter().filter(|line| line["record"] == "decision");
            (decided.count() == 2).then_some(())
        });
        // Both are on their way, or about to be: either must end.
        until("the first to be there", || {
            (world.site.times("/wait/never") == 1).then_some(())
        });
        halt(&world.sidecar);
        for (wire, method, path) in &mut wires {
            let answer = wire.answer_to(method);
            assert_eq!(answer.code(), "halted", "{door:?} {path}");
            world.halted_once(path);
        }
    }
}

#[test]
fn who_reads_nothing_does_not_keep_a_connection_open() {
    for door in DOORS {
        let world = World::new(door, "");
        let mut wire = world.wire();
        world.ask(&mut wire, "GET", "/bytes/50000000", &[]);
        assert_eq!(wire.head().unwrap().status(), 200);
        std::thread::sleep(Duration::from_millis(300));
        halt(&world.sidecar);
        until("the connection to be gone", || {
            (world.sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
        world.halted_once("/bytes/50000000");
    }
}

#[test]
fn streams_of_http_2_end_each_for_itself() {
    let world = http2::World::secure_with(Setup::new().policy(ALLOW));
    let client = Running::start(&mut world.client("halted_under_way"));
    until("all to be under way", || {
        client.out().contains("under way").then_some(())
    });
    // What is not decided yet would be refused, and has no completion.
    until("all to be decided", || {
        let journal = world.sidecar.journal();
        let started = journal.iter().filter(|line| line["stage"] == "started");
        (started.count() == 3).then_some(())
    });
    halt(&world.sidecar);
    let ended = client.ended();
    let lines: Vec<_> = ended.out.lines().map(str::trim).collect();
    let expected = [
        "under way",
        "drip broke off",
        "answered set()",
        "over goaway",
    ];
    assert_eq!(lines, expected, "{}", ended.err);
    for path in ["/drip", "/never", "/never/upload"] {
        assert_eq!(world.outcomes(path, 1), ["failed"], "{path}");
    }
}
