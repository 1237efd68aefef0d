//! An agent proves that it knows the agent token, which it gives as its password: SCRAM-SHA-256 as PostgreSQL's servers
//! do it (RFC 5802, RFC 7677; no channel binding), so that every driver can and the token is never said.

use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use postgres_protocol::password::scram_sha_256;
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::redact::Secret;

use crate::protocols::postgres::refuse;
use crate::protocols::postgres::wire::{Cursor, HEAD, WireError, message};

use super::{NoLogin, next};

const WHAT: &str = "a login message";
const MECHANISM: &str = "SCRAM-SHA-256";
const KEY_BYTES: usize = 32;

/// What the agent token is held against. It is not the token, and does not open anything else.
#[derive(Clone)]
pub struct TokenVerifier {
    /// Rounds and salt, as the agent is told them.
    rounds: Box<str>,
    salt: Box<str>,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

/// The keys of a token could not be derived: a bug of this program.
#[derive(Debug)]
pub struct Unfit;

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent token cannot be asked for by PostgreSQL's SCRAM")
    }
}

impl std::error::Error for Unfit {}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenVerifier")
    }
}

impl TokenVerifier {
    /// That of `token`, with a new salt. Takes some milliseconds.
    ///
    /// # Errors
    ///
    /// None that is known of: see [`Unfit`].
    pub fn new(token: &Secret) -> Result<Self, Unfit> {
        // `SCRAM-SHA-256$ROUNDS:SALT$STORED:SERVER`, as in pg_authid.
        let verifier = scram_sha_256(token.expose().as_bytes());
        Self::read(&verifier).ok_or(Unfit)
    }

    fn read(verifier: &str) -> Option<Self> {
        let mut parts = verifier.split('$').skip(1);
        let (rounds, salt) = parts.next()?.split_once(':')?;
        let (stored, server) = parts.next()?.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        Some(Self {
            rounds: rounds.into(),
            salt: salt.into(),
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// The server's proof, where `proof` is the client's for `exchanged`.
    fn verified(&self, proof: &[u8], exchanged: &str) -> Option<[u8; KEY_BYTES]> {
        let proof: [u8; KEY_BYTES] = proof.try_into().ok()?;
        let mut client_key = signed(&self.stored_key, exchanged)?;
        for (byte, of_proof) in client_key.iter_mut().zip(proof) {
            *byte ^= of_proof;
        }
        let stored: [u8; KEY_BYTES] = Sha256::digest(client_key).into();
        let known = bool::from(stored.ct_eq(&self.stored_key));
        known.then(|| signed(&self.server_key, exchanged)).flatten()
    }
}

fn signed(key: &[u8; KEY_BYTES], text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

/// Why an agent is not let in.
#[derive(Debug)]
pub(in crate::protocols::postgres) enum Unproved {
    /// It left, or the socket failed.
    Gone,
    /// It broke the protocol.
    Wire(WireError),
    /// It has another password, or none.
    Wrong,
}

impl Unproved {
    /// What it is told, where it is still there.
    pub(in crate::protocols::postgres) fn told(&self) -> Option<Bytes> {
        match self {
            Self::Gone => None,
            Self::Wire(wrong) => Some(refuse::fatal(wrong.code(), &wrong.to_string())),
            Self::Wrong => Some(refuse::fatal(
                "28P01",
                "password authentication failed: the sidecar logs in to this server itself, and asks its agents for the agent token as their password (OPENBOX_SIDECAR_TOKEN)",
            )),
        }
    }
}

impl From<io::Error> for Unproved {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<WireError> for Unproved {
    fn from(wrong: WireError) -> Self {
        Self::Wire(wrong)
    }
}

/// Has the client behind `socket` prove that it knows the token; what it has sent beyond that stays in `input`.
///
/// # Errors
///
/// See [`Unproved`]. Cancelled, the connection is of no use.
pub(in crate::protocols::postgres) async fn prove(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    input: &mut BytesMut,
    verifier: &TokenVerifier,
) -> Result<(), Unproved> {
    say(socket, 10, &[MECHANISM.as_bytes(), b"\0\0"]).await?;
    let begun = answer(socket, input).await?;
    let first = ClientFirst::read(&begun)?;
    let nonce = format!("{}{}", first.nonce, fresh_nonce());
    let challenge = format!("r={nonce},s={},i={}", verifier.salt, verifier.rounds);
    say(socket, 11, &[challenge.as_bytes()]).await?;
    let last = answer(socket, input).await?;
    let (without_proof, proof) = client_final(&last, &first, &nonce)?;
    let exchanged = format!("{},{challenge},{without_proof}", first.bare);
    let proof = verifier
        .verified(&proof, &exchanged)
        .ok_or(Unproved::Wrong)?;
    let proof = format!("v={}", STANDARD.encode(proof));
    say(socket, 12, &[proof.as_bytes()]).await?;
    Ok(())
}

async fn say(
    socket: &mut (impl AsyncWrite + Unpin),
    kind: u32,
    parts: &[&[u8]],
) -> Result<(), Unproved> {
    let kind = kind.to_be_bytes();
    let all: Vec<&[u8]> = std::iter::once(&kind[..])
        .chain(parts.iter().copied())
        .collect();
    socket.write_all(&message(b'R', &all)).await?;
    Ok(socket.flush().await?)
}

/// The client's next word. A client that asks for something before it is let in, or wants no password, leaves.
async fn answer(
    socket: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<Bytes, Unproved> {
    let (tag, said) = match next(socket, input, WHAT).await {
        Ok(message) => message,
        Err(NoLogin::Wire(wrong)) => return Err(Unproved::Wire(wrong)),
        Err(_) => return Err(Unproved::Gone),
    };
    match tag {
        b'p' => Ok(said.slice(HEAD..)),
        b'X' => Err(Unproved::Gone),
        other => Err(WireError::Unexpected("client", other).into()),
    }
}

/// The first word of a client: `n,,n=,r=NONCE`.
struct ClientFirst {
    /// What stands before it and is repeated in the second: `n,,`.
    header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    fn read(body: &[u8]) -> Result<Self, WireError> {
        let wrong = WireError::Malformed(WHAT);
        let mut body = Cursor::new(body, WHAT);
        if body.text()? != MECHANISM.as_bytes() {
            return Err(wrong);
        }
        let length = u32::from_be_bytes(body.array()?);
        let text = std::str::from_utf8(body.rest()).map_err(|_| wrong)?;
        if usize::try_from(length) != Ok(text.len()) {
            return Err(wrong);
        }
        let mut fields = text.splitn(3, ',');
        let (Some(binding), Some(authorized), Some(bare)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(wrong);
        };
        // Without binding, and where the client could and sees that we do not offer it; nobody acts for somebody else.
        if !["n", "y"].contains(&binding) || !authorized.is_empty() {
            return Err(wrong);
        }
        // An extension that is mandatory (`m=`) would come first.
        let nonce = bare
            .split(',')
            .nth(1)
            .and_then(|field| field.strip_prefix("r="));
        let named = bare.starts_with("n=");
        let nonce = nonce
            .filter(|nonce| named && !nonce.is_empty())
            .ok_or(wrong)?;
        Ok(Self {
            header: format!("{binding},,"),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }
}

/// The second word of a client, up to its proof, and the proof.
fn client_final<'t>(
    body: &'t [u8],
    first: &ClientFirst,
    nonce: &str,
) -> Result<(&'t str, Vec<u8>), WireError> {
    let wrong = WireError::Malformed(WHAT);
    let text = std::str::from_utf8(body).map_err(|_| wrong)?;
    let (without_proof, proof) = text.rsplit_once(",p=").ok_or(wrong)?;
    let expected = format!("c={},r={nonce}", STANDARD.encode(&first.header));
    let proof = STANDARD.decode(proof).map_err(|_| wrong)?;
    let is_meant = without_proof == expected;
    is_meant.then_some((without_proof, proof)).ok_or(wrong)
}

fn fresh_nonce() -> String {
    let mut bytes = [0; 18];
    rand::rng().fill_bytes(&mut bytes);
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use tokio::io::AsyncReadExt;

    use super::*;

    /// What a driver does, with `password` and after its first word was changed by `alter`.
    async fn login(password: &str, alter: impl Fn(&str) -> String) -> Result<(), Unproved> {
        let verifier = TokenVerifier::new(&Secret::new("obx-token")).unwrap();
        let (mut here, mut there) = tokio::io::duplex(4096);
        let proves = async move {
            let mut input = BytesMut::new();
            let proved = prove(&mut here, &mut input, &verifier).await;
            assert!(input.is_empty(), "{input:?}");
            proved
        };
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let asks = async move {
            let mut said = vec![0; 4096];
            assert!(there.read(&mut said).await.unwrap() > 0);
            let first = alter(std::str::from_utf8(scram.message()).unwrap());
            let length = u32::try_from(first.len()).unwrap().to_be_bytes();
            let parts = [b"SCRAM-SHA-256\0", &length[..], first.as_bytes()];
            there.write_all(&message(b'p', &parts)).await.unwrap();
            let read = there.read(&mut said).await.unwrap();
            let Some(challenge) = said.get(9..read).filter(|rest| !rest.is_empty()) else {
                return;
            };
            scram.update(challenge).unwrap();
            there
                .write_all(&message(b'p', &[scram.message()]))
                .await
                .unwrap();
            let read = there.read(&mut said).await.unwrap();
            if let Some(proof) = said.get(9..read).filter(|rest| !rest.is_empty()) {
                scram.finish(proof).unwrap();
            }
        };
        tokio::join!(proves, asks).0
    }

    #[tokio::test]
    async fn pg_8_an_agent_proves_the_token_and_we_prove_it_back() {
        let same = |text: &str| text.to_owned();
        login("obx-token", same).await.unwrap();
        let wrong = login("obx-tokem", same).await.unwrap_err();
        assert!(matches!(wrong, Unproved::Wrong), "{wrong:?}");
    }

    #[tokio::test]
    async fn pg_8_what_is_no_scram_of_ours_is_refused() {
        for (from, to) in [
            ("n,,", "p=tls-server-end-point,,"),
            ("n,,", "n,a=somebody,"),
            ("n,,", "n,,m=x,"),
            ("r=", "q="),
        ] {
            let refused = login("obx-token", |text| text.replacen(from, to, 1)).await;
            let refused = refused.unwrap_err();
            assert!(matches!(refused, Unproved::Wire(_)), "{to}: {refused:?}");
        }
        // Another header in the second word than in the first.
        let first = ClientFirst {
            header: "y,,".into(),
            bare: String::new(),
            nonce: "a".into(),
        };
        assert!(client_final(b"c=biws,r=ab,p=AAAA", &first, "ab").is_err());
        assert!(client_final(b"c=eSws,r=ab,p=AAAA", &first, "ab").is_ok());
        assert!(client_final(b"c=eSws,r=a,p=AAAA", &first, "ab").is_err());
    }
}
