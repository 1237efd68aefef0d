//! One question over HTTP/1.1, within bounds.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use zeroize::Zeroizing;

/// Longest wait for connection and answer, each.
const WITHIN: Duration = Duration::from_secs(3);
/// Longest answer read, bytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Status and body of the answer to `GET target`, of `host`, at `address`; `token` opens what needs one.
///
/// # Errors
/// Nobody answers there in time, or not in HTTP.
pub(super) fn get(
    address: SocketAddr,
    target: &str,
    host: &str,
    token: Option<&str>,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let token = Zeroizing::new(token.unwrap_or_default());
    let request = Zeroizing::new(format!(
        "GET {target} HTTP/1.1\r\nhost: {host}\r\n{}connection: close\r\n\r\n",
        *token
    ));
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(not_http)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(not_http)?;
    Ok((status, body.to_owned()))
}
