//! One client connection: a request written, its response read whole and compared with what the origin sends.

use std::sync::Arc;

use memchr::memmem;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::loopback::Loopback;
use crate::server::{decimal, lines, value_of};

const READ_BYTES: usize = 8 * 1024;
/// Largest response accepted, bytes: the body and a generous header section.
const RESPONSE_BYTES_MAX: usize = 80 * 1024;

/// Whether the connection is good for another request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
}

/// What a response must be.
pub(crate) enum Expect<'a> {
    /// 200 with exactly this body.
    Body(&'a [u8]),
    /// 200 and no body: the answer to CONNECT.
    Tunnel,
}

pub(crate) struct Connection<S> {
    stream: S,
    received: Vec<u8>,
}

/// Dials with TCP_NODELAY set.
pub(crate) async fn dial(address: Loopback) -> Result<Connection<TcpStream>, String> {
    let stream = TcpStream::connect(address.0)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| format!("TCP_NODELAY: {error}"))?;
    Ok(Connection::new(stream))
}

/// Header lines as they stand in a head.
pub(crate) fn header_lines(headers: &[String]) -> String {
    headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect()
}

/// The CONNECT that opens a tunnel to `authority`.
pub(crate) fn connect_to(authority: &str, headers: &str) -> Vec<u8> {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{headers}\r\n").into_bytes()
}

/// Dials a proxy and has it open a tunnel.
pub(crate) async fn tunnel(
    proxy: Loopback,
    connect: &[u8],
) -> Result<Connection<TcpStream>, String> {
    let mut connection = dial(proxy).await?;
    connection
        .exchange(connect, &Expect::Tunnel)
        .await
        .map_err(|error| format!("CONNECT: {error}"))?;
    Ok(connection)
}

/// Handshakes as a client of `name`, whose certificate must verify.
pub(crate) async fn secure(
    connection: Connection<TcpStream>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Connection<TlsStream<TcpStream>>, String> {
    if !connection.received.is_empty() {
        return Err("bytes before the TLS handshake".to_owned());
    }
    let stream = TlsConnector::from(config)
        .connect(name, connection.stream)
        .await
        .map_err(|error| format!("TLS handshake: {error}"))?;
    Ok(Connection::new(stream))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::with_capacity(READ_BYTES),
        }
    }

    /// Sends `request` and reads the response to its last byte.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        expect: &Expect<'_>,
    ) -> Result<After, String> {
        self.stream
            .write_all(request)
            .await
            .map_err(|error| format!("write: {error}"))?;
        self.stream
            .flush()
            .await
            .map_err(|error| format!("write: {error}"))?;
        loop {
            if let Some((bytes, after)) = parse(&self.received, expect)? {
                if bytes != self.received.len() {
                    return Err("bytes after the response".to_owned());
                }
                self.received.clear();
                return Ok(after);
            }
            if self.received.len() > RESPONSE_BYTES_MAX {
                return Err(format!("response larger than {RESPONSE_BYTES_MAX} bytes"));
            }
            self.received.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.received).await;
            if read.map_err(|error| format!("read: {error}"))? == 0 {
                let bytes = self.received.len();
                return Err(format!("closed after {bytes} bytes of a response"));
            }
        }
    }

    /// The stream itself, for another protocol.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// Ends the connection as a client does that is done with it: for TLS with its close_notify.
    pub(crate) async fn finish(mut self) {
        // The other side may have closed first; either way the connection is over.
        let _closed = self.stream.shutdown().await;
    }
}

/// The bytes that the response takes, or `None` while it is incomplete.
fn parse(received: &[u8], expect: &Expect<'_>) -> Result<Option<(usize, After)>, String> {
    let Some(head_end) = memmem::find(received, b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, rest) = received.split_at(head_end);
    let body = rest.strip_prefix(b"\r\n\r\n").unwrap_or_default();
    let mut lines = lines(head);
    let status_line = lines.next().unwrap_or_default();
    if !status_line.starts_with(b"HTTP/1.1 200") {
        return Err(refusal(status_line, body));
    }
    let mut length = Length::UntilClose;
    let mut after = After::Keep;
    for header in lines {
        if let Some(value) = value_of(header, b"content-length") {
            let bytes = decimal(value).ok_or("unreadable content-length")?;
            length = Length::Bytes(bytes);
        } else if let Some(value) = value_of(header, b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("transfer-encoding other than chunked".to_owned());
            }
            length = Length::Chunked;
        } else if let Some(value) = value_of(header, b"connection")
            && value.eq_ignore_ascii_case(b"close")
        {
            after = After::Close;
        }
    }
    let Expect::Body(expected) = *expect else {
        // RFC 9110, 9.3.6: whatever a 2xx to CONNECT says of its length is ignored.
        return Ok(Some((head_end + 4, after)));
    };
    let body_bytes = match length {
        Length::Bytes(bytes) => match body.get(..bytes) {
            Some(body) if body == expected => bytes,
            Some(_) => return Err(format!("unexpected body of {bytes} bytes")),
            None => return Ok(None),
        },
        Length::Chunked => match dechunk(body)? {
            Some((bytes, body)) if body == expected => bytes,
            Some((_, body)) => return Err(format!("unexpected body of {} bytes", body.len())),
            None => return Ok(None),
        },
        Length::UntilClose => return Err("response of undeclared length".to_owned()),
    };
    Ok(Some((head_end + 4 + body_bytes, after)))
}

enum Length {
    Bytes(usize),
    Chunked,
    UntilClose,
}

/// The bytes that a chunked body takes, and what it carries; `None` while it is incomplete.
fn dechunk(encoded: &[u8]) -> Result<Option<(usize, Vec<u8>)>, String> {
    let mut body = Vec::new();
    let mut rest = encoded;
    loop {
        let Some(end) = memmem::find(rest, b"\r\n") else {
            return Ok(None);
        };
        let (size, after_size) = rest.split_at(end);
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .filter(|&size| size <= RESPONSE_BYTES_MAX)
            .ok_or("unreadable chunk size")?;
        let Some((chunk, after_chunk)) = after_size
            .get(2..)
            .and_then(|data| data.split_at_checked(size))
        else {
            return Ok(None);
        };
        let Some((line_end, after_line_end)) = after_chunk.split_at_checked(2) else {
            return Ok(None);
        };
        if line_end != b"\r\n" {
            return Err("chunk of another size than declared, or a trailer".to_owned());
        }
        if size == 0 {
            return Ok(Some((encoded.len() - after_line_end.len(), body)));
        }
        body.extend_from_slice(chunk);
        rest = after_line_end;
    }
}

fn refusal(status_line: &[u8], body: &[u8]) -> String {
    let start = body.get(..body.len().min(300)).unwrap_or_default();
    let text = format!("{} {}", status_line.escape_ascii(), start.escape_ascii());
    text.trim_end().to_owned()
}
