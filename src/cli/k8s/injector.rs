//! `injector`: the admission webhook, for clusters. One HTTPS listener: `POST /mutate` for the API server, `GET
//! /readyz` and `/livez` for the kubelet.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::cli::{Streams, exit, logs, runtime};
use crate::config::{LogConfig, LogFormat};
use crate::net::agent_tls::{self, Acceptor, Demand, Shown};
use crate::net::authority::Authority;
use crate::net::client_socket::ClientSocket;
use crate::net::database_tls::Negotiation;
use crate::net::listen;
use crate::net::mint::{self, Mint};
use crate::net::reread::Reread;
use crate::process::signals::Termination;
use crate::process::{Drain, drain, spawn_named};

use super::patch::read_injection;
use super::pod::Injection;
use super::review::{self, NotAReview};

/// Largest review, bytes: etcd takes objects up to 1.5 MiB, and a review may hold two.
const REVIEW_BYTES_MAX: usize = 8 << 20;
/// Longest wait for a request: the API server waits ten seconds, or fewer, for the answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Most connections at once; the next one waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 256;
/// How long a request may go on when the injector is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Where it listens, and what it injects.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Args {
    /// Where the API server reaches it
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:15843")]
    listen: SocketAddr,
    /// PEM file of its certificate; read again when it changes
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// PEM file of the certificate's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What holds for every pod: image, resources, defaults
    #[arg(long, value_name = "FILE")]
    injection: Option<String>,
    /// Whether log lines are for machines
    #[arg(long, value_name = "text|json", default_value = "json")]
    log_format: String,
}

pub(in crate::cli) fn injector(args: &Args, streams: &mut Streams<'_>) -> io::Result<u8> {
    let injection = match args.injection.as_deref().map(read_injection).transpose() {
        Ok(injection) => injection.unwrap_or_default(),
        Err(refused) => return told(streams, &refused.to_string()),
    };
    let certificate = match Certificate::new(&args.cert, &args.key) {
        Ok(certificate) => certificate,
        Err(error) => return told(streams, &error),
    };
    let format = match &*args.log_format {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => {
            return told(
                streams,
                &format!("--log-format {other}: it is text or json"),
            );
        }
    };
    let log = LogConfig {
        format,
        filter: "info".to_owned(),
    };
    if logs::install(&log).is_err() {
        writeln!(streams.err, "openbox-sidecar: logs go elsewhere already")?;
    }
    match runtime::block_on(until_told(args.listen, certificate, injection))? {
        Ok(()) => Ok(exit::OK),
        Err(error) => told(streams, &error),
    }
}

fn told(streams: &mut Streams<'_>, what: &str) -> io::Result<u8> {
    writeln!(streams.err, "openbox-sidecar: {what}")?;
    Ok(exit::FAILED)
}

async fn until_told(
    address: SocketAddr,
    certificate: Certificate,
    injection: Injection,
) -> Result<(), String> {
    let mut termination = Termination::install().map_err(|error| error.to_string())?;
    let listener = listen::bind(address).map_err(|error| error.to_string())?;
    tracing::info!(listen = %listener.address(), image = injection.image, "injecting");
    let (trigger, drain) = drain::channel();
    let serving = serve(listener, certificate, Arc::new(injection), drain);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        () = serving.as_mut() => {}
        signal = termination.next() => {
            tracing::info!(signal, "stopping");
            trigger.begin();
            serving.await;
        }
    }
    // Those in flight hold the other ends.
    drop(tokio::time::timeout(GRACE, trigger.finished()).await);
    Ok(())
}

async fn serve(
    listener: listen::Bound,
    certificate: Certificate,
    injection: Arc<Injection>,
    mut drain: Drain,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            // Never closed, so there is always a slot in the end.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await.0)
        };
        let (slot, socket) = tokio::select! {
            next = next => next,
            () = drain.begun() => return,
        };
        let acceptor = certificate.acceptor();
        let (injection, drain) = (injection.clone(), drain.clone());
        drop(spawn_named("injector", async move {
            connection(socket, &acceptor, injection, drain).await;
            drop(slot);
        }));
    }
}

async fn connection(
    socket: ClientSocket,
    acceptor: &Acceptor,
    injection: Arc<Injection>,
    mut drain: Drain,
) {
    let stream = match acceptor.accept(socket, None, Negotiation::Direct).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "no TLS"),
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let injection = injection.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(request, &injection).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = drain.begun() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(request: Request<Incoming>, injection: &Injection) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/livez" | "/readyz") => text(StatusCode::OK, "ok\n"),
        (&Method::POST, "/mutate") => {
            match tokio::time::timeout(REQUEST_WITHIN, whole(request.into_body())).await {
                Ok(Ok(body)) => reviewed(&body, injection),
                Ok(Err((status, why))) => text(status, why),
                Err(_) => text(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not come in time\n",
                ),
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "POST /mutate takes an AdmissionReview\n",
        ),
    }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, (StatusCode, &'static str)> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the body broke off\n"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len().saturating_add(data.len()) > REVIEW_BYTES_MAX {
            return Err((
                StatusCode::PAYLOAD_TOO_LARGE,
                "a review has at most 8 MiB\n",
            ));
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

fn reviewed(body: &[u8], injection: &Injection) -> Response<Full<Bytes>> {
    let review: Value = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                &format!("it is no JSON: {error}\n"),
            );
        }
    };
    match review::answer(&review, injection) {
        Ok(answer) => {
            log(&review, &answer);
            let mut response = Response::new(Full::new(answer.to_string().into()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(NotAReview(why)) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
    }
}

fn log(review: &Value, answer: &Value) {
    let asked = |pointer: &str| {
        review
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let name = asked("/request/object/metadata/name");
    let name = if name.is_empty() {
        asked("/request/object/metadata/generateName")
    } else {
        name
    };
    let namespace = asked("/request/namespace");
    match answer
        .pointer("/response/status/message")
        .and_then(Value::as_str)
    {
        Some(why) => tracing::warn!(namespace, name, why, "refused"),
        None if answer.pointer("/response/patch").is_some() => {
            tracing::info!(namespace, name, "injected");
        }
        None => tracing::debug!(namespace, name, "left as it is"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// The certificate in its files, which cert-manager writes anew.
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    mint: Arc<Mint>,
    acceptor: Reread<Acceptor>,
}

impl Certificate {
    fn new(cert: &Path, key: &Path) -> Result<Self, String> {
        let authority = Authority::ephemeral().map_err(|error| error.to_string())?;
        let mint = Mint::new(authority, &mint::Settings::default());
        let mint = Arc::new(mint.map_err(|error| error.to_string())?);
        let files = vec![cert.to_owned(), key.to_owned()];
        Ok(Self {
            acceptor: Reread::new("the certificate", files, || read(cert, key, &mint))?,
            cert: cert.to_owned(),
            key: key.to_owned(),
            mint,
        })
    }

    /// The present one; the last good one where the new files do not go together (yet).
    fn acceptor(&self) -> Acceptor {
        let read = || read(&self.cert, &self.key, &self.mint);
        self.acceptor.newest(read).0
    }
}

fn read(cert: &Path, key: &Path, mint: &Arc<Mint>) -> Result<Acceptor, String> {
    let settings = agent_tls::Settings {
        demand: Demand::Required,
        shown: Shown::Files(cert.to_owned(), key.to_owned()),
    };
    Acceptor::new(&settings, mint, None).map_err(|error| error.to_string())
}
