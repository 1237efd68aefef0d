//! Where the variables of an environment lead for databases, whoever is there.

use std::ffi::OsString;

use super::child_databases::{System, host_and_port, text_of};

/// Variables that name a host of MySQL, and its port, as MySQL's own clients do.
const MYSQL: (&str, [&str; 2]) = ("MYSQL_HOST", ["MYSQL_TCP_PORT", "MYSQL_PORT"]);

/// A server that a variable leads to. Nothing else of what the variable says, which may be a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// The variable.
    pub name: String,
    /// What the server speaks.
    pub system: System,
    /// Its host, as it is written.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Every server that a variable of `parent` leads to, each variable once.
#[must_use]
pub fn all(parent: &[(OsString, OsString)]) -> Vec<Led> {
    let mut found: Vec<Led> = Vec::new();
    for (name, value) in parent {
        // What is not UTF-8 is no URL.
        if let (Some(name), Some((system, host, port))) =
            (name.to_str(), value.to_str().and_then(of_url))
        {
            add(&mut found, name, system, host, Some(port));
        }
    }
    let port_of = |name: &str| text_of(parent, name).and_then(|port| port.parse().ok());
    if let Some(host) = text_of(parent, "PGHOST") {
        // A folder is where a socket of this machine is.
        let port = port_of("PGPORT").unwrap_or(System::Postgres.port());
        add(&mut found, "PGHOST", System::Postgres, host, Some(port));
    }
    if let Some(host) = text_of(parent, MYSQL.0) {
        let port = MYSQL.1.iter().find_map(|name| port_of(name));
        let port = port.unwrap_or(System::Mysql.port());
        add(&mut found, MYSQL.0, System::Mysql, host, Some(port));
    }
    for system in System::ALL {
        for (name, port) in system.pairs() {
            // Names that several systems share, like DB_HOST, are told apart by the port alone.
            let port = port_of(port);
            let is_shared = System::ALL
                .iter()
                .any(|other| *other != system && other.pairs().iter().any(|(one, _)| one == name));
            if let Some(host) = text_of(parent, name)
                && (!is_shared || port == Some(system.port()))
            {
                add(&mut found, name, system, host, port.or(Some(system.port())));
            }
        }
        for name in system.places() {
            if let Some(place) = text_of(parent, name)
                && let Some((host, port)) = host_and_port(system, place, &[])
            {
                add(&mut found, name, system, host, Some(port));
            }
        }
    }
    found
}

fn add(found: &mut Vec<Led>, name: &str, system: System, host: &str, port: Option<u16>) {
    let known = found.iter().any(|led| led.name == name);
    let is_host = !host.is_empty() && !host.starts_with('/');
    if let (Some(port), true, false) = (port, is_host, known) {
        found.push(Led {
            name: name.to_owned(),
            system,
            host: host.to_owned(),
            port,
        });
    }
}

fn of_url(url: &str) -> Option<(System, &str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.strip_prefix("jdbc:").unwrap_or(scheme);
    let (system, _) = System::of_scheme(scheme.split('+').next()?)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    let place = match authority.rsplit_once('@') {
        Some((_, place)) => place,
        // What is in front may be half a password that nobody encoded.
        None if tail.contains('@') => return None,
        None => authority,
    };
    let query = tail.split_once('?').map_or("", |(_, query)| query);
    let parameters: Vec<_> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let (host, port) = host_and_port(system, place, &parameters)?;
    Some((system, host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(pairs: &[(&str, &str)]) -> Vec<String> {
        let parent: Vec<_> = pairs.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let all = all(&parent).into_iter();
        all.map(|led| {
            format!(
                "{} {} {}:{}",
                led.name,
                led.system.as_str(),
                led.host,
                led.port
            )
        })
        .collect()
    }

    #[test]
    fn every_variable_that_names_a_database_is_read() {
        type Row = (
            &'static [(&'static str, &'static str)],
            &'static [&'static str],
        );
        let rows: [Row; 10] = [
            (
                &[(
                    "DATABASE_URL",
                    "postgresql+psycopg://u:secret@db.internal/x?sslmode=require",
                )],
                &["DATABASE_URL postgres db.internal:5432"],
            ),
            (&[("X", "jdbc:mysql://db:3307/x")], &["X mysql db:3307"]),
            (
                &[("PGHOST", "db"), ("PGPORT", "6000")],
                &["PGHOST postgres db:6000"],
            ),
            (&[("PGHOST", "/run/postgresql")], &[]),
            (&[("MYSQL_HOST", "db")], &["MYSQL_HOST mysql db:3306"]),
            (
                &[("REDIS_ADDR", "cache:7000")],
                &["REDIS_ADDR redis cache:7000"],
            ),
            (
                &[("REDIS_URL", "rediss://cache")],
                &["REDIS_URL redis cache:6379"],
            ),
            (
                &[("DB_HOST", "db"), ("DB_PORT", "3306")],
                &["DB_HOST mysql db:3306"],
            ),
            (&[("X", "redis://u:12/3@cache")], &[]),
            // What it speaks is not to be told.
            (&[("DB_HOST", "db"), ("SITE", "https://db.internal/")], &[]),
        ];
        for (variables, expected) in rows {
            assert_eq!(led(variables), expected, "{variables:?}");
        }
    }
}
