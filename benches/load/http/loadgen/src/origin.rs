//! The origin behind every proxy: over HTTP and HTTPS 1,024 bytes of text, or 64 KiB, and over HTTP/2 calls of gRPC too.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::content::{self, Content};
use crate::loopback::Loopback;
use crate::origin_h2;
use crate::server::{self, BAD_REQUEST, Request, Respond};
use crate::tls::{self, ALPN_HTTP_2};

#[derive(Args)]
pub(crate) struct Options {
    /// Address of the plain listener
    #[arg(long)]
    http: Loopback,
    /// Address of the TLS listener, which knows no ALPN: HTTP/1.1
    #[arg(long)]
    https: Loopback,
    /// Address of the TLS listener that speaks HTTP/2 and nothing else: whoever brings another protocol is lost
    #[arg(long)]
    h2: Loopback,
    /// File that the authority of the origin's certificate is written to
    #[arg(long)]
    ca: PathBuf,
}

/// Responses, made once.
struct Fixed {
    small: Vec<u8>,
    large: Vec<u8>,
    received: Vec<u8>,
    posted: Vec<u8>,
}

impl Fixed {
    fn new() -> Self {
        let response = |content: Content| {
            let body = content.answer();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        };
        Self {
            small: response(Content::Small),
            large: response(Content::Large),
            received: response(Content::PostLarge),
            posted: content::posted(),
        }
    }
}

impl Respond for Fixed {
    fn respond(&self, request: &Request<'_>, response: &mut Vec<u8>) {
        response.extend_from_slice(match Content::asked(request.line) {
            Content::Small => &self.small,
            Content::Large => &self.large,
            Content::PostLarge if request.body == self.posted => &self.received,
            Content::PostLarge => BAD_REQUEST,
        });
    }
}

/// Runs until the process is ended.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let respond = Arc::new(Fixed::new());
    let plain = server::listen(options.http).await?;
    let secure = server::listen(options.https).await?;
    let multiplexed = server::listen(options.h2).await?;
    let config = tls::server_config(&options.ca)?;
    let mut config_of_multiplexed = config.clone();
    config_of_multiplexed.alpn_protocols = vec![ALPN_HTTP_2.to_vec()];
    let for_plain = Arc::clone(&respond);
    tokio::try_join!(
        server::accept(plain, move |stream| server::serve(
            stream,
            Arc::clone(&for_plain)
        )),
        accept_tls(secure, config, move |stream| server::serve(
            stream,
            Arc::clone(&respond)
        )),
        accept_tls(multiplexed, config_of_multiplexed, origin_h2::serve),
    )?;
    Ok(())
}

async fn accept_tls<F>(
    listener: TcpListener,
    config: ServerConfig,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
) -> Result<(), String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    server::accept(listener, move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            match acceptor.accept(stream).await {
                Ok(stream) => serve(stream).await,
                Err(error) => eprintln!("loadgen: TLS handshake with a client: {error}"),
            }
        }
    })
    .await
}
