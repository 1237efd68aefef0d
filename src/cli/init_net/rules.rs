//! The rules themselves. Whatever no rule names is refused.
//!
//! Their order is what they are worth: what must not be reached is refused before anything lets loopback, or
//! what was agreed earlier, pass.

use std::fmt;
use std::net::IpAddr;

use super::device::Device;
use super::tproxy;
use super::users::Users;

/// The user that the sidecar's image runs as.
pub(super) const USER: u32 = 1580;
/// Where the sidecar takes captured connections, unless somebody says otherwise.
pub(super) const PORT: u16 = 15_802;
/// Where its operator API listens, unless somebody says otherwise.
pub(super) const OPERATOR_PORT: u16 = 15_810;
/// The table, of both families of addresses.
pub(in crate::cli) const TABLE: &str = "openbox_sidecar";

/// What the rules are about; displayed as `nft` reads them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'r> {
    /// The only user whose packets leave as they are.
    pub(super) user: u32,
    /// Whom the rules are for, without overlaps; empty: everybody else.
    pub(super) captured: &'r [Users],
    /// Where connections of these lead instead.
    pub(super) port: u16,
    /// Where nobody else connects to.
    pub(super) operator_ports: &'r [u16],
    /// Who may be asked for names.
    pub(super) name_servers: &'r [IpAddr],
    /// How they are led.
    pub(super) way: Way<'r>,
}

/// How a connection is led to the sidecar.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'r> {
    /// It gets another destination.
    Redirect,
    /// It is delivered here under its own destination, and so may be what these devices bring to be routed on.
    Tproxy(&'r [Device]),
}

impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Earlier ones go in the same transaction: there is no moment without.
        f.write_str(&removal())?;
        writeln!(f, "table inet {TABLE} {{")?;
        match self.way {
            Way::Redirect => self.redirected(f)?,
            Way::Tproxy(from) => tproxy::led(self, from, f)?,
        }
        self.confined(f)?;
        self.filtered(f)?;
        writeln!(f, "}}")
    }
}

/// Takes the rules out, were they there or not.
pub(super) fn removal() -> String {
    format!("table inet {TABLE} {{}}\ndelete table inet {TABLE}\n")
}

impl Rules<'_> {
    fn redirected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain captured {{")?;
        writeln!(f, "\t\ttype nat hook output priority -100; policy accept;")?;
        self.exempt(f)?;
        let whose = self.whose();
        let port = self.port;
        writeln!(f, "\t\t{whose}meta l4proto tcp redirect to :{port}")?;
        writeln!(f, "\t}}")
    }

    /// What of this machine's own traffic is not led anywhere.
    pub(super) fn exempt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t\tmeta skuid {} return", self.user)?;
        writeln!(f, "\t\toifname \"lo\" return")?;
        for server in self.name_servers {
            let family = family(*server);
            writeln!(f, "\t\t{family} daddr {server} tcp dport 53 return")?;
        }
        Ok(())
    }

    /// What a packet of theirs is known by; nothing where everybody is meant. What has no user, as the kernel sent
    /// it, is nobody's.
    pub(super) fn whose(&self) -> String {
        if self.captured.is_empty() {
            return String::new();
        }
        let users: Vec<_> = self.captured.iter().map(Users::to_string).collect();
        format!("meta skuid {{ {} }} ", users.join(", "))
    }

    /// What leaves this machine: whom the rules are not for is left alone before anything is refused.
    fn filtered(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let otherwise = match self.captured.is_empty() {
            true => "drop",
            false => "accept",
        };
        writeln!(f, "\tchain governed {{")?;
        writeln!(
            f,
            "\t\ttype filter hook output priority 0; policy {otherwise};"
        )?;
        writeln!(f, "\t\tmeta skuid {} accept", self.user)?;
        writeln!(f, "\t\t{}goto confined", self.whose())?;
        writeln!(f, "\t}}")
    }

    fn confined(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        writeln!(f, "\tchain confined {{")?;
        for operator in self.operator_ports {
            writeln!(
                f,
                "\t\toifname \"lo\" tcp dport {operator} reject with tcp reset"
            )?;
        }
        // QUIC is encrypted from its first packet on; clients fall back to TCP when they are told at once.
        writeln!(f, "\t\tudp dport 443 reject with icmpx port-unreachable")?;
        match self.way {
            // After the redirection a packet still shows the device that it would have left by.
            Way::Redirect => writeln!(f, "\t\tct status dnat tcp dport {port} accept")?,
            Way::Tproxy(_) => writeln!(f, "\t\t{}", tproxy::OURS)?,
        }
        // Nobody comes there by himself: whither he wanted is what the sidecar asks the kernel.
        writeln!(f, "\t\ttcp dport {port} reject with tcp reset")?;
        writeln!(f, "\t\tct state established,related accept")?;
        writeln!(f, "\t\toifname \"lo\" accept")?;
        self.names_asked(f)?;
        // Without neighbours there is no IPv6 at all.
        writeln!(
            f,
            "\t\ticmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept"
        )?;
        writeln!(f, "\t\treject with icmpx admin-prohibited")?;
        writeln!(f, "\t}}")
    }

    /// Whoever is asked for names is reached.
    pub(super) fn names_asked(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in self.name_servers {
            let family = family(*server);
            writeln!(
                f,
                "\t\t{family} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept"
            )?;
        }
        Ok(())
    }
}

/// The word of `nft` for the addresses of a family.
pub(super) fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(way: Way<'_>, captured: &[Users]) -> String {
        let name_servers = ["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        let rules = Rules {
            user: USER,
            captured,
            port: PORT,
            operator_ports: &[OPERATOR_PORT],
            name_servers: &name_servers,
            way,
        };
        rules.to_string()
    }

    fn chain<'t>(text: &'t str, name: &str) -> &'t str {
        let begin = format!("\tchain {name} {{");
        let (_, rest) = text
            .split_once(&begin)
            .unwrap_or_else(|| panic!("{name}: {text}"));
        rest.split_once("\n\t}").unwrap().0
    }

    #[test]
    fn what_is_refused_is_refused_before_anything_lets_it_pass() {
        for (way, led) in [
            (Way::Redirect, "ct status dnat tcp dport 15802 accept"),
            (Way::Tproxy(&[]), tproxy::OURS),
        ] {
            let text = printed(way, &[]);
            let filter = chain(&text, "confined");
            let at = |rule: &str| {
                let found = filter.find(rule);
                found.unwrap_or_else(|| panic!("{rule}: {filter}"))
            };
            let loopback = at("oifname \"lo\" accept");
            let earlier = at("ct state established,related accept");
            for refused in [
                "tcp dport 15810 reject",
                "udp dport 443 reject",
                "tcp dport 15802 reject",
            ] {
                assert!(at(refused) < loopback.min(earlier), "{refused}");
            }
            assert!(at(led) < at("tcp dport 15802 reject"));
            assert!(at("tcp dport 15810 reject") < at(led));
        }
    }

    #[test]
    fn one_user_is_exempt_and_no_other() {
        for way in [Way::Redirect, Way::Tproxy(&[])] {
            let text = printed(way, &[]);
            let exempt: Vec<_> = text.lines().filter(|line| line.contains("skuid")).collect();
            assert_eq!(
                exempt,
                ["\t\tmeta skuid 1580 return", "\t\tmeta skuid 1580 accept"]
            );
        }
    }

    #[test]
    fn what_no_rule_names_is_refused() {
        let text = printed(Way::Redirect, &[]);
        assert!(
            text.contains("hook output priority 0; policy drop;"),
            "{text}"
        );
        let last = chain(&text, "confined").lines().last().unwrap();
        assert_eq!(last, "\t\treject with icmpx admin-prohibited");
        let last = chain(&text, "governed").lines().last().unwrap();
        assert_eq!(last, "\t\tgoto confined");
    }

    #[test]
    fn where_users_are_named_everybody_else_is_left_alone() {
        let users = ["1000-1999", "4711"].map(|text| text.parse().unwrap());
        for way in [Way::Redirect, Way::Tproxy(&[])] {
            let text = printed(way, &users);
            let whose = "\t\tmeta skuid { 1000-1999, 4711 } ";
            let governed = chain(&text, "governed");
            assert!(governed.contains("priority 0; policy accept;"), "{text}");
            assert!(
                governed.ends_with(&format!("{whose}goto confined")),
                "{text}"
            );
            // Nothing is led that is not said to be theirs, and not the sidecar's own either.
            let captured = chain(&text, "captured");
            let own = captured.find("meta skuid 1580 return").unwrap();
            assert!(own < captured.find(whose).unwrap(), "{text}");
        }
    }

    #[test]
    fn name_servers_of_both_families_may_be_asked_and_nobody_else() {
        let text = printed(Way::Redirect, &[]);
        let asked: Vec<_> = text
            .lines()
            .filter(|line| line.contains("dport 53"))
            .collect();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert!(asked.iter().all(|line| line.contains("daddr 10.96.0.10")
            || line.contains("ip6 daddr fd00::a")));
    }
}
