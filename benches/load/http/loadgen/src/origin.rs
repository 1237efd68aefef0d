//! The origin behind every proxy: 1,024 bytes of text, whatever is asked, over HTTP and HTTPS.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio_rustls::TlsAcceptor;

use crate::loopback::Loopback;
use crate::server::{self, Respond};
use crate::tls;

pub(crate) const BODY_BYTES: usize = 1024;
/// Names that the origin's certificate is good for.
const NAMES: [&str; 2] = ["origin.test", "127.0.0.1"];

#[derive(Args)]
pub(crate) struct Options {
    /// Address of the plain listener
    #[arg(long)]
    http: Loopback,
    /// Address of the TLS listener
    #[arg(long)]
    https: Loopback,
    /// File that the authority of the origin's certificate is written to
    #[arg(long)]
    ca: PathBuf,
}

/// What both ends agree the body is.
pub(crate) fn body() -> Vec<u8> {
    b"the quick brown fox jumps over the lazy dog 0123456789 abcdefgh\n"
        .iter()
        .copied()
        .cycle()
        .take(BODY_BYTES)
        .collect()
}

struct Fixed(Vec<u8>);

impl Respond for Fixed {
    fn respond(&self, _request_line: &[u8], response: &mut Vec<u8>) {
        response.extend_from_slice(&self.0);
    }
}

/// Runs until the process is ended.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let mut response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
    )
    .into_bytes();
    response.extend_from_slice(&body());
    let respond = Arc::new(Fixed(response));

    let plain = server::listen(options.http).await?;
    let secure = server::listen(options.https).await?;
    let acceptor = TlsAcceptor::from(tls::server_config(&NAMES, &options.ca)?);
    let for_plain = Arc::clone(&respond);
    tokio::try_join!(
        server::accept(plain, move |stream| server::serve(
            stream,
            Arc::clone(&for_plain)
        )),
        server::accept(secure, move |stream| {
            let (acceptor, respond) = (acceptor.clone(), Arc::clone(&respond));
            async move {
                match acceptor.accept(stream).await {
                    Ok(stream) => server::serve(stream, respond).await,
                    Err(error) => eprintln!("loadgen: TLS handshake with a client: {error}"),
                }
            }
        }),
    )?;
    Ok(())
}
