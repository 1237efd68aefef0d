//! Accepting connections.

use std::sync::Arc;

use crate::net::client_socket::ClientSocket;
use crate::net::listen_at::Listening;
use crate::process::Drain;
use crate::protocols::accept::Accepting;

use super::{RedisRelay, Server, session};

impl RedisRelay {
    /// Serves `server` on its listener until `drain` begins, then ends what
    /// is idle and lets the rest finish. Returns when the last connection of
    /// this listener has ended.
    pub async fn run(self, listener: Listening, server: Server, drain: Drain) {
        let Self { shared } = self;
        let server = Arc::new(server);
        let (of_session, mut begun) = (drain.clone(), drain);
        let accepting = Accepting {
            name: "redis",
            workers: &shared.workers,
            places: &shared.places,
            metrics: shared.gate.metrics(),
        };
        let serve = {
            let shared = shared.clone();
            move |socket: ClientSocket| async move {
                session::serve(&shared, &server, socket, of_session).await;
            }
        };
        tokio::select! {
            () = begun.begun() => {}
            () = accepting.from(&listener, serve) => {}
        }
    }
}
