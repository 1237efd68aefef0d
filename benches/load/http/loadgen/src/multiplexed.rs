//! Closed-loop load over HTTP/2: each connection has some streams, and each of those one request in flight.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client;
use crate::content::SMALL_PATH;
use crate::grpc::{self, Call};
use crate::plan::{ANSWER_WITHIN, ERROR_PAUSE, Mode, Plan};
use crate::tally::Tally;
use crate::tls::ALPN_HTTP_2;

/// Bytes that may be under way to either end, on a stream and on a connection: what gRPC libraries allow.
pub(crate) const WINDOW_BYTES: u32 = 1024 * 1024;

/// One connection, opened again when it is lost.
pub(crate) async fn work(plan: Rc<Plan>, tally: Rc<RefCell<Tally>>) {
    while plan.goes_on(&tally.borrow()) {
        let opened = timeout(ANSWER_WITHIN, open(&plan))
            .await
            .unwrap_or_else(|_| Err(too_late()));
        let sender = match opened {
            Ok(sender) => sender,
            Err(error) => {
                tally.borrow_mut().failed(error);
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let mut streams = JoinSet::new();
        for _ in 0..plan.streams {
            streams.spawn_local(ask_in_turn(
                Rc::clone(&plan),
                Rc::clone(&tally),
                sender.clone(),
            ));
        }
        drop(sender);
        while streams.join_next().await.is_some() {}
    }
}

async fn open(plan: &Plan) -> Result<SendRequest<Bytes>, String> {
    let (config, name) = plan.tls.as_ref().ok_or("HTTP/2 is spoken over TLS")?;
    let connection = plan.open().await?;
    let connection = client::secure(connection, Arc::clone(config), name.clone()).await?;
    let stream = connection.into_stream();
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP_2) {
        return Err("HTTP/2 was not agreed on".to_owned());
    }
    let (sender, connection) = Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| format!("HTTP/2 handshake: {error}"))?;
    // What ends it is told to every request.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// Makes one request after the other, until the run or the connection is over.
async fn ask_in_turn(plan: Rc<Plan>, tally: Rc<RefCell<Tally>>, sender: SendRequest<Bytes>) {
    let question = match Question::new(&plan) {
        Ok(question) => question,
        Err(error) => return tally.borrow_mut().failed(error),
    };
    while plan.goes_on(&tally.borrow()) {
        let begun = Instant::now();
        let outcome = timeout(ANSWER_WITHIN, question.ask(&sender))
            .await
            .unwrap_or_else(|_| Err(too_late()));
        if let Err(error) = outcome {
            tally.borrow_mut().failed(error);
            return tokio::time::sleep(ERROR_PAUSE).await;
        }
        tally.borrow_mut().answered(
            begun,
            Instant::now(),
            plan.measured_from,
            question.answered_by,
        );
    }
}

/// A request, and what must come of it: `answered_by` times `unit`.
struct Question {
    request: Request<()>,
    body: Option<Bytes>,
    unit: Vec<u8>,
    answered_by: usize,
    call: Option<Call>,
}

impl Question {
    fn new(plan: &Plan) -> Result<Self, String> {
        let call = match plan.mode {
            Mode::GrpcUnary => Some(Call::Unary),
            Mode::GrpcStream => Some(Call::Stream),
            Mode::H2 | Mode::Plain | Mode::Tls | Mode::TlsNew => None,
        };
        let request = Request::builder()
            .version(Version::HTTP_2)
            .header(USER_AGENT, "loadgen");
        let request = match call {
            None => request.uri(format!("https://{}{SMALL_PATH}", plan.authority)),
            Some(call) => request
                .method(Method::POST)
                .uri(format!("https://{}{}", plan.authority, call.path()))
                .header(CONTENT_TYPE, grpc::CONTENT)
                .header(TE, "trailers"),
        };
        Ok(Self {
            request: request.body(()).map_err(|error| error.to_string())?,
            body: call.map(|_| grpc::message().into()),
            unit: call.map_or_else(|| plan.answer.clone(), |_| grpc::message()),
            answered_by: call.map_or(1, Call::messages),
            call,
        })
    }

    async fn ask(&self, sender: &SendRequest<Bytes>) -> Result<(), String> {
        let mut sender = sender.clone().ready().await.map_err(lost)?;
        let (answer, mut sending) = sender
            .send_request(self.request.clone(), self.body.is_none())
            .map_err(lost)?;
        if let Some(body) = &self.body {
            sending.send_data(body.clone(), true).map_err(lost)?;
        }
        let (head, mut body) = answer.await.map_err(lost)?.into_parts();
        let is_expected = head.status == StatusCode::OK
            && (self.call.is_none() || head.headers.get(CONTENT_TYPE).is_some_and(is_grpc));
        if !is_expected {
            let told = head.headers.get(grpc::MESSAGE);
            return Err(format!("{}, {told:?}", head.status));
        }
        self.read(&mut body, &head.headers).await?;
        let trailers = body.trailers().await.map_err(lost)?;
        match self.call {
            None => Ok(()),
            Some(_) => grpc::succeeded(trailers.as_ref()),
        }
    }

    /// Reads to the end, and compares each byte.
    async fn read(&self, body: &mut RecvStream, head: &HeaderMap) -> Result<(), String> {
        let mut received = 0;
        while let Some(data) = body.data().await {
            let data = data.map_err(lost)?;
            let mut rest: &[u8] = &data;
            while !rest.is_empty() {
                let at = received % self.unit.len();
                let expected = self.unit.get(at..).unwrap_or_default();
                let bytes = rest.len().min(expected.len());
                let (now, later) = rest.split_at(bytes);
                if Some(now) != expected.get(..bytes) {
                    return Err(format!("unexpected body at byte {received}"));
                }
                received += bytes;
                rest = later;
            }
            let bytes = data.len();
            body.flow_control().release_capacity(bytes).map_err(lost)?;
        }
        if received == self.unit.len() * self.answered_by {
            return Ok(());
        }
        let told = head.get(grpc::STATUS);
        Err(format!(
            "unexpected body of {received} bytes, grpc-status {told:?}"
        ))
    }
}

fn is_grpc(value: &http::HeaderValue) -> bool {
    value == grpc::CONTENT
}

fn lost(error: h2::Error) -> String {
    format!("HTTP/2: {error}")
}

fn too_late() -> String {
    format!("no answer within {} s", ANSWER_WITHIN.as_secs())
}
