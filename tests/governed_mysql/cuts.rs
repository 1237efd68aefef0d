//! A server that ends a connection at each point of its beginning.

use std::time::Duration;

use tokio::time::Instant;

use crate::POLICY;
use crate::agent_leg::proves_itself;
use crate::between::{Way, between};
use crate::support::authority::Authority;
use crate::support::mysql::{CAPABILITIES, Client, Server, login, oracle};
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{PATIENCE, free_port, until};

/// By how much what is signed in a handshake is longer or shorter than before, and more.
const SIGNED_BYTES: usize = 16;

/// Before, within and near the end of each packet, or record of TLS.
fn points(said: &[u8]) -> Vec<usize> {
    let mut points = Vec::new();
    let mut at = 0;
    let mut slack = 0;
    while let Some(&[a, b, c, d]) = said.get(at..at + 4) {
        let is_tls = (20..=23).contains(&a) && b == 3;
        let whole = match (is_tls, said.get(at + 4)) {
            (true, Some(e)) => 5 + usize::from(u16::from_be_bytes([d, *e])),
            _ => 4 + usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap(),
        };
        let end = (at + whole).min(said.len());
        slack = if is_tls { SIGNED_BYTES } else { slack };
        points.extend([at, at + 1, (at + 4).min(end - 1), end - 1]);
        at = end;
    }
    points.dedup();
    // Another handshake must not be over before.
    points.retain(|point| point + slack < said.len());
    points
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    In,
    /// To this error.
    Told(u16),
    /// To the end of the connection.
    Ended,
}

/// Logs in as somebody without a password, by a method that the server has another for.
fn logs_in(port: u16) -> Came {
    logs_in_by(&mut Client::open(port))
}

fn logs_in_by(client: &mut Client) -> Came {
    let body = login(CAPABILITIES, "bob");
    let method: &[u8] = b"mysql_native_password\0";
    let body = [body.strip_suffix(method).unwrap(), b"client_ed25519\0"].concat();
    let mut number = 1;
    let mut says = Some(body);
    loop {
        let Some(packet) = client.next() else {
            return Came::Ended;
        };
        match packet.body[0] {
            0xff => return Came::Told(packet.error().0),
            0 => return Came::In,
            _ => {}
        }
        // That there is no password, as both methods say it in the end.
        let caching = packet.body.starts_with(b"\xfecaching");
        let said = says.take().unwrap_or(match caching {
            true => vec![0],
            false => Vec::new(),
        });
        client.send(number, &said);
        number += 2;
    }
}

fn refused(sidecar: &Sidecar) -> u64 {
    let causes = ["upstream_down", "upstream_tls", "foreign_protocol"];
    let count = |cause: &&str| {
        let name =
            format!("openbox_connections_refused_total{{cause=\"{cause}\",protocol=\"mysql\"}}");
        sidecar.metric(&name)
    };
    causes.iter().map(count).sum()
}

fn ends_at_each_point(server: &Server, query: &str) {
    let (near, passing) = between(server.port);
    let port = free_port();
    let url = format!("127.0.0.1:{port}=mysql://localhost:{near}{query}");
    let sidecar = Setup::new().policy(POLICY).flag("--mysql", &url).start();
    // It does not leave before it is known what a login is: its farewell is none of that.
    let mut client = Client::open(port);
    assert_eq!(logs_in_by(&mut client), Came::In);
    let said = {
        let passing = passing.lock().unwrap();
        [
            (Way::ToServer, points(&passing.to_server)),
            (Way::ToSidecar, points(&passing.to_sidecar)),
        ]
    };
    drop(client);
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut cuts = 0;
    for (way, points) in said {
        for point in points {
            passing.lock().unwrap().cut = Some((way, point));
            let begun = Instant::now();
            let came = logs_in(port);
            slowest = slowest.max(begun.elapsed());
            assert_ne!(came, Came::In, "{way:?} {point}");
            cuts += 1;
            until("it to be counted", || {
                (refused(&sidecar) >= cuts).then_some(())
            });
            assert_eq!(refused(&sidecar), cuts, "{way:?} {point}: {came:?}");
        }
    }
    eprintln!("{cuts} cuts in {:?}", began.elapsed());
    assert!(cuts >= 24, "{cuts}");
    // Nobody is waited for: a login may take a minute.
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    passing.lock().unwrap().cut = None;
    assert_eq!(logs_in(port), Came::In);
    let log = sidecar.log();
    assert!(!log.contains("panic"), "{log}");
    until("nothing to be left", || {
        let left = server
            .ask("SELECT count(*) FROM information_schema.processlist WHERE user <> 'root' AND user <> 'system user' AND user <> 'event_scheduler'");
        (left == "0").then_some(())
    });
}

#[test]
fn my_3_c_11_a_login_in_clear_that_ends_anywhere_ends_for_both() {
    ends_at_each_point(&Server::start(&[]), "?ssl-mode=DISABLED");
}

#[test]
fn my_3_my_4_c_11_a_login_inside_tls_that_ends_anywhere_ends_for_both() {
    let folder = tempfile::tempdir().unwrap();
    let words = proves_itself(&Authority::new(), folder.path());
    let server = Server::start(&words.each_ref().map(String::as_str));
    ends_at_each_point(&server, "?ssl-mode=REQUIRED");
}

#[test]
fn my_3_my_5_c_11_oracle_mysqls_login_that_ends_anywhere_ends_for_both() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    for query in ["?ssl-mode=DISABLED", "?ssl-mode=REQUIRED"] {
        ends_at_each_point(&server, query);
    }
}

/// What a client is told, and under which number, where the server says no more than its
/// first `after` bytes.
fn told_of_a_stall(server: u16, after: Option<usize>) -> (u8, u16, String) {
    let (near, passing) = between(server);
    let port = free_port();
    let url = format!("127.0.0.1:{port}=mysql://localhost:{near}?ssl-mode=DISABLED");
    let sidecar = Setup::new()
        .policy(POLICY)
        .config("mysql:\n  login_within: 20s\n")
        .flag("--mysql", &url)
        .start();
    passing.lock().unwrap().stall = Some((Way::ToSidecar, after.unwrap_or_default()));
    let mut client = Client::open(port);
    client.socket.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    if after.is_some() {
        assert_eq!(client.next().unwrap().body[0], 10);
        client.send(1, &login(CAPABILITIES, "bob"));
    }
    let told = client.next().expect("a last word");
    assert_eq!(client.next(), None);
    let counted = "openbox_connections_refused_total{cause=\"slow\",protocol=\"mysql\"}";
    assert_eq!(sidecar.metric(counted), 1);
    let (code, text) = told.error();
    (told.number, code, text)
}

#[test]
fn my_2_c_11_a_client_of_a_server_that_falls_silent_is_told_so() {
    // It would end a login sooner.
    let server = Server::start(&["--connect-timeout=120"]);
    let (greeting, login) = {
        let mut client = Client::open(server.port);
        let greeting = 4 + client.next().unwrap().body.len();
        client.send(1, &login(CAPABILITIES, "bob"));
        (greeting, greeting + 4 + client.next().unwrap().body.len())
    };
    let told = std::thread::scope(|scope| {
        // Behind its login the client has not heard yet that it is in.
        [None, Some(greeting), Some(login)]
            .map(|after| scope.spawn(move || told_of_a_stall(server.port, after)))
            .map(|told| told.join().unwrap())
    });
    let expected = [(0, 1105), (2, 1159), (2, 1159)];
    for ((number, code, text), expected) in told.into_iter().zip(expected) {
        assert_eq!((number, code), expected, "{text}");
        assert!(text.contains("mysql.login_within"), "{text}");
    }
}

/// What comes of a login with a password, of which the server knows nothing or all.
fn proves_a_password(server: &Server, port: u16, is_known: bool) -> Came {
    if !is_known {
        server.ask("FLUSH PRIVILEGES");
    }
    let mut client = oracle("mysql").unwrap();
    client
        .args(["-h127.0.0.1", "-ueve", "-psecret", "-e", ""])
        .args(["--ssl-mode=DISABLED", "--get-server-public-key"])
        .arg(format!("-P{port}"));
    match client.output().unwrap().status.success() {
        true => Came::In,
        false => Came::Ended,
    }
}

#[test]
fn my_3_my_5_c_11_a_proof_of_a_password_that_ends_anywhere_ends_for_both() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    server.ask("CREATE USER eve@'%' IDENTIFIED BY 'secret'");
    let (near, passing) = between(server.port);
    let port = free_port();
    let url = format!("127.0.0.1:{port}=mysql://localhost:{near}?ssl-mode=DISABLED");
    let sidecar = Setup::new().policy(POLICY).flag("--mysql", &url).start();
    let mut ended = 0;
    // With the key of the server and the whole password, and without.
    for (is_known, least) in [(false, 12), (true, 8)] {
        passing.lock().unwrap().cut = None;
        assert_eq!(proves_a_password(&server, port, is_known), Came::In);
        let said = {
            let passing = passing.lock().unwrap();
            [
                (Way::ToServer, points(&passing.to_server)),
                (Way::ToSidecar, points(&passing.to_sidecar)),
            ]
        };
        let before = ended;
        for (way, points) in said {
            for point in points.into_iter().step_by(3) {
                passing.lock().unwrap().cut = Some((way, point));
                // Of its goodbye nothing has to arrive.
                let came = proves_a_password(&server, port, is_known);
                ended += u64::from(came != Came::In);
                until("it to be counted", || {
                    (refused(&sidecar) >= ended).then_some(())
                });
                assert_eq!(refused(&sidecar), ended, "{is_known} {way:?} {point}");
            }
        }
        assert!(ended - before >= least, "{ended}");
    }
}
