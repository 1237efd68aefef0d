//! TLS from agents to a relay for databases: under a certificate that was configured, or one of our own authority.
//! Protocols differ in how they come to it, and not in what it is.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{Acceptor as Hello, ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::server::StartHandshake;
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use crate::net::database_tls::{Negotiation, SetupError, certificates, of_file, private_key};
use crate::net::hello_cap::Capped;
use crate::net::intercept::{AcceptError, HELLO_BYTES_MAX};
use crate::net::maybe_tls::MaybeTls;
use crate::net::mint::{Mint, MintError};
use crate::net::tls::{provider, server_name};

/// Longest handshake with an agent.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// What a certificate of ours is for where a client names no host and came to no address: libraries that verify
/// anything name one.
const UNNAMED: &str = "localhost";

/// Who decides whether there is TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The agent: it is there for those who ask.
    Offered,
    /// We: sessions in clear are refused.
    Required,
}

/// What agents are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A certificate for the host that they ask for, of our own authority.
    Minted,
    /// These PEM files: a chain, and its key.
    Files(PathBuf, PathBuf),
}

/// How agents are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`Demand`].
    pub demand: Demand,
    /// See [`Shown`].
    pub shown: Shown,
}

/// Serves TLS to agents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    demand: Demand,
    shows: Shows,
    /// The name of the protocol inside; `None` where clients name none.
    protocol: Option<&'static [u8]>,
}

#[derive(Clone, Debug)]
enum Shows {
    /// One for all, and its certificate.
    One(Arc<ServerConfig>, CertificateDer<'static>),
    Minted(Arc<Mint>),
}

impl Acceptor {
    /// What serves agents as `settings` say, speaking `protocol` inside, where clients of it name one in the
    /// handshake (ALPN). `mint` makes certificates where none is configured.
    ///
    /// # Errors
    ///
    /// When a file that is named cannot be used.
    pub fn new(
        settings: &Settings,
        mint: &Arc<Mint>,
        protocol: Option<&'static [u8]>,
    ) -> Result<Self, SetupError> {
        let shows = match &settings.shown {
            Shown::Minted => Shows::Minted(Arc::clone(mint)),
            Shown::Files(chain, key) => {
                let chain = certificates(chain)?;
                let first = chain.first().cloned();
                let first = first.ok_or_else(|| of_file(key, "has no certificate"))?;
                let certified = CertifiedKey::from_der(chain, private_key(key)?, &provider());
                let certified = certified.map_err(|error| {
                    of_file(key, &format!("does not go with the certificate: {error}"))
                })?;
                let config = config(provider(), certified, protocol)?;
                Shows::One(Arc::new(config), first)
            }
        };
        Ok(Self {
            demand: settings.demand,
            shows,
            protocol,
        })
    }

    /// Who decides whether there is TLS.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.demand
    }

    /// Shakes hands with an agent that takes us for who is at `ip`, on a stream from which nothing of its handshake was read.
    /// With [`Negotiation::Direct`] the agent must name our protocol.
    ///
    /// # Errors
    ///
    /// When the client is slow, does not speak TLS as we do, or does not accept our certificate.
    pub async fn accept<S>(
        &self,
        stream: S,
        ip: Option<IpAddr>,
        begins: Negotiation,
    ) -> Result<MaybeTls<S>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = timeout(HANDSHAKE_WITHIN, self.shake(stream, ip, begins)).await;
        accepted.unwrap_or(Err(AcceptError::TimedOut {
            within: HANDSHAKE_WITHIN,
        }))
    }

    async fn shake<S>(
        &self,
        stream: S,
        ip: Option<IpAddr>,
        begins: Negotiation,
    ) -> Result<MaybeTls<S>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = LazyConfigAcceptor::new(Hello::default(), Capped::new(stream, HELLO_BYTES_MAX));
        let StartHandshake { accepted, io, .. } = hello.await.map_err(AcceptError::of)?;
        let said = accepted.client_hello();
        if begins == Negotiation::Direct && self.protocol.is_some() && said.alpn().is_none() {
            return Err(AcceptError::NoProtocol);
        }
        let config = self.config(&said, ip)?;
        let shaken = StartHandshake::from_parts(accepted, io.into_inner()).into_stream(config);
        let stream = shaken.await.map_err(AcceptError::of)?;
        Ok(MaybeTls::Tls(Box::new(TlsStream::Server(stream))))
    }

    fn config(
        &self,
        hello: &ClientHello<'_>,
        ip: Option<IpAddr>,
    ) -> Result<Arc<ServerConfig>, AcceptError> {
        let mint = match &self.shows {
            Shows::One(config, _) => return Ok(Arc::clone(config)),
            Shows::Minted(mint) => mint,
        };
        let named = hello
            .server_name()
            .filter(|name| server_name(name).is_some());
        let host = match (named, ip) {
            (Some(name), _) => name.to_owned(),
            (None, Some(ip)) => ip.to_canonical().to_string(),
            (None, None) => UNNAMED.to_owned(),
        };
        let certified = mint.certified(&host).map_err(AcceptError::Mint)?;
        let config = config(
            mint.provider(),
            CertifiedKey::clone(&certified),
            self.protocol,
        );
        let config = config.map_err(|SetupError(words)| {
            AcceptError::Mint(MintError::Tls(rustls::Error::General(words)))
        })?;
        Ok(Arc::new(config))
    }

    /// Whether the server at the other end of `to_server` has shown the certificate that we show agents: then what a
    /// client binds to our channel holds there.
    #[must_use]
    pub fn shows_that_of<S>(&self, to_server: &MaybeTls<S>) -> bool {
        match (&self.shows, to_server) {
            (Shows::One(_, ours), MaybeTls::Tls(stream)) => {
                let (_, connection) = stream.get_ref();
                let theirs = connection.peer_certificates().and_then(<[_]>::first);
                theirs == Some(ours)
            }
            (Shows::Minted(_), _) | (_, MaybeTls::Plain(_)) => false,
        }
    }
}

fn config(
    provider: Arc<CryptoProvider>,
    certified: CertifiedKey,
    protocol: Option<&'static [u8]>,
) -> Result<ServerConfig, SetupError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    // Sessions last: there is little to resume, and servers of databases do not.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
