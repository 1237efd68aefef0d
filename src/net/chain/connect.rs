//! `CONNECT` as a proxy is asked for it (RFC 9110 §9.3.6). Its answer is read to its end and no further: what comes
//! behind is the origin's, and may be there already where an origin speaks first.

use std::io;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most of its fields.
const FIELDS_MAX: usize = 64;
/// Most heads before the one that decides: answers of 1xx (RFC 9110 §15.2).
const INTERIM_MAX: usize = 8;
/// Most of a reason phrase that is repeated, characters.
const REASON_MAX: usize = 80;

/// What a proxy is asked for.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// A host and a port, as an authority has them.
    pub(super) place: &'a str,
    /// Who asks.
    pub(super) login: Option<&'a HeaderValue>,
    /// Who has asked for it before, and we.
    pub(super) via: &'a str,
}

/// Why there is no tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The way through the proxy leads back here (508).
    Circle,
    /// What went wrong, for whoever set the proxy.
    Other(String),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

/// Asks for a tunnel.
///
/// # Errors
///
/// When there is none.
pub(super) async fn connect(stream: &mut TcpStream, asked: &Asked<'_>) -> Result<(), Failed> {
    let Asked { place, login, via } = asked;
    let mut asked =
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nVia: {via}\r\n").into_bytes();
    if let Some(login) = login {
        asked.extend_from_slice(b"Proxy-Authorization: ");
        asked.extend_from_slice(login.as_bytes());
        asked.extend_from_slice(b"\r\n");
    }
    asked.extend_from_slice(b"\r\n");
    stream.write_all(&asked).await.map_err(lost)?;
    for _ in 0..INTERIM_MAX {
        let answer = Answer::read(stream).await?;
        match answer.status {
            100..200 => {}
            200..300 => return Ok(()),
            // Some proxies mistake themselves for the origin.
            401 | 407 if login.is_some() => {
                return Err(Failed::Other(format!(
                    "it answered {answer}: it does not take the login of upstream.proxy_login_file"
                )));
            }
            401 | 407 => {
                return Err(Failed::Other(format!(
                    "it answered {answer}: it wants a login (upstream.proxy_login_file)"
                )));
            }
            508 => return Err(Failed::Circle),
            _ => return Err(Failed::Other(format!("it answered {answer}"))),
        }
    }
    Err(Failed::Other("it answers with nothing but 1xx".to_owned()))
}

fn lost(error: io::Error) -> String {
    format!("the connection to it was lost: {error}")
}

/// What a proxy answers.
struct Answer {
    status: u16,
    /// Without what does not belong into a log.
    reason: String,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.reason {
            "" => write!(f, "{}", self.status),
            reason => write!(f, "{} {reason}", self.status),
        }
    }
}

impl Answer {
    async fn read(stream: &mut TcpStream) -> Result<Self, String> {
        let mut head = Vec::new();
        loop {
            // Looked at first, and taken up to the end of the head.
            let mut piece = [0; 2 << 10];
            let seen = stream.peek(&mut piece).await.map_err(lost)?;
            if seen == 0 {
                return Err("it closed the connection without an answer".to_owned());
            }
            let before = head.len();
            head.extend_from_slice(piece.get(..seen).unwrap_or_default());
            let parsed = Self::parse(&head)?;
            let taken = match &parsed {
                Some((end, _)) => end.saturating_sub(before),
                None => seen,
            };
            let taken = piece.get_mut(..taken).unwrap_or_default();
            stream.read_exact(taken).await.map_err(lost)?;
            match parsed {
                Some((_, answer)) => return Ok(answer),
                None if head.len() > HEAD_BYTES_MAX => {
                    return Err(format!(
                        "its answer has no end within {HEAD_BYTES_MAX} bytes"
                    ));
                }
                None => {}
            }
        }
    }

    /// With where its head ends; `None` while it does not.
    fn parse(head: &[u8]) -> Result<Option<(usize, Self)>, String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response
            .parse(head)
            .map_err(|error| format!("its answer is not HTTP: {error}"))?;
        let httparse::Status::Complete(end) = parsed else {
            return Ok(None);
        };
        let reason = response.reason.unwrap_or_default();
        let shown = reason.chars().filter(|c| !c.is_control());
        let answer = Self {
            status: response.code.unwrap_or_default(),
            reason: shown.take(REASON_MAX).collect(),
        };
        Ok(Some((end, answer)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// What an origin says first.
    const FIRST: &[u8] = b"SSH-2.0-x\r\n";

    /// What is made of a proxy that answers these pieces, each in a packet of its own; and
    /// what is left in the connection then.
    async fn answered(pieces: &[&'static [u8]]) -> (Result<(), Failed>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            asked.truncate(length);
            asked
        };
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let login = HeaderValue::from_static("Basic eDp5");
            let asked = Asked {
                place: "[2001:db8::1]:22",
                login: Some(&login),
                via: "1.1 a, 1.1 b",
            };
            let done = connect(&mut stream, &asked).await;
            let mut left = vec![0; FIRST.len()];
            if done.is_ok() {
                stream.read_exact(&mut left).await.unwrap();
            }
            (done, left)
        };
        let (asked, found) = tokio::join!(proxy, client);
        let asked = String::from_utf8(asked).unwrap();
        assert_eq!(
            asked,
            "CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: [2001:db8::1]:22\r\n\
             Via: 1.1 a, 1.1 b\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
        );
        found
    }

    #[tokio::test]
    async fn what_an_origin_says_first_is_left_in_the_connection() {
        let rows: [&[&'static [u8]]; 4] = [
            &[b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n"],
            &[
                b"HTTP/1.0 200",
                b" OK\r\nVia: x\r",
                b"\n\r\nSSH",
                b"-2.0-x\r\n",
            ],
            &[b"HTTP/1.1 103 \r\n\r\nHTTP/1.1 204 \r\nA: b\r\n\r\nSSH-2.0-x\r\n"],
            &[
                b"HTTP/1.1 299 Fine\r\nContent-Length: 4\r\n\r\n",
                b"SSH-2.0-x\r\n",
            ],
        ];
        for pieces in rows {
            let (done, left) = answered(pieces).await;
            assert_eq!(done, Ok(()), "{pieces:?}");
            assert_eq!(left, FIRST, "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_tunnel_says_what_it_is() {
        let rows: [(&'static [u8], &str); 7] = [
            (b"HTTP/1.1 403 Filtered\r\n\r\n", "it answered 403 Filtered"),
            (b"HTTP/1.1 502 \r\n\r\n", "it answered 502"),
            (
                b"HTTP/1.1 407 Who\r\n\r\n",
                "it answered 407 Who: it does not take the login of upstream.proxy_login_file",
            ),
            (
                b"SSH-2.0-x\r\n",
                "its answer is not HTTP: invalid HTTP version",
            ),
            (
                b"HTTP/1.1 101 Switching\r\n\r\nSSH-2.0-x\r\n",
                "its answer is not HTTP: invalid HTTP version",
            ),
            (&[b'\r'; 0], "it closed the connection without an answer"),
            (
                &const {
                    let mut long = [b'a'; HEAD_BYTES_MAX + 4096];
                    let start = b"HTTP/1.1 200 OK\r\nA: ";
                    let mut at = 0;
                    while at < start.len() {
                        long[at] = start[at];
                        at += 1;
                    }
                    long
                },
                "its answer has no end within 16384 bytes",
            ),
        ];
        for (answer, expected) in rows {
            let (done, _) = answered(&[answer]).await;
            assert_eq!(done, Err(Failed::Other(expected.to_owned())));
        }
        let (done, _) = answered(&[b"HTTP/1.1 508 Loop Detected\r\n\r\n"]).await;
        assert_eq!(done, Err(Failed::Circle));
    }
}
