//! One session: two sockets, one conversation, one gate; the only mover of
//! bytes between them.
//!
//! While the gate decides, the server keeps being read, so that answers owed
//! still reach the client, and the client is watched for leaving. Nothing it
//! says is acted on until the decision is made.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{OperationId, Refusal, TraceId};
use crate::gate::{Decision, Held, Permit, Refused, Terms};
use crate::net::client_socket::{ClientSocket, Watch};
use crate::net::maybe_tls::MaybeTls;
use crate::process::{Drain, clock};
use crate::session::{Claim, Session};

use super::cancel::{Cancellable, Registered};
use super::conversation::{Ask, Conversation, Kind, Meaning, Step};
use super::describe::{self, Place};
use super::limits;
use super::outbox::Outbox;
use super::reach::{self, Reached, Way};
use super::refuse::{self, Poison};
use super::startup::Start;
use super::statement::{Reading, Text};
use super::wire::{WireError, message};
use super::{Server, Shared, Upstream, serve};

/// Most bytes that wait for one side before the other is no longer read.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a client that are read before they are dealt with.
const CLIENT_BYTES_MAX: usize = 2 << 20;
/// The same while nothing is dealt with.
const HELD_BYTES_MAX: usize = 64 << 10;
/// A buffer's first and largest room for one read, bytes.
const READ_BYTES: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// When a client is told that a person is waited for.
const NOTICE_AFTER: Duration = Duration::from_secs(5);
/// When answers that are owed are asked for although the client did not.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// Why a session ended early.
#[derive(Debug)]
enum Ended {
    /// A socket failed, or its peer left.
    Gone(&'static str),
    /// A peer broke the protocol.
    Wire(WireError),
    /// It was told why.
    Told,
    /// A permit came back for bytes it does not cover: a bug in this program.
    Mismatched,
}

/// Dials the server and relays until one side ends.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    server: &Server,
    mut client: ToClient,
    start: Start,
    input: BytesMut,
    login_until: Instant,
    drain: Drain,
) {
    let Upstream { host, port, .. } = &server.upstream;
    let place = Place {
        host: host.clone(),
        port: *port,
        database: start.database().into(),
    };
    let told = match may_start(shared, &place, &start, &client.socket().watch()).await {
        Ok(()) => match reach::reach(&shared.dialer, server).await {
            Ok(server) => {
                let session = Relay::new(shared, place, client, server, &start, input);
                session.run(login_until, drain).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%host, port, "PostgreSQL could not be reached: {error}");
                refuse::fatal("08001", &error.to_string())
            }
        },
        Err(Some(told)) => told,
        Err(None) => return,
    };
    if let Err(error) = serve::end(&mut client, &told).await {
        tracing::debug!(%error, "a refused client did not hear why");
    }
}

/// Whether a session may start like this. `Err(None)`: the client left.
async fn may_start(
    shared: &Shared,
    place: &Place,
    start: &Start,
    watch: &Watch,
) -> Result<(), Option<Bytes>> {
    if start.user().is_none() {
        let text = "no PostgreSQL user name specified in startup packet";
        return Err(Some(refuse::fatal("28000", text)));
    }
    if start.replicates() {
        let text = "replication is not allowed here";
        return Err(Some(refuse::fatal("42501", text)));
    }
    let now = clock::now();
    let claim = Claim {
        database_hint: start.get("application_name"),
        ..Claim::default()
    };
    let Some(session) = shared.gate.registry().attribute(&claim, now) else {
        let refused = unattributed(clock::operation_id(now));
        return Err(Some(refuse::refusal(&refused, true)));
    };
    if let Some(reason) = session.halted() {
        let refused = Refused {
            refusal: Refusal::Halted(reason),
            event: clock::operation_id(now),
            policy: None,
            ruling: None,
        };
        return Err(Some(refuse::refusal(&refused, true)));
    }
    let mut line = String::new();
    for (name, value) in start.strict_settings() {
        describe::setting(&mut line, name, value);
    }
    if line.is_empty() {
        return Ok(());
    }
    let operation = describe::settings(line, place, &session, now);
    let terms = terms(shared.settings.hold_within);
    let admitted = shared.gate.admit(operation, session, &terms);
    tokio::select! {
        biased;
        decision = admitted => match decision {
            Decision::Proceed(permit) => {
                permit.report(crate::domain::Completion {
                    ended_at: clock::now(),
                    outcome: crate::domain::Outcome::Answered,
                    answer: None,
                    error: None,
                });
                Ok(())
            }
            Decision::Refuse(refused) => Err(Some(refuse::refusal(&refused, true))),
            Decision::Replay(_) => Err(None),
        },
        () = watch.hung_up() => Err(None),
    }
}

fn unattributed(event: OperationId) -> Refused {
    Refused {
        refusal: Refusal::Unattributed,
        event,
        policy: None,
        ruling: None,
    }
}

fn terms(hold_within: Duration) -> Terms {
    Terms {
        hold_within,
        applies: |_| false,
        contradicts: |_| false,
    }
}

/// A question under way.
struct Asked {
    decision: Pin<Box<dyn Future<Output = Decision> + Send>>,
    kind: Kind,
    text: Text,
    digest: Option<[u8; 32]>,
    any_function: bool,
    held: Held<Bytes>,
    event: OperationId,
    /// The status then, where nothing under way could change it.
    status: Option<u8>,
    since: Instant,
    /// It takes longer than a decision that is made at once.
    lasts: bool,
    flushed: bool,
    noticed: bool,
}

type ToClient = MaybeTls<ClientSocket>;
type ToServer = MaybeTls<TcpStream>;

/// What a write to one side has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// Written is sent: the side is in clear.
    Never,
    /// Nothing now.
    Done,
    /// Some of it may wait inside TLS.
    Due,
}

impl Flush {
    fn of<S>(socket: &MaybeTls<S>) -> Self {
        if socket.is_tls() {
            Self::Done
        } else {
            Self::Never
        }
    }

    /// What [`send`] has done.
    fn sent(&mut self, bytes: usize) {
        if *self != Self::Never {
            *self = if bytes == 0 { Self::Done } else { Self::Due };
        }
    }
}

struct Relay<'a> {
    shared: &'a Shared,
    place: Place,
    application: Option<Box<str>>,
    talk: Conversation,
    watch: Watch,
    from_client: Inlet,
    from_server: Inlet,
    to_client: Outbox,
    to_server: Outbox,
    client: (ReadHalf<ToClient>, WriteHalf<ToClient>),
    client_flush: Flush,
    server: (ReadHalf<ToServer>, WriteHalf<ToServer>),
    server_flush: Flush,
    way: Way,
    asked: Option<Asked>,
    session: Option<Session>,
    cancellable: Cancellable,
    cancelled: watch::Receiver<()>,
    registered: Option<Registered>,
    /// The client is done; what waits for the server goes out, and that is all.
    leaving: bool,
    /// Its run was halted: what the server still does is to stop.
    stops: bool,
}

impl<'a> Relay<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        place: Place,
        client: ToClient,
        server: Reached,
        start: &Start,
        from_client: BytesMut,
    ) -> Self {
        let (packet, negotiated) = start.forwarded();
        let mut to_server = Outbox::default();
        // Judged where it says more than who and where; see `may_start`.
        to_server.push(packet);
        let reading = Reading::new(shared.known.clone());
        let cancellable = Cancellable::default();
        let Reached { socket, way } = server;
        let mut talk = Conversation::new(reading, negotiated);
        if socket.is_tls() && !client.is_tls() {
            talk.leave_out_channel_binding();
        }
        Self {
            shared,
            place,
            application: start.get("application_name").map(Into::into),
            talk,
            watch: client.socket().watch(),
            from_client: Inlet::new(from_client),
            from_server: Inlet::new(BytesMut::new()),
            to_client: Outbox::default(),
            to_server,
            way,
            server_flush: Flush::of(&socket),
            client_flush: Flush::of(&client),
            client: tokio::io::split(client),
            server: tokio::io::split(socket),
            asked: None,
            session: None,
            cancelled: cancellable.held.subscribe(),
            cancellable,
            registered: None,
            leaving: false,
            stops: false,
        }
    }

    async fn run(mut self, login_until: Instant, drain: Drain) {
        let ended = self.relay(login_until, drain).await;
        self.cancellable.holding.store(false, Ordering::Release);
        // What the client no longer waits for is abandoned, not answered.
        self.asked = None;
        let last = match ended {
            Ended::Wire(wrong) => {
                tracing::info!(host = %self.place.host, "a PostgreSQL session ended: {wrong}");
                Some(refuse::fatal("08P01", &wrong.to_string()))
            }
            Ended::Mismatched => {
                tracing::error!("a permit came back for a statement that it does not cover");
                Some(refuse::fatal("XX000", "the sidecar failed"))
            }
            Ended::Gone(why) => {
                tracing::debug!(host = %self.place.host, "a PostgreSQL session ended: {why}");
                None
            }
            Ended::Told => None,
        };
        if let Some(last) = last.filter(|_| self.talk.between_replies()) {
            self.to_client.push(last);
        }
        let within = Duration::from_secs(5);
        let told =
            tokio::time::timeout(within, drain_into(&mut self.client.1, &mut self.to_client));
        drop(told.await);
        if let (true, Some(registered)) = (self.stops, &self.registered) {
            self.shared.cancels.request(registered.key()).await;
        }
        // The server is told, too, but never in the middle of a message, which
        // this would complete.
        if self.to_server.is_empty() && self.talk.between_requests() {
            let goodbye = self.server.1.write_all(b"X\0\0\0\x04");
            drop(tokio::time::timeout(within, goodbye).await);
        }
        drop(tokio::time::timeout(within, self.server.1.shutdown()).await);
    }

    async fn relay(&mut self, login_until: Instant, mut drain: Drain) -> Ended {
        // Kept over the turns of the loop, as what they wait for hardly ever
        // comes and registering for it each time is not for nothing.
        let halts = self.shared.gate.registry().halt_changes();
        let mut halt = Box::pin(changed(halts));
        let mut begun = Box::pin(async move { drain.begun().await });
        let mut ready = false;
        loop {
            if let Err(ended) = self.advance() {
                return ended;
            }
            if self.leaving && self.to_server.is_empty() && self.server_flush != Flush::Due {
                return Ended::Gone("the client left");
            }
            if self.talk.has_ended() {
                return Ended::Told;
            }
            ready |= self.registered.is_some() || self.talk.settled_status().is_some();
            let idle = self.asked.is_none() && self.talk.settled_status() == Some(b'I');
            let mark = next_mark(self.asked.as_ref());
            let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
            let lasts = self.asked.as_ref().is_some_and(|asked| asked.lasts);
            let turn = tokio::select! {
                biased;
                decision = decided(&mut self.asked) => match decision {
                    Some(decision) => self.decide(decision),
                    None => Ok(()),
                },
                turn = read(&mut self.server.0, &mut self.from_server), if to_client_takes => {
                    match turn {
                        Ok(()) => self.answered(),
                        Err(()) => Err(self.server_left()),
                    }
                }
                written = send(&mut self.client.1, &self.to_client), if !self.to_client.is_empty() || self.client_flush == Flush::Due => {
                    match written {
                        Ok(bytes) => {
                            self.to_client.written(bytes);
                            self.client_flush.sent(bytes);
                            Ok(())
                        }
                        Err(()) => Err(Ended::Gone("the client left")),
                    }
                }
                written = send(&mut self.server.1, &self.to_server), if !self.to_server.is_empty() || self.server_flush == Flush::Due => {
                    match written {
                        Ok(bytes) => {
                            self.to_server.written(bytes);
                            self.server_flush.sent(bytes);
                            Ok(())
                        }
                        Err(()) => Err(self.server_left()),
                    }
                }
                turn = read(&mut self.client.0, &mut self.from_client), if self.reads_client() => {
                    if turn.is_err() {
                        self.left();
                    }
                    Ok(())
                }
                () = self.watch.hung_up(), if lasts => {
                    self.left();
                    Ok(())
                }
                changed = self.cancelled.changed(), if lasts => {
                    drop(changed);
                    self.void("canceling statement due to user request");
                    Ok(())
                }
                () = tokio::time::sleep_until(mark), if lasts => {
                    self.mark();
                    Ok(())
                }
                (halts, result) = &mut halt => {
                    halt.set(changed(halts));
                    self.halted(result)
                }
                () = tokio::time::sleep_until(login_until), if !ready => {
                    Err(self.fatal("57014", "the session did not start in time"))
                }
                () = &mut begun, if idle => {
                    Err(self.fatal("57P01", "the sidecar is shutting down"))
                }
            };
            if let Err(ended) = turn {
                return ended;
            }
        }
    }

    fn reads_client(&self) -> bool {
        let max = if self.asked.is_some() {
            HELD_BYTES_MAX
        } else {
            CLIENT_BYTES_MAX
        };
        !self.leaving
            && self.from_client.bytes.len() < max
            && self.to_server.len() < WAITING_BYTES_MAX
    }

    /// Deals with what the client has said, up to the next question.
    fn advance(&mut self) -> Result<(), Ended> {
        while self.asked.is_none() && !self.leaving && self.to_server.len() < WAITING_BYTES_MAX {
            match self
                .talk
                .client(&mut self.from_client.bytes)
                .map_err(Ended::Wire)?
            {
                Step::More => break,
                Step::Drop => {}
                Step::Pass(bytes, passage) => {
                    let passed = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    self.shared.gate.metrics().passed(passage, passed);
                    self.to_server.push(bytes);
                }
                Step::Goodbye(bytes) => {
                    self.to_server.push(bytes);
                    self.leaving = true;
                }
                Step::Refuse(kind, refusal) => {
                    let refused = Refused {
                        refusal,
                        event: clock::operation_id(clock::now()),
                        policy: None,
                        ruling: None,
                    };
                    self.poison(&kind, Poison::of(&refused));
                }
                Step::Ask(asked) => self.ask(*asked),
            }
        }
        Ok(())
    }

    fn ask(&mut self, asked: Ask) {
        let now = clock::now();
        let claim = describe::claim(&asked.text, self.application.as_deref());
        let trace: Option<TraceId> = claim.trace;
        let Some(session) = self.shared.gate.registry().attribute(&claim, now) else {
            let refused = unattributed(clock::operation_id(now));
            return self.poison(&asked.kind, Poison::of(&refused));
        };
        // All threads count who has it, so it is taken anew only where it changed.
        if self
            .session
            .as_ref()
            .is_none_or(|known| !known.is(&session))
        {
            self.session = Some(session.clone());
        }
        let operation = describe::operation(&asked, &self.place, &session, trace, now);
        let any_function = describe::is_any_function(&asked.kind, asked.function);
        let event = operation.id;
        let settings = &self.shared.settings;
        let hold_within = if self.talk.in_transaction() {
            settings.hold_in_transaction_within
        } else {
            settings.hold_within
        };
        let terms = limits::terms(&asked.kind, &asked.text, hold_within);
        let gate = self.shared.gate.clone();
        let status = self.talk.settled_status();
        let Ask {
            kind,
            text,
            digest,
            bytes,
            function: _,
        } = asked;
        // An earlier cancel request was about an earlier statement.
        self.cancelled.mark_unchanged();
        self.cancellable.holding.store(true, Ordering::Release);
        self.asked = Some(Asked {
            decision: Box::pin(async move { gate.admit(operation, session, &terms).await }),
            held: Held::new(event, bytes),
            kind,
            text,
            digest,
            any_function,
            event,
            status,
            since: Instant::now(),
            lasts: false,
            flushed: false,
            noticed: false,
        });
    }

    fn decide(&mut self, decision: Decision) -> Result<(), Ended> {
        self.cancellable.holding.store(false, Ordering::Release);
        let Some(asked) = self.asked.take() else {
            return Ok(());
        };
        match decision {
            Decision::Proceed(permit) => self.proceed(asked, permit),
            Decision::Refuse(refused) => {
                self.poison(&asked.kind, Poison::of(&refused));
                Ok(())
            }
            // Answers of databases are never set aside.
            Decision::Replay(replay) => {
                let why = "its answer was set aside";
                self.poison(&asked.kind, Poison::cancelled(replay.event, why));
                Ok(())
            }
        }
    }

    fn proceed(&mut self, asked: Asked, permit: Permit) -> Result<(), Ended> {
        // An earlier statement of its batch has failed meanwhile.
        if self.talk.is_skipping() {
            self.talk.overtaken(permit);
            return Ok(());
        }
        if asked.status.is_some() && self.talk.settled_status() != asked.status {
            drop(permit);
            let why = "the transaction changed while a person was asked";
            self.poison(&asked.kind, Poison::cancelled(asked.event, why));
            return Ok(());
        }
        let Some(cleared) = asked.held.release(&permit) else {
            return Err(Ended::Mismatched);
        };
        let names = match asked.kind {
            Kind::Call if !asked.any_function => Meaning::Stays,
            Kind::Call | Kind::Query | Kind::Execute(_) | Kind::Bind(_) => Meaning::MayChange,
        };
        let sent = self
            .talk
            .granted(asked.kind, asked.text, asked.digest, permit, names, cleared);
        self.to_server.push(sent);
        Ok(())
    }

    fn poison(&mut self, kind: &Kind, poison: Poison) {
        // The server discards it anyway, and would not answer it.
        if self.talk.is_skipping() {
            self.talk.drop_rest();
            return;
        }
        let instead = self.talk.refused(kind, poison);
        self.to_server.push(instead);
    }

    /// The client no longer wants what is held.
    fn void(&mut self, why: &str) {
        self.cancellable.holding.store(false, Ordering::Release);
        if let Some(asked) = self.asked.take() {
            self.poison(&asked.kind, Poison::cancelled(asked.event, why));
        }
    }

    /// The client is gone.
    fn left(&mut self) {
        self.asked = None;
        self.leaving = true;
    }

    fn answered(&mut self) -> Result<(), Ended> {
        let answered = self
            .talk
            .server(&mut self.from_server.bytes, &mut self.to_client);
        answered.map_err(Ended::Wire)?;
        if let Some(key) = self.talk.take_key() {
            let cancels = &self.shared.cancels;
            self.registered = Some(cancels.register(key, self.way.clone(), &self.cancellable));
        }
        Ok(())
    }

    fn server_left(&mut self) -> Ended {
        self.talk.lost();
        self.asked = None;
        if !self.talk.said_farewell() && self.talk.between_replies() && !self.leaving {
            let text = "the connection to the server was lost";
            self.to_client.push(refuse::fatal("57P01", text));
        }
        Ended::Gone("the server ended the connection")
    }

    /// Says what ends the session, where that can be said.
    fn fatal(&mut self, code: &str, text: &str) -> Ended {
        if self.talk.between_replies() {
            self.to_client.push(refuse::fatal(code, text));
        }
        Ended::Told
    }

    /// A hold lasts: first what is owed is asked for, then the client is told.
    fn mark(&mut self) {
        let owes = self.talk.owes_answers();
        let between = self.talk.between_replies();
        let Some(asked) = &mut self.asked else { return };
        if !asked.flushed {
            asked.flushed = true;
            if owes {
                self.to_server.push(message(b'H', &[]));
            }
            return;
        }
        if between && !asked.noticed {
            self.to_client.push(refuse::waiting(asked.event));
        }
        asked.noticed = true;
    }

    fn halted(&mut self, changed: Result<(), watch::error::RecvError>) -> Result<(), Ended> {
        if changed.is_err() {
            return Err(self.fatal("57P01", "the sidecar is shutting down"));
        }
        let own = self.shared.gate.registry().own();
        let session = self.session.as_ref().unwrap_or(own);
        let Some(reason) = session.halted() else {
            return Ok(());
        };
        self.stops = true;
        let refused = Refused {
            refusal: Refusal::Halted(reason),
            event: clock::operation_id(clock::now()),
            policy: None,
            ruling: None,
        };
        if self.talk.between_replies() {
            self.to_client.push(refuse::refusal(&refused, true));
        }
        Err(Ended::Told)
    }
}

/// The decision, once there is one; `None` the first time that it turns out to
/// take longer than a turn of this thread. Until then neither timers nor the
/// client's leaving are worth being registered for.
async fn decided(asked: &mut Option<Asked>) -> Option<Decision> {
    let Some(asked) = asked else {
        return std::future::pending().await;
    };
    let mut looked = asked.lasts;
    std::future::poll_fn(|cx| match asked.decision.as_mut().poll(cx) {
        Poll::Ready(decision) => Poll::Ready(Some(decision)),
        Poll::Pending if asked.lasts => Poll::Pending,
        Poll::Pending if looked => {
            asked.lasts = true;
            Poll::Ready(None)
        }
        Poll::Pending => {
            looked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// The next change, and what to wait with for the one after.
async fn changed(
    mut of: watch::Receiver<u64>,
) -> (watch::Receiver<u64>, Result<(), watch::error::RecvError>) {
    let result = of.changed().await;
    (of, result)
}

/// When the next thing is to be said about a hold.
fn next_mark(asked: Option<&Asked>) -> Instant {
    let Some(asked) = asked else {
        return Instant::now();
    };
    let after = match (asked.flushed, asked.noticed) {
        (false, _) => FLUSH_AFTER,
        (true, false) => NOTICE_AFTER,
        (true, true) => Duration::from_secs(86_400),
    };
    asked.since.checked_add(after).unwrap_or(asked.since)
}

/// What has come from one side, and how much room the next read gets: more
/// while much comes, and little on an idle connection.
struct Inlet {
    bytes: BytesMut,
    room: usize,
}

impl Inlet {
    fn new(bytes: BytesMut) -> Self {
        Self {
            bytes,
            room: READ_BYTES,
        }
    }
}

/// Reads once.
async fn read(from: &mut (impl AsyncRead + Unpin), into: &mut Inlet) -> Result<(), ()> {
    let free = into.bytes.capacity().saturating_sub(into.bytes.len());
    if free < into.room {
        into.bytes.reserve(into.room);
    }
    match from.read_buf(&mut into.bytes).await {
        Ok(0) | Err(_) => Err(()),
        Ok(read) => {
            into.room = if read >= into.room {
                into.room.saturating_mul(2).min(READ_BYTES_MAX)
            } else if read < into.room >> 2 {
                (into.room >> 1).max(READ_BYTES)
            } else {
                into.room
            };
            Ok(())
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), from: &Outbox) -> Result<usize, ()> {
    let written = match from.joined() {
        Some(all) => to.write(&all).await,
        None => to.write_vectored(&from.slices()).await,
    };
    match written {
        Ok(0) | Err(_) => Err(()),
        Ok(written) => Ok(written),
    }
}

/// Writes once, or, where nothing waits for that, flushes and says 0.
async fn send(to: &mut (impl AsyncWrite + Unpin), from: &Outbox) -> Result<usize, ()> {
    if from.is_empty() {
        to.flush().await.map_err(|_| ())?;
        return Ok(0);
    }
    write(to, from).await
}

async fn drain_into(to: &mut (impl AsyncWrite + Unpin), from: &mut Outbox) -> Result<(), ()> {
    while !from.is_empty() {
        let written = write(to, from).await?;
        from.written(written);
    }
    drop(to.shutdown().await);
    Ok(())
}
