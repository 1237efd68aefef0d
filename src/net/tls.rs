//! TLS to upstreams: always verified, and failures told in words that say whose fault they are.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::net::database_tls::SetupError;
use crate::net::dial::bare;
use crate::net::origins::{Offers, Origin, Renewed};
use crate::net::trust::Roots;

/// HTTP/1.1 and HTTP/2 as application protocols (RFC 7301, RFC 9113 §3.2).
pub(super) const ALPN_HTTP_1_1: &[u8] = b"http/1.1";
pub(super) const ALPN_HTTP_2: &[u8] = b"h2";

/// The version of HTTP that two sides have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, also where no protocol was named.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Speaks {
    pub(super) fn of(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(ALPN_HTTP_2) => Self::Http2,
            Some(_) | None => Self::Http1,
        }
    }
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The cryptography of the whole process. Nothing is installed globally: a crate that relies on a global
/// provider must fail loudly instead of using another one.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// How upstreams are connected to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest handshake with an upstream.
    pub handshake_within: Duration,
    /// Those whose TLS is not like that of the others; the first that is about a host holds.
    pub origins: Vec<Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_within: Duration::from_secs(10),
            origins: Vec::new(),
        }
    }
}

/// Makes TLS connections to upstreams and verifies them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upstreams {
    offers: Offers,
    /// Of some hosts.
    others: Arc<[Renewed]>,
    handshake_within: Duration,
}

impl Upstreams {
    /// Connections verified against these authorities. There is no way not to verify.
    ///
    /// # Errors
    ///
    /// When a file of an origin's cannot be used.
    pub fn new(roots: &Roots, settings: &Settings) -> Result<Self, SetupError> {
        let others = settings.origins.iter();
        let others = others.map(|origin| Renewed::new(origin, roots));
        Ok(Self {
            offers: Offers::to_all(roots)?,
            others: others.collect::<Result<_, SetupError>>()?,
            handshake_within: settings.handshake_within,
        })
    }

    /// Shakes hands over a connected stream, for HTTP/1.1. `host` is the name or address the certificate must
    /// be for, an IPv6 address with or without brackets.
    ///
    /// # Errors
    ///
    /// When the certificate does not prove the host, the peer does not speak TLS as we do, or it is too slow.
    pub async fn connect<S>(&self, stream: S, host: &str) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.shake(self.to(host).http1, stream, host).await
    }

    /// The same for HTTP/2, or for HTTP/1.1 where the peer does not speak it.
    ///
    /// # Errors
    ///
    /// As for [`Self::connect`].
    pub async fn connect_either<S>(
        &self,
        stream: S,
        host: &str,
    ) -> Result<(TlsStream<S>, Speaks), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.shake(self.to(host).either, stream, host).await?;
        let speaks = Speaks::of(stream.get_ref().1.alpn_protocol());
        Ok((stream, speaks))
    }

    /// Grows whenever what is shown to `host`, or trusted of it, has changed: a connection that was made before then
    /// is somebody else's.
    #[must_use]
    pub fn edition(&self, host: &str) -> u64 {
        self.other(host).map_or(0, |other| other.newest().1)
    }

    fn to(&self, host: &str) -> Offers {
        let other = self.other(host);
        other.map_or_else(|| self.offers.clone(), |other| other.newest().0)
    }

    fn other(&self, host: &str) -> Option<&Renewed> {
        let host = bare(host);
        self.others.iter().find(|other| other.is_about(host))
    }

    async fn shake<S>(
        &self,
        config: Arc<ClientConfig>,
        stream: S,
        host: &str,
    ) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = server_name(host).ok_or_else(|| TlsError::BadHost { host: host.into() })?;
        let shaken = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(self.handshake_within, shaken).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(TlsError::of(host, error)),
            Err(_) => Err(TlsError::TimedOut {
                host: host.into(),
                within: self.handshake_within,
            }),
        }
    }
}

/// The name of a host as certificates have it: no brackets, no final dot, lower case.
pub(super) fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(bare(host).to_ascii_lowercase()).ok()
}

/// What is wrong with an upstream's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateProblem {
    /// Its signer is not among the authorities.
    UnknownIssuer,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for another name.
    WrongName,
    /// Its signer took it back.
    Revoked,
    /// Anything else.
    Other,
}

/// Why there is no TLS connection to an upstream.
#[derive(Debug)]
pub enum TlsError {
    /// The host is neither a name nor an address.
    BadHost {
        /// The host.
        host: Box<str>,
    },
    /// The certificate does not prove the host.
    Certificate {
        /// The host.
        host: Box<str>,
        /// What is wrong, for metrics and answers.
        problem: CertificateProblem,
        /// What is wrong, in words.
        words: String,
    },
    /// The peer does not speak TLS, or none that we do.
    Protocol {
        /// The host.
        host: Box<str>,
        /// What was wrong.
        source: rustls::Error,
    },
    /// The connection broke.
    Io {
        /// The host.
        host: Box<str>,
        /// What the system said.
        source: io::Error,
    },
    /// The handshake took too long.
    TimedOut {
        /// The host.
        host: Box<str>,
        /// The time it had.
        within: Duration,
    },
}

impl TlsError {
    pub(super) fn of(host: &str, error: io::Error) -> Self {
        let host = host.into();
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::InvalidCertificate(error)) => {
                let (problem, words) = in_words(&error);
                Self::Certificate {
                    host,
                    problem,
                    words,
                }
            }
            Ok(source) => Self::Protocol { host, source },
            Err(source) => Self::Io { host, source },
        }
    }
}

fn in_words(error: &CertificateError) -> (CertificateProblem, String) {
    use CertificateProblem as P;
    // The library adds reasons over time; those it adds are told in its own words.
    if let CertificateError::UnknownIssuer = error {
        let words = "it is signed by an authority that is not trusted here; if the authority is your own, \
                     name its certificate with --upstream-ca FILE";
        (P::UnknownIssuer, words.into())
    } else if let CertificateError::ExpiredContext { not_after, .. } = error {
        (P::Expired, format!("it expired on {}", date(*not_after)))
    } else if let CertificateError::Expired = error {
        (P::Expired, "it has expired".into())
    } else if let CertificateError::NotValidYetContext { not_before, .. } = error {
        let words = format!(
            "it is not valid before {}; is this machine's clock right?",
            date(*not_before)
        );
        (P::NotYetValid, words)
    } else if let CertificateError::NotValidYet = error {
        (P::NotYetValid, "it is not valid yet".into())
    } else if let CertificateError::NotValidForNameContext { presented, .. } = error {
        let words = if presented.is_empty() {
            "it names no host".into()
        } else {
            format!("it is for {}", names(presented))
        };
        (P::WrongName, words)
    } else if let CertificateError::NotValidForName = error {
        (P::WrongName, "it is for another host".into())
    } else if let CertificateError::Revoked = error {
        (P::Revoked, "its authority has revoked it".into())
    } else {
        (P::Other, error.to_string())
    }
}

/// The first names of a certificate; a shared one may have hundreds.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = presented
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let more = presented.len().saturating_sub(SHOWN);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .map_or_else(
            || "a date out of range".into(),
            |time| time.date().to_string(),
        )
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadHost { host } => write!(f, "\"{host}\" is neither a host name nor an address"),
            Self::Certificate { host, words, .. } => {
                write!(f, "the certificate of {host} is not accepted: {words}")
            }
            Self::Protocol { host, source } => {
                write!(f, "{host} does not speak TLS as expected: {source}")
            }
            Self::Io { host, source } => {
                write!(
                    f,
                    "the connection to {host} broke during the TLS handshake: {source}"
                )
            }
            Self::TimedOut { host, within } => write!(
                f,
                "{host} did not finish the TLS handshake within {} s",
                within.as_secs_f32()
            ),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Protocol { source, .. } => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::BadHost { .. } | Self::Certificate { .. } | Self::TimedOut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::net::authority::Authority;

    fn trusting(authority: &Authority) -> Upstreams {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();
        let roots = Roots::read(&[file.path().to_owned()]).unwrap();
        Upstreams::new(&roots, &Settings::default()).unwrap()
    }

    fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    /// A server whose certificate for `name` is valid for so many days around `starts` days from now.
    fn serving(authority: &Authority, name: &str, starts: i64, days: i64) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = OffsetDateTime::now_utc() + time::Duration::days(starts);
        params.not_after = params.not_before + time::Duration::days(days);
        server(vec![authority.sign(&params, &key).unwrap()], &key)
    }

    async fn shake(
        upstreams: &Upstreams,
        config: Arc<ServerConfig>,
        host: &str,
    ) -> Result<Option<rustls::HandshakeKind>, TlsError> {
        let (ours, theirs) = duplex(65_536);
        let serve = async {
            if let Ok(mut stream) = TlsAcceptor::from(config).accept(theirs).await {
                stream.write_all(b"x").await.ok();
                stream.read_u8().await.ok();
            }
        };
        let connect = async {
            let mut stream = upstreams.connect(ours, host).await?;
            stream.read_exact(&mut [0]).await.unwrap();
            Ok(stream.get_ref().1.handshake_kind())
        };
        tokio::join!(connect, serve).0
    }

    #[tokio::test]
    async fn each_fault_of_a_certificate_has_its_own_words() {
        let (known, unknown) = (
            Authority::ephemeral().unwrap(),
            Authority::ephemeral().unwrap(),
        );
        let upstreams = trusting(&known);
        let rows = [
            // signer    name             starts  days   asked             problem                                      words
            (&known, "a.test", -1, 9, "a.test", None, ""),
            (&known, "a.test", -1, 9, "A.Test.", None, ""),
            (&known, "192.0.2.1", -1, 9, "192.0.2.1", None, ""),
            (&known, "2001:db8::1", -1, 9, "[2001:db8::1]", None, ""),
            (
                &unknown,
                "a.test",
                -1,
                9,
                "a.test",
                Some(CertificateProblem::UnknownIssuer),
                "--upstream-ca",
            ),
            (
                &known,
                "a.test",
                -9,
                2,
                "a.test",
                Some(CertificateProblem::Expired),
                "it expired on 20",
            ),
            (
                &known,
                "a.test",
                3,
                9,
                "a.test",
                Some(CertificateProblem::NotYetValid),
                "not valid before 20",
            ),
            (
                &known,
                "b.test",
                -1,
                9,
                "a.test",
                Some(CertificateProblem::WrongName),
                "b.test",
            ),
            (
                &known,
                "192.0.2.2",
                -1,
                9,
                "192.0.2.1",
                Some(CertificateProblem::WrongName),
                "192.0.2.2",
            ),
        ];
        for (signer, name, starts, days, asked, expected, part) in rows {
            let answer = shake(&upstreams, serving(signer, name, starts, days), asked).await;
            match (answer, expected) {
                (Ok(_), None) => {}
                (
                    Err(TlsError::Certificate {
                        host,
                        problem,
                        words,
                    }),
                    Some(expected),
                ) => {
                    assert_eq!((&*host, problem), (asked, expected), "{words}");
                    assert!(words.contains(part), "{words}");
                }
                (answer, _) => panic!("{name} asked as {asked}: {answer:?}"),
            }
        }
    }

    #[tokio::test]
    async fn sessions_are_resumed() {
        let authority = Authority::ephemeral().unwrap();
        let upstreams = trusting(&authority);
        let config = serving(&authority, "a.test", -1, 9);
        let kinds = [
            shake(&upstreams, Arc::clone(&config), "a.test")
                .await
                .unwrap(),
            shake(&upstreams, config, "a.test").await.unwrap(),
        ];
        use rustls::HandshakeKind::{Full, Resumed};
        assert_eq!(kinds, [Some(Full), Some(Resumed)]);
    }

    #[tokio::test]
    async fn a_peer_without_tls_is_told_from_one_with_a_bad_certificate() {
        let upstreams = trusting(&Authority::ephemeral().unwrap());
        let (ours, mut theirs) = duplex(65_536);
        theirs
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        let error = upstreams.connect(ours, "a.test").await.unwrap_err();
        assert!(matches!(error, TlsError::Protocol { .. }), "{error}");

        let (ours, theirs) = duplex(65_536);
        drop(theirs);
        let error = upstreams.connect(ours, "a.test").await.unwrap_err();
        assert!(matches!(error, TlsError::Io { .. }), "{error}");

        let (ours, _theirs) = duplex(65_536);
        let error = upstreams.connect(ours, "a b").await.unwrap_err();
        assert!(matches!(error, TlsError::BadHost { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_ends_the_handshake_at_its_deadline() {
        let upstreams = trusting(&Authority::ephemeral().unwrap());
        let (ours, _theirs) = duplex(65_536);
        let before = tokio::time::Instant::now();
        let error = upstreams.connect(ours, "a.test").await.unwrap_err();
        assert!(matches!(error, TlsError::TimedOut { .. }), "{error}");
        assert_eq!(before.elapsed(), Settings::default().handshake_within);
    }
}
