//! Clients that ask before they send a body that nobody here reads: the origin says whether it comes.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::{curl, python_of_tests};
use crate::support::authority::{Authority, Dates};
use crate::support::origin::{Origin, Shared};
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::process;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::until;
use crate::support::wire::{Head, Wire};

/// More than policy sees, and no text.
const SIZE: usize = 100_000;

/// Does with an expectation what the path says, and keeps its connection.
fn origin(mut wire: Wire, shared: &Shared) {
    while let Some(head) = wire.head() {
        let asked = head.get("expect").unwrap_or("nothing").to_owned();
        let refuses = match head.path() {
            "/no" => Some("HTTP/1.1 417 No\r\ncontent-length: 3\r\n\r\nno\n"),
            "/elsewhere" => {
                Some("HTTP/1.1 307 There\r\nlocation: /yes\r\ncontent-length: 0\r\n\r\n")
            }
            "/who" => Some(
                "HTTP/1.1 401 Who\r\nwww-authenticate: Basic realm=x\r\ncontent-type: image/png\r\ncontent-length: 2\r\n\r\nno",
            ),
            "/completed/block" => Some(
                "HTTP/1.1 401 Who\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nsecret",
            ),
            "/late" => {
                // Its own word comes when the sidecar's has long been there.
                shared.wait_for("late");
                None
            }
            _ => None,
        };
        if let Some(refuses) = refuses {
            wire.say(refuses);
            continue;
        }
        if head.path() != "/silent" {
            wire.say("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Some(request) = wire.body(&head, false) else {
            return;
        };
        shared.log(&request);
        let said = format!("{} after {asked}", request.body.len());
        wire.say(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{said}",
            said.len()
        ));
    }
}

#[derive(Clone, Copy)]
enum Door {
    Plain,
    Secure,
}

struct World {
    plain: Origin,
    secure: Origin,
    sidecar: Sidecar,
    /// The paths of all that was asked.
    asked: RefCell<Vec<String>>,
}

fn world() -> World {
    let authority = Authority::new();
    let plain = Origin::raw(origin);
    let secure = Origin::raw_tls(authority.server("secure.test", Dates::Current), origin);
    let setup = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .reach(&plain)
        .reach(&secure);
    let sidecar = setup.trust(&authority).start();
    World {
        plain,
        secure,
        sidecar,
        asked: RefCell::default(),
    }
}

fn head(url: &str, host: &str) -> String {
    format!(
        "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-type: image/png\r\nexpect: 100-continue\r\ncontent-length: {SIZE}\r\n\r\n"
    )
}

/// Who has a client go on.
#[derive(Clone, Copy)]
enum Asks {
    Origin,
    Sidecar,
}

/// The sidecar waits a second for its origin to; clocks may differ a little.
const ASKED_AFTER: Duration = Duration::from_millis(900);

impl World {
    /// Whether a client is asked to go on before the sidecar would have done it.
    fn asks_sooner(&self, path: &str, door: Door) -> bool {
        let begun = Instant::now();
        let (mut wire, _) = self.ask(path, door);
        wire.head().unwrap().status() == 100 && begun.elapsed() < ASKED_AFTER
    }

    /// The answer of an origin that has it within the second that the sidecar waits.
    fn ask_in_time(&self, path: &str, door: Door) -> (Wire, &Origin, Head) {
        until("an origin that is quick enough", || {
            let (mut wire, origin) = self.ask(path, door);
            let head = wire.head().unwrap();
            (head.status() != 100).then_some((wire, origin, head))
        })
    }

    /// A client that waits, in the clear or in an intercepted tunnel.
    fn ask(&self, path: &str, door: Door) -> (Wire, &Origin) {
        self.asked.borrow_mut().push(path.to_owned());
        match door {
            Door::Plain => {
                let mut wire = self.sidecar.wire();
                wire.say(head(&self.plain.url(path), &self.plain.authority()));
                (wire, &self.plain)
            }
            Door::Secure => {
                let mut wire = self.sidecar.tls_tunnel(&self.secure);
                wire.say(head(path, &self.secure.authority()));
                (wire, &self.secure)
            }
        }
    }

    /// That all requests for `path` were completed, once each.
    fn completed_once(&self, path: &str) {
        let completed = || {
            let journal = self.sidecar.journal();
            let of_path = |line: &&serde_json::Value| {
                line["stage"] == "completed"
                    && line["record"] == "completion"
                    && line["http_url"]
                        .as_str()
                        .is_some_and(|url| url.ends_with(path))
            };
            journal.iter().filter(of_path).count()
        };
        let asked = self.asked.borrow();
        let expected = asked.iter().filter(|asked| *asked == path).count();
        until("the completions", || {
            (completed() >= expected).then_some(())
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(completed(), expected, "{path}");
    }
}

#[test]
fn the_origin_says_whether_a_body_is_to_come() {
    let world = world();
    #[rustfmt::skip]
    let table = [
        // path      by whom it is asked for
        ("/yes",     Asks::Origin),
        ("/silent",  Asks::Sidecar),
        ("/late",    Asks::Sidecar),
    ];
    for (path, expected) in table {
        for door in [Door::Plain, Door::Secure] {
            let begun = Instant::now();
            let (mut wire, origin) = world.ask(path, door);
            assert_eq!(wire.head().unwrap().status(), 100, "{path}");
            match expected {
                // An origin that does not run for a second has the sidecar ask.
                Asks::Origin => until("the origin to be the first", || {
                    (begun.elapsed() < ASKED_AFTER || world.asks_sooner(path, door)).then_some(())
                }),
                Asks::Sidecar => assert!(begun.elapsed() >= ASKED_AFTER, "{path}"),
            }
            if path == "/late" {
                origin.acknowledge("late");
            }
            wire.say(vec![b'x'; SIZE]);
            let answer = wire.answer();
            let said = format!("{SIZE} after 100-continue");
            assert_eq!(answer.text(), said, "{path}");
        }
        world.completed_once(path);
    }
}

#[test]
fn an_answer_that_comes_first_reaches_the_client_and_the_body_stays_there() {
    let world = world();
    let rows = [
        ("/no", 417),
        ("/elsewhere", 307),
        ("/who", 401),
        // What goes out in its place.
        ("/completed/block", 403),
    ];
    for (path, status) in rows {
        for door in [Door::Plain, Door::Secure] {
            let (mut wire, origin, head) = world.ask_in_time(path, door);
            let before = origin.heard().len();
            assert_eq!(head.status(), status, "{path}");
            assert_eq!(head.get("connection"), Some("close"), "{path}");
            assert!(wire.body(&head, true).is_some());
            // What comes now is no request.
            assert!(wire.is_ended(), "{path}");
            assert_eq!(origin.heard().len(), before);
        }
        world.completed_once(path);
        // Those connections wait for a body that never comes.
        let connections = world.plain.connections();
        let (mut next, _) = world.ask("/yes", Door::Plain);
        assert_eq!(next.head().unwrap().status(), 100);
        assert_eq!(world.plain.connections(), connections + 1, "{path}");
    }
}

#[test]
fn a_body_that_policy_sees_is_asked_for_here() {
    let world = world();
    let mut wire = world.sidecar.wire();
    let small = head(&world.plain.url("/silent"), &world.plain.authority());
    wire.say(small.replace("100000", "5"));
    assert_eq!(wire.head().unwrap().status(), 100);
    assert_eq!(world.plain.connections(), 0);
    wire.say("abcde");
    assert_eq!(wire.answer().text(), "5 after nothing");
}

#[test]
fn curl_and_pythons_own_client_upload_as_they_do_directly() {
    let world = world();
    let file = std::env::temp_dir().join(format!("openbox-expect-{}", std::process::id()));
    std::fs::write(&file, vec![b'x'; SIZE]).unwrap();
    let upload = format!("@{}", file.display());
    let proxy = format!("http://{}", world.sidecar.http);
    let ca = world.sidecar.ca().display().to_string();
    for (path, expected) in [
        ("/yes", "100000 after 100-continue 200 100000"),
        ("/who", "no 401 0"),
    ] {
        for origin in [&world.plain, &world.secure] {
            let url = origin.url(path);
            let ended = curl(&[
                "--http1.1",
                "--proxy",
                &proxy,
                "--cacert",
                &ca,
                "--header",
                "content-type: image/png",
                "--header",
                "expect: 100-continue",
                "--expect100-timeout",
                "9",
                "--data-binary",
                &upload,
                "--write-out",
                " %{http_code} %{size_upload}",
                &url,
            ]);
            assert_eq!(ended.out, expected, "{url}: {}", ended.err);
        }
    }
    std::fs::remove_file(&file).unwrap();
    // It says that it waits, and does not.
    let said = "import http.client, sys\n\
        connection = http.client.HTTPConnection(sys.argv[1])\n\
        connection.request('POST', sys.argv[2], b'x' * 100000, {'expect': '100-continue', 'content-type': 'image/png'})\n\
        print(connection.getresponse().read().decode())\n";
    let mut command = process::command(&python_of_tests().display().to_string());
    let (proxy, url) = (world.sidecar.http.to_string(), world.plain.url("/yes"));
    let ended = process::run(command.args(["-c", said, &proxy, &url]));
    assert_eq!(ended.out, "100000 after 100-continue\n", "{}", ended.err);
}
