//! TLS to databases, as their clients' `sslmode` means it. Unlike to the web, an operator may ask for encryption
//! without proof of who answers.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::net::tls::{TlsError, provider, server_name};
use crate::net::trust::Roots;

/// Longest handshake with a database.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Largest file with a certificate chain or a key that is read, bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// How much a connection to a database must prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No TLS.
    Disable,
    /// TLS where the server has it, without proof; in clear where not.
    #[default]
    Prefer,
    /// TLS, without proof of who answers.
    Require,
    /// TLS, with a certificate of a trusted authority, whatever its name.
    VerifyCa,
    /// TLS, with a certificate of a trusted authority for the server's host.
    VerifyFull,
}

impl Mode {
    /// As the setting says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Whom all upstreams are verified against.
    #[default]
    System,
    /// The authorities in this PEM file alone.
    File(PathBuf),
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Negotiation {
    /// It is asked for in clear first.
    #[default]
    Asked,
    /// With the first byte; the application protocol must be agreed on.
    Direct,
}

/// How a database is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// See [`Mode`].
    pub mode: Mode,
    /// See [`Trust`].
    pub trust: Trust,
    /// Files with our certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// See [`Negotiation`].
    pub negotiation: Negotiation,
    /// Whether the server is told which host is meant.
    pub names_host: NamesHost,
}

/// Whether the server is told, in clear, which host is meant (SNI).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamesHost {
    /// It is, where the host is a name.
    #[default]
    Yes,
    /// It is not.
    No,
}

/// Shakes hands with one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    host: Box<str>,
    name: ServerName<'static>,
    mode: Mode,
    negotiation: Negotiation,
}

impl Client {
    /// What connects to `host` as `settings` say, speaking `protocol` inside; `None` where they say not to.
    ///
    /// # Errors
    ///
    /// When a file that they name cannot be used, or the host is neither a name nor an address.
    pub fn new(
        host: &str,
        settings: &Settings,
        roots: &Roots,
        protocol: &[u8],
    ) -> Result<Option<Self>, SetupError> {
        if settings.mode == Mode::Disable {
            return Ok(None);
        }
        let wrong = |error: rustls::Error| SetupError(error.to_string());
        let name = server_name(host).ok_or_else(|| {
            SetupError(format!("\"{host}\" is neither a host name nor an address"))
        })?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(verifier(settings, roots)?);
        let mut config = showing(builder, settings.identity.as_ref())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.enable_sni = settings.names_host == NamesHost::Yes;
        // Sessions last: there is little to resume, and servers of PostgreSQL do not.
        config.resumption = Resumption::disabled();
        Ok(Some(Self {
            config: Arc::new(config),
            host: host.into(),
            name,
            mode: settings.mode,
            negotiation: settings.negotiation,
        }))
    }

    /// How much it must prove.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How TLS begins.
    #[must_use]
    pub fn negotiation(&self) -> Negotiation {
        self.negotiation
    }

    /// Shakes hands over a connected stream.
    ///
    /// # Errors
    ///
    /// When the certificate does not prove what the mode asks for, the peer does not speak TLS as we do, or
    /// it is too slow.
    pub async fn connect<S>(&self, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let shaken = connector.connect(self.name.clone(), stream);
        let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, shaken).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(TlsError::of(&self.host, error)),
            Err(_) => {
                return Err(TlsError::TimedOut {
                    host: self.host.clone(),
                    within: HANDSHAKE_WITHIN,
                });
            }
        };
        let agreed = stream.get_ref().1.alpn_protocol().is_some();
        if self.negotiation == Negotiation::Direct && !agreed {
            return Err(TlsError::Protocol {
                host: self.host.clone(),
                source: rustls::Error::NoApplicationProtocol,
            });
        }
        Ok(TlsStream::Client(stream))
    }
}

/// A configuration that shows this certificate chain, proved by its key.
pub(super) fn showing(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, SetupError> {
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(certificates(chain)?, private_key(key)?)
            .map_err(|error| of_file(key, &format!("does not go with the certificate: {error}"))),
    }
}

/// Verifies as much of a server's certificate as its mode asks for.
#[derive(Debug)]
struct Verifier {
    chain: Option<Chain>,
    name: VerifiesName,
}

#[derive(Debug)]
struct Chain {
    verifier: Arc<WebPkiServerVerifier>,
    /// Certificates that were named: one of them is trusted as it is, even where it signs itself, which is
    /// how many servers are set up.
    named: Vec<CertificateDer<'static>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VerifiesName {
    Yes,
    No,
}

/// Verifies as `settings` say.
pub(super) fn verifier(
    settings: &Settings,
    roots: &Roots,
) -> Result<Arc<dyn ServerCertVerifier>, SetupError> {
    let (proves, name) = match (settings.mode, &settings.trust) {
        // Clients of PostgreSQL verify where they are told an authority.
        (Mode::Require, Trust::File(_)) | (Mode::VerifyCa, _) => (true, VerifiesName::No),
        (Mode::Disable | Mode::Prefer | Mode::Require, _) => (false, VerifiesName::No),
        (Mode::VerifyFull, _) => (true, VerifiesName::Yes),
    };
    let chain = proves.then(|| chain(&settings.trust, roots)).transpose()?;
    Ok(Arc::new(Verifier { chain, name }))
}

fn chain(trust: &Trust, roots: &Roots) -> Result<Chain, SetupError> {
    let (store, named) = match trust {
        Trust::System => (roots.store(), Vec::new()),
        Trust::File(path) => {
            let only = Roots::only(path).map_err(|error| SetupError(error.to_string()))?;
            (only.store(), only.named().to_vec())
        }
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build();
    Ok(Chain {
        verifier: verifier
            .map_err(|error| SetupError(format!("no authority to trust: {error}")))?,
        named,
    })
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if chain.named.iter().any(|named| named == end_entity) {
            is_current(end_entity, now)?;
            if self.name == VerifiesName::Yes {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = chain.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // Looked at last: the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.name == VerifiesName::No => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let problem = if parsed.validity().not_before.timestamp() > seconds {
        CertificateError::NotValidYet
    } else if parsed.validity().not_after.timestamp() < seconds {
        CertificateError::Expired
    } else {
        return Ok(());
    };
    Err(rustls::Error::InvalidCertificate(problem))
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| of_file(path, &format!("is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(of_file(path, "holds no \"-----BEGIN CERTIFICATE-----\""));
    }
    Ok(found)
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SetupError> {
    let bytes = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        of_file(
            path,
            "holds no private key that can be read: PEM, and without a passphrase",
        )
    })
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    let wrong = |error: io::Error| of_file(path, &error.to_string());
    let size = fs::metadata(path).map_err(wrong)?.len();
    if size > PEM_BYTES_MAX {
        return Err(of_file(path, &format!("is {size} bytes, more than 1 MiB")));
    }
    fs::read(path).map_err(wrong)
}

pub(super) fn of_file(path: &Path, problem: &str) -> SetupError {
    SetupError(format!("file \"{}\": {problem}", path.display()))
}

/// Why TLS cannot be set up: what is wrong with which file.
#[derive(Debug)]
pub struct SetupError(pub(super) String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SetupError {}
