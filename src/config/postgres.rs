//! Servers of PostgreSQL: URLs as its own clients write them, and what they say of TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::net::agent_tls::Demand;
use crate::net::database_tls::{Mode, NamesHost, Negotiation, Settings, Trust};
use crate::net::listen_at::At;
use crate::protocols::postgres::{self, AskAt, Login, Replication, Upstream};

use super::For;
use super::database_url::{file_mode, pem_file, place, query};
use super::raw;
use super::resolve::{Origin, Resolver};
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
        let for_all = self.for_all([
            ("postgres.sslmode", "sslmode", raw.sslmode),
            ("postgres.sslrootcert", "sslrootcert", raw.sslrootcert),
            ("postgres.sslcert", "sslcert", raw.sslcert),
            ("postgres.sslkey", "sslkey", raw.sslkey),
            ("postgres.passfile", "passfile", raw.passfile),
        ]);
        let read = |text: &str| server(text, default, &for_all);
        let upstreams = self.list("postgres.servers", raw.servers, read);
        let agent_tls = self.agent_tls(
            [
                "postgres.agent_tls",
                "postgres.agent_sslcert",
                "postgres.agent_sslkey",
            ],
            [raw.agent_tls, raw.agent_sslcert, raw.agent_sslkey],
        );
        let encrypted = agent_tls
            .as_ref()
            .is_some_and(|tls| tls.demand == Demand::Required);
        for upstream in upstreams.iter().filter(|one| !one.listen.is_local()) {
            if !encrypted {
                self.warnings.push(format!(
                    "the relay for PostgreSQL listens on {}, which other machines may reach, and passwords may come to it in clear; set postgres.agent_tls to require",
                    upstream.listen
                ));
            }
        }
        let mode = |text: &str, _: Option<Origin>| file_mode(text);
        let socket_mode = self.parsed("postgres.socket_mode", raw.socket_mode, mode);
        let execute = ("execute", AskAt::Execute);
        let earlier = [("bind", AskAt::Bind), ("parse", AskAt::Parse)];
        let replication = [
            ("refuse", Replication::Refuse),
            ("judge", Replication::Judge),
        ];
        postgres::Settings {
            upstreams,
            agent_tls,
            socket_mode: socket_mode.unwrap_or(0o600),
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
    fn for_all(
        &mut self,
        settings: [(&'static str, &'static str, Option<String>); 5],
    ) -> Parameters {
        let mut parameters = Parameters::new();
        for (key, name, said) in settings {
            if let Some(given) = self.given(key, said) {
                parameters.push((name.to_owned(), given.text));
            }
        }
        // Told once, and not again with each server.
        match tls(&parameters).and(passfile(&parameters)) {
            Ok(_) => parameters,
            Err(wrong) => {
                self.tell("postgres", wrong);
                Parameters::new()
            }
        }
    }
}

/// `[LISTEN=]postgres://HOST[:PORT][/…][?…]`, where `default` is LISTEN. Who
/// logs in is the agent's to say, but for a passfile; where to, always.
fn server(text: &str, default: SocketAddr, for_all: &Parameters) -> Result<Upstream, Wrong> {
    let wrong = || {
        let expected = "postgres://HOST:PORT, or postgres://?host=/FOLDER for a socket in it; in front, where agents connect to: ADDRESS:PORT= or /FOLDER=";
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
            listener(listen).ok_or_else(wrong)?,
            format!("postgres{rest}"),
        ),
        None => (At::Tcp(default), text.to_owned()),
    };
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or_else(wrong)?;
    let mut parameters = for_all.clone();
    for pair in query(rest).split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = (decoded(name), decoded(value));
        let (Some(name), Some(value)) = read else {
            return Err(wrong());
        };
        parameters.push((name, value));
    }
    let (host, port) = host_and_port(rest, &parameters).ok_or_else(wrong)?;
    let mut tls = tls(&parameters)?;
    if host.starts_with('/') {
        if tls.mode >= Mode::Require {
            let found = format!(
                "it asks for sslmode={} through a socket of this machine, where servers have no TLS",
                tls.mode.word()
            );
            return Err(Wrong::new(
                found,
                "sslmode=disable",
                "postgres://?host=/var/run/postgresql&sslmode=disable",
            ));
        }
        tls.mode = Mode::Disable;
        let own = At::Unix(PathBuf::from(&*host).join(format!(".s.PGSQL.{port}")));
        if own == listen {
            let found = "agents and the server would meet at the same path".to_owned();
            return Err(Wrong::new(
                found,
                "another path",
                "/run/openbox=postgres://?host=/var/run/postgresql",
            ));
        }
    }
    let login = login(rest, &parameters, &listen)?;
    Ok(Upstream {
        listen,
        host,
        port,
        tls,
        login,
    })
}

/// Who logs in instead of the agent, where there is a file with passwords.
fn login(rest: &str, parameters: &Parameters, listen: &At) -> Result<Option<Login>, Wrong> {
    const EXAMPLE: &str =
        "127.0.0.1:15432=postgres://agent@orders-db.internal:5432?passfile=/run/secrets/pgpass";
    let Some(passfile) = passfile(parameters)? else {
        return Ok(None);
    };
    if !listen.is_local() {
        let found = format!(
            "it has a passfile and listens on {listen}: whoever reaches that would be logged in"
        );
        return Err(Wrong::new(
            found,
            "an address of this machine alone",
            EXAMPLE,
        ));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let named = authority.rsplit_once('@').map(|(user, _)| user);
    // No password: that of the URL is the agent's way to write one, and in view of all.
    if named.is_some_and(|user| user.contains(':')) {
        let found = "it has a passfile, and a password in its URL".to_owned();
        return Err(Wrong::new(found, "the password in the file alone", EXAMPLE));
    }
    let said = parameters.iter().rev().find(|(name, _)| name == "user");
    let role = match (said, named) {
        (Some((_, role)), _) => Some(role.clone()),
        (None, Some(user)) => decoded(user),
        (None, None) => None,
    };
    Ok(Some(Login {
        role: role.filter(|role| !role.is_empty()).map(Into::into),
        passfile,
    }))
}

/// The file with passwords that parameters name, which must be readable now.
fn passfile(parameters: &Parameters) -> Result<Option<PathBuf>, Wrong> {
    let said = parameters.iter().rev().find(|(name, _)| name == "passfile");
    let Some((_, path)) = said.filter(|(_, path)| !path.is_empty()) else {
        return Ok(None);
    };
    match std::fs::File::open(path) {
        Ok(_) => Ok(Some(PathBuf::from(path))),
        Err(error) => Err(Wrong::new(
            format!("passfile={path}: {error}"),
            "a readable file with lines host:port:database:role:password",
            "/run/secrets/pgpass",
        )),
    }
}

/// An address, the path of a socket as clients look for it, or a folder for one.
fn listener(text: &str) -> Option<At> {
    if !text.starts_with('/') {
        return text.parse().ok().map(At::Tcp);
    }
    let path = PathBuf::from(text);
    let name = path.file_name()?.to_str()?;
    let port = name.strip_prefix(".s.PGSQL.").map(str::parse::<u16>);
    match port {
        Some(Ok(_)) => Some(At::Unix(path)),
        Some(Err(_)) => None,
        None => Some(At::Unix(path.join(".s.PGSQL.5432"))),
    }
}

/// Where a server is: parameters `host` and `port` win, as with its own clients;
/// a host that begins with a slash is the folder of a socket.
fn host_and_port(rest: &str, parameters: &Parameters) -> Option<(Box<str>, u16)> {
    const PORT: u16 = 5_432;
    let said = |name: &str| {
        let mut all = parameters.iter().rev();
        all.find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let at = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
    let decoded = decoded(at)?;
    let (folder, port) = match (said("host"), decoded.starts_with('/')) {
        (Some(host), _) if host.starts_with('/') => {
            let port = decoded.rsplit_once(':').map(|(_, port)| port);
            (host.to_owned(), port)
        }
        (Some(host), _) => {
            return place(
                host,
                said("port").map_or(Some(PORT), |port| port.parse().ok())?,
            );
        }
        (None, false) => {
            return place(
                rest,
                said("port").map_or(Some(PORT), |port| port.parse().ok())?,
            );
        }
        (None, true) => match decoded.rsplit_once(':') {
            Some((folder, port)) => (folder.to_owned(), Some(port)),
            None => (decoded.clone(), None),
        },
    };
    let port = said("port")
        .or(port)
        .map_or(Some(PORT), |port| port.parse().ok())?;
    (port != 0 && !folder.contains(',')).then(|| (folder.into(), port))
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
            (
                "/run/x=postgres://db",
                Some(("/run/x/.s.PGSQL.5432", "db", 5432)),
            ),
            (
                "/run/.s.PGSQL.7=postgres:///?host=/var/run/pg&port=6",
                Some(("/run/.s.PGSQL.7", "/var/run/pg", 6)),
            ),
            (
                "postgres://%2Fvar%2Frun%2Fpg:6/x",
                Some(("127.0.0.1:15432", "/var/run/pg", 6)),
            ),
            (
                "postgres:///x?host=db&port=6",
                Some(("127.0.0.1:15432", "db", 6)),
            ),
            ("/run/.s.PGSQL.x=postgres://db", None),
            ("/run=postgres://?host=/run", None),
            ("postgres://?host=/run&sslmode=require", None),
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
    fn pg_8_a_passfile_logs_in_as_the_role_of_the_url_and_on_this_machine_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        for (url, expected) in [
            ("postgres://u@db", Ok(None)),
            ("postgres://u@db?passfile=FILE", Ok(Some(Some("u")))),
            ("postgres://a%40b@db?passfile=FILE", Ok(Some(Some("a@b")))),
            ("postgres://u@db?passfile=FILE&user=v", Ok(Some(Some("v")))),
            ("postgres://db?passfile=FILE", Ok(Some(None))),
            ("/run/x=postgres://db?passfile=FILE", Ok(Some(None))),
            (
                "postgres://u:hunter2@db?passfile=FILE",
                Err("a password in its URL"),
            ),
            (
                "0.0.0.0:1=postgres://u@db?passfile=FILE",
                Err("whoever reaches"),
            ),
            ("postgres://db?passfile=/nowhere", Err("/nowhere")),
        ] {
            match (read(&url.replace("FILE", &path)), expected) {
                (Ok(up), Ok(expected)) => {
                    let role = up.login.map(|login| login.role);
                    let expected = expected.map(|role| role.map(Into::into));
                    assert_eq!(role, expected, "{url}");
                }
                (Err(wrong), Err(part)) => {
                    assert!(wrong.found.contains(part), "{url}: {wrong:?}");
                    assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
                }
                (found, _) => panic!("{url}: {found:?}"),
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
