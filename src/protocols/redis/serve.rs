//! Accepting connections.

use std::pin::Pin;
use std::sync::Arc;

use crate::net::client_socket::ClientSocket;
use crate::net::listen::Bound;
use crate::net::listen_at::{At, Listening};
use crate::process::{Drain, spawn_named};
use crate::protocols::accept::Accepting;
use crate::protocols::captured::Led;

use super::{RedisRelay, Server, Shared, Upstream, session};

impl RedisRelay {
    /// Serves `server` on its listener, and who is `led` to it, until `drain` begins, then ends what
    /// is idle and lets the rest finish. Returns when the last connection of
    /// this listener has ended.
    pub async fn run(self, listener: Listening, led: Led, server: Server, drain: Drain) {
        let Self { shared } = self.clone();
        let upstream = server.upstream().clone();
        let listen = listener.at();
        shared.nodes.learn(&upstream.host, upstream.port, &listen);
        let server = Arc::new(server);
        let of_nodes = drain.clone();
        let (of_session, mut begun) = (drain.clone(), drain);
        let accepting = Accepting {
            name: "redis",
            workers: &shared.workers,
            places: &shared.places,
            metrics: shared.gate.metrics(),
            callers: shared.gate.registry().callers(),
        };
        let serve = {
            let shared = shared.clone();
            move |socket: ClientSocket| async move {
                session::serve(&shared, &server, socket, of_session).await;
            }
        };
        tokio::select! {
            () = begun.begun() => {}
            () = accepting.from(&listener, led, serve) => {}
            () = self.nodes(&upstream, &listen, of_nodes) => {}
        }
    }

    /// Learns by which addresses a server is known, and serves the nodes that
    /// get listeners of their own. Never returns.
    async fn nodes(&self, upstream: &Upstream, listen: &At, drain: Drain) {
        let Shared { nodes, dialer, .. } = &*self.shared;
        // One that is not found now has only its name.
        if let Ok(found) = dialer.resolve(&upstream.host, upstream.port).await {
            for address in found.addresses() {
                nodes.learn(&address.ip().to_string(), address.port(), listen);
            }
        }
        let Some(mut to_serve) = nodes.to_serve() else {
            return std::future::pending().await;
        };
        while let Some((listener, node)) = to_serve.recv().await {
            let relay = self.clone().of_node(listener, node, drain.clone());
            drop(spawn_named("redis-node", relay));
        }
        std::future::pending().await
    }

    /// As [`Self::run`], for a relay that serves others.
    fn of_node(
        self,
        listener: Bound,
        node: Server,
        drain: Drain,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run(Listening::Tcp(listener), Led::none(), node, drain))
    }
}
