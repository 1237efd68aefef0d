//! Logging in to a server in the agent's place: the sidecar has the password,
//! and the agent need not know one.
//!
//! To the rest of the relay, a server that was logged in to is one that trusts:
//! what it said meanwhile is kept, without its questions. Who came by a path has
//! shown that it may open that; who came by a network shows [`agent`] that it knows
//! the agent token.

mod agent;
mod passfile;

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::metrics::Unaccepted;
use crate::net::maybe_tls::MaybeTls;
use crate::net::stream::Stream;
use crate::redact::Secret;

use super::reach::Reached;
use super::startup::Start;
use super::wire::{Cursor, HEAD, WireError, head, message};
use super::{Login, Upstream};

pub use agent::{TokenVerifier, Unfit};
pub(super) use agent::{Unproved, prove};

/// Longest message before a session, bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of all that is kept: servers say hardly anything before a login.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// What is read, for errors.
const OF_SERVER: &str = "a message of the server";

/// Most rounds that a server may have the password hashed: thousands are usual, and a million takes a second.
const ROUNDS_MAX: u32 = 1_000_000;

/// What servers ask for, by the number in their question.
const DONE: u32 = 0;
const IN_CLEAR: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_GOES_ON: u32 = 11;
const SASL_ENDS: u32 = 12;

/// Starts a session on `server` as `start` says and proves who it is. What the
/// server has said for the client to hear: the last of it is that the login
/// succeeded, or an error of its own. Cancel-safe: dropped with the connection.
///
/// # Errors
///
/// When there is no password, or none that may be sent as the server asks for it;
/// when the server does not prove that it knows the password, where SCRAM has it
/// do so; when it breaks the protocol or leaves.
pub(super) async fn log_in(
    server: &mut Reached,
    upstream: &Upstream,
    login: &Login,
    start: &Start,
) -> Result<BytesMut, NoLogin> {
    let role = start.user().unwrap_or_default();
    let password = passfile::password(&login.passfile, upstream, start.database(), role).await?;
    let mut proving = Proving {
        role,
        password: password.as_ref(),
        exposed: server.is_exposed(),
        proof: Proof::None,
    };
    let socket = &mut server.socket;
    send(socket, &start.forwarded().0).await?;
    let (mut input, mut kept) = (BytesMut::new(), BytesMut::new());
    loop {
        let (tag, said) = next(socket, &mut input, OF_SERVER).await?;
        match tag {
            b'R' => match proving.answer(said.get(HEAD..).unwrap_or_default()).await? {
                Some(answer) => send(socket, &answer).await?,
                None if proving.is_done(&said)? => break kept.extend_from_slice(&said),
                None => {}
            },
            b'E' => break kept.extend_from_slice(&said),
            b'N' | b'v' if kept.len() < KEPT_BYTES_MAX => kept.extend_from_slice(&said),
            b'N' | b'v' => return Err(WireError::TooLong("a login message").into()),
            other => return Err(WireError::Unexpected("server", other).into()),
        }
    }
    kept.unsplit(input);
    Ok(kept)
}

async fn send(socket: &mut MaybeTls<Stream>, bytes: &[u8]) -> Result<(), NoLogin> {
    socket.write_all(bytes).await.map_err(NoLogin::Lost)?;
    socket.flush().await.map_err(NoLogin::Lost)
}

/// The next message, with its head.
async fn next(
    socket: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    what: &'static str,
) -> Result<(u8, Bytes), NoLogin> {
    loop {
        if let Some((tag, body)) = head(input, what)? {
            if body > MESSAGE_BYTES_MAX {
                return Err(WireError::TooLong("a login message").into());
            }
            let length = HEAD.saturating_add(body);
            if input.len() >= length {
                return Ok((tag, input.split_to(length).freeze()));
            }
        }
        match socket.read_buf(input).await {
            Ok(0) => return Err(NoLogin::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(source) => return Err(NoLogin::Lost(source)),
        }
    }
}

/// How far the two have proved who they are.
enum Proof {
    None,
    /// The server has not proved yet that it knows the password.
    Half(ScramSha256),
    Whole,
}

struct Proving<'a> {
    role: &'a str,
    password: Option<&'a Secret>,
    /// Others may read what is sent.
    exposed: bool,
    proof: Proof,
}

impl Proving<'_> {
    /// What answers a question; `None` where nothing does.
    async fn answer(&mut self, question: &[u8]) -> Result<Option<Bytes>, NoLogin> {
        let mut cursor = Cursor::new(question, OF_SERVER);
        let kind = u32::from_be_bytes(cursor.array()?);
        match kind {
            DONE => Ok(None),
            IN_CLEAR if self.exposed => Err(NoLogin::InClear),
            IN_CLEAR => {
                let password = self.password()?.expose();
                Ok(Some(message(b'p', &[password.as_bytes(), b"\0"])))
            }
            MD5 => {
                let salt = cursor.array()?;
                cursor.finish()?;
                let password = self.password()?.expose().as_bytes();
                let hash = md5_hash(self.role.as_bytes(), password, salt);
                Ok(Some(message(b'p', &[hash.as_bytes(), b"\0"])))
            }
            SASL => self.begin(cursor).map(Some),
            SASL_GOES_ON => self.go_on(cursor.rest()).await.map(Some),
            SASL_ENDS => {
                let Proof::Half(mut scram) = std::mem::replace(&mut self.proof, Proof::None) else {
                    return Err(WireError::Unexpected("server", b'R').into());
                };
                scram.finish(cursor.rest()).map_err(NoLogin::Scram)?;
                self.proof = Proof::Whole;
                Ok(None)
            }
            other => Err(NoLogin::Method(other)),
        }
    }

    /// Whether `said` ends the login. A server that was sent a proof owes its own.
    fn is_done(&self, said: &[u8]) -> Result<bool, NoLogin> {
        let done = said.get(HEAD..) == Some(&DONE.to_be_bytes()[..]);
        match self.proof {
            Proof::Half(_) if done => Err(NoLogin::Unproved),
            Proof::None | Proof::Half(_) | Proof::Whole => Ok(done),
        }
    }

    fn begin(&mut self, mut offered: Cursor<'_>) -> Result<Bytes, NoLogin> {
        let mut scram = false;
        loop {
            match offered.text()? {
                b"" => break,
                mechanism => scram |= mechanism == SCRAM_SHA_256.as_bytes(),
            }
        }
        if !scram || !matches!(self.proof, Proof::None) {
            return Err(NoLogin::Method(SASL));
        }
        let password = self.password()?.expose().as_bytes();
        // Without binding, and saying so: the server may offer it.
        let scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let first = scram.message();
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
        let parts = [
            SCRAM_SHA_256.as_bytes(),
            b"\0",
            &length.to_be_bytes(),
            first,
        ];
        let sent = message(b'p', &parts);
        self.proof = Proof::Half(scram);
        Ok(sent)
    }

    async fn go_on(&mut self, said: &[u8]) -> Result<Bytes, NoLogin> {
        let Proof::Half(mut scram) = std::mem::replace(&mut self.proof, Proof::None) else {
            return Err(WireError::Unexpected("server", b'R').into());
        };
        if rounds(said).is_some_and(|rounds| rounds > ROUNDS_MAX) {
            let found = format!("the server asks for more than {ROUNDS_MAX} rounds");
            return Err(NoLogin::Scram(io::Error::other(found)));
        }
        let said = said.to_vec();
        // Milliseconds, on purpose: not on a thread that others' statements wait for.
        let worked = tokio::task::spawn_blocking(move || scram.update(&said).map(|()| scram));
        let worked = worked.await.map_err(io::Error::other).flatten();
        let scram = worked.map_err(NoLogin::Scram)?;
        let sent = message(b'p', &[scram.message()]);
        self.proof = Proof::Half(scram);
        Ok(sent)
    }

    fn password(&self) -> Result<&Secret, NoLogin> {
        self.password.ok_or(NoLogin::NoPassword)
    }
}

/// How often a server wants the password hashed, as far as it says so (RFC 5802, `i=`).
fn rounds(server_first: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(server_first).ok()?;
    let said = text.split(',').find_map(|field| field.strip_prefix("i="));
    said.map(|count| count.parse().unwrap_or(u32::MAX))
}

/// Why a server was not logged in to. Never shows a password.
#[derive(Debug)]
pub(super) enum NoLogin {
    /// The file with passwords cannot be read.
    File(io::Error),
    /// It has none for this server, database and role.
    NoPassword,
    /// The server wants the password itself, and others may read it.
    InClear,
    /// The server wants to be proved something else.
    Method(u32),
    /// SCRAM failed.
    Scram(io::Error),
    /// The server took a proof and gave none.
    Unproved,
    /// It broke the protocol.
    Wire(WireError),
    /// It left.
    Lost(io::Error),
}

impl From<WireError> for NoLogin {
    fn from(wrong: WireError) -> Self {
        Self::Wire(wrong)
    }
}

impl NoLogin {
    /// The SQLSTATE that says so.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Wire(wrong) => wrong.code(),
            Self::Lost(_) => "08001",
            Self::File(_)
            | Self::NoPassword
            | Self::InClear
            | Self::Method(_)
            | Self::Scram(_)
            | Self::Unproved => "28000",
        }
    }

    /// Whose fault it is.
    pub(super) fn cause(&self) -> Unaccepted {
        match self {
            Self::Wire(wrong) => wrong.cause(),
            Self::Lost(_) => Unaccepted::UpstreamDown,
            Self::File(_)
            | Self::NoPassword
            | Self::InClear
            | Self::Method(_)
            | Self::Scram(_)
            | Self::Unproved => Unaccepted::Credentials,
        }
    }
}

impl fmt::Display for NoLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sidecar could not log in in the agent's place: ")?;
        match self {
            Self::File(error) => write!(f, "its passfile (postgres.passfile): {error}"),
            Self::NoPassword => f.write_str(
                "the server asks for a password, and no line of the passfile is for this host, port, database and role",
            ),
            Self::InClear => f.write_str(
                "the server asks for the password itself, which others could read on the way: use sslmode=require or better, or scram-sha-256 on the server",
            ),
            Self::Method(kind) => write!(
                f,
                "the server asks for authentication of kind {kind}, where scram-sha-256, md5 and password are known"
            ),
            Self::Scram(error) => write!(f, "SCRAM failed: {error}"),
            Self::Unproved => f.write_str("the server does not prove that it knows the password"),
            Self::Wire(wrong) => wrong.fmt(f),
            Self::Lost(error) => write!(f, "the connection to the server broke: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proving(password: &Secret, exposed: bool) -> Proving<'_> {
        Proving {
            role: "r",
            password: Some(password),
            exposed,
            proof: Proof::None,
        }
    }

    #[tokio::test]
    async fn pg_8_a_password_goes_in_clear_only_where_nobody_else_reads_it() {
        let password = Secret::new("correct-horse");
        let question = IN_CLEAR.to_be_bytes();
        let refused = proving(&password, true).answer(&question).await;
        assert!(matches!(refused, Err(NoLogin::InClear)), "{refused:?}");
        let answer = proving(&password, false).answer(&question).await.unwrap();
        assert_eq!(answer.unwrap(), message(b'p', &[b"correct-horse\0"]));
    }

    #[tokio::test]
    async fn pg_8_a_server_that_was_sent_a_proof_owes_its_own() {
        let password = Secret::new("correct-horse");
        let mut proving = proving(&password, true);
        let done = message(b'R', &[&DONE.to_be_bytes()]);
        assert!(matches!(proving.is_done(&done), Ok(true)));
        let offer = [
            &SASL.to_be_bytes()[..],
            b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
        ]
        .concat();
        let sent = proving.answer(&offer).await.unwrap().unwrap();
        assert!(sent.starts_with(b"p") && sent[HEAD..].starts_with(b"SCRAM-SHA-256\0"));
        assert!(matches!(proving.is_done(&done), Err(NoLogin::Unproved)));
        for (asked, expected) in [
            ("r=x,s=QQ==,i=4096", Some(4096)),
            ("r=x,i=99999999999", Some(u32::MAX)),
        ] {
            assert_eq!(rounds(asked.as_bytes()), expected);
        }
        let end = [&SASL_ENDS.to_be_bytes()[..], b"v=AAAA"].concat();
        let wrong = proving.answer(&end).await;
        assert!(matches!(wrong, Err(NoLogin::Scram(_))), "{wrong:?}");
    }
}
