//! Connections to peers that are not there any more, or do not answer.

use http::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, duplex};

use super::*;

type Of = Places<&'static str, String, hyper::Error>;

/// Serves one connection: answers what is not for `/never`, and is gone with the one for `/gone`, of
/// which nothing tells the other side.
async fn serve(io: DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        match request.uri().path() {
            "/never" => drop(spawn_named("never", async move {
                std::future::pending::<()>().await;
                drop(respond);
            })),
            "/gone" => std::future::pending().await,
            _ => {
                let response = Response::builder().status(StatusCode::NO_CONTENT);
                respond
                    .send_response(response.body(()).unwrap(), true)
                    .unwrap();
            }
        }
    }
}

/// A way there, over a connection there is or one that is opened and counted.
async fn lease(places: &Of, opened: &mut usize) -> Lease<String> {
    let before = *opened;
    let open = async {
        let (ours, theirs) = duplex(1 << 16);
        drop(spawn_named("peer", serve(theirs)));
        *opened = before + 1;
        Ok(Opened::<(), _>::Http2(TokioIo::new(ours)))
    };
    match places.reach(&"a.test", open, |error| error).await.unwrap() {
        Reached::Http2(lease) => lease,
        Reached::Http1(_) => panic!("HTTP/2"),
    }
}

fn request(path: &str) -> Request<String> {
    let uri = format!("http://a.test{path}");
    Request::builder().uri(uri).body(String::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_gone_is_found_out_and_not_asked_again() {
    let (places, mut opened) = (Of::new(Options::default()), 0);
    let first = lease(&places, &mut opened).await;
    let from = Instant::now();
    let error = first.send(request("/gone")).await.unwrap_err().error;
    let after = from.elapsed();
    assert!(after >= PING_EVERY, "{after:?}: {error}");
    assert!(
        after <= (PING_EVERY + PONG_WITHIN) * 2,
        "{after:?}: {error}"
    );
    let second = lease(&places, &mut opened).await;
    let answer = second.send(request("/")).await.unwrap();
    assert_eq!((answer.status(), opened), (StatusCode::NO_CONTENT, 2));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slow_is_there() {
    let (places, mut opened) = (Of::new(Options::default()), 0);
    let slow = lease(&places, &mut opened).await;
    let sending = slow.send(request("/never"));
    let ended = tokio::time::timeout(PING_EVERY * 20, sending).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_doubted_finishes_what_it_has_and_gets_nothing_more() {
    let (places, mut opened) = (Of::new(Options::default()), 0);
    let first = lease(&places, &mut opened).await;
    let doubt = first.doubt();
    let second = lease(&places, &mut opened).await;
    assert_eq!(opened, 1, "they share");
    doubt.raise();
    let third = lease(&places, &mut opened).await;
    assert_eq!(opened, 2);
    for lease in [first, second, third] {
        let answer = lease.send(request("/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
    let connections = |places: &Of| {
        let place = places.place(&"a.test");
        lock(&place.inside).connections.len()
    };
    places.sweep(Instant::now());
    assert_eq!(connections(&places), 1, "the doubted one is closed");
}
