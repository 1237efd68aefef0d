//! The rules themselves. Whatever no rule names is refused.
//!
//! Their order is what they are worth: what must not be reached is refused before anything lets loopback, or
//! what was agreed earlier, pass.

use std::fmt;
use std::net::IpAddr;

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
    /// Where connections of everybody else lead instead.
    pub(super) port: u16,
    /// Where nobody else connects to.
    pub(super) operator_ports: &'r [u16],
    /// Who may be asked for names.
    pub(super) name_servers: &'r [IpAddr],
}

impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Earlier ones go in the same transaction: there is no moment without.
        f.write_str(&removal())?;
        writeln!(f, "table inet {TABLE} {{")?;
        self.redirected(f)?;
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
        writeln!(f, "\t\tmeta skuid {} return", self.user)?;
        writeln!(f, "\t\toifname \"lo\" return")?;
        for server in self.name_servers {
            writeln!(
                f,
                "\t\t{} daddr {server} tcp dport 53 return",
                family(*server)
            )?;
        }
        writeln!(f, "\t\tmeta l4proto tcp redirect to :{}", self.port)?;
        writeln!(f, "\t}}")
    }

    fn filtered(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        writeln!(f, "\tchain governed {{")?;
        writeln!(f, "\t\ttype filter hook output priority 0; policy drop;")?;
        writeln!(f, "\t\tmeta skuid {} accept", self.user)?;
        for operator in self.operator_ports {
            writeln!(
                f,
                "\t\toifname \"lo\" tcp dport {operator} reject with tcp reset"
            )?;
        }
        // QUIC is encrypted from its first packet on; clients fall back to TCP when they are told at once.
        writeln!(f, "\t\tudp dport 443 reject with icmpx port-unreachable")?;
        // After the redirection a packet still shows the device that it would have left by.
        writeln!(f, "\t\tct status dnat tcp dport {port} accept")?;
        // Nobody comes there by himself: whither he wanted is what the sidecar asks the kernel.
        writeln!(f, "\t\ttcp dport {port} reject with tcp reset")?;
        writeln!(f, "\t\tct state established,related accept")?;
        writeln!(f, "\t\toifname \"lo\" accept")?;
        for server in self.name_servers {
            writeln!(
                f,
                "\t\t{} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept",
                family(*server)
            )?;
        }
        // Without neighbours there is no IPv6 at all.
        writeln!(
            f,
            "\t\ticmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} accept"
        )?;
        writeln!(f, "\t\treject with icmpx admin-prohibited")?;
        writeln!(f, "\t}}")
    }
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed() -> String {
        let name_servers = ["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        let rules = Rules {
            user: USER,
            port: PORT,
            operator_ports: &[OPERATOR_PORT],
            name_servers: &name_servers,
        };
        rules.to_string()
    }

    #[test]
    fn what_is_refused_is_refused_before_anything_lets_it_pass() {
        let text = printed();
        let filter = text.split_once("chain governed").unwrap().1;
        let at = |rule: &str| {
            filter
                .find(rule)
                .unwrap_or_else(|| panic!("{rule}: {filter}"))
        };
        let own = at("meta skuid 1580 accept");
        let loopback = at("oifname \"lo\" accept");
        let earlier = at("ct state established,related accept");
        for refused in [
            "tcp dport 15810 reject",
            "udp dport 443 reject",
            "tcp dport 15802 reject",
        ] {
            assert!(own < at(refused), "{refused}");
            assert!(at(refused) < loopback.min(earlier), "{refused}");
        }
        assert!(at("ct status dnat tcp dport 15802 accept") < at("tcp dport 15802 reject"));
    }

    #[test]
    fn one_user_is_exempt_and_no_other() {
        let text = printed();
        let exempt: Vec<_> = text.lines().filter(|line| line.contains("skuid")).collect();
        assert_eq!(
            exempt,
            ["\t\tmeta skuid 1580 return", "\t\tmeta skuid 1580 accept"]
        );
    }

    #[test]
    fn what_no_rule_names_is_refused() {
        let text = printed();
        assert!(
            text.contains("hook output priority 0; policy drop;"),
            "{text}"
        );
        let last = text.lines().rev().nth(2).unwrap();
        assert_eq!(last, "\t\treject with icmpx admin-prohibited");
    }

    #[test]
    fn name_servers_of_both_families_may_be_asked_and_nobody_else() {
        let text = printed();
        let asked: Vec<_> = text
            .lines()
            .filter(|line| line.contains("dport 53"))
            .collect();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert!(asked.iter().all(|line| line.contains("daddr 10.96.0.10")
            || line.contains("ip6 daddr fd00::a")));
    }
}
