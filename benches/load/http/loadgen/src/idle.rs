//! Tunnels that were used once and then rest, so that what each costs the proxy can be read off its memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{self, Connection, Expect};
use crate::content::Content;
use crate::loopback::Loopback;
use crate::tls;

const TUNNELS_MAX: usize = 20_000;
/// Longest wait for one tunnel or one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct Options {
    /// Forward proxy to go through
    #[arg(long)]
    proxy: Loopback,
    /// host:port of the origin, which speaks TLS
    #[arg(long)]
    authority: String,
    /// Authority to trust, PEM
    #[arg(long)]
    ca: PathBuf,
    /// What is asked for in each
    #[arg(long, value_enum, default_value = "small")]
    content: Content,
    /// Tunnels
    #[arg(long, default_value_t = 1_000)]
    tunnels: usize,
}

/// A JSON line: one when all rest, and one when each has been used again, which the end of standard input asks for.
#[derive(Serialize)]
struct Report<'a> {
    event: &'a str,
    tunnels: usize,
    /// That are lost, or were answered with something else.
    failed: usize,
    first_error: Option<String>,
}

type Tunnel = Connection<TlsStream<TcpStream>>;

/// Opens the tunnels one after the other, and keeps them until standard input ends.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    if options.tunnels > TUNNELS_MAX {
        return Err(format!("at most {TUNNELS_MAX} tunnels"));
    }
    let visit = Visit::new(&options)?;
    let mut open = Vec::with_capacity(options.tunnels);
    let mut report = Report {
        event: "resting",
        tunnels: options.tunnels,
        failed: 0,
        first_error: None,
    };
    for _ in 0..options.tunnels {
        open.push(within(visit.begin(options.proxy)).await?);
    }
    report.print()?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while orders.next_line().await.is_ok_and(|line| line.is_some()) {}
    report.event = "end";
    for tunnel in &mut open {
        if let Err(error) = within(visit.ask(tunnel)).await {
            report.failed(error);
        }
    }
    report.print()
}

/// What is done in a tunnel.
struct Visit {
    connect: Vec<u8>,
    request: Vec<u8>,
    answer: Vec<u8>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Visit {
    fn new(options: &Options) -> Result<Self, String> {
        let authority = &options.authority;
        let host = authority.split(':').next().unwrap_or_default();
        let after =
            format!(" HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: loadgen\r\nAccept: */*\r\n");
        Ok(Self {
            connect: client::connect_to(authority, ""),
            request: options.content.request("", &after),
            answer: options.content.answer(),
            config: tls::client_config(&options.ca, &[])?,
            name: ServerName::try_from(host.to_owned())
                .map_err(|_| "the host is neither a name nor an address".to_owned())?,
        })
    }

    async fn begin(&self, proxy: Loopback) -> Result<Tunnel, String> {
        let connection = client::tunnel(proxy, &self.connect).await?;
        let config = Arc::clone(&self.config);
        let mut tunnel = client::secure(connection, config, self.name.clone()).await?;
        self.ask(&mut tunnel).await?;
        Ok(tunnel)
    }

    async fn ask(&self, tunnel: &mut Tunnel) -> Result<(), String> {
        let expected = Expect::Body(&self.answer);
        tunnel.exchange(&self.request, &expected).await.map(drop)
    }
}

async fn within<T>(action: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(ANSWER_WITHIN, action)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())))
}

impl Report<'_> {
    fn failed(&mut self, error: String) {
        self.failed += 1;
        self.first_error.get_or_insert(error);
    }

    fn print(&self) -> Result<(), String> {
        let line = serde_json::to_string(self).map_err(|error| error.to_string())?;
        println!("{line}");
        Ok(())
    }
}
