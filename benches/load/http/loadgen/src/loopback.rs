//! An address that is certainly on this machine.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// `127.x.y.z:port` or `[::1]:port`; nothing else parses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loopback(pub(crate) SocketAddr);

impl FromStr for Loopback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("\"{text}\" is not address:port"))?;
        if address.ip().is_loopback() {
            Ok(Self(address))
        } else {
            Err(format!(
                "\"{text}\" is not a loopback address, and nothing else is ever loaded"
            ))
        }
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
