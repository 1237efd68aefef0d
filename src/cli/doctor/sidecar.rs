//! Finding the sidecar that is to govern this environment, by asking for the canary wherever it may be.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::app::child_env::{Purpose, reachable};
use crate::config::{self, Config, Flags, For, Listener, Source};
use crate::protocols::http::canary::{HOST, Told};

use super::super::operator_client;
use super::names::Names;
use super::{Args, ask};

/// One that answers.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// Where its HTTP proxy was asked.
    pub(super) proxy: SocketAddr,
    /// What it tells of itself.
    pub(super) told: Told,
    /// The names that variables give it.
    pub(super) names: Names,
}

impl Sidecar {
    fn new(proxy: SocketAddr, told: Told) -> Self {
        Self {
            proxy,
            told,
            names: Names::default(),
        }
    }

    /// Whether the kernel is to lead connections to it.
    pub(super) fn captures(&self) -> bool {
        !self.told.transparent.is_empty()
    }

    /// Whether a variable's `text` names its proxy.
    pub(super) fn is_named_by(&self, text: &str) -> bool {
        parts_of(text).is_some_and(|(host, port)| self.is_reached(host, port, self.proxy))
    }

    /// Whether who connects to `port` of `host` reaches what listens at `listen`. A name is looked up where the
    /// port is the same.
    pub(super) fn is_reached(&self, host: &str, port: u16, listen: SocketAddr) -> bool {
        port == listen.port() && {
            let mut all = self.names.addresses(host).into_iter();
            all.any(|ip| self.is_at(SocketAddr::new(ip, port), listen))
        }
    }

    /// Whether it listens at `place` itself, be it for requests, databases or its own APIs.
    pub(super) fn listens_at(&self, place: SocketAddr) -> bool {
        let told = &self.told;
        let all = [self.proxy].into_iter().chain(told.agent);
        let all = all
            .chain(told.health)
            .chain(told.transparent.iter().copied());
        let mut all = all.chain(told.relays.iter().map(|relay| relay.listen));
        all.any(|listen| self.is_at(place, listen))
    }

    /// Where it is reached that listens at `listen`: all addresses are the proxy's, too.
    pub(super) fn reached(&self, listen: SocketAddr) -> SocketAddr {
        let is_like_proxy = listen.is_ipv4() == self.proxy.is_ipv4();
        if listen.ip().is_unspecified() && is_like_proxy {
            return SocketAddr::new(self.proxy.ip(), listen.port());
        }
        reachable(listen)
    }

    fn is_at(&self, place: SocketAddr, listen: SocketAddr) -> bool {
        let ip = place.ip().to_canonical();
        let is_its_address = match listen.ip().is_unspecified() {
            true => ip.is_loopback() || ip == self.proxy.ip(),
            false => ip == listen.ip(),
        };
        is_its_address && place.port() == listen.port()
    }
}

/// Where nobody answered, and what could not be read.
pub(super) struct Asked {
    places: Vec<(SocketAddr, String)>,
    config: Option<String>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no sidecar was found, so nothing could be compared with it")?;
        for (address, why) in &self.places {
            write!(f, "\n  asked    {address}: {why}")?;
        }
        if let Some(problems) = &self.config {
            write!(f, "\n  not read {}", problems.trim_end())?;
        }
        f.write_str(
            "\n  start one with `openbox-sidecar serve`, or the agent with `openbox-sidecar run -- CMD`; \
             if one runs, name its --state-dir, or its proxy with --http-listen",
        )
    }
}

/// The sidecar of these flags, else of this environment, else of the state folder, else of the configuration.
///
/// # Errors
/// None of them answers.
pub(super) fn find(
    args: &Args,
    env: &Source,
    parent: &[(OsString, OsString)],
) -> Result<Sidecar, Asked> {
    let mut flags = Flags::default();
    for (name, value) in [
        ("--config", &args.config),
        ("--state-dir", &args.state_dir),
        ("--http-listen", &args.http_listen),
    ] {
        if let Some(value) = value {
            flags.push(name, value.clone());
        }
    }
    let config = config::check(&flags, env, For::Serve);
    let configured = config.as_ref().ok().and_then(listens);
    let announced = config
        .as_ref()
        .ok()
        .and_then(|config| operator_client::newest_proxy(&config.state_dir));
    let is_named = args.http_listen.is_some() || args.config.is_some();
    let mut places: Vec<SocketAddr> = Vec::new();
    let named = configured.filter(|_| is_named);
    let of_folder = announced.filter(|_| args.state_dir.is_some());
    let of_environment = in_environment(parent);
    let all = named.into_iter().chain(of_folder);
    let all = all.chain(of_environment).chain(announced).chain(configured);
    for place in all.map(reachable) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut asked = Vec::new();
    for place in places {
        match told(place) {
            Ok(told) => return Ok(Sidecar::new(place, told)),
            Err(why) => asked.push((place, why)),
        }
    }
    Err(Asked {
        places: asked,
        config: config.err().map(|problems| problems.to_string()),
    })
}

fn listens(config: &Config) -> Option<SocketAddr> {
    match config.listen.http {
        Listener::At(address) => Some(address),
        Listener::Off => None,
    }
}

/// Every proxy on this machine that a variable names. Others are nobody to be asked for what leads nowhere.
fn in_environment(parent: &[(OsString, OsString)]) -> Vec<SocketAddr> {
    let proxies = parent.iter().filter_map(|(name, value)| {
        let is_proxy = Purpose::of(name.to_str()?) == Some(Purpose::Proxy);
        let place = place_of(value.to_str().filter(|_| is_proxy)?)?;
        place.ip().is_loopback().then_some(place)
    });
    let mut all = Vec::new();
    for proxy in proxies {
        if !all.contains(&proxy) {
            all.push(proxy);
        }
    }
    all
}

/// What a sidecar at `place` tells; else why there is none, in words.
fn told(place: SocketAddr) -> Result<Told, String> {
    let target = format!("http://{HOST}/");
    match ask::get(place, &target, HOST, None) {
        Ok((200, body)) => serde_json::from_str(&body)
            .map_err(|_| "what answers there is no sidecar, or one of another version".to_owned()),
        Ok((status, _)) => Err(format!(
            "answered {status}: no sidecar, or one that is older"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// The address of a proxy as variables write it: with or without scheme, login and path; a name of this machine
/// is its address.
pub(super) fn place_of(text: &str) -> Option<SocketAddr> {
    let (host, port) = parts_of(text)?;
    let ip = if host.eq_ignore_ascii_case("localhost") {
        IpAddr::from([127, 0, 0, 1])
    } else {
        host.parse().ok()?
    };
    Some(SocketAddr::new(ip, port))
}

/// Host and port.
pub(in crate::cli) fn parts_of(text: &str) -> Option<(&str, u16)> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(proxy: &str, told: Told) -> Sidecar {
        Sidecar::new(proxy.parse().unwrap(), told)
    }

    #[test]
    fn a_proxy_of_another_machine_may_be_named() {
        let sidecar = at("192.0.2.7:15801", Told::default());
        assert!(sidecar.is_named_by("http://192.0.2.7:15801"));
        assert!(!sidecar.is_named_by("http://192.0.2.7:15802"));
        assert!(!sidecar.is_named_by("http://localhost:15801"));
    }

    #[test]
    fn what_it_listens_at_is_its_own_and_nothing_else() {
        let told = Told {
            agent: Some("0.0.0.0:15802".parse().unwrap()),
            health: Some("192.0.2.8:15820".parse().unwrap()),
            ..Told::default()
        };
        let sidecar = at("192.0.2.7:15801", told);
        for (place, expected) in [
            ("192.0.2.7:15801", true),
            ("192.0.2.7:15802", true),
            ("[::ffff:192.0.2.7]:15802", true),
            ("127.0.0.1:15802", true),
            ("192.0.2.8:15820", true),
            ("192.0.2.8:15802", false),
            ("192.0.2.7:15820", false),
            ("192.0.2.7:443", false),
        ] {
            let listens = sidecar.listens_at(place.parse().unwrap());
            assert_eq!(listens, expected, "{place}");
        }
    }

    #[test]
    fn all_addresses_of_a_sidecar_elsewhere_are_not_ours() {
        let sidecar = at("192.0.2.7:15801", Told::default());
        for (listen, expected) in [
            ("0.0.0.0:1", "192.0.2.7:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.9:1", "192.0.2.9:1"),
        ] {
            let reached = sidecar.reached(listen.parse().unwrap());
            assert_eq!(reached.to_string(), expected);
        }
    }

    #[test]
    fn a_proxy_is_read_as_clients_read_it() {
        for (text, expected) in [
            ("http://127.0.0.1:15801", Some("127.0.0.1:15801")),
            ("http://ctx:token@127.0.0.1:15801/", Some("127.0.0.1:15801")),
            ("127.0.0.1:15801", Some("127.0.0.1:15801")),
            ("socks5h://localhost:15801", Some("127.0.0.1:15801")),
            ("http://[::1]:15801", Some("[::1]:15801")),
            ("http://proxy.corp:3128", None),
            ("http://127.0.0.1", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(place_of(text), expected, "{text}");
            if let Some(place) = expected {
                assert!(
                    Sidecar::new(place, Told::default()).is_named_by(text),
                    "{text}"
                );
            }
        }
    }
}
