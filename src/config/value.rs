//! Texts as the values they stand for: durations, listeners, networks, overrides, hosts, URLs, keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::journal::Durability;
use crate::net::database_tls::Trust;
use crate::net::dial::Override;
use crate::net::origins::Origin;
use crate::policy::core::Unfit;
use crate::protocols::http::Place;

use super::Listener;
use super::problem::quoted;

/// Why a text is not the value it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) found: String,
    pub(super) expected: String,
    pub(super) example: String,
}

impl Wrong {
    /// `text` is not `what`.
    pub(super) fn is_not(text: &str, what: &str, expected: &str, example: &str) -> Self {
        Self::new(format!("{} is not {what}", quoted(text)), expected, example)
    }

    pub(super) fn new(found: String, expected: &str, example: &str) -> Self {
        Self {
            found,
            expected: expected.to_owned(),
            example: example.to_owned(),
        }
    }
}

/// Longest duration of any setting: what is meant to be for ever is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A number and its unit: `250ms`, `30s`, `5m`, `24h`; never nothing.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::is_not(
            text,
            "a duration",
            "a whole number above 0 and its unit, ms, s, m or h; at most a year",
            "25s",
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    duration
        .filter(|d| !d.is_zero() && *d <= DURATION_MAX)
        .ok_or_else(wrong)
}

/// The same, and `0s` where there is no bound.
pub(super) fn bound(text: &str) -> Result<Option<Duration>, Wrong> {
    const NONE: [&str; 5] = ["0", "0ms", "0s", "0m", "0h"];
    match NONE.contains(&text) {
        true => Ok(None),
        false => duration(text).map(Some),
    }
}

/// Seconds as the SDKs write them: `30`, `0.5`.
pub(super) fn seconds(text: &str) -> Result<Duration, Wrong> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|d| *d >= Duration::from_millis(1) && *d <= DURATION_MAX)
        .ok_or_else(|| {
            let expected = "seconds as a number above 0, at most a year";
            Wrong::is_not(text, "a number of seconds", expected, "30")
        })
}

/// `true` or `false`, and what variables say for them.
pub(super) fn truth(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Wrong::is_not(
            text,
            "true or false",
            "true or false",
            "true",
        )),
    }
}

/// A whole number, `at_least` or more.
pub(super) fn count(text: &str, at_least: usize) -> Result<usize, Wrong> {
    let number: Option<usize> = text.parse().ok();
    number.filter(|number| *number >= at_least).ok_or_else(|| {
        let expected = format!("a whole number, {at_least} or more");
        Wrong::is_not(text, &expected, &expected, "10000")
    })
}

/// `none`, `batch` or `every`.
pub(super) fn durability(text: &str) -> Result<Durability, Wrong> {
    match text {
        "none" => Ok(Durability::None),
        "batch" => Ok(Durability::Batch),
        "every" => Ok(Durability::Every),
        _ => {
            let expected = "none, batch or every";
            Err(Wrong::is_not(text, "a durability", expected, "batch"))
        }
    }
}

/// A name that something must have exactly.
pub(super) fn name(text: &str) -> Result<Box<str>, Wrong> {
    if text.trim().is_empty() {
        let found = "the name is empty".to_owned();
        return Err(Wrong::new(found, "a name, as it is told", "heartbeat"));
    }
    Ok(text.into())
}

/// `address:port`, or `off`.
pub(super) fn listener(text: &str) -> Result<Listener, Wrong> {
    if text == "off" {
        return Ok(Listener::Off);
    }
    // Kubernetes tells a pod's address without its kind: brackets are for both.
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.split_once("]:"));
    let address: Result<SocketAddr, _> = match in_brackets {
        Some((ip, port)) if ip.parse::<Ipv4Addr>().is_ok() => format!("{ip}:{port}").parse(),
        Some(_) | None => text.parse(),
    };
    address.map(Listener::At).map_err(|_| {
        let expected = "an IP address and a port, where port 0 takes a free one; or off";
        Wrong::is_not(text, "address:port", expected, "127.0.0.1:15801")
    })
}

/// A network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let network: Result<IpNet, _> = text.parse();
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    network.or_else(|_| address()).map_err(|_| {
        let expected = "a network in CIDR notation, or one IP address";
        Wrong::is_not(text, "a network", expected, "127.0.0.0/8")
    })
}

/// `HOST:PORT=ADDRESS`.
pub(super) fn resolve_override(text: &str) -> Result<Override, Wrong> {
    text.parse().map_err(|_| {
        let expected = "a host, its port, and the IP address to connect to";
        Wrong::is_not(
            text,
            "HOST:PORT=ADDRESS",
            expected,
            "api.example.com:443=10.0.0.7",
        )
    })
}

/// A name, an address or a network, as `NO_PROXY` has them.
pub(super) fn direct_host(text: &str) -> Result<String, Wrong> {
    let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok();
    let name = text.strip_prefix('.').unwrap_or(text);
    let is_name = !name.is_empty() && !name.contains(['*', ':', '@', ',', ' ', '/']);
    if !is_address && !is_name && text != "*" {
        let expected = "a name, an address, a network, or *";
        return Err(Wrong::is_not(text, "a host", expected, "corp.example"));
    }
    Ok(text.to_owned())
}

/// An exact name, an address, or `*.name`.
pub(super) fn host_pattern(text: &str) -> Result<String, Wrong> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if is_host(name) {
        return Ok(text.to_ascii_lowercase());
    }
    let expected = "a host name without port, or *. and a host name";
    Err(Wrong::is_not(
        text,
        "a host pattern",
        expected,
        "*.example.com",
    ))
}

/// `HOST name=FILE…`, of `ca`, `cert` and `key`.
pub(super) fn origin(text: &str) -> Result<Origin, Wrong> {
    const EXAMPLE: &str = "*.corp.example ca=/etc/ssl/corp.pem";
    let wrong = |found: &str| {
        let expected = "a host, and ca=FILE, or cert=FILE with key=FILE, or all three";
        Wrong::new(format!("{}: {found}", quoted(text)), expected, EXAMPLE)
    };
    let mut words = text.split_whitespace();
    let host = host_pattern(words.next().unwrap_or_default())?;
    let [mut ca, mut cert, mut key] = [None, None, None];
    for word in words {
        let (name, file) = word.split_once('=').unwrap_or((word, ""));
        let said = match name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            _ => return Err(wrong(&format!("{} is none of them", quoted(name)))),
        };
        if file.is_empty() || said.replace(PathBuf::from(file)).is_some() {
            return Err(wrong(&format!("{name} has no file, or two")));
        }
    }
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) if ca.is_some() => None,
        (None, None) => return Err(wrong("it says nothing of the host")),
        (Some(_), None) | (None, Some(_)) => return Err(wrong("cert and key go together")),
    };
    Ok(Origin {
        host,
        trust: ca.map_or(Trust::System, Trust::File),
        identity,
    })
}

/// A port to connect to.
pub(super) fn port(text: &str) -> Result<u16, Wrong> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| Wrong::is_not(text, "a port", "a number from 1 to 65535", "443"))
}

/// `HOST` or `HOST/PATH`; the host may be a pattern or `*`.
pub(super) fn place(text: &str) -> Result<Place, Wrong> {
    let (host, path) = match text.find('/').and_then(|at| text.split_at_checked(at)) {
        Some((host, path)) => (host, Some(path)),
        None => (text, None),
    };
    let path_fits = path.is_none_or(|path| {
        let stars = path.matches('*').count();
        path.bytes().all(|byte| byte.is_ascii_graphic())
            && !path.contains(['?', '#'])
            && (stars == 0 || (stars == 1 && path.ends_with('*')))
    });
    if path_fits && (host == "*" || host_pattern(host).is_ok()) {
        return Ok(Place::new(host, path));
    }
    let expected = "HOST or HOST/PATH, without scheme, port and query";
    Err(Wrong::is_not(
        text,
        "a place",
        expected,
        "api.example.com/v1/realtime*",
    ))
}

fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| !label.is_empty() && label.chars().all(fits);
    text.len() <= 253 && text.split('.').all(label)
}

impl From<Unfit> for Wrong {
    fn from(unfit: Unfit) -> Self {
        Self::new(unfit.found, unfit.expected, unfit.example)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_an_end() {
        for (text, ms) in [
            ("250ms", Some(250)),
            ("25s", Some(25_000)),
            ("5m", Some(300_000)),
            ("24h", Some(86_400_000)),
            ("25", None),
            ("s", None),
            ("0s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("", None),
            ("é", None),
            ("99999h", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn seconds_are_read_as_the_sdks_write_them() {
        for (text, ms) in [
            ("30", Some(30_000)),
            ("30.0", Some(30_000)),
            ("0.5", Some(500)),
            ("30s", None),
            ("0", None),
            ("-1", None),
            ("inf", None),
            ("NaN", None),
            ("1e300", None),
        ] {
            assert_eq!(seconds(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn addresses_and_hosts_are_exact() {
        for (text, good) in [
            ("127.0.0.1:0", true),
            ("[::1]:15801", true),
            ("[10.0.0.1]:15820", true),
            ("[10.0.0.1:15820", false),
            ("off", true),
            ("15801", false),
            (":15801", false),
            ("localhost:15801", false),
            ("127.0.0.1:70000", false),
        ] {
            assert_eq!(listener(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("api.demo.test:443=127.0.0.1", true),
            ("API:443=[::1]", true),
            ("api=127.0.0.1", false),
            ("api:443", false),
            ("api:0=127.0.0.1", false),
            ("api:443=name", false),
            ("*.api:443=127.0.0.1", false),
            (":443=127.0.0.1", false),
        ] {
            assert_eq!(resolve_override(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("a.example", true),
            ("*.example.com", true),
            ("*", false),
            ("a.*.com", false),
            ("a:443", false),
            ("https://a", false),
        ] {
            assert_eq!(host_pattern(text).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("127.0.0.0/8", true),
            ("10.0.0.1", true),
            ("::1", true),
            ("127.0.0.0/40", false),
            ("localhost", false),
        ] {
            assert_eq!(network(text).is_ok(), good, "{text}");
        }
    }
}
