//! Test certificates, and the TLS settings of both ends.
//!
//! X25519 first and no post-quantum group: every peer then does the same key exchange, whatever its
//! library prefers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};

pub(crate) const ALPN_HTTP_1_1: &[u8] = b"http/1.1";
pub(crate) const ALPN_HTTP_2: &[u8] = b"h2";
/// Names that the origin's certificate is good for.
const NAMES: [&str; 2] = ["origin.test", "127.0.0.1"];

#[derive(Args)]
pub(crate) struct CaOptions {
    /// Folder for ca.pem, ca-key.pem and ca-bundle.pem (key, then certificate)
    #[arg(long)]
    dir: PathBuf,
    /// Common name of the authority
    #[arg(long, default_value = "benchmark proxy CA")]
    name: String,
}

/// A self-signed authority with a P-256 key.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_pem: String,
}

pub(crate) fn write_ca(options: &CaOptions) -> Result<(), String> {
    let authority = authority(&options.name)?;
    let bundle = format!("{}{}", authority.key_pem, authority.certificate_pem);
    write(&options.dir.join("ca.pem"), &authority.certificate_pem)?;
    write(&options.dir.join("ca-key.pem"), &authority.key_pem)?;
    write(&options.dir.join("ca-bundle.pem"), &bundle)
}

/// Makes an authority and a certificate for the origin's names, and writes the authority's certificate to `ca_file`.
pub(crate) fn server_config(ca_file: &Path) -> Result<ServerConfig, String> {
    let authority = authority("benchmark origin CA")?;
    let key = KeyPair::generate().map_err(|error| format!("cannot make a key: {error}"))?;
    let names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    let mut params =
        CertificateParams::new(names).map_err(|error| format!("unusable name: {error}"))?;
    (params.not_before, params.not_after) = validity();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
        .distinguished_name
        .push(DnType::CommonName, "benchmark origin");
    let leaf = params
        .signed_by(&key, &authority.issuer)
        .map_err(|error| format!("cannot sign the origin's certificate: {error}"))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .map_err(|error| format!("the origin's certificate: {error}"))?;
    // Last, so that whoever waits for the file finds everything else in place.
    write(ca_file, &authority.certificate_pem)?;
    Ok(config)
}

/// Trusts the authority in `ca_file` and nothing else, offers `protocols`, and never resumes a session.
pub(crate) fn client_config(
    ca_file: &Path,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca_file)
        .map_err(|error| format!("{}: {error}", ca_file.display()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{}: {error}", ca_file.display()))?;
        roots
            .add(certificate)
            .map_err(|error| format!("{}: {error}", ca_file.display()))?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS versions: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
}

fn authority(name: &str) -> Result<Authority, String> {
    let key = KeyPair::generate().map_err(|error| format!("cannot make a key: {error}"))?;
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params
        .self_signed(&key)
        .map_err(|error| format!("cannot sign the authority: {error}"))?;
    Ok(Authority {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        issuer: Issuer::new(params, key),
    })
}

fn validity() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::days(1), now + Duration::days(30))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
