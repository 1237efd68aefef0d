//! A proxy of the network that this process was told of, and that the sidecar does not go through.

use std::net::IpAddr;

use crate::config::{Config, Listener, Source};

use super::doctor::{parts_of, without_login};

/// What most programs read, in the order in which they are told of.
const VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What is to be said of variables that name a proxy, where the sidecar has none and it is not the sidecar itself;
/// `None`: nothing. Of several one is told.
pub(super) fn complaint(config: &Config, env: &Source) -> Option<String> {
    if config.upstream.dial.chain.is_some() {
        return None;
    }
    let named = VARIABLES.iter().find_map(|name| {
        let proxy = env.get(name)?;
        (!is_ours(proxy, &config.listen.http)).then_some((name, proxy))
    });
    named.map(|(name, proxy)| {
        format!(
            "{name} names the proxy {}, which the sidecar does not go through: it connects directly; if that is the only way out, set OPENBOX_UPSTREAM_PROXY (upstream.proxy) to it, with its login in OPENBOX_UPSTREAM_PROXY_LOGIN_FILE",
            without_login(proxy)
        )
    })
}

/// Whether `proxy` is what this sidecar will listen at. Names are not looked up for that.
fn is_ours(proxy: &str, listener: &Listener) -> bool {
    let Listener::At(ours) = listener else {
        return false;
    };
    let Some((host, port)) = parts_of(proxy) else {
        return false;
    };
    let is_here = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip == ours.ip() || ip.is_loopback());
    is_here && port == ours.port()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, For, check};

    fn said(variables: &[(&str, &str)]) -> Option<String> {
        let home = [("HOME", "/home/someone")];
        let env = Source::new(home.iter().chain(variables).copied(), "the-host");
        let config = check(&Flags::default(), &env, For::Serve).unwrap();
        complaint(&config, &env)
    }

    #[test]
    fn a_proxy_of_the_network_is_told_of_without_its_login() {
        let corp = "http://me:secret@proxy.corp:3128/";
        for name in VARIABLES {
            let told = said(&[(name, corp)]).unwrap();
            let begins = format!("{name} names the proxy http://proxy.corp:3128, ");
            assert!(told.starts_with(&begins), "{told}");
            assert!(told.contains("OPENBOX_UPSTREAM_PROXY (upstream.proxy)"));
            assert!(!told.contains("secret") && !told.contains("me:"), "{told}");
        }
    }

    #[test]
    fn our_own_address_and_a_proxy_that_is_gone_through_are_no_matter() {
        let corp = ("HTTPS_PROXY", "http://proxy.corp:3128");
        #[rustfmt::skip]
        let table: [(&[(&str, &str)], bool); 7] = [
            // variables                                                        told
            (&[],                                                               false),
            (&[corp],                                                           true),
            (&[corp, ("OPENBOX_UPSTREAM_PROXY", "http://proxy.corp:3128")],     false),
            (&[("http_proxy", "http://127.0.0.1:15801")],                       false),
            (&[("http_proxy", "http://a:b@localhost:15801/")],                  false),
            (&[("http_proxy", "http://127.0.0.1:3128")],                        true),
            (&[("http_proxy", "http://127.0.0.1:15801"), ("ALL_PROXY", "p:1")], true),
        ];
        for (variables, told) in table {
            assert_eq!(said(variables).is_some(), told, "{variables:?}");
        }
    }
}
