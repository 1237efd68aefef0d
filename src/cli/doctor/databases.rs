//! Variables that lead to databases past the relays.

use std::ffi::OsString;

use crate::app::child_leads::{self, Led};

use super::super::operator_client::shown;
use super::finding::{Finding, Report, Weight};
use super::sidecar::Sidecar;

pub(super) fn look(sidecar: &Sidecar, parent: &[(OsString, OsString)], report: &mut Report) {
    for led in child_leads::all(parent) {
        if !is_a_relay(sidecar, &led) {
            report.add_way_past(finding(sidecar, &led));
        }
    }
}

fn is_a_relay(sidecar: &Sidecar, led: &Led) -> bool {
    sidecar.told.relays.iter().any(|relay| {
        relay.system == led.system.as_str() && sidecar.is_reached(&led.host, led.port, relay.listen)
    })
}

fn finding(sidecar: &Sidecar, led: &Led) -> Finding {
    let Led {
        name, system, port, ..
    } = led;
    let (host, flag, scheme) = (shown(&led.host), system.flag(), system.as_str());
    let mut relays = sidecar.told.relays.iter();
    let set = match relays.find(|relay| relay.system == system.as_str()) {
        Some(relay) => format!(
            "if {} is the relay for it, let {name} name that; else give the sidecar {flag} {scheme}://{host}:{port} too",
            relay.listen
        ),
        None => format!(
            "start the sidecar with {flag} {scheme}://{host}:{port}; `run` and `env` then let {name} name its relay"
        ),
    };
    Finding {
        weight: Weight::Finding,
        code: "database_past",
        what: format!("{name} leads to {host}:{port}, which is no relay of this sidecar"),
        why: "what is asked there is not judged and not recorded".to_owned(),
        set: vec![set],
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Names;
    use super::*;
    use crate::protocols::http::canary::{Relay, Told};

    #[test]
    fn only_a_relay_of_the_same_kind_at_the_same_place_is_one() {
        let relay = |system: &str, listen: &str| Relay {
            system: system.to_owned(),
            listen: listen.parse().unwrap(),
        };
        let sidecar = Sidecar {
            proxy: "127.0.0.1:1".parse().unwrap(),
            told: Told {
                relays: vec![
                    relay("postgres", "127.0.0.1:7001"),
                    relay("redis", "0.0.0.0:7002"),
                ],
                ..Told::default()
            },
            names: Names::default(),
        };
        for (url, expected) in [
            ("postgres://u:p@127.0.0.1:7001/x", true),
            ("postgres://localhost:7001/x", true),
            ("redis://localhost:7002", true),
            ("mysql://localhost:7001/x", false),
            ("postgres://db.invalid:7001/x", false),
            ("postgres://localhost/x", false),
        ] {
            let led = child_leads::all(&[("DATABASE_URL".into(), url.into())]);
            assert_eq!(is_a_relay(&sidecar, &led[0]), expected, "{url}");
        }
    }
}
