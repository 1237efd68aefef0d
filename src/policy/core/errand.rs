//! A request that is made once in a while, over a connection of its own: who we
//! are is asked for so rarely that no connection is kept for it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use tokio::time::timeout;

use crate::net::http1::{ClientConnection, HeaderCase, Options};

use super::client::{Answered, Connector, NoAnswer, lost, read};
use super::head;
use super::settings::{ApiKey, CoreUrl, Settings};

/// Goes to Core and to identity providers.
pub(super) struct Errands {
    connector: Connector,
    core: CoreUrl,
    key: ApiKey,
    within: Duration,
    answer_bytes_max: usize,
}

impl fmt::Debug for Errands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errands")
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}

/// One errand.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    pub(super) method: Method,
    /// Behind the base of the URL, query included; checked by whoever asks.
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Errands {
    pub(super) fn new(settings: &Settings, connector: Connector) -> Self {
        Self {
            connector,
            core: settings.url.clone(),
            key: settings.key.clone(),
            within: settings.answer_within,
            answer_bytes_max: settings.answer_bytes_max,
        }
    }

    pub(super) fn key(&self) -> &ApiKey {
        &self.key
    }

    /// Asks Core for a document about ourselves.
    pub(super) async fn bootstrap(&self, path: &str) -> Result<Answered, NoAnswer> {
        let errand = Errand {
            method: Method::GET,
            path,
            headers: head::bootstrap(&self.core, &self.key),
            body: Bytes::new(),
        };
        self.run(&self.core, errand).await
    }

    /// Sends a filled-in form to `url` itself.
    pub(super) async fn form(&self, url: &CoreUrl, form: String) -> Result<Answered, NoAnswer> {
        let errand = Errand {
            method: Method::POST,
            path: "",
            headers: head::token(url),
            body: form.into(),
        };
        self.run(url, errand).await
    }

    /// Runs one errand at `url`, within the time a question has. Cancel-safe.
    pub(super) async fn run(
        &self,
        url: &CoreUrl,
        errand: Errand<'_>,
    ) -> Result<Answered, NoAnswer> {
        let answered = timeout(self.within, self.exchange(url, errand)).await;
        answered.unwrap_or(Err(NoAnswer::TooSlow(self.within)))
    }

    async fn exchange(&self, url: &CoreUrl, errand: Errand<'_>) -> Result<Answered, NoAnswer> {
        let path = format!("{}{}", url.base(), errand.path);
        let mut request = Request::new(Full::new(errand.body));
        *request.method_mut() = errand.method;
        *request.headers_mut() = errand.headers;
        *request.uri_mut() = Uri::try_from(path)
            .map_err(|error| NoAnswer::Unreachable(std::io::Error::other(error)))?;
        let io = (self.connector)(url).await.map_err(NoAnswer::Unreachable)?;
        let options = Options {
            header_case: HeaderCase::Title,
            ..Options::default()
        };
        let connection = ClientConnection::open(io, options)
            .await
            .map_err(NoAnswer::BrokeOff)?;
        let response = connection.send(request).await.map_err(lost)?;
        read(response, self.answer_bytes_max).await
    }
}
