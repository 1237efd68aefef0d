//! What URLs of databases have in common: where the server is, and files of TLS.

use std::path::PathBuf;

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
