//! Origins: one that does what its paths say, and raw ones that do whatever a
//! test wants to see survived.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

use super::PATIENCE;
use super::wire::{Message, Wire};

/// Where the listener is, under which name, and what has reached it.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'static str,
    pub(crate) scheme: &'static str,
    shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    connections: AtomicUsize,
    heard: Mutex<Vec<Message>>,
    acknowledged: Mutex<HashSet<String>>,
    changed: Condvar,
}

impl Shared {
    /// How many there have been, this one included.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn log(&self, request: &Message) {
        self.heard.lock().unwrap().push(request.clone());
    }

    pub(crate) fn acknowledge(&self, what: &str) {
        self.acknowledged.lock().unwrap().insert(what.to_owned());
        self.changed.notify_all();
    }

    /// Whether that was acknowledged in time.
    pub(crate) fn wait_for(&self, what: &str) -> bool {
        let known = self.acknowledged.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(known, PATIENCE, |known| !known.contains(what));
        !waited.unwrap().1.timed_out()
    }
}

impl Origin {
    /// `serve` gets every connection on a thread of its own.
    pub(crate) fn raw(serve: impl Fn(Wire, &Shared) + Send + Sync + 'static) -> Self {
        Self::listening("origin.test", "http", serve, |socket| {
            Some(Wire::over(socket))
        })
    }

    /// The same behind TLS; a handshake that fails is no connection.
    pub(crate) fn raw_tls(
        config: Arc<ServerConfig>,
        serve: impl Fn(Wire, &Shared) + Send + Sync + 'static,
    ) -> Self {
        Self::listening("secure.test", "https", serve, move |socket| {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, socket.try_clone().unwrap());
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).ok()?;
            }
            Some(Wire::with(Box::new(stream), socket))
        })
    }

    /// See [`site`].
    pub(crate) fn site() -> Self {
        Self::raw(keep_serving)
    }

    pub(crate) fn site_tls(config: Arc<ServerConfig>) -> Self {
        Self::raw_tls(config, keep_serving)
    }

    /// Reads one request, answers these bytes, closes.
    pub(crate) fn saying(answer: &'static [u8]) -> Self {
        Self::raw(move |mut wire, shared| {
            if let Some(request) = wire.request() {
                shared.log(&request);
                drop(wire.try_say(answer));
            }
        })
    }

    fn listening(
        name: &'static str,
        scheme: &'static str,
        serve: impl Fn(Wire, &Shared) + Send + Sync + 'static,
        open: impl Fn(TcpStream) -> Option<Wire> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (served, open) = (Arc::new(serve), Arc::new(open));
        let kept = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (serve, open, shared) = (served.clone(), open.clone(), kept.clone());
                std::thread::spawn(move || {
                    if let Some(wire) = socket.ok().and_then(|socket| open(socket)) {
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        serve(wire, &shared);
                    }
                });
            }
        });
        Self {
            address,
            name,
            scheme,
            shared,
        }
    }

    /// `http://origin.test:PORT` and the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority())
    }

    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.name, self.address.port())
    }

    /// `--resolve` of a sidecar that is to find it.
    pub(crate) fn resolve(&self) -> String {
        format!("{}=127.0.0.1", self.authority())
    }

    /// Every request so far.
    pub(crate) fn heard(&self) -> Vec<Message> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// How many requests for `path` so far.
    pub(crate) fn times(&self, path: &str) -> usize {
        let heard = self.heard();
        heard.iter().filter(|m| m.head.path() == path).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Waits until the origin has acknowledged `what`.
    pub(crate) fn wait_for(&self, what: &str) {
        assert!(self.shared.wait_for(what), "{what} was not acknowledged");
    }

    /// Lets `/events/{what}` and `/wait/{what}` go on.
    pub(crate) fn acknowledge(&self, what: &str) {
        self.shared.acknowledge(what);
    }
}

fn keep_serving(mut wire: Wire, shared: &Shared) {
    let connection = shared.connections();
    while let Some(head) = wire.head() {
        if head.get("expect").is_some() {
            wire.say("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Some(request) = wire.body(&head, false) else {
            return;
        };
        shared.log(&request);
        if site(&mut wire, &request, shared, connection).is_err() {
            return;
        }
    }
}

/// Answers as the path says: `/bytes/N`, `/status/N`, `/chunked`, `/echo`,
/// `/events/ID` (its second event waits for `/ack/ID`), `/typed` (events all at once), `/wait/ID`;
/// anything else is a line of text.
fn site(
    wire: &mut Wire,
    request: &Message,
    shared: &Shared,
    connection: usize,
) -> std::io::Result<()> {
    let path = request.head.path();
    let (route, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let mut head = format!("HTTP/1.1 200 OK\r\nx-connection: {connection}\r\n");
    let (kind, body) = match route {
        "bytes" => ("application/octet-stream", pattern(rest.parse().unwrap())),
        "echo" => ("application/json", echo(request)),
        "status" => {
            // Without a length a body would last until the connection ends; these two have none.
            let length = match rest {
                "204" | "304" => "",
                _ => "content-length: 0\r\n",
            };
            return wire.try_say(format!(
                "HTTP/1.1 {rest} Whatever\r\netag: \"x\"\r\n{length}\r\n"
            ));
        }
        "chunked" => {
            head.push_str(
                "content-type: text/plain\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n",
            );
            head.push_str("5\r\nfirst\r\n6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n");
            return wire.try_say(head);
        }
        "events" => {
            head.push_str("content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            wire.try_say(format!("{head}d\r\ndata: first\n\n\r\n"))?;
            // Some are never acknowledged.
            let _ = shared.wait_for(rest);
            return wire.try_say("e\r\ndata: second\n\n\r\n0\r\n\r\n");
        }
        "typed" => ("text/event-stream", b"data: all\n\n".to_vec()),
        "wait" => {
            // Some are never acknowledged.
            let _ = shared.wait_for(rest);
            ("text/plain", b"waited".to_vec())
        }
        "ack" => {
            shared.acknowledge(rest);
            ("text/plain", b"acknowledged".to_vec())
        }
        _ => ("text/plain", format!("hello from {path}").into_bytes()),
    };
    write!(
        head,
        "content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut answer = head.into_bytes();
    if request.head.method() != "HEAD" {
        answer.extend(body);
    }
    wire.try_say(answer)
}

fn echo(request: &Message) -> Vec<u8> {
    let head = &request.head;
    let value = serde_json::json!({
        "method": head.method(),
        "path": head.path(),
        "fields": head.fields,
        "trailers": request.trailers,
        "bytes": request.body.len(),
        "sha256": sha256(&request.body),
        "text": String::from_utf8_lossy(&request.body[..request.body.len().min(200)]),
    });
    value.to_string().into_bytes()
}

/// `count` bytes that every client can make up as well.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|i| u8::try_from((i * 31 + 7) % 251).unwrap())
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
