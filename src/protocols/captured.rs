//! Captured connections that wanted to go to a configured database: its relay serves them as what comes to its listener.
//!
//! Known by address, as a database of which nothing is read tells no name. The relay connects to the server that is
//! configured, whatever of its addresses the client had, so what is recognised wrongly gains nothing.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::{LimitHit, Metrics};
use crate::net::client_socket::ClientSocket;
use crate::net::dial::Dialer;
use crate::net::listen_at::Listening;
use crate::net::stream::Detached;

/// Most connections that wait for a relay without a place for them, as in the backlog of its listener.
const WAITING_MAX: usize = 1024;

/// Most addresses that are remembered of one server.
const ADDRESSES_MAX: usize = 64;

/// How long an address of a server is remembered that its name does not lead to any more: clients keep what they
/// resolved. Longer, and it may be somebody else's by then.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// How long a name is not looked up again for a connection to an address that it led to.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where a relay gets the captured connections to one server from.
#[derive(Debug)]
pub struct Led(mpsc::Receiver<Detached>);

impl Led {
    /// Of a server that nobody is led to.
    #[must_use]
    pub fn none() -> Self {
        let (_, led) = mpsc::channel(1);
        Self(led)
    }

    /// The next one; `None` once there can be none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Detached> {
        self.0.recv().await
    }
}

/// The servers whose connections are handed over.
#[derive(Debug)]
pub struct Databases {
    dialer: Dialer,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    host: Box<str>,
    port: u16,
    known: Mutex<Known>,
    relay: mpsc::Sender<Detached>,
}

/// What was learnt of where a name leads.
#[derive(Debug, Default)]
struct Known {
    /// Addresses that it has had, and when last, the newest last: the client may have been told another than we are
    /// now.
    addresses: VecDeque<(IpAddr, Instant)>,
    /// When it was looked up last, and what it led to then.
    asked: Option<(Instant, Box<[IpAddr]>)>,
}

/// Whether an address is one that a name leads to now, as far as that is known without looking it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    There,
    /// A moment ago it led elsewhere.
    Elsewhere,
    Unknown,
}

impl Databases {
    /// None yet; `dialer` resolves as their relays do.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            servers: Vec::new(),
        }
    }

    /// Hands over what wants to go to `host` at `port` from now on, in place of who comes to `listener`; to a path,
    /// nobody does. Of two servers at one address, the first has it.
    #[must_use]
    pub fn lead_to(&mut self, listener: &Listening, host: &str, port: u16) -> Led {
        match listener {
            Listening::Tcp(_) if !host.starts_with('/') => {}
            // Who may come to a path, its permissions say: a captured connection would go around them.
            Listening::Tcp(_) | Listening::Unix(_) => return Led::none(),
        }
        self.lead(host, port)
    }

    fn lead(&mut self, host: &str, port: u16) -> Led {
        let (relay, led) = mpsc::channel(WAITING_MAX);
        self.servers.push(Server {
            host: host.into(),
            port,
            known: Mutex::default(),
            relay,
        });
        Led(led)
    }

    /// Gives `socket` to the relay of the server that it wanted to go to; gives it back where that is none of them.
    pub(super) async fn take(
        &self,
        socket: ClientSocket,
        metrics: &Metrics,
    ) -> Option<ClientSocket> {
        let Ok(wanted) = socket.wanted() else {
            return Some(socket);
        };
        let Some(server) = self.at(wanted, Instant::now()).await else {
            return Some(socket);
        };
        let Ok(socket) = socket.detach() else {
            // It ended before it began.
            return None;
        };
        match server.relay.try_send(socket) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics.limit_hit(LimitHit::Connections);
                tracing::info!(address = %wanted, "a captured connection is closed: {WAITING_MAX} wait for the relay of its database already");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                tracing::debug!(address = %wanted, "a captured connection is closed: its relay has ended");
            }
        }
        None
    }

    /// The server at `wanted`: the first whose name leads there now, else the first whose name did.
    async fn at(&self, wanted: SocketAddr, now: Instant) -> Option<&Server> {
        let ip = wanted.ip().to_canonical();
        let of_port = || {
            let all = self.servers.iter();
            all.filter(|server| server.port == wanted.port())
        };
        let mut elsewhere = Vec::new();
        for server in of_port() {
            let leads = match server.leads_to(ip, now) {
                Leads::Unknown => self.looked_up(server, ip, now).await,
                leads @ (Leads::There | Leads::Elsewhere) => leads,
            };
            match leads {
                Leads::There => return Some(server),
                Leads::Elsewhere => elsewhere.push(server),
                Leads::Unknown => {}
            }
        }
        // The client may have been told since.
        for server in elsewhere {
            if !server.asked_at(now) && self.looked_up(server, ip, now).await == Leads::There {
                return Some(server);
            }
        }
        of_port().find(|server| server.was_at(ip, now))
    }

    async fn looked_up(&self, server: &Server, ip: IpAddr, now: Instant) -> Leads {
        match self.dialer.resolve(&server.host, server.port).await {
            Ok(found) => {
                let found = found.addresses().iter();
                let found: Vec<_> = found.map(|at| at.ip().to_canonical()).collect();
                server.learn(&found, now);
                server.leads_to(ip, now)
            }
            Err(error) => {
                tracing::info!(host = %server.host, "a captured connection may be for a database whose address is not known: {error}");
                Leads::Unknown
            }
        }
    }
}

impl Server {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leads_to(&self, ip: IpAddr, now: Instant) -> Leads {
        match &self.known().asked {
            Some((asked, _)) if now.saturating_duration_since(*asked) >= ASKED_AGAIN_AFTER => {
                Leads::Unknown
            }
            Some((_, its)) if its.contains(&ip) => Leads::There,
            Some(_) => Leads::Elsewhere,
            None => Leads::Unknown,
        }
    }

    /// Whether it was looked up at `now`.
    fn asked_at(&self, now: Instant) -> bool {
        matches!(&self.known().asked, Some((asked, _)) if *asked == now)
    }

    fn was_at(&self, ip: IpAddr, now: Instant) -> bool {
        let known = self.known();
        let mut fresh = known
            .addresses
            .iter()
            .filter(|(_, last)| now.saturating_duration_since(*last) < REMEMBERED_FOR);
        fresh.any(|(known, _)| *known == ip)
    }

    fn learn(&self, found: &[IpAddr], now: Instant) {
        let mut known = self.known();
        known.asked = Some((now, found.into()));
        let addresses = &mut known.addresses;
        addresses.retain(|(known, _)| !found.contains(known));
        addresses.extend(found.iter().map(|ip| (*ip, now)));
        while addresses.len() > ADDRESSES_MAX {
            addresses.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::Settings;
    use crate::net::listen_at::At;

    fn databases(names: &[&str]) -> Databases {
        let resolve = names.iter().map(|name| name.parse().unwrap());
        let settings = Settings {
            resolve: resolve.collect(),
            ..Settings::default()
        };
        Databases::new(Dialer::new(settings, Vec::new()))
    }

    #[tokio::test]
    async fn a_server_is_known_by_any_address_of_its_name_and_by_its_port() {
        let mut databases = databases(&[
            "one.test:5432=10.0.0.1",
            "one.test:5432=fd00::1",
            "two.test:5432=10.0.0.2",
        ]);
        let _one = databases.lead("one.test", 5432);
        let _two = databases.lead("two.test", 5432);
        let _again = databases.lead("10.0.0.1", 5432);
        let socket = Listening::bind(&At::Tcp("127.0.0.1:0".parse().unwrap()), 0).unwrap();
        let _path = databases.lead_to(&socket, "/run/postgresql", 5432);
        assert_eq!(databases.servers.len(), 3);
        for (wanted, server) in [
            ("10.0.0.1:5432", Some("one.test")),
            ("[::ffff:10.0.0.1]:5432", Some("one.test")),
            ("[fd00::1]:5432", Some("one.test")),
            ("10.0.0.2:5432", Some("two.test")),
            ("10.0.0.2:5433", None),
            ("10.0.0.3:5432", None),
        ] {
            let found = databases.at(wanted.parse().unwrap(), Instant::now()).await;
            assert_eq!(found.map(|found| &*found.host), server, "{wanted}");
        }
    }

    #[tokio::test]
    async fn an_address_that_a_server_had_is_its_own_for_a_while_unless_another_has_it() {
        let mut databases = databases(&["one.test:5432=10.0.0.1", "two.test:5432=10.0.0.2"]);
        let _one = databases.lead("one.test", 5432);
        let _two = databases.lead("two.test", 5432);
        let now = Instant::now();
        let moved = ["10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap());
        databases.servers[0].learn(&moved, now);
        // It is looked up again for what comes next.
        databases.servers[0].known().asked = None;
        let just = REMEMBERED_FOR - Duration::from_millis(1);
        for (wanted, later, server) in [
            ("10.0.0.2:5432", Duration::ZERO, Some("two.test")),
            ("10.0.0.3:5432", just, Some("one.test")),
            ("10.0.0.3:5432", REMEMBERED_FOR, None),
        ] {
            let found = databases.at(wanted.parse().unwrap(), now + later).await;
            let found = found.map(|found| &*found.host);
            assert_eq!(found, server, "{wanted} after {later:?}");
        }
    }

    #[tokio::test]
    async fn a_server_whose_listener_has_permissions_has_no_captured_connections() {
        let mut databases = databases(&["one.test:5432=10.0.0.1"]);
        let folder = tempfile::tempdir().unwrap();
        let path = At::Unix(folder.path().join("pg.sock"));
        let socket = Listening::bind(&path, 0o600).unwrap();
        let _led = databases.lead_to(&socket, "one.test", 5432);
        let wanted = "10.0.0.1:5432".parse().unwrap();
        assert!(databases.at(wanted, Instant::now()).await.is_none());
    }

    #[tokio::test]
    async fn a_name_is_not_looked_up_for_each_connection_but_for_each_that_it_is_not_known_to_lead_to()
     {
        let mut databases = databases(&["one.test:5432=10.0.0.1"]);
        let _one = databases.lead("one.test", 5432);
        let now = Instant::now();
        // Told a moment ago what no lookup would tell.
        databases.servers[0].learn(&["10.0.0.9".parse().unwrap()], now);
        let just = ASKED_AGAIN_AFTER - Duration::from_millis(1);
        let looked_up = |later: Duration| databases.servers[0].asked_at(now + later);
        let at = |wanted: &'static str, later: Duration| {
            let databases = &databases;
            async move {
                databases
                    .at(wanted.parse().unwrap(), now + later)
                    .await
                    .is_some()
            }
        };
        assert!(at("10.0.0.9:5432", just).await && !looked_up(just));
        assert!(
            at("10.0.0.1:5432", just).await && looked_up(just),
            "told since"
        );
        let later = just + ASKED_AGAIN_AFTER;
        assert!(
            at("10.0.0.1:5432", later).await && looked_up(later),
            "too old"
        );
    }

    #[test]
    fn of_many_addresses_the_latest_are_remembered() {
        let mut databases = databases(&[]);
        let _led = databases.lead("one.test", 5432);
        let server = &databases.servers[0];
        let now = Instant::now();
        let at = |last: usize| IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()]);
        for last in 0..ADDRESSES_MAX {
            server.learn(&[at(last)], now);
        }
        // The oldest is seen again, and another is the oldest then.
        server.learn(&[at(0), at(ADDRESSES_MAX)], now);
        // As often as there are connections.
        for _ in 0..ADDRESSES_MAX {
            server.learn(&[at(0)], now);
        }
        let known: Vec<_> = (0..=ADDRESSES_MAX)
            .filter(|last| server.was_at(at(*last), now))
            .collect();
        assert_eq!(known.len(), ADDRESSES_MAX);
        assert!(known.contains(&0) && !known.contains(&1));
    }
}
