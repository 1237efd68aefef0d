//! Connections that the kernel led here instead of where they wanted, and what can be learnt of that.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::net::hello;
use crate::net::intercept::{AcceptError, HELLO_BYTES_MAX};
#[cfg(target_os = "linux")]
use crate::net::transparent;

/// Where the client of `socket` wanted to go. What TPROXY delivers has kept its destination; of what was redirected,
/// the kernel's table of connections has it.
#[cfg(target_os = "linux")]
pub(super) fn wanted(socket: socket2::SockRef<'_>) -> io::Result<SocketAddr> {
    let by_itself = || io::Error::new(io::ErrorKind::InvalidInput, "it came here by itself");
    let ours = socket.local_addr()?.as_socket().ok_or_else(by_itself)?;
    if transparent::is_allowed(&socket, ours.ip())? {
        // Loopback is where its listener is, and nothing that wants to go there is delivered by TPROXY.
        return match ours.ip().to_canonical().is_loopback() {
            true => Err(by_itself()),
            false => Ok(ours),
        };
    }
    let wanted = match ours.is_ipv6() {
        true => socket.original_dst_v6()?,
        false => socket.original_dst_v4()?,
    };
    match wanted.as_socket() {
        // Who comes by himself is in that table too.
        Some(wanted) if wanted != ours => Ok(wanted),
        Some(_) | None => Err(by_itself()),
    }
}

/// Where the client of `socket` wanted to go: no other system says so.
#[cfg(not(target_os = "linux"))]
pub(super) fn wanted(_socket: socket2::SockRef<'_>) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The host that a client names in its ClientHello, if it names one. `read` is what came of it before, and
/// afterwards all that was read.
///
/// # Errors
///
/// When it is no hello, longer than any, or breaks off.
pub async fn named_in_hello<S>(
    stream: &mut S,
    read: &mut BytesMut,
) -> Result<Option<Box<str>>, AcceptError>
where
    S: AsyncRead + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    loop {
        let mut fresh = read.get(seen..).unwrap_or_default();
        while !fresh.is_empty() {
            if acceptor.read_tls(&mut fresh).map_err(AcceptError::Io)? == 0 {
                break;
            }
        }
        seen = read.len();
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted.client_hello().server_name().map(Box::from)),
            Ok(None) if seen >= HELLO_BYTES_MAX => {
                let error = "the TLS hello is longer than any client sends";
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                return Err(AcceptError::Io(error));
            }
            Ok(None) => {}
            Err((error, _alert)) => {
                // What a hello of an older TLS lacks is its server's to say.
                let is_old = matches!(error, rustls::Error::PeerIncompatible(_));
                let named = is_old.then(|| hello::server_name(read)).flatten();
                return named.ok_or(AcceptError::Protocol(error));
            }
        }
        if stream.read_buf(read).await.map_err(AcceptError::Io)? == 0 {
            return Err(AcceptError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::net::tls;

    fn hello_to(host: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = tls::server_name(host).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    #[tokio::test]
    async fn the_host_is_found_however_the_hello_is_cut_and_nothing_of_it_is_lost() {
        for (host, named) in [("a.test", Some("a.test")), ("192.0.2.1", None)] {
            let hello = hello_to(host);
            for cut in [1, 5, 60, hello.len()] {
                let (first, rest) = hello.split_at(cut);
                let (mut theirs, mut ours) = tokio::io::duplex(100);
                let mut read = BytesMut::from(first);
                let (found, sent) =
                    tokio::join!(named_in_hello(&mut ours, &mut read), theirs.write_all(rest));
                sent.unwrap();
                let found = found.unwrap();
                assert_eq!(found.as_deref(), named, "{cut}");
                assert_eq!(read, hello, "{cut}");
            }
        }
    }

    /// A hello of TLS 1.2 without signature algorithms, which RFC 5246 §7.4.1.4.1 does not ask for.
    #[tokio::test]
    async fn the_host_is_found_in_a_hello_that_the_library_would_not_answer() {
        let whole = hello::tests::old_hello(&[b"old.test"]);
        for cut in [1, 5, 9, 43, whole.len()] {
            let (first, rest) = whole.split_at(cut);
            let mut read = BytesMut::from(first);
            let found = named_in_hello(&mut &*rest, &mut read).await.unwrap();
            assert_eq!(found.as_deref(), Some("old.test"), "{cut}");
            assert_eq!(read, whole, "{cut}");
        }
        let unnamed = hello::tests::old_hello(&[]);
        let found = named_in_hello(&mut &*unnamed, &mut BytesMut::new()).await;
        assert_eq!(found.unwrap(), None);
        let twice = hello::tests::old_hello(&[b"old.test", b"b.test"]);
        let found = named_in_hello(&mut &*twice, &mut BytesMut::new()).await;
        assert!(found.is_err(), "{found:?}");
    }

    #[tokio::test]
    async fn what_is_no_hello_and_one_that_never_ends_are_errors() {
        let mut endless = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
        endless.resize(HELLO_BYTES_MAX + 64, 0);
        for bytes in [
            b"\x16not at all a hello".to_vec(),
            endless,
            hello_to("a.test")[..40].to_vec(),
        ] {
            let mut read = BytesMut::new();
            let found = named_in_hello(&mut &*bytes, &mut read).await;
            assert!(found.is_err(), "{found:?}");
        }
    }
}
