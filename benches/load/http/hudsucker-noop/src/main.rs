//! The hudsucker crate with handlers that do nothing: what an intercepting proxy costs that decides nothing.

use std::fs;
use std::future::{Ready, ready};
use std::iter::{Once, once};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};

use clap::Parser;
use hudsucker::Proxy;
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs;
use hudsucker::rustls::pki_types::CertificateDer;
use hudsucker::rustls::pki_types::pem::PemObject;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::{TcpListener, TcpSocket};
use tower_service::Service;

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;
/// Server configurations kept, one for each host.
const LEAVES_MAX: u64 = 1_000;

#[derive(Parser)]
#[command(
    name = "hudsucker-noop",
    about = "The hudsucker crate with handlers that do nothing"
)]
struct Options {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// Authority to intercept with: its certificate, PEM
    #[arg(long)]
    ca: PathBuf,
    /// Authority to intercept with: its key, PEM
    #[arg(long)]
    ca_key: PathBuf,
    /// Authority to trust upstream, PEM
    #[arg(long)]
    upstream_ca: PathBuf,
    /// Set TCP_NODELAY on both sides, which the crate does not do
    #[arg(long)]
    nodelay: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("hudsucker-noop: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), String> {
    let proxy = Proxy::builder()
        .with_listener(listen(options)?)
        .with_ca(authority(options)?)
        .with_http_connector(connector(options)?)
        .build()
        .map_err(|error| format!("cannot build the proxy: {error}"))?;
    proxy
        .start()
        .await
        .map_err(|error| format!("cannot serve: {error}"))
}

fn listen(options: &Options) -> Result<TcpListener, String> {
    let failed = |error| format!("{}: {error}", options.listen);
    let socket = TcpSocket::new_v4().map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    // On Linux an accepted socket has what its listener had.
    socket.set_nodelay(options.nodelay).map_err(failed)?;
    socket.bind(options.listen).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)
}

fn authority(options: &Options) -> Result<RcgenAuthority, String> {
    let key = KeyPair::from_pem(&read(&options.ca_key)?)
        .map_err(|error| format!("{}: {error}", options.ca_key.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&read(&options.ca)?, key)
        .map_err(|error| format!("{}: {error}", options.ca.display()))?;
    Ok(RcgenAuthority::new(
        issuer,
        LEAVES_MAX,
        aws_lc_rs::default_provider(),
    ))
}

/// The crate's own connector, but for its root certificate and its resolver.
fn connector(options: &Options) -> Result<HttpsConnector<HttpConnector<Resolver>>, String> {
    let path = &options.upstream_ca;
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(path).map_err(|error| failed(&error))?;
    roots.add(certificate).map_err(|error| failed(&error))?;
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new_with_resolver(Resolver);
    http.enforce_http(false);
    http.set_nodelay(options.nodelay);
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Every name is on this machine.
#[derive(Clone)]
struct Resolver;

impl Service<Name> for Resolver {
    type Response = Once<SocketAddr>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(once(SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            0,
        ))))
    }
}
