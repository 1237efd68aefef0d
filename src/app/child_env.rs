//! What `run` changes in the environment of its child: the way through the sidecar, the authorities to trust,
//! a token of the agent's own, and no secret of the sidecar's.
//!
//! A pure function over the parent's environment. Each program reads its own variable for the same thing,
//! hence the lists.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::child_databases::{self, Database};

/// Read by most programs, some in upper case, some in lower.
const PROXY_BOTH_CASES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "WS_PROXY",
    "WSS_PROXY",
    "GRPC_PROXY",
];

/// Read by one family of programs each, in this spelling.
const PROXY: [&str; 7] = [
    "GLOBAL_AGENT_HTTP_PROXY",
    "GLOBAL_AGENT_HTTPS_PROXY",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "CGI_HTTP_PROXY",
    "DOCKER_HTTP_PROXY",
    "DOCKER_HTTPS_PROXY",
];

/// Each lists hosts that are not asked for through the proxy.
pub const BYPASS: [&str; 5] = [
    "NO_PROXY",
    "no_proxy",
    "GLOBAL_AGENT_NO_PROXY",
    "npm_config_noproxy",
    "no_grpc_proxy",
];

/// Hosts that are never asked for through the sidecar: local tools and test servers of the agent's own.
pub const BYPASSED: [&str; 4] = ["localhost", "127.0.0.1", "::1", "0.0.0.0"];

/// Each replaces the program's own authorities, so the file holds these and ours.
const BUNDLE: [&str; 12] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "CARGO_HTTP_CAINFO",
    "PERL_LWP_SSL_CA_FILE",
    "PIP_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    // npm heeds `NODE_EXTRA_CA_CERTS` too, unless a file of its configuration names a `cafile`.
    "npm_config_cafile",
];

/// Configuration of the sidecar that is no business of the agent's, and halves of an identity whose other
/// half is a secret: with one alone the SDKs refuse to start.
const PRIVATE: [&str; 10] = [
    "OPENBOX_CORE_URL",
    "OPENBOX_CONFIG",
    "OPENBOX_POLICY",
    "OPENBOX_STATE_DIR",
    "OPENBOX_AGENT_DID",
    "OPENBOX_AGENT_IDENTITY_METHOD",
    "OPENBOX_AGENT_ID",
    "OPENBOX_ORGANIZATION_ID",
    "OPENBOX_DEPLOYMENT_ID",
    "OPENBOX_AGENT_PROOF_AUDIENCE",
];

/// Beginnings of names that are the sidecar's alone.
const PRIVATE_PREFIXES: [&str; 3] = ["OPENBOX_OKTA_", "OPENBOX_WORKLOAD_", "OPENBOX_OPERATOR_"];

/// Words in a name of ours that mark a secret.
const SECRET_WORDS: [&str; 6] = [
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSPHRASE",
    "CREDENTIAL",
];

/// Shortest secret that is also looked for under other names; a shorter one may be there by chance.
const SECRET_BYTES_MIN: usize = 16;

/// What a variable that is set here is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// It names the proxy.
    Proxy,
    /// It names hosts that are not asked for through the proxy.
    Bypass,
    /// It names a file of authorities.
    Authorities,
    /// It has a program heed others of these variables, or says parts of what they say.
    Tool,
    /// It is read by every JVM.
    Jvm,
    /// It names the agent API.
    Api,
}

impl Purpose {
    /// That of the variable `name`, if [`changes`] sets it and its value is no secret.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let is_proxy = PROXY_BOTH_CASES
            .iter()
            .any(|one| one.eq_ignore_ascii_case(name));
        match name {
            _ if is_proxy || PROXY.contains(&name) => Some(Self::Proxy),
            _ if BYPASS.contains(&name) => Some(Self::Bypass),
            _ if BUNDLE.contains(&name) => Some(Self::Authorities),
            "NODE_EXTRA_CA_CERTS" => Some(Self::Authorities),
            "JAVA_TOOL_OPTIONS" => Some(Self::Jvm),
            "NODE_USE_ENV_PROXY" | "UV_NATIVE_TLS" => Some(Self::Tool),
            _ if name.starts_with("CLOUDSDK_PROXY_") => Some(Self::Tool),
            "OPENBOX_URL" | "OPENBOX_API_URL" | "OPENBOX_SIDECAR_URL" => Some(Self::Api),
            _ => None,
        }
    }
}

/// What the child is given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The HTTP proxy and what is needed to trust it; none where the listener is off.
    pub proxy: Option<Proxy<'a>>,
    /// The agent API and its token; none where the listener is off.
    pub agent: Option<Agent<'a>>,
    /// The database servers that are governed.
    pub databases: &'a [Database],
}

/// The way out through the sidecar.
#[derive(Debug, Clone, Copy)]
pub struct Proxy<'a> {
    /// Where the HTTP proxy listens.
    pub address: SocketAddr,
    /// Our certificate alone, PEM.
    pub ca: &'a Path,
    /// The system's authorities and ours, PEM.
    pub bundle: &'a Path,
    /// The same as a Java key store without a password; none where it could not be written.
    pub java_store: Option<&'a Path>,
}

/// The sidecar as the agent's SDK sees it. Has no debug form, as it holds a token.
#[derive(Clone, Copy)]
pub struct Agent<'a> {
    /// Where the agent API listens; none where it does at a path alone.
    pub address: Option<SocketAddr>,
    /// The path of its socket.
    pub socket: Option<&'a Path>,
    /// What opens it; shaped like an API key, so that SDKs accept it. None where the program finds it in a
    /// file.
    pub token: Option<&'a str>,
}

/// One variable to set, or with no value to take out. Has no debug form, as it may hold a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Change {
    /// The variable.
    pub name: OsString,
    /// Its value for the child.
    pub value: Option<OsString>,
}

/// The changes from the parent's environment to the child's, each variable once, in a stable order.
#[must_use]
pub fn changes(parent: &[(OsString, OsString)], given: &Given<'_>) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    for name in secrets(parent) {
        changes.push(Change { name, value: None });
    }
    if let Some(proxy) = &given.proxy {
        let bypass = bypass(parent);
        set_proxy(&mut changes, proxy.address, &bypass);
        set_authorities(&mut changes, proxy);
        let java = java_options(parent, proxy, &bypass);
        changes.set("JAVA_TOOL_OPTIONS", java);
    }
    if let Some(agent) = &given.agent {
        if let Some(address) = agent.address {
            let url = url(address);
            for name in ["OPENBOX_URL", "OPENBOX_API_URL", "OPENBOX_SIDECAR_URL"] {
                changes.set(name, &url);
            }
        }
        if let Some(socket) = agent.socket {
            changes.set("OPENBOX_SIDECAR_SOCKET", socket);
            if agent.address.is_none() {
                // What requests on the socket are addressed to.
                changes.set("OPENBOX_SIDECAR_URL", "http://localhost");
            }
        }
        if let Some(token) = agent.token {
            for name in ["OPENBOX_API_KEY", "OPENBOX_SIDECAR_TOKEN"] {
                changes.set(name, token);
            }
        }
    }
    let token = given.agent.and_then(|agent| agent.token);
    for change in child_databases::changes(parent, given.databases, token) {
        // What is taken out as a secret stays out.
        if !changes.takes_out(&change.name) {
            changes.push(change);
        }
    }
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.push(Change {
            name: name.into(),
            value: Some(value.into()),
        });
    }

    fn takes_out(&self, name: &OsStr) -> bool {
        let mut all = self.0.iter();
        all.any(|change| change.name == name && change.value.is_none())
    }

    /// The later change of a variable wins.
    fn push(&mut self, change: Change) {
        self.0.retain(|earlier| earlier.name != change.name);
        self.0.push(change);
    }
}

fn set_proxy(changes: &mut Changes, address: SocketAddr, bypass: &[String]) {
    let url = url(address);
    for name in PROXY_BOTH_CASES {
        changes.set(name, &url);
        changes.set(&name.to_ascii_lowercase(), &url);
    }
    for name in PROXY {
        changes.set(name, &url);
    }
    let reached = reachable(address);
    changes.set("CLOUDSDK_PROXY_TYPE", "http");
    changes.set("CLOUDSDK_PROXY_ADDRESS", reached.ip().to_string());
    changes.set("CLOUDSDK_PROXY_PORT", reached.port().to_string());
    let bypass = bypass.join(",");
    for name in BYPASS {
        changes.set(name, &bypass);
    }
    changes.set("NODE_USE_ENV_PROXY", "1");
}

fn set_authorities(changes: &mut Changes, proxy: &Proxy<'_>) {
    for name in BUNDLE {
        changes.set(name, proxy.bundle);
    }
    // Node adds this file to its own authorities.
    changes.set("NODE_EXTRA_CA_CERTS", proxy.ca);
    changes.set("UV_NATIVE_TLS", "1");
}

/// Where a client on this machine reaches a listener.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn url(address: SocketAddr) -> String {
    format!("http://{}", reachable(address))
}

/// The value of the variable `name` in `parent`.
#[must_use]
pub fn value_of<'p>(parent: &'p [(OsString, OsString)], name: &str) -> Option<&'p OsStr> {
    parent
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.as_os_str())
}

/// What the user already had bypass proxies, and loopback. A `*` is left out: it would bypass the sidecar
/// for everything, which is what running without it is for.
fn bypass(parent: &[(OsString, OsString)]) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    let existing = ["NO_PROXY", "no_proxy"]
        .into_iter()
        .filter_map(|name| value_of(parent, name)?.to_str());
    let existing = existing.flat_map(|list| list.split([',', ' ']));
    for host in existing.chain(BYPASSED) {
        let host = host.trim();
        let known = hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        if !host.is_empty() && host != "*" && !known {
            hosts.push(host.into());
        }
    }
    hosts
}

/// The variables of the parent that the child must not see.
fn secrets(parent: &[(OsString, OsString)]) -> Vec<OsString> {
    let ours: Vec<_> = parent.iter().filter(|(name, _)| is_private(name)).collect();
    let known_elsewhere = |value: &OsStr| {
        value.len() >= SECRET_BYTES_MIN
            && ours
                .iter()
                .any(|(name, secret)| is_secret_value(name) && secret == value)
    };
    parent
        .iter()
        .filter(|(name, value)| is_private(name) || known_elsewhere(value))
        .map(|(name, _)| name.clone())
        .collect()
}

fn is_private(name: &OsStr) -> bool {
    // A name that is not UTF-8 is not one of ours.
    let Some(name) = name.to_str().filter(|name| name.starts_with("OPENBOX_")) else {
        return false;
    };
    PRIVATE.contains(&name)
        || PRIVATE_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || has_secret_word(name)
        // Where the agent API is off, the child must not find its way past us.
        || name == "OPENBOX_URL"
        || name == "OPENBOX_API_URL"
}

/// Whether the value itself is a secret, and not the path of a file or an address.
fn is_secret_value(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        has_secret_word(name) && !name.ends_with("_FILE") && !name.ends_with("_ID")
    })
}

fn has_secret_word(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The JVM reads none of the variables above, but every JVM reads this one. Ours come last: the last wins.
fn java_options(parent: &[(OsString, OsString)], proxy: &Proxy<'_>, bypass: &[String]) -> OsString {
    let theirs = value_of(parent, "JAVA_TOOL_OPTIONS").unwrap_or_default();
    let mut options = OsString::new();
    let reached = reachable(proxy.address);
    let host = reached.ip().to_string();
    let port = reached.port().to_string();
    push_option(&mut options, "-Dhttp.proxyHost=", host.as_ref());
    push_option(&mut options, "-Dhttp.proxyPort=", port.as_ref());
    push_option(&mut options, "-Dhttps.proxyHost=", host.as_ref());
    push_option(&mut options, "-Dhttps.proxyPort=", port.as_ref());
    let direct = non_proxy_hosts(bypass);
    push_option(&mut options, "-Dhttp.nonProxyHosts=", direct.as_ref());
    if let Some(store) = proxy.java_store {
        push_option(
            &mut options,
            "-Djavax.net.ssl.trustStore=",
            store.as_os_str(),
        );
        push_option(
            &mut options,
            "-Djavax.net.ssl.trustStoreType=",
            "JKS".as_ref(),
        );
        // The store has none; one that was set for another store would make it look damaged.
        push_option(
            &mut options,
            "-Djavax.net.ssl.trustStorePassword=",
            "".as_ref(),
        );
    }
    if theirs.is_empty() {
        return options;
    }
    // Given once already: a pod that was injected is injected again.
    let (has, ours) = (theirs.as_encoded_bytes(), options.as_encoded_bytes());
    if has.ends_with(ours) {
        return theirs.to_owned();
    }
    let mut all = theirs.to_owned();
    all.push(" ");
    all.push(options);
    all
}

/// Adds one option; the JVM splits at white space outside quotes.
fn push_option(options: &mut OsString, key: &str, value: &OsStr) {
    if !options.is_empty() {
        options.push(" ");
    }
    let bytes = value.as_encoded_bytes();
    let quote = if !bytes
        .iter()
        .any(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\''))
    {
        ""
    } else if bytes.contains(&b'"') {
        "'"
    } else {
        "\""
    };
    options.push(quote);
    options.push(key);
    options.push(value);
    options.push(quote);
}

/// The same hosts as the JVM writes them: separated by `|`, with `*` at an end, and no networks.
fn non_proxy_hosts(bypass: &[String]) -> String {
    let mut hosts: Vec<String> = Vec::new();
    for host in bypass.iter().filter(|host| !host.contains(['/', '|'])) {
        if host == "127.0.0.1" {
            hosts.push("127.*".into());
        } else if host.parse::<Ipv6Addr>().is_ok() {
            hosts.push(format!("[{host}]"));
        } else if let Some(domain) = host.strip_prefix("*.").or(host.strip_prefix('.')) {
            hosts.push(format!("*.{domain}"));
        } else {
            hosts.push(host.clone());
        }
    }
    hosts.join("|")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const KEY: &str = "obx_live_0123456789abcdef";

    fn given() -> Given<'static> {
        Given {
            proxy: Some(Proxy {
                address: SocketAddr::from(([127, 0, 0, 1], 41213)),
                ca: Path::new("/s/ca.pem"),
                bundle: Path::new("/s/bundle.pem"),
                java_store: Some(Path::new("/s/bundle.jks")),
            }),
            agent: Some(Agent {
                address: Some(SocketAddr::from(([127, 0, 0, 1], 41214))),
                socket: None,
                token: Some("obx_test_token"),
            }),
            databases: &[],
        }
    }

    fn parent(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    /// The environment that the child ends up with.
    fn child(pairs: &[(&str, &str)], given: &Given<'_>) -> BTreeMap<String, String> {
        let parent = parent(pairs);
        let mut env: BTreeMap<OsString, OsString> = parent.iter().cloned().collect();
        for Change { name, value } in changes(&parent, given) {
            match value {
                Some(value) => env.insert(name, value),
                None => env.remove(&name),
            };
        }
        env.into_iter()
            .map(|(n, v)| (n.into_string().unwrap(), v.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn every_program_finds_the_proxy_and_the_authorities_under_its_own_name() {
        let env = child(&[], &given());
        let rows = [
            // value                      names
            (
                "http://127.0.0.1:41213",
                vec![
                    "HTTP_PROXY",
                    "http_proxy",
                    "HTTPS_PROXY",
                    "https_proxy",
                    "ALL_PROXY",
                    "all_proxy",
                    "WS_PROXY",
                    "wss_proxy",
                    "GLOBAL_AGENT_HTTP_PROXY",
                    "npm_config_proxy",
                    "npm_config_https_proxy",
                    "CGI_HTTP_PROXY",
                    "GRPC_PROXY",
                    "grpc_proxy",
                    "DOCKER_HTTP_PROXY",
                    "DOCKER_HTTPS_PROXY",
                ],
            ),
            (
                "localhost,127.0.0.1,::1,0.0.0.0",
                vec![
                    "NO_PROXY",
                    "no_proxy",
                    "GLOBAL_AGENT_NO_PROXY",
                    "no_grpc_proxy",
                ],
            ),
            (
                "/s/bundle.pem",
                vec![
                    "SSL_CERT_FILE",
                    "REQUESTS_CA_BUNDLE",
                    "CURL_CA_BUNDLE",
                    "GIT_SSL_CAINFO",
                    "AWS_CA_BUNDLE",
                    "DENO_CERT",
                    "CARGO_HTTP_CAINFO",
                    "PIP_CERT",
                    "PERL_LWP_SSL_CA_FILE",
                    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
                    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
                ],
            ),
            ("/s/ca.pem", vec!["NODE_EXTRA_CA_CERTS"]),
            ("1", vec!["NODE_USE_ENV_PROXY", "UV_NATIVE_TLS"]),
            ("http", vec!["CLOUDSDK_PROXY_TYPE"]),
            ("127.0.0.1", vec!["CLOUDSDK_PROXY_ADDRESS"]),
            ("41213", vec!["CLOUDSDK_PROXY_PORT"]),
            (
                "http://127.0.0.1:41214",
                vec!["OPENBOX_URL", "OPENBOX_API_URL", "OPENBOX_SIDECAR_URL"],
            ),
            (
                "obx_test_token",
                vec!["OPENBOX_API_KEY", "OPENBOX_SIDECAR_TOKEN"],
            ),
        ];
        for (value, names) in rows {
            for name in names {
                assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
            }
        }
        assert!(!env.contains_key("SSL_CERT_DIR"));
    }

    #[test]
    fn no_secret_of_the_sidecar_reaches_the_child() {
        let rows = [
            // name                                   what the child sees
            ("OPENBOX_API_KEY", Some("obx_test_token")),
            ("OPENBOX_API_KEY_FILE", None),
            ("OPENBOX_AGENT_PRIVATE_KEY", None),
            ("OPENBOX_AGENT_PRIVATE_KEY_FILE", None),
            ("OPENBOX_AGENT_DID", None),
            ("OPENBOX_AGENT_IDENTITY_METHOD", None),
            ("OPENBOX_AGENT_ID", None),
            ("OPENBOX_ORGANIZATION_ID", None),
            ("OPENBOX_DEPLOYMENT_ID", None),
            ("OPENBOX_AGENT_PROOF_AUDIENCE", None),
            ("OPENBOX_OKTA_AGENT_ID", None),
            ("OPENBOX_OKTA_AGENT_PRIVATE_KEY", None),
            ("OPENBOX_WORKLOAD_PRIVATE_KEY", None),
            ("OPENBOX_WORKLOAD_ANYTHING", None),
            ("OPENBOX_OPERATOR_TOKEN", None),
            ("OPENBOX_OPERATOR_TOKEN_FILE", None),
            ("OPENBOX_CORE__CLIENT_SECRET", None),
            ("OPENBOX_CORE_URL", None),
            ("OPENBOX_CONFIG", None),
            ("OPENBOX_POLICY", None),
            ("OPENBOX_SIDECAR_TOKEN", Some("obx_test_token")),
            ("OPENBOX_URL", Some("http://127.0.0.1:41214")),
            ("MY_COPY_OF_THE_KEY", None),
        ];
        for (name, expected) in rows {
            // The key under this name too: a copy under a foreign name is known by its value.
            let env = child(&[(name, KEY), ("OPENBOX_API_KEY", KEY)], &given());
            assert_eq!(env.get(name).map(String::as_str), expected, "{name}");
            assert!(env.values().all(|value| value != KEY), "{name}");
        }
    }

    #[test]
    fn what_is_neither_ours_nor_secret_stays() {
        let kept = [
            ("OPENBOX_HTTP_CAPTURE", "true"),
            ("HOME", "/root"),
            ("GITHUB_TOKEN", "somebody-elses-secret"),
        ];
        let mut pairs = kept.to_vec();
        pairs.push(("OPENBOX_API_KEY", KEY));
        let env = child(&pairs, &given());
        for (name, value) in kept {
            assert_eq!(env[name], value);
        }
    }

    #[test]
    fn with_the_agent_api_off_the_real_key_is_taken_out_all_the_same() {
        let given = Given {
            agent: None,
            ..given()
        };
        let env = child(
            &[
                ("OPENBOX_API_KEY", KEY),
                ("OPENBOX_URL", "https://core.example"),
            ],
            &given,
        );
        assert!(
            env.keys().all(|name| !name.starts_with("OPENBOX_")),
            "{env:?}"
        );
    }

    #[test]
    fn with_the_proxy_off_nothing_points_at_it() {
        let given = Given {
            proxy: None,
            ..given()
        };
        let env = child(&[("HTTP_PROXY", "http://corp:3128")], &given);
        assert_eq!(env["HTTP_PROXY"], "http://corp:3128");
        assert!(!env.contains_key("SSL_CERT_FILE") && !env.contains_key("JAVA_TOOL_OPTIONS"));
    }

    #[test]
    fn what_bypassed_the_proxy_before_still_does_except_everything() {
        let rows = [
            // NO_PROXY               no_proxy           child's
            ("", "", "localhost,127.0.0.1,::1,0.0.0.0"),
            (
                "db.corp,.svc",
                "",
                "db.corp,.svc,localhost,127.0.0.1,::1,0.0.0.0",
            ),
            (
                "a.test",
                "b.test",
                "a.test,b.test,localhost,127.0.0.1,::1,0.0.0.0",
            ),
            (
                " a.test , ,A.TEST",
                "a.test",
                "a.test,localhost,127.0.0.1,::1,0.0.0.0",
            ),
            ("LOCALHOST,::1", "", "LOCALHOST,::1,127.0.0.1,0.0.0.0"),
            ("*", "*", "localhost,127.0.0.1,::1,0.0.0.0"),
            (
                "10.0.0.0/8 x.test",
                "",
                "10.0.0.0/8,x.test,localhost,127.0.0.1,::1,0.0.0.0",
            ),
        ];
        for (upper, lower, expected) in rows {
            let env = child(&[("NO_PROXY", upper), ("no_proxy", lower)], &given());
            assert_eq!((&*env["NO_PROXY"], &*env["no_proxy"]), (expected, expected));
        }
    }

    #[test]
    fn java_options_are_appended_and_quoted() {
        let ours = "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=41213 -Dhttps.proxyHost=127.0.0.1 \
                    -Dhttps.proxyPort=41213 -Dhttp.nonProxyHosts=*.corp|localhost|127.*|[::1]|0.0.0.0 \
                    -Djavax.net.ssl.trustStore=/s/bundle.jks -Djavax.net.ssl.trustStoreType=JKS \
                    -Djavax.net.ssl.trustStorePassword=";
        let env = child(
            &[
                ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
                ("NO_PROXY", ".corp,10.0.0.0/8"),
            ],
            &given(),
        );
        assert_eq!(env["JAVA_TOOL_OPTIONS"], format!("-Xmx1g {ours}"));
        let again = [
            ("JAVA_TOOL_OPTIONS", env["JAVA_TOOL_OPTIONS"].as_str()),
            ("NO_PROXY", ".corp,10.0.0.0/8"),
        ];
        assert_eq!(
            child(&again, &given())["JAVA_TOOL_OPTIONS"],
            env["JAVA_TOOL_OPTIONS"]
        );

        let mut spaced = given();
        spaced.proxy = spaced.proxy.map(|proxy| Proxy {
            java_store: Some(Path::new("/my state/b.jks")),
            ..proxy
        });
        let env = child(&[], &spaced);
        assert!(
            env["JAVA_TOOL_OPTIONS"].contains(" \"-Djavax.net.ssl.trustStore=/my state/b.jks\" ")
        );

        spaced.proxy = spaced.proxy.map(|proxy| Proxy {
            java_store: None,
            ..proxy
        });
        assert!(!child(&[], &spaced)["JAVA_TOOL_OPTIONS"].contains("trustStore"));
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        let rows = [
            // listens            url
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("192.0.2.1:1", "http://192.0.2.1:1"),
        ];
        for (address, expected) in rows {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn each_variable_is_changed_once_and_foreign_bytes_survive() {
        let odd = OsString::from_vec(vec![0xff, b'x']);
        let mut parent = parent(&[("OPENBOX_API_KEY", KEY), ("OPENBOX_SIDECAR_TOKEN", KEY)]);
        parent.push((odd.clone(), odd.clone()));
        let changes = changes(&parent, &given());
        let mut names: Vec<_> = changes.iter().map(|change| &change.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(changes.iter().all(|change| change.name != odd));
    }
}
