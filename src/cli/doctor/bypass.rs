//! Hosts that programs are told not to ask for through their proxy.

use std::ffi::OsString;
use std::net::IpAddr;

use crate::app::child_env::{BYPASS, BYPASSED, value_of};

use super::super::operator_client::shown;
use super::finding::{Finding, Report, Weight};

/// Last labels of names that are nobody's in public.
const PRIVATE: [&str; 13] = [
    "cluster",
    "corp",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "private",
    "svc",
    "test",
];

/// How much an entry lets past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// This machine.
    Here,
    /// A name or network that is not public.
    Private,
    /// A public name or network.
    Public,
    /// All there is.
    Everything,
}

impl Reach {
    fn of(entry: &str) -> Self {
        if entry == "*" {
            return Self::Everything;
        }
        if BYPASSED.iter().any(|here| here.eq_ignore_ascii_case(entry)) {
            return Self::Here;
        }
        let (bare, bits) = match entry.split_once('/') {
            Some((bare, bits)) => (bare, bits.parse::<u8>().ok()),
            None => (entry, None),
        };
        let bare = bare.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse() {
            return Self::of_address(ip, bits);
        }
        let name = bare.trim_start_matches('*').trim_start_matches('.');
        // A port may stand behind it.
        let name = name.split(':').next().unwrap_or(name);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let (rest, last) = name.rsplit_once('.').unwrap_or(("", &name));
        let is_plain = rest.is_empty() && !entry.starts_with(['.', '*']);
        if PRIVATE.contains(&last) || (is_plain && !WIDE.contains(&last)) {
            Self::Private
        } else {
            Self::Public
        }
    }

    fn of_address(ip: IpAddr, bits: Option<u8>) -> Self {
        let private = match ip {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
        };
        match bits {
            Some(0) => Self::Everything,
            // No private network is larger.
            Some(bits) if bits < 7 => Self::Public,
            _ if ip.is_loopback() => Self::Here,
            _ if private => Self::Private,
            _ => Self::Public,
        }
    }
}

/// Bare names that most programs take for everything under them.
const WIDE: [&str; 8] = ["ai", "app", "cloud", "com", "dev", "io", "net", "org"];

pub(super) fn look(parent: &[(OsString, OsString)], report: &mut Report) {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for name in BYPASS {
        let list = value_of(parent, name).map(|list| list.to_string_lossy().into_owned());
        for entry in list.unwrap_or_default().split([',', ' ']) {
            let entry = entry.trim().to_owned();
            if entry.is_empty() || Reach::of(&entry) == Reach::Here {
                continue;
            }
            match told.iter_mut().find(|(known, _)| *known == entry) {
                Some((_, names)) => names.push(name),
                None => told.push((entry, vec![name])),
            }
        }
    }
    for (entry, names) in told {
        report.add_way_past(finding(&entry, &names));
    }
}

fn finding(entry: &str, names: &[&str]) -> Finding {
    let (entry_shown, names) = (shown(entry), names.join(", "));
    let (weight, code, why) = match Reach::of(entry) {
        Reach::Everything => (
            Weight::Finding,
            "bypass_everything",
            "programs that heed it ask for nothing through the sidecar",
        ),
        Reach::Public => (
            Weight::Finding,
            "bypass_public",
            "what programs ask of it goes past the sidecar",
        ),
        Reach::Private | Reach::Here => (
            Weight::Note,
            "bypass_private",
            "what programs ask of it goes past the sidecar, which may be meant",
        ),
    };
    Finding {
        weight,
        code,
        what: format!("{names}: {entry_shown}"),
        why: why.to_owned(),
        set: vec![format!("take {entry_shown} out of {names}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lets_past_what_it_names() {
        for (entry, expected) in [
            ("*", Reach::Everything),
            ("0.0.0.0/0", Reach::Everything),
            ("::/0", Reach::Everything),
            ("localhost", Reach::Here),
            ("127.0.0.0/8", Reach::Here),
            ("::1", Reach::Here),
            ("10.0.0.0/8", Reach::Private),
            ("192.168.1.7", Reach::Private),
            ("fd00::/8", Reach::Private),
            (".svc", Reach::Private),
            (".svc.cluster.local", Reach::Private),
            ("*.corp", Reach::Private),
            ("internal.test", Reach::Private),
            ("buildserver", Reach::Private),
            ("com", Reach::Public),
            (".com", Reach::Public),
            ("api.openai.com", Reach::Public),
            ("api.openai.com:443", Reach::Public),
            ("*.example.com", Reach::Public),
            ("8.8.8.8", Reach::Public),
            ("64.0.0.0/2", Reach::Public),
        ] {
            assert_eq!(Reach::of(entry), expected, "{entry}");
        }
    }
}
