//! Connections against real servers that behave in every way they can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::process::spawn_named;

type Sent = UnsyncBoxBody<Bytes, std::io::Error>;
type TestPool = Pool<&'static str, Sent>;

const KEEP: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nok\r\n0\r\n\r\n";

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(address: SocketAddr) -> ClientConnection<Sent> {
    let stream = TcpStream::connect(address).await.unwrap();
    ClientConnection::open(TokioIo::new(stream), Options::default())
        .await
        .unwrap()
}

async fn pooled(pool: &TestPool, address: SocketAddr) -> ClientConnection<Sent> {
    pool.adopt("a", connect(address).await)
}

fn request(method: &str, body: Sent) -> Request<Sent> {
    Request::builder()
        .method(method)
        .uri("/x")
        .header("host", "a.example")
        .body(body)
        .unwrap()
}

fn none() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(text: &'static str) -> Sent {
    Full::from(text)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that sends what the test says, and ends when the test says so.
struct Fed(mpsc::Receiver<&'static str>);

impl Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|text| text.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

fn fed() -> (mpsc::Sender<&'static str>, Sent) {
    let (feed, fed) = mpsc::channel(4);
    (feed, Fed(fed).boxed_unsync())
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.ok()?;
        seen.push(byte);
    }
    Some(String::from_utf8(seen).unwrap())
}

/// Waits until the peer is gone, in either way it may go.
async fn gone(stream: &mut TcpStream) {
    let mut buffer = [0_u8; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

/// The whole body as text, and its trailers' names.
async fn read(mut body: DrivenBody<Sent>) -> Result<String, hyper::Error> {
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
            Err(frame) => {
                for name in frame.trailers_ref().unwrap().keys() {
                    text.push_str(&format!("[{name}]"));
                }
            }
        }
    }
    Ok(text)
}

/// Answers every request of every connection with `answer`, and closes after
/// `answers` of them. Counts connections accepted, and those still open.
fn serve(
    listener: TcpListener,
    answer: &'static str,
    answers: usize,
) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (accepted, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let counts = (Arc::clone(&accepted), Arc::clone(&open));
    drop(spawn_named("test server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            open.fetch_add(1, Ordering::SeqCst);
            let open = Arc::clone(&open);
            drop(spawn_named("test connection", async move {
                for _ in 0..answers {
                    if head(&mut stream).await.is_none() {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                open.fetch_sub(1, Ordering::SeqCst);
            }));
        }
    }));
    counts
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_no_task_is_started_for_it() {
    let (listener, address) = listen().await;
    let (accepted, _) = serve(listener, KEEP, usize::MAX);
    let pool = TestPool::new(PoolSettings::default());
    let mut connection = Some(pooled(&pool, address).await);
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let connection = connection.take().or_else(|| pool.take(&"a")).unwrap();
        let response = connection.send(request("GET", none())).await.unwrap();
        // The body came with the head: the connection is free before it is read.
        assert_eq!(pool.idle(), 1);
        assert_eq!(read(response.into_body()).await.unwrap(), "ok");
        tasks.push(
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
        );
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!(pool.idle(), 1);
    // The server's two.
    assert_eq!(tasks, [2; 20]);
}

#[tokio::test]
async fn an_exchange_wakes_its_task_once() {
    for answer in [KEEP, CHUNKED] {
        let (listener, address) = listen().await;
        serve(listener, answer, usize::MAX);
        let pool = TestPool::new(PoolSettings::default());
        let mut connection = Some(pooled(&pool, address).await);
        let mut polls = Vec::new();
        for _ in 0..10 {
            let connection = connection.take().or_else(|| pool.take(&"a")).unwrap();
            let mut exchange = pin!(async {
                let response = connection.send(request("GET", none())).await.unwrap();
                read(response.into_body()).await.unwrap()
            });
            let mut polled = 0;
            poll_fn(|cx| {
                polled += 1;
                exchange.as_mut().poll(cx)
            })
            .await;
            polls.push(polled);
        }
        // Once to write, once when the answer is there.
        assert_eq!(polls, [2; 10], "{answer}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_exactly_when_both_sides_keep_it() {
    // method, answer, body as read, kept
    let table = [
        ("GET", KEEP, "ok", true),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "",
            true,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            "",
            true,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
            "",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: a-sum\r\n\r\n2\r\nok\r\n0\r\na-sum: 1\r\n\r\n",
            "ok[a-sum]",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\n\r\nuntil the end",
            "until the end",
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more",
            "ok",
            false,
        ),
    ];
    for (method, answer, body, kept) in table {
        let (listener, address) = listen().await;
        // A body that ends with the connection needs its end.
        let answers = if body.starts_with("until") {
            1
        } else {
            usize::MAX
        };
        let (_, open) = serve(listener, answer, answers);
        let pool = TestPool::new(PoolSettings::default());
        let connection = pooled(&pool, address).await;
        let response = connection.send(request(method, none())).await.unwrap();
        assert_eq!(read(response.into_body()).await.unwrap(), body, "{answer}");
        assert_eq!(pool.idle(), usize::from(kept), "{answer}");
        if !kept {
            until("the server sees the end", || {
                open.load(Ordering::SeqCst) == 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_last_byte_frees_the_connection_unasked() {
    let (listener, address) = listen().await;
    let pool = TestPool::new(PoolSettings::default());
    let connection = pooled(&pool, address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let (response, ()) = tokio::join!(connection.send(request("GET", none())), async {
        head(&mut server).await.unwrap();
        server
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
            .await
            .unwrap();
    });
    let mut body = response.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(pool.idle(), 0);
    server.write_all(b"cd").await.unwrap();
    body.frame().await.unwrap().unwrap();
    // Whoever reads by length never asks for the end.
    assert!(body.is_end_stream());
    assert_eq!(pool.idle(), 1);
}

#[tokio::test]
async fn frames_arrive_before_the_body_ends() {
    let (listener, address) = listen().await;
    let connection = connect(address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let (response, ()) = tokio::join!(connection.send(request("GET", none())), async {
        head(&mut server).await.unwrap();
        let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        server.write_all(start).await.unwrap();
    });
    let mut body = response.unwrap().into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let (frame, ()) = tokio::join!(body.frame(), async {
            server.write_all(chunk.as_bytes()).await.unwrap();
        });
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
    }
}

/// Puts a connection into `pool` whose peer is returned.
async fn idle_with_peer(pool: &TestPool) -> tokio::io::DuplexStream {
    // Not a socket: its end is seen at once, without waiting for a reactor.
    let (io, mut peer) = tokio::io::duplex(1024);
    let connection = ClientConnection::open(TokioIo::new(io), Options::default())
        .await
        .unwrap();
    let connection = pool.adopt("a", connection);
    let (response, ()) = tokio::join!(connection.send(request("GET", none())), async {
        head(&mut peer).await.unwrap();
        peer.write_all(KEEP.as_bytes()).await.unwrap();
    });
    read(response.unwrap().into_body()).await.unwrap();
    peer
}

#[tokio::test]
async fn a_connection_its_peer_closed_or_spoke_on_is_never_used() {
    let pool = TestPool::new(PoolSettings::default());
    let closed = idle_with_peer(&pool).await;
    assert_eq!(pool.idle(), 1);
    drop(closed);
    assert!(pool.take(&"a").is_none());

    let mut spoke = idle_with_peer(&pool).await;
    spoke.write_all(KEEP.as_bytes()).await.unwrap();
    assert!(pool.take(&"a").is_none());

    let _open = idle_with_peer(&pool).await;
    let closed = idle_with_peer(&pool).await;
    drop(closed);
    assert!(pool.take(&"a").is_some());
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn a_sweep_closes_what_peers_closed_and_nothing_else() {
    let pool = TestPool::new(PoolSettings::default());
    let closed = idle_with_peer(&pool).await;
    let _open = idle_with_peer(&pool).await;
    assert_eq!(pool.idle(), 2);
    drop(closed);
    pool.sweep(Instant::now());
    assert_eq!(pool.idle(), 1);
    assert!(pool.take(&"a").is_some());
}

#[tokio::test]
async fn a_request_nothing_of_which_was_written_comes_back() {
    let (listener, address) = listen().await;
    let stream = TcpStream::connect(address).await.unwrap();
    drop(listener.accept().await.unwrap());
    stream.readable().await.unwrap();
    let connection = ClientConnection::<Sent>::open(TokioIo::new(stream), Options::default())
        .await
        .unwrap();
    let error = connection
        .send(request("POST", full("x")))
        .await
        .unwrap_err();
    assert_eq!(error.request.unwrap().method(), "POST");
    assert!(!error.reused);
}

#[tokio::test]
async fn a_request_that_was_written_does_not_come_back() {
    for answer in [
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 2",
        "nonsense\r\n\r\n",
    ] {
        let (listener, address) = listen().await;
        serve(listener, answer, 1);
        let pool = TestPool::new(PoolSettings::default());
        let connection = pooled(&pool, address).await;
        let error = connection.send(request("GET", none())).await.unwrap_err();
        assert!(error.request.is_none(), "{answer}");
        assert_eq!(pool.idle(), 0, "{answer}");
    }
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_and_no_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
    ] {
        let (listener, address) = listen().await;
        serve(listener, answer, 1);
        let pool = TestPool::new(PoolSettings::default());
        let connection = pooled(&pool, address).await;
        let response = connection.send(request("GET", none())).await.unwrap();
        assert!(read(response.into_body()).await.is_err(), "{answer}");
        assert_eq!(pool.idle(), 0, "{answer}");
    }
}

#[tokio::test]
async fn an_early_answer_ends_the_connection_and_leaks_nothing() {
    for answer in [
        "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 413 Too Large\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ] {
        let (listener, address) = listen().await;
        let pool = TestPool::new(PoolSettings::default());
        let connection = pooled(&pool, address).await;
        let (mut server, _) = listener.accept().await.unwrap();
        let (feed, body) = fed();
        let (response, ()) = tokio::join!(connection.send(request("POST", body)), async {
            head(&mut server).await.unwrap();
            server.write_all(answer.as_bytes()).await.unwrap();
        });
        let response = response.unwrap();
        assert_eq!(response.status(), 413);
        let text = read(response.into_body()).await.unwrap();
        assert!(text == "no" || text.is_empty());
        assert_eq!(pool.idle(), 0);
        gone(&mut server).await;
        // The body went with the connection.
        assert!(feed.is_closed());
    }
}

#[tokio::test]
async fn an_answer_and_a_request_body_flow_at_the_same_time() {
    let (listener, address) = listen().await;
    let pool = TestPool::new(PoolSettings::default());
    let connection = pooled(&pool, address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let (feed, body) = fed();
    let (response, ()) = tokio::join!(connection.send(request("POST", body)), async {
        head(&mut server).await.unwrap();
        let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
        server.write_all(start).await.unwrap();
    });
    let reading = read(response.unwrap().into_body());
    let (text, ()) = tokio::join!(reading, async {
        feed.send("ping").await.unwrap();
        let mut chunk = [0_u8; 9];
        server.read_exact(&mut chunk).await.unwrap();
        assert_eq!(&chunk, b"4\r\nping\r\n");
        drop(feed);
        let mut end = [0_u8; 5];
        server.read_exact(&mut end).await.unwrap();
        server.write_all(b"4\r\npong\r\n0\r\n\r\n").await.unwrap();
    });
    assert_eq!(text.unwrap(), "hipong");
    assert_eq!(pool.idle(), 1);
}

#[tokio::test]
async fn dropping_the_body_or_the_question_closes_the_connection() {
    let (listener, address) = listen().await;
    let pool = TestPool::new(PoolSettings::default());

    let connection = pooled(&pool, address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let (response, ()) = tokio::join!(connection.send(request("GET", none())), async {
        head(&mut server).await.unwrap();
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab";
        server.write_all(start).await.unwrap();
    });
    drop(response.unwrap());
    gone(&mut server).await;

    let connection = pooled(&pool, address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    tokio::select! {
        answer = connection.send(request("GET", none())) => panic!("answered: {answer:?}"),
        seen = head(&mut server) => assert!(seen.is_some()),
    }
    gone(&mut server).await;
    assert_eq!(pool.idle(), 0);
}

#[tokio::test]
async fn an_upgraded_connection_carries_the_other_protocol() {
    let (listener, address) = listen().await;
    let connection = connect(address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let mut asked = request("GET", none());
    let headers = asked.headers_mut();
    headers.insert("connection", "upgrade".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    let spawn = |_: Background| panic!("the request was sent whole");
    let (response, ()) = tokio::join!(connection.send_upgradable(asked, spawn), async {
        head(&mut server).await.unwrap();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst";
        server.write_all(answer).await.unwrap();
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 101);
    let mut upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut first = [0_u8; 5];
    upgraded.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
    upgraded.write_all(b"second").await.unwrap();
    let mut second = [0_u8; 6];
    server.read_exact(&mut second).await.unwrap();
    assert_eq!(&second, b"second");
}

#[tokio::test]
async fn a_declined_upgrade_leaves_the_connection_usable() {
    let (listener, address) = listen().await;
    let (accepted, _) = serve(listener, KEEP, usize::MAX);
    let pool = TestPool::new(PoolSettings::default());
    let connection = pooled(&pool, address).await;
    let response = connection
        .send_upgradable(request("GET", none()), |_| panic!("nothing to drive"))
        .await
        .unwrap();
    assert_eq!(read(response.into_body()).await.unwrap(), "ok");
    let again = pool.take(&"a").unwrap();
    again.send(request("GET", none())).await.unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn names_are_written_as_asked() {
    let table = [(HeaderCase::Lower, "host:"), (HeaderCase::Title, "Host:")];
    for (header_case, expected) in table {
        let (listener, address) = listen().await;
        let stream = TcpStream::connect(address).await.unwrap();
        let options = Options {
            header_case,
            ..Options::default()
        };
        let connection = ClientConnection::open(TokioIo::new(stream), options)
            .await
            .unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        tokio::select! {
            _ = connection.send(request("GET", none())) => {}
            seen = head(&mut server) => assert!(seen.unwrap().contains(expected)),
        }
    }
}

#[tokio::test]
async fn a_head_beyond_the_bound_is_an_error() {
    let (listener, address) = listen().await;
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(70_000));
    serve(listener, long.leak(), 1);
    let connection = connect(address).await;
    assert!(connection.send(request("GET", none())).await.is_err());
}

/// Puts `n` connections to `address` into `pool` under `key`.
async fn fill(pool: &TestPool, key: &'static str, address: SocketAddr, n: usize) {
    for _ in 0..n {
        let connection = pool.adopt(key, connect(address).await);
        let response = connection.send(request("GET", none())).await.unwrap();
        read(response.into_body()).await.unwrap();
    }
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_the_bounds_say() {
    let (listener, address) = listen().await;
    let (_, open) = serve(listener, KEEP, usize::MAX);
    let pool = TestPool::new(PoolSettings {
        idle_max_per_key: 2,
        idle_max: 3,
        ..PoolSettings::default()
    });
    fill(&pool, "a", address, 5).await;
    assert_eq!(pool.idle(), 2);
    fill(&pool, "b", address, 5).await;
    assert_eq!(pool.idle(), 3);
    until("the others are closed", || open.load(Ordering::SeqCst) == 3).await;
    drop(pool);
    until("all are closed", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn what_was_idle_for_too_long_is_closed() {
    let (listener, address) = listen().await;
    let (_, open) = serve(listener, KEEP, usize::MAX);
    let pool = TestPool::new(PoolSettings::default());
    let limit = PoolSettings::default().idle_for_max;
    fill(&pool, "a", address, 2).await;
    fill(&pool, "b", address, 1).await;
    pool.sweep(Instant::now());
    assert_eq!(pool.idle(), 3);
    tokio::time::pause();
    tokio::time::advance(limit + Duration::from_millis(1)).await;
    assert!(pool.take(&"a").is_none());
    assert_eq!(pool.idle(), 1);
    pool.sweep(Instant::now());
    assert_eq!(pool.idle(), 0);
    tokio::time::resume();
    until("all are closed", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_connection_is_not_used_shortly_before_its_peer_will_close_it() {
    let (listener, address) = listen().await;
    let answer = "HTTP/1.1 200 OK\r\nkeep-alive: max=9, timeout=5\r\ncontent-length: 2\r\n\r\nok";
    serve(listener, answer, usize::MAX);
    let pool = TestPool::new(PoolSettings::default());
    fill(&pool, "a", address, 3).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(pool.take(&"a").is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(pool.take(&"a").is_none());
    assert_eq!(pool.idle(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn churn_leaks_neither_connections_nor_counts() {
    // Servers that close after one, two, or many answers, in every manner.
    let kinds = [
        (KEEP, 1),
        (KEEP, 2),
        (KEEP, usize::MAX),
        (CHUNKED, usize::MAX),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", 1),
        ("", 1),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            usize::MAX,
        ),
    ];
    let pool = TestPool::new(PoolSettings::default());
    let mut servers = Vec::new();
    for (answer, answers) in kinds {
        let (listener, address) = listen().await;
        let (_, open) = serve(listener, answer, answers);
        servers.push((address, open));
    }
    let keys = ["0", "1", "2", "3", "4", "5", "6"];
    let work = (0..16).map(|worker: usize| {
        let pool = Arc::clone(&pool);
        let addresses: Vec<_> = servers.iter().map(|(address, _)| *address).collect();
        spawn_named("test worker", async move {
            for n in 0..60 {
                let kind = (worker + n) % keys.len();
                let connection = match pool.take(&keys[kind]) {
                    Some(connection) => connection,
                    None => pool.adopt(keys[kind], connect(addresses[kind]).await),
                };
                if let Ok(response) = connection.send(request("GET", none())).await {
                    let body = response.into_body();
                    if n % 7 != 0 {
                        drop(read(body).await);
                    }
                }
            }
        })
    });
    for worker in work.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    until("only what is idle is open", || {
        pool.sweep(Instant::now());
        let open: usize = servers
            .iter()
            .map(|(_, open)| open.load(Ordering::SeqCst))
            .sum();
        open == pool.idle()
    })
    .await;
    drop(pool);
    until("nothing is open", || {
        servers
            .iter()
            .all(|(_, open)| open.load(Ordering::SeqCst) == 0)
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_answered_before_the_request_was_sent_is_driven_by_a_task() {
    let (listener, address) = listen().await;
    let connection = connect(address).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let (feed, body) = fed();
    let mut asked = request("POST", body);
    let headers = asked.headers_mut();
    headers.insert("connection", "upgrade".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert("content-length", "2".parse().unwrap());
    let spawn = |task| drop(spawn_named("test upgrade", task));
    let (response, ()) = tokio::join!(connection.send_upgradable(asked, spawn), async {
        head(&mut server).await.unwrap();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        server.write_all(answer).await.unwrap();
    });
    let response = response.unwrap();
    feed.send("hi").await.unwrap();
    let mut sent = [0_u8; 2];
    server.read_exact(&mut sent).await.unwrap();
    assert_eq!(&sent, b"hi");
    let mut upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    server.write_all(b"first").await.unwrap();
    let mut first = [0_u8; 5];
    upgraded.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
}
