//! Through a proxy of the network, where agents' traffic may leave no other way.
//!
//! A connection is asked for by `CONNECT` (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928, with RFC 1929 for who asks), so that
//! TLS ends where it would without the proxy. Names are resolved by the proxy, whose network may be the only one
//! that knows them: what an address is can be checked here only where an address is asked for.

mod connect;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::Authority;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::{Service, service_fn};

use crate::net::dial::{DialError, Dialer};
use crate::net::passed::{Name, Passed};
use crate::net::reread::Reread;
use crate::redact::Secret;

/// What no proxy can reach for us: this machine.
const ALWAYS_DIRECT: &str = "localhost,127.0.0.0/8,::1";

/// Through which proxy, and for what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and what it speaks.
    pub proxy: Proxy,
    /// Who it is told that asks.
    pub login: Option<LoginAt>,
    /// Hosts that are reached directly, as `NO_PROXY` has them: names, which stand for names below them as well,
    /// addresses, networks, or `*`; with commas between them. Loopback is always.
    pub direct: String,
}

/// Where a login is.
#[derive(Clone, Debug)]
pub enum LoginAt {
    /// This is it.
    Here(Secret),
    /// In this file, which may become another.
    File(PathBuf),
}

/// What is wrong with a login that is none.
pub const NO_LOGIN: &str = "no USER:PASSWORD of at most 255 bytes each";

impl LoginAt {
    fn read(&self) -> Result<Login, String> {
        let parsed = match self {
            Self::Here(secret) => Login::parse(secret),
            Self::File(file) => {
                let told = |error| format!("{}: {error}", file.display());
                Login::parse(&Secret::in_file(file).map_err(told)?.0)
            }
        };
        parsed.ok_or_else(|| NO_LOGIN.to_owned())
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Here(_) => Vec::new(),
            Self::File(file) => vec![file.clone()],
        }
    }
}

/// A login as it is by now.
#[derive(Debug)]
struct Renewed {
    at: LoginAt,
    login: Reread<Option<Login>>,
}

impl Renewed {
    /// Nobody is logged in by a file that is no login yet; it was one when the settings were read.
    fn new(at: LoginAt) -> Self {
        let what = "the login of upstream.proxy_login_file";
        let read = || Ok::<_, Infallible>(at.read().ok());
        let Ok(login) = Reread::new(what, at.files(), read);
        Self { at, login }
    }

    fn newest(&self) -> (Option<Login>, u64) {
        self.login.newest(|| self.at.read().map(Some))
    }
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
    login: Option<Renewed>,
    matcher: Matcher,
    /// What we are called by proxies behind it.
    name: Name,
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
            login: login.map(Renewed::new),
            matcher,
            name: Name::default(),
            dialer,
        }
    }

    /// Grows whenever the login has changed: a connection that was made before then is somebody else's.
    pub(super) fn edition(&self) -> u64 {
        self.login.as_ref().map_or(0, |login| login.newest().1)
    }

    /// What we are called by proxies behind it.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Whether this host, without brackets, is reached through the proxy.
    pub(super) fn leads_to(&self, host: &str) -> bool {
        place(host, 80).is_some_and(|uri| self.matcher.intercept(&uri).is_some())
    }

    /// A connection to this host, without brackets, and port, asked for by who has `passed` others. Dropping the
    /// future closes what there is of it.
    ///
    /// # Errors
    ///
    /// When the proxy cannot be reached, does not connect, or leads back here.
    pub(super) async fn reach(
        &self,
        host: &str,
        port: u16,
        passed: &Passed,
    ) -> Result<TcpStream, DialError> {
        let failed = |reason: String| DialError::Proxy {
            host: host.into(),
            proxy: self.proxy.to_string().into(),
            reason,
        };
        let Some(there) = place(host, port) else {
            return Err(failed("it is no host".to_owned()));
        };
        let to_proxy = async {
            let checked = self.dialer.resolve(&self.proxy.host, self.proxy.port);
            self.dialer.connect(&checked.await?).await
        };
        let mut stream = to_proxy.await.map_err(|error| failed(error.to_string()))?;
        let login = self.login.as_ref().and_then(|login| login.newest().0);
        match self.proxy.kind {
            Kind::Connect => {
                let basic = login.as_ref().and_then(Login::basic);
                let authority = there.authority().map(Authority::as_str).unwrap_or_default();
                let via = passed.and(&self.name);
                let asked = connect::Asked {
                    place: authority,
                    login: basic.as_ref(),
                    via: &via,
                };
                match connect::connect(&mut stream, &asked).await {
                    Ok(()) => Ok(stream),
                    Err(connect::Failed::Circle) => Err(DialError::Circle {
                        host: host.into(),
                        proxy: self.proxy.to_string().into(),
                    }),
                    Err(connect::Failed::Other(reason)) => Err(failed(reason)),
                }
            }
            Kind::Socks5 => {
                let connected = Self::socks(stream, there, login.as_ref()).await;
                connected.map_err(failed)
            }
        }
    }

    async fn socks(
        stream: TcpStream,
        there: Uri,
        login: Option<&Login>,
    ) -> Result<TcpStream, String> {
        let mut once = Some(TokioIo::new(Sparing(stream)));
        let connected = service_fn(move |_: Uri| {
            let stream = once.take().ok_or(io::ErrorKind::NotConnected);
            std::future::ready(stream.map_err(io::Error::from))
        });
        let mut socks = SocksV5::new(Uri::from_static("http://proxy"), connected).local_dns(false);
        if let Some(Login { user, password }) = login {
            socks = socks.with_auth(user.to_string(), password.expose().to_owned());
        }
        let done = socks.call(there).await;
        done.map(|io| io.into_inner().0)
            .map_err(|error| in_full(&error))
    }
}

/// A byte at a time, so that the client of SOCKS takes nothing that comes behind what it waits for: the first words
/// of an origin that speaks first.
struct Sparing(TcpStream);

impl AsyncRead for Sparing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut one = ReadBuf::new(&mut one);
        ready!(Pin::new(&mut self.get_mut().0).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sparing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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

    #[tokio::test]
    async fn what_an_origin_says_first_is_not_lost_behind_socks() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            proxy: format!("socks5://{}", proxy.local_addr().unwrap())
                .parse()
                .unwrap(),
            login: None,
            direct: String::new(),
        };
        let open = super::super::dial::Settings {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            ..Default::default()
        };
        let chain = Chain::new(settings, Dialer::new(open, Vec::new()));
        let serves = async {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(b"\x05\x00").await.unwrap();
            let mut asked = [0; 5 + 6 + 2];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"\x05\x01\x00\x03\x06a.test\x00\x16");
            let connected = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x16SSH-2.0-x\r\n";
            stream.write_all(connected).await.unwrap();
        };
        let reaches = async {
            let mut stream = chain.reach("a.test", 22, &Passed::default()).await.unwrap();
            let mut said = [0; 11];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"SSH-2.0-x\r\n");
        };
        tokio::join!(serves, reaches);
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
