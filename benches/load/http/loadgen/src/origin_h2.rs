//! The origin over HTTP/2: the small body, and calls of gRPC.

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::content::Content;
use crate::grpc::{self, Call};
use crate::multiplexed::WINDOW_BYTES;
use crate::tls::ALPN_HTTP_2;

/// Serves one connection until the client closes it.
pub(crate) async fn serve(stream: TlsStream<TcpStream>) {
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP_2) {
        return eprintln!("loadgen: a client that does not speak HTTP/2");
    }
    let handshake = Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake::<_, Bytes>(stream);
    // Peers end connections in many ways; what that does to a request is told by the client.
    let Ok(mut connection) = handshake.await else {
        return;
    };
    let body = Bytes::from(Content::Small.answer());
    let message = Bytes::from(grpc::message());
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.method() == Method::POST {
            tokio::spawn(answer(request, respond, message.clone()));
        } else {
            drop(send_body(respond, body.clone()));
        }
    }
}

fn send_body(mut respond: SendResponse<Bytes>, body: Bytes) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    let plain = HeaderValue::from_static("text/plain");
    head.headers_mut().insert(CONTENT_TYPE, plain);
    respond.send_response(head, false)?.send_data(body, true)
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, message: Bytes) {
    let path = request.uri().path();
    let call = Call::ALL.into_iter().find(|call| call.path() == path);
    let read = is_exactly(request.into_body(), &message).await;
    match call {
        Some(call) if read => drop(send_messages(&mut respond, call, &message)),
        Some(_) | None => respond.send_reset(Reason::PROTOCOL_ERROR),
    }
}

async fn is_exactly(mut body: RecvStream, expected: &[u8]) -> bool {
    let mut rest = expected;
    while let Some(data) = body.data().await {
        let Some((data, after)) = data
            .ok()
            .and_then(|data| Some((data.len(), rest.strip_prefix(&*data)?)))
        else {
            return false;
        };
        rest = after;
        if body.flow_control().release_capacity(data).is_err() {
            return false;
        }
    }
    rest.is_empty()
}

/// Each message in a frame of its own, as servers of gRPC write them. All are queued at once: a call fits the window.
fn send_messages(
    respond: &mut SendResponse<Bytes>,
    call: Call,
    message: &Bytes,
) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    let kind = HeaderValue::from_static(grpc::CONTENT);
    head.headers_mut().insert(CONTENT_TYPE, kind);
    let mut sending = respond.send_response(head, false)?;
    for _ in 0..call.messages() {
        sending.send_data(message.clone(), false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert(grpc::STATUS, HeaderValue::from_static("0"));
    sending.send_trailers(trailers)
}
