//! How a connection starts: the server's greeting, with what is understood here
//! offered to the client, the client's answer, and TLS on either leg between the
//! two. What follows is the conversation's.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Unaccepted;
use crate::net::agent_tls::{Acceptor, Demand};
use crate::net::database_tls::Negotiation;
use crate::net::maybe_tls::MaybeTls;

use super::capability::Capabilities;
use super::conversation::{Conversation, Enters, Legs, Received};
use super::greeting::{self, First, Greeting, Login};
use super::reach::{self, Server, Unreached};
use super::whole_password::Key;
use super::wire::{HEADER_BYTES, Header, WireError, packet};
use super::{Agent, Shared, refuse};

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
    /// Its server is not there, or not one; the client is told this.
    Server(Unaccepted, Bytes, String),
    /// The client is refused, and told this.
    Client(Unaccepted, Bytes, String),
}

impl NotStarted {
    fn unreached(error: &Unreached) -> Self {
        let why = error.to_string();
        Self::Server(error.cause(), refuse::unreachable(&why), why)
    }

    fn mute() -> Self {
        let why = "the server has not greeted in time (mysql.login_within)".to_owned();
        Self::Server(Unaccepted::Slow, refuse::unreachable(&why), why)
    }

    fn stalled(sequence: u8) -> Self {
        let why = "its TLS handshake has not ended in time (mysql.login_within)".to_owned();
        Self::Server(Unaccepted::Slow, refuse::slow(sequence), why)
    }

    fn broken(sequence: u8, wrong: &WireError) -> Self {
        let why = wrong.to_string();
        Self::Client(Unaccepted::Malformed, refuse::broken(sequence, &why), why)
    }

    fn tls(sequence: u8, why: &str) -> Self {
        Self::Client(Unaccepted::Tls, refuse::login(sequence, why), why.into())
    }
}

/// Starts a connection to `server` for `client`, which is gone where a handshake
/// with it failed. Nobody is waited for longer than `until`.
///
/// # Errors
///
/// Whatever went wrong, with what the client is told about it.
pub(super) async fn start(
    shared: &Shared,
    server: &Server,
    client: &mut Option<Agent>,
    until: Instant,
) -> Result<Started, NotStarted> {
    let unreached = |error: Unreached| NotStarted::unreached(&error);
    let mut from_server = BytesMut::new();
    let greeted = async {
        let mut socket = server.dial(&shared.dialer).await.map_err(unreached)?;
        let greeting = frame(&mut socket, &mut from_server, 0).await;
        Ok((socket, greeting.map_err(NoFrame::of_server)?))
    };
    let (mut socket, (header, body)) = match timeout_at(until, greeted).await {
        Ok(greeted) => greeted?,
        Err(_) => return Err(NotStarted::mute()),
    };
    // It does not want to talk, and says why.
    if body.first() == Some(&0xff) {
        let told = packet(header.sequence, &body);
        let why = "the server refused it".to_owned();
        return Err(NotStarted::Server(Unaccepted::Refused, told, why));
    }
    let greeting = Greeting::of(&body)
        .map_err(|wrong| NotStarted::unreached(&Unreached::Foreign(wrong.to_string())))?;
    let offers_tls = greeting.capabilities.has(Capabilities::TLS);
    let tls = server.wants_tls(offers_tls).map_err(unreached)?;
    let offered = greeting.capabilities.offered(shared.settings.local_files);
    let mut answering = Answering {
        acceptor: shared.acceptor.as_ref(),
        client,
        input: BytesMut::new(),
    };
    let masked = greeting.offering(&body, answering.offering(offered));
    answering.say(&packet(header.sequence, &masked)).await?;
    let answer = match timeout_at(until, answering.login(offered)).await {
        Ok(answer) => answer?,
        Err(_) => return Err(answering.slow()),
    };
    let Answering { input, .. } = answering;
    let client_is_secret = is_secret(client.as_ref());
    let client_tls = client.as_ref().is_some_and(MaybeTls::is_tls);
    let Answer {
        sequence,
        body,
        login,
    } = answer;
    let at = socket.peer_addr().map(|at| at.ip().to_canonical()).ok();
    let plugin = login.plugin.as_deref().unwrap_or_default().to_owned();
    let legs = Legs {
        client_is_secret,
        client_tls,
        server_tls: false,
        server_is_near: at.is_some_and(|at| at.is_loopback()),
        server_is_proven: server.proves_itself(),
    };
    let flavour = greeting.capabilities.flavour();
    let mirrored_at = at.filter(|at| {
        server.may_mirror(flavour, *at, login.who.user.as_deref())
            && mirrors(legs, &plugin, shared.key.as_deref())
    });
    if let (Some(at), Some(_)) = (mirrored_at, tls) {
        server.mirrored(at);
    }
    let tls = tls.filter(|_| mirrored_at.is_none());
    let mut of_server = login.capabilities;
    // Each side counts the requests for TLS of its own leg.
    let mut number = 1_u8;
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
            let next = sequence.wrapping_add(1);
            let shaken = timeout_at(until, reach::encrypted(tls, socket)).await;
            shaken
                .map_err(|_| NotStarted::stalled(next))?
                .map_err(|error| {
                    let why = error.to_string();
                    NotStarted::Server(error.cause(), refuse::login(next, &why), why)
                })?
        }
    };
    let legs = Legs {
        server_tls: socket.is_tls(),
        ..legs
    };
    // Some say the password with their login.
    if let Some(why) = legs.stops(plugin.as_bytes()) {
        return Err(NotStarted::tls(sequence.wrapping_add(1), why));
    }
    let shift = number.wrapping_sub(sequence);
    let bytes = packet(number, &greeting::agreeing(&body, of_server));
    Ok(Started {
        server: socket,
        talk: Conversation::new(
            shared.known.clone(),
            login,
            legs,
            Received {
                key: shared.key.clone(),
                nonce: greeting.nonce,
            },
            Enters {
                sessions: shared.settings.sessions,
                server: flavour,
            },
            shift,
        )
        .replicating(shared.settings.replication),
        connection: greeting.connection,
        login: bytes,
        from_client: input,
        from_server,
    })
}

/// Whether the server's leg is in clear because its client's is: then the two can agree on a
/// whole password, of which nobody in between learns. `in_clear` are the legs then.
fn mirrors(in_clear: Legs, plugin: &str, key: Option<&Key>) -> bool {
    let inside = Legs {
        server_tls: true,
        ..in_clear
    };
    let can_receive = key.is_some() && inside.receives().is_ok();
    !in_clear.client_is_secret && in_clear.stops(plugin.as_bytes()).is_none() && !can_receive
}

/// A client that has heard a greeting, or is about to.
struct Answering<'a> {
    acceptor: Option<&'a Acceptor>,
    client: &'a mut Option<Agent>,
    input: BytesMut,
}

/// What it answers.
struct Answer {
    sequence: u8,
    body: BytesMut,
    login: Login,
}

impl Answering<'_> {
    /// Who serves TLS to it: nobody where it came by a path, where nobody listens
    /// in between.
    fn acceptor(&self) -> Option<&Acceptor> {
        let came = self.client.as_ref().map(MaybeTls::socket);
        let by_network = came.is_some_and(|socket| socket.local_ip().is_some());
        self.acceptor.filter(|_| by_network)
    }

    /// What it is offered, where both sides can do `both`.
    fn offering(&self, both: Capabilities) -> Capabilities {
        match self.acceptor() {
            Some(_) => both | Capabilities::TLS,
            None => both,
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), NotStarted> {
        let Some(client) = self.client else {
            return Err(NotStarted::Left);
        };
        client.write_all(bytes).await.map_err(|_| NotStarted::Left)
    }

    /// Its login, inside TLS where it asks for that first.
    async fn login(&mut self, offered: Capabilities) -> Result<Answer, NotStarted> {
        let demand = self.acceptor().map(Acceptor::demand);
        let (header, body, first) = self.first(1, offered).await?;
        let next = header.sequence.wrapping_add(1);
        match (first, demand) {
            (First::Login(_), Some(Demand::Required)) => Err(NotStarted::tls(
                next,
                "this listener of the sidecar serves sessions inside TLS only (mysql.agent_tls): connect with TLS (ssl-mode=REQUIRED)",
            )),
            (First::Login(login), Some(Demand::Offered) | None) => Ok(Answer {
                sequence: header.sequence,
                body,
                login,
            }),
            (First::Tls, None) => Err(NotStarted::tls(
                next,
                "this listener of the sidecar serves no TLS (mysql.agent_tls): connect without TLS (ssl-mode=DISABLED)",
            )),
            (First::Tls, Some(_)) => {
                self.encrypt(next).await?;
                let (header, body, first) = self.first(2, offered).await?;
                match first {
                    First::Login(login) => Ok(Answer {
                        sequence: header.sequence,
                        body,
                        login,
                    }),
                    First::Tls => Err(NotStarted::broken(
                        3,
                        &WireError::Malformed("a request for TLS inside TLS"),
                    )),
                }
            }
        }
    }

    /// It has not logged in in time: what it is told has the number behind that.
    fn slow(&self) -> NotStarted {
        let is_tls = self.client.as_ref().is_some_and(MaybeTls::is_tls);
        let told = refuse::slow(if is_tls { 3 } else { 2 });
        NotStarted::Client(Unaccepted::Slow, told, "nobody logged in in time".into())
    }

    /// What it says under this number.
    async fn first(
        &mut self,
        number: u8,
        offered: Capabilities,
    ) -> Result<(Header, BytesMut, First), NotStarted> {
        let Some(client) = self.client else {
            return Err(NotStarted::Left);
        };
        let next = number.wrapping_add(1);
        let read = frame(client, &mut self.input, number).await;
        let (header, body) = read.map_err(|wrong| match wrong {
            NoFrame::Gone => NotStarted::Left,
            NoFrame::Wire(wrong) => NotStarted::broken(next, &wrong),
        })?;
        let first = First::of(&body, offered).map_err(|wrong| NotStarted::broken(next, &wrong))?;
        Ok((header, body, first))
    }

    /// Shakes hands. What was sent behind the request is part of that: most
    /// clients do not wait before they begin it.
    async fn encrypt(&mut self, next: u8) -> Result<(), NotStarted> {
        let socket = match self.client.take() {
            Some(MaybeTls::Plain(socket)) => socket,
            Some(MaybeTls::Tls(_)) | None => return Err(NotStarted::Left),
        };
        let Some(acceptor) = self.acceptor else {
            return Err(NotStarted::Left);
        };
        let ip = socket.asked_ip();
        // Boxed: most connections are in clear.
        let shaken = Box::pin(acceptor.accept(socket, ip, Negotiation::Asked)).await;
        let client = shaken.map_err(|error| NotStarted::tls(next, &error.to_string()))?;
        *self.client = Some(client);
        Ok(())
    }
}

enum NoFrame {
    Gone,
    Wire(WireError),
}

impl NoFrame {
    fn of_server(self) -> NotStarted {
        NotStarted::unreached(&match self {
            Self::Gone => Unreached::Lost,
            Self::Wire(wrong) => Unreached::Foreign(wrong.to_string()),
        })
    }
}

/// Whether a client takes its leg for one on which a password may be said: it is
/// inside TLS, or does not leave this machine.
fn is_secret(client: Option<&Agent>) -> bool {
    client.is_some_and(|client| client.is_tls() || client.socket().local_ip().is_none())
}

/// The next frame of a start, header and body. Nothing is read beyond it: what
/// follows a request for TLS is TLS.
async fn frame(
    from: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    expected: u8,
) -> Result<(Header, BytesMut), NoFrame> {
    loop {
        let mut whole = HEADER_BYTES;
        if let Some(header) = Header::of(input) {
            whole = header.whole();
            if header.sequence != expected {
                let found = header.sequence;
                return Err(NoFrame::Wire(WireError::OutOfOrder { expected, found }));
            }
            if header.length > START_BYTES_MAX {
                return Err(NoFrame::Wire(WireError::TooLong("its first packet")));
            }
            if input.len() >= whole {
                let mut whole = input.split_to(whole);
                let body = whole.split_off(HEADER_BYTES);
                return Ok((header, body));
            }
        }
        let missing = whole.saturating_sub(input.len());
        let mut rest = (&mut *from).take(u64::try_from(missing).unwrap_or(u64::MAX));
        match rest.read_buf(input).await {
            Ok(0) | Err(_) => return Err(NoFrame::Gone),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::mysql::WholePassword;

    #[test]
    fn my_5_my_6_no_password_goes_in_clear_since_its_clients_leg_is() {
        let key = Key::of(WholePassword::Receive);
        for (client_is_secret, server_is_near, plugin, key, expected) in [
            (false, false, "caching_sha2_password", None, true),
            (false, true, "", None, true),
            (true, true, "caching_sha2_password", None, false),
            // It would be stopped in clear.
            (false, false, "mysql_clear_password", None, false),
            (false, true, "mysql_clear_password", None, true),
            // Where it is received there is no need, and elsewhere it is not.
            (false, true, "caching_sha2_password", key.as_ref(), false),
            (false, false, "caching_sha2_password", key.as_ref(), true),
        ] {
            let in_clear = Legs {
                client_is_secret,
                client_tls: client_is_secret,
                server_tls: false,
                server_is_near,
                server_is_proven: false,
            };
            let mirrors = mirrors(in_clear, plugin, key);
            assert_eq!(mirrors, expected, "{in_clear:?} {plugin}");
        }
    }
}
