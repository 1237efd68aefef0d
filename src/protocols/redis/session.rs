//! One connection: two sockets, one conversation, one gate; the only mover of
//! bytes between them.
//!
//! While the gate decides, the server keeps being read, so that replies owed,
//! messages and invalidations still reach the client, and the client is
//! watched for leaving. Nothing it says is acted on until the decision is made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Protocol, Refusal};
use crate::gate::{Decision, Held, Permit, Refused};
use crate::metrics::Passage;
use crate::net::client_socket::{ClientSocket, Watch};
use crate::net::maybe_tls::MaybeTls;
use crate::process::{Drain, clock};
use crate::protocols::pipe::{Inlet, Outbox};
use crate::session::{Claim, Session};

use super::ahead::Ahead;
use super::conversation::{Ask, Conversation, Step};
use super::effect::Effect;
use super::limits::{self, Limit};
use super::nodes::Route;
use super::refuse::{self, Poison};
use super::reply::ReplyError;
use super::waiting::{Unblocked, Wait};
use super::{Server, Shared, Upstream, reach};

/// Most bytes that wait for one side before the other is no longer read.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a client that are read before they are dealt with: more than
/// the longest beginning that is looked at.
const CLIENT_BYTES_MAX: usize = 2 << 20;
/// The same while nothing is dealt with.
const HELD_BYTES_MAX: usize = 64 << 10;
/// How long replies to what a client asked before it left are waited for: a
/// client that only stopped sending still reads them.
const LEAVES_WITHIN: Duration = Duration::from_millis(250);
/// Longest wait for the last words to be taken.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Most commands judged before the sockets get their turn.
const TURN_COMMANDS_MAX: usize = 64;

/// Why a connection ended early.
#[derive(Debug)]
enum Ended {
    /// A socket failed, or its peer left.
    Gone(&'static str),
    /// The server broke the protocol.
    Wire(ReplyError),
    /// It was told why.
    Told,
    /// A permit came back for bytes it does not cover: a bug in this program.
    Mismatched,
}

/// Dials the server and relays until one side ends.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    server: &Arc<Server>,
    mut client: ClientSocket,
    drain: Drain,
) {
    if let Some(told) = refused_at_once(shared) {
        let told = async {
            client.write_all(&told).await?;
            client.shutdown().await
        };
        drop(tokio::time::timeout(ENDS_WITHIN, told).await);
        return;
    }
    let upstream = &server.upstream;
    match reach::reach(&shared.dialer, server).await {
        Ok(connected) => {
            // Boxed: what dials must not carry what relays.
            Box::pin(Relay::new(shared, server, client, connected).run(drain)).await;
        }
        // As a server that is not there: clients know what to do about that.
        Err(error) => {
            tracing::warn!(host = %upstream.host, port = upstream.port, "Redis could not be reached: {error}");
        }
    }
}

/// What a client hears that may not even begin.
fn refused_at_once(shared: &Shared) -> Option<Bytes> {
    let now = clock::now();
    let session = shared.gate.registry().attribute(&Claim::default(), now)?;
    let reason = session.halted()?;
    Some(refuse::refusal(&Refused {
        refusal: Refusal::Halted(reason),
        event: clock::operation_id(now),
        policy: None,
        ruling: None,
    }))
}

/// A question under way.
struct Asked {
    decision: Pin<Box<dyn Future<Output = Decision> + Send>>,
    held: Held<Bytes>,
    effect: Effect,
    limit: Option<Limit>,
    unseen_script: bool,
}

type ToServer = MaybeTls<TcpStream>;

struct Relay<'a> {
    shared: &'a Shared,
    upstream: &'a Upstream,
    talk: Conversation,
    watch: Watch,
    from_client: Inlet,
    from_server: Inlet,
    to_client: Outbox,
    to_server: Outbox,
    client: (ReadHalf<ClientSocket>, WriteHalf<ClientSocket>),
    server: (ReadHalf<ToServer>, WriteHalf<ToServer>),
    asked: Option<Asked>,
    /// Of what is asked, where others can end it.
    wait: Option<Wait>,
    ahead: Ahead,
    session: Option<Session>,
    /// The client is done: until then, what is owed to it is waited for.
    leaves_at: Option<Instant>,
}

impl<'a> Relay<'a> {
    fn new(
        shared: &'a Shared,
        reached: &'a Arc<Server>,
        client: ClientSocket,
        server: ToServer,
    ) -> Self {
        let settings = &shared.settings;
        let mut talk = Conversation::new(
            shared.scripts.clone(),
            settings.refusals,
            settings.dangerous,
        );
        talk.route = Some(Route {
            nodes: shared.nodes.clone(),
            server: reached.clone(),
            at: client.local_ip(),
        });
        talk.waiting = shared.waiting.clone();
        Self {
            shared,
            upstream: reached.upstream(),
            talk,
            watch: client.watch(),
            from_client: Inlet::default(),
            from_server: Inlet::default(),
            to_client: Outbox::default(),
            to_server: Outbox::of(&server),
            client: tokio::io::split(client),
            server: tokio::io::split(server),
            asked: None,
            wait: None,
            ahead: Ahead::new(shared.ahead.clone()),
            session: None,
            leaves_at: None,
        }
    }

    async fn run(mut self, drain: Drain) {
        let ended = self.relay(drain).await;
        // What the client no longer waits for is abandoned, not answered.
        self.asked = None;
        match ended {
            Ended::Wire(wrong) => {
                self.shared.gate.metrics().malformed(Protocol::Redis);
                tracing::warn!(host = %self.upstream.host, "a connection to Redis ended: {wrong}");
            }
            Ended::Mismatched => {
                tracing::error!("a permit came back for a command that it does not cover");
            }
            Ended::Gone(why) => {
                tracing::debug!(host = %self.upstream.host, "a connection for Redis ended: {why}");
            }
            Ended::Told => {}
        }
        let last = self.to_client.drain(&mut self.client.1);
        drop(tokio::time::timeout(ENDS_WITHIN, last).await);
        drop(tokio::time::timeout(ENDS_WITHIN, self.server.1.shutdown()).await);
    }

    async fn relay(&mut self, mut drain: Drain) -> Ended {
        let mut halts = self.shared.gate.registry().halt_changes();
        loop {
            let more = match self.advance() {
                Ok(more) => more,
                Err(ended) => return ended,
            };
            self.talk.speak(&mut self.to_client);
            self.can_be_unblocked();
            if self.talk.has_ended() {
                return Ended::Told;
            }
            let leaves_at = self.leaves_at.unwrap_or_else(Instant::now);
            let leaves = self.leaves_at.is_some();
            if leaves && !self.to_server.has_work() && self.talk.is_idle() && self.asked.is_none() {
                return Ended::Gone("the client left");
            }
            let idle = self.asked.is_none() && self.talk.is_idle();
            let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
            let asks = self.asked.is_some();
            let reads_client = self.reads_client();
            let turn = tokio::select! {
                biased;
                decision = decided(&mut self.asked) => self.decide(decision),
                how = unblocked(&mut self.wait), if asks => {
                    self.unblock(how);
                    Ok(())
                }
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
                // Commands are left that had their turn.
                () = std::future::ready(()), if more => Ok(()),
                () = self.watch.hung_up(), if asks => {
                    self.left();
                    Ok(())
                }
                changed = halts.changed() => self.halted(changed),
                () = tokio::time::sleep_until(leaves_at), if leaves => {
                    Err(Ended::Gone("the client left"))
                }
                () = drain.begun(), if idle => Err(Ended::Told),
            };
            if let Err(ended) = turn {
                return ended;
            }
        }
    }

    /// A client need not read before it has sent all it has to say; except
    /// behind what is held, which ends by itself.
    fn reads_client(&mut self) -> bool {
        if self.leaves_at.is_some() {
            return false;
        }
        let has = self.from_client.bytes.len();
        if self.asked.is_some() {
            return has < HELD_BYTES_MAX;
        }
        match has.checked_sub(CLIENT_BYTES_MAX) {
            None => {
                self.ahead.give_back();
                self.to_server.len() < WAITING_BYTES_MAX
            }
            Some(beyond) => {
                let metrics = self.shared.gate.metrics();
                self.talk.waits() && self.ahead.has_room(beyond, metrics)
            }
        }
    }

    /// Deals with what the client has said, up to the next question that is
    /// not answered at once. Whether there may be more to deal with now.
    fn advance(&mut self) -> Result<bool, Ended> {
        let mut turns = TURN_COMMANDS_MAX;
        while self.asked.is_none() && self.to_server.len() < WAITING_BYTES_MAX {
            match self.talk.client(&mut self.from_client.bytes) {
                Step::More => {
                    if std::mem::take(&mut self.talk.broken) {
                        self.shared.gate.metrics().malformed(Protocol::Redis);
                    }
                    return Ok(false);
                }
                Step::Drop => {}
                Step::Pass(bytes, passage) => {
                    let passed = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    self.shared.gate.metrics().passed(passage, passed);
                    self.to_server.push(bytes);
                }
                Step::Refuse(why) => {
                    tracing::info!(host = %self.upstream.host, "a command for Redis was refused: {why}");
                    let event = clock::operation_id(clock::now());
                    self.poison(Poison::unasked(event, why));
                }
                Step::Instead(poison) => self.poison(*poison),
                Step::Ask(ask) => self.ask(*ask)?,
            }
            turns = turns.saturating_sub(1);
            if turns == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ask(&mut self, ask: Ask) -> Result<(), Ended> {
        let now = clock::now();
        let claim = Claim {
            database_hint: self.talk.claims(),
            trace: self.talk.trace(),
            ..Claim::default()
        };
        let Some(session) = self.shared.gate.registry().attribute(&claim, now) else {
            let refused = Refused {
                refusal: Refusal::Unattributed,
                event: clock::operation_id(now),
                policy: None,
                ruling: None,
            };
            self.poison(Poison::of(&refused));
            return Ok(());
        };
        self.session = Some(session.clone());
        let Ask {
            described,
            database,
            bytes,
            effect,
            limit,
        } = ask;
        let unseen_script = described.unseen_script;
        let terms = limits::terms(described.class, limit, self.shared.settings.hold_within);
        let operation =
            described.operation(self.upstream, database, &session, self.talk.trace(), now);
        let held = Held::new(operation.id, bytes);
        let gate = self.shared.gate.clone();
        let mut decision: Pin<Box<dyn Future<Output = Decision> + Send>> =
            Box::pin(async move { gate.admit(operation, session, &terms).await });
        // A local policy has answered by now, and the next command can be
        // judged at once: nobody needs to be woken for it.
        let now = decision
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        let asked = Asked {
            decision,
            held,
            effect,
            limit,
            unseen_script,
        };
        match now {
            Poll::Ready(decision) => self.follow(asked, decision),
            Poll::Pending => {
                self.asked = Some(asked);
                Ok(())
            }
        }
    }

    /// While something is asked, `CLIENT UNBLOCK` of others can end it, once
    /// it is known what the server calls this connection.
    fn can_be_unblocked(&mut self) {
        if self.asked.is_none() {
            self.wait = None;
            return;
        }
        match self.talk.id {
            Some(id) if self.wait.is_none() => {
                self.wait = Some(self.shared.waiting.begins(self.upstream, id));
            }
            Some(_) => {}
            None => {
                if let Some(question) = self.talk.asks_own_id() {
                    let bytes = u64::try_from(question.len()).unwrap_or(u64::MAX);
                    let metrics = self.shared.gate.metrics();
                    metrics.passed(Passage::DatabaseFlow, bytes);
                    self.to_server.push(question);
                }
            }
        }
    }

    fn unblock(&mut self, how: Unblocked) {
        self.wait = None;
        if self.asked.take().is_some() {
            let event = clock::operation_id(clock::now());
            self.poison(Poison::unblocked(event, how));
        }
    }

    fn decide(&mut self, decision: Decision) -> Result<(), Ended> {
        match self.asked.take() {
            Some(asked) => self.follow(asked, decision),
            None => Ok(()),
        }
    }

    fn follow(&mut self, asked: Asked, decision: Decision) -> Result<(), Ended> {
        match decision {
            Decision::Proceed(permit) => self.proceed(asked, permit),
            Decision::Refuse(refused) => {
                let by_policy = matches!(refused.refusal, Refusal::Blocked(_));
                self.poison(match asked.unseen_script && by_policy {
                    true => Poison::unseen_script(&refused),
                    false => Poison::of(&refused),
                });
                Ok(())
            }
            // Answers of databases are never set aside.
            Decision::Replay(replay) => {
                self.poison(Poison::unasked(replay.event, "its answer was set aside"));
                Ok(())
            }
        }
    }

    fn proceed(&mut self, asked: Asked, permit: Permit) -> Result<(), Ended> {
        let Some(cleared) = asked.held.release(&permit) else {
            return Err(Ended::Mismatched);
        };
        match (asked.limit, limits::rows_of(permit.constraints())) {
            (Some(limit), Some(rows)) => {
                self.to_server.push(limit.fit(cleared.into_inner(), rows));
            }
            _ => self.to_server.push_cleared(cleared),
        }
        self.talk.granted(asked.effect, permit);
        Ok(())
    }

    fn poison(&mut self, poison: Poison) {
        if let Some(instead) = self.talk.refused(poison) {
            self.to_server.push(instead);
        }
    }

    /// The client says no more. What it asked is still answered, for a while.
    fn left(&mut self) {
        // What it said behind what is given up is given up, too.
        self.talk.closing |= self.asked.take().is_some();
        let now = Instant::now();
        let at = now.checked_add(LEAVES_WITHIN).unwrap_or(now);
        self.leaves_at.get_or_insert(at);
    }

    fn answered(&mut self) -> Result<(), Ended> {
        self.talk
            .server(&mut self.from_server.bytes, &mut self.to_client)
            .map_err(Ended::Wire)
    }

    fn server_left(&mut self) -> Ended {
        self.talk.lost();
        Ended::Gone("the server ended the connection")
    }

    fn halted(&mut self, changed: Result<(), watch::error::RecvError>) -> Result<(), Ended> {
        if changed.is_err() {
            return Err(Ended::Told);
        }
        let own = self.shared.gate.registry().own();
        let session = self.session.as_ref().unwrap_or(own);
        let Some(reason) = session.halted() else {
            return Ok(());
        };
        if self.talk.between_replies() {
            self.to_client.push(refuse::refusal(&Refused {
                refusal: Refusal::Halted(reason),
                event: clock::operation_id(clock::now()),
                policy: None,
                ruling: None,
            }));
        }
        Err(Ended::Told)
    }
}

async fn unblocked(wait: &mut Option<Wait>) -> Unblocked {
    match wait {
        Some(wait) => wait.ended().await,
        None => std::future::pending().await,
    }
}

async fn decided(asked: &mut Option<Asked>) -> Decision {
    match asked {
        Some(asked) => asked.decision.as_mut().await,
        None => std::future::pending().await,
    }
}
