//! The rules of TPROXY: a connection is delivered to the sidecar under the addresses that it was made with.
//!
//! The kernel does so for what arrives, so what leaves this machine is sent around by loopback first: it is marked,
//! and a routing rule takes what is marked back in (`routing.rs`). A connection is led if its first packet was, which
//! the kernel's table of connections remembers.
//!
//! What was open before the rules goes on as it is if it was in that table. Where nothing had the kernel keep one, its
//! next packet begins a connection, is led like any other, and reset by the sidecar's side, which knows of none. To let
//! pass what begins without SYN would spare it that, and open a way around the sidecar: the kernel forgets a connection
//! that its other end has closed after a minute, and what a program says on it then would leave as it is.

use std::fmt;

use super::device::Device;
use super::rules::{Rules, family};

/// The mark of what is led here, of packets and of connections.
pub(super) const MARK: u32 = 0x15802;

/// What is on its way here may leave: the next chain sees that it goes nowhere else.
pub(super) const OURS: &str = "meta mark 0x15802 meta l4proto tcp accept";

/// Writes the chains that lead what is captured, and what `from` brings to be routed on.
pub(super) fn led(rules: &Rules<'_>, from: &[Device], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    sent_around(rules, f)?;
    kept_here(f)?;
    delivered(rules.port, f)?;
    if !from.is_empty() {
        routed(rules, f)?;
        passing(rules, from, f)?;
    }
    arriving(from, f)
}

fn sent_around(rules: &Rules<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whose = rules.whose();
    writeln!(f, "\tchain captured {{")?;
    writeln!(
        f,
        "\t\ttype route hook output priority -150; policy accept;"
    )?;
    rules.exempt(f)?;
    // Answers to who came from outside.
    writeln!(f, "\t\tct direction reply return")?;
    writeln!(
        f,
        "\t\t{whose}meta l4proto tcp ct state new ct mark set {MARK:#x}"
    )?;
    writeln!(
        f,
        "\t\tmeta l4proto tcp ct mark {MARK:#x} meta mark set {MARK:#x}"
    )?;
    writeln!(f, "\t}}")
}

/// Without the routing rule, what is marked would leave as if it were let pass.
fn kept_here(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\tchain leaving {{")?;
    writeln!(
        f,
        "\t\ttype filter hook postrouting priority -150; policy accept;"
    )?;
    writeln!(f, "\t\tmeta mark {MARK:#x} oifname != \"lo\" drop")?;
    writeln!(f, "\t}}")
}

fn delivered(port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\tchain delivered {{")?;
    for (family, word, here) in [("ipv4", "ip", "127.0.0.1"), ("ipv6", "ip6", "[::1]")] {
        writeln!(
            f,
            "\t\tmeta nfproto {family} meta l4proto tcp tproxy {word} to {here}:{port} meta mark set {MARK:#x} accept"
        )?;
    }
    // Nobody listens there.
    writeln!(f, "\t\tmeta l4proto tcp reject with tcp reset")?;
    writeln!(f, "\t\tdrop")?;
    writeln!(f, "\t}}")
}

/// What other machines send through this one.
fn routed(rules: &Rules<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let closed = rules.operator_ports.iter().chain([&rules.port]);
    let closed: Vec<_> = closed.map(u16::to_string).collect();
    let closed = closed.join(", ");
    writeln!(f, "\tchain routed {{")?;
    for here in ["fib daddr type local", "ip6 daddr fe80::/10"] {
        writeln!(
            f,
            "\t\t{here} tcp dport {{ {closed} }} reject with tcp reset"
        )?;
    }
    // It is for this machine, or for neighbours: nothing of it is routed on.
    writeln!(f, "\t\tip6 daddr fe80::/10 accept")?;
    writeln!(
        f,
        "\t\tfib daddr type {{ local, broadcast, multicast, anycast }} accept"
    )?;
    writeln!(f, "\t\tct direction reply accept")?;
    rules.names_asked(f)?;
    writeln!(f, "\t\tmeta l4proto tcp goto delivered")?;
    writeln!(f, "\t\tudp dport 443 reject with icmpx port-unreachable")?;
    writeln!(f, "\t\treject with icmpx admin-prohibited")?;
    writeln!(f, "\t}}")
}

/// What was for this machine when it arrived, and is routed on nevertheless: the rules of others have changed its
/// destination since (published ports, NodePorts). A name server is known by the address that was asked for.
fn passing(rules: &Rules<'_>, from: &[Device], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\tchain passing {{")?;
    writeln!(f, "\t\ttype filter hook forward priority 0; policy accept;")?;
    writeln!(f, "\t\tiifname != {} accept", set(from))?;
    writeln!(f, "\t\tct direction reply accept")?;
    for server in rules.name_servers {
        let family = family(*server);
        writeln!(
            f,
            "\t\tct original {family} daddr {server} meta l4proto {{ tcp, udp }} ct original proto-dst 53 accept"
        )?;
    }
    writeln!(f, "\t\tmeta l4proto tcp reject with tcp reset")?;
    writeln!(f, "\t\treject with icmpx admin-prohibited")?;
    writeln!(f, "\t}}")
}

fn arriving(from: &[Device], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\tchain arriving {{")?;
    writeln!(
        f,
        "\t\ttype filter hook prerouting priority -150; policy accept;"
    )?;
    // Of connections that the sidecar has: those it took, and those it made from a client's address.
    writeln!(
        f,
        "\t\tmeta l4proto tcp socket transparent 1 meta mark set {MARK:#x} accept"
    )?;
    writeln!(
        f,
        "\t\tiifname \"lo\" meta mark {MARK:#x} meta l4proto tcp goto delivered"
    )?;
    if !from.is_empty() {
        writeln!(f, "\t\tiifname {} goto routed", set(from))?;
    }
    writeln!(f, "\t}}")
}

fn set(devices: &[Device]) -> String {
    let devices: Vec<_> = devices.iter().map(Device::to_string).collect();
    format!("{{ {} }}", devices.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::rules::{OPERATOR_PORT, PORT, USER, Way};
    use super::*;

    fn printed(from: &[&str]) -> String {
        let from: Vec<Device> = from.iter().map(|name| name.parse().unwrap()).collect();
        let name_servers = ["10.96.0.10".parse().unwrap()];
        let rules = Rules {
            user: USER,
            captured: &[],
            port: PORT,
            operator_ports: &[OPERATOR_PORT],
            name_servers: &name_servers,
            way: Way::Tproxy(&from),
        };
        rules.to_string()
    }

    #[test]
    fn the_mark_is_one_wherever_it_stands() {
        assert!(OURS.contains(&format!("{MARK:#x}")));
        let text = printed(&["br0"]);
        for line in text.lines().filter(|line| line.contains("mark")) {
            assert!(
                line.contains("mark 0x15802") || line.contains("mark set 0x15802"),
                "{line}"
            );
        }
    }

    #[test]
    fn nothing_that_is_routed_on_is_let_pass_but_questions_for_names() {
        let text = printed(&["br0", "br1"]);
        assert!(
            text.contains("iifname { \"br0\", \"br1\" } goto routed"),
            "{text}"
        );
        let routed = text.split_once("chain routed {").unwrap().1;
        let routed = routed.split_once("\n\t}").unwrap().0;
        let at = |rule: &str| {
            routed
                .find(rule)
                .unwrap_or_else(|| panic!("{rule}: {routed}"))
        };
        assert!(at("dport { 15810, 15802 } reject") < at("fib daddr type { local"));
        assert!(at("th dport 53 accept") < at("goto delivered"));
        assert!(routed.ends_with("reject with icmpx admin-prohibited"));
    }

    #[test]
    fn what_others_lead_on_is_refused_but_answers_and_questions_for_names() {
        let text = printed(&["br0", "br1"]);
        let passing = text.split_once("chain passing {").unwrap().1;
        let passing: Vec<_> = passing.split_once("\n\t}").unwrap().0.lines().collect();
        assert_eq!(
            passing,
            [
                "",
                "\t\ttype filter hook forward priority 0; policy accept;",
                "\t\tiifname != { \"br0\", \"br1\" } accept",
                "\t\tct direction reply accept",
                "\t\tct original ip daddr 10.96.0.10 meta l4proto { tcp, udp } ct original proto-dst 53 accept",
                "\t\tmeta l4proto tcp reject with tcp reset",
                "\t\treject with icmpx admin-prohibited",
            ]
        );
    }

    #[test]
    fn without_a_device_nothing_is_said_of_what_is_routed() {
        let text = printed(&[]);
        assert!(!text.contains("routed"), "{text}");
        assert!(!text.contains("hook forward"), "{text}");
    }

    #[test]
    fn where_nobody_takes_it_it_ends_here() {
        let text = printed(&[]);
        let delivered = text.split_once("chain delivered {").unwrap().1;
        assert!(
            delivered
                .split_once("\n\t}")
                .unwrap()
                .0
                .ends_with("reset\n\t\tdrop")
        );
        assert!(text.contains("meta mark 0x15802 oifname != \"lo\" drop"));
    }
}
