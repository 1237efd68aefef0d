//! Accepting connections.

use std::sync::Arc;

use crate::metrics::LimitHit;
use crate::net::client_socket::ClientSocket;
use crate::net::listen::Bound;
use crate::process::Drain;

use super::{RedisRelay, Server, Shared, session};

impl RedisRelay {
    /// Serves `server` on its listener until `drain` begins, then ends what
    /// is idle and lets the rest finish. Returns when the last connection of
    /// this listener has ended.
    pub async fn run(self, listener: Bound, server: Server, drain: Drain) {
        let Self { shared } = self;
        let server = Arc::new(server);
        let mut begun = drain.clone();
        tokio::select! {
            () = begun.begun() => {}
            () = accept(&shared, &listener, &server, &drain) => {}
        }
    }
}

async fn accept(shared: &Arc<Shared>, listener: &Bound, server: &Arc<Server>, drain: &Drain) {
    loop {
        // The place first: what cannot be served waits in the backlog.
        let place = match shared.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                shared.gate.metrics().limit_hit(LimitHit::Connections);
                match shared.places.clone().acquire_owned().await {
                    Ok(place) => place,
                    Err(_) => return,
                }
            }
        };
        let (socket, _) = listener.accept().await;
        let Ok(socket) = socket.detach() else {
            // It ended before it began.
            continue;
        };
        let (of_session, server, drain) = (shared.clone(), server.clone(), drain.clone());
        shared.workers.spawn("redis", async move {
            let _place = place;
            let Ok(socket) = ClientSocket::attach(socket) else {
                return;
            };
            session::serve(&of_session, &server, socket, drain).await;
        });
    }
}
