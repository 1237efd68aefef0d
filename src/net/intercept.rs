//! TLS with the agent, under a certificate of ours for the host it asked for.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::net::hello_cap::Capped;
use crate::net::mint::{Mint, MintError};
use crate::net::tls::Speaks;

/// Longest ClientHello accepted, bytes; one with post-quantum key shares has about 1,500.
pub(super) const HELLO_BYTES_MAX: usize = 16 * 1024;

/// What is sent before the end to a client that names another host in its hello than in its CONNECT: a fatal
/// `unrecognized_name` alert, in the clear as nothing else is possible yet.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

impl Mint {
    /// Serves TLS to a client that asked for `host` in its CONNECT, on a stream from which the ClientHello
    /// has not been read. The host named in the hello must be the same one, or none. Of HTTP/1.1 and HTTP/2,
    /// what the client offers is spoken; of both, what `prefers` says.
    ///
    /// # Errors
    ///
    /// When the client is slow, names another host, does not speak TLS, or does not accept our certificate.
    pub async fn accept<S>(
        &self,
        stream: S,
        host: &str,
        prefers: Speaks,
    ) -> Result<(TlsStream<S>, Speaks), AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.leaf(host, prefers).map_err(AcceptError::Mint)?;
        let now = Instant::now();
        let deadline = now.checked_add(self.handshake_within).unwrap_or(now);
        let stream = timeout_at(deadline, accept_with(stream, host, config))
            .await
            .unwrap_or(Err(AcceptError::TimedOut {
                within: self.handshake_within,
            }))?;
        let speaks = Speaks::of(stream.get_ref().1.alpn_protocol());
        Ok((stream, speaks))
    }
}

async fn accept_with<S>(
    stream: S,
    host: &str,
    config: Arc<ServerConfig>,
) -> Result<TlsStream<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), Capped::new(stream, HELLO_BYTES_MAX));
    let StartHandshake { accepted, io, .. } = hello.await.map_err(AcceptError::of)?;
    let mut stream = io.into_inner();
    if let Some(named) = accepted.client_hello().server_name()
        && !is_same_host(named, host)
    {
        let named = named.into();
        // The client may be gone already, and what it did wrong is worth more than that.
        drop(stream.write_all(&UNRECOGNIZED_NAME).await);
        drop(stream.shutdown().await);
        return Err(AcceptError::WrongName {
            named,
            expected: host.into(),
        });
    }
    StartHandshake::from_parts(accepted, stream)
        .into_stream(config)
        .await
        .map_err(AcceptError::of)
}

/// Whether a name in a hello is the `host` that was asked for.
pub fn is_same_host(named: &str, host: &str) -> bool {
    let rooted = |name: &str| name.strip_suffix('.').map_or(name.len(), str::len);
    let (named, host) = (
        named.split_at(rooted(named)).0,
        host.split_at(rooted(host)).0,
    );
    named.eq_ignore_ascii_case(host)
}

/// Why a client's TLS connection was not accepted.
#[derive(Debug)]
pub enum AcceptError {
    /// No certificate for the host.
    Mint(MintError),
    /// The hello names another host than the CONNECT.
    WrongName {
        /// The host in the hello.
        named: Box<str>,
        /// The host of the CONNECT.
        expected: Box<str>,
    },
    /// The client began with TLS and did not say for which protocol.
    NoProtocol,
    /// The client refused our certificate.
    Distrusted {
        /// What it said.
        alert: AlertDescription,
    },
    /// The client does not speak TLS, or none that we do.
    Protocol(rustls::Error),
    /// The connection broke, or its hello was too large.
    Io(io::Error),
    /// The client was too slow.
    TimedOut {
        /// The time it had.
        within: Duration,
    },
}

impl AcceptError {
    pub(super) fn of(error: io::Error) -> Self {
        use AlertDescription as A;
        let distrust = [
            A::BadCertificate,
            A::UnsupportedCertificate,
            A::CertificateRevoked,
            A::CertificateExpired,
            A::CertificateUnknown,
            A::UnknownCA,
        ];
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::AlertReceived(alert)) if distrust.contains(&alert) => {
                Self::Distrusted { alert }
            }
            Ok(source) => Self::Protocol(source),
            Err(source) => Self::Io(source),
        }
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mint(error) => error.fmt(f),
            Self::WrongName { named, expected } => write!(
                f,
                "the client asked to be connected to \"{expected}\", but its TLS hello names \"{named}\""
            ),
            Self::NoProtocol => f.write_str(
                "the client began with TLS and named no application protocol (ALPN) in it",
            ),
            Self::Distrusted { alert } => write!(
                f,
                "the client does not accept the sidecar's certificate ({alert:?}); it pins its certificates, \
                 or does not use the CA file that `openbox-sidecar ca path` names"
            ),
            Self::Protocol(source) => {
                write!(f, "the client does not speak TLS as expected: {source}")
            }
            Self::Io(source) => write!(
                f,
                "the client's connection broke during the TLS handshake: {source}"
            ),
            Self::TimedOut { within } => write!(
                f,
                "the client did not finish the TLS handshake within {} s",
                within.as_secs_f32()
            ),
        }
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Mint(source) => Some(source),
            Self::Protocol(source) => Some(source),
            Self::Io(source) => Some(source),
            Self::WrongName { .. }
            | Self::NoProtocol
            | Self::Distrusted { .. }
            | Self::TimedOut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::HandshakeKind::{self, Full, Resumed};
    use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::net::authority::Authority;
    use crate::net::mint::Settings;
    use crate::net::tls::{self, ALPN_HTTP_1_1, ALPN_HTTP_2};

    fn mint() -> Mint {
        Mint::new(Authority::ephemeral().unwrap(), &Settings::default()).unwrap()
    }

    fn client(trusted: &Authority) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_HTTP_2.to_vec(), ALPN_HTTP_1_1.to_vec()];
        config
    }

    struct Met {
        kind: Option<HandshakeKind>,
        alpn: Option<Vec<u8>>,
        chain: usize,
    }

    /// A client that names `sni`, at a CONNECT to `host`.
    async fn meet(
        mint: &Mint,
        host: &str,
        config: &Arc<ClientConfig>,
        sni: &str,
    ) -> (Result<Met, rustls::Error>, Option<AcceptError>) {
        let (ours, theirs) = duplex(65_536);
        let serve = async {
            match mint.accept(ours, host, Speaks::Http1).await {
                Ok((mut stream, _)) => {
                    stream.write_all(b"x").await.ok();
                    stream.read_u8().await.ok();
                    None
                }
                Err(error) => Some(error),
            }
        };
        let connect = async {
            let name = tls::server_name(sni).unwrap();
            let mut stream = TlsConnector::from(Arc::clone(config))
                .connect(name, theirs)
                .await
                .map_err(|error| error.downcast::<rustls::Error>().unwrap())?;
            stream.read_exact(&mut [0]).await.unwrap();
            let connection = stream.get_ref().1;
            Ok(Met {
                kind: connection.handshake_kind(),
                alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
                chain: connection.peer_certificates().unwrap().len(),
            })
        };
        tokio::join!(connect, serve)
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_authority_is_served_for_names_and_addresses() {
        let mint = mint();
        let config = Arc::new(client(mint.authority()));
        let hosts = [
            "api.example.test",
            "API.Example.TEST",
            "api.example.test.",
            "under_score.test",
            "localhost",
            "192.0.2.1",
            "[2001:db8::1]",
            "2001:db8::2",
        ];
        for host in hosts {
            let (met, error) = meet(&mint, host, &config, host).await;
            assert!(error.is_none(), "{host}: {error:?}");
            let met = met.unwrap();
            assert_eq!(met.alpn.as_deref(), Some(ALPN_HTTP_1_1), "{host}");
            assert_eq!(met.chain, 2, "{host}: leaf and authority");
        }
    }

    #[tokio::test]
    async fn a_hello_for_another_host_is_refused_with_an_alert() {
        let mint = mint();
        let config = Arc::new(client(mint.authority()));
        let rows = [
            // connect             hello                    served
            ("a.test", "a.test", true),
            ("A.test", "a.TEST", true),
            ("a.test", "b.test", false),
            ("a.test", "a.test.evil.test", false),
            ("a.test", "www.a.test", false),
            ("192.0.2.1", "a.test", false),
        ];
        for (host, named, served) in rows {
            let (met, error) = meet(&mint, host, &config, named).await;
            assert_eq!(met.is_ok(), served, "{host} {named}");
            if !served {
                let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
                assert_eq!(met.err(), Some(alert));
                assert!(
                    matches!(error, Some(AcceptError::WrongName { .. })),
                    "{error:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_hello_without_a_name_gets_the_host_of_the_connect() {
        let mint = mint();
        let mut config = client(mint.authority());
        config.enable_sni = false;
        let (met, error) = meet(&mint, "a.test", &Arc::new(config), "a.test").await;
        assert!(met.is_ok() && error.is_none(), "{error:?}");
    }

    #[tokio::test]
    async fn a_client_that_distrusts_us_is_named_as_such() {
        let mint = mint();
        let config = Arc::new(client(&Authority::ephemeral().unwrap()));
        let (met, error) = meet(&mint, "a.test", &config, "a.test").await;
        assert!(met.is_err());
        let error = error.unwrap();
        assert!(matches!(error, AcceptError::Distrusted { .. }), "{error:?}");
        assert!(error.to_string().contains("ca path"), "{error}");
    }

    #[tokio::test]
    async fn connections_to_the_same_host_resume_with_tls_1_2_and_1_3() {
        for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
            let mint = mint();
            let mut roots = RootCertStore::empty();
            roots.add(mint.authority().certificate().clone()).unwrap();
            let config = ClientConfig::builder_with_provider(tls::provider())
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let config = Arc::new(config);
            for expected in [Full, Resumed, Resumed] {
                let (met, error) = meet(&mint, "a.test", &config, "a.test").await;
                assert!(error.is_none(), "{error:?}");
                assert_eq!(met.unwrap().kind, Some(expected));
            }
        }
    }

    /// A client that keeps its sessions under one name, whatever host it speaks to.
    #[derive(Debug)]
    struct Careless(ClientSessionMemoryCache);

    impl Careless {
        fn name() -> ServerName<'static> {
            ServerName::try_from("any").unwrap()
        }
    }

    impl ClientSessionStore for Careless {
        fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
            self.0.set_kx_hint(Self::name(), group);
        }
        fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
            self.0.kx_hint(&Self::name())
        }
        fn set_tls12_session(
            &self,
            _: ServerName<'static>,
            value: rustls::client::Tls12ClientSessionValue,
        ) {
            self.0.set_tls12_session(Self::name(), value);
        }
        fn tls12_session(
            &self,
            _: &ServerName<'_>,
        ) -> Option<rustls::client::Tls12ClientSessionValue> {
            self.0.tls12_session(&Self::name())
        }
        fn remove_tls12_session(&self, _: &ServerName<'static>) {
            self.0.remove_tls12_session(&Self::name());
        }
        fn insert_tls13_ticket(
            &self,
            _: ServerName<'static>,
            value: rustls::client::Tls13ClientSessionValue,
        ) {
            self.0.insert_tls13_ticket(Self::name(), value);
        }
        fn take_tls13_ticket(
            &self,
            _: &ServerName<'static>,
        ) -> Option<rustls::client::Tls13ClientSessionValue> {
            self.0.take_tls13_ticket(&Self::name())
        }
    }

    #[tokio::test]
    async fn a_ticket_of_one_host_does_not_resume_at_another() {
        let rows = [
            // first        then           resumed
            ("a.test", "a.test", true),
            ("a.test", "b.test", false),
            // Addresses are not named in the hello: only the ticket itself can tell.
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        for (first, then, resumed) in rows {
            let mint = mint();
            let mut config = client(mint.authority());
            config.resumption =
                Resumption::store(Arc::new(Careless(ClientSessionMemoryCache::new(8))));
            let config = Arc::new(config);
            assert_eq!(
                meet(&mint, first, &config, first).await.0.unwrap().kind,
                Some(Full)
            );
            let kind = meet(&mint, then, &config, then).await.0.unwrap().kind;
            assert_eq!(
                kind,
                Some(if resumed { Resumed } else { Full }),
                "{first} then {then}"
            );
        }
    }

    #[tokio::test]
    async fn a_hello_that_never_ends_is_cut_off_at_its_cap() {
        let mint = mint();
        let (ours, mut theirs): (DuplexStream, DuplexStream) = duplex(1 << 20);
        // Records of a handshake message that announces 64 KiB.
        let mut sent = Vec::new();
        for number in 0..4_u8 {
            sent.extend([22, 3, 1, 0x20, 0]);
            let mut body = vec![0; 0x2000];
            if number == 0 {
                body[..4].copy_from_slice(&[1, 0, 0xff, 0]);
            }
            sent.extend(body);
        }
        theirs.write_all(&sent).await.unwrap();
        let error = mint
            .accept(ours, "a.test", Speaks::Http1)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("longer than any client sends"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_not_tls_is_refused_as_such() {
        let mint = mint();
        let (ours, mut theirs) = duplex(65_536);
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = mint
            .accept(ours, "a.test", Speaks::Http1)
            .await
            .unwrap_err();
        assert!(matches!(error, AcceptError::Protocol(_)), "{error:?}");
        let (ours, theirs) = duplex(65_536);
        drop(theirs);
        let error = mint
            .accept(ours, "a.test", Speaks::Http1)
            .await
            .unwrap_err();
        assert!(matches!(error, AcceptError::Io(_)), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_ends_the_handshake_at_its_deadline() {
        let mint = mint();
        let (ours, _theirs) = duplex(65_536);
        let before = Instant::now();
        let error = mint
            .accept(ours, "a.test", Speaks::Http1)
            .await
            .unwrap_err();
        assert!(matches!(error, AcceptError::TimedOut { .. }), "{error:?}");
        assert_eq!(before.elapsed(), Settings::default().handshake_within);
    }
}
