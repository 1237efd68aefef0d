//! HTTP/1.1 by hand, in blocking code: both what a client reads and what an
//! origin reads.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;

/// What a client asks a WebSocket for with.
pub(crate) const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A connection, in the clear or not.
pub(crate) trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

/// A connection with what was read from it and not used yet.
pub(crate) struct Wire {
    pub(crate) stream: Box<dyn Both>,
    /// The socket beneath, to close it or half of it.
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

/// First line and fields of a message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// A whole message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        Self::over(socket)
    }

    /// In the clear.
    pub(crate) fn over(socket: TcpStream) -> Self {
        let stream = socket.try_clone().unwrap();
        Self::with(Box::new(stream), socket)
    }

    pub(crate) fn with(stream: Box<dyn Both>, socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            stream,
            socket,
            read: Vec::new(),
        }
    }

    /// The same connection, with TLS as a client from here on.
    pub(crate) fn secured(self, config: Arc<ClientConfig>, host: &str) -> Self {
        assert!(self.read.is_empty(), "bytes were left before TLS");
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let session = ClientConnection::new(config, name).unwrap();
        let socket = self.socket.try_clone().unwrap();
        Self::with(Box::new(StreamOwned::new(session, self.socket)), socket)
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_say(bytes).unwrap();
    }

    pub(crate) fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// More bytes; `false` at the end of the connection, however it ended.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 16_384];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.read.extend_from_slice(&piece[..read]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("nothing came for {PATIENCE:?}; so far {:?}", self.seen())
            }
            Err(_) => false,
        }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    fn up_to(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.read.windows(end.len()).position(|w| w == end);
            if let Some(at) = found {
                return Some(self.read.drain(..at + end.len()).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Exactly `count` bytes, or fewer at the end.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count && self.fill() {}
        let count = count.min(self.read.len());
        self.read.drain(..count).collect()
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.read)
    }

    /// Whether the peer has ended the connection, and said nothing more.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// The next head; `None` where the connection ends instead.
    pub(crate) fn head(&mut self) -> Option<Head> {
        let bytes = self.up_to(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        Some(Head {
            first,
            fields: lines.map(field).collect(),
        })
    }

    /// A line without its end, of a chunked body or an event stream.
    pub(crate) fn line(&mut self) -> Option<String> {
        let bytes = self.up_to(b"\n")?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// One chunk; empty is the last.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk {line:?}"));
        if size == 0 {
            return Some(Vec::new());
        }
        let data = self.exactly(size);
        (data.len() == size && self.exactly(2) == b"\r\n").then_some(data)
    }

    /// The body behind `head`, with its trailers; `None` where it is cut short.
    pub(crate) fn body(&mut self, head: &Head, reads_to_end: bool) -> Option<Message> {
        let mut message = Message {
            head: head.clone(),
            body: Vec::new(),
            trailers: Vec::new(),
        };
        if head.is("transfer-encoding", "chunked") {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                message.body.extend(chunk);
            }
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    return Some(message);
                }
                message.trailers.push(field(&line));
            }
        }
        match head.get("content-length") {
            Some(length) => {
                let length = length.parse().unwrap();
                message.body = self.exactly(length);
                (message.body.len() == length).then_some(message)
            }
            None => {
                if reads_to_end {
                    message.body = self.rest();
                }
                Some(message)
            }
        }
    }

    /// A whole request, as an origin reads it.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let head = self.head()?;
        self.body(&head, false)
    }

    /// The next answer that is not informational.
    pub(crate) fn answer(&mut self) -> Message {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Message {
        self.try_answer_to(method)
            .expect("the answer was cut short")
    }

    pub(crate) fn try_answer_to(&mut self, method: &str) -> Option<Message> {
        loop {
            let head = self.head()?;
            let status = head.status();
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let bodiless =
                method == "HEAD" || method == "CONNECT" || [101, 204, 304].contains(&status);
            if bodiless {
                return Some(Message {
                    head,
                    body: Vec::new(),
                    trailers: Vec::new(),
                });
            }
            return self.body(&head, true);
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name)
            .is_some_and(|v| v.eq_ignore_ascii_case(value))
    }

    pub(crate) fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        let status = word.and_then(|word| word.parse().ok());
        status.unwrap_or_else(|| panic!("no status line: {:?}", self.first))
    }

    pub(crate) fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {} {:?}", self.head.first, self.text()))
    }

    /// The code of a refusal or problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
