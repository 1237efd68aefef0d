//! Servers of MySQL and MariaDB: URLs as their clients write them, and what they say of TLS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::net::agent_tls::Demand;
use crate::net::database_tls::{Mode, Settings as Tls, Trust};
use crate::net::listen_at::At;
use crate::protocols::mysql::{
    self, LocalFiles, Replication, Sessions, Upstream, WhereUnsaid, WholePassword,
};

use super::For;
use super::database_url::{file_mode, pem_file, place, query};
use super::raw;
use super::resolve::{Origin, Resolver};
use super::value::Wrong;

const EXAMPLE: &str = "127.0.0.1:13306=mysql://orders-db.internal:3306?ssl-mode=VERIFY_IDENTITY";

impl Resolver<'_> {
    pub(super) fn mysql(&mut self, raw: raw::Mysql, purpose: For) -> mysql::Settings {
        let port = match purpose {
            For::Serve => 13_306,
            For::Run => 0,
        };
        let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let read = |text: &str| server(text, default);
        let upstreams = self.list("mysql.servers", raw.servers, read);
        let agent_tls = self.agent_tls(
            [
                "mysql.agent_tls",
                "mysql.agent_sslcert",
                "mysql.agent_sslkey",
            ],
            [raw.agent_tls, raw.agent_sslcert, raw.agent_sslkey],
        );
        let demand = agent_tls.as_ref().map(|tls| tls.demand);
        for upstream in upstreams.iter().filter(|one| !one.listen.is_local()) {
            if demand != Some(Demand::Required) {
                self.warnings.push(format!(
                    "the relay for MySQL listens on {}, which other machines may reach, and statements and rows may pass in clear; set mysql.agent_tls to require",
                    upstream.listen
                ));
            }
        }
        let mode = |text: &str, _: Option<Origin>| file_mode(text);
        let socket_mode = self.parsed("mysql.socket_mode", raw.socket_mode, mode);
        let local_files = [("refuse", LocalFiles::Refuse), ("judge", LocalFiles::Judge)];
        let replication = [
            ("refuse", Replication::Refuse),
            ("judge", Replication::Judge),
        ];
        let whole_password = [
            ("refuse", WholePassword::Refuse),
            ("receive", WholePassword::Receive),
        ];
        let sessions = [("pass", Sessions::Pass), ("judge", Sessions::Judge)];
        mysql::Settings {
            upstreams,
            agent_tls,
            socket_mode: socket_mode.unwrap_or(0o600),
            hold_within: self.duration("mysql.hold_within", raw.hold_within),
            hold_in_transaction_within: self.duration(
                "mysql.hold_in_transaction_within",
                raw.hold_in_transaction_within,
            ),
            login_within: self.duration("mysql.login_within", raw.login_within),
            connections_max: self.count("mysql.connections_max", raw.connections_max, 1),
            memory_bytes_max: self.count("mysql.memory_bytes_max", raw.memory_bytes_max, 0),
            local_files: self.choice("mysql.local_files", raw.local_files, local_files, ""),
            replication: self.choice("mysql.replication", raw.replication, replication, ""),
            whole_password: self.choice(
                "mysql.whole_password",
                raw.whole_password,
                whole_password,
                "",
            ),
            sessions: self.choice("mysql.sessions", raw.sessions, sessions, ""),
        }
    }
}

/// `[LISTEN=]mysql://HOST[:PORT][/…][?…]`, where `default` is LISTEN. Who logs in,
/// and where to, is the agent's to say.
fn server(text: &str, default: SocketAddr) -> Result<Upstream, Wrong> {
    let wrong = || {
        let expected = "mysql://HOST:PORT or mariadb://HOST:PORT; in front of it, where agents connect to: ADDRESS:PORT= or /PATH/OF/A/SOCKET=";
        // Not the text itself: it may hold a password.
        let found = "it is not [LISTEN=]URL of a MySQL server".to_owned();
        Wrong::new(found, expected, EXAMPLE)
    };
    let (listen, url) = match text.split_once('=') {
        Some((listen, url)) if !listen.contains("://") => {
            (listener(listen).ok_or_else(wrong)?, url)
        }
        Some(_) | None => (At::Tcp(default), text),
    };
    let rest = url
        .strip_prefix("mysql://")
        .or_else(|| url.strip_prefix("mariadb://"))
        .ok_or_else(wrong)?;
    let (host, port) = place(rest, 3_306).ok_or_else(wrong)?;
    let said = query(rest);
    Ok(Upstream {
        listen,
        host,
        port,
        tls: tls(said)?,
        unsaid: unsaid(said),
    })
}

/// An address, or the path of a socket.
fn listener(text: &str) -> Option<At> {
    match text.starts_with('/') && !text.ends_with('/') {
        true => Some(At::Unix(PathBuf::from(text))),
        false => text.parse().ok().map(At::Tcp),
    }
}

/// Whether a setting of this name is about TLS, whichever client knows it: `ssl-mode`, `useSSL`, `tls`.
fn is_of_tls(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["ssl", "tls"].iter().any(|part| name.contains(part))
}

/// Whoever says anything of TLS, also that it is preferred, means it.
fn unsaid(query: &str) -> WhereUnsaid {
    let names = query.split('&').map(|pair| pair.split('=').next());
    match names.flatten().any(is_of_tls) {
        true => WhereUnsaid::Nothing,
        false => WhereUnsaid::LikeTheClient,
    }
}

/// What a URL says of TLS, as MySQL's own clients mean it.
fn tls(query: &str) -> Result<Tls, Wrong> {
    let wrong = |found: String, expected: &str| Err(Wrong::new(found, expected, EXAMPLE));
    let (mut trust, mut chain, mut key, mut mode) = (None, None, None, None);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let file = || pem_file(name, value, "/etc/ssl/orders-db.pem");
        match &*name.to_ascii_lowercase().replace(['_', '-'], "") {
            "sslca" => trust = Some(file()?),
            "sslcert" => chain = Some(file()?),
            "sslkey" => key = Some(file()?),
            "sslmode" => mode = Some(value),
            "sslcrl" | "sslcrlpath" | "sslcapath" => {
                return wrong(
                    format!("{name}: revocation lists and folders of authorities are not read"),
                    "ssl-ca=FILE",
                );
            }
            // Somebody wants something of TLS that they would not get.
            other if is_of_tls(other) => {
                return wrong(
                    format!(
                        "{name}: what is said of TLS is read in the words of MySQL's own clients alone"
                    ),
                    "ssl-mode=DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY, ssl-ca, ssl-cert and ssl-key",
                );
            }
            // What else a client writes there is the agent's to say.
            _ => {}
        }
    }
    let identity = match (chain, key) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some((chain, key)),
        (Some(_), None) => return wrong("ssl-cert is set, and no ssl-key".into(), "both"),
        (None, Some(_)) => return wrong("ssl-key is set, and no ssl-cert".into(), "both"),
    };
    let said = mode.map(|mode| mode.to_ascii_uppercase().replace('-', "_"));
    let mode = match (said.as_deref(), &trust) {
        (Some("DISABLED"), _) => Mode::Disable,
        // Whoever names authorities wants them asked.
        (None, Some(_)) => Mode::VerifyCa,
        (Some("PREFERRED") | None, _) => Mode::Prefer,
        (Some("REQUIRED"), _) => Mode::Require,
        (Some("VERIFY_CA"), _) => Mode::VerifyCa,
        (Some("VERIFY_IDENTITY"), _) => Mode::VerifyFull,
        (Some(other), _) => {
            return wrong(
                format!("ssl-mode={other}"),
                "DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY",
            );
        }
    };
    if mode == Mode::VerifyCa && trust.is_none() {
        return wrong(
            "ssl-mode=VERIFY_CA trusts a certificate of anybody whom the system trusts".into(),
            "ssl-ca=FILE, or VERIFY_IDENTITY",
        );
    }
    Ok(Tls {
        mode,
        trust: trust.map_or(Trust::System, Trust::File),
        identity,
        ..Tls::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Upstream, Wrong> {
        server(text, "127.0.0.1:13306".parse().unwrap())
    }

    #[test]
    fn a_url_says_host_port_and_listener_and_nothing_of_who_logs_in() {
        for (text, expected) in [
            ("mysql://db", Some(("127.0.0.1:13306", "db", 3306))),
            (
                "mariadb://u:p=1@DB:1/shop?a=b",
                Some(("127.0.0.1:13306", "db", 1)),
            ),
            ("[::1]:7=mysql://[::1]:8", Some(("[::1]:7", "::1", 8))),
            ("/run/x.sock=mysql://a", Some(("/run/x.sock", "a", 3306))),
            ("/run/=mysql://a", None),
            ("mysql://", None),
            ("mysql://a,b", None),
            ("mysql://a:0", None),
            ("postgres://a", None),
            ("a=mysql://a", None),
        ] {
            let found = read(text).ok();
            let found = found.map(|up| (up.listen.to_string(), up.host, up.port));
            let expected = expected.map(|(listen, host, port)| (listen.into(), host.into(), port));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn my_5_a_leg_is_like_the_clients_only_where_nothing_is_said_of_tls() {
        for (query, expected) in [
            ("", WhereUnsaid::LikeTheClient),
            ("?a=ssl-mode", WhereUnsaid::LikeTheClient),
            ("?ssl-mode=PREFERRED", WhereUnsaid::Nothing),
            ("?a=b&SSL_MODE=REQUIRED", WhereUnsaid::Nothing),
        ] {
            let upstream = read(&format!("mysql://db{query}")).unwrap();
            assert_eq!(upstream.unsaid, expected, "{query}");
        }
    }

    #[test]
    fn my_8_ssl_mode_and_its_companions_mean_what_clients_mean_by_them() {
        let pem = tempfile::NamedTempFile::new().unwrap();
        let path = pem.path().display().to_string();
        for (query, expected) in [
            ("", Ok(Mode::Prefer)),
            ("ssl-mode=DISABLED", Ok(Mode::Disable)),
            ("ssl_mode=required", Ok(Mode::Require)),
            ("ssl-mode=verify-identity", Ok(Mode::VerifyFull)),
            ("ssl-ca=PEM", Ok(Mode::VerifyCa)),
            (
                "ssl-mode=REQUIRED&ssl-cert=PEM&ssl-key=PEM",
                Ok(Mode::Require),
            ),
            ("ssl-mode=VERIFY_CA", Err("of anybody")),
            ("ssl-mode=on", Err("ssl-mode=ON")),
            ("ssl-cert=PEM", Err("no ssl-key")),
            ("ssl-key=PEM", Err("no ssl-cert")),
            ("ssl-ca=/nowhere", Err("/nowhere")),
            ("ssl-crl=PEM", Err("revocation")),
            ("sslMode=VERIFY_IDENTITY", Ok(Mode::VerifyFull)),
            ("useSSL=true", Err("useSSL: what is said of TLS")),
            ("tls=true", Err("tls: ")),
            ("tls-version=TLSv1.3", Err("tls-version: ")),
            ("a=ssl", Ok(Mode::Prefer)),
        ] {
            let url = format!("mysql://u:secret@a?{}", query.replace("PEM", &path));
            match (read(&url), expected) {
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
