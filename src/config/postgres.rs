//! Servers of PostgreSQL: URLs as its own clients write them, and what they say of TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::net::database_tls::{Mode, NamesHost, Negotiation, Settings, Trust};
use crate::protocols::postgres::{self, AskAt, Replication, Upstream};

use super::For;
use super::database_url::{pem_file, place, query};
use super::raw;
use super::resolve::Resolver;
use super::value::Wrong;

/// Parameters of a URL, or what the file says for all; the last of a name counts.
type Parameters = Vec<(String, String)>;

impl Resolver<'_> {
    pub(super) fn postgres(&mut self, raw: raw::Postgres, purpose: For) -> postgres::Settings {
        let port = match purpose {
            For::Serve => 15_432,
            For::Run => 0,
        };
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let for_all = self.tls_for_all([
            ("postgres.sslmode", "sslmode", raw.sslmode),
            ("postgres.sslrootcert", "sslrootcert", raw.sslrootcert),
            ("postgres.sslcert", "sslcert", raw.sslcert),
            ("postgres.sslkey", "sslkey", raw.sslkey),
        ]);
        let read = |text: &str| server(text, default, &for_all);
        let upstreams = self.list("postgres.servers", raw.servers, read);
        for upstream in &upstreams {
            if !upstream.listen.ip().is_loopback() {
                self.warnings.push(format!(
                    "the relay for PostgreSQL listens on {}, which other machines may reach, and passwords come to it in clear",
                    upstream.listen
                ));
            }
        }
        let execute = ("execute", AskAt::Execute);
        let earlier = [("bind", AskAt::Bind), ("parse", AskAt::Parse)];
        let replication = [
            ("refuse", Replication::Refuse),
            ("judge", Replication::Judge),
        ];
        postgres::Settings {
            upstreams,
            ask_at: self.one_of("postgres.ask_at", raw.ask_at, execute, earlier, ""),
            replication: self.choice("postgres.replication", raw.replication, replication, ""),
            hold_within: self.duration("postgres.hold_within", raw.hold_within),
            hold_in_transaction_within: self.duration(
                "postgres.hold_in_transaction_within",
                raw.hold_in_transaction_within,
            ),
            login_within: self.duration("postgres.login_within", raw.login_within),
            connections_max: self.count("postgres.connections_max", raw.connections_max, 1),
            memory_bytes_max: self.count("postgres.memory_bytes_max", raw.memory_bytes_max, 0),
        }
    }

    /// What holds for servers whose URL does not say otherwise.
    fn tls_for_all(
        &mut self,
        settings: [(&'static str, &'static str, Option<String>); 4],
    ) -> Parameters {
        let mut parameters = Parameters::new();
        for (key, name, said) in settings {
            if let Some(given) = self.given(key, said) {
                parameters.push((name.to_owned(), given.text));
            }
        }
        // Told once, and not again with each server.
        match tls(&parameters) {
            Ok(_) => parameters,
            Err(wrong) => {
                self.tell("postgres", wrong);
                Parameters::new()
            }
        }
    }
}

/// `[LISTEN=]postgres://HOST[:PORT][/…][?…]`, where `default` is LISTEN. Who
/// logs in, and where to, is the agent's to say.
fn server(text: &str, default: SocketAddr, for_all: &Parameters) -> Result<Upstream, Wrong> {
    let wrong = || {
        let expected =
            "postgres://HOST:PORT, in front of it, where agents connect to: ADDRESS:PORT=";
        // Not the text itself: it may hold a password.
        let found = "it is not [LISTEN=]URL of a PostgreSQL server".to_owned();
        Wrong::new(
            found,
            expected,
            "127.0.0.1:15432=postgres://orders-db.internal:5432",
        )
    };
    let (listen, url) = match text.split_once("=postgres") {
        Some((listen, rest)) => (
            listen.parse().map_err(|_| wrong())?,
            format!("postgres{rest}"),
        ),
        None => (default, text.to_owned()),
    };
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or_else(wrong)?;
    let (host, port) = place(rest, 5_432).ok_or_else(wrong)?;
    let mut parameters = for_all.clone();
    for pair in query(rest).split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = (decoded(name), decoded(value));
        let (Some(name), Some(value)) = read else {
            return Err(wrong());
        };
        parameters.push((name, value));
    }
    Ok(Upstream {
        listen,
        host,
        port,
        tls: tls(&parameters)?,
    })
}

/// Text with `%41` for `A`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// What parameters say of TLS, as the clients of PostgreSQL mean them.
fn tls(parameters: &Parameters) -> Result<Settings, Wrong> {
    const EXAMPLE: &str = "sslmode=verify-full&sslrootcert=/etc/ssl/orders-db.pem";
    let wrong = |found: String, expected: &str| Err(Wrong::new(found, expected, EXAMPLE));
    let said = |name: &str| {
        let found = parameters.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    for unknown in ["sslcrl", "sslcrldir", "sslpassword"] {
        if said(unknown).is_some() {
            let found = format!("it asks for {unknown}, which is not supported");
            return wrong(found, "none");
        }
    }
    let root = said("sslrootcert");
    let mode = match said("sslmode") {
        Some("disable") => Mode::Disable,
        // In clear first, TLS if that fails: the other way round is no worse.
        Some("prefer" | "allow") => Mode::Prefer,
        Some("require") => Mode::Require,
        Some("verify-ca") => Mode::VerifyCa,
        Some("verify-full") => Mode::VerifyFull,
        // As their clients do.
        None if root == Some("system") => Mode::VerifyFull,
        None => Mode::default(),
        Some(other) => {
            let expected = "disable, prefer, require, verify-ca or verify-full";
            return wrong(format!("it asks for sslmode={other}"), expected);
        }
    };
    let trust = match root {
        None if mode == Mode::VerifyCa => {
            let found =
                "sslmode=verify-ca without sslrootcert accepts a certificate of anybody".to_owned();
            return wrong(found, "sslrootcert too, or sslmode=verify-full");
        }
        None => Trust::System,
        Some("system") if mode != Mode::VerifyFull => {
            let found = format!(
                "sslmode={} with sslrootcert=system accepts a certificate of anybody",
                mode.word()
            );
            return wrong(found, "sslmode=verify-full");
        }
        Some("system") => Trust::System,
        Some(path) => Trust::File(file("sslrootcert", path)?),
    };
    let identity = match (said("sslcert"), said("sslkey")) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some((file("sslcert", chain)?, file("sslkey", key)?)),
        (Some(_), None) => return wrong("sslcert is set, and no sslkey".to_owned(), "both"),
        (None, Some(_)) => return wrong("sslkey is set, and no sslcert".to_owned(), "both"),
    };
    let negotiation = match said("sslnegotiation") {
        None | Some("postgres") => Negotiation::Asked,
        Some("direct") if mode >= Mode::Require => Negotiation::Direct,
        Some("direct") => {
            let found = format!("sslnegotiation=direct with sslmode={}", mode.word());
            return wrong(found, "sslmode=require, verify-ca or verify-full");
        }
        Some(other) => {
            return wrong(format!("sslnegotiation={other}"), "postgres or direct");
        }
    };
    let names_host = match said("sslsni") {
        None | Some("1") => NamesHost::Yes,
        Some("0") => NamesHost::No,
        Some(other) => return wrong(format!("sslsni={other}"), "0 or 1"),
    };
    Ok(Settings {
        mode,
        trust,
        identity,
        negotiation,
        names_host,
    })
}

fn file(name: &str, path: &str) -> Result<PathBuf, Wrong> {
    pem_file(name, path, "/etc/ssl/orders-db.pem")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Upstream, Wrong> {
        server(text, "127.0.0.1:15432".parse().unwrap(), &Vec::new())
    }

    #[test]
    fn a_url_says_host_port_and_listener_and_nothing_of_who_logs_in() {
        for (text, expected) in [
            ("postgres://db", Some(("127.0.0.1:15432", "db", 5432))),
            (
                "postgresql://u:p@DB:1/x?a=b",
                Some(("127.0.0.1:15432", "db", 1)),
            ),
            ("[::1]:7=postgres://[::1]:8", Some(("[::1]:7", "::1", 8))),
            ("postgres://", None),
            ("postgres://a,b", None),
            ("postgres://a:0", None),
            ("mysql://a", None),
            ("a=postgres://a", None),
        ] {
            let found = read(text).ok();
            let found = found.map(|up| (up.listen.to_string(), up.host, up.port));
            let expected = expected.map(|(listen, host, port)| (listen.into(), host.into(), port));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn pg_1_sslmode_and_its_companions_mean_what_clients_mean_by_them() {
        let pem = tempfile::NamedTempFile::new().unwrap();
        let path = pem.path().display().to_string();
        for (query, expected) in [
            ("", Ok((Mode::Prefer, false))),
            ("sslmode=disable", Ok((Mode::Disable, false))),
            ("sslmode=allow", Ok((Mode::Prefer, false))),
            ("sslmode=require", Ok((Mode::Require, false))),
            ("sslmode=require&sslrootcert=PEM", Ok((Mode::Require, true))),
            (
                "sslmode=verify-ca&sslrootcert=PEM",
                Ok((Mode::VerifyCa, true)),
            ),
            ("sslmode=verify-full", Ok((Mode::VerifyFull, false))),
            ("sslrootcert=system", Ok((Mode::VerifyFull, false))),
            ("sslmode=verify%2Dfull", Ok((Mode::VerifyFull, false))),
            ("sslmode=verify-ca", Err("certificate of anybody")),
            (
                "sslmode=require&sslrootcert=system",
                Err("certificate of anybody"),
            ),
            ("sslmode=on", Err("sslmode=on")),
            ("sslmode=require&sslcert=PEM", Err("no sslkey")),
            ("sslmode=require&sslkey=PEM", Err("no sslcert")),
            ("sslmode=verify-ca&sslrootcert=/nowhere", Err("/nowhere")),
            ("sslnegotiation=direct", Err("sslmode=prefer")),
            ("sslcrl=x", Err("sslcrl")),
        ] {
            let query = query.replace("PEM", &path);
            let found = read(&format!("postgres://u:secret@db/x?{query}"));
            match (found, expected) {
                (Ok(up), Ok((mode, file))) => {
                    let named = matches!(up.tls.trust, Trust::File(_));
                    assert_eq!((up.tls.mode, named), (mode, file), "{query}");
                }
                (Err(wrong), Err(part)) => {
                    assert!(wrong.found.contains(part), "{query}: {wrong:?}");
                    assert!(!format!("{wrong:?}").contains("secret"), "{wrong:?}");
                }
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_the_file_says_for_all_servers_gives_way_to_a_url() {
        let for_all = vec![("sslmode".to_owned(), "require".to_owned())];
        let mode = |url: &str| {
            let default = "127.0.0.1:15432".parse().unwrap();
            server(url, default, &for_all).unwrap().tls.mode
        };
        assert_eq!(mode("postgres://a"), Mode::Require);
        assert_eq!(mode("postgres://a?sslmode=disable"), Mode::Disable);
    }
}
