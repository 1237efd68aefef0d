//! Certificates for the hosts an agent asks for.
//!
//! One key serves every host: making keys would double the price of a new host and protect nothing, as all of
//! them would live in this process. A session ticket is bound to its host, so that no host resumes another's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::net::authority::{Authority, BACKDATED, random_serial};
use crate::net::tls::{self, ALPN_HTTP_1_1, ALPN_HTTP_2, Speaks};

/// Hosts whose certificates are kept.
const HOSTS_MAX: usize = 1024;

/// How long a leaf is valid, if its authority is.
const LEAF_LIFE: time::Duration = time::Duration::days(7);

/// A leaf with less than this left is replaced, so that none expires under a client's connection pool.
const RENEWED_BEFORE: time::Duration = time::Duration::days(1);

/// How intercepted connections are accepted.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest wait for the handshake, from the first byte on.
    pub handshake_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_within: Duration::from_secs(10),
        }
    }
}

/// Makes certificates for hosts and serves TLS with them.
pub struct Mint {
    authority: Authority,
    provider: Arc<CryptoProvider>,
    key: Arc<dyn SigningKey>,
    public_key: SubjectPublicKeyInfo,
    tickets: Arc<dyn ProducesTickets>,
    leaves: Cache<Box<str>, Leaf>,
    pub(super) handshake_within: Duration,
}

#[derive(Clone)]
struct Leaf {
    /// Prefers HTTP/1.1.
    config: Arc<ServerConfig>,
    /// Prefers HTTP/2.
    config2: Arc<ServerConfig>,
    certified: Arc<CertifiedKey>,
    renew_at: OffsetDateTime,
}

impl Mint {
    /// A mint with a fresh leaf key and fresh ticket keys.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn new(authority: Authority, settings: &Settings) -> Result<Self, MintError> {
        let pair = zeroize::Zeroizing::new(KeyPair::generate().map_err(MintError::Certificate)?);
        let der = PrivateKeyDer::Pkcs8(pair.serialized_der().to_vec().into());
        let mut provider = CryptoProvider::clone(&tls::provider());
        // The client is on this machine: post-quantum exchange would cost a fifth of each handshake and
        // protect nothing. Every client that offers it offers a classical group too.
        provider.kx_groups = vec![
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ];
        Ok(Self {
            authority,
            key: provider
                .key_provider
                .load_private_key(der)
                .map_err(MintError::Tls)?,
            provider: Arc::new(provider),
            public_key: SubjectPublicKeyInfo::from_der(&pair.subject_public_key_info())
                .map_err(MintError::Certificate)?,
            tickets: aws_lc_rs::Ticketer::new().map_err(MintError::Tls)?,
            leaves: Cache::new(HOSTS_MAX),
            handshake_within: settings.handshake_within,
        })
    }

    /// The authority behind the certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The server side of TLS for one host, made or remembered. `host` is a name or an address, an IPv6
    /// address with or without brackets. Of what the client offers, `prefers` is chosen if it is there.
    ///
    /// # Errors
    ///
    /// When the host is neither, or the authority has expired.
    pub fn leaf(&self, host: &str, prefers: Speaks) -> Result<Arc<ServerConfig>, MintError> {
        self.known_or_made(host).map(|leaf| match prefers {
            Speaks::Http1 => leaf.config,
            Speaks::Http2 => leaf.config2,
        })
    }

    /// The certificate for one host and its key, made or remembered; for protocols that are not HTTP.
    ///
    /// # Errors
    ///
    /// As for [`Self::leaf`].
    pub(super) fn certified(&self, host: &str) -> Result<Arc<CertifiedKey>, MintError> {
        self.known_or_made(host).map(|leaf| leaf.certified)
    }

    /// The cryptography towards clients of this machine.
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    fn known_or_made(&self, host: &str) -> Result<Leaf, MintError> {
        let now = OffsetDateTime::now_utc();
        if let Some(leaf) = self.leaves.get(host)
            && now < leaf.renew_at
        {
            return Ok(leaf);
        }
        let name =
            tls::server_name(host).ok_or_else(|| MintError::BadHost { host: host.into() })?;
        let leaf = self.make(&name, now)?;
        // Under the spelling it was asked for: a client repeats its own, and looking up needs no copy.
        self.leaves.insert(host.into(), leaf.clone());
        Ok(leaf)
    }

    fn make(&self, name: &ServerName<'_>, now: OffsetDateTime) -> Result<Leaf, MintError> {
        let not_after = now
            .saturating_add(LEAF_LIFE)
            .min(self.authority.not_after());
        if not_after <= now {
            return Err(MintError::AuthorityExpired {
                at: self.authority.not_after(),
            });
        }
        let mut params = CertificateParams::default();
        params.not_before = now.saturating_sub(BACKDATED);
        params.not_after = not_after;
        params.serial_number = Some(random_serial());
        // No subject: the name is in the alternative names, which then are critical.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![alternative_name(name)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = self
            .authority
            .sign(&params, &self.public_key)
            .map_err(MintError::Certificate)?;
        let chain = vec![certificate, self.authority.certificate().clone()];
        // Close to the authority's end there is nothing longer to be had.
        let renew_at = not_after
            .saturating_sub(RENEWED_BEFORE)
            .max(now.min(not_after));
        let certified = CertifiedKey::new(chain, Arc::clone(&self.key));
        let config = self.server_config(certified.clone(), name)?;
        let mut config2 = config.clone();
        config2.alpn_protocols.reverse();
        Ok(Leaf {
            config: Arc::new(config),
            config2: Arc::new(config2),
            certified: Arc::new(certified),
            renew_at,
        })
    }

    fn server_config(
        &self,
        key: CertifiedKey,
        name: &ServerName<'_>,
    ) -> Result<ServerConfig, MintError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(MintError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![ALPN_HTTP_1_1.to_vec(), ALPN_HTTP_2.to_vec()];
        config.ticketer = Arc::new(HostTickets {
            host: Sha256::digest(name.to_str().as_bytes()).into(),
            shared: Arc::clone(&self.tickets),
        });
        // Tickets carry the sessions; a memory of them per host would be 256 entries nobody asks for.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Each resumed connection is given the ticket for the next one.
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint")
            .field("authority", &self.authority)
            .field("hosts", &self.leaves.len())
            .finish_non_exhaustive()
    }
}

fn alternative_name(name: &ServerName<'_>) -> Result<SanType, MintError> {
    if let ServerName::IpAddress(address) = name {
        return Ok(SanType::IpAddress((*address).into()));
    }
    let text = name.to_str().into_owned();
    text.try_into()
        .map(SanType::DnsName)
        .map_err(MintError::Certificate)
}

/// Tickets of one host, under keys shared by all: a forgotten configuration costs no resumption, and a ticket
/// brought to another host opens nothing. rustls compares server names, but clients of an IP address send none.
#[derive(Debug)]
struct HostTickets {
    host: [u8; 32],
    shared: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for HostTickets {
    fn enabled(&self) -> bool {
        self.shared.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.shared.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.shared.encrypt(&[&self.host, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.shared.decrypt(cipher)?;
        plain.strip_prefix(&self.host).map(<[u8]>::to_vec)
    }
}

/// Why there is no certificate.
#[derive(Debug)]
pub enum MintError {
    /// The host is neither a name nor an address.
    BadHost {
        /// The host.
        host: Box<str>,
    },
    /// The authority's time is over.
    AuthorityExpired {
        /// When it ended.
        at: OffsetDateTime,
    },
    /// The certificate could not be made.
    Certificate(rcgen::Error),
    /// The TLS library did not accept what we made.
    Tls(rustls::Error),
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadHost { host } => write!(f, "\"{host}\" is neither a host name nor an address"),
            Self::AuthorityExpired { at } => write!(
                f,
                "the sidecar's certificate authority expired on {}; restart the sidecar to have a new one made",
                at.date()
            ),
            Self::Certificate(source) => write!(f, "no certificate could be made: {source}"),
            Self::Tls(source) => write!(f, "no TLS could be set up: {source}"),
        }
    }
}

impl std::error::Error for MintError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Certificate(source) => Some(source),
            Self::Tls(source) => Some(source),
            Self::BadHost { .. } | Self::AuthorityExpired { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::HandshakeKind::Full;
    use rustls::{ClientConfig, RootCertStore};
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::parse_x509_certificate;

    use super::*;

    fn mint() -> Mint {
        Mint::new(Authority::ephemeral().unwrap(), &Settings::default()).unwrap()
    }

    fn client(trusted: &Authority) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.certificate().clone()).unwrap();
        ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    #[test]
    fn a_leaf_is_remembered_until_it_is_due_and_never_outlives_the_authority() {
        let mint = mint();
        let first = mint.leaf("a.test", Speaks::Http1).unwrap();
        assert!(Arc::ptr_eq(
            &first,
            &mint.leaf("a.test", Speaks::Http1).unwrap()
        ));
        let name = tls::server_name("a.test").unwrap();
        let due = OffsetDateTime::now_utc();
        let leaf = mint.make(&name, due).unwrap();
        mint.leaves.insert(
            "a.test".into(),
            Leaf {
                renew_at: due,
                ..leaf
            },
        );
        assert!(!Arc::ptr_eq(
            &first,
            &mint.leaf("a.test", Speaks::Http1).unwrap()
        ));

        let end = mint.authority().not_after();
        let hour = time::Duration::hours(1);
        assert!(mint.make(&name, end - hour).unwrap().renew_at <= end);
        let error = mint.make(&name, end).err().unwrap();
        assert!(
            matches!(error, MintError::AuthorityExpired { .. }),
            "{error:?}"
        );
    }

    #[test]
    fn hosts_that_are_none_get_no_certificate() {
        let mint = mint();
        for host in [
            "",
            "a b",
            "*.test",
            "a/b",
            "a..b",
            "-",
            "a:443",
            "bücher.test",
            "a\0.test",
        ] {
            let answer = mint.leaf(host, Speaks::Http1);
            assert!(matches!(answer, Err(MintError::BadHost { .. })), "{host:?}");
        }
    }

    #[test]
    fn a_leaf_carries_what_strict_verifiers_ask_for() {
        let mint = mint();
        let certificate = certificate(&mint, "a.test");
        let (_, leaf) = parse_x509_certificate(&certificate).unwrap();
        let (_, authority) = parse_x509_certificate(mint.authority().certificate()).unwrap();

        let signer = authority.extensions().iter().find_map(|extension| {
            if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
                return Some(id.clone());
            }
            None
        });
        assert!(signer.is_some());
        let mut seen = [false; 2];
        for extension in leaf.extensions() {
            let parsed = extension.parsed_extension();
            if let ParsedExtension::AuthorityKeyIdentifier(id) = parsed {
                assert_eq!(id.key_identifier, signer);
                seen[0] = true;
            }
            if let ParsedExtension::SubjectAlternativeName(names) = parsed {
                assert!(extension.critical, "there is no subject");
                assert_eq!(names.general_names, [GeneralName::DNSName("a.test")]);
                seen[1] = true;
            }
        }
        assert_eq!(seen, [true; 2]);
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.flags, 1, "digital signature only");
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && !extended.client_auth && !extended.any);
        assert!(!leaf.is_ca());
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert!(life <= time::Duration::days(9).whole_seconds());
        assert!(leaf.validity().not_after.to_datetime() <= mint.authority().not_after());
        let other = self::certificate(&mint, "b.test");
        let (_, other) = parse_x509_certificate(&other).unwrap();
        assert_ne!(leaf.serial, other.serial);
    }

    /// The leaf that a client of the host is shown.
    fn certificate(mint: &Mint, host: &str) -> Vec<u8> {
        let config = mint.leaf(host, Speaks::Http1).unwrap();
        let client_config = Arc::new(client(mint.authority()));
        let mut server = rustls::ServerConnection::new(config).unwrap();
        let name = tls::server_name(host).unwrap();
        let mut client = rustls::ClientConnection::new(client_config, name).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        assert_eq!(server.handshake_kind(), Some(Full), "no second hello");
        client.peer_certificates().unwrap()[0].to_vec()
    }

    #[test]
    fn the_shape_of_a_mint_does_not_show_its_keys() {
        let text = format!("{:?}", mint()).to_lowercase();
        assert!(!text.contains("key"), "{text}");
    }
}
