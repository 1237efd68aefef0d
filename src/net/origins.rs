//! Origins whose TLS is not like that of the others: an authority of their own, a certificate that we show.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::net::database_tls::{self, SetupError, Trust};
use crate::net::reread::Reread;
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

    /// The files that it is made of.
    fn files(origin: &Origin) -> Vec<PathBuf> {
        let authorities = match &origin.trust {
            Trust::System => None,
            Trust::File(file) => Some(file),
        };
        let identity = origin.identity.iter().flat_map(|(chain, key)| [chain, key]);
        authorities.into_iter().chain(identity).cloned().collect()
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

/// What shakes hands with some origins, as their files say by now.
#[derive(Debug)]
pub(super) struct Renewed {
    origin: Origin,
    roots: Roots,
    offers: Reread<Offers>,
}

impl Renewed {
    /// For `origin`, whose files are read; see [`Offers::to`].
    ///
    /// # Errors
    ///
    /// When a file cannot be used.
    pub(super) fn new(origin: &Origin, roots: &Roots) -> Result<Self, SetupError> {
        let what = format!("what upstream.tls says of {}", origin.host);
        let offers = Reread::new(&what, Offers::files(origin), || Offers::to(origin, roots))?;
        Ok(Self {
            origin: origin.clone(),
            roots: roots.clone(),
            offers,
        })
    }

    /// Whether it is about `host`.
    pub(super) fn is_about(&self, host: &str) -> bool {
        is_host(&self.origin.host, host)
    }

    /// The newest, and its number.
    pub(super) fn newest(&self) -> (Offers, u64) {
        self.offers.newest(|| Offers::to(&self.origin, &self.roots))
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<Builder, SetupError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(error.to_string()))
}

/// Whether `pattern`, a host or `*.` and what hosts end with, is about `host`, however both are written.
#[must_use]
pub fn is_host(pattern: &str, host: &str) -> bool {
    let Some(suffix) = pattern.strip_prefix("*.") else {
        return pattern.eq_ignore_ascii_case(host) || is_same_address(pattern, host);
    };
    let split = host
        .len()
        .checked_sub(suffix.len())
        .and_then(|at| host.split_at_checked(at));
    split.is_some_and(|(rest, end)| {
        end.eq_ignore_ascii_case(suffix) && rest.ends_with('.') && rest.len() > 1
    })
}

/// IPv6 has many spellings of an address, of which those for IPv4 are dialed as IPv4.
fn is_same_address(one: &str, other: &str) -> bool {
    let canonical = |text: &str| Some(text.parse::<IpAddr>().ok()?.to_canonical());
    canonical(one).is_some_and(|one| canonical(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_its_hosts_however_they_are_written() {
        for (pattern, host, expected) in [
            ("a.test", "A.Test", true),
            ("A.test", "a.test", true),
            ("a.test", "b.a.test", false),
            ("*.a.test", "B.A.TEST", true),
            ("*.A.test", "b.a.test", true),
            ("*.a.test", "c.b.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", ".a.test", false),
            ("*.a.test", "xa.test", false),
            ("*.a.test", "é", false),
            ("*.a", "é", false),
            ("2001:db8:0::1", "2001:db8::1", true),
            ("2001:DB8::1", "2001:0db8:0:0::1", true),
            ("2001:db8::1", "2001:db8::2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(is_host(pattern, host), expected, "{pattern} {host}");
        }
    }
}
