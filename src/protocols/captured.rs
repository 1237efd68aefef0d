//! Captured connections that wanted to go to a configured database: its relay serves them as what comes to its listener.
//!
//! Known by address, as a database of which nothing is read tells no name. The relay connects to the server that is
//! configured, whatever of its addresses the client had, so what is recognised wrongly gains nothing.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::{LimitHit, Metrics};
use crate::net::client_socket::ClientSocket;
use crate::net::dial::Dialer;
use crate::net::stream::Detached;

/// Most connections that wait for a relay without a place for them, as in the backlog of its listener.
const WAITING_MAX: usize = 1024;

/// Most addresses that are remembered of one server.
const ADDRESSES_MAX: usize = 64;

/// How long an address of a server is remembered that its name does not lead to any more: clients keep what they
/// resolved. Longer, and it may be somebody else's by then.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

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
    /// Addresses that its name has had, and when last, the newest last: the client may have been told another than
    /// we are now.
    addresses: Mutex<VecDeque<(IpAddr, Instant)>>,
    relay: mpsc::Sender<Detached>,
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

    /// Hands over what wants to go to `host` at `port` from now on; to a path, nobody does. Of two servers at one
    /// address, the first has it.
    #[must_use]
    pub fn lead_to(&mut self, host: &str, port: u16) -> Led {
        if host.starts_with('/') {
            return Led::none();
        }
        let (relay, led) = mpsc::channel(WAITING_MAX);
        self.servers.push(Server {
            host: host.into(),
            port,
            addresses: Mutex::default(),
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
        for server in of_port() {
            match self.dialer.resolve(&server.host, server.port).await {
                Ok(found) => {
                    let found = found.addresses().iter();
                    let found: Vec<_> = found.map(|at| at.ip().to_canonical()).collect();
                    server.learn(&found, now);
                    if found.contains(&ip) {
                        return Some(server);
                    }
                }
                Err(error) => {
                    tracing::info!(host = %server.host, "a captured connection may be for a database whose address is not known: {error}");
                }
            }
        }
        of_port().find(|server| server.was_at(ip, now))
    }
}

impl Server {
    fn was_at(&self, ip: IpAddr, now: Instant) -> bool {
        let known = self.addresses.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        let mut fresh = known
            .iter()
            .filter(|(_, last)| now.saturating_duration_since(*last) < REMEMBERED_FOR);
        fresh.any(|(known, _)| *known == ip)
    }

    fn learn(&self, found: &[IpAddr], now: Instant) {
        let known = self.addresses.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.retain(|(known, _)| !found.contains(known));
        known.extend(found.iter().map(|ip| (*ip, now)));
        while known.len() > ADDRESSES_MAX {
            known.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::Settings;

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
        let _one = databases.lead_to("one.test", 5432);
        let _two = databases.lead_to("two.test", 5432);
        let _again = databases.lead_to("10.0.0.1", 5432);
        let _path = databases.lead_to("/run/postgresql", 5432);
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
        let _one = databases.lead_to("one.test", 5432);
        let _two = databases.lead_to("two.test", 5432);
        let now = Instant::now();
        let moved = ["10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap());
        databases.servers[0].learn(&moved, now);
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

    #[test]
    fn of_many_addresses_the_latest_are_remembered() {
        let mut databases = databases(&[]);
        let _led = databases.lead_to("one.test", 5432);
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
