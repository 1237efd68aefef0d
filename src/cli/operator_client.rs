//! The operator API as the command line calls it: finding a running sidecar,
//! one request, and what to tell a person when it cannot be had.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;

use crate::app;
use crate::config::{self, Flags, For, Problems, Source};
use crate::control::auth::Token;

/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for an answer: a policy may take its time to load.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest answer read, bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest silence of a stream: it shows every 15 s that it is there.
const SILENT_WITHIN: Duration = Duration::from_secs(60);
/// Longest line of a stream, bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest `operator.json` read, bytes.
const DISCOVERY_BYTES_MAX: u64 = 8 * 1024;

/// Which sidecar is meant.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Target {
    /// Configuration file of the sidecar [env: OPENBOX_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<String>,
    /// State folder of the sidecar [env: OPENBOX_STATE_DIR; key: state_dir]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// Operator API, where it is not to be found in the state folder
    #[arg(long, value_name = "URL", requires = "operator_token_file")]
    operator_url: Option<String>,
    /// File with the operator's token
    #[arg(long, value_name = "FILE", requires = "operator_url")]
    operator_token_file: Option<PathBuf>,
}

/// A sidecar's operator API.
#[derive(Debug)]
pub(super) struct Operator {
    /// `host:port`.
    authority: String,
    token: Token,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The configuration, which names the state folder, has problems.
    Config(Problems),
    /// No sidecar runs with this state folder.
    NotRunning(PathBuf),
    /// What the flags say cannot be used.
    Flags(String),
    /// The sidecar did not answer.
    NoAnswer { authority: String, why: String },
    /// The sidecar said no.
    Refused { status: u16, detail: String },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::NotRunning(folder) => write!(
                f,
                "no sidecar is running with the state folder {}; start one, name its folder with \
                 --state-dir, or say --operator-url and --operator-token-file",
                folder.display()
            ),
            Self::Flags(what) => f.write_str(what),
            Self::NoAnswer { authority, why } => {
                write!(f, "no answer from the operator API at {authority}: {why}")
            }
            Self::Refused { status: 401, .. } => f.write_str(
                "the sidecar refused the token; it is another sidecar's, or of one that has ended",
            ),
            Self::Refused { detail, .. } => f.write_str(&shown(detail)),
        }
    }
}

/// `operator.json`.
#[derive(Deserialize)]
struct Discovery {
    url: String,
    token: String,
    pid: Option<u32>,
    /// Where the HTTP proxy listens, if it does.
    #[serde(default)]
    http: Option<SocketAddr>,
}

impl Target {
    /// The sidecar that is meant.
    pub(super) fn find(&self, env: &Source) -> Result<Operator, ClientError> {
        if let (Some(url), Some(file)) = (&self.operator_url, &self.operator_token_file) {
            let token = Token::read(file).map_err(|error| ClientError::Flags(error.to_string()))?;
            let authority = authority(url).ok_or_else(|| {
                ClientError::Flags(format!(
                    "--operator-url: \"{}\" is not the address of an operator API; expected, for example, http://127.0.0.1:15810",
                    shown(url)
                ))
            })?;
            return Ok(Operator { authority, token });
        }
        let mut flags = Flags::default();
        for (name, value) in [("--config", &self.config), ("--state-dir", &self.state_dir)] {
            if let Some(value) = value {
                flags.push(name, value.clone());
            }
        }
        let config = config::check(&flags, env, For::Serve).map_err(ClientError::Config)?;
        let folder = config.state_dir;
        newest_live(&folder).ok_or(ClientError::NotRunning(folder))
    }
}

/// The sidecar that last announced itself and still answers, of those that
/// share the state folder and those of `run` inside it.
fn newest_live(folder: &Path) -> Option<Operator> {
    announcements(folder).iter().find_map(|file| {
        let operator = announced(file)?;
        operator.connect().ok().map(|_| operator)
    })
}

/// Where the HTTP proxy of the sidecar that last announced itself listens, of the same ones.
pub(super) fn newest_proxy(folder: &Path) -> Option<SocketAddr> {
    announcements(folder).iter().find_map(|file| {
        let said = discovery(file)?;
        said.http.filter(|_| said.pid.is_none_or(is_alive))
    })
}

/// The files by which sidecars announce themselves, the newest first.
fn announcements(folder: &Path) -> Vec<PathBuf> {
    let inside = fs::read_dir(folder.join("runs")).into_iter().flatten();
    let folders = inside.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<(SystemTime, PathBuf)> = std::iter::once(folder.to_path_buf())
        .chain(folders)
        .map(|folder| app::operator_file(&folder))
        .filter_map(|file| Some((fs::metadata(&file).ok()?.modified().ok()?, file)))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, file)| file).collect()
}

fn announced(file: &Path) -> Option<Operator> {
    let said = discovery(file)?;
    let alive = said.pid.is_none_or(is_alive);
    let authority = authority(&said.url).filter(|_| alive)?;
    let token = Token::new(said.token).ok()?;
    Some(Operator { authority, token })
}

fn discovery(file: &Path) -> Option<Discovery> {
    let mut text = String::new();
    let opened = fs::File::open(file).ok()?;
    opened
        .take(DISCOVERY_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether a process has this id, where the system tells.
fn is_alive(pid: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(pid.to_string()).exists()
}

fn authority(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let parsed: http::uri::Authority = rest.parse().ok()?;
    let plain = parsed.port_u16().is_some() && !rest.contains('@');
    plain.then(|| rest.to_owned())
}

impl Operator {
    /// `GET path`.
    pub(super) fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("GET", path, "")
    }

    /// `POST path` with a JSON body.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask("POST", path, &body.to_string())
    }

    /// `PUT path` with a JSON body.
    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask("PUT", path, &body.to_string())
    }

    /// Shows `visit` the data of each server-sent event of `path`, those after `after`
    /// first, until the stream ends.
    pub(super) fn follow(
        &self,
        path: &str,
        after: Option<u64>,
        visit: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let no_answer = |why: String| ClientError::NoAnswer {
            authority: self.authority.clone(),
            why,
        };
        let io = |error: io::Error| no_answer(error.to_string());
        let mut stream = self.connect().map_err(io)?;
        let after = after.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        // HTTP/1.0: the body then has no framing of its own.
        let request = zeroize::Zeroizing::new(format!(
            "GET {path} HTTP/1.0\r\nhost: {}\r\nauthorization: Bearer {}\r\n{after}\r\n",
            self.authority,
            self.token.expose(),
        ));
        stream.write_all(request.as_bytes()).map_err(io)?;
        stream.set_read_timeout(Some(SILENT_WITHIN)).map_err(io)?;
        let mut lines = BufReader::new(stream).take(u64::MAX);
        let mut line = String::new();
        let mut began = false;
        loop {
            line.clear();
            lines.set_limit(LINE_BYTES_MAX);
            if lines.read_line(&mut line).map_err(io)? == 0 {
                return Ok(());
            }
            if !began {
                began = true;
                match line.split(' ').nth(1) {
                    Some("200") => {}
                    Some(status) => {
                        return Err(ClientError::Refused {
                            status: status.parse().unwrap_or(0),
                            detail: format!("the stream was answered {status}"),
                        });
                    }
                    None => return Err(no_answer("what answers there is no sidecar".to_owned())),
                }
            } else if let Some(data) = line.strip_prefix("data: ") {
                visit(data.trim_end()).map_err(io)?;
            }
        }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, ClientError> {
        let no_answer = |why: String| ClientError::NoAnswer {
            authority: self.authority.clone(),
            why,
        };
        let answer = self.exchange(method, path, body);
        let answer = answer.map_err(|error| no_answer(error.to_string()))?;
        let not_ours = || no_answer("what answers there is no sidecar".to_owned());
        let (status, body) = parts(&answer).ok_or_else(not_ours)?;
        let json: Value = serde_json::from_str(body).map_err(|_| not_ours())?;
        if (200..300).contains(&status) {
            return Ok(json);
        }
        let detail = json.get("detail").and_then(Value::as_str);
        Err(ClientError::Refused {
            status,
            detail: detail.unwrap_or_default().to_owned(),
        })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> io::Result<String> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let request = zeroize::Zeroizing::new(format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.authority,
            self.token.expose(),
            body.len(),
        ));
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// Status and body of an answer that ends with its connection.
fn parts(answer: &str) -> Option<(u16, &str)> {
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body))
}

/// `text` as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                segment.push(char::from(byte));
            }
            byte => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

/// `text` without what would move a terminal's cursor: agents choose it.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if is_safe(c) { c } else { '\u{fffd}' })
        .collect()
}

/// Neither a control character nor one that turns the direction of text.
fn is_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A string of an answer, fit to be shown.
pub(super) fn text(json: &Value, key: &str) -> String {
    shown(json.get(key).and_then(Value::as_str).unwrap_or_default())
}

/// Columns as wide as their widest cell; the last one as it is.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[path = "operator_client_tests.rs"]
mod tests;
