//! Serving a router with bounds on everything a client can make last: `axum`'s
//! own loop has none.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::domain::Process;
use crate::metrics::{LimitHit, Metrics};
use crate::net::caller::Callers;
use crate::net::client_socket::ClientSocket;
use crate::net::listen_at::Listening;
use crate::process::{Drain, spawn_named};

/// Largest head of a request, bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The process that a request comes from, then its parents, where that is known.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct Caller(pub(in crate::control) Arc<[Process]>);

/// What one listener of a local API bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once; the next one waits in the kernel's backlog.
    pub connections_max: usize,
    /// Longest time a request's head may take, and an idle connection may idle.
    pub head_within: Duration,
    /// How long a request in flight may go on after the drain has begun.
    pub grace: Duration,
    /// Whether requests tell which process they come from.
    pub callers: Callers,
}

impl Limits {
    /// For the agent's and the operator's API.
    pub const API: Self = Self {
        connections_max: 4_096,
        head_within: Duration::from_secs(10),
        grace: Duration::from_secs(5),
        callers: Callers::Unknown,
    };

    /// For health and metrics.
    pub const HEALTH: Self = Self {
        connections_max: 64,
        ..Self::API
    };
}

/// Serves `router` until the drain begins; requests in flight then have
/// [`Limits::grace`]. `name` is what its tasks are called.
pub async fn serve(
    name: &'static str,
    listener: Listening,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    mut drain: Drain,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        if slots.available_permits() == 0 {
            metrics.limit_hit(LimitHit::Connections);
        }
        let next = async {
            // Never closed, so there is always a slot in the end.
            let slot = slots.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, socket) = tokio::select! {
            next = next => next,
            () = drain.begun() => return,
        };
        let (router, drain) = (router.clone(), drain.clone());
        drop(spawn_named(name, async move {
            connection(socket, router, limits, drain).await;
            drop(slot);
        }));
    }
}

async fn connection(mut socket: ClientSocket, router: Router, limits: Limits, mut drain: Drain) {
    socket.identify(limits.callers).await;
    let caller = Caller(socket.callers().into());
    let service = service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), caller.clone(), request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = drain.begun() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.grace, serving).await {
                Ok(served) => served,
                Err(_) => return tracing::debug!("a request was cut off by the end of the process"),
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of a local API ended early");
    }
}

async fn answer(
    router: Router,
    caller: Caller,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(caller);
    router.oneshot(request).await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;
    use crate::control::testing::read_some;
    use crate::net::listen_at::At;
    use crate::process::drain;

    struct Served {
        address: std::net::SocketAddr,
        trigger: crate::process::DrainTrigger,
        reached: Arc<Notify>,
        go: Arc<Notify>,
        metrics: Arc<Metrics>,
    }

    /// `/slow` says that it was reached and answers when it is told to.
    fn served(limits: Limits) -> Served {
        let bound = Listening::bind(&At::Tcp(([127, 0, 0, 1], 0).into()), 0).unwrap();
        let address = bound.at().address().unwrap();
        let (trigger, drain) = drain::channel();
        let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (reach, wait) = (reached.clone(), go.clone());
        let slow = move || {
            let (reach, wait) = (reach.clone(), wait.clone());
            async move {
                reach.notify_one();
                wait.notified().await;
                "done"
            }
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/slow", get(slow));
        let metrics = Arc::new(Metrics::new().unwrap());
        drop(spawn_named(
            "test",
            serve("test", bound, router, limits, metrics.clone(), drain),
        ));
        Served {
            address,
            trigger,
            reached,
            go,
            metrics,
        }
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_request_in_flight_finishes_after_the_drain_has_begun() {
        let served = served(Limits::API);
        let mut idle = ask(served.address, "/").await;
        assert!(read_some(&mut idle).await.contains("hello"));
        let mut slow = ask(served.address, "/slow").await;
        served.reached.notified().await;
        served.trigger.begin();
        assert_eq!(
            idle.read(&mut [0; 8]).await.unwrap(),
            0,
            "idle connections end"
        );
        served.go.notify_one();
        assert!(read_some(&mut slow).await.contains("done"));
        served.trigger.finished().await;
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test]
    async fn a_request_that_outlasts_the_grace_is_cut_off() {
        let served = served(Limits {
            grace: Duration::ZERO,
            ..Limits::API
        });
        let mut slow = ask(served.address, "/slow").await;
        served.reached.notified().await;
        served.trigger.begin();
        served.trigger.finished().await;
        assert_eq!(slow.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn the_connection_beyond_the_bound_waits_for_a_slot() {
        let served = served(Limits {
            connections_max: 1,
            ..Limits::API
        });
        let mut first = ask(served.address, "/slow").await;
        served.reached.notified().await;
        let mut second = ask(served.address, "/").await;
        let mut byte = [0; 1];
        tokio::select! {
            biased;
            read = second.read(&mut byte) => panic!("answered beyond the bound: {read:?}"),
            () = tokio::task::yield_now() => {}
        }
        served.go.notify_one();
        assert!(read_some(&mut first).await.contains("done"));
        drop(first);
        assert!(read_some(&mut second).await.contains("hello"));
        let hits = r#"openbox_limit_hits_total{limit="connections"} "#;
        let text = served.metrics.render();
        let line = text.lines().find(|l| l.starts_with(hits)).unwrap();
        assert!(!line.ends_with(" 0"), "{line}");
    }

    #[tokio::test]
    async fn a_head_that_never_ends_does() {
        let served = served(Limits {
            head_within: Duration::from_millis(20),
            ..Limits::API
        });
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n")
            .await
            .unwrap();
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    }
}
