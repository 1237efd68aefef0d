//! What URLs of databases have in common: where the server is, and files of TLS.

use std::path::PathBuf;

use crate::net::agent_tls::{Demand, Settings, Shown};

use super::resolve::Resolver;
use super::value::Wrong;

/// Host, in lower case and without brackets, and port of a URL whose `rest`
/// follows its scheme. `None` where it names no single host, or no port that can
/// be connected to. Who logs in is the agent's to say, and left out.
pub(super) fn place(rest: &str, default_port: u16) -> Option<(Box<str>, u16)> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = match place.rsplit_once(':') {
        // An IPv6 address without a port ends in a bracket.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (place, default_port),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if bare.is_empty() || bare.contains(['/', ',', '%']) || port == 0 {
        return None;
    }
    Some((bare.to_ascii_lowercase().into(), port))
}

/// The query of a URL, without its fragment.
pub(super) fn query(rest: &str) -> &str {
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    query.split('#').next().unwrap_or_default()
}

/// The file that parameter `name` names, which must be readable now.
pub(super) fn pem_file(name: &str, path: &str, example: &'static str) -> Result<PathBuf, Wrong> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(PathBuf::from(path)),
        Err(error) => Err(Wrong::new(
            format!("{name}={path}: {error}"),
            "a readable PEM file",
            example,
        )),
    }
}

/// Permissions of a file, as `chmod` takes them.
pub(super) fn file_mode(text: &str) -> Result<u32, Wrong> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| {
        let found = format!("{text:?} is no file mode");
        Wrong::new(found, "permissions in octal, 0777 at most", "0660")
    })
}

impl Resolver<'_> {
    /// TLS from agents: `keys` are those of its demand, certificate and key, with
    /// what the file says of each. A problem counts as none.
    pub(super) fn agent_tls(
        &mut self,
        keys: [&'static str; 3],
        in_file: [Option<String>; 3],
    ) -> Option<Settings> {
        let [demand_key, cert_key, key_key] = keys;
        let [demand, cert, key] = in_file;
        let demand = self.given(demand_key, demand);
        let (cert, key) = (self.given(cert_key, cert), self.given(key_key, key));
        let shown = match (&cert, &key) {
            (None, None) => Shown::Minted,
            (Some(cert), Some(key)) => {
                let mut files = [cert, key].map(|given| {
                    let file = pem_file(&given.at, &given.text, "/run/secrets/orders-db.pem");
                    file.map_err(|wrong| self.tell(&given.at, wrong)).ok()
                });
                let (chain, key) = (files[0].take()?, files[1].take()?);
                Shown::Files(chain, key)
            }
            (Some(one), None) | (None, Some(one)) => {
                let found = "it is set, and the other of certificate and key is not".to_owned();
                let expected = format!("{cert_key} and {key_key}, or neither");
                self.tell(
                    &one.at,
                    Wrong::new(found, &expected, "/run/secrets/orders-db.pem"),
                );
                return None;
            }
        };
        let demand = match demand.as_ref().map(|given| given.text.as_str()) {
            Some("off") if cert.is_none() => return None,
            None if cert.is_none() => return None,
            Some("offer") | None => Demand::Offered,
            Some("require") => Demand::Required,
            Some(other) => {
                let found = match other {
                    "off" => format!("it is off, and {cert_key} is set"),
                    other => format!("{other:?} is none of them"),
                };
                let wrong = Wrong::new(found, "off, offer or require", "require");
                let at = demand.map_or(demand_key.to_owned(), |given| given.at);
                self.tell(&at, wrong);
                return None;
            }
        };
        Some(Settings { demand, shown })
    }
}
