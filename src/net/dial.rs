//! From a name to a connection: resolve once, check every address, dial only what was checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::net::address::{AddressRules, Private, Rule};
use crate::net::chain::{self, Chain};
use crate::net::listen::KEEPALIVE_AFTER;
use crate::net::passed::{Circle, Passed};
use crate::net::transparent;

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Most lookups in the system's resolver at a time; each holds a thread until it is answered.
const LOOKUPS_MAX: usize = 64;

/// How upstream connections are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Networks that are dialed although a rule forbids them.
    pub allow: Vec<IpNet>,
    /// Whether private networks are dialed that are not in `allow`.
    pub private: Private,
    /// Addresses to use instead of asking the resolver.
    pub resolve: Vec<Override>,
    /// Longest wait for the resolver.
    pub resolve_within: Duration,
    /// Longest wait for a connection, all addresses of the name together.
    pub connect_within: Duration,
    /// The proxy that connections go through; `None`: there is none.
    pub chain: Option<chain::Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            private: Private::Open,
            resolve: Vec::new(),
            resolve_within: Duration::from_secs(5),
            connect_within: Duration::from_secs(10),
            chain: None,
        }
    }
}

impl Settings {
    /// The same for what whoever runs the sidecar has named: the rules are for what an agent asks for. Directly.
    #[must_use]
    pub fn anywhere(self) -> Self {
        let all = ["0.0.0.0/0", "::/0"];
        Self {
            allow: all.iter().filter_map(|net| net.parse().ok()).collect(),
            chain: None,
            ..self
        }
    }
}

/// One `HOST:PORT=ADDRESS`: connections to this host and port go to this address. The rules for addresses
/// apply to it all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    host: Box<str>,
    port: u16,
    address: IpAddr,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "\"{text}\" {what}; expected HOST:PORT=ADDRESS, for example api.example.com:443=10.0.0.7"
            )
        };
        let (target, address) = text
            .split_once('=')
            .ok_or_else(|| wrong("has no address"))?;
        let (host, port) = target
            .rsplit_once(':')
            .ok_or_else(|| wrong("has no port"))?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| wrong("has a port that is not a number from 1 to 65535"))?;
        let address = unbracketed(address)
            .parse()
            .map_err(|_| wrong("has an address that is not an IP address"))?;
        let host = bare(host);
        if host.is_empty() || host.contains(['/', '*', '@']) {
            return Err(wrong("has no usable host"));
        }
        Ok(Self {
            host: host.to_ascii_lowercase().into(),
            port,
            address,
        })
    }
}

/// Addresses that passed the rules, in the order they are tried; never empty. Only [`Dialer::resolve`] makes
/// one, and only one of these can be connected to.
#[derive(Debug, Clone)]
pub struct Checked {
    host: Box<str>,
    addresses: Vec<SocketAddr>,
}

impl Checked {
    /// The addresses, in the order they are tried.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// For whom a connection is made. Those of one are not for another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The address that it is made from, though it be another machine's; `None`: one of ours.
    pub from: Option<IpAddr>,
    /// The sidecars that have asked one another for it.
    pub passed: Passed,
}

/// Whose address captured connections go on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// Ours.
    #[default]
    Own,
    /// The client's, so that the origin sees it.
    Client,
}

/// Makes upstream connections under the address rules. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    rules: Arc<AddressRules>,
    resolve: Arc<[Override]>,
    lookups: Arc<Semaphore>,
    resolve_within: Duration,
    connect_within: Duration,
    chain: Option<Arc<Chain>>,
}

impl Dialer {
    /// A dialer that never reaches the listeners in `own`.
    #[must_use]
    pub fn new(mut settings: Settings, own: Vec<SocketAddr>) -> Self {
        let chain = settings.chain.take().map(|chain| {
            let to_proxy = Self::new(settings.clone().anywhere(), own.clone());
            Arc::new(Chain::new(chain, to_proxy))
        });
        Self {
            chain,
            rules: Arc::new(AddressRules::new(settings.allow, settings.private, own)),
            resolve: settings.resolve.into(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            resolve_within: settings.resolve_within,
            connect_within: settings.connect_within,
        }
    }

    /// Resolves and connects; through the proxy, where there is one for this host. It resolves names: the rules
    /// are asked about the name, or the address that stands for one.
    ///
    /// # Errors
    ///
    /// As [`Dialer::resolve`] and [`Dialer::connect`], and [`DialError::Proxy`].
    pub async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        self.dial_for(host, port, &Asker::default()).await
    }

    /// As [`Self::dial`], for `asker`. Through a proxy, a connection comes from our own address.
    ///
    /// # Errors
    ///
    /// As [`Self::dial`], and where the process may not have the asker's address.
    pub async fn dial_for(
        &self,
        host: &str,
        port: u16,
        asker: &Asker,
    ) -> Result<TcpStream, DialError> {
        let bare = bare(host);
        let chain = self.chain.as_ref().filter(|chain| chain.leads_to(bare));
        let Some(chain) = chain.filter(|_| self.pinned(bare, port).next().is_none()) else {
            let checked = self.resolve(host, port).await?;
            return self.connect_from(&checked, asker.from).await;
        };
        self.permits(bare, port)?;
        match tokio::time::timeout(self.connect_within, chain.reach(bare, port, &asker.passed))
            .await
        {
            Ok(reached) => reached,
            Err(_) => Err(DialError::TimedOut {
                host: bare.into(),
                doing: "connecting through the proxy",
                within: self.connect_within,
            }),
        }
    }

    /// The sidecars that a request with these `headers` has passed on its way here. Without a proxy behind us, who
    /// was passed is nobody's business.
    ///
    /// # Errors
    ///
    /// When this is one of them, or they are too many.
    pub fn passed(&self, headers: &HeaderMap) -> Result<Passed, Circle> {
        match &self.chain {
            Some(chain) => Passed::of(headers, chain.name()),
            None => Ok(Passed::default()),
        }
    }

    /// Grows whenever the login of the proxy has changed: a connection that was made before then is somebody else's.
    #[must_use]
    pub fn edition(&self) -> u64 {
        self.chain.as_ref().map_or(0, |chain| chain.edition())
    }

    /// What the rules say of a host that is not resolved here. Resolvers make addresses of numbers, too
    /// (`127.1`, `0xa9fea9fe`): what ends in one and is no address as it is written could be any.
    fn permits(&self, host: &str, port: u16) -> Result<(), DialError> {
        let refused = |address, rule| DialError::Refused {
            host: host.into(),
            address,
            rule,
        };
        match host.parse() {
            Ok(ip) => self
                .rules
                .permits(SocketAddr::new(ip, port))
                .map_err(|rule| refused(Some(ip), rule)),
            Err(_) if !is_name(host) => Err(DialError::Unclear { host: host.into() }),
            Err(_) => match self.rules.refused_name(host) {
                Some(rule) => Err(refused(None, rule)),
                None => Ok(()),
            },
        }
    }

    /// Where this host and port are said to be.
    fn pinned(&self, host: &str, port: u16) -> impl Iterator<Item = SocketAddr> {
        let all = self.resolve.iter();
        all.filter(move |one| one.port == port && one.host.eq_ignore_ascii_case(host))
            .map(move |one| SocketAddr::new(one.address, port))
    }

    /// The addresses of a host that may be dialed. `host` is a name or an IP literal, with or without
    /// brackets. Where a name has permitted and forbidden addresses, the forbidden ones are left out.
    ///
    /// # Errors
    ///
    /// When the name is a metadata service's, does not exist, has only forbidden addresses, or the resolver
    /// is too slow.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Checked, DialError> {
        let host = bare(host);
        if host.is_empty() || port == 0 || host.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(DialError::NotFound {
                host: host.into(),
                reason: "not a host and a port".into(),
            });
        }
        let found = self.addresses(host, port).await?;
        let mut addresses = Vec::with_capacity(found.len());
        let mut refused = None;
        for address in found {
            match self.rules.permits(address) {
                Ok(()) if addresses.contains(&address) => {}
                Ok(()) => addresses.push(address),
                Err(rule) => refused = refused.or(Some((address.ip(), rule))),
            }
        }
        match (addresses.is_empty(), refused) {
            (false, _) => Ok(Checked {
                host: host.into(),
                addresses,
            }),
            (true, Some((address, rule))) => Err(DialError::Refused {
                host: host.into(),
                address: Some(address),
                rule,
            }),
            (true, None) => Err(DialError::NotFound {
                host: host.into(),
                reason: "the name has no addresses".into(),
            }),
        }
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let pinned: Vec<_> = self.pinned(host, port).collect();
        if !pinned.is_empty() {
            return Ok(pinned);
        }
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        if let Some(rule) = self.rules.refused_name(host) {
            return Err(DialError::Refused {
                host: host.into(),
                address: None,
                rule,
            });
        }
        self.look_up(host, port).await
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let name: Box<str> = host.into();
        let not_found = |reason: String| DialError::NotFound {
            host: host.into(),
            reason,
        };
        let asked = async {
            let permit = Arc::clone(&self.lookups)
                .acquire_owned()
                .await
                .map_err(|closed| not_found(closed.to_string()))?;
            // The permit stays with the thread, which goes on after we have stopped waiting for it.
            let lookup = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                (&*name, port)
                    .to_socket_addrs()
                    .map(|found| found.take(ADDRESSES_MAX).collect())
            });
            match lookup.await {
                Ok(found) => found.map_err(|error| not_found(error.to_string())),
                Err(ended) => Err(not_found(ended.to_string())),
            }
        };
        match tokio::time::timeout(self.resolve_within, asked).await {
            Ok(found) => found,
            Err(_) => Err(DialError::TimedOut {
                host: host.into(),
                doing: "resolving its name",
                within: self.resolve_within,
            }),
        }
    }

    /// Connects to the first address that answers; an address that is silent leaves time for the others.
    ///
    /// # Errors
    ///
    /// The last failure, when no address accepted within the time.
    pub async fn connect(&self, checked: &Checked) -> Result<TcpStream, DialError> {
        self.connect_from(checked, None).await
    }

    async fn connect_from(
        &self,
        checked: &Checked,
        from: Option<IpAddr>,
    ) -> Result<TcpStream, DialError> {
        let deadline = Instant::now()
            .checked_add(self.connect_within)
            .unwrap_or_else(Instant::now);
        let mut left = u32::try_from(checked.addresses.len()).unwrap_or(u32::MAX);
        let mut last = DialError::TimedOut {
            host: checked.host.clone(),
            doing: "connecting",
            within: self.connect_within,
        };
        for address in &checked.addresses {
            let now = Instant::now();
            let share = deadline
                .saturating_duration_since(now)
                .checked_div(left)
                .unwrap_or_default();
            left = left.saturating_sub(1);
            let connected = connect_to(*address, from);
            match timeout_at(now.checked_add(share).unwrap_or(now), connected).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(source)) => {
                    last = DialError::Unreachable {
                        host: checked.host.clone(),
                        address: *address,
                        source,
                    }
                }
                Err(_) => {}
            }
        }
        Err(last)
    }
}

async fn connect_to(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    if let Some(from) = from {
        stand_for(&socket, from, address)?;
    }
    socket.connect(address).await
}

/// Gives `socket` the address `from`, whoever's it is, for a connection to `address`.
fn stand_for(socket: &TcpSocket, from: IpAddr, address: SocketAddr) -> io::Result<()> {
    let from = from.to_canonical();
    if from.is_ipv4() != address.is_ipv4() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "the client's address is of the other family",
        ));
    }
    transparent::allow(&SockRef::from(socket), from)?;
    // A port is taken before the destination is known, so none that is in use, though it could serve elsewhere too.
    // With this the kernel gives one out again when no other is left, if `ip_autobind_reuse` lets it. To take none
    // before it connects (IP_BIND_ADDRESS_NO_PORT) has no safe call here.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))
}

/// A host without the brackets of an IPv6 literal and without the dot of a rooted name.
pub(super) fn bare(host: &str) -> &str {
    let host = unbracketed(host);
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether a host that is no IP address is a name: one whose last label is no number, by which the URL standard
/// tells them apart ("ends in a number"), and none with the colons of IPv6.
pub(crate) fn is_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or(host);
    let hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    !hex && !last.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':')
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// The rules for addresses forbid it.
    Refused {
        /// What was to be dialed.
        host: Box<str>,
        /// The forbidden address; none where the name itself was refused.
        address: Option<IpAddr>,
        /// The rule that forbids it.
        rule: Rule,
    },
    /// It could be any address, and would be resolved elsewhere.
    Unclear {
        /// What was to be dialed.
        host: Box<str>,
    },
    /// The name has no address.
    NotFound {
        /// What was to be dialed.
        host: Box<str>,
        /// What the resolver said.
        reason: String,
    },
    /// No address accepted the connection.
    Unreachable {
        /// What was to be dialed.
        host: Box<str>,
        /// The address that was tried last.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy in between did not connect.
    Proxy {
        /// What was to be dialed.
        host: Box<str>,
        /// The proxy's URL.
        proxy: Box<str>,
        /// What went wrong.
        reason: String,
    },
    /// The proxy in between leads back here.
    Circle {
        /// What was to be dialed.
        host: Box<str>,
        /// The proxy's URL.
        proxy: Box<str>,
    },
    /// The resolver or every address was silent.
    TimedOut {
        /// What was to be dialed.
        host: Box<str>,
        /// What took too long.
        doing: &'static str,
        /// The time it had.
        within: Duration,
    },
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                host,
                rule: Rule::OwnListener,
                ..
            } => write!(
                f,
                "{host} is a listener of this sidecar, which is never reached through it"
            ),
            Self::Refused {
                host,
                address: None,
                rule,
            } => write!(
                f,
                "{host} is the name of {rule}, which is not dialed; \
                 --allow-address 169.254.169.254/32 would permit it"
            ),
            Self::Refused {
                host,
                address: Some(address),
                rule,
            } => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                write!(
                    f,
                    "{host} is {address}, {rule}, which is not dialed; \
                     --allow-address {address}/{bits} would permit it"
                )
            }
            Self::Unclear { host } => write!(
                f,
                "{host} ends in a number and is no IP address as it is written: the proxy in between \
                 (upstream.proxy) could take it for any; write the address out"
            ),
            Self::NotFound { host, reason } => {
                write!(f, "{host} could not be resolved: {reason}")
            }
            Self::Unreachable {
                host,
                address,
                source,
            } => write!(f, "{host} could not be reached at {address}: {source}"),
            Self::Proxy {
                host,
                proxy,
                reason,
            } => write!(
                f,
                "{host} could not be reached through {proxy} (upstream.proxy): {reason}"
            ),
            Self::Circle { host, proxy } => write!(
                f,
                "{host} is not reached through {proxy} (upstream.proxy), which answered 508: proxies lead in a circle, and this sidecar is in it"
            ),
            Self::TimedOut {
                host,
                doing,
                within,
            } => write!(
                f,
                "{host} did not answer: {doing} took longer than {} s",
                within.as_secs_f32()
            ),
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } => Some(source),
            Self::Refused { .. }
            | Self::Unclear { .. }
            | Self::NotFound { .. }
            | Self::Proxy { .. }
            | Self::Circle { .. }
            | Self::TimedOut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen;

    fn dialer(allow: &[&str], resolve: &[&str]) -> Dialer {
        let settings = Settings {
            allow: allow.iter().map(|a| a.parse().unwrap()).collect(),
            resolve: resolve.iter().map(|r| r.parse().unwrap()).collect(),
            ..Settings::default()
        };
        Dialer::new(settings, vec![])
    }

    fn loopback() -> listen::Bound {
        listen::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    #[tokio::test]
    async fn every_spelling_of_loopback_is_refused_and_the_setting_named() {
        let hosts = [
            "127.0.0.1",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "[::1]",
            "::1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "[::ffff:127.0.0.1]",
            "::ffff:7f00:1",
            "[64:ff9b::7f00:1]",
            "0.0.0.0",
            "0",
            "[::]",
            "[::127.0.0.1]",
        ];
        for host in hosts {
            let error = dialer(&[], &[]).resolve(host, 80).await.unwrap_err();
            assert!(
                matches!(error, DialError::Refused { .. }),
                "{host}: {error}"
            );
            assert!(error.to_string().contains("--allow-address"), "{error}");
        }
    }

    #[tokio::test]
    async fn names_of_metadata_services_are_refused_before_they_are_resolved() {
        let error = dialer(&[], &[])
            .resolve("Metadata.google.internal.", 80)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                DialError::Refused {
                    address: None,
                    rule: Rule::Metadata,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_override_is_used_for_its_host_and_port_only() {
        let dialer = dialer(
            &["127.0.0.0/8"],
            &[
                "Api.Example.Test:8443=127.0.0.1",
                "api.example.test:8443=127.0.0.2",
            ],
        );
        let checked = dialer.resolve("api.example.TEST.", 8443).await.unwrap();
        let expected: [SocketAddr; 2] = [
            "127.0.0.1:8443".parse().unwrap(),
            "127.0.0.2:8443".parse().unwrap(),
        ];
        assert_eq!(checked.addresses(), expected);
        for (host, port) in [("api.example.test", 443), ("other.example.test", 8443)] {
            let error = dialer.resolve(host, port).await.unwrap_err();
            assert!(
                matches!(error, DialError::NotFound { .. }),
                "{host}:{port} {error}"
            );
        }
    }

    #[tokio::test]
    async fn an_override_does_not_open_a_forbidden_address() {
        let error = dialer(&[], &["api.example.test:443=127.0.0.1"])
            .resolve("api.example.test", 443)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            DialError::Refused {
                rule: Rule::Loopback,
                ..
            }
        ));
    }

    #[tokio::test]
    async fn forbidden_addresses_of_a_mixed_name_are_left_out() {
        let dialer = dialer(
            &[],
            &[
                "mixed.test:80=127.0.0.1",
                "mixed.test:80=192.0.2.1",
                "mixed.test:80=::1",
            ],
        );
        let checked = dialer.resolve("mixed.test", 80).await.unwrap();
        assert_eq!(checked.addresses(), ["192.0.2.1:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn connections_are_made_to_the_checked_address_without_delay() {
        let bound = loopback();
        let dialer = dialer(&["127.0.0.0/8"], &[]);
        let (stream, _) = tokio::join!(
            dialer.dial("127.0.0.1", bound.address().port()),
            bound.accept()
        );
        let stream = stream.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), bound.address());
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let bound = loopback();
        let port = bound.address().port();
        let dialer = dialer(
            &["127.0.0.0/8"],
            &[
                &format!("two.test:{port}=127.0.0.9"),
                &format!("two.test:{port}=127.0.0.1"),
            ],
        );
        let (stream, _) = tokio::join!(dialer.dial("two.test", port), bound.accept());
        assert_eq!(stream.unwrap().peer_addr().unwrap(), bound.address());
    }

    #[tokio::test]
    async fn a_closed_port_is_told_with_its_address() {
        let address = loopback().address();
        let error = dialer(&["127.0.0.0/8"], &[])
            .dial("127.0.0.1", address.port())
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }));
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn hosts_that_are_none_are_not_looked_up() {
        for host in ["", ".", "[]", "a b", "a\0b", "a\r\nb"] {
            let error = dialer(&[], &[]).resolve(host, 80).await.unwrap_err();
            assert!(
                matches!(error, DialError::NotFound { .. }),
                "{host:?}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn numbers_that_a_proxy_would_make_an_address_of_do_not_get_there() {
        let proxy = loopback();
        let settings = Settings {
            chain: Some(chain::Settings {
                proxy: format!("http://{}", proxy.address()).parse().unwrap(),
                login: None,
                direct: String::new(),
            }),
            // Long enough for a connection to the proxy, which answers nothing.
            connect_within: Duration::from_millis(500),
            ..Settings::default()
        };
        let dialer = Dialer::new(settings, vec![]);
        for host in [
            "2852039166",
            "0xa9fea9fe",
            "0XA9FEA9FE",
            "0251.0376.0251.0376",
            "0xa9.254.169.0xfe",
            "127.1",
            "127.1.",
            "127.1..",
            "10.1",
            "1.2.3.4.5",
            "999.1.1.1",
            "a.0x",
            "a.7",
        ] {
            let error = dialer.dial(host, 80).await.unwrap_err();
            assert!(
                matches!(error, DialError::Unclear { .. }),
                "{host}: {error}"
            );
            assert!(error.to_string().contains("upstream.proxy"), "{error}");
        }
        for host in ["a.test", "0xg", "7.test", "0x7f.test", "10.a1", "a-1"] {
            assert!(is_name(host), "{host}");
        }
        // As they are written, addresses are asked for: what is silent is the proxy.
        for host in ["192.0.2.1", "[2001:db8::1]"] {
            let error = dialer.dial(host, 80).await.unwrap_err();
            assert!(
                matches!(error, DialError::TimedOut { .. }),
                "{host}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn our_own_listener_is_not_reached_though_loopback_is_open() {
        let own: SocketAddr = "127.0.0.1:15801".parse().unwrap();
        let settings = Settings {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            ..Settings::default()
        };
        let error = Dialer::new(settings, vec![own])
            .resolve("127.1", 15801)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            DialError::Refused {
                rule: Rule::OwnListener,
                ..
            }
        ));
        assert!(!error.to_string().contains("--allow-address"), "{error}");
    }

    #[test]
    fn an_override_that_cannot_be_read_says_what_is_wrong() {
        let rows = [
            // text                          complaint
            ("a.test:80=127.0.0.1", None),
            ("a.test:80=[::1]", None),
            ("a.test:80=::1", None),
            ("[2001:db8::1]:80=127.0.0.1", None),
            ("a.test:80", Some("has no address")),
            ("a.test=127.0.0.1", Some("has no port")),
            ("a.test:http=127.0.0.1", Some("has a port")),
            ("a.test:0=127.0.0.1", Some("has a port")),
            ("a.test:80=b.test", Some("not an IP address")),
            (":80=127.0.0.1", Some("no usable host")),
            ("*:80=127.0.0.1", Some("no usable host")),
        ];
        for (text, complaint) in rows {
            match (text.parse::<Override>(), complaint) {
                (Ok(_), None) => {}
                (Err(error), Some(part)) => {
                    assert!(error.contains(part) && error.contains(text), "{error}");
                }
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }
}
