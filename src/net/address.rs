//! Which addresses may be dialed at all, whatever policy says about the request.
//!
//! An address is judged by what it reaches, not by how it is written: an IPv6 form that carries an IPv4
//! address is judged by both. Private networks are open unless a setting says otherwise: they are where an
//! agent's services are.
//!
//! The rules stay the same while the sidecar runs, and a connection stays at the address that they permitted,
//! whatever its name means meanwhile: a pooled one needs no second look.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// Addresses at which clouds hand out credentials to whoever asks from inside.
const METADATA: [IpAddr; 9] = [
    v4(169, 254, 169, 254), // AWS, Azure, Google Cloud, and most others
    v4(169, 254, 170, 2),   // AWS ECS task credentials
    v4(169, 254, 170, 23),  // AWS EKS pod identity
    v4(100, 100, 100, 200), // Alibaba Cloud
    v4(168, 63, 129, 16),   // Azure wire server
    v4(192, 0, 0, 192),     // Oracle Cloud
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), // AWS
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]), // AWS EKS pod identity
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]), // Google Cloud
];

/// Names of the same services. They are refused before the resolver hears of them.
const METADATA_NAMES: [&str; 11] = [
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.ec2.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.oraclecloud.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(s: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7],
    ))
}

/// Why an address is not dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// 0.0.0.0/8 and ::, which reach this machine.
    Unspecified,
    /// A cloud's metadata service, by address or by name.
    Metadata,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 198.18.0.0/15, fc00::/7 and fec0::/10, where
    /// they are refused; see [`Private`].
    Private,
    /// A listener of this sidecar. No setting opens it.
    OwnListener,
}

impl Rule {
    /// The word that names the rule in metrics, logs and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Unspecified => "unspecified",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Private => "private",
            Self::OwnListener => "own_listener",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Unspecified => "an unspecified address",
            Self::Metadata => "a cloud metadata service",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Private => "an address of a private network",
            Self::OwnListener => "a listener of this sidecar",
        })
    }
}

/// Whether networks without addresses of their own on the internet are dialed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Private {
    /// They are.
    #[default]
    Open,
    /// Only where they are named.
    Refused,
}

/// The rules for addresses, with what the configuration opened.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    allow: Vec<IpNet>,
    own: Vec<SocketAddr>,
    private: Private,
}

impl AddressRules {
    /// Rules that also permit the networks in `allow`, but never the listeners in `own`.
    #[must_use]
    pub fn new(allow: Vec<IpNet>, private: Private, own: Vec<SocketAddr>) -> Self {
        Self {
            allow,
            own,
            private,
        }
    }

    /// Whether the address may be dialed.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn permits(&self, address: SocketAddr) -> Result<(), Rule> {
        if self.is_own(address) {
            return Err(Rule::OwnListener);
        }
        let ip = address.ip();
        let forms = std::iter::once(ip).chain(embedded(ip).into_iter().flatten().map(IpAddr::V4));
        for form in forms {
            if let Some(rule) = forbidden(form).or_else(|| self.private_rule(form))
                && !self.allows(ip)
                && !self.allows(form)
            {
                return Err(rule);
            }
        }
        Ok(())
    }

    /// Whether the name is one of a metadata service; asked before it is resolved. A network in `allow` that
    /// contains 169.254.169.254 opens the names too.
    #[must_use]
    pub fn refused_name(&self, host: &str) -> Option<Rule> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let named = METADATA_NAMES
            .iter()
            .any(|name| name.eq_ignore_ascii_case(host));
        (named && !self.allows(v4(169, 254, 169, 254))).then_some(Rule::Metadata)
    }

    fn private_rule(&self, ip: IpAddr) -> Option<Rule> {
        (self.private == Private::Refused && is_private(ip)).then_some(Rule::Private)
    }

    fn allows(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&ip))
    }

    /// Whether a connection to the address would arrive at one of our listeners.
    fn is_own(&self, address: SocketAddr) -> bool {
        let ports = self
            .own
            .iter()
            .filter(|own| own.port() == address.port())
            .map(|own| own.ip().to_canonical());
        let ip = address.ip().to_canonical();
        for own in ports {
            let reached = own == ip
                // 0.0.0.0 and :: are delivered to loopback.
                || (ip.is_unspecified() && own.is_loopback())
                || (own.is_unspecified() && is_of_this_machine(ip));
            if reached {
                return true;
            }
        }
        false
    }
}

/// Whether the address belongs to this machine: only such an address can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// The rule that forbids this form of an address, embedded ones not considered.
fn forbidden(ip: IpAddr) -> Option<Rule> {
    if METADATA.contains(&ip) {
        return Some(Rule::Metadata);
    }
    match ip {
        IpAddr::V4(ip) => forbidden_v4(ip),
        IpAddr::V6(ip) => forbidden_v6(ip),
    }
}

fn forbidden_v4(ip: Ipv4Addr) -> Option<Rule> {
    let [first, ..] = ip.octets();
    if first == 0 {
        Some(Rule::Unspecified)
    } else if ip.is_loopback() {
        Some(Rule::Loopback)
    } else if ip.is_link_local() {
        Some(Rule::LinkLocal)
    } else if ip.is_multicast() {
        Some(Rule::Multicast)
    } else if ip.is_broadcast() {
        Some(Rule::Broadcast)
    } else {
        None
    }
}

fn forbidden_v6(ip: Ipv6Addr) -> Option<Rule> {
    if ip.is_unspecified() {
        Some(Rule::Unspecified)
    } else if ip.is_loopback() {
        Some(Rule::Loopback)
    } else if ip.is_unicast_link_local() {
        Some(Rule::LinkLocal)
    } else if ip.is_multicast() {
        Some(Rule::Multicast)
    } else {
        None
    }
}

/// Whether the address is none of the internet's own: RFC 1918, RFC 6598, RFC 2544, RFC 4193, RFC 3879.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private()
                || (first == 100 && (64..128).contains(&second))
                || (first == 198 && (18..20).contains(&second))
        }
        IpAddr::V6(ip) => {
            let [first, ..] = ip.segments();
            first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0
        }
    }
}

/// The IPv4 addresses that an IPv6 address carries to a translator or tunnel, by its prefix.
fn embedded(ip: IpAddr) -> [Option<Ipv4Addr>; 4] {
    let IpAddr::V6(ip) = ip else {
        return [None; 4];
    };
    let [_, _, o2, o3, o4, o5, .., a, b, c, d] = ip.octets();
    let last = Ipv4Addr::new(a, b, c, d);
    let one = match ip.segments() {
        // Mapped, translated (RFC 2765), compatible (:: and ::1 are themselves), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(last),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(last),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        [0x64, 0xff9b, 1, ..] => return local_nat64(ip),
        // 6to4.
        [0x2002, ..] => Some(Ipv4Addr::new(o2, o3, o4, o5)),
        // Teredo: the client's address, inverted.
        [0x2001, 0, ..] => Some(Ipv4Addr::new(!a, !b, !c, !d)),
        // ISATAP, under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(last),
        _ => None,
    };
    [one, None, None, None]
}

/// The addresses that one of NAT64 for local use (RFC 8215) carries: an operator's prefix within these
/// 48 bits can be of 48, 56, 64 or 96 (RFC 6052 §2.2), and nothing in the address says of how many.
fn local_nat64(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let [.., o6, o7, _, o9, o10, o11, a, b, c, d] = ip.octets();
    let readings = [
        [o6, o7, o9, o10],
        [o7, o9, o10, o11],
        [o9, o10, o11, a],
        [a, b, c, d],
    ];
    if readings.iter().all(|[first, ..]| *first == 0) {
        return [Some(Ipv4Addr::UNSPECIFIED), None, None, None];
    }
    // One that begins with 0 is what another prefix, or the end of the address, left there.
    readings.map(|octets| (octets[0] != 0).then(|| Ipv4Addr::from(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 443)
    }

    fn rules(allow: &[&str]) -> AddressRules {
        let allow = allow.iter().map(|a| a.parse().unwrap()).collect();
        AddressRules::new(allow, Private::Open, vec![])
    }

    #[test]
    fn an_address_is_judged_by_what_it_reaches() {
        let rows = [
            // address                          refused as
            ("93.184.215.14", None),
            ("10.1.2.3", None),
            ("172.16.0.1", None),
            ("192.168.1.1", None),
            ("100.64.0.1", None),
            ("2606:2800:21f:cb07::1", None),
            ("fd12:3456::1", None),
            ("126.255.255.255", None),
            ("128.0.0.1", None),
            ("169.253.255.255", None),
            ("223.255.255.255", None),
            ("127.0.0.1", Some(Rule::Loopback)),
            ("127.255.255.254", Some(Rule::Loopback)),
            ("::1", Some(Rule::Loopback)),
            ("0.0.0.0", Some(Rule::Unspecified)),
            ("0.1.2.3", Some(Rule::Unspecified)),
            ("::", Some(Rule::Unspecified)),
            ("169.254.0.1", Some(Rule::LinkLocal)),
            ("fe80::1", Some(Rule::LinkLocal)),
            ("febf::1", Some(Rule::LinkLocal)),
            ("169.254.169.254", Some(Rule::Metadata)),
            ("169.254.170.2", Some(Rule::Metadata)),
            ("fd00:ec2::254", Some(Rule::Metadata)),
            ("fd20:ce::254", Some(Rule::Metadata)),
            ("100.100.100.200", Some(Rule::Metadata)),
            ("168.63.129.16", Some(Rule::Metadata)),
            ("192.0.0.192", Some(Rule::Metadata)),
            ("224.0.0.1", Some(Rule::Multicast)),
            ("239.255.255.250", Some(Rule::Multicast)),
            ("ff02::1", Some(Rule::Multicast)),
            ("255.255.255.255", Some(Rule::Broadcast)),
            // IPv4 inside IPv6
            ("::ffff:127.0.0.1", Some(Rule::Loopback)),
            ("::ffff:93.184.215.14", None),
            ("::ffff:169.254.169.254", Some(Rule::Metadata)),
            ("::ffff:0:127.0.0.1", Some(Rule::Loopback)),
            ("::127.0.0.1", Some(Rule::Loopback)),
            ("::169.254.169.254", Some(Rule::Metadata)),
            ("::2", Some(Rule::Unspecified)),
            ("64:ff9b::7f00:1", Some(Rule::Loopback)),
            ("64:ff9b::a9fe:a9fe", Some(Rule::Metadata)),
            ("64:ff9b::5db8:d70e", None),
            ("64:ff9b:1::7f00:1", Some(Rule::Loopback)),
            ("64:ff9b:1:a9fe:a9:fe00::", Some(Rule::Metadata)),
            ("64:ff9b:1:12a9:fe:a9fe::", Some(Rule::Metadata)),
            ("64:ff9b:1:1234:a9:fea9:fe00::", Some(Rule::Metadata)),
            ("64:ff9b:1:1234:7f:0:100::", Some(Rule::Loopback)),
            ("64:ff9b:1:1234::a9fe:a9fe", Some(Rule::Metadata)),
            ("64:ff9b:1::5db8:d70e", None),
            ("64:ff9b:1:5db8:d7:e00::", None),
            ("2002:7f00:1::", Some(Rule::Loopback)),
            ("2002:a9fe:a9fe::1", Some(Rule::Metadata)),
            ("2001:0:0:0:0:0:80ff:fffe", Some(Rule::Loopback)),
            ("fd12::5efe:127.0.0.1", Some(Rule::Loopback)),
        ];
        for (address, refused) in rows {
            assert_eq!(rules(&[]).permits(at(address)).err(), refused, "{address}");
        }
    }

    #[test]
    fn a_named_network_opens_exactly_itself() {
        let rows = [
            // allow               address               permitted
            ("127.0.0.0/8", "127.0.0.1", true),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("127.0.0.0/8", "::1", false),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("::1/128", "::1", true),
            ("::ffff:0:0/96", "::ffff:127.0.0.1", true),
            ("::ffff:0:0/96", "127.0.0.1", false),
            ("169.254.0.0/16", "169.254.169.254", true),
            ("10.0.0.0/8", "127.0.0.1", false),
            ("64:ff9b::/96", "64:ff9b::7f00:1", true),
        ];
        for (allow, address, permitted) in rows {
            let answer = rules(&[allow]).permits(at(address));
            assert_eq!(answer.is_ok(), permitted, "{address} under {allow}");
        }
    }

    #[test]
    fn private_networks_are_refused_where_that_is_said_and_they_are_not_named() {
        let allow = vec!["10.1.0.0/16".parse().unwrap()];
        let rules = AddressRules::new(allow, Private::Refused, vec![]);
        let rows = [
            // address                refused as
            ("10.0.0.1", Some(Rule::Private)),
            ("10.1.0.1", None),
            ("172.15.255.255", None),
            ("172.16.0.1", Some(Rule::Private)),
            ("172.31.255.255", Some(Rule::Private)),
            ("172.32.0.1", None),
            ("192.168.1.1", Some(Rule::Private)),
            ("100.63.255.255", None),
            ("100.64.0.1", Some(Rule::Private)),
            ("100.128.0.1", None),
            ("198.18.0.1", Some(Rule::Private)),
            ("198.20.0.1", None),
            ("fd12:3456::1", Some(Rule::Private)),
            ("fc00::1", Some(Rule::Private)),
            ("fec0::1", Some(Rule::Private)),
            ("fe00::1", None),
            ("2606:2800:21f:cb07::1", None),
            ("::ffff:192.168.1.1", Some(Rule::Private)),
            ("64:ff9b::a00:1", Some(Rule::Private)),
            ("2002:c0a8:101::", Some(Rule::Private)),
            ("127.0.0.1", Some(Rule::Loopback)),
            ("93.184.215.14", None),
        ];
        for (address, refused) in rows {
            assert_eq!(rules.permits(at(address)).err(), refused, "{address}");
        }
    }

    #[test]
    fn no_setting_opens_our_own_listeners() {
        let all = || vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let rows = [
            // ours               dialed                    refused
            ("127.0.0.1:15801", "127.0.0.1:15801", true),
            ("127.0.0.1:15801", "127.0.0.1:15802", false),
            ("127.0.0.1:15801", "[::ffff:127.0.0.1]:15801", true),
            ("127.0.0.1:15801", "0.0.0.0:15801", true),
            ("127.0.0.1:15801", "[::]:15801", true),
            ("127.0.0.1:15801", "93.184.215.14:15801", false),
            ("0.0.0.0:15801", "127.0.0.1:15801", true),
            ("0.0.0.0:15801", "192.0.2.7:15801", false),
            ("[::]:15801", "[::1]:15801", true),
        ];
        for (own, dialed, refused) in rows {
            let rules = AddressRules::new(all(), Private::Open, vec![own.parse().unwrap()]);
            let answer = rules.permits(dialed.parse().unwrap());
            let expected = refused.then_some(Rule::OwnListener);
            assert_eq!(answer.err(), expected, "{dialed} while listening on {own}");
        }
    }

    #[test]
    fn metadata_names_are_refused_however_they_are_written() {
        let rows = [
            // host                        refused
            ("metadata.google.internal", true),
            ("Metadata.Google.Internal.", true),
            ("metadata", true),
            ("instance-data", true),
            ("metadata.example.com", false),
            ("my-metadata", false),
            ("", false),
        ];
        for (host, refused) in rows {
            assert_eq!(rules(&[]).refused_name(host).is_some(), refused, "{host}");
        }
        assert_eq!(
            rules(&["169.254.169.254/32"]).refused_name("metadata"),
            None
        );
    }
}
