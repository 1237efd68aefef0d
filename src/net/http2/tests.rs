//! Connections to peers that are not there any more, or do not answer.

use http::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

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

/// Servers of gRPC take more than a ping in 5 minutes without data for an attack (gRFC A8).
#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_pinged_no_more_often_than_it_may_be() {
    let (ours, mut theirs) = duplex(1 << 16);
    let pings = spawn_named("peer", async move {
        let mut pings = Vec::new();
        // An empty SETTINGS, and nothing but what answers a ping.
        theirs.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        theirs.read_exact(&mut [0; 24]).await.unwrap();
        while pings.len() < 3 {
            let mut head = [0; 9];
            theirs.read_exact(&mut head).await.unwrap();
            let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            theirs.read_exact(&mut body).await.unwrap();
            if head[3] == 6 && head[4] == 0 {
                pings.push(Instant::now());
                let pong = [&b"\0\0\x08\x06\x01\0\0\0\0"[..], &body].concat();
                theirs.write_all(&pong).await.unwrap();
            }
        }
        // With its side, which is not to end before it was looked at.
        (pings, theirs)
    });
    let places = Of::new(Options::default());
    let open = async { Ok(Opened::<(), _>::Http2(TokioIo::new(ours))) };
    let reached = places.reach(&"a.test", open, |error| error).await.unwrap();
    let Reached::Http2(lease) = reached else {
        panic!("HTTP/2");
    };
    let from = Instant::now();
    let sending = lease.send(request("/never"));
    let (pings, _theirs) = tokio::select! {
        ended = sending => panic!("{ended:?}"),
        seen = pings => seen.unwrap(),
    };
    let mut before = from;
    for ping in pings {
        assert!(
            ping - before >= Duration::from_secs(300),
            "{:?}",
            ping - before
        );
        before = ping;
    }
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
    places.sweep(Instant::now());
    assert_eq!(kept(&places), 1, "the doubted one is closed");
}

/// How many connections to the one place are kept.
fn kept(places: &Of) -> usize {
    let place = places.place(&"a.test");
    lock(&place.inside).connections.len()
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_are_kept_without_a_request_than_are_wanted() {
    for idle_max in [0, 1, 2] {
        let options = Options {
            idle_max,
            ..Options::default()
        };
        let (places, mut opened) = (Of::new(options), 0);
        let mut leases = Vec::new();
        for _ in 0..STREAMS_MAX * 2 + 1 {
            leases.push(lease(&places, &mut opened).await);
        }
        assert_eq!((opened, kept(&places)), (3, 3));
        let last = leases.pop().unwrap();
        drop(leases);
        assert_eq!(kept(&places), idle_max + 1, "one has a request");
        let answer = last.send(request("/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(kept(&places), idle_max + 1, "its answer is not read");
        drop(answer);
        assert_eq!(kept(&places), idle_max);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_allows_is_known_soon_after_it_said_so() {
    let (ours, theirs) = duplex(1 << 16);
    drop(spawn_named("peer", async move {
        tokio::time::sleep(LOOKS[0]).await;
        let mut serving = h2::server::Builder::new();
        serving.max_concurrent_streams(3);
        let mut connection = serving.handshake::<_, Bytes>(theirs).await.unwrap();
        while connection.accept().await.is_some() {}
    }));
    let places = Of::new(Options::default());
    let connection = places.start(TokioIo::new(ours)).await.unwrap();
    tokio::time::sleep(LOOKS.iter().sum()).await;
    assert_eq!(connection.load.allowed.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_place_full_of_doubted_connections_gets_another() {
    let (places, mut opened) = (Of::new(Options::default()), 0);
    let mut leases = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let lease = lease(&places, &mut opened).await;
        lease.doubt().raise();
        leases.push(lease);
    }
    assert_eq!(opened, CONNECTIONS_MAX);
    drop(lease(&places, &mut opened).await);
    assert_eq!(opened, CONNECTIONS_MAX + 1);
}
