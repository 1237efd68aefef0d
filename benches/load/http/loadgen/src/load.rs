//! Closed-loop load: each connection has one request in flight, and the next follows the last byte of its response.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{self, After, Connection, Expect};
use crate::loopback::Loopback;
use crate::origin;

/// Longest wait for one connection or one response.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Pause after an error, so that a peer that is down is not hammered.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// Longest run, seconds, warm-up included.
const SECONDS_MAX: f64 = 600.0;
/// Path of every request that need not be unique.
const PATH: &str = "/resource";

#[derive(Args)]
pub(crate) struct Options {
    /// What one iteration is
    #[arg(long, value_enum)]
    mode: Mode,
    /// Forward proxy to go through; without it the origin is dialed
    #[arg(long)]
    proxy: Option<Loopback>,
    /// The origin's address, dialed when there is no proxy
    #[arg(long)]
    origin: Loopback,
    /// Name of the origin in requests, and in its certificate
    #[arg(long, default_value = "origin.test")]
    host: String,
    /// Authority to trust, PEM (TLS modes)
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Connections
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Length of the measurement, seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Length of the warm-up before it, seconds
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    /// End after this many measured requests, if that comes first
    #[arg(long)]
    requests: Option<usize>,
    /// Give every request a path and query of its own
    #[arg(long)]
    unique: bool,
    /// Header line for the proxy, "Name: value": on CONNECT, and on plain requests
    #[arg(long)]
    proxy_header: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Plain HTTP, keep-alive
    Plain,
    /// HTTPS, keep-alive
    Tls,
    /// HTTPS, a new connection and a full handshake for every request
    TlsNew,
}

/// The JSON line on standard output.
#[derive(Serialize)]
struct Report {
    /// Requests measured.
    requests: usize,
    /// Requests answered in all, warm-up included: what the proxy's CPU time is divided by.
    requests_total: usize,
    errors: usize,
    first_error: Option<String>,
    /// Connections opened after the first ones because the peer announced a close.
    reconnects: usize,
    seconds: f64,
    rps: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// What every connection needs to know.
struct Plan {
    mode: Mode,
    dial: Loopback,
    /// `Some` when there is a proxy: the CONNECT that opens a tunnel through it.
    connect: Option<Vec<u8>>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    target: Target,
    body: Vec<u8>,
    measured_from: Instant,
    end: Instant,
    requests_max: usize,
}

enum Target {
    Same(Vec<u8>),
    Unique { before: String, after: String },
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    answered: usize,
    errors: usize,
    first_error: Option<String>,
    reconnects: usize,
    last: Option<Instant>,
}

/// Runs to the end and prints the report.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let connections = options.connections.max(1);
    let plan = Rc::new(Plan::new(options)?);
    let tally = Rc::new(RefCell::new(Tally::default()));
    let tasks = LocalSet::new();
    for worker in 0..connections {
        tasks.spawn_local(work(Rc::clone(&plan), Rc::clone(&tally), worker));
    }
    tasks.await;
    let report = tally.take().report(plan.measured_from);
    let line = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    println!("{line}");
    Ok(())
}

impl Plan {
    fn new(options: Options) -> Result<Self, String> {
        let Options {
            mode,
            proxy,
            origin,
            host,
            ca,
            seconds,
            warmup,
            ..
        } = options;
        let length = seconds + warmup;
        if !(seconds > 0.0 && warmup >= 0.0 && length <= SECONDS_MAX) {
            return Err(format!(
                "seconds and warm-up must be positive, at most {SECONDS_MAX} together"
            ));
        }
        let authority = format!("{host}:{}", origin.0.port());
        let proxy_headers: String = options
            .proxy_header
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let tls = match mode {
            Mode::Plain => None,
            Mode::Tls | Mode::TlsNew => {
                let ca = ca.ok_or("the TLS modes need --ca")?;
                let name = ServerName::try_from(host)
                    .map_err(|_| "the host is neither a name nor an address".to_owned())?;
                Some((crate::tls::client_config(&ca)?, name))
            }
        };
        let connect = (proxy.is_some() && tls.is_some()).then(|| {
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{proxy_headers}\r\n")
                .into_bytes()
        });
        let (prefix, headers) = if proxy.is_some() && tls.is_none() {
            (format!("http://{authority}"), proxy_headers)
        } else {
            (String::new(), String::new())
        };
        let after = format!(
            " HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: loadgen\r\nAccept: */*\r\n{headers}\r\n"
        );
        let target = if options.unique {
            // Unique across runs too: what a proxy remembers of an earlier burst must not help.
            let run = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_err(|error| error.to_string())?
                .as_nanos();
            Target::Unique {
                before: format!("GET {prefix}{PATH}/{run:x}"),
                after,
            }
        } else {
            Target::Same(format!("GET {prefix}{PATH}{after}").into_bytes())
        };
        let now = Instant::now();
        Ok(Self {
            mode,
            dial: proxy.unwrap_or(origin),
            connect,
            tls,
            target,
            body: origin::body(),
            measured_from: now + Duration::from_secs_f64(warmup),
            end: now + Duration::from_secs_f64(length),
            requests_max: options.requests.unwrap_or(usize::MAX),
        })
    }

    fn write_request(&self, buffer: &mut Vec<u8>, worker: usize, number: usize) {
        buffer.clear();
        match &self.target {
            Target::Same(request) => buffer.extend_from_slice(request),
            Target::Unique { before, after } => {
                let written = write!(buffer, "{before}/{worker}/{number}?item={number}{after}");
                debug_assert!(written.is_ok(), "a Vec takes everything");
            }
        }
    }

    /// A connection ready for plain requests, or for the TLS handshake.
    async fn open(&self) -> Result<Connection<TcpStream>, String> {
        let mut connection = client::dial(self.dial).await?;
        if let Some(connect) = &self.connect {
            connection
                .exchange(connect, &Expect::Tunnel)
                .await
                .map_err(|error| format!("CONNECT: {error}"))?;
        }
        Ok(connection)
    }
}

/// A connection of either kind.
enum Open {
    Plain(Connection<TcpStream>),
    Tls(Box<Connection<TlsStream<TcpStream>>>),
}

impl Open {
    async fn new(plan: &Plan) -> Result<Self, String> {
        let connection = plan.open().await?;
        match &plan.tls {
            None => Ok(Self::Plain(connection)),
            Some((config, name)) => {
                let connection =
                    client::secure(connection, Arc::clone(config), name.clone()).await?;
                Ok(Self::Tls(Box::new(connection)))
            }
        }
    }

    async fn exchange(&mut self, request: &[u8], body: &[u8]) -> Result<After, String> {
        match self {
            Self::Plain(connection) => exchange(connection, request, body).await,
            Self::Tls(connection) => exchange(connection, request, body).await,
        }
    }

    async fn finish(self) {
        match self {
            Self::Plain(connection) => connection.finish().await,
            Self::Tls(connection) => connection.finish().await,
        }
    }
}

async fn exchange<S>(
    connection: &mut Connection<S>,
    request: &[u8],
    body: &[u8],
) -> Result<After, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connection.exchange(request, &Expect::Body(body)).await
}

async fn work(plan: Rc<Plan>, tally: Rc<RefCell<Tally>>, worker: usize) {
    let mut open: Option<Open> = None;
    let mut request = Vec::new();
    let mut number = 0;
    while Instant::now() < plan.end && tally.borrow().latencies.len() < plan.requests_max {
        number += 1;
        plan.write_request(&mut request, worker, number);
        let begun = Instant::now();
        let outcome = timeout(ANSWER_WITHIN, async {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Open::new(&plan).await?,
            };
            let after = connection.exchange(&request, &plan.body).await?;
            Ok((connection, after))
        })
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())));
        let done = Instant::now();
        match outcome {
            Ok((connection, after)) => {
                tally.borrow_mut().answered(begun, done, plan.measured_from);
                match (plan.mode, after) {
                    (Mode::TlsNew, _) => connection.finish().await,
                    (Mode::Plain | Mode::Tls, After::Keep) => open = Some(connection),
                    (Mode::Plain | Mode::Tls, After::Close) => {
                        tally.borrow_mut().reconnects += 1;
                        connection.finish().await;
                    }
                }
            }
            Err(error) => {
                tally.borrow_mut().failed(error);
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
    if let Some(connection) = open {
        connection.finish().await;
    }
}

impl Tally {
    fn answered(&mut self, begun: Instant, done: Instant, measured_from: Instant) {
        self.answered += 1;
        if begun >= measured_from {
            self.latencies.push(done - begun);
            self.last = Some(done);
        }
    }

    /// Errors of the warm-up count too: a peer has none to give away.
    fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    fn report(mut self, measured_from: Instant) -> Report {
        self.latencies.sort_unstable();
        let seconds = self
            .last
            .map_or(0.0, |last| (last - measured_from).as_secs_f64());
        let requests = self.latencies.len();
        let count = f64::from(u32::try_from(requests).unwrap_or(u32::MAX));
        Report {
            requests,
            requests_total: self.answered,
            errors: self.errors,
            rps: if seconds > 0.0 { count / seconds } else { 0.0 },
            seconds,
            p50_us: self.percentile_us(50),
            p90_us: self.percentile_us(90),
            p99_us: self.percentile_us(99),
            max_us: self.percentile_us(100),
            first_error: self.first_error,
            reconnects: self.reconnects,
        }
    }

    /// Nearest rank, of the sorted latencies.
    fn percentile_us(&self, percent: usize) -> f64 {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies
            .get(rank - 1)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}
