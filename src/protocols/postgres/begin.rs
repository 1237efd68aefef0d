//! How a connection begins: with requests for encryption, inside TLS or in clear, and then with a start or a request
//! to cancel.
//!
//! Nothing that was sent before TLS counts inside it: when TLS is agreed on, nothing may have been sent already, so
//! that who sits between an agent and us cannot put words in front of its own (CVE-2021-23222).

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::metrics::Unaccepted;
use crate::net::agent_tls::{Acceptor, Demand};
use crate::net::client_socket::ClientSocket;
use crate::net::database_tls::Negotiation;
use crate::net::maybe_tls::MaybeTls;

use super::startup::{First, Start, first};
use super::wire::WireError;
use super::{ALPN, refuse};

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection that has not begun.
pub(super) struct Beginning<'a> {
    /// Who serves TLS; `None` where there is none.
    pub(super) acceptor: Option<&'a Acceptor>,
    /// `None` while, and after, a handshake has failed.
    pub(super) client: Option<MaybeTls<ClientSocket>>,
    /// What was read and not dealt with.
    pub(super) input: BytesMut,
}

/// What it is.
pub(super) enum Began {
    Start(Start),
    Cancel(Bytes),
}

/// Why it is none.
pub(super) struct Refused {
    pub(super) cause: Unaccepted,
    /// What the agent is told, where that can be.
    pub(super) answer: Option<Bytes>,
    pub(super) why: String,
}

impl Beginning<'_> {
    /// Reads up to a start or a cancel request; `None` where the client left.
    pub(super) async fn begun(&mut self) -> Result<Option<Began>, Refused> {
        if let Some(socket) = self.socket()
            && socket.peek().await == Some(TLS_HANDSHAKE)
        {
            let Some(acceptor) = self.acceptor else {
                return Err(no_tls());
            };
            self.encrypt(acceptor, Negotiation::Direct).await?;
        }
        let (mut ssl, mut gss) = (false, false);
        loop {
            let packet = first(&mut self.input).map_err(of_wire)?;
            let (repeated, wants_tls) = match packet {
                None if self.read().await => continue,
                None => return Ok(None),
                Some(First::Start(start)) => {
                    self.may_be_in_clear()?;
                    return Ok(Some(Began::Start(start)));
                }
                // In clear, too: clients did not encrypt it for thirty years.
                Some(First::Cancel(key)) => return Ok(Some(Began::Cancel(key))),
                Some(First::Version(version)) => {
                    return Err(Refused {
                        cause: Unaccepted::Version,
                        answer: Some(unsupported(version)),
                        why: format!("it speaks version {}.{}", version >> 16, version & 0xffff),
                    });
                }
                Some(First::Ssl) => (std::mem::replace(&mut ssl, true), true),
                Some(First::Gss) => (std::mem::replace(&mut gss, true), false),
            };
            let inside = self.client.as_ref().is_some_and(MaybeTls::is_tls);
            if repeated || inside || !self.input.is_empty() {
                return Err(of_wire(WireError::Malformed("a request for encryption")));
            }
            match self.acceptor.filter(|_| wants_tls && self.has_address()) {
                Some(acceptor) => {
                    if !self.write(b"S").await {
                        return Ok(None);
                    }
                    self.encrypt(acceptor, Negotiation::Asked).await?;
                }
                None if self.write(b"N").await => {}
                None => return Ok(None),
            }
        }
    }

    /// The socket, while it is in clear.
    fn socket(&self) -> Option<&ClientSocket> {
        match &self.client {
            Some(MaybeTls::Plain(socket)) => Some(socket),
            Some(MaybeTls::Tls(_)) | None => None,
        }
    }

    /// Whether it came by a network, and not by a path: there nobody listens in between, and clients want no TLS.
    fn has_address(&self) -> bool {
        let socket = self.client.as_ref().map(MaybeTls::socket);
        socket.is_some_and(|socket| socket.local_ip().is_some())
    }

    async fn encrypt(&mut self, acceptor: &Acceptor, begins: Negotiation) -> Result<(), Refused> {
        let Some(MaybeTls::Plain(socket)) = self.client.take() else {
            return Err(of_wire(WireError::Malformed("a request for encryption")));
        };
        let ip = socket.asked_ip();
        // Boxed: most connections are in clear.
        match Box::pin(acceptor.accept(socket, ip, begins)).await {
            Ok(client) => {
                self.client = Some(client);
                Ok(())
            }
            Err(error) => Err(Refused {
                cause: Unaccepted::Tls,
                answer: None,
                why: error.to_string(),
            }),
        }
    }

    fn may_be_in_clear(&self) -> Result<(), Refused> {
        let required = self.acceptor.map(Acceptor::demand) == Some(Demand::Required);
        let inside = self.client.as_ref().is_some_and(MaybeTls::is_tls);
        if inside || !required || !self.has_address() {
            return Ok(());
        }
        let why = "this listener of the sidecar serves sessions inside TLS only (postgres.agent_tls): connect with sslmode=require";
        Err(Refused {
            cause: Unaccepted::Tls,
            answer: Some(refuse::fatal("28000", why)),
            why: why.to_owned(),
        })
    }

    /// Reads once; whether something came.
    async fn read(&mut self) -> bool {
        let Some(client) = &mut self.client else {
            return false;
        };
        client
            .read_buf(&mut self.input)
            .await
            .is_ok_and(|read| read > 0)
    }

    async fn write(&mut self, byte: &[u8]) -> bool {
        let Some(client) = &mut self.client else {
            return false;
        };
        client.write_all(byte).await.is_ok()
    }
}

fn no_tls() -> Refused {
    Refused {
        cause: Unaccepted::Tls,
        answer: None,
        why: format!(
            "it begins with TLS, which this listener does not serve: connect with sslmode=disable, or set postgres.agent_tls ({} inside)",
            String::from_utf8_lossy(ALPN)
        ),
    }
}

fn of_wire(wrong: WireError) -> Refused {
    let why = wrong.to_string();
    Refused {
        cause: wrong.cause(),
        answer: Some(refuse::fatal(wrong.code(), &why)),
        why,
    }
}

/// The refusal of a version that is not spoken: clients older than version 3 read errors as a letter and a text.
fn unsupported(version: u32) -> Bytes {
    let text = format!(
        "unsupported frontend protocol {}.{}: server supports 3.0 to 3.2",
        version >> 16,
        version & 0xffff
    );
    if version >> 16 < 3 {
        return [b"E", text.as_bytes(), b"\n\0"].concat().into();
    }
    refuse::fatal("0A000", &text)
}
