//! A real MariaDB or MySQL on a folder and a port of its own, and a client of their
//! protocol that sees every packet.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, free_port, until};

/// A server; stopped, and its folder removed, when dropped.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a MariaDB with a user `bob` without a password, and a database `shop`,
    /// with these arguments.
    pub(crate) fn start(more: &[&str]) -> Self {
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--innodb-log-file-size=4M"])
            .args(more);
        Self::begin(command, Self::mariadb_folder())
    }

    /// With the data of a MariaDB.
    fn mariadb_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        initialised("mariadb", &folder.path().join("data"), |data| {
            let mut command = Command::new("mariadb-install-db");
            command
                .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                .args(["--skip-test-db", "--user=root"])
                .arg(format!("--datadir={}", data.display()));
            command
        });
        folder
    }

    /// The same with a MariaDB of 11.4 or newer, which has TLS without a certificate of
    /// anybody's, where `scripts/needs.sh` found one.
    pub(crate) fn start_newer() -> Option<Self> {
        let mut command = newer("mariadbd")?;
        command.args(files_of("mariadb11", "share/mariadb"));
        // At an address, too, that its clients do not take for this machine's.
        let at = "127.0.0.1,127.0.0.2";
        Some(Self::listening_at(at, command, Self::mariadb_folder()))
    }

    /// The same with Oracle's MySQL, where `scripts/needs.sh` found one.
    pub(crate) fn start_oracle(more: &[&str]) -> Option<Self> {
        let mut begun = oracle("mysqld")?;
        let folder = tempfile::tempdir().unwrap();
        initialised("mysql9", &folder.path().join("data"), |data| {
            let mut command = oracle("mysqld").unwrap();
            command
                .args(files_of("mysql9", "share/mysql"))
                .args(["--initialize-insecure", "--user=root"])
                .arg(format!("--datadir={}", data.display()));
            command
        });
        begun
            .args(files_of("mysql9", "share/mysql"))
            // Its own folder for files is the machine's.
            .args(["--secure-file-priv=", "--mysqlx=OFF", "--skip-log-bin"])
            .arg(format!("--pid-file={}", folder.path().join("p").display()))
            .args(more);
        Some(Self::begin(begun, folder))
    }

    fn begin(command: Command, folder: tempfile::TempDir) -> Self {
        Self::listening_at("127.0.0.1", command, folder)
    }

    fn listening_at(at: &str, mut command: Command, folder: tempfile::TempDir) -> Self {
        let port = free_port();
        let child = command
            .args(["--user=root", "--skip-name-resolve"])
            .arg(format!(
                "--datadir={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--socket={}", folder.path().join("s").display()))
            .args([format!("--port={port}"), format!("--bind-address={at}")])
            .args(["--innodb-buffer-pool-size=16M", "--max-allowed-packet=64M"])
            .args(["--innodb-flush-log-at-trx-commit=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("scripts/needs.sh was not run");
        let server = Self {
            child,
            folder,
            port,
        };
        until("the server to answer", || {
            let ran = server.cli("SELECT 1");
            ran.status.success().then_some(())
        });
        server.ask(
            "CREATE USER bob@'%'; GRANT ALL ON *.* TO bob@'%'; CREATE DATABASE shop; USE shop;
             CREATE TABLE t (id int PRIMARY KEY, x longtext); CREATE TABLE forbidden (id int);
             CREATE TABLE held (id int)",
        );
        server
    }

    /// Where it listens on this machine.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("s")
    }

    fn cli(&self, sql: &str) -> std::process::Output {
        Command::new("mariadb")
            .args(["--no-defaults", "-uroot", "-N", "-B", "-e", sql])
            .arg(format!("-S{}", self.path().display()))
            .output()
            .expect("scripts/needs.sh was not run")
    }

    /// What the server says to `sql`, asked directly.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let ran = self.cli(sql);
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{sql}: {err}");
        String::from_utf8_lossy(&ran.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("a server of a test could not be stopped: {error}");
        }
    }
}

/// A program of Oracle's MySQL, where there is one.
pub(crate) fn oracle(program: &str) -> Option<Command> {
    from_sid("mysql9", program)
}

/// A program of a MariaDB of 11.4 or newer, where there is one.
pub(crate) fn newer(program: &str) -> Option<Command> {
    from_sid("mariadb11", program)
}

fn from_sid(folder: &str, program: &str) -> Option<Command> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let run = tools.join(folder).join("run");
    if !run.exists() {
        eprintln!("not run: there is no .tools/{folder}");
        return None;
    }
    let mut command = Command::new(run);
    command.args([program, "--no-defaults"]);
    Some(command)
}

/// Where the server of this folder finds what it looks for in the machine's otherwise.
fn files_of(folder: &str, shared: &str) -> Vec<String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools");
    let root = tools.join(folder).join("usr");
    let files = [
        ("basedir", String::new()),
        ("lc-messages-dir", shared.to_owned()),
        ("character-sets-dir", format!("{shared}/charsets")),
        ("plugin-dir", "lib/mysql/plugin".to_owned()),
    ];
    let files = files.map(|(what, at)| format!("--{what}={}", root.join(at).display()));
    files.into()
}

/// A fresh data folder: a copy of one of this name that is made once for all tests.
fn initialised(name: &str, data: &Path, install: impl FnOnce(&Path) -> Command) {
    let template = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // One at a time within this process; others are told apart by their number.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    if !template.exists() {
        let made = data.with_extension("new");
        let ran = install(&made).output();
        let ran = ran.expect("scripts/needs.sh was not run");
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{err}");
        let part = template.with_extension(std::process::id().to_string());
        copy(&made, &part);
        if std::fs::rename(&part, &template).is_err() {
            std::fs::remove_dir_all(&part).unwrap();
        }
    }
    copy(&template, data);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) number: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    /// The code and the text of an error.
    pub(crate) fn error(&self) -> (u16, String) {
        assert_eq!(self.body[0], 0xff, "{self:?}");
        let code = u16::from_le_bytes([self.body[1], self.body[2]]);
        (code, String::from_utf8_lossy(&self.body[3..]).into_owned())
    }

    pub(crate) fn is_error(&self) -> bool {
        self.body.first() == Some(&0xff)
    }
}

/// What a client of the tests can: databases, several statements and results.
pub(crate) const CAPABILITIES: u32 = 0x000f_a20f & !1;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
}

impl Client {
    /// A socket on which nothing has been said.
    pub(crate) fn open(port: u16) -> Self {
        let socket = until("the port to open", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket }
    }

    /// `bob` in `shop`.
    pub(crate) fn connect(port: u16) -> Self {
        Self::connect_as(port, "bob")
    }

    /// Somebody without a password in `shop`.
    pub(crate) fn connect_as(port: u16, user: &str) -> Self {
        let mut client = Self::open(port);
        let greeting = client.next().unwrap();
        assert_eq!((greeting.number, greeting.body[0]), (0, 10), "{greeting:?}");
        client.send(1, &login(CAPABILITIES, user));
        let mut answer = client.next().unwrap();
        let mut number = 2;
        // Another proof of nothing, as Oracle's server wants it.
        if answer.body[0] == 0xfe {
            client.send(3, b"\0");
            (answer, number) = (client.next().unwrap(), 4);
        }
        assert_eq!((answer.number, answer.body[0]), (number, 0), "{answer:?}");
        client
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if let Err(error) = self.socket.write_all(bytes) {
            eprintln!("not sent: {error}");
        }
    }

    pub(crate) fn send(&mut self, number: u8, body: &[u8]) {
        self.raw(&frame(number, body));
    }

    /// The next frame; `None` where the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Packet> {
        let mut head = [0; 4];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server said nothing for {PATIENCE:?}")
            }
            Err(_) => return None,
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.socket.read_exact(&mut body).unwrap();
        Some(Packet {
            number: head[3],
            body,
        })
    }

    /// Sends a command, and reads its answer up to the packet that ends it.
    pub(crate) fn command(&mut self, body: &[u8]) -> Vec<Packet> {
        self.send(0, body);
        self.answer()
    }

    pub(crate) fn query(&mut self, sql: &str) -> Vec<Packet> {
        self.command(&[b"\x03", sql.as_bytes()].concat())
    }

    /// An answer; each packet has the number that is next.
    pub(crate) fn answer(&mut self) -> Vec<Packet> {
        self.answer_from(1)
    }

    pub(crate) fn answer_from(&mut self, first: u8) -> Vec<Packet> {
        let mut all: Vec<Packet> = Vec::new();
        let (mut begin, mut rows) = (true, false);
        loop {
            let packet = self.next().expect("the connection has ended");
            let number = first.wrapping_add(u8::try_from(all.len() % 256).unwrap());
            assert_eq!(packet.number, number, "{all:?}");
            let body = &packet.body;
            let ends_part = body[0] == 0xfe && body.len() < 9;
            let status = match (begin, ends_part) {
                (true, false) if body[0] == 0 => Some(body[3]),
                (_, true) if rows || begin => Some(body[3]),
                _ => None,
            };
            let failed = packet.is_error();
            (begin, rows) = match status {
                Some(_) => (true, false),
                None => (false, rows || ends_part),
            };
            all.push(packet);
            if failed || status.is_some_and(|status| status & 8 == 0) {
                return all;
            }
        }
    }

    /// The first column of the rows of a query that must succeed.
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<String> {
        let answer = self.query(sql);
        let last = answer.last().unwrap();
        assert!(!last.is_error(), "{sql}: {:?}", last.error());
        let ends = answer.iter().position(|packet| packet.body[0] == 0xfe);
        let Some(begin) = ends else { return Vec::new() };
        let rows = answer[begin + 1..].iter();
        let rows = rows.take_while(|packet| packet.body[0] != 0xfe);
        rows.map(|row| {
            let length = usize::from(row.body[0]);
            String::from_utf8_lossy(&row.body[1..=length]).into_owned()
        })
        .collect()
    }

    /// The refusal of a query that must be refused.
    pub(crate) fn refusal(&mut self, sql: &str) -> String {
        let answer = self.query(sql);
        let (code, text) = answer.last().unwrap().error();
        assert_eq!(code, 1227, "{text}");
        text
    }

    /// The number of a statement that is prepared.
    pub(crate) fn prepare(&mut self, sql: &str) -> u32 {
        self.prepares(sql).unwrap()
    }

    /// The same, or the code and the text of the error.
    pub(crate) fn prepares(&mut self, sql: &str) -> Result<u32, (u16, String)> {
        self.send(0, &[b"\x16", sql.as_bytes()].concat());
        self.prepared()
    }

    /// What the server says of the next statement that it was asked to prepare.
    pub(crate) fn prepared(&mut self) -> Result<u32, (u16, String)> {
        let first = self.next().unwrap();
        if first.is_error() {
            return Err(first.error());
        }
        if first.body.len() < 12 {
            return Err((0, "nothing was prepared".to_owned()));
        }
        let count =
            |at: usize| usize::from(u16::from_le_bytes([first.body[at], first.body[at + 1]]));
        for count in [count(7), count(5)] {
            // Each list has its end.
            for _ in 0..if count > 0 { count + 1 } else { 0 } {
                self.next().unwrap();
            }
        }
        let body = &first.body;
        Ok(u32::from_le_bytes([body[1], body[2], body[3], body[4]]))
    }
}

pub(crate) fn frame(number: u8, body: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&[a, b, c, number], body].concat()
}

/// The login of somebody without a password, to `shop`.
pub(crate) fn login(capabilities: u32, user: &str) -> Vec<u8> {
    let mut body = capabilities.to_le_bytes().to_vec();
    body.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    body.push(45);
    body.extend_from_slice(&[0; 23]);
    body.extend_from_slice(user.as_bytes());
    body.extend_from_slice(b"\0\0shop\0mysql_native_password\0");
    body
}

/// An execution of a prepared statement without values.
pub(crate) fn execute(number: u32) -> Vec<u8> {
    [&b"\x17"[..], &number.to_le_bytes(), b"\0\x01\0\0\0"].concat()
}
