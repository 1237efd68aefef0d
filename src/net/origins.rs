//! Origins whose TLS is not like that of the others: an authority of their own, a certificate that we show.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::net::database_tls::{self, SetupError, Trust};
use crate::net::tls::{ALPN_HTTP_1_1, ALPN_HTTP_2, provider};
use crate::net::trust::Roots;

/// Upstream sessions remembered for resumption, for each kind of origin.
const SESSIONS_MAX: usize = 512;

/// One origin, or all below a name, whatever their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A host, or `*.` and what hosts end with.
    pub host: String,
    /// Whom to trust; a file's authorities alone.
    pub trust: Trust,
    /// Files with the certificate chain that we show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What shakes hands with an origin; once for each version of HTTP that is offered.
#[derive(Clone, Debug)]
pub(super) struct Offers {
    /// HTTP/1.1.
    pub(super) http1: Arc<ClientConfig>,
    /// HTTP/2 too.
    pub(super) either: Arc<ClientConfig>,
}

impl Offers {
    /// For all that are not [`Origin`]s: verified against `roots`, and shown nothing.
    ///
    /// # Errors
    ///
    /// When the cryptographic library supports no protocol version, which would be a defect of the build.
    pub(super) fn to_all(roots: &Roots) -> Result<Self, SetupError> {
        let config = builder()?
            .with_root_certificates(roots.store())
            .with_no_client_auth();
        Ok(Self::of(config))
    }

    /// For one. There is no way not to verify it.
    ///
    /// # Errors
    ///
    /// When a file cannot be used.
    pub(super) fn to(origin: &Origin, roots: &Roots) -> Result<Self, SetupError> {
        let settings = database_tls::Settings {
            mode: database_tls::Mode::VerifyFull,
            trust: origin.trust.clone(),
            ..database_tls::Settings::default()
        };
        let builder = builder()?
            .dangerous()
            .with_custom_certificate_verifier(database_tls::verifier(&settings, roots)?);
        let config = database_tls::showing(builder, origin.identity.as_ref())?;
        Ok(Self::of(config))
    }

    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![ALPN_HTTP_1_1.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let mut either = config.clone();
        either.alpn_protocols.insert(0, ALPN_HTTP_2.to_vec());
        Self {
            http1: Arc::new(config),
            either: Arc::new(either),
        }
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<Builder, SetupError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(error.to_string()))
}

/// Whether `pattern`, a host or `*.` and what hosts end with, is about `host`.
#[must_use]
pub fn is_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => host
            .strip_suffix(suffix)
            .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1),
        None => pattern.eq_ignore_ascii_case(host),
    }
}
