//! Sockets that stand for addresses which are not this machine's (`IP_TRANSPARENT`): listeners that TPROXY delivers to,
//! and connections that are made from their client's address.

use std::io;
use std::net::IpAddr;

use socket2::SockRef;

/// Lets `socket` have any address of the family that `address` is of.
///
/// # Errors
///
/// Where the process may not: it takes `CAP_NET_ADMIN` or `CAP_NET_RAW`.
#[cfg(target_os = "linux")]
pub(super) fn allow(socket: &SockRef<'_>, address: IpAddr) -> io::Result<()> {
    let allowed = match address {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    allowed.map_err(|error| {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return error;
        }
        io::Error::other(format!(
            "an address of another machine takes CAP_NET_ADMIN or CAP_NET_RAW, which this process does not have ({error})"
        ))
    })
}

/// Lets `socket` have any address: no other system does.
#[cfg(not(target_os = "linux"))]
pub(super) fn allow(_socket: &SockRef<'_>, _address: IpAddr) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "only Linux has TPROXY",
    ))
}

/// Whether `socket` may have any address, as it or its listener was let.
#[cfg(target_os = "linux")]
pub(super) fn is_allowed(socket: &SockRef<'_>, address: IpAddr) -> io::Result<bool> {
    match address {
        IpAddr::V4(_) => socket.ip_transparent_v4(),
        IpAddr::V6(_) => socket.ip_transparent_v6(),
    }
}
