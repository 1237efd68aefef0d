//! A real Redis on a folder and a port of its own, and a client of its
//! protocol that sees every reply.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, free_port, until};

/// A server; stopped, and its folder removed, when dropped.
pub(crate) struct Server {
    child: Child,
    _folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Starts one that keeps nothing and knows nobody, with these arguments.
    pub(crate) fn start(more: &[&str]) -> Self {
        let mut command = Command::new("redis-server");
        command
            .args(["--save", "", "--appendonly", "no"])
            .args(more);
        Self::begin(command, tempfile::tempdir().unwrap())
    }

    /// Starts a Valkey, where `scripts/needs.sh` found one.
    pub(crate) fn start_valkey() -> Option<Self> {
        Self::from_sid("valkey", "valkey-server")
    }

    /// Starts a Redis of today, where `scripts/needs.sh` found one.
    pub(crate) fn start_redis_8() -> Option<Self> {
        Self::from_sid("redis8", "redis-server")
    }

    fn from_sid(folder: &str, program: &str) -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
        let run = tools.join(folder).join("run");
        if !run.exists() {
            eprintln!("not run: there is no .tools/{folder}");
            return None;
        }
        let mut command = Command::new(run);
        command.args([program, "--save", "", "--appendonly", "no"]);
        Some(Self::begin(command, tempfile::tempdir().unwrap()))
    }

    /// Starts a Sentinel that keeps its configuration in this folder's `file`.
    pub(crate) fn start_sentinel(file: &Path, folder: tempfile::TempDir) -> Self {
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel");
        Self::begin(command, folder)
    }

    fn begin(mut command: Command, folder: tempfile::TempDir) -> Self {
        let port = free_port();
        let child = command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", &folder.path().display().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("scripts/needs.sh was not run");
        let server = Self {
            child,
            _folder: folder,
            port,
        };
        // `-NOAUTH` is an answer, too.
        until("the server to answer", || {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
            socket.write_all(b"PING\r\n").ok()?;
            let mut byte = [0];
            socket.read_exact(&mut byte).ok()
        });
        server
    }

    /// The reply to `line`, asked directly.
    pub(crate) fn ask(&self, line: &str) -> Reply {
        Client::connect(self.port).ask(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("a Redis of a test could not be stopped: {error}");
        }
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Text(String),
    Null,
    /// An array, a set, a map, one after the other.
    Many(Vec<Self>),
    Push(Vec<Self>),
    /// The connection has ended.
    End,
}

impl Reply {
    pub(crate) fn error(&self) -> &str {
        let Self::Error(text) = self else {
            panic!("no error: {self:?}")
        };
        text
    }

    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Error(text) if text.starts_with("NOPERM "))
    }
}

pub(crate) fn simple(text: &str) -> Reply {
    Reply::Simple(text.into())
}

pub(crate) fn text(text: &str) -> Reply {
    Reply::Text(text.into())
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Self {
        let socket = until("the port to open", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket: BufReader::new(socket),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends to a server that may be gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.socket.get_mut().write_all(bytes) {
            eprintln!("not sent: {error}");
        }
    }

    /// Sends commands, one a line, all at once.
    pub(crate) fn say(&mut self, lines: &[&str]) {
        let all: Vec<_> = lines.iter().map(|line| command(line)).collect();
        self.send(all.concat());
    }

    /// The reply to one command.
    pub(crate) fn ask(&mut self, line: &str) -> Reply {
        self.say(&[line]);
        self.next()
    }

    /// The replies to commands that are sent all at once.
    pub(crate) fn all(&mut self, lines: &[&str]) -> Vec<Reply> {
        self.say(lines);
        lines.iter().map(|_| self.next()).collect()
    }

    /// Everything until the connection ends, as it came.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.socket.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The type of what comes next.
    pub(crate) fn kind(&mut self) -> char {
        char::from(self.socket.fill_buf().unwrap()[0])
    }

    pub(crate) fn next(&mut self) -> Reply {
        let mut line = Vec::new();
        match self.socket.read_until(b'\n', &mut line) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server said nothing for {PATIENCE:?}")
            }
            Err(_) | Ok(0) => return Reply::End,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (kind, rest) = line.split_at(1);
        let count = || rest.parse::<i64>().unwrap();
        match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Integer(count()),
            "_" => Reply::Null,
            "," | "#" | "(" => Reply::Simple(rest.into()),
            "$" | "*" if count() < 0 => Reply::Null,
            "$" | "=" => {
                let mut bytes = vec![0; usize::try_from(count()).unwrap() + 2];
                self.socket.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            "*" | "~" => Reply::Many((0..count()).map(|_| self.next()).collect()),
            "%" => Reply::Many((0..count() * 2).map(|_| self.next()).collect()),
            ">" => Reply::Push((0..count()).map(|_| self.next()).collect()),
            // About the reply behind it.
            "|" => {
                (0..count() * 2).for_each(|_| drop(self.next()));
                self.next()
            }
            other => panic!("a reply of type {other}: {line}"),
        }
    }
}

/// A command of the words of a line.
pub(crate) fn command(line: &str) -> Vec<u8> {
    let words: Vec<_> = line.split(' ').collect();
    array(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
}

pub(crate) fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
