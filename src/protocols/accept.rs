//! Accepting connections of a relay, as many at once as there are places.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::metrics::{LimitHit, Metrics};
use crate::net::caller::Callers;
use crate::net::client_socket::ClientSocket;
use crate::net::listen_at::Listening;
use crate::process::workers::Workers;

use super::captured::Led;

/// Where connections go.
pub(super) struct Accepting<'a> {
    /// Of their tasks.
    pub(super) name: &'static str,
    pub(super) workers: &'a Workers,
    pub(super) places: &'a Arc<Semaphore>,
    pub(super) metrics: &'a Metrics,
    pub(super) callers: Callers,
}

impl Accepting<'_> {
    /// Has `serve` serve what comes to `listener`, and what is `led` here, each connection on a worker,
    /// until this is dropped; what is being served by then goes on.
    pub(super) async fn from<S, F>(self, listener: &Listening, mut led: Led, serve: S)
    where
        S: FnOnce(ClientSocket) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        loop {
            // The place first: what cannot be served waits in the backlog.
            let place = match self.places.clone().try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    self.metrics.limit_hit(LimitHit::Connections);
                    match self.places.clone().acquire_owned().await {
                        Ok(place) => place,
                        Err(_) => return,
                    }
                }
            };
            let socket = tokio::select! {
                socket = listener.accept() => socket.detach(),
                Some(socket) = led.next() => Ok(socket),
            };
            let Ok(socket) = socket else {
                // It ended before it began.
                continue;
            };
            let (serve, callers) = (serve.clone(), self.callers);
            self.workers.spawn(self.name, async move {
                let _place = place;
                let Ok(mut socket) = ClientSocket::attach(socket) else {
                    return;
                };
                socket.identify(callers).await;
                serve(socket).await;
            });
        }
    }
}
