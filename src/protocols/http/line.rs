//! One agent connection, and what is known about it.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use subtle::ConstantTimeEq;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::Metrics;
use crate::net::client_socket::Watch;
use crate::net::dial::Asker;
use crate::net::passed::Passed;
use crate::process::Drain;

use super::authority::Target;
use super::outgoing::Outgoing;
use super::sentinel::Shared;
use super::upstream::Own;
use super::{Proxy, refuse};

/// A connection, or the inside of a tunnel through one.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) proxy: Arc<Proxy>,
    /// Where the tunnel leads, inside one.
    pub(super) tunnel: Option<Target>,
    /// The address that its client wanted to go to, if it knew no name of a host or did not say it.
    pub(super) captured: Option<SocketAddr>,
    pub(super) watch: Watch,
    pub(super) shared: Arc<Shared>,
    /// When it is to take nothing new.
    pub(super) drain: Drain,
    /// The connection to an origin that is for this client alone.
    pub(super) kept: Arc<Own>,
    /// For whom connections to origins are made.
    pub(super) asker: Asker,
    /// Whom CONNECT or SOCKS named, inside a tunnel.
    user: Option<Box<str>>,
    /// Counts the connection for as long as anything of it lives.
    _place: Arc<Place>,
}

/// A place among the connections that are open at once.
#[derive(Debug)]
pub(super) struct Place {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn take(metrics: &Arc<Metrics>, permit: OwnedSemaphorePermit) -> Self {
        metrics.connection_opened();
        Self {
            metrics: metrics.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connection_closed();
    }
}

impl Line {
    pub(super) fn new(proxy: Arc<Proxy>, watch: Watch, place: Place, drain: Drain) -> Arc<Self> {
        Arc::new(Self {
            proxy,
            tunnel: None,
            captured: None,
            watch,
            shared: Arc::default(),
            drain,
            kept: Arc::default(),
            asker: Asker::default(),
            user: None,
            _place: Arc::new(place),
        })
    }

    /// The inside of a tunnel through this connection.
    pub(super) fn inside(&self, target: Target, user: Option<Box<str>>) -> Arc<Self> {
        Arc::new(Self {
            tunnel: Some(target),
            captured: None,
            shared: Arc::default(),
            kept: Arc::default(),
            user,
            ..self.clone()
        })
    }

    /// The same connection, which was asked for by sidecars that have `passed` it on.
    pub(super) fn passed(self: &Arc<Self>, passed: Passed) -> Arc<Self> {
        if self.asker.passed == passed {
            return self.clone();
        }
        let from = self.asker.from;
        self.asked_by(Asker { from, passed })
    }

    /// The same connection, whose client's address origins are to see.
    pub(super) fn from_client(self: &Arc<Self>) -> Arc<Self> {
        let passed = self.asker.passed.clone();
        let from = self.watch.peer_ip();
        self.asked_by(Asker { from, passed })
    }

    fn asked_by(&self, asker: Asker) -> Arc<Self> {
        Arc::new(Self {
            asker,
            ..self.clone()
        })
    }

    /// The same connection, whose client wanted to go to `address` and speaks plain HTTP.
    pub(super) fn led_from(&self, address: SocketAddr, user: Option<Box<str>>) -> Arc<Self> {
        Arc::new(Self {
            tunnel: None,
            captured: Some(address),
            shared: Arc::default(),
            kept: Arc::default(),
            user,
            ..self.clone()
        })
    }

    /// Whom CONNECT named, inside a tunnel.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether proxy credentials with `token` are the agent's, if it has any.
    pub(super) fn is_token(&self, token: &[u8]) -> bool {
        let expected = self.proxy.agent_token.as_ref();
        expected.is_some_and(|expected| expected.expose().as_bytes().ct_eq(token).into())
    }

    /// The user name of the proxy credentials: a hint about whose the request
    /// is. None are needed; wrong ones are refused, or a typing error would
    /// silently attribute to nobody.
    pub(super) fn proxy_user(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<Box<str>>, Box<Response<Outgoing>>> {
        let Some(value) = headers.get(header::PROXY_AUTHORIZATION) else {
            return Ok(self.user.clone());
        };
        let user = credentials(value).filter(|(_, token)| self.is_token(token.as_bytes()));
        match user {
            Some((user, _)) => Ok(Some(user.into())),
            None => Err(Box::new(unauthorized())),
        }
    }
}

fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, token) = decoded.split_once(':')?;
    Some((user.to_owned(), token.to_owned()))
}

fn unauthorized() -> Response<Outgoing> {
    let mut response = refuse::last_problem(
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        "proxy_credentials_rejected",
        "the proxy credentials are not http://<context>:<agent token>@…; leave them out, or use the token in OPENBOX_SIDECAR_TOKEN",
    );
    response.headers_mut().insert(
        header::PROXY_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"openbox-sidecar\""),
    );
    response
}
