//! The addresses of names, each looked up once and within a bound.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longest that one name may take.
const WITHIN: Duration = Duration::from_secs(2);
/// Most names that are looked up; others have no address.
const NAMES_MAX: usize = 16;
/// Most addresses of one name.
const ADDRESSES_MAX: usize = 32;

/// What is known of names.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<String, Vec<IpAddr>>>);

impl Names {
    /// Every address of `host`, which may be one itself; none where it cannot be found in time.
    pub(super) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            return vec![ip.to_canonical()];
        }
        if host.eq_ignore_ascii_case("localhost") {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(host) {
            return found.clone();
        }
        if known.len() >= NAMES_MAX {
            return Vec::new();
        }
        let found = looked_up(host);
        known.insert(host.to_owned(), found.clone());
        found
    }
}

/// The system's resolver takes as long as it likes, so it is waited for and not called.
fn looked_up(name: &str) -> Vec<IpAddr> {
    let (tell, told) = mpsc::sync_channel(1);
    let asked = name.to_owned();
    let begun = thread::Builder::new()
        .name("lookup".to_owned())
        .spawn(move || {
            let found = (&*asked, 0).to_socket_addrs();
            let all = found.into_iter().flatten().take(ADDRESSES_MAX);
            let all: Vec<IpAddr> = all.map(|one| one.ip().to_canonical()).collect();
            // Who asked may have stopped waiting.
            tell.send(all).ok();
        });
    begun
        .ok()
        .and_then(|_thread| told.recv_timeout(WITHIN).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_is_looked_up() {
        let names = Names::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(names.addresses("192.0.2.7"), [ip("192.0.2.7")]);
        assert_eq!(names.addresses("[2001:db8::1]"), [ip("2001:db8::1")]);
        assert_eq!(names.addresses("LocalHost"), [ip("127.0.0.1"), ip("::1")]);
        assert!(looked_up("localhost").iter().all(IpAddr::is_loopback));
        assert!(!looked_up("localhost").is_empty());
    }

    #[test]
    fn no_more_names_are_looked_up_than_may_be() {
        let names = Names::default();
        let known = (0..NAMES_MAX).map(|at| (at.to_string(), Vec::new()));
        names.0.lock().unwrap().extend(known);
        assert!(names.addresses("name.invalid").is_empty());
        assert_eq!(names.0.lock().unwrap().len(), NAMES_MAX);
    }
}
