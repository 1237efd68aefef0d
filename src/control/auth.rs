//! Who may speak to a local API: bearer tokens, and a guard against pages in a
//! browser that reach loopback under a name of their own (DNS rebinding).

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, StatusCode};
use subtle::ConstantTimeEq;

use crate::metrics::{LimitHit, Metrics};
use crate::redact::Secret;

use super::problem::Problem;
use super::rate::Rate;

/// Longest token, bytes.
const TOKEN_BYTES_MAX: u64 = 512;

const AGENT_PREFIX: &str = "obx_test_";

/// What keys for Core may begin with too, and so what SDKs accept.
const LIVE_PREFIX: &str = "obx_live_";

/// Shortest of what stands behind the prefix of an agent's token that somebody
/// else made, bytes: 32 hex digits are 128 bits.
const MADE_BYTES_MIN: usize = 32;

const OPERATOR_PREFIX: &str = "obxop_";

/// A bearer token. Shows itself to nobody who prints it.
#[derive(Clone, Debug)]
pub struct Token(Secret);

impl Token {
    /// A fresh token for the agent. It has the shape of an API key, so that
    /// SDKs accept it as one.
    pub fn for_agent() -> Self {
        Self::fresh(AGENT_PREFIX)
    }

    /// A fresh token for the operator.
    pub fn for_operator() -> Self {
        Self::fresh(OPERATOR_PREFIX)
    }

    fn fresh(prefix: &str) -> Self {
        let (high, low) = rand::random::<(u128, u64)>();
        Self(Secret::new(format!("{prefix}{high:032x}{low:016x}")))
    }

    /// Takes a token that somebody else made.
    ///
    /// # Errors
    /// It is empty, too long, or cannot stand in a header.
    pub fn new(text: String) -> Result<Self, TokenError> {
        let text = Secret::new(text);
        let trimmed = text.expose().trim();
        let length = u64::try_from(trimmed.len()).unwrap_or(u64::MAX);
        let fits = trimmed.bytes().all(|byte| byte.is_ascii_graphic());
        if trimmed.is_empty() || length > TOKEN_BYTES_MAX || !fits {
            return Err(TokenError::NotAToken);
        }
        Ok(Self(Secret::new(trimmed.to_owned())))
    }

    /// Takes an agent's token that somebody else made. It has the shape of an
    /// API key, so that SDKs accept it as one, and is too long to be guessed.
    ///
    /// # Errors
    /// It has another shape, or is too short.
    pub fn of_agent(secret: Secret) -> Result<Self, TokenError> {
        let text = secret.expose();
        let made = [AGENT_PREFIX, LIVE_PREFIX]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .ok_or(TokenError::NotOfAnAgent)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if made.len() < MADE_BYTES_MIN || !made.bytes().all(allowed) {
            return Err(TokenError::NotOfAnAgent);
        }
        Self::new(text.to_owned())
    }

    /// Reads a token from a file; white space around it is not part of it.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let read = || -> io::Result<String> {
            let mut text = String::new();
            let file = std::fs::File::open(path)?;
            file.take(TOKEN_BYTES_MAX.saturating_add(2))
                .read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|source| TokenError::Unreadable {
            path: path.to_path_buf(),
            source,
        })?;
        Self::new(text)
    }

    /// Writes it to a file that only this user can read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = zeroize::Zeroizing::new(format!("{}\n", self.expose()));
        write_private(path, text.as_bytes())
    }

    /// The token itself, for whoever must hand it on.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Whether `presented` is this token. Takes the same time wherever they differ.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.expose().as_bytes().ct_eq(presented).into()
    }
}

/// Something that is no token.
#[derive(Debug)]
pub enum TokenError {
    /// Its file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is empty, too long, or has characters that no header can carry.
    NotAToken,
    /// It has not the shape of an agent's.
    NotOfAnAgent,
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(
                    f,
                    "the token file {} cannot be read: {source}",
                    path.display()
                )
            }
            Self::NotOfAnAgent => f.write_str("what is there is no token of an agent"),
            Self::NotAToken => write!(
                f,
                "found no token; expected one word of at most {TOKEN_BYTES_MAX} visible ASCII characters"
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// Writes `content` under `path` so that nobody ever sees half of it and only
/// this user sees any of it (mode 0600).
///
/// # Errors
/// The folder cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{:016x}", rand::random::<u64>()));
    let fresh = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(content)?;
        std::fs::rename(&fresh, path)
    };
    write().inspect_err(|_| drop(std::fs::remove_file(&fresh)))
}

/// What guards one listener.
#[derive(Debug)]
pub struct Guard {
    /// The token of this API, and of no other.
    pub token: Token,
    /// Where the listener is bound; `None` where it is at a path alone.
    pub address: Option<SocketAddr>,
}

/// Puts `guard` in front of every route of `router`, and behind it a turn of
/// `rate`: who has not the token takes none.
pub(in crate::control) fn guarded(router: Router, guard: Guard, turns: Turns) -> Router {
    router
        .layer(middleware::from_fn_with_state(turns, wait_for_turn))
        .layer(middleware::from_fn_with_state(Arc::new(guard), check))
}

/// How fast requests are taken.
#[derive(Clone, Debug)]
pub(in crate::control) struct Turns {
    pub(in crate::control) rate: Arc<Rate>,
    pub(in crate::control) metrics: Arc<Metrics>,
}

async fn wait_for_turn(State(turns): State<Turns>, request: Request, next: Next) -> Response {
    if turns.rate.turn().await.is_ok() {
        return next.run(request).await;
    }
    turns.metrics.limit_hit(LimitHit::Requests);
    let detail = "more requests a second than this sidecar takes; try again";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).into_response()
}

/// The same for what answers in words of its own: `Ok` if the request may pass.
///
/// # Errors
/// It is foreign, or has not the token.
pub(in crate::control) fn admitted(guard: &Guard, request: &Request) -> Result<(), Problem> {
    guard.place(request.headers(), request.uri().authority())?;
    guard.bearer(request.headers())
}

async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match admitted(&guard, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Guard {
    /// Whether the request was meant for this listener, and by no foreign page.
    fn place(&self, headers: &HeaderMap, target: Option<&Authority>) -> Result<(), Problem> {
        let host = only(headers, &HOST).ok_or_else(|| {
            foreign("there must be one Host header, with a loopback name or address".to_owned())
        })?;
        let authority: Option<Authority> = host.parse().ok();
        let ours = authority.as_ref().filter(|host| self.is_ours(host));
        let Some(ours) = ours.filter(|ours| target.is_none_or(|target| target == *ours)) else {
            let shown: String = host.chars().take(100).collect();
            return Err(foreign(format!(
                "Host is \"{shown}\"; expected a loopback name or address, for example {}",
                self.example()
            )));
        };
        if headers.contains_key(ORIGIN) {
            let origin = only(headers, &ORIGIN).unwrap_or_default();
            let same = origin
                .strip_prefix("http://")
                .and_then(|origin| origin.parse::<Authority>().ok())
                .is_some_and(|origin| origin == *ours);
            if !same {
                return Err(foreign(
                    "pages of another origin may not call it".to_owned(),
                ));
            }
        }
        // Browsers leave Origin out of some cross-site requests, but never this.
        match only(headers, &HeaderName::from_static("sec-fetch-site")) {
            Some("cross-site" | "same-site") => {
                Err(foreign("pages of another site may not call it".to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn example(&self) -> String {
        let address = self.address.map(|address| address.to_string());
        address.unwrap_or_else(|| "localhost".to_owned())
    }

    fn is_ours(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                let own = self.address.map(|address| address.ip().to_canonical());
                // Rebinding needs a name: where we listen on every address, any
                // address literal is one of ours.
                ip.is_loopback() || own.is_some_and(|own| ip == own || own.is_unspecified())
            }
            Err(_) => {
                let name = bare.to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }

    fn bearer(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let refused = |detail: &str| {
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                detail,
            ))
        };
        if !headers.contains_key(AUTHORIZATION) {
            return refused("there is no token; send `Authorization: Bearer <token>`");
        }
        let presented = only(headers, &AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        match presented {
            Some(token) if self.token.matches(token.as_bytes()) => Ok(()),
            Some(token) if is_for_the_other(token, self.token.expose()) => refused(
                "this is the token of another API of the sidecar; agent and operator have one each",
            ),
            Some(_) => refused("the token is not the one of this sidecar"),
            None => refused("Authorization is not `Bearer <token>`"),
        }
    }
}

/// The header's value, if there is exactly one and it is text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_for_the_other(presented: &str, own: &str) -> bool {
    [AGENT_PREFIX, OPERATOR_PREFIX]
        .iter()
        .any(|prefix| presented.starts_with(prefix) && !own.starts_with(prefix))
}

fn foreign(what: String) -> Problem {
    let detail = format!("this API is for this machine only: {what}");
    Problem::new(StatusCode::FORBIDDEN, "foreign_request", detail)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn guard(address: &str) -> Guard {
        Guard {
            token: Token::for_agent(),
            address: Some(address.parse().unwrap()),
        }
    }

    #[test]
    fn only_requests_for_this_machine_pass() {
        #[rustfmt::skip]
        let table = [
            // bound              host                     passes
            ("127.0.0.1:15800", "127.0.0.1:15800",        true),
            ("127.0.0.1:15800", "localhost:1",            true),
            ("127.0.0.1:15800", "LocalHost",              true),
            ("127.0.0.1:15800", "a.localhost",            true),
            ("127.0.0.1:15800", "[::1]:15800",            true),
            ("127.0.0.1:15800", "[::ffff:127.0.0.1]",     true),
            ("127.0.0.1:15800", "127.8.8.8",              true),
            ("127.0.0.1:15800", "10.1.2.3:15800",         false),
            ("10.1.2.3:15800",  "10.1.2.3:15800",         true),
            ("0.0.0.0:15800",   "10.1.2.3:15800",         true),
            ("0.0.0.0:15800",   "evil.example:15800",     false),
            ("127.0.0.1:15800", "evil.example",           false),
            ("127.0.0.1:15800", "localhost.evil.example", false),
            ("127.0.0.1:15800", "notlocalhost",           false),
            ("127.0.0.1:15800", "127.0.0.1.evil.example", false),
            ("127.0.0.1:15800", "127.0.0.1@evil.example", false),
            ("127.0.0.1:15800", "",                       false),
        ];
        for (bound, host, passes) in table {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            let got = guard(bound).place(&headers, None);
            assert_eq!(got.is_ok(), passes, "{host} at {bound}");
        }
        assert!(guard("[::1]:1").place(&HeaderMap::new(), None).is_err());
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        #[rustfmt::skip]
        let table = [
            // header           value                     passes
            ("origin",         "http://127.0.0.1:15800", true),
            ("origin",         "https://127.0.0.1:15800", false),
            ("origin",         "http://127.0.0.1:3000",  false),
            ("origin",         "http://localhost:15800", false),
            ("origin",         "https://evil.example",   false),
            ("origin",         "null",                   false),
            ("sec-fetch-site", "cross-site",             false),
            ("sec-fetch-site", "same-site",              false),
            ("sec-fetch-site", "same-origin",            true),
            ("sec-fetch-site", "none",                   true),
        ];
        for (name, value, passes) in table {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "127.0.0.1:15800".parse().unwrap());
            headers.insert(name, value.parse().unwrap());
            let got = guard("127.0.0.1:15800").place(&headers, None);
            assert_eq!(got.is_ok(), passes, "{name}: {value}");
        }
    }

    #[test]
    fn two_hosts_or_a_host_unlike_the_target_are_refused() {
        let guard = guard("127.0.0.1:15800");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "127.0.0.1".parse().unwrap());
        let target = "evil.example".parse().unwrap();
        assert!(guard.place(&headers, Some(&target)).is_err());
        headers.append(HOST, "127.0.0.1".parse().unwrap());
        assert!(guard.place(&headers, None).is_err());
    }

    #[test]
    fn tokens_have_their_shape_and_show_nothing() {
        for (token, prefix) in [
            (Token::for_agent(), "obx_test_"),
            (Token::for_operator(), "obxop_"),
        ] {
            let random = token.expose().strip_prefix(prefix).unwrap();
            assert_eq!(random.len(), 48);
            assert!(random.bytes().all(|b| b.is_ascii_hexdigit()));
            assert!(!format!("{token:?}").contains(random));
            assert!(token.matches(token.expose().as_bytes()));
            assert!(!token.matches(&token.expose().as_bytes()[1..]));
        }
        assert_ne!(Token::for_agent().expose(), Token::for_agent().expose());
    }

    #[test]
    fn a_token_file_is_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent-token");
        std::fs::write(&path, "older").unwrap();
        let token = Token::for_agent();
        token.write(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            Token::read(&path)
                .unwrap()
                .matches(token.expose().as_bytes())
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        for bad in ["", "  \n", "two words", &"x".repeat(600)] {
            std::fs::write(&path, bad).unwrap();
            assert!(Token::read(&path).is_err(), "{bad:?}");
        }
    }
}
