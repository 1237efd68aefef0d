//! One session: two sockets, one conversation, one gate; the only mover of
//! bytes between them.
//!
//! While the gate decides, the server keeps being read, so that answers owed
//! still reach the client, and the client is watched for leaving. Nothing it
//! says is acted on until the decision is made.

mod opening;
mod question;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Completion, Outcome, Protocol, Refusal};
use crate::gate::{Permit, Refused, Repeats};
use crate::metrics::Unaccepted;
use crate::net::client_socket::{ClientSocket, Watch};
use crate::net::maybe_tls::MaybeTls;
use crate::net::stream::Stream;
use crate::process::{Drain, clock};
use crate::protocols::pipe::{Inlet, Outbox};
use crate::session::Session;

use super::Shared;
use super::binding::Channels;
use super::cancel::{Cancellable, Registered};
use super::conversation::{Conversation, Step};
use super::describe::Place;
use super::reach::{Reached, Way};
use super::refuse::{self, Poison};
use super::startup::Start;
use super::statement::Reading;
use super::wire::WireError;

pub(super) use opening::serve;
use question::{Asked, Like, decided, next_mark};

/// Most bytes that wait for one side before the other is no longer read.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a client that are read before they are dealt with.
const CLIENT_BYTES_MAX: usize = 2 << 20;
/// The same while nothing is dealt with.
const HELD_BYTES_MAX: usize = 64 << 10;

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

type ToClient = MaybeTls<ClientSocket>;
type ToServer = MaybeTls<Stream>;

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
    server: (ReadHalf<ToServer>, WriteHalf<ToServer>),
    way: Way,
    asked: Option<Asked>,
    repeats: Repeats<Like>,
    /// By which it replicates.
    replicates: Option<Permit>,
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
    /// `greeting` is what the server said, where it was logged in to already.
    fn new(
        shared: &'a Arc<Shared>,
        place: Place,
        client: ToClient,
        server: Reached,
        start: &Start,
        from_client: BytesMut,
        greeting: Option<BytesMut>,
    ) -> Self {
        let (packet, negotiated) = start.forwarded();
        let reading = Reading::new(shared.known.clone());
        let cancellable = Cancellable::default();
        let Reached { socket, way } = server;
        let mut to_server = Outbox::of(&socket);
        // Judged where it says more than who and where; see `opening`.
        if greeting.is_none() {
            to_server.push(packet);
        }
        let acceptor = shared.acceptor.as_ref();
        let channels = match (client.is_tls(), socket.is_tls()) {
            (_, false) => Channels::Same,
            (false, true) => Channels::NoneHere,
            (true, true) if acceptor.is_some_and(|ours| ours.shows_that_of(&socket)) => {
                Channels::Same
            }
            (true, true) => Channels::Differ,
        };
        let ask_at = shared.settings.ask_at;
        let mut talk = Conversation::new(reading, negotiated, channels, ask_at);
        if start.renames() {
            talk.begins_uncertain();
        }
        Self {
            shared,
            place,
            application: start.get("application_name").map(Into::into),
            talk,
            watch: client.socket().watch(),
            from_client: from_client.into(),
            from_server: greeting.unwrap_or_default().into(),
            to_client: Outbox::of(&client),
            to_server,
            way,
            client: tokio::io::split(client),
            server: tokio::io::split(socket),
            asked: None,
            repeats: Repeats::default(),
            replicates: None,
            session: None,
            cancelled: cancellable.held.subscribe(),
            cancellable,
            registered: None,
            leaving: false,
            stops: false,
        }
    }

    /// What follows the login is replication, admitted by `permit`.
    fn replicates(&mut self, permit: Permit) {
        self.talk.replicates();
        self.session = permit.session().cloned();
        self.replicates = Some(permit);
    }

    async fn run(mut self, login_until: Instant, drain: Drain) {
        let ended = self.relay(login_until, drain).await;
        self.cancellable.holding.store(false, Ordering::Release);
        if let Some(permit) = self.replicates.take() {
            permit.report(Completion {
                ended_at: clock::now(),
                outcome: Outcome::Answered,
                answer: None,
                error: None,
            });
        }
        // What the client no longer waits for is abandoned, not answered.
        self.asked = None;
        let last = match ended {
            Ended::Wire(wrong) => {
                tracing::info!(host = %self.place.host, "a PostgreSQL session ended: {wrong}");
                if !self.was_ready() {
                    let metrics = self.shared.gate.metrics();
                    metrics.unaccepted(Protocol::Postgresql, wrong.cause());
                }
                Some(refuse::fatal(wrong.code(), &wrong.to_string()))
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
        let told = self.to_client.drain(&mut self.client.1);
        drop(tokio::time::timeout(within, told).await);
        if let (true, Some(registered)) = (self.stops, &self.registered) {
            let metrics = self.shared.gate.metrics();
            self.shared.cancels.request(registered.key(), metrics).await;
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
        if let Err(ended) = self.answered() {
            return ended;
        }
        loop {
            if let Err(ended) = self.advance() {
                return ended;
            }
            if self.leaving && !self.to_server.has_work() {
                return Ended::Gone("the client left");
            }
            if self.talk.has_ended() {
                return Ended::Told;
            }
            ready |= self.was_ready();
            let idle = self.asked.is_none() && self.talk.settled_status() == Some(b'I');
            let mark = next_mark(self.asked.as_ref());
            let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
            let lasts = self.asked.as_ref().is_some_and(|asked| asked.lasts);
            let reads_client = self.reads_client();
            let turn = tokio::select! {
                biased;
                decision = decided(&mut self.asked) => match decision {
                    Some(decision) => self.decide(decision),
                    None => Ok(()),
                },
                turn = self.from_server.read(&mut self.server.0), if to_client_takes => {
                    match turn {
                        Ok(()) => self.answered(),
                        Err(()) => Err(self.server_left()),
                    }
                }
                written = self.to_client.write(&mut self.client.1), if self.to_client.has_work() => {
                    match written {
                        Ok(bytes) => {
                            self.to_client.written(bytes);
                            Ok(())
                        }
                        Err(()) => Err(Ended::Gone("the client left")),
                    }
                }
                written = self.to_server.write(&mut self.server.1), if self.to_server.has_work() => {
                    match written {
                        Ok(bytes) => {
                            self.to_server.written(bytes);
                            Ok(())
                        }
                        Err(()) => Err(self.server_left()),
                    }
                }
                turn = self.from_client.read(&mut self.client.0), if reads_client => {
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
                    let metrics = self.shared.gate.metrics();
                    metrics.unaccepted(Protocol::Postgresql, Unaccepted::Slow);
                    Err(self.end_with(refuse::late()))
                }
                () = &mut begun, if idle => {
                    Err(self.end_with(refuse::fatal("57P01", "the sidecar is shutting down")))
                }
            };
            if let Err(ended) = turn {
                return ended;
            }
        }
    }

    /// Whether the server has let the client in.
    fn was_ready(&self) -> bool {
        self.registered.is_some() || self.talk.was_ready()
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
                    let refused = Refused::unasked(refusal, clock::operation_id(clock::now()));
                    self.poison(&kind, Poison::of(&refused));
                }
                Step::Ask(asked) => self.ask(*asked)?,
            }
        }
        Ok(())
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
    fn end_with(&mut self, last: Bytes) -> Ended {
        if self.talk.between_replies() {
            self.to_client.push(last);
        }
        Ended::Told
    }

    fn halted(&mut self, changed: Result<(), watch::error::RecvError>) -> Result<(), Ended> {
        if changed.is_err() {
            return Err(self.end_with(refuse::fatal("57P01", "the sidecar is shutting down")));
        }
        let own = self.shared.gate.registry().own();
        let session = self.session.as_ref().unwrap_or(own);
        let Some(reason) = session.halted() else {
            return Ok(());
        };
        self.stops = true;
        let refused = Refused::unasked(Refusal::Halted(reason), clock::operation_id(clock::now()));
        if self.talk.between_replies() {
            self.to_client.push(refuse::refusal(&refused, true));
        }
        Err(Ended::Told)
    }
}

/// The next change, and what to wait with for the one after.
async fn changed(
    mut of: watch::Receiver<u64>,
) -> (watch::Receiver<u64>, Result<(), watch::error::RecvError>) {
    let result = of.changed().await;
    (of, result)
}
