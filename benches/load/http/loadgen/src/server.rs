//! The smallest keep-alive HTTP/1.1 server that the benchmark's origin and stubs need.
//!
//! A request is a header section and a body of declared length, one at a time; what is not that is
//! answered 400 and the connection ends.

use std::future::Future;
use std::sync::Arc;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::loopback::Loopback;

/// Largest request accepted, header section and body, bytes. Core events carry two captured bodies of 64 KiB.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 8 * 1024;
pub(crate) const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Appends the whole response to a request.
pub(crate) trait Respond: Send + Sync + 'static {
    fn respond(&self, request: &Request<'_>, response: &mut Vec<u8>);
}

pub(crate) async fn listen(address: Loopback) -> Result<TcpListener, String> {
    TcpListener::bind(address.0)
        .await
        .map_err(|error| format!("{address}: {error}"))
}

/// Accepts until the process ends; each connection is handed to `serve` in a task of its own.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) -> Result<(), String>
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it a peer that writes twice would be measured waiting for an ACK.
                if stream.set_nodelay(true).is_ok() {
                    tokio::spawn(serve(stream));
                }
            }
            Err(error) => eprintln!("loadgen: accept: {error}"),
        }
    }
}

/// Serves one connection until the client closes it.
pub(crate) async fn serve<S>(mut stream: S, respond: Arc<impl Respond>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut received = Vec::with_capacity(READ_BYTES);
    let mut response = Vec::with_capacity(2048);
    loop {
        response.clear();
        let taken = match Request::parse(&received) {
            Parsed::Complete(request) => {
                respond.respond(&request, &mut response);
                request.bytes
            }
            Parsed::Incomplete => {
                received.reserve(READ_BYTES);
                match stream.read_buf(&mut received).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                }
            }
            Parsed::Malformed => {
                // The client may be gone already; there is nobody else to tell.
                let _gone = stream.write_all(BAD_REQUEST).await;
                return;
            }
        };
        received.drain(..taken);
        if stream.write_all(&response).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

pub(crate) struct Request<'a> {
    /// The first line, without its end.
    pub(crate) line: &'a [u8],
    pub(crate) body: &'a [u8],
    /// Header section and body together.
    bytes: usize,
}

enum Parsed<'a> {
    Complete(Request<'a>),
    Incomplete,
    Malformed,
}

impl Request<'_> {
    fn parse(received: &[u8]) -> Parsed<'_> {
        let Some(head_end) = memmem::find(received, b"\r\n\r\n") else {
            return if received.len() > REQUEST_BYTES_MAX {
                Parsed::Malformed
            } else {
                Parsed::Incomplete
            };
        };
        let (head, rest) = received.split_at(head_end);
        let mut lines = lines(head);
        let Some(line) = lines.next() else {
            return Parsed::Malformed;
        };
        let mut body_bytes = 0;
        for header in lines {
            if let Some(value) = value_of(header, b"content-length") {
                let Some(length) = decimal(value) else {
                    return Parsed::Malformed;
                };
                body_bytes = length;
            } else if value_of(header, b"transfer-encoding").is_some() {
                return Parsed::Malformed;
            }
        }
        if body_bytes > REQUEST_BYTES_MAX {
            return Parsed::Malformed;
        }
        let body = rest.get(4..).unwrap_or_default();
        match body.get(..body_bytes) {
            None => Parsed::Incomplete,
            Some(body) => Parsed::Complete(Request {
                line,
                body,
                bytes: head_end + 4 + body_bytes,
            }),
        }
    }
}

/// The lines of a header section, without their line ends.
pub(crate) fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The value of a header line if it has this (lower-case) name.
pub(crate) fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (given, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    given.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Decimal digits only, no sign, no space.
pub(crate) fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
