//! How a connection starts: the server's greeting, with what is understood here
//! offered to the client, the client's answer, and TLS to the server between the
//! two. What follows is the conversation's.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::net::client_socket::ClientSocket;
use crate::net::maybe_tls::MaybeTls;

use super::capability::Capabilities;
use super::conversation::{Conversation, Legs};
use super::greeting::{self, First, Greeting};
use super::reach::{self, Server, Unreached};
use super::wire::{HEADER_BYTES, Header, WireError, packet};
use super::{Shared, refuse};

/// Longest packet of a start, bytes.
const START_BYTES_MAX: usize = 64 << 10;

/// A connection on both sides, on which the client's login is about to be sent.
pub(super) struct Started {
    pub(super) server: MaybeTls<TcpStream>,
    pub(super) talk: Conversation,
    /// By which `KILL` knows the connection.
    pub(super) connection: u32,
    pub(super) login: Bytes,
    pub(super) from_client: BytesMut,
    pub(super) from_server: BytesMut,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// The client left.
    Left,
    /// It is told this.
    Told(Bytes, String),
}

impl NotStarted {
    fn unreached(error: &Unreached) -> Self {
        let why = error.to_string();
        Self::Told(refuse::unreachable(&why), why)
    }

    fn broken(sequence: u8, wrong: &WireError) -> Self {
        let why = wrong.to_string();
        Self::Told(refuse::broken(sequence, &why), why)
    }
}

/// Starts a connection to `server` for `client`.
///
/// # Errors
///
/// Whatever went wrong, with what the client is told about it.
pub(super) async fn start(
    shared: &Shared,
    server: &Server,
    client: &mut ClientSocket,
) -> Result<Started, NotStarted> {
    let unreached = |error: Unreached| NotStarted::unreached(&error);
    let mut socket = server.dial(&shared.dialer).await.map_err(unreached)?;
    let mut from_server = BytesMut::new();
    let (header, body) =
        frame(&mut socket, &mut from_server, 0)
            .await
            .map_err(|wrong| match wrong {
                NoFrame::Gone => NotStarted::unreached(&Unreached::Lost),
                NoFrame::Wire(wrong) => {
                    NotStarted::unreached(&Unreached::Foreign(wrong.to_string()))
                }
            })?;
    // It does not want to talk, and says why.
    if body.first() == Some(&0xff) {
        let told = packet(header.sequence, &body);
        return Err(NotStarted::Told(told, "the server refused it".into()));
    }
    let greeting = Greeting::of(&body)
        .map_err(|wrong| NotStarted::unreached(&Unreached::Foreign(wrong.to_string())))?;
    let offers_tls = greeting.capabilities.has(Capabilities::TLS);
    let tls = server.wants_tls(offers_tls).map_err(unreached)?;
    let offered = greeting.capabilities.offered(shared.settings.local_files);
    let masked = packet(header.sequence, &greeting.offering(&body, offered));
    if client.write_all(&masked).await.is_err() {
        return Err(NotStarted::Left);
    }
    let mut from_client = BytesMut::new();
    let (header, body) = answer(client, &mut from_client).await?;
    let wrong = |wrong: WireError| NotStarted::broken(header.sequence.wrapping_add(1), &wrong);
    let mut login = match First::of(&body).map_err(wrong)? {
        First::Login(login) => login,
        First::Tls => {
            let why = "agents connect in clear, on the same machine: connect without TLS (ssl-mode=DISABLED)";
            let told = refuse::login(header.sequence.wrapping_add(1), why);
            return Err(NotStarted::Told(told, why.into()));
        }
    };
    login.capabilities = login.capabilities.agreed(offered);
    let server_is_near = socket.peer_addr().is_ok_and(|at| at.ip().is_loopback());
    let mut of_server = login.capabilities;
    let mut number = header.sequence;
    let socket = match tls {
        None => MaybeTls::Plain(socket),
        Some(tls) => {
            of_server = of_server | Capabilities::TLS;
            // What it said in clear behind its greeting is of anybody.
            if !from_server.is_empty() {
                let why = "it said more than its greeting".to_owned();
                return Err(NotStarted::unreached(&Unreached::Foreign(why)));
            }
            let request = greeting::tls_request(&greeting::agreeing(&body, of_server));
            if socket.write_all(&packet(number, &request)).await.is_err() {
                return Err(NotStarted::unreached(&Unreached::Lost));
            }
            number = number.wrapping_add(1);
            reach::encrypted(tls, socket).await.map_err(|error| {
                let why = error.to_string();
                let told = refuse::login(header.sequence.wrapping_add(1), &why);
                NotStarted::Told(told, why)
            })?
        }
    };
    let legs = Legs {
        client_tls: false,
        server_tls: socket.is_tls(),
        server_is_near,
    };
    let shift = number.wrapping_sub(header.sequence);
    let bytes = packet(number, &greeting::agreeing(&body, of_server));
    Ok(Started {
        server: socket,
        talk: Conversation::new(shared.known.clone(), login, legs, shift),
        connection: greeting.connection,
        login: bytes,
        from_client,
        from_server,
    })
}

/// The client's answer to a greeting.
async fn answer(
    client: &mut ClientSocket,
    input: &mut BytesMut,
) -> Result<(Header, BytesMut), NotStarted> {
    let read = frame(client, input, 1).await;
    read.map_err(|wrong| match wrong {
        NoFrame::Gone => NotStarted::Left,
        NoFrame::Wire(wrong) => NotStarted::broken(2, &wrong),
    })
}

enum NoFrame {
    Gone,
    Wire(WireError),
}

/// The next frame of a start, header and body.
async fn frame(
    from: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    expected: u8,
) -> Result<(Header, BytesMut), NoFrame> {
    loop {
        if let Some(header) = Header::of(input) {
            if header.sequence != expected {
                let found = header.sequence;
                return Err(NoFrame::Wire(WireError::OutOfOrder { expected, found }));
            }
            if header.length > START_BYTES_MAX {
                return Err(NoFrame::Wire(WireError::TooLong("its first packet")));
            }
            if input.len() >= header.whole() {
                let mut whole = input.split_to(header.whole());
                let body = whole.split_off(HEADER_BYTES);
                return Ok((header, body));
            }
        }
        match from.read_buf(input).await {
            Ok(0) | Err(_) => return Err(NoFrame::Gone),
            Ok(_) => {}
        }
    }
}
