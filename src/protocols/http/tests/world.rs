//! A proxy with a scripted policy, an origin that says what it is told, and a
//! client that speaks bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::domain::{Context, Timestamp};
use crate::gate::{self, Gate};
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::net::authority::Authority;
use crate::net::dial::{self, Dialer};
use crate::net::listen;
use crate::net::mint::{self, Mint};
use crate::net::tls::{self, Upstreams};
use crate::net::trust::Roots;
use crate::policy::PolicyBackend;
use crate::process::{DrainTrigger, Workers, drain};
use crate::protocols::captured::Databases;
use crate::session::{self, Registry, registry::Unattributed};
use crate::state::Store;

use super::super::canary::Told;
use super::super::{Doors, HttpProxy, Parts, Settings};

/// For what must happen, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a test needs, on loopback.
pub(super) struct World {
    pub(super) proxy: SocketAddr,
    pub(super) gate: Gate,
    folder: tempfile::TempDir,
    _drain: DrainTrigger,
}

impl World {
    pub(super) async fn new(backend: impl PolicyBackend + 'static) -> Self {
        let settings = Settings {
            treatment: super::super::Treatment {
                hold_within: Duration::from_millis(300),
                ..super::super::Treatment::default()
            },
            capture_within: Duration::from_millis(200),
            ..Settings::default()
        };
        Self::with(backend, settings).await
    }

    pub(super) async fn with(backend: impl PolicyBackend + 'static, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&journal::Settings {
            sync_within: Duration::from_millis(50),
            ..journal::Settings::new(folder.path())
        });
        let own = Context {
            workflow_id: "own".into(),
            run_id: "own-run".into(),
            workflow_type: "sidecar".into(),
            task_queue: "sidecar".into(),
            activity: None,
        };
        let registry = Registry::new(
            session::Settings {
                own,
                unattributed: Unattributed::Session,
                runs_max: 10,
                activities_max: 10,
                contexts_max: 10,
                context_lives: Duration::from_secs(60),
                callers: crate::net::caller::Callers::Unknown,
            },
            Timestamp(1),
        );
        let (gate, housekeeping) = Gate::new(gate::Parts {
            backend: Arc::new(backend),
            journal: journal.unwrap(),
            state: Store::nowhere(),
            registry: Arc::new(registry),
            metrics: Arc::new(Metrics::new().unwrap()),
            settings: gate::Settings {
                judge_within: Duration::from_secs(5),
                approval_lives: Duration::from_secs(60),
                holds_max: 100,
                reports_max: 100,
                fail_mode: gate::FailMode::Closed,
                fail_closed_for: [].into(),
                constraints: gate::Constraints::Advisory,
                halt_scope: gate::HaltScope::Run,
                govern: gate::Govern::Both,
                unasked: gate::Unasked::default(),
                unheld: gate::Unheld::default(),
                count_after: None,
            },
        });
        crate::process::spawn_named("housekeeping", housekeeping.run());
        let dialing = dial::Settings {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            ..dial::Settings::default()
        };
        let roots = Roots::read(&[]).unwrap();
        let mint = Mint::new(Authority::ephemeral().unwrap(), &mint::Settings::default());
        let dialer = Dialer::new(dialing, Vec::new());
        let proxy = HttpProxy::new(Parts {
            settings,
            gate: gate.clone(),
            dialer: dialer.clone(),
            source: dial::Source::Own,
            tls: Upstreams::new(&roots, &tls::Settings::default()).unwrap(),
            mint: Arc::new(mint.unwrap()),
            workers: Arc::new(Workers::here()),
            agent_token: None,
            spill_folder: std::env::temp_dir(),
            told: Told::default(),
        });
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let (trigger, drain) = drain::channel();
        crate::process::spawn_named(
            "proxy",
            proxy.run(
                Doors {
                    open: Some(listener),
                    captured: Vec::new(),
                    databases: Databases::new(dialer),
                },
                drain,
            ),
        );
        Self {
            proxy: address,
            gate,
            folder,
            _drain: trigger,
        }
    }

    /// Sends `request` in one write and reads one answer.
    pub(super) async fn say(&self, request: &str) -> String {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        hear(&mut client).await
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy).await.unwrap()
    }

    pub(super) fn journal(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.folder.path().join("journal.jsonl")).unwrap();
        // Behind the last line another one may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until `decisions` are those: that of a completion is written a moment later.
    pub(super) async fn decided(&self, expected: &[&str]) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.decisions() != expected && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.decisions(), expected);
    }

    /// `record` and `decision` of each journal line.
    pub(super) fn decisions(&self) -> Vec<String> {
        let word = |line: &serde_json::Value, name: &str| {
            line.get(name)
                .and_then(|v| v.as_str())
                .unwrap_or("")
                .to_owned()
        };
        self.journal()
            .iter()
            .filter(|line| line.get("decision").is_some())
            .map(|line| format!("{} {}", word(line, "record"), word(line, "decision")))
            .collect()
    }
}

/// What comes until an answer is whole, or the end.
pub(super) async fn hear(client: &mut TcpStream) -> String {
    hear_until(client, is_whole).await
}

/// What comes until it is `enough`, or the end; what there is after 20 s of silence.
pub(super) async fn hear_until(client: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut heard = Vec::new();
    let mut piece = vec![0; 65_536];
    loop {
        match tokio::time::timeout(PATIENCE, client.read(&mut piece)).await {
            Ok(Ok(read)) if read > 0 => heard.extend_from_slice(&piece[..read]),
            _ => return String::from_utf8_lossy(&heard).into_owned(),
        }
        let text = String::from_utf8_lossy(&heard);
        if enough(&text) {
            return text.into_owned();
        }
    }
}

/// Whether the last answer that begins in `heard` is there to its end, and is not on the way to one.
pub(super) fn is_whole(heard: &str) -> bool {
    let Some(last) = heard.rfind("HTTP/1.1 ").map(|at| &heard[at..]) else {
        return false;
    };
    let Some((head, body)) = last.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    if head.starts_with("http/1.1 1") {
        return false;
    }
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.split("content-length: ").nth(1);
    let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    body.len() >= length
}

/// An origin that answers every request with the same bytes.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Origin {
    /// Answers once the head of a request (and `body_bytes` of a body) is there.
    pub(super) async fn saying(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        crate::process::spawn_named("origin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                crate::process::spawn_named(
                    "origin-connection",
                    serve(stream, answer, log.clone()),
                );
            }
        });
        Self { address, heard }
    }

    /// Everything that reached it.
    pub(super) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

async fn serve(mut stream: TcpStream, answer: &'static str, log: Arc<Mutex<Vec<u8>>>) {
    let mut request = Vec::new();
    let mut piece = vec![0; 65_536];
    while let Ok(read) = stream.read(&mut piece).await {
        if read == 0 {
            return;
        }
        request.extend_from_slice(&piece[..read]);
        log.lock().unwrap().extend_from_slice(&piece[..read]);
        while let Some(end) = whole_request(&request) {
            request.drain(..end);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn whole_request(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let head = text.find("\r\n\r\n")? + 4;
    if text[..head].contains("transfer-encoding: chunked") {
        return text[head..].find("0\r\n\r\n").map(|at| head + at + 5);
    }
    let length = text[..head]
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok())
        .unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}
