//! Finding the sidecar that is to govern this environment, by asking for the canary wherever it may be.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::app::child_env::{Purpose, reachable};
use crate::config::{self, Config, Flags, For, Listener, Source};
use crate::protocols::http::canary::{HOST, Told};

use super::super::operator_client;
use super::{Args, ask};

/// One that answers.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// Where its HTTP proxy was asked.
    pub(super) proxy: SocketAddr,
    /// What it tells of itself.
    pub(super) told: Told,
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
            Ok(told) => return Ok(Sidecar { proxy: place, told }),
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

/// Whether a variable's `text` names `proxy`. Names are looked up for a proxy of another machine alone.
pub(super) fn leads_to(text: &str, proxy: SocketAddr) -> bool {
    if proxy.ip().is_loopback() {
        return place_of(text) == Some(proxy);
    }
    let found = parts_of(text).and_then(|place| place.to_socket_addrs().ok());
    found.into_iter().flatten().any(|place| place == proxy)
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
fn parts_of(text: &str) -> Option<(&str, u16)> {
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

    #[test]
    fn a_proxy_of_another_machine_may_be_named() {
        let elsewhere = "192.0.2.7:15801".parse().unwrap();
        assert!(leads_to("http://192.0.2.7:15801", elsewhere));
        assert!(!leads_to("http://192.0.2.7:15802", elsewhere));
        assert!(!leads_to("http://localhost:15801", elsewhere));
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
                assert!(leads_to(text, place), "{text}");
            }
        }
    }
}
