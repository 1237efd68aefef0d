//! The canary: a name that leads nowhere but here, and that the sidecar answers itself, so that a client can be
//! seen to come through. Nothing leaves for it, so nothing is asked about it.
//!
//! The name ends in `.invalid`, which no resolver knows (RFC 6761 §6.4): who does not come through the sidecar
//! finds nobody there.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde::{Deserialize, Serialize};

use super::authority::Target;
use super::outgoing::Outgoing;

/// The name.
pub const HOST: &str = "openbox-sidecar.invalid";
/// The only branch of the repository that git finds there.
pub const BRANCH: &str = "refs/heads/openbox-sidecar";

/// What git asks an origin first.
const REFERENCES: &str = "/info/refs";
/// The commit of that branch; there is none.
const COMMIT: &str = "0000000000000000000000000000000000000001";

/// What a sidecar tells of itself to whoever asks for the canary: nothing that its agents do not know or could not
/// find out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Its version.
    pub version: String,
    /// SHA-256 of the certificate of its authority, hex.
    pub authority_sha256: String,
    /// Its authority's certificate, PEM, as its agents find it.
    pub ca: PathBuf,
    /// The system's authorities and its own, PEM.
    pub bundle: PathBuf,
    /// The same for Java.
    pub java_store: PathBuf,
    /// Where its agent API listens.
    pub agent: Option<SocketAddr>,
    /// Where it tells whether it is ready.
    pub health: Option<SocketAddr>,
    /// Where it takes connections that the kernel leads to it.
    pub transparent: Vec<SocketAddr>,
    /// Where agents reach its databases.
    pub relays: Vec<Relay>,
}

/// A database as agents reach it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relay {
    /// `postgres`, `mysql` or `redis`.
    pub system: String,
    /// Where the sidecar listens for it.
    pub listen: SocketAddr,
}

/// Whether `target` is the canary.
pub(super) fn is(target: &Target) -> bool {
    &*target.host == HOST
}

/// What is answered there, whatever is asked for.
#[derive(Debug)]
pub(super) struct Canary {
    told: Bytes,
}

impl Canary {
    pub(super) fn new(told: &Told) -> Self {
        let told = serde_json::to_vec(told).unwrap_or_default();
        Self { told: told.into() }
    }

    pub(super) fn answer(&self, path: &str) -> Response<Outgoing> {
        let (kind, data) = if path.ends_with(REFERENCES) {
            let listed = format!("{COMMIT}\t{BRANCH}\n");
            ("text/plain", Bytes::from(listed))
        } else {
            ("application/json", self.told.clone())
        };
        let mut response = Response::new(Outgoing::whole(data, None));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
