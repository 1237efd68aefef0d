//! Connections that end badly leave nothing behind: no descriptor, and no task.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use socket2::SockRef;

use crate::http2::Http2Origin;
use crate::support::authority::{Authority, Dates};
use crate::support::http2_wire::{CANCEL, DATA, END_STREAM, GOAWAY, Http2, NO_FLAGS, RST_STREAM};
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::{HANDSHAKE, Wire};
use crate::support::{PATIENCE, until, until_within};

/// Connections that end badly, unless `OPENBOX_TEST_LEAKS` asks for more of them.
const BADLY_ENDED: usize = 500;

/// What a connection has come to when its client is gone.
type Way = fn(&World) -> TcpStream;

#[rustfmt::skip]
const WAYS: [(&str, Way); 54] = [
    ("nothing said",                 |world| world.said(b"")),
    ("half a head",                  |world| world.said(b"GET http://origin.test/ HTT")),
    ("a malformed head",             |world| world.said(b"GET  / HTTP/1.1\r\n\r\n")),
    ("half a body",                  |world| world.asked("POST", "/echo", &[("transfer-encoding", "chunked")], "ff\r\nhalf")),
    ("an answer nobody reads",       |world| world.asked_there("/bytes/3000000")),
    ("an answer nobody waits for",   |world| world.asked_there("/wait/never")),
    ("a stream in the middle",       |world| world.asked_there("/events/never")),
    ("a judged stream",              |world| world.asked_there("/events/never/judged")),
    ("waiting for a person",         |world| world.asked("GET", "/started/require_approval", &[], "")),
    ("a tunnel nobody speaks in",    |world| world.tunneled(b"")),
    ("half a request in a tunnel",   |world| world.tunneled(b"POST /echo HTTP/1.1\r\nhost: ")),
    ("half a TLS handshake",         |world| world.tunneled(b"\x16\x03\x01\x02\x00\x01\x00\x01")),
    ("half of SOCKS",                |world| world.said(b"\x05\x01\x00\x05\x01")),
    ("a WebSocket",                  |world| world.upgraded("/ws", b"\x81\xff\x00")),
    ("a judged WebSocket",           |world| world.upgraded("/judged", b"\x01\x85\x00\x00\x00\x00he")),
    // The origin is who ends it.
    ("no head of an answer",         |world| world.broken_off("/dies/mute")),
    ("half a head of an answer",     |world| world.broken_off("/dies/head")),
    ("half an answer",               |world| world.broken_off("/dies/body")),
    ("half a chunk of an answer",    |world| world.broken_off("/dies/chunk")),
    ("half an answer, and a reset",  |world| world.broken_off("/dies/reset")),
    ("TLS that the origin ends",     |world| world.refused_there(&world.deaf, "/x")),
    // Intercepted.
    ("TLS nobody speaks in",         |world| world.secured(b"")),
    ("half a head in TLS",           |world| world.secured(b"GET / HTT")),
    ("half a body in TLS",           |world| world.over_tls(&world.secure, "POST", "/echo", "ff\r\nhalf")),
    ("TLS that nobody reads",        |world| world.there_over_tls("/bytes/3000000")),
    ("TLS that nobody waits for",    |world| world.there_over_tls("/wait/never")),
    ("a stream in TLS",              |world| world.there_over_tls("/events/never")),
    ("waiting for a person in TLS",  |world| world.over_tls(&world.secure, "GET", "/started/require_approval", "")),
    // HTTP/2, intercepted.
    ("HTTP/2 nobody asks in",        |world| world.multiplexed().into_socket()),
    ("half a head of HTTP/2",        |world| world.streams(|http| http.half_a_head(1))),
    ("what is no HTTP/2",            |world| world.streams(|http| http.say(DATA, NO_FLAGS, 0, b"x"))),
    ("a stream reset at once",       |world| world.streams(|http| { http.get(1, "/never"); http.say(RST_STREAM, NO_FLAGS, 1, &CANCEL); })),
    ("a stream waited for",          |world| world.streams(|http| http.get(1, "/never"))),
    ("a stream for a person",        |world| world.streams(|http| { http.get(1, "/started/require_approval"); http.say(RST_STREAM, NO_FLAGS, 1, &CANCEL); })),
    ("amid an answer",               |world| world.amid("/drip")),
    ("amid one nobody reads",        |world| world.amid("/large")),
    ("a stream reset amid one",      |world| world.streams(|http| { http.get(1, "/drip"); http.up_to(DATA, 1); http.say(RST_STREAM, NO_FLAGS, 1, &CANCEL); })),
    ("GOAWAY amid one",              |world| world.streams(|http| { http.get(1, "/drip"); http.up_to(DATA, 1); http.say(GOAWAY, NO_FLAGS, 0, &[0; 8]); })),
    ("amid a body",                  |world| world.streams(|http| { http.post(1, "/never/upload", &[]); http.say(DATA, NO_FLAGS, 1, b"half"); })),
    ("a body reset",                 |world| world.streams(|http| { http.post(1, "/never/upload", &[]); http.say(DATA, NO_FLAGS, 1, b"half"); http.say(RST_STREAM, NO_FLAGS, 1, &CANCEL); })),
    ("half a message of gRPC",       |world| world.streams(|http| { http.post(1, "/never/upload", &GRPC); http.say(DATA, NO_FLAGS, 1, b"\0\0\0\0\x09half"); })),
    ("a call of gRPC",               |world| world.streams(|http| { http.post(1, "/drip", &GRPC); http.say(DATA, END_STREAM, 1, b"\0\0\0\0\x04full"); http.up_to(DATA, 1); })),
    ("a stream the origin resets",   |world| world.ended_there("/reset")),
    ("a connection it drops",        |world| world.ended_there("/lost")),
    // Tunnels of the kinds that are left.
    ("HTTP/2 in the clear",          |world| { let mut http = world.in_the_clear(); http.get(1, "/drip"); http.up_to(DATA, 1); http.into_socket() }),
    ("half a body of it",            |world| { let mut http = world.in_the_clear(); http.post(1, "/never/upload", &[]); http.say(DATA, NO_FLAGS, 1, b"half"); http.into_socket() }),
    ("passed, nobody speaks",        |world| world.passed(b"")),
    ("passed, half a handshake",     |world| world.passed(b"\x16\x03\x01\x02\x00\x01\x00\x01")),
    ("passed, nobody waits",         |world| world.over_passed("/wait/never")),
    ("passed, nobody reads",         |world| world.over_passed("/bytes/3000000")),
    ("SOCKS nobody speaks in",       |world| world.socks(&world.site).socket),
    ("half a body over SOCKS",       |world| { let mut wire = world.socks(&world.site); wire.say(head("POST", &world.site, "/echo", "ff\r\nhalf")); wire.socket }),
    ("SOCKS that nobody waits for",  |world| { let wire = world.socks(&world.secure).secured(world.sidecar.client_config(), world.secure.name); heard(wire, &world.secure, "/wait/never") }),
    ("SOCKS, passed",                |world| { let wire = world.socks(&world.passed).secured(world.trusting.clone(), world.passed.name); heard(wire, &world.passed, "/wait/never") }),
];

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A request as it is within a tunnel to `origin`; what has a body has it in chunks.
fn head(method: &str, origin: &Origin, path: &str, body: &str) -> String {
    let chunked = match body {
        "" => "",
        _ => "transfer-encoding: chunked\r\n",
    };
    let host = origin.authority();
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{chunked}\r\n{body}")
}

/// Asks for `path` on `wire`, which leads to `origin`, and waits until it has heard that: whether the sidecar had come so
/// far by itself would be chance.
fn heard(mut wire: Wire, origin: &Origin, path: &str) -> TcpStream {
    let before = origin.times(path);
    wire.say(head("GET", origin, path, ""));
    until_heard(origin, path, before);
    wire.socket
}

fn until_heard(origin: &Origin, path: &str, before: usize) {
    until("the origin to hear of it", || {
        (origin.times(path) > before).then_some(())
    });
}

struct World {
    sidecar: Sidecar,
    site: Origin,
    /// Switches protocols, or dies as the path says.
    odd: Origin,
    secure: Origin,
    /// Ends every handshake.
    deaf: Origin,
    /// Its TLS is not intercepted.
    passed: Origin,
    http2: Http2Origin,
    http2_plain: Http2Origin,
    /// What trusts the origins themselves.
    trusting: Arc<ClientConfig>,
}

impl World {
    fn said(&self, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.sidecar.http).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    }

    fn asked(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> TcpStream {
        self.said(request(method, &self.site.url(path), fields, body).as_bytes())
    }

    /// The origin has heard of it.
    fn asked_there(&self, path: &str) -> TcpStream {
        let before = self.site.times(path);
        let socket = self.asked("GET", path, &[], "");
        until_heard(&self.site, path, before);
        socket
    }

    fn tunneled(&self, bytes: &[u8]) -> TcpStream {
        let mut wire = self.sidecar.tunnel(&self.site);
        wire.say(bytes);
        wire.socket
    }

    fn upgraded(&self, path: &str, bytes: &[u8]) -> TcpStream {
        let mut wire = self.sidecar.wire();
        wire.say(request("GET", &self.odd.url(path), &HANDSHAKE, ""));
        assert_eq!(wire.answer().status(), 101);
        wire.say(bytes);
        wire.socket
    }

    /// What became of the answer is read to its end, whatever that is.
    fn broken_off(&self, path: &str) -> TcpStream {
        let mut wire = self.sidecar.wire();
        let fields = [("connection", "close")];
        wire.say(request("GET", &self.odd.url(path), &fields, ""));
        wire.rest();
        wire.socket
    }

    fn secured(&self, bytes: &[u8]) -> TcpStream {
        let mut wire = self.sidecar.tls_tunnel(&self.secure);
        // An empty one shakes hands all the same.
        wire.say(bytes);
        wire.socket
    }

    fn over_tls(&self, origin: &Origin, method: &str, path: &str, body: &str) -> TcpStream {
        let mut wire = self.sidecar.tls_tunnel(origin);
        wire.say(head(method, origin, path, body));
        wire.socket
    }

    /// The origin has heard of it.
    fn there_over_tls(&self, path: &str) -> TcpStream {
        heard(self.sidecar.tls_tunnel(&self.secure), &self.secure, path)
    }

    /// Said to be nothing that can be had there.
    fn refused_there(&self, origin: &Origin, path: &str) -> TcpStream {
        let mut wire = self.sidecar.tls_tunnel(origin);
        wire.say(head("GET", origin, path, ""));
        assert_eq!(wire.answer().status(), 502);
        wire.socket
    }

    fn multiplexed(&self) -> Http2 {
        let authority = &self.http2.authority;
        let mut config = ClientConfig::clone(&self.sidecar.client_config());
        config.alpn_protocols = vec![b"h2".to_vec()];
        let wire = self.sidecar.tunnel_to(authority);
        let name = authority.split(':').next().unwrap();
        let wire = wire.secured(Arc::new(config), name);
        Http2::over(wire, "https", authority.clone())
    }

    fn streams(&self, what: impl FnOnce(&mut Http2)) -> TcpStream {
        let mut http = self.multiplexed();
        what(&mut http);
        http.into_socket()
    }

    fn amid(&self, path: &str) -> TcpStream {
        self.streams(|http| {
            http.get(1, path);
            http.up_to(DATA, 1);
        })
    }

    /// A stream that the origin breaks off once another one says so.
    fn ended_there(&self, path: &str) -> TcpStream {
        self.streams(|http| {
            http.get(1, path);
            http.up_to(DATA, 1);
            http.get(3, "/now");
            http.up_to(RST_STREAM, 1);
        })
    }

    fn in_the_clear(&self) -> Http2 {
        let authority = &self.http2_plain.authority;
        Http2::over(self.sidecar.tunnel_to(authority), "http", authority.clone())
    }

    fn passed(&self, bytes: &[u8]) -> TcpStream {
        let mut wire = self.sidecar.tunnel(&self.passed);
        wire.say(bytes);
        wire.socket
    }

    fn over_passed(&self, path: &str) -> TcpStream {
        let wire = self.sidecar.tunnel(&self.passed);
        let wire = wire.secured(self.trusting.clone(), self.passed.name);
        heard(wire, &self.passed, path)
    }

    /// What SOCKS has led to `origin`.
    fn socks(&self, origin: &Origin) -> Wire {
        let mut wire = self.sidecar.wire();
        let length = u8::try_from(origin.name.len()).unwrap();
        let port = origin.address.port().to_be_bytes();
        let to = [
            b"\x05\x01\x00\x03",
            &[length][..],
            origin.name.as_bytes(),
            &port,
        ]
        .concat();
        wire.say(b"\x05\x01\x00");
        assert_eq!(wire.exactly(2), b"\x05\x00");
        wire.say(to);
        assert_eq!(wire.exactly(10)[..2], *b"\x05\x00");
        wire
    }

    /// Descriptors and tasks of the sidecar once no connection is open.
    fn left(&self) -> Left {
        until("every connection to be given up", || {
            (self.sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
        let folder = format!("/proc/{}/fd", self.sidecar.running.child.id());
        Left {
            descriptors: std::fs::read_dir(folder).unwrap().count(),
            tasks: self.sidecar.metric("openbox_tasks"),
        }
    }

    /// Waits until there is no more of anything than `before`.
    fn settled(&self, before: &Left) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = self.left();
            if now.descriptors <= before.descriptors && now.tasks <= before.tasks {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "before {before:?}, left {now:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a process has of what may be left behind.
#[derive(Debug)]
struct Left {
    descriptors: usize,
    tasks: u64,
}

/// Ends each of `sockets` as the way it has a number says: in good order, by a
/// reset, or by closing only the side that speaks.
fn end(socket: TcpStream, number: usize) -> Option<TcpStream> {
    match number % 3 {
        0 => None,
        1 => {
            let reset = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            reset.unwrap();
            None
        }
        _ => {
            drop(socket.shutdown(std::net::Shutdown::Write));
            Some(socket)
        }
    }
}

/// Switches protocols, or dies as the path says.
fn odd(mut wire: Wire) {
    let Some(request) = wire.request() else {
        return;
    };
    let said = match request.head.path() {
        "/dies/mute" => "",
        "/dies/head" => "HTTP/1.1 200 OK\r\ncontent-le",
        "/dies/chunk" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf",
        "/dies/body" | "/dies/reset" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        _ => {
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"
        }
    };
    drop(wire.try_say(said));
    if request.head.path() == "/dies/reset" {
        let reset = SockRef::from(&wire.socket).set_linger(Some(Duration::ZERO));
        reset.unwrap();
    } else if !request.head.path().starts_with("/dies") {
        wire.rest();
    }
}

fn world() -> World {
    let setup = Setup::new();
    let authority = Authority::new();
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let trusting = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let site = Origin::site();
    let odd = Origin::raw(|wire, _| odd(wire));
    let secure = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let mut deaf = Origin::raw(|_, _| ());
    (deaf.name, deaf.scheme) = ("secure.test", "https");
    let mut passed = Origin::site_tls(authority.server("passed.test", Dates::Current));
    passed.name = "passed.test";
    let http2 = Http2Origin::secure(&setup, &authority, &[]);
    let http2_plain = Http2Origin::plain();
    // What is kept for later is no leak, and would hide one.
    let config = "http:\n  idle_upstreams_max: 0\n  judge_each: [\"*/judged\", \"*/events/never/judged\"]\n  hold_within: 2s\n  passthrough: [passed.test]\napprovals:\n  open_max: 100000\n";
    let mut setup = setup.policy(AS_THE_PATH_SAYS).config(config);
    for origin in [&site, &odd, &secure, &deaf, &passed] {
        setup = setup.reach(origin);
    }
    for origin in [&http2, &http2_plain] {
        setup = setup.flag("--resolve", &format!("{}=127.0.0.1", origin.authority));
    }
    World {
        sidecar: setup.trust(&authority).start(),
        site,
        odd,
        secure,
        deaf,
        passed,
        http2,
        http2_plain,
        trusting: Arc::new(trusting),
    }
}

#[test]
fn connections_that_end_badly_leave_nothing_behind() {
    let said = std::env::var_os("OPENBOX_TEST_LEAKS");
    let count = said.map_or(BADLY_ENDED, |said| said.to_str().unwrap().parse().unwrap());
    let world = world();
    let idle = world.left();
    // Each once, so that what is opened once is open.
    for (number, (_, way)) in WAYS.iter().enumerate() {
        drop(end(way(&world), number));
    }
    until_within(PATIENCE * 2, "each to be given up", || {
        (world.sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
    let before = Left {
        // None is begun once for all.
        tasks: idle.tasks,
        ..world.left()
    };
    let mut half_closed = Vec::new();
    for number in 0..count {
        let (_, way) = WAYS[number % WAYS.len()];
        half_closed.extend(end(way(&world), number / WAYS.len()));
        if half_closed.len() > 30 {
            half_closed.clear();
        }
    }
    drop(half_closed);
    world.settled(&before);
    assert_eq!(world.sidecar.get(&world.site.url("/hello")).status(), 200);
}
