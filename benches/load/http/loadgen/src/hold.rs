//! Many requests that are held, kept open, so that what each costs the proxy can be read off its memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::client;
use crate::loopback::Loopback;

/// Connections being opened at a time: below what a listener's backlog takes.
const OPENING_MAX: usize = 64;
/// Connections from one source address, so that its ports do not run out.
const PER_SOURCE: usize = 5_000;
const REQUESTS_MAX: usize = 100_000;

#[derive(Args)]
pub(crate) struct Options {
    /// Forward proxy that holds the requests
    #[arg(long)]
    proxy: Loopback,
    /// host:port in the requests
    #[arg(long, default_value = "origin.test:80")]
    authority: String,
    /// Requests to open
    #[arg(long, default_value_t = 9_000)]
    requests: usize,
    /// Longest time in all, seconds; ends earlier when standard input does
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Header line for the proxy, "Name: value"
    #[arg(long)]
    proxy_header: Vec<String>,
}

/// A JSON line: one when all are sent, one for each line read from standard input, one at the end.
#[derive(Serialize)]
struct Report<'a> {
    event: &'a str,
    sent: usize,
    failed: usize,
    /// Answers so far, by status line: none while all are held.
    answered: &'a BTreeMap<String, usize>,
    seconds: f64,
}

/// Opens the requests and keeps them until told to end.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let limit = Duration::try_from_secs_f64(options.seconds).map_err(|error| error.to_string())?;
    if options.requests > REQUESTS_MAX {
        return Err(format!("at most {REQUESTS_MAX} requests"));
    }
    match timeout(limit, hold(&options)).await {
        Ok(result) => result,
        Err(_) => Err(format!("not told to end within {} s", options.seconds)),
    }
}

async fn hold(options: &Options) -> Result<(), String> {
    let begun = Instant::now();
    let opening = Arc::new(Semaphore::new(OPENING_MAX));
    let sent = Arc::new(AtomicUsize::new(0));
    let (answers, mut answered) = mpsc::channel(options.requests.max(1));
    let headers = client::header_lines(&options.proxy_header);
    for number in 0..options.requests {
        let (opening, sent, answers) = (Arc::clone(&opening), Arc::clone(&sent), answers.clone());
        let authority = &options.authority;
        // A path of its own, or the requests would join one hold.
        let request = format!(
            "GET http://{authority}/held/{number} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: loadgen\r\nAccept: */*\r\n{headers}\r\n"
        );
        let (proxy, source) = (options.proxy, source(number));
        tokio::spawn(async move {
            let outcome = one(proxy, source, request, &opening, &sent).await;
            // Nobody listens once the report is out.
            let _unheard = answers.send(outcome).await;
        });
    }

    let mut tally = Tally {
        sent,
        begun,
        failed: 0,
        answered: BTreeMap::new(),
    };
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut reported_all = false;
    let mut check = tokio::time::interval(Duration::from_millis(20));
    loop {
        if !reported_all && tally.sent.load(Ordering::Relaxed) + tally.failed >= options.requests {
            reported_all = true;
            tally.print("sent")?;
        }
        tokio::select! {
            Some(outcome) = answered.recv() => tally.add(outcome),
            _ = check.tick(), if !reported_all => {}
            order = orders.next_line() => match order.map_err(|error| error.to_string())? {
                Some(_) => tally.print("status")?,
                None => return tally.print("end"),
            },
        }
    }
}

/// The status line of the answer, or why there is none.
enum Outcome {
    Answered(String),
    /// Before the request was sent.
    Failed(String),
}

async fn one(
    proxy: Loopback,
    source: SocketAddr,
    request: String,
    opening: &Semaphore,
    sent: &AtomicUsize,
) -> Outcome {
    let opened = {
        let Ok(_turn) = opening.acquire().await else {
            return Outcome::Failed("never had its turn".to_owned());
        };
        open(proxy, source, &request).await
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => return Outcome::Failed(error),
    };
    sent.fetch_add(1, Ordering::Relaxed);
    let mut start = [0; 256];
    match stream.read(&mut start).await {
        Ok(0) => Outcome::Answered("closed without an answer".to_owned()),
        Ok(bytes) => {
            let line = start.get(..bytes).unwrap_or_default();
            let line = line.split(|&byte| byte == b'\r').next().unwrap_or_default();
            Outcome::Answered(line.escape_ascii().to_string())
        }
        Err(error) => Outcome::Answered(error.to_string()),
    }
}

async fn open(proxy: Loopback, source: SocketAddr, request: &str) -> Result<TcpStream, String> {
    let socket = TcpSocket::new_v4().map_err(|error| format!("socket: {error}"))?;
    socket
        .bind(source)
        .map_err(|error| format!("bind {source}: {error}"))?;
    let mut stream = socket
        .connect(proxy.0)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| format!("TCP_NODELAY: {error}"))?;
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| format!("write: {error}"))?;
    Ok(stream)
}

/// 127.0.0.2 for the first, 127.0.0.3 for the next `PER_SOURCE`, and so on.
fn source(number: usize) -> SocketAddr {
    let last = u8::try_from(2 + number / PER_SOURCE).unwrap_or(u8::MAX);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)
}

struct Tally {
    sent: Arc<AtomicUsize>,
    begun: Instant,
    failed: usize,
    answered: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(line) => *self.answered.entry(line).or_default() += 1,
            Outcome::Failed(error) => {
                if self.failed == 0 {
                    eprintln!("loadgen: {error}");
                }
                self.failed += 1;
            }
        }
    }

    fn print(&self, event: &str) -> Result<(), String> {
        let report = Report {
            event,
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed,
            answered: &self.answered,
            seconds: self.begun.elapsed().as_secs_f64(),
        };
        println!(
            "{}",
            serde_json::to_string(&report).map_err(|error| error.to_string())?
        );
        Ok(())
    }
}
