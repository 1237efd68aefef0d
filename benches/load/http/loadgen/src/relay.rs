//! What an intercepting proxy cannot avoid: a handshake with the client, one with the origin, and copying between the two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use memchr::memmem;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client;
use tokio_rustls::server;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::copy;
use crate::loopback::Loopback;
use crate::threads;
use crate::tls;

const HEAD_BYTES_MAX: usize = 8 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;
const TUNNEL: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

#[derive(Args)]
pub(crate) struct Options {
    /// Address to listen on
    #[arg(long)]
    listen: Loopback,
    /// File that the authority of the certificate shown to clients is written to
    #[arg(long)]
    ca: PathBuf,
    /// Authority to trust upstream, PEM
    #[arg(long)]
    upstream_ca: PathBuf,
    /// Lead the next client to the connection that the last one has left, without another handshake. Only where a
    /// client leaves nothing unread
    #[arg(long)]
    keep: bool,
}

#[derive(Clone)]
struct Relay {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    keep: bool,
}

type Upstream = client::TlsStream<TcpStream>;

thread_local! {
    /// Connections that clients of this thread have left, by authority.
    static LEFT: RefCell<HashMap<String, Vec<Upstream>>> = RefCell::default();
}

/// Runs until the process is ended.
pub(crate) async fn run(options: Options) -> Result<(), String> {
    let mut config = tls::server_config(&options.ca)?;
    // Tickets are for resumption, which is no part of a full handshake.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let relay = Relay {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        connector: TlsConnector::from(tls::client_config(&options.upstream_ca, &[])?),
        keep: options.keep,
    };
    threads::serve(options.listen, move |client| relay.clone().serve(client)).await
}

impl Relay {
    async fn serve(self, mut client: TcpStream) -> Result<(), String> {
        let Some(authority) = asked_for(&mut client).await? else {
            return Ok(());
        };
        client
            .write_all(TUNNEL)
            .await
            .map_err(|error| format!("answering CONNECT: {error}"))?;
        let accept = async {
            let accepted = self.acceptor.accept(client).await;
            accepted.map_err(|error| format!("TLS handshake with a client: {error}"))
        };
        let (mut client, mut origin) = tokio::try_join!(accept, self.reach(&authority))?;
        if self.keep {
            if until_left(&mut client, &mut origin).await.is_some() {
                LEFT.with_borrow_mut(|left| left.entry(authority).or_default().push(origin));
            }
        } else {
            copy::between(&mut client, &mut origin).await;
        }
        Ok(())
    }

    /// A connection that was left, or else a new one.
    async fn reach(&self, authority: &str) -> Result<Upstream, String> {
        if let Some(left) = LEFT.with_borrow_mut(|left| left.get_mut(authority)?.pop()) {
            return Ok(left);
        }
        let unusable = || format!("CONNECT to \"{authority}\"");
        let (host, port) = authority.rsplit_once(':').ok_or_else(unusable)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| unusable())?;
        let port = port.parse().map_err(|_| unusable())?;
        // Every name is on this machine.
        let address = Loopback(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let stream = threads::dial(address).await?;
        self.connector
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS handshake with {authority}: {error}"))
    }
}

/// What CONNECT names, or `None` of a client that says nothing.
async fn asked_for(client: &mut TcpStream) -> Result<Option<String>, String> {
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    while memmem::find(&head, b"\r\n\r\n").is_none() {
        let read = client.read_buf(&mut head).await;
        if read.map_err(|error| format!("reading CONNECT: {error}"))? == 0 {
            return if head.is_empty() {
                Ok(None)
            } else {
                Err("closed within CONNECT".to_owned())
            };
        }
        if head.len() >= HEAD_BYTES_MAX {
            return Err("CONNECT too long".to_owned());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    match (words.next(), words.next()) {
        (Some("CONNECT"), Some(authority)) => Ok(Some(authority.to_owned())),
        _ => Err("something other than CONNECT".to_owned()),
    }
}

/// Copies until the client has left. `None` where the origin is no good for another.
async fn until_left(
    client: &mut server::TlsStream<TcpStream>,
    origin: &mut Upstream,
) -> Option<()> {
    let (mut asked, mut answered) = ([0; BUFFER_BYTES], [0; BUFFER_BYTES]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(0) | Err(_) => return Some(()),
                Ok(bytes) => {
                    origin.write_all(asked.get(..bytes)?).await.ok()?;
                    origin.flush().await.ok()?;
                }
            },
            read = origin.read(&mut answered) => match read {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => {
                    client.write_all(answered.get(..bytes)?).await.ok()?;
                    client.flush().await.ok()?;
                }
            },
        }
    }
}
