//! Whom we trust, and what makes agents trust us: our authority, and the files
//! in the state folder that carry it.

use std::path::Path;
use std::sync::Arc;

use crate::config::{For, UpstreamConfig};
use crate::net::authority::{Authority, KEY_FILE};
use crate::net::mint::{self, Mint};
use crate::net::tls::{self, Upstreams};
use crate::net::trust::{self, Roots, write_atomically};

use super::StartError;

/// Our authority's certificate: add it to a trust store.
pub const CA: &str = "ca.pem";
/// The system's authorities and ours: replaces a trust store.
pub const BUNDLE: &str = "bundle.pem";
/// The same for Java.
pub const JAVA_STORE: &str = "bundle.jks";

/// Everyone may read what everyone must trust.
const PUBLIC: u32 = 0o644;

/// Reads the authorities that upstreams are verified against.
pub(super) fn upstreams(config: &UpstreamConfig) -> Result<(Roots, Upstreams), StartError> {
    let roots = Roots::read(&config.ca_files).map_err(StartError::trust)?;
    if roots.count() == 0 {
        tracing::warn!(
            "this system has no certificate authorities, so no https origin can be verified; install ca-certificates or name a file with --upstream-ca"
        );
    }
    let settings = tls::Settings {
        origins: config.origins.clone(),
        ..tls::Settings::default()
    };
    let upstreams = Upstreams::new(&roots, &settings)
        .map_err(|error| StartError::trust(format!("upstream.tls: {error}")))?;
    Ok((roots, upstreams))
}

/// Our authority. `serve` keeps it, so that agents which trust it need not be
/// told again after a restart; `run` makes one for its child alone.
pub(super) fn mint(folder: &Path, purpose: For) -> Result<Arc<Mint>, StartError> {
    // Where `serve` has kept one, it must not be parted from its certificate.
    let kept = match purpose {
        For::Serve => true,
        For::Run => folder.join(KEY_FILE).exists(),
    };
    let authority = if kept {
        Authority::load_or_create(folder).map(|(authority, _)| authority)
    } else {
        Authority::ephemeral()
    };
    let authority = authority.map_err(StartError::trust)?;
    let mint = Mint::new(authority, &mint::Settings::default()).map_err(StartError::trust)?;
    Ok(Arc::new(mint))
}

/// Writes what agents need to trust us.
pub(super) fn publish(folder: &Path, roots: &Roots, mint: &Mint) -> Result<(), StartError> {
    let ours = mint.authority().certificate();
    let files = [
        (CA, mint.authority().pem().into_bytes()),
        (BUNDLE, roots.bundle_pem(ours).into_bytes()),
        (JAVA_STORE, roots.java_store(ours)),
    ];
    for (name, content) in files {
        let path = folder.join(name);
        write_atomically(&path, &content, PUBLIC)
            .map_err(|source| StartError::State { path, source })?;
    }
    Ok(())
}

/// SHA-256 of our certificate, as trust stores show it.
pub(super) fn fingerprint(mint: &Mint) -> String {
    trust::fingerprint(mint.authority().certificate())
}
