//! Accepting connections, up to the start of a session.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::domain::Protocol;
use crate::metrics::{LimitHit, Unaccepted};
use crate::net::client_socket::ClientSocket;
use crate::net::listen_at::Listening;
use crate::net::maybe_tls::MaybeTls;
use crate::process::Drain;
use crate::protocols::accept::Accepting;
use crate::protocols::captured::Led;

use super::begin::{Began, Beginning, Refused};
use super::{PostgresRelay, Server, Shared, refuse, session};

impl PostgresRelay {
    /// Serves `server` on its listener, and who is `led` to it, until `drain` begins, then ends what
    /// is idle and lets the rest finish. Returns when the last connection of
    /// this listener has ended.
    pub async fn run(self, listener: Listening, led: Led, server: Server, drain: Drain) {
        let Self { shared } = self;
        let server = Arc::new(server);
        let (of_session, mut begun) = (drain.clone(), drain);
        let accepting = Accepting {
            name: "postgres",
            workers: &shared.workers,
            places: &shared.places,
            metrics: shared.gate.metrics(),
            callers: shared.gate.registry().callers(),
        };
        let serve = {
            let shared = shared.clone();
            move |socket: ClientSocket| async move {
                connection(&shared, &server, socket, of_session).await;
            }
        };
        tokio::select! {
            () = begun.begun() => {}
            () = accepting.from(&listener, led, serve) => {}
        }
    }
}

async fn connection(shared: &Arc<Shared>, server: &Server, socket: ClientSocket, drain: Drain) {
    let now = Instant::now();
    let until = now.checked_add(shared.settings.login_within).unwrap_or(now);
    let mut beginning = Beginning {
        acceptor: shared.acceptor.as_ref(),
        client: Some(MaybeTls::Plain(socket)),
        input: BytesMut::new(),
    };
    let began = tokio::time::timeout_at(until, beginning.begun()).await;
    let refused = match began {
        Ok(Ok(Some(Began::Start(start)))) => match shared.sessions.clone().try_acquire_owned() {
            Ok(_place) => {
                let Beginning { client, input, .. } = beginning;
                let Some(client) = client else { return };
                // Boxed: what waits for a first packet must not carry it.
                let session = session::serve(shared, server, client, start, input, until, drain);
                return Box::pin(session).await;
            }
            Err(_) => {
                shared.gate.metrics().limit_hit(LimitHit::Connections);
                full(shared.settings.connections_max)
            }
        },
        Ok(Ok(Some(Began::Cancel(key)))) => {
            shared.cancels.request(key, shared.gate.metrics()).await;
            // No answer, but inside TLS its end is one: clients wait for it.
            if let Some(mut client) = beginning.client {
                drop(client.shutdown().await);
            }
            return;
        }
        Ok(Ok(None)) => return,
        Ok(Err(refused)) => refused,
        Err(_) => Refused {
            cause: Unaccepted::Slow,
            answer: None,
            why: "it did not begin in time".to_owned(),
        },
    };
    let Refused { cause, answer, why } = refused;
    shared
        .gate
        .metrics()
        .unaccepted(Protocol::Postgresql, cause);
    tracing::info!("a connection for PostgreSQL was refused: {why}");
    if let (Some(mut client), Some(answer)) = (beginning.client, answer)
        && let Err(error) = end(&mut client, &answer).await
    {
        tracing::debug!(%error, "a refused client did not hear why");
    }
}

fn full(most: usize) -> Refused {
    let why = format!(
        "there are {most} sessions already, as many as postgres.connections_max of the sidecar allows"
    );
    Refused {
        cause: Unaccepted::Limit,
        answer: Some(refuse::fatal("53300", &why)),
        why,
    }
}

/// Says `last` and closes.
pub(super) async fn end(
    socket: &mut (impl AsyncWrite + Unpin),
    last: &[u8],
) -> std::io::Result<()> {
    socket.write_all(last).await?;
    socket.shutdown().await
}
