//! A real PostgreSQL on a folder and a port of its own, and a client of its
//! protocol that sees every message.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{PATIENCE, free_port, until};

/// The user that owns the server's folder: the server does not run as root.
const UNPRIVILEGED: &str = "postgres";

/// The password of the role of the same name.
pub(crate) const PASSWORD: &str = "correct-horse";

/// A server; stopped, and its folder removed, when dropped.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Starts one whose local role `postgres` needs no password, and that knows
    /// nobody else.
    pub(crate) fn start() -> Self {
        Self::start_with("host all all all trust\n", &[])
    }

    /// Starts one with this `pg_hba.conf` and these settings.
    pub(crate) fn start_with(hba: &str, settings: &[&str]) -> Self {
        Self::start_having(hba, settings, &[])
    }

    /// Starts one that speaks TLS with this certificate, and knows clients by
    /// those of this authority; all PEM.
    pub(crate) fn start_secured(hba: &str, chain: &str, key: &str, authority: &str) -> Self {
        let settings = ["ssl = on", "ssl_ca_file = 'root.crt'"];
        let files = [
            ("server.crt", chain),
            ("server.key", key),
            ("root.crt", authority),
        ];
        Self::start_having(hba, &settings, &files)
    }

    fn start_having(hba: &str, settings: &[&str], files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let server = Self { folder, port };
        if is_root() {
            server.give_away();
        }
        let data = server.data();
        server.initialised(&data);
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        for (name, text) in files {
            server.private(&data.join(name), text);
        }
        let mut text = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nfsync = off\n\
             unix_socket_directories = '{}'\nmax_prepared_transactions = 4\n",
            server.folder.path().display()
        );
        for setting in settings {
            text.push_str(setting);
            text.push('\n');
        }
        let path = data.join("postgresql.auto.conf");
        std::fs::write(path, text).unwrap();
        server.control("start");
        server
    }

    /// A fresh data folder: a copy of one that is made once for all tests, as
    /// making one takes longer than most of them.
    fn initialised(&self, data: &Path) {
        let version = bin().parent().unwrap().file_name().unwrap().to_owned();
        let name = format!("postgres-{}", version.display());
        let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if !template.exists() {
            let (made, password) = (data.with_extension("new"), data.with_extension("password"));
            std::fs::write(&password, PASSWORD).unwrap();
            run(self.program("initdb").args([
                "--no-sync",
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                &format!("--pwfile={}", password.display()),
                &format!("--pgdata={}", made.display()),
            ]));
            // Whole or not there: several tests may make one at a time.
            let part =
                template.with_extension(std::process::id().to_string() + &self.port.to_string());
            copy(&made, &part);
            if std::fs::rename(&part, &template).is_err() {
                std::fs::remove_dir_all(&part).unwrap();
            }
        }
        copy(&template, data);
    }

    /// Writes what the server's user alone may read.
    fn private(&self, path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        run(Command::new("chmod").arg("600").arg(path));
        if is_root() {
            run(Command::new("chown").arg(UNPRIVILEGED).arg(path));
        }
    }

    /// The folder of its socket.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Whoever runs the server owns its folder.
    fn give_away(&self) {
        run(Command::new("chown")
            .arg(UNPRIVILEGED)
            .arg(self.folder.path()));
    }

    fn program(&self, name: &str) -> Command {
        let path = bin().join(name);
        if !is_root() {
            return Command::new(path);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", UNPRIVILEGED, "--clear-groups"]);
        command.arg(path);
        command.current_dir("/");
        command
    }

    fn control(&self, verb: &str) {
        run(self.program("pg_ctl").args(
            [
                &format!("--pgdata={}", self.data().display()),
                &format!("--log={}", self.folder.path().join("data/log").display()),
                "--wait",
                "--timeout=60",
                verb,
                "--mode=immediate",
            ]
            .iter()
            .filter(|arg| verb == "stop" || !arg.starts_with("--mode")),
        ));
    }

    /// The answer to `sql`, as `psql -At` prints it, asked directly.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let mut client = Client::connect(self.port, &[("user", "postgres")]);
        let rows = client.rows(sql);
        rows.iter()
            .map(|row| row.join("|"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = format!("--pgdata={}", self.data().display());
        let stopped = self
            .program("pg_ctl")
            .args([&data, "stop", "--mode=immediate"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("a PostgreSQL of a test could not be stopped: {data}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// The programs of the newest version that is installed.
fn bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("scripts/needs.sh was not run");
    let found = versions
        .filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists());
    found.max().expect("scripts/needs.sh was not run")
}

fn run(command: &mut Command) {
    let log = tempfile::NamedTempFile::new().unwrap();
    // Into a file: a server that goes on keeps a pipe open.
    let status = command
        .stdin(Stdio::null())
        .stdout(log.reopen().unwrap())
        .stderr(log.reopen().unwrap())
        .status()
        .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let said = std::fs::read_to_string(log.path()).unwrap_or_default();
    assert!(status.success(), "{command:?}: {status}\n{said}");
}

/// A message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: char,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The field `which` of an error or notice.
    pub(crate) fn field(&self, which: char) -> String {
        let mut fields = self.body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| {
            let (first, text) = field.split_first()?;
            (char::from(*first) == which).then(|| String::from_utf8_lossy(text).into_owned())
        });
        found.unwrap_or_default()
    }

    /// The body as text, for messages that are some.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .trim_end_matches('\0')
            .to_owned()
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    /// What the server said before it was ready.
    pub(crate) greeting: Vec<Message>,
}

impl Client {
    pub(crate) fn connect(port: u16, parameters: &[(&str, &str)]) -> Self {
        let mut client = Self::open(port);
        client.startup(196_608, parameters);
        client.greeting = client.until_ready();
        let refused = client.greeting.iter().find(|message| message.tag == 'E');
        assert!(refused.is_none(), "{:?}", refused.map(Message::text));
        client
    }

    /// A socket on which nothing has been said.
    pub(crate) fn open(port: u16) -> Self {
        let socket = until("the port to open", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            greeting: Vec::new(),
        }
    }

    pub(crate) fn startup(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.send(&[&length[..], &body].concat());
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next message; `None` where the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let mut head = [0; 5];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server said nothing for {PATIENCE:?}")
            }
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.socket.read_exact(&mut body).unwrap();
        Some(Message {
            tag: char::from(head[0]),
            body,
        })
    }

    /// Everything up to `ReadyForQuery`, or the end.
    pub(crate) fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next() {
            let ready = message.tag == 'Z';
            messages.push(message);
            if ready {
                break;
            }
        }
        messages
    }

    /// What a simple query is answered with.
    pub(crate) fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&message('Q', &[sql.as_bytes(), b"\0"]));
        self.until_ready()
    }

    /// The rows of a simple query that must succeed.
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let answer = self.query(sql);
        let error = answer.iter().find(|message| message.tag == 'E');
        assert!(error.is_none(), "{sql}: {}", error.unwrap().field('M'));
        let rows = answer.iter().filter(|message| message.tag == 'D');
        rows.map(|row| columns(&row.body)).collect()
    }
}

/// The tags of `messages`, without notices and settings.
pub(crate) fn tags(messages: &[Message]) -> String {
    let said = messages.iter().map(|message| message.tag);
    said.filter(|tag| !"NS".contains(*tag)).collect()
}

fn columns(body: &[u8]) -> Vec<String> {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while rest.len() >= 4 {
        let length = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
        let length = usize::try_from(length).unwrap_or(0);
        columns.push(String::from_utf8_lossy(&rest[4..4 + length]).into_owned());
        rest = &rest[4 + length..];
    }
    columns
}

/// A message of a client.
pub(crate) fn message(tag: char, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[u8::try_from(tag).unwrap()][..], &length, &body].concat()
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    message('P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"])
}

pub(crate) fn bind(portal: &str, name: &str) -> Vec<u8> {
    let (portal, name) = (portal.as_bytes(), name.as_bytes());
    message('B', &[portal, b"\0", name, b"\0\0\0\0\0\0\0"])
}

pub(crate) fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message('E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()])
}

pub(crate) fn sync() -> Vec<u8> {
    message('S', &[])
}
