//! Connections that end badly leave nothing behind: no descriptor, and no task that
//! holds a connection.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar, request};
use crate::support::wire::Wire;
use crate::support::{PATIENCE, until, until_within};

/// Connections that end badly, unless `OPENBOX_TEST_LEAKS` asks for more of them.
const BADLY_ENDED: usize = 500;

const ASK: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// What a connection has come to when its client is gone.
type Way = fn(&World) -> TcpStream;

#[rustfmt::skip]
const WAYS: [(&str, Way); 15] = [
    ("nothing said",                 |world| world.said(b"")),
    ("half a head",                  |world| world.said(b"GET http://origin.test/ HTT")),
    ("a malformed head",             |world| world.said(b"GET  / HTTP/1.1\r\n\r\n")),
    ("half a body",                  |world| world.asked("POST", "/echo", &[("transfer-encoding", "chunked")], "ff\r\nhalf")),
    ("an answer nobody reads",       |world| world.asked("GET", "/bytes/3000000", &[], "")),
    ("an answer nobody waits for",   |world| world.asked("GET", "/wait/never", &[], "")),
    ("a stream in the middle",       |world| world.asked("GET", "/events/never", &[], "")),
    ("a judged stream",              |world| world.asked("GET", "/events/never/judged", &[], "")),
    ("waiting for a person",         |world| world.asked("GET", "/started/require_approval", &[], "")),
    ("a tunnel nobody speaks in",    |world| world.tunneled(b"")),
    ("half a request in a tunnel",   |world| world.tunneled(b"POST /echo HTTP/1.1\r\nhost: ")),
    ("half a TLS handshake",         |world| world.tunneled(b"\x16\x03\x01\x02\x00\x01\x00\x01")),
    ("half of SOCKS",                |world| world.said(b"\x05\x01\x00\x05\x01")),
    ("a WebSocket",                  |world| world.upgraded("/ws", b"\x81\xff\x00")),
    ("a judged WebSocket",           |world| world.upgraded("/judged", b"\x01\x85\x00\x00\x00\x00he")),
];

struct World {
    sidecar: Sidecar,
    site: Origin,
    sockets: Origin,
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

    fn tunneled(&self, bytes: &[u8]) -> TcpStream {
        let mut wire = self.sidecar.tunnel(&self.site);
        wire.say(bytes);
        wire.socket
    }

    fn upgraded(&self, path: &str, bytes: &[u8]) -> TcpStream {
        let mut wire = self.sidecar.wire();
        wire.say(request("GET", &self.sockets.url(path), &ASK, ""));
        assert_eq!(wire.answer().status(), 101);
        wire.say(bytes);
        wire.socket
    }

    /// Descriptors of the sidecar once no connection is open.
    fn descriptors(&self) -> usize {
        until("every connection to be given up", || {
            (self.sidecar.metric("openbox_connections_open") == 0).then_some(())
        });
        let folder = format!("/proc/{}/fd", self.sidecar.running.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }
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

#[test]
fn connections_that_end_badly_leave_nothing_behind() {
    let said = std::env::var_os("OPENBOX_TEST_LEAKS");
    let count = said.map_or(BADLY_ENDED, |said| said.to_str().unwrap().parse().unwrap());
    let sockets = Origin::raw(|mut wire: Wire, _| {
        if wire.request().is_some() {
            drop(wire.try_say("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"));
            wire.rest();
        }
    });
    let site = Origin::site();
    // What is kept for later is no leak, and would hide one.
    let config = "http:\n  idle_upstreams_max: 0\n  judge_each: [\"*/judged\", \"*/events/never/judged\"]\n  hold_within: 2s\napprovals:\n  open_max: 100000\n";
    let setup = Setup::new().policy(AS_THE_PATH_SAYS).config(config);
    let world = World {
        sidecar: setup.reach(&site).reach(&sockets).start(),
        site,
        sockets,
    };
    // Each once, so that what is opened once is open.
    for (number, (_, way)) in WAYS.iter().enumerate() {
        drop(end(way(&world), number));
    }
    until_within(PATIENCE * 2, "each to be given up", || {
        (world.sidecar.metric("openbox_connections_open") == 0).then_some(())
    });
    let before = world.descriptors();
    let mut half_closed = Vec::new();
    for number in 0..count {
        let (_, way) = WAYS[number % WAYS.len()];
        half_closed.extend(end(way(&world), number / WAYS.len()));
        if half_closed.len() > 30 {
            half_closed.clear();
        }
    }
    drop(half_closed);
    until("the descriptors to be closed", || {
        (world.descriptors() <= before).then_some(())
    });
    assert_eq!(world.sidecar.get(&world.site.url("/hello")).status(), 200);
}
