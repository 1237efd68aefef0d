//! Accepting connections, up to the start of a session.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::net::client_socket::ClientSocket;
use crate::net::listen::Bound;
use crate::net::maybe_tls::MaybeTls;
use crate::process::Drain;
use crate::protocols::accept::Accepting;

use super::startup::{First, Start, first};
use super::wire::WireError;
use super::{PostgresRelay, Server, Shared, refuse, session};

impl PostgresRelay {
    /// Serves `server` on its listener until `drain` begins, then ends what
    /// is idle and lets the rest finish. Returns when the last connection of
    /// this listener has ended.
    pub async fn run(self, listener: Bound, server: Server, drain: Drain) {
        let Self { shared } = self;
        let server = Arc::new(server);
        let (of_session, mut begun) = (drain.clone(), drain);
        let accepting = Accepting {
            name: "postgres",
            workers: &shared.workers,
            places: &shared.places,
            metrics: shared.gate.metrics(),
        };
        let serve = {
            let shared = shared.clone();
            move |socket: ClientSocket| async move {
                connection(&shared, &server, socket, of_session).await;
            }
        };
        tokio::select! {
            () = begun.begun() => {}
            () = accepting.from(&listener, serve) => {}
        }
    }
}

async fn connection(shared: &Arc<Shared>, server: &Server, mut socket: ClientSocket, drain: Drain) {
    let now = Instant::now();
    let until = now.checked_add(shared.settings.login_within).unwrap_or(now);
    let mut input = BytesMut::new();
    let began = tokio::time::timeout_at(until, begin(&mut socket, &mut input));
    match began.await {
        Ok(Ok(Some(Began::Start(start)))) => {
            // Boxed: what waits for a first packet must not carry it.
            let session = session::serve(
                shared,
                server,
                MaybeTls::Plain(socket),
                start,
                input,
                until,
                drain,
            );
            Box::pin(session).await;
        }
        Ok(Ok(Some(Began::Cancel(key)))) => shared.cancels.request(key).await,
        Ok(Ok(None)) => {}
        Ok(Err(Refused { answer, why })) => {
            tracing::info!("a connection for PostgreSQL was refused: {why}");
            if let Err(error) = end(&mut socket, &answer).await {
                tracing::debug!(%error, "a refused client did not hear why");
            }
        }
        Err(_) => tracing::debug!("a connection for PostgreSQL did not begin in time"),
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

enum Began {
    Start(Start),
    Cancel(Bytes),
}

struct Refused {
    answer: Bytes,
    why: String,
}

/// Reads up to a start or a cancel request; `None` where the client left.
async fn begin(socket: &mut ClientSocket, input: &mut BytesMut) -> Result<Option<Began>, Refused> {
    let (mut ssl, mut gss) = (false, false);
    loop {
        // TLS without a request for it.
        if input.first() == Some(&0x16) {
            return Err(Refused {
                answer: Bytes::new(),
                why: "it begins with TLS, which this listener does not speak: connect with sslmode=disable".into(),
            });
        }
        let packet = first(input).map_err(|wrong| of_wire(&wrong))?;
        let repeated = match packet {
            None => match socket.read_buf(input).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => continue,
            },
            Some(First::Start(start)) => return Ok(Some(Began::Start(start))),
            Some(First::Cancel(key)) => return Ok(Some(Began::Cancel(key))),
            Some(First::Version(version)) => {
                let answer = refuse::fatal("0A000", "unsupported frontend protocol");
                let why = format!("it speaks version {}.{}", version >> 16, version & 0xffff);
                return Err(Refused { answer, why });
            }
            Some(First::Ssl) => std::mem::replace(&mut ssl, true),
            Some(First::Gss) => std::mem::replace(&mut gss, true),
        };
        if repeated || !input.is_empty() {
            return Err(of_wire(&WireError::Malformed("a request for encryption")));
        }
        // No: this leg stays inside the machine.
        if socket.write_all(b"N").await.is_err() {
            return Ok(None);
        }
    }
}

fn of_wire(wrong: &WireError) -> Refused {
    let why = wrong.to_string();
    Refused {
        answer: refuse::fatal("08P01", &why),
        why,
    }
}
