//! HTTP/2 by hand, as much of it as a client needs that begins and breaks off.

use std::net::TcpStream;

use super::wire::Wire;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;

pub(crate) const NO_FLAGS: u8 = 0;
pub(crate) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `CANCEL`, as RST_STREAM says it.
pub(crate) const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// One connection, which has said its preface and settings.
pub(crate) struct Http2 {
    wire: Wire,
    scheme: &'static str,
    authority: String,
}

impl Http2 {
    pub(crate) fn over(mut wire: Wire, scheme: &'static str, authority: String) -> Self {
        wire.say(PREFACE);
        let mut begun = Self {
            wire,
            scheme,
            authority,
        };
        begun.say(SETTINGS, NO_FLAGS, 0, b"");
        begun
    }

    pub(crate) fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.wire.say([&head, payload].concat());
    }

    fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let place = [
            (":method", method),
            (":scheme", self.scheme),
            (":authority", &self.authority),
            (":path", path),
        ];
        let mut block = Vec::new();
        for (name, value) in place.iter().chain(fields) {
            // A literal that no table keeps.
            block.push(0);
            for text in [name, value] {
                let length = u8::try_from(text.len()).unwrap();
                assert!(length < 127, "{text} is too long for one byte of length");
                block.push(length);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    pub(crate) fn get(&mut self, stream: u32, path: &str) {
        let block = self.request("GET", path, &[]);
        self.say(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    }

    /// A request whose body is still to come.
    pub(crate) fn post(&mut self, stream: u32, path: &str, fields: &[(&str, &str)]) {
        let block = self.request("POST", path, fields);
        self.say(HEADERS, END_HEADERS, stream, &block);
    }

    /// The first part of a head alone.
    pub(crate) fn half_a_head(&mut self, stream: u32) {
        let block = self.request("GET", "/never", &[]);
        self.say(HEADERS, END_STREAM, stream, &block[..block.len() / 2]);
    }

    /// Reads up to a frame of this kind on `stream`, which must come.
    pub(crate) fn up_to(&mut self, kind: u8, stream: u32) {
        loop {
            let head = self.wire.exactly(9);
            let [a, b, c, of, _, s, t, r, m] = head[..] else {
                panic!("the connection ended before a frame of kind {kind} on stream {stream}");
            };
            let length = u32::from_be_bytes([0, a, b, c]);
            self.wire.exactly(usize::try_from(length).unwrap());
            if of == kind && u32::from_be_bytes([s, t, r, m]) == stream {
                return;
            }
        }
    }

    /// The socket beneath: whoever drops it breaks off.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.wire.socket
    }
}
