//! Through a proxy of the network, where agents' traffic may leave no other way.
//!
//! A connection is asked for by `CONNECT` (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928, with RFC 1929 for who asks), so that
//! TLS ends where it would without the proxy. Names are resolved by the proxy, whose network may be the only one
//! that knows them: what an address is can be checked here only where an address is asked for.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service, service_fn};

use crate::net::dial::{DialError, Dialer};
use crate::redact::Secret;

/// What no proxy can reach for us: this machine.
const ALWAYS_DIRECT: &str = "localhost,127.0.0.0/8,::1";

/// Through which proxy, and for what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and what it speaks.
    pub proxy: Proxy,
    /// Who it is told that asks.
    pub login: Option<Login>,
    /// Hosts that are reached directly, as `NO_PROXY` has them: names, which stand for names below them as well,
    /// addresses, networks, or `*`; with commas between them. Loopback is always.
    pub direct: String,
}

/// `http://HOST:PORT`, which is asked by `CONNECT`, or `socks5://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: Box<str>,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connect,
    Socks5,
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url: Uri = text
            .parse()
            .map_err(|error| format!("it is no URL: {error}"))?;
        let kind = match url.scheme_str() {
            Some("http") => Kind::Connect,
            Some("socks5" | "socks5h") => Kind::Socks5,
            Some("https") => return Err("TLS to a proxy is not supported".into()),
            _ => return Err("its scheme is not http or socks5".into()),
        };
        let Some(authority) = url.authority() else {
            return Err("it names no host".into());
        };
        if authority.as_str().contains('@') {
            return Err(
                "it has a user or a password, which belong into upstream.proxy_login_file".into(),
            );
        }
        let Some(port) = authority.port_u16().filter(|port| *port != 0) else {
            return Err("it has no port".into());
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err("it has a path".into());
        }
        Ok(Self {
            kind,
            host: authority.host().into(),
            port,
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Connect => "http",
            Kind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// `USER:PASSWORD`.
#[derive(Clone, Debug)]
pub struct Login {
    user: Box<str>,
    password: Secret,
}

impl Login {
    /// `None`: there is no colon, or nothing before it, or either is longer than the 255 bytes of RFC 1929.
    #[must_use]
    pub fn parse(text: &Secret) -> Option<Self> {
        let (user, password) = text.expose().split_once(':')?;
        let fits = |part: &str| part.len() <= usize::from(u8::MAX);
        (!user.is_empty() && fits(user) && fits(password)).then(|| Self {
            user: user.into(),
            password: Secret::new(password.to_owned()),
        })
    }

    /// As `Basic` has it (RFC 7617).
    fn basic(&self) -> Option<HeaderValue> {
        let pair = Secret::new(format!("{}:{}", self.user, self.password.expose()));
        let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        let mut value = HeaderValue::from_str(value.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Connects through the proxy.
#[derive(Debug)]
pub(super) struct Chain {
    proxy: Proxy,
    login: Option<Login>,
    matcher: Matcher,
    /// To the proxy, which whoever runs the sidecar has named.
    dialer: Dialer,
}

impl Chain {
    /// `dialer` connects to the proxy.
    pub(super) fn new(settings: Settings, dialer: Dialer) -> Self {
        let Settings {
            proxy,
            login,
            direct,
        } = settings;
        let direct = format!("{ALWAYS_DIRECT},{direct}");
        // What it would connect to is not asked: it is for who is reached directly.
        let matcher = Matcher::builder().all("http://proxy").no(direct).build();
        Self {
            proxy,
            login,
            matcher,
            dialer,
        }
    }

    /// Whether this host, without brackets, is reached through the proxy.
    pub(super) fn leads_to(&self, host: &str) -> bool {
        place(host, 80).is_some_and(|uri| self.matcher.intercept(&uri).is_some())
    }

    /// A connection to this host, without brackets, and port. Dropping the future closes what there is of it.
    ///
    /// # Errors
    ///
    /// When the proxy cannot be reached, or does not connect.
    pub(super) async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let failed = |reason: String| DialError::Proxy {
            host: host.into(),
            proxy: self.proxy.to_string().into(),
            reason,
        };
        let Some(there) = place(host, port) else {
            return Err(failed("it is no host".to_owned()));
        };
        let dialer = self.dialer.clone();
        let (proxy, proxy_port) = (self.proxy.host.clone(), self.proxy.port);
        let to_proxy = service_fn(move |_: Uri| {
            let (dialer, proxy) = (dialer.clone(), proxy.clone());
            async move {
                let checked = dialer.resolve(&proxy, proxy_port).await?;
                dialer.connect(&checked).await.map(TokioIo::new)
            }
        });
        let at = Uri::from_static("http://proxy");
        let connected = match self.proxy.kind {
            Kind::Connect => {
                let mut tunnel = Tunnel::new(at, to_proxy);
                if let Some(basic) = self.login.as_ref().and_then(Login::basic) {
                    tunnel = tunnel.with_auth(basic);
                }
                tunnel.call(there).await.map_err(|error| in_full(&error))
            }
            Kind::Socks5 => {
                let mut socks = SocksV5::new(at, to_proxy).local_dns(false);
                if let Some(Login { user, password }) = &self.login {
                    socks = socks.with_auth(user.to_string(), password.expose().to_owned());
                }
                socks.call(there).await.map_err(|error| in_full(&error))
            }
        };
        connected.map(TokioIo::into_inner).map_err(failed)
    }
}

/// An error with what caused it.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn place(host: &str, port: u16) -> Option<Uri> {
    let place = match host.contains(':') {
        true => format!("http://[{host}]:{port}"),
        false => format!("http://{host}:{port}"),
    };
    place.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_scheme_a_host_and_a_port() {
        for text in ["http://proxy.corp:3128", "socks5://[::1]:1080"] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), text);
        }
        let proxy: Proxy = "socks5h://p:1/".parse().unwrap();
        assert_eq!(proxy.to_string(), "socks5://p:1");
        for (text, expected) in [
            ("https://proxy:1", "TLS to a proxy"),
            ("ftp://proxy:1", "scheme"),
            ("proxy:3128", "scheme"),
            ("http://proxy", "no port"),
            ("http://proxy:0", "no port"),
            ("http://u:p@proxy:1", "upstream.proxy_login_file"),
            ("http://proxy:1/x", "path"),
            ("http://", "URL"),
        ] {
            let error = text.parse::<Proxy>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_login_shows_nobody_its_password() {
        let login = Login::parse(&Secret::new("me:correct:horse".to_owned())).unwrap();
        assert!(!format!("{login:?}").contains("horse"));
        let basic = login.basic().unwrap();
        assert_eq!(basic, "Basic bWU6Y29ycmVjdDpob3JzZQ==");
        assert!(!format!("{basic:?}").contains("bWU6"));
        let long = "x".repeat(256);
        for text in ["nobody", ":p", &format!("{long}:p"), &format!("u:{long}")] {
            assert!(Login::parse(&Secret::new((*text).to_owned())).is_none());
        }
    }

    #[test]
    fn what_is_reached_directly_is_what_no_proxy_says() {
        let settings = Settings {
            proxy: "http://proxy:1".parse().unwrap(),
            login: None,
            direct: "corp.test,10.0.0.0/8, .svc".to_owned(),
        };
        let dialer = Dialer::new(super::super::dial::Settings::default(), Vec::new());
        let chain = Chain::new(settings, dialer);
        for (host, expected) in [
            ("api.test", true),
            ("notcorp.test", true),
            ("11.0.0.1", true),
            ("2001:db8::1", true),
            ("corp.test", false),
            ("a.corp.test", false),
            ("a.svc", false),
            ("10.1.2.3", false),
            ("127.0.0.9", false),
            ("::1", false),
            ("localhost", false),
        ] {
            assert_eq!(chain.leads_to(host), expected, "{host}");
        }
    }
}
