//! What a run does: its options, and what they come to before the first connection.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::client::{self, Connection};
use crate::content::{self, Content};
use crate::loopback::Loopback;
use crate::tally::Tally;
use crate::tls::{self, ALPN_HTTP_1_1, ALPN_HTTP_2};

/// Longest wait for one connection or one response.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Pause after an error, so that a peer that is down is not hammered.
pub(crate) const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// Longest run, seconds, warm-up included.
const SECONDS_MAX: f64 = 600.0;

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
    /// Requests in flight on each connection (HTTP/2 modes)
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// What is asked for, and sent (HTTP/1.1 modes)
    #[arg(long, value_enum, default_value = "small")]
    content: Content,
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
pub(crate) enum Mode {
    /// Plain HTTP, keep-alive
    Plain,
    /// HTTPS, keep-alive
    Tls,
    /// HTTPS, a new connection and a full handshake for every request
    TlsNew,
    /// HTTP/2 over TLS
    H2,
    /// Calls of gRPC that are answered with one message
    GrpcUnary,
    /// Calls of gRPC that are answered with many messages
    GrpcStream,
}

impl Mode {
    pub(crate) fn is_tls(self) -> bool {
        self != Self::Plain
    }

    pub(crate) fn is_multiplexed(self) -> bool {
        match self {
            Self::Plain | Self::Tls | Self::TlsNew => false,
            Self::H2 | Self::GrpcUnary | Self::GrpcStream => true,
        }
    }
}

/// What every connection needs to know.
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    /// host:port of the origin, as requests name it.
    pub(crate) authority: String,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What every answer must be.
    pub(crate) answer: Vec<u8>,
    pub(crate) measured_from: Instant,
    dial: Loopback,
    /// `Some` when there is a proxy: the CONNECT that opens a tunnel through it.
    connect: Option<Vec<u8>>,
    target: Target,
    end: Instant,
    requests_max: usize,
}

enum Target {
    Same(Vec<u8>),
    Unique { before: String, after: String },
}

impl Plan {
    pub(crate) fn new(options: Options) -> Result<Self, String> {
        let Options {
            mode,
            proxy,
            origin,
            host,
            ca,
            content,
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
        if content != Content::Small && (options.unique || mode.is_multiplexed()) {
            return Err("large bodies are for HTTP/1.1 and like requests".to_owned());
        }
        let authority = format!("{host}:{}", origin.0.port());
        let headers = client::header_lines(&options.proxy_header);
        let tls = if mode.is_tls() {
            let ca = ca.ok_or("the TLS modes need --ca")?;
            let name = ServerName::try_from(host)
                .map_err(|_| "the host is neither a name nor an address".to_owned())?;
            let protocols: &[&[u8]] = if mode.is_multiplexed() {
                &[ALPN_HTTP_2, ALPN_HTTP_1_1]
            } else {
                &[]
            };
            Some((tls::client_config(&ca, protocols)?, name))
        } else {
            None
        };
        let connect =
            (proxy.is_some() && tls.is_some()).then(|| client::connect_to(&authority, &headers));
        let (prefix, headers) = if proxy.is_some() && tls.is_none() {
            (format!("http://{authority}"), headers)
        } else {
            (String::new(), String::new())
        };
        let after = format!(
            " HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: loadgen\r\nAccept: */*\r\n{headers}"
        );
        let target = if options.unique {
            // Unique across runs too: what a proxy remembers of an earlier burst must not help.
            let run = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_err(|error| error.to_string())?
                .as_nanos();
            Target::Unique {
                before: format!("GET {prefix}{}/{run:x}", content::SMALL_PATH),
                after: format!("{after}\r\n"),
            }
        } else {
            Target::Same(content.request(&prefix, &after))
        };
        let now = Instant::now();
        Ok(Self {
            mode,
            connections: options.connections.max(1),
            streams: options.streams.max(1),
            dial: proxy.unwrap_or(origin),
            authority,
            connect,
            tls,
            target,
            answer: content.answer(),
            measured_from: now + Duration::from_secs_f64(warmup),
            end: now + Duration::from_secs_f64(length),
            requests_max: options.requests.unwrap_or(usize::MAX),
        })
    }

    /// Whether another request is to be made.
    pub(crate) fn goes_on(&self, tally: &Tally) -> bool {
        Instant::now() < self.end && tally.measured() < self.requests_max
    }

    pub(crate) fn write_request(&self, buffer: &mut Vec<u8>, worker: usize, number: usize) {
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
    pub(crate) async fn open(&self) -> Result<Connection<TcpStream>, String> {
        match &self.connect {
            None => client::dial(self.dial).await,
            Some(connect) => client::tunnel(self.dial, connect).await,
        }
    }
}
