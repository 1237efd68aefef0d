//! Servers of Redis: URLs as its own clients write them, and what they say of TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::net::database_tls::{Mode, Settings as Tls, Trust};
use crate::net::listen_at::At;
use crate::protocols::redis::{self, Upstream};

use super::For;
use super::database_url::{file_mode, pem_file, place, query};
use super::raw;
use super::resolve::{Origin, Resolver};
use super::value::Wrong;

const EXAMPLE: &str =
    "127.0.0.1:16379=rediss://cache.internal:6379?ssl_ca_certs=/etc/ssl/cache.pem";

impl Resolver<'_> {
    pub(super) fn redis(&mut self, raw: raw::Redis, purpose: For) -> redis::Settings {
        let port = match purpose {
            For::Serve => 16_379,
            For::Run => 0,
        };
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let read = |text: &str| server(text, default);
        let upstreams = self.list("redis.servers", raw.servers, read);
        for upstream in &upstreams {
            if !upstream.listen.is_local() {
                self.warnings.push(format!(
                    "the relay for Redis listens on {}, which other machines may reach, and passwords come to it in clear",
                    upstream.listen
                ));
            }
        }
        let mode = |text: &str, _: Option<Origin>| file_mode(text);
        let socket_mode = self.parsed("redis.socket_mode", raw.socket_mode, mode);
        let refusals = [
            ("substitute", redis::Refusals::Substitute),
            ("local", redis::Refusals::Local),
        ];
        let dangerous = [
            ("refuse", redis::Dangerous::Refuse),
            ("judge", redis::Dangerous::Judge),
        ];
        let nodes = [
            ("refuse", redis::Unlisted::Refuse),
            ("open", redis::Unlisted::Open),
        ];
        redis::Settings {
            upstreams,
            socket_mode: socket_mode.unwrap_or(0o600),
            hold_within: self.duration("redis.hold_within", raw.hold_within),
            hold_in_transaction_within: self.duration(
                "redis.hold_in_transaction_within",
                raw.hold_in_transaction_within,
            ),
            connections_max: self.count("redis.connections_max", raw.connections_max, 1),
            scripts_bytes_max: self.count("redis.scripts_bytes_max", raw.scripts_bytes_max, 0),
            pipeline_bytes_max: self.count("redis.pipeline_bytes_max", raw.pipeline_bytes_max, 0),
            refusals: self.choice("redis.refusals", raw.refusals, refusals, ""),
            dangerous: self.choice("redis.dangerous", raw.dangerous, dangerous, ""),
            nodes: self.choice("redis.nodes", raw.nodes, nodes, ""),
        }
    }
}

/// `[LISTEN=]redis://HOST[:PORT][/…][?…]`, `rediss://` for TLS, or
/// `redis+unix:///PATH`, where `default` is LISTEN. Who logs in, and which database is used, is the agent's
/// to say.
fn server(text: &str, default: SocketAddr) -> Result<Upstream, Wrong> {
    let wrong = || {
        let expected = "redis://HOST:PORT, rediss://HOST:PORT for TLS, or redis+unix:///PATH; in front of it, where agents connect to: ADDRESS:PORT= or /PATH=";
        // Not the text itself: it may hold a password.
        let found = "it is not [LISTEN=]URL of a Redis server".to_owned();
        Wrong::new(found, expected, EXAMPLE)
    };
    let (listen, url) = match text.split_once('=') {
        Some((listen, url)) if !listen.contains("://") => {
            (listener(listen).ok_or_else(wrong)?, url)
        }
        Some(_) | None => (At::Tcp(default), text),
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let encrypted = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        "unix" | "redis+unix" | "valkey+unix" => {
            let path = rest.split(['?', '#']).next().unwrap_or_default();
            let path = path.split_once('@').map_or(path, |(_, path)| path);
            if !path.starts_with('/') {
                return Err(wrong());
            }
            if listen == At::Unix(path.into()) {
                let found = "agents and the server would meet at the same path".to_owned();
                let example = "/run/openbox/redis.sock=redis+unix:///run/redis/redis.sock";
                return Err(Wrong::new(found, "another path", example));
            }
            return Ok(Upstream {
                listen,
                host: path.into(),
                port: 0,
                tls: tls(false, query(rest))?,
            });
        }
        _ => return Err(wrong()),
    };
    let (host, port) = place(rest, 6_379).ok_or_else(wrong)?;
    Ok(Upstream {
        listen,
        host,
        port,
        tls: tls(encrypted, query(rest))?,
    })
}

/// `ADDRESS:PORT`, or a path.
fn listener(text: &str) -> Option<At> {
    match text.starts_with('/') {
        true => Some(At::Unix(text.into())),
        false => text.parse().ok().map(At::Tcp),
    }
}

/// What a URL says of TLS, as redis-py means it.
fn tls(encrypted: bool, query: &str) -> Result<Tls, Wrong> {
    let wrong = |found: String, expected: &str| Err(Wrong::new(found, expected, EXAMPLE));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (mut trust, mut chain, mut key, mut proves) = (None, None, None, "required");
    for (name, value) in pairs {
        match name {
            "ssl_ca_certs" => trust = Some(file(name, value)?),
            "ssl_certfile" => chain = Some(file(name, value)?),
            "ssl_keyfile" => key = Some(file(name, value)?),
            "ssl_cert_reqs" => proves = value,
            // `db` and what else a client writes there is the agent's to say.
            _ => {}
        }
    }
    let any = trust.is_some() || chain.is_some() || key.is_some();
    if !encrypted {
        return match any {
            true => wrong(
                "it names certificates, and is no rediss://".to_owned(),
                "rediss://",
            ),
            false => Ok(Tls {
                mode: Mode::Disable,
                ..Tls::default()
            }),
        };
    }
    let identity = match (chain, key) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some((chain, key)),
        (Some(_), None) => return wrong("ssl_certfile is set, and no ssl_keyfile".into(), "both"),
        (None, Some(_)) => return wrong("ssl_keyfile is set, and no ssl_certfile".into(), "both"),
    };
    Ok(Tls {
        mode: match proves {
            "required" => Mode::VerifyFull,
            "none" => Mode::Require,
            other => return wrong(format!("ssl_cert_reqs={other}"), "required or none"),
        },
        trust: trust.map_or(Trust::System, Trust::File),
        identity,
        ..Tls::default()
    })
}

fn file(name: &str, path: &str) -> Result<PathBuf, Wrong> {
    pem_file(name, path, "/etc/ssl/cache.pem")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Upstream, Wrong> {
        server(text, "127.0.0.1:16379".parse().unwrap())
    }

    #[test]
    fn a_url_says_host_port_and_listener_and_nothing_of_who_logs_in() {
        for (text, expected) in [
            ("redis://db", Some(("127.0.0.1:16379", "db", 6379))),
            (
                "valkey://u:p=1@DB:1/3?a=b",
                Some(("127.0.0.1:16379", "db", 1)),
            ),
            ("[::1]:7=redis://[::1]:8", Some(("[::1]:7", "::1", 8))),
            (
                "127.0.0.1:7=rediss://a?x=y",
                Some(("127.0.0.1:7", "a", 6379)),
            ),
            (
                "redis+unix:///run/b.sock?db=1",
                Some(("127.0.0.1:16379", "/run/b.sock", 0)),
            ),
            ("unix://u:p@/b", Some(("127.0.0.1:16379", "/b", 0))),
            (
                "/run/o/r.sock=redis://a?x=y",
                Some(("/run/o/r.sock", "a", 6379)),
            ),
            (
                "/run/o=unix:///run/r.sock",
                Some(("/run/o", "/run/r.sock", 0)),
            ),
            ("/run/r.sock=unix:///run/r.sock", None),
            ("run/r.sock=redis://a", None),
            ("redis+unix://a", None),
            ("redis://", None),
            ("redis://a,b", None),
            ("redis://a:0", None),
            ("postgres://a", None),
            ("a=redis://a", None),
        ] {
            let found = read(text).ok();
            let found = found.map(|up| (up.listen.to_string(), up.host, up.port));
            let expected = expected.map(|(listen, host, port)| (listen.into(), host.into(), port));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn rd_20_tls_is_in_the_scheme_and_proof_is_asked_for_unless_it_says_not() {
        let pem = tempfile::NamedTempFile::new().unwrap();
        let path = pem.path().display().to_string();
        for (url, expected) in [
            ("redis://a", Ok(Mode::Disable)),
            ("rediss://a", Ok(Mode::VerifyFull)),
            ("rediss://a?ssl_cert_reqs=none", Ok(Mode::Require)),
            ("rediss://a?ssl_ca_certs=PEM&db=3", Ok(Mode::VerifyFull)),
            (
                "rediss://a?ssl_certfile=PEM&ssl_keyfile=PEM",
                Ok(Mode::VerifyFull),
            ),
            ("rediss://a?ssl_certfile=PEM", Err("no ssl_keyfile")),
            ("rediss://a?ssl_keyfile=PEM", Err("no ssl_certfile")),
            ("rediss://a?ssl_ca_certs=/nowhere", Err("/nowhere")),
            ("rediss://a?ssl_cert_reqs=optional", Err("optional")),
            ("redis://u:secret@a?ssl_ca_certs=PEM", Err("no rediss://")),
        ] {
            let found = read(&url.replace("PEM", &path));
            match (found, expected) {
                (Ok(up), Ok(mode)) => assert_eq!(up.tls.mode, mode, "{url}"),
                (Err(wrong), Err(part)) => {
                    assert!(wrong.found.contains(part), "{url}: {wrong:?}");
                    assert!(!format!("{wrong:?}").contains("secret"), "{wrong:?}");
                }
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }
}
