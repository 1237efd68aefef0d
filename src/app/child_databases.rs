//! What `run` changes in its child's environment so that the child reaches the database relays instead of the
//! servers: every variable that points at a server we govern points at our listener for it, with the user,
//! password, database and options that it had.
//!
//! A pure function over the parent's environment, like `child_env`, whose changes these are a part of.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;

use super::child_env::{Change, reachable, value_of};

/// A server that is governed, and where.
#[derive(Clone, Debug)]
pub struct Database {
    /// What it speaks.
    pub system: System,
    /// Where the sidecar listens for it.
    pub listen: SocketAddr,
    /// Its host, as configured.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// How the sidecar is reached; the same for all of one system.
    pub leg: Leg,
    /// The sidecar logs in there, and wants the agent token for the password of its agents.
    pub takes_token: bool,
}

/// What a child must ask of TLS on its way to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// None: it is inside the machine.
    Clear,
    /// TLS: the sidecar serves nothing else.
    Encrypted,
}

impl Leg {
    fn to(system: System, databases: &[Database]) -> Self {
        let mut all = databases.iter().filter(|one| one.system == system);
        if all.any(|one| one.leg == Self::Encrypted) {
            Self::Encrypted
        } else {
            Self::Clear
        }
    }

    fn sslmode(self) -> &'static str {
        match self {
            Self::Clear => "disable",
            Self::Encrypted => "require",
        }
    }
}

/// What a server speaks, and so how variables name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis and Valkey.
    Redis,
}

impl System {
    pub(super) const ALL: [Self; 3] = [Self::Postgres, Self::Mysql, Self::Redis];

    /// What it is called, as in the flag that names a server of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
        }
    }

    /// The flag that has the sidecar govern a server of it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Postgres => "--pg",
            Self::Mysql => "--mysql",
            Self::Redis => "--redis",
        }
    }

    /// The one with this scheme, and what that is called without TLS.
    pub(super) fn of_scheme(scheme: &str) -> Option<(Self, &'static str)> {
        Self::ALL.into_iter().find_map(|system| {
            let mut all = system.schemes().iter();
            let (_, in_clear) = all.find(|(known, _)| scheme.eq_ignore_ascii_case(known))?;
            Some((system, *in_clear))
        })
    }

    /// Schemes of its URLs, `jdbc:` in front and `+driver` behind left out, and what each is called without TLS.
    fn schemes(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Postgres => &[
                ("postgres", "postgres"),
                ("postgresql", "postgresql"),
                ("pgsql", "pgsql"),
                ("psql", "psql"),
                ("postgis", "postgis"),
            ],
            Self::Mysql => &[
                ("mysql", "mysql"),
                ("mariadb", "mariadb"),
                ("mysql2", "mysql2"),
            ],
            Self::Redis => &[
                ("redis", "redis"),
                ("rediss", "redis"),
                ("valkey", "valkey"),
                ("valkeys", "valkey"),
            ],
        }
    }

    /// Its port where nobody says otherwise.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mysql => 3306,
            Self::Redis => 6379,
        }
    }

    /// Variables that name a host and its port in two.
    pub(super) fn pairs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Postgres => &[
                ("POSTGRES_HOST", "POSTGRES_PORT"),
                ("POSTGRESQL_HOST", "POSTGRESQL_PORT"),
                ("PG_HOST", "PG_PORT"),
                ("DB_HOST", "DB_PORT"),
                ("DATABASE_HOST", "DATABASE_PORT"),
            ],
            Self::Mysql => &[
                ("MARIADB_HOST", "MARIADB_PORT"),
                ("DB_HOST", "DB_PORT"),
                ("DATABASE_HOST", "DATABASE_PORT"),
            ],
            Self::Redis => &[
                ("REDIS_HOST", "REDIS_PORT"),
                ("REDISHOST", "REDISPORT"),
                ("VALKEY_HOST", "VALKEY_PORT"),
                ("CACHE_HOST", "CACHE_PORT"),
            ],
        }
    }

    /// Variables that name host and port in one.
    pub(super) fn places(self) -> &'static [&'static str] {
        match self {
            Self::Postgres | Self::Mysql => &[],
            Self::Redis => &["REDIS_ADDR", "REDIS_ADDRESS", "VALKEY_ADDR"],
        }
    }

    /// Variables that ask for TLS to what the others name.
    fn asks_for_tls(self) -> &'static [&'static str] {
        match self {
            Self::Postgres | Self::Mysql => &[],
            Self::Redis => &["REDIS_SSL", "REDIS_TLS", "REDIS_USE_SSL", "REDIS_USE_TLS"],
        }
    }

    /// Parameters of a URL by which a client would prove or demand something about the server's TLS: the sidecar
    /// does that, by its own settings.
    fn about_tls(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &ABOUT_TLS,
            Self::Mysql => &[
                "requireSSL",
                "serverSslCert",
                "ssl",
                "ssl-ca",
                "ssl-capath",
                "ssl-cert",
                "ssl-cipher",
                "ssl-key",
                "ssl_ca",
                "ssl_capath",
                "ssl_cert",
                "ssl_check_hostname",
                "ssl_disabled",
                "ssl_key",
                "ssl_verify_cert",
                "ssl_verify_identity",
                "tls",
                "trustCertificateKeyStorePassword",
                "trustCertificateKeyStoreUrl",
                "useSSL",
                "verifyServerCertificate",
            ],
            Self::Redis => &[
                "ssl",
                "ssl_ca_certs",
                "ssl_ca_data",
                "ssl_ca_path",
                "ssl_cert_reqs",
                "ssl_certfile",
                "ssl_check_hostname",
                "ssl_keyfile",
                "ssl_password",
            ],
        }
    }
}

/// What PostgreSQL's own clients would prove or demand; see [`System::about_tls`].
const ABOUT_TLS: [&str; 9] = [
    "hostaddr",
    "requiressl",
    "sslaccept",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
];

/// The changes that send a child to the relays of `databases`, some of which take `token` for a password; without it
/// the child has to find that itself.
pub(super) fn changes(
    parent: &[(OsString, OsString)],
    databases: &[Database],
    token: Option<&str>,
) -> Vec<Change> {
    if databases.is_empty() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for (name, value) in parent {
        // What is not UTF-8 is no URL.
        if let Some(url) = value
            .to_str()
            .and_then(|text| rewritten(text, databases, token))
        {
            changes.push(Change {
                name: name.clone(),
                value: Some(url.into()),
            });
        }
    }
    for system in System::ALL {
        in_parts(system, parent, databases, token, &mut changes);
    }
    if databases.iter().any(|one| one.system == System::Postgres) {
        of_libpq(parent, databases, token, &mut changes);
    }
    of_mysql(parent, databases, &mut changes);
    of_redis(parent, databases, &mut changes);
    changes
}

/// Variables that are no URLs.
fn in_parts(
    system: System,
    parent: &[(OsString, OsString)],
    databases: &[Database],
    token: Option<&str>,
    changes: &mut Vec<Change>,
) {
    let before = changes.len();
    for (host, port) in system.pairs() {
        let said = (text_of(parent, host), text_of(parent, port));
        // Without a variable for the port, nobody would look for ours.
        if let (Some(at), Some(number)) = said
            && let Some(found) = governed(system, at, number.parse().ok(), databases)
        {
            let listen = reachable(found.listen);
            set(changes, host, &listen.ip().to_string());
            set(changes, port, &listen.port().to_string());
            if let (true, Some(token)) = (found.takes_token, token) {
                set(changes, &host.replace("HOST", "PASSWORD"), token);
            }
        }
    }
    for name in system.places() {
        if let Some(place) = text_of(parent, name)
            && let Some((host, port)) = host_and_port(system, place, &[])
            && let Some(listen) = listener(system, host, Some(port), databases)
        {
            set(changes, name, &listen.to_string());
        }
    }
    if changes.len() > before {
        for name in system.asks_for_tls() {
            if text_of(parent, name).is_some() {
                set(changes, name, "false");
            }
        }
    }
}

/// The variables that MySQL's and MariaDB's own clients read, and many others.
fn of_mysql(parent: &[(OsString, OsString)], databases: &[Database], changes: &mut Vec<Change>) {
    const PORTS: [&str; 2] = ["MYSQL_TCP_PORT", "MYSQL_PORT"];
    let system = System::Mysql;
    let listen = match text_of(parent, "MYSQL_HOST") {
        Some(host) => {
            let port = PORTS.iter().find_map(|name| text_of(parent, name));
            let port = port.map_or(Some(system.port()), |port| port.parse().ok());
            listener(system, host, port, databases)
        }
        // Nothing says where else: the first server is the one that is meant.
        None => {
            let first = databases.iter().find(|database| database.system == system);
            first.map(|first| reachable(first.listen))
        }
    };
    let Some(listen) = listen else { return };
    set(changes, "MYSQL_HOST", &listen.ip().to_string());
    for name in PORTS {
        set(changes, name, &listen.port().to_string());
    }
}

/// `REDIS_URL`, where nothing says which server is meant: the first, then.
fn of_redis(parent: &[(OsString, OsString)], databases: &[Database], changes: &mut Vec<Change>) {
    let system = System::Redis;
    let pairs = system.pairs().iter().map(|(host, _)| host);
    let mut names = pairs.chain(system.places()).chain(&["REDIS_URL"]);
    if names.any(|name| value_of(parent, name).is_some()) {
        return;
    }
    let mut all = databases.iter();
    if let Some(first) = all.find(|database| database.system == system) {
        let url = format!("redis://{}", reachable(first.listen));
        set(changes, "REDIS_URL", &url);
    }
}

/// The variables that PostgreSQL's own clients read, and many others.
fn of_libpq(
    parent: &[(OsString, OsString)],
    databases: &[Database],
    token: Option<&str>,
    changes: &mut Vec<Change>,
) {
    let system = System::Postgres;
    let found = match text_of(parent, "PGHOST") {
        Some(host) => {
            let port = text_of(parent, "PGPORT");
            let port = port.map_or(Some(system.port()), |port| port.parse().ok());
            governed(system, host, port, databases)
        }
        // Nothing says where else: the first server is the one that is meant.
        None => {
            let first = databases.iter().find(|database| database.system == system);
            let elsewhere = text_of(parent, "PGSERVICE").is_some();
            first.filter(|_| !elsewhere)
        }
    };
    let Some(found) = found else { return };
    let listen = reachable(found.listen);
    if let (true, Some(token)) = (found.takes_token, token) {
        set(changes, "PGPASSWORD", token);
        changes.push(Change {
            name: "PGPASSFILE".into(),
            value: None,
        });
    }
    set(changes, "PGHOST", &listen.ip().to_string());
    set(changes, "PGPORT", &listen.port().to_string());
    let leg = Leg::to(system, databases);
    set(changes, "PGSSLMODE", leg.sslmode());
    for name in ["PGCHANNELBINDING", "PGGSSENCMODE"] {
        // Inside TLS, a client would bind to our channel unless told not to.
        let binds = leg == Leg::Encrypted && name == "PGCHANNELBINDING";
        if binds || value_of(parent, name).is_some() {
            set(changes, name, "disable");
        }
    }
    for name in ABOUT_TLS {
        let name = format!("PG{}", name.to_ascii_uppercase());
        if value_of(parent, &name).is_some() {
            changes.push(Change {
                name: name.into(),
                value: None,
            });
        }
    }
}

fn set(changes: &mut Vec<Change>, name: &str, value: &str) {
    changes.push(Change {
        name: name.into(),
        value: Some(value.into()),
    });
}

pub(super) fn text_of<'p>(parent: &'p [(OsString, OsString)], name: &str) -> Option<&'p str> {
    value_of(parent, name)
        .and_then(OsStr::to_str)
        .filter(|text| !text.is_empty())
}

/// Where the server of this host and port is reached through us, if it is one that we govern.
fn listener(
    system: System,
    host: &str,
    port: Option<u16>,
    databases: &[Database],
) -> Option<SocketAddr> {
    governed(system, host, port, databases).map(|database| reachable(database.listen))
}

/// The server of this host and port, if it is one that we govern.
fn governed<'d>(
    system: System,
    host: &str,
    port: Option<u16>,
    databases: &'d [Database],
) -> Option<&'d Database> {
    let (host, port) = (canonical(host), port?);
    let mut all = databases.iter().filter(|one| one.system == system);
    all.find(|database| canonical(&database.host) == host && database.port == port)
}

/// One spelling for each host; loopback has one, too.
fn canonical(host: &str) -> String {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    match bare.to_ascii_lowercase() {
        loopback if ["127.0.0.1", "::1"].contains(&loopback.as_str()) => "localhost".into(),
        other => other,
    }
}

/// A URL of a governed server, as one of our listener.
fn rewritten(url: &str, databases: &[Database], token: Option<&str>) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (jdbc, plain) = match scheme.strip_prefix("jdbc:") {
        Some(plain) => ("jdbc:", plain),
        None => ("", scheme),
    };
    let (base, driver) = plain.split_at(plain.find('+').unwrap_or(plain.len()));
    let (system, in_clear_base) = System::of_scheme(base)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let (tail, fragment) = match tail.split_once('#') {
        Some((tail, fragment)) => (tail, format!("#{fragment}")),
        None => (tail, String::new()),
    };
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let parameters: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let (host, port) = host_and_port(system, place, &parameters)?;
    let found = governed(system, host, Some(port), databases)?;
    let (listen, token) = (reachable(found.listen), token.filter(|_| found.takes_token));
    let user = match (user, token) {
        (Some(user), None) => format!("{user}@"),
        (None, None) => String::new(),
        // A driver has to name somebody.
        (user, Some(token)) => {
            let named = user.and_then(|user| user.split(':').next());
            format!(
                "{}:{token}@",
                named.filter(|name| !name.is_empty()).unwrap_or("agent")
            )
        }
    };
    let leg = Leg::to(system, databases);
    let ours: &[&str] = if token.is_some() {
        &["host", "port", "password"]
    } else {
        &["host", "port"]
    };
    let mut kept: Vec<_> = parameters
        .iter()
        .filter(|(name, _)| !ours.contains(name) && !system.about_tls().contains(name))
        .map(|(name, value)| format!("{name}={}", on_leg(system, leg, name, value)))
        .collect();
    let says = |name: &&str| parameters.iter().any(|(known, _)| known == name);
    if system == System::Postgres && leg == Leg::Encrypted && !["sslmode", "ssl"].iter().any(says) {
        kept.push("sslmode=require".to_owned());
    }
    let query = if kept.is_empty() {
        String::new()
    } else {
        format!("?{}", kept.join("&"))
    };
    Some(format!(
        "{jdbc}{in_clear_base}{driver}://{user}{listen}{path}{query}{fragment}"
    ))
}

/// Those of the parameters win, as with PostgreSQL's own clients.
pub(super) fn host_and_port<'u>(
    system: System,
    place: &'u str,
    parameters: &[(&'u str, &'u str)],
) -> Option<(&'u str, u16)> {
    let said = |wanted: &str| {
        let mut all = parameters.iter().rev();
        all.find(|(name, _)| *name == wanted)
            .map(|(_, value)| *value)
    };
    let (host, port) = match place.rsplit_once(':') {
        // An IPv6 address without a port ends in a bracket.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (place, None),
    };
    let host = said("host").unwrap_or(host);
    let port = said("port").or(port).filter(|port| !port.is_empty());
    let port = port.map_or(Some(system.port()), |port| port.parse().ok())?;
    Some((host, port))
}

/// What a parameter says of TLS is about the leg to us.
fn on_leg<'v>(system: System, leg: Leg, name: &str, value: &'v str) -> &'v str {
    if system == System::Mysql {
        return match (name, leg) {
            ("ssl-mode" | "ssl_mode" | "sslmode" | "sslMode", Leg::Clear) => "DISABLED",
            ("ssl-mode" | "ssl_mode" | "sslmode" | "sslMode", Leg::Encrypted) => "REQUIRED",
            (_, _) => value,
        };
    }
    match (name, value, leg) {
        ("ssl", "true" | "1", Leg::Clear) => "false",
        ("ssl", "true" | "1" | "false" | "0", Leg::Encrypted) => "true",
        ("sslmode" | "ssl", _, leg) => leg.sslmode(),
        ("channel_binding" | "gssencmode", _, _) => "disable",
        (_, value, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> [Database; 6] {
        let database = |system, listen: &str, host: &str, port| Database {
            system,
            listen: listen.parse().unwrap(),
            host: host.into(),
            port,
            leg: Leg::Clear,
            takes_token: false,
        };
        [
            database(System::Postgres, "0.0.0.0:7001", "orders-db.internal", 5432),
            database(System::Postgres, "127.0.0.1:7002", "localhost", 6000),
            database(System::Mysql, "0.0.0.0:7005", "shop-db.internal", 3306),
            database(System::Mysql, "127.0.0.1:7006", "localhost", 6000),
            database(System::Redis, "0.0.0.0:7003", "cache.internal", 6379),
            database(System::Redis, "127.0.0.1:7004", "localhost", 6000),
        ]
    }

    #[test]
    fn where_the_sidecar_serves_tls_only_children_ask_for_it() {
        let mut databases = databases();
        for database in &mut databases {
            if database.system == System::Postgres {
                database.leg = Leg::Encrypted;
            }
        }
        for (url, expected) in [
            (
                "postgres://u@orders-db.internal/o",
                "postgres://u@127.0.0.1:7001/o?sslmode=require",
            ),
            (
                "postgres://orders-db.internal/o?sslmode=verify-full&sslrootcert=/r.pem&channel_binding=require",
                "postgres://127.0.0.1:7001/o?sslmode=require&channel_binding=disable",
            ),
            (
                "postgresql+asyncpg://orders-db.internal/o?ssl=true",
                "postgresql+asyncpg://127.0.0.1:7001/o?ssl=true",
            ),
            ("redis://cache.internal/2", "redis://127.0.0.1:7003/2"),
        ] {
            assert_eq!(rewritten(url, &databases, None).as_deref(), Some(expected));
        }
        let told: Vec<_> = changes(&[], &databases, None)
            .into_iter()
            .map(|change| (change.name, change.value))
            .collect();
        for (name, value) in [("PGSSLMODE", "require"), ("PGCHANNELBINDING", "disable")] {
            assert!(
                told.contains(&(name.into(), Some(value.into()))),
                "{told:?}"
            );
        }
    }

    #[test]
    fn pg_8_where_the_sidecar_logs_in_children_give_the_token_for_their_password() {
        let mut databases = databases();
        databases[0].takes_token = true;
        for (url, expected) in [
            (
                "postgres://u:p%40ss@orders-db.internal/orders",
                "postgres://u:obx_x@127.0.0.1:7001/orders",
            ),
            (
                "postgres://orders-db.internal/o?password=p&a=b",
                "postgres://agent:obx_x@127.0.0.1:7001/o?a=b",
            ),
            (
                "postgres://u:p@localhost:6000",
                "postgres://u:p@127.0.0.1:7002",
            ),
        ] {
            let found = rewritten(url, &databases, Some("obx_x"));
            assert_eq!(found.as_deref(), Some(expected));
        }
        let parent = [
            ("DB_HOST", "orders-db.internal"),
            ("DB_PORT", "5432"),
            ("DB_PASSWORD", "p"),
        ];
        let parent = parent.map(|(name, value)| (name.into(), value.into()));
        let told = changes(&parent, &databases, Some("obx_x"));
        for name in ["DB_PASSWORD", "PGPASSWORD"] {
            let found = told.iter().find(|change| change.name == name).unwrap();
            assert_eq!(found.value, Some("obx_x".into()), "{name}");
        }
    }

    #[test]
    fn a_url_of_a_governed_server_becomes_one_of_ours_and_keeps_the_rest() {
        for (url, expected) in [
            (
                "postgres://u:p%40ss@orders-db.internal/orders",
                Some("postgres://u:p%40ss@127.0.0.1:7001/orders"),
            ),
            (
                "postgresql+asyncpg://u@Orders-DB.internal.:5432/o?ssl=require&a=b#f",
                Some("postgresql+asyncpg://u@127.0.0.1:7001/o?ssl=disable&a=b#f"),
            ),
            (
                "jdbc:postgresql://orders-db.internal/o?user=u&ssl=true",
                Some("jdbc:postgresql://127.0.0.1:7001/o?user=u&ssl=false"),
            ),
            (
                "postgres://127.0.0.1:6000/x?sslmode=verify-full&sslrootcert=/r.pem&channel_binding=require",
                Some("postgres://127.0.0.1:7002/x?sslmode=disable&channel_binding=disable"),
            ),
            ("postgres://[::1]:6000", Some("postgres://127.0.0.1:7002")),
            (
                "postgresql:///o?host=orders-db.internal",
                Some("postgresql://127.0.0.1:7001/o"),
            ),
            (
                "redis://:p%40ss@cache.internal/2?protocol=3",
                Some("redis://:p%40ss@127.0.0.1:7003/2?protocol=3"),
            ),
            (
                "rediss://u:p@Cache.internal:6379?ssl_cert_reqs=none&db=1",
                Some("redis://u:p@127.0.0.1:7003?db=1"),
            ),
            ("valkeys://[::1]:6000/0", Some("valkey://127.0.0.1:7004/0")),
            (
                "mysql+pymysql://u:p%40ss@Shop-db.internal/shop?ssl_ca=/r.pem&charset=utf8mb4",
                Some("mysql+pymysql://u:p%40ss@127.0.0.1:7005/shop?charset=utf8mb4"),
            ),
            (
                "jdbc:mariadb://shop-db.internal:3306/shop?sslMode=VERIFY_FULL&serverSslCert=/r.pem",
                Some("jdbc:mariadb://127.0.0.1:7005/shop?sslMode=DISABLED"),
            ),
            (
                "mysql2://127.0.0.1:6000/x",
                Some("mysql2://127.0.0.1:7006/x"),
            ),
            ("mysql://shop-db.internal:33060/x", None),
            ("redis://orders-db.internal:5432", None),
            ("redis://cache.internal:5432", None),
            ("redis-sentinel://cache.internal:6379/0", None),
            ("postgres://other.internal/orders", None),
            ("postgres://orders-db.internal:5433/orders", None),
            ("postgres://u@other?host=orders-db.internal&port=x", None),
            ("postgres://orders-db.internal,other/orders", None),
            ("mysql://orders-db.internal:5432/orders", None),
            ("https://orders-db.internal:5432/", None),
            ("orders-db.internal:5432", None),
        ] {
            let found = rewritten(url, &databases(), None);
            assert_eq!(found.as_deref(), expected, "{url}");
        }
    }

    /// What the child has of `pairs` and of what is set, for servers of `system`.
    fn child(system: System, pairs: &[(&str, &str)]) -> Vec<String> {
        let parent: Vec<_> = pairs.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let mut databases = databases().to_vec();
        databases.retain(|database| database.system == system);
        let changes = changes(&parent, &databases, None);
        let text = changes.into_iter().map(|change| {
            let value = change.value.map(|value| value.into_string().unwrap());
            let name = change.name.into_string().unwrap();
            value.map_or(format!("-{name}"), |value| format!("{name}={value}"))
        });
        text.collect()
    }

    #[test]
    fn variables_in_two_parts_are_rewritten_together_or_not_at_all() {
        let ours = ["PGHOST=127.0.0.1", "PGPORT=7001", "PGSSLMODE=disable"];
        let elsewhere = ("PGHOST", "elsewhere");
        for (pairs, expected) in [
            (vec![], ours.to_vec()),
            (vec![("PGHOST", "orders-db.internal")], ours.to_vec()),
            (
                vec![
                    ("PGHOST", "localhost"),
                    ("PGPORT", "6000"),
                    ("PGSSLROOTCERT", "/r.pem"),
                    ("PGCHANNELBINDING", "require"),
                ],
                vec![
                    "PGHOST=127.0.0.1",
                    "PGPORT=7002",
                    "PGSSLMODE=disable",
                    "PGCHANNELBINDING=disable",
                    "-PGSSLROOTCERT",
                ],
            ),
            (vec![elsewhere], vec![]),
            (vec![("PGHOST", "/var/run/postgresql")], vec![]),
            (vec![("PGSERVICE", "x")], vec![]),
            (
                vec![elsewhere, ("DB_HOST", "localhost"), ("DB_PORT", "6000")],
                vec!["DB_HOST=127.0.0.1", "DB_PORT=7002"],
            ),
            (vec![elsewhere, ("DB_HOST", "orders-db.internal")], vec![]),
        ] {
            assert_eq!(child(System::Postgres, &pairs), expected, "{pairs:?}");
        }
        assert!(changes(&[], &[], None).is_empty());
    }

    #[test]
    fn variables_of_mysql_lead_to_the_relay_that_they_mean() {
        let ours = [
            "MYSQL_HOST=127.0.0.1",
            "MYSQL_TCP_PORT=7005",
            "MYSQL_PORT=7005",
        ];
        for (pairs, expected) in [
            (vec![], ours.to_vec()),
            (vec![("MYSQL_HOST", "shop-db.internal")], ours.to_vec()),
            (
                vec![("MYSQL_HOST", "localhost"), ("MYSQL_PORT", "6000")],
                vec![
                    "MYSQL_HOST=127.0.0.1",
                    "MYSQL_TCP_PORT=7006",
                    "MYSQL_PORT=7006",
                ],
            ),
            (vec![("MYSQL_HOST", "elsewhere")], vec![]),
            (
                vec![("MYSQL_HOST", "localhost"), ("MYSQL_TCP_PORT", "tcp://x")],
                vec![],
            ),
            (
                vec![
                    ("MYSQL_HOST", "elsewhere"),
                    ("DB_HOST", "shop-db.internal"),
                    ("DB_PORT", "3306"),
                    ("DATABASE_URL", "mysql://u:p@shop-db.internal/shop"),
                ],
                vec![
                    "DATABASE_URL=mysql://u:p@127.0.0.1:7005/shop",
                    "DB_HOST=127.0.0.1",
                    "DB_PORT=7005",
                ],
            ),
        ] {
            assert_eq!(child(System::Mysql, &pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn variables_of_redis_lead_to_the_relay_and_ask_for_no_tls() {
        for (pairs, expected) in [
            (vec![], vec!["REDIS_URL=redis://127.0.0.1:7003"]),
            (vec![("REDIS_URL", "redis://elsewhere")], vec![]),
            (vec![("REDIS_HOST", "elsewhere")], vec![]),
            (
                vec![
                    ("CELERY_BROKER_URL", "rediss://cache.internal/1"),
                    ("REDIS_URL", "rediss://cache.internal"),
                ],
                vec![
                    "CELERY_BROKER_URL=redis://127.0.0.1:7003/1",
                    "REDIS_URL=redis://127.0.0.1:7003",
                ],
            ),
            (
                vec![
                    ("REDIS_HOST", "cache.internal"),
                    ("REDIS_PORT", "6379"),
                    ("REDIS_SSL", "true"),
                ],
                vec!["REDIS_HOST=127.0.0.1", "REDIS_PORT=7003", "REDIS_SSL=false"],
            ),
            (
                vec![("REDIS_ADDR", "cache.internal")],
                vec!["REDIS_ADDR=127.0.0.1:7003"],
            ),
            (vec![("REDIS_ADDR", "x:1"), ("REDIS_SSL", "true")], vec![]),
        ] {
            assert_eq!(child(System::Redis, &pairs), expected, "{pairs:?}");
        }
    }
}
