//! One connection: two sockets, one conversation, one gate; the only mover of
//! bytes between them.
//!
//! While the gate decides, the server keeps being read, so that replies owed,
//! messages and invalidations still reach the client, and the client is
//! watched for leaving. Nothing it says is acted on until the decision is made.
//! The commands of a pipeline that stand alone are judged one after the other,
//! and one write to the journal takes the decisions of all, before any leaves.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Process, Protocol, Refusal, TraceId};
use crate::gate::{Decision, Held, InLine, Now, Permit, Refused, Repeats};
use crate::journal;
use crate::metrics::Passage;
use crate::net::client_socket::{ClientSocket, Watch};
use crate::net::maybe_tls::MaybeTls;
use crate::net::stream::Stream;
use crate::process::{Drain, clock};
use crate::protocols::pipe::{Inlet, Outbox};
use crate::session::{Claim, Session};

use super::ahead::Ahead;
use super::conversation::{Ask, Conversation, Step};
use super::describe::Described;
use super::effect::Effect;
use super::limits::{self, Fits};
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
    if let Some(told) = refused_at_once(shared, client.callers()) {
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
fn refused_at_once(shared: &Shared, callers: &[Process]) -> Option<Bytes> {
    let now = clock::now();
    let claim = Claim {
        callers,
        ..Claim::default()
    };
    let session = shared.gate.registry().attribute(&claim, now)?;
    let reason = session.halted()?;
    Some(refuse::refusal(&Refused::unasked(
        Refusal::Halted(reason),
        clock::operation_id(now),
    )))
}

/// A command that is not decided, or whose decision is not written yet.
struct Asked<'a> {
    awaited: Awaited<'a>,
    about: About,
    bytes: usize,
    stands_alone: bool,
}

/// What makes two commands of a connection the same to policy.
struct Like {
    described: Described,
    database: Option<u32>,
    trace: Option<TraceId>,
}

impl Like {
    fn is(&self, other: &Self) -> bool {
        self.database == other.database
            && self.trace == other.trace
            && self.described.is_like(&other.described)
    }
}

/// What a decision is about.
struct About {
    held: Held<Bytes>,
    effect: Effect,
    fits: Fits,
    unseen_script: bool,
    like: Like,
}

/// What has to come before a command may leave.
enum Awaited<'a> {
    /// The write that takes its record, and those of what came with it.
    InLine(Box<InLine<'a>>),
    /// It is refused, in its turn.
    Refused(Box<Refused>),
    /// Policy, or a person.
    Later(Pin<Box<dyn Future<Output = Decision> + Send + 'a>>),
}

impl Asked<'_> {
    fn is_later(&self) -> bool {
        matches!(self.awaited, Awaited::Later(_))
    }

    /// Whether what follows can be looked at before this is decided.
    fn lets_go_on(&self) -> bool {
        self.stands_alone && !self.is_later()
    }
}

type ToServer = MaybeTls<Stream>;

struct Relay<'a> {
    shared: &'a Shared,
    reached: &'a Server,
    upstream: &'a Upstream,
    talk: Conversation,
    watch: Watch,
    from_client: Inlet,
    from_server: Inlet,
    to_client: Outbox,
    to_server: Outbox,
    client: (ReadHalf<ClientSocket>, WriteHalf<ClientSocket>),
    server: (ReadHalf<ToServer>, WriteHalf<ToServer>),
    /// In order. What follows one that waits for policy or a person is not
    /// looked at.
    asked: VecDeque<Asked<'a>>,
    repeats: Repeats<Like>,
    /// Bytes of those.
    asked_bytes: usize,
    /// Others have had their turn to put records in line.
    had_turn: bool,
    /// Of what is asked, where others can end it.
    wait: Option<Wait>,
    /// The server was asked what it calls this connection, for this wait: it may
    /// not say it.
    asked_id: bool,
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
            reached.refusals(settings.refusals),
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
            reached,
            upstream: reached.upstream(),
            talk,
            watch: client.watch(),
            from_client: Inlet::default(),
            from_server: Inlet::default(),
            to_client: Outbox::default(),
            to_server: Outbox::of(&server),
            client: tokio::io::split(client),
            server: tokio::io::split(server),
            asked: VecDeque::new(),
            repeats: Repeats::default(),
            asked_bytes: 0,
            had_turn: false,
            wait: None,
            asked_id: false,
            ahead: Ahead::new(shared.ahead.clone()),
            session: None,
            leaves_at: None,
        }
    }

    async fn run(mut self, drain: Drain) {
        let ended = self.relay(drain).await;
        // What the client no longer waits for is abandoned, not answered.
        self.asked.clear();
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
            if let Some(question) = self.talk.asks_login() {
                self.asks_server(question);
            }
            if self.talk.has_ended() {
                return Ended::Told;
            }
            let leaves_at = self.leaves_at.unwrap_or_else(Instant::now);
            let leaves = self.leaves_at.is_some();
            let idle = self.asked.is_empty() && self.talk.is_idle();
            if leaves && !self.to_server.has_work() && idle {
                return Ended::Gone("the client left");
            }
            let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
            let asks = self.waits();
            let reads_client = self.reads_client();
            let turn = tokio::select! {
                biased;
                decision = decided(&mut self.asked, &mut self.had_turn) => self.decide(decision),
                how = unblocked(&mut self.wait), if asks => self.unblock(how),
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
                    match turn {
                        Ok(()) => Ok(()),
                        Err(()) => self.left(),
                    }
                }
                // Commands are left that had their turn.
                () = std::future::ready(()), if more => Ok(()),
                () = self.watch.hung_up(), if asks => self.left(),
                changed = halts.changed() => self.halted(changed),
                () = async { tokio::time::sleep_until(leaves_at).await }, if leaves => {
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
        let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
        if self.waits() || to_client_takes && self.talk.waits_for_login() {
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

    /// Whether policy or a person is waited for.
    fn waits(&self) -> bool {
        self.asked.back().is_some_and(Asked::is_later)
    }

    /// Deals with what the client has said, up to the next question that is
    /// not answered at once. Whether there may be more to deal with now.
    fn advance(&mut self) -> Result<bool, Ended> {
        let mut turns = TURN_COMMANDS_MAX;
        while self.to_server.len().saturating_add(self.asked_bytes) < WAITING_BYTES_MAX {
            let input = &mut self.from_client.bytes;
            let step = match self.asked.back() {
                None => self.talk.client(input),
                Some(last) if last.lets_go_on() && self.asked.len() < TURN_COMMANDS_MAX => {
                    self.talk.client_ahead(input, self.asked.len())
                }
                Some(_) => return Ok(false),
            };
            match step {
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
                return Ok(self.asked.is_empty());
            }
        }
        Ok(false)
    }

    fn ask(&mut self, ask: Ask) -> Result<(), Ended> {
        let now = clock::now();
        let claim = Claim {
            database_hint: self.talk.claims(),
            trace: self.talk.trace(),
            callers: self.watch.callers(),
            ..Claim::default()
        };
        let Ask {
            described,
            database,
            bytes,
            effect,
            fits,
            stands_alone,
        } = ask;
        let (unseen_script, length) = (described.unseen_script, bytes.len());
        let session = self.shared.gate.registry().attribute(&claim, now);
        let like = Like {
            described,
            database,
            trace: claim.trace,
        };
        // What is asked about is followed in its order.
        if let (Some(session), true) = (&session, self.asked.is_empty()) {
            let digest = like.described.digest.as_ref();
            let is_like = |last: &Like| last.is(&like);
            if let Some(permit) = self.repeats.again(is_like, session, digest, now) {
                let held = permit.id().map(|event| Held::new(event, bytes));
                return self.go_on(held, effect, fits, permit);
            }
        }
        let described = like.described.clone();
        let settings = &self.shared.settings;
        let hold_within = match self.talk.has_transaction() {
            true => settings
                .hold_in_transaction_within
                .min(settings.hold_within),
            false => settings.hold_within,
        };
        let terms = limits::terms(described.class, fits, hold_within);
        let gate = &self.shared.gate;
        let (id, awaited) = match session {
            Some(session) => {
                let operation =
                    described.operation(self.upstream, database, &session, self.talk.trace(), now);
                let id = operation.id;
                // All threads count who has it, so it is taken anew only where it changed.
                if self
                    .session
                    .as_ref()
                    .is_none_or(|known| !known.is(&session))
                {
                    self.session = Some(session.clone());
                }
                let awaited = match gate.admit_now(operation, session, &terms) {
                    Now::InLine(line) => Awaited::InLine(Box::new(line)),
                    Now::Refused(refused) => Awaited::Refused(Box::new(refused)),
                    Now::Later(undecided) => Awaited::Later(Box::pin(async move {
                        gate.admit_later(undecided, &terms).await
                    })),
                };
                (id, awaited)
            }
            None => {
                let event = clock::operation_id(now);
                let refused = Refused::unasked(Refusal::Unattributed, event);
                (event, Awaited::Refused(Box::new(refused)))
            }
        };
        self.asked_bytes = self.asked_bytes.saturating_add(length);
        self.asked.push_back(Asked {
            awaited,
            about: About {
                held: Held::new(id, bytes),
                effect,
                fits,
                unseen_script,
                like,
            },
            bytes: length,
            stands_alone,
        });
        Ok(())
    }

    /// While something is asked, `CLIENT UNBLOCK` of others can end it, once
    /// it is known what the server calls this connection.
    fn can_be_unblocked(&mut self) {
        if !self.asked.front().is_some_and(Asked::is_later) {
            (self.wait, self.asked_id) = (None, false);
            return;
        }
        match self.talk.id {
            Some(id) if self.wait.is_none() => {
                self.wait = Some(self.shared.waiting.begins(self.upstream, id));
            }
            Some(_) => {}
            None if self.asked_id => {}
            None => {
                if let Some(question) = self.talk.asks_own_id() {
                    self.asked_id = true;
                    self.asks_server(question);
                }
            }
        }
    }

    /// What the relay itself wants to know.
    fn asks_server(&mut self, question: Bytes) {
        let bytes = u64::try_from(question.len()).unwrap_or(u64::MAX);
        let metrics = self.shared.gate.metrics();
        metrics.passed(Passage::DatabaseFlow, bytes);
        self.to_server.push(question);
    }

    fn unblock(&mut self, how: Unblocked) -> Result<(), Ended> {
        self.wait = None;
        self.decide(None)?;
        if self.next_asked().is_some() {
            let event = clock::operation_id(clock::now());
            self.poison(Poison::unblocked(event, how));
        }
        Ok(())
    }

    fn next_asked(&mut self) -> Option<Asked<'a>> {
        let asked = self.asked.pop_front()?;
        self.asked_bytes = self.asked_bytes.saturating_sub(asked.bytes);
        Some(asked)
    }

    /// `first` is what was decided about the first that was asked about. With
    /// the write that takes its record go those of all behind it that wait for
    /// nothing else.
    fn decide(&mut self, first: Option<Decision>) -> Result<(), Ended> {
        self.had_turn = false;
        if let Some(decision) = first
            && let Some(asked) = self.next_asked()
        {
            self.follow(asked.about, decision)?;
        }
        while self.asked.front().is_some_and(|asked| !asked.is_later()) {
            let Some(Asked { awaited, about, .. }) = self.next_asked() else {
                break;
            };
            let decision = match awaited {
                Awaited::InLine(line) => line.settle(),
                Awaited::Refused(refused) => Decision::Refuse(*refused),
                Awaited::Later(_) => break,
            };
            self.follow(about, decision)?;
        }
        Ok(())
    }

    fn follow(&mut self, about: About, decision: Decision) -> Result<(), Ended> {
        match decision {
            Decision::Proceed(permit) => self.proceed(about, permit),
            Decision::Refuse(refused) => {
                let by_policy = matches!(refused.refusal, Refusal::Blocked(_));
                self.poison(match about.unseen_script && by_policy {
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

    fn proceed(&mut self, about: About, permit: Permit) -> Result<(), Ended> {
        self.repeats.admitted(about.like, Like::is, &permit);
        self.go_on(Some(about.held), about.effect, about.fits, permit)
    }

    fn go_on(
        &mut self,
        held: Option<Held<Bytes>>,
        effect: Effect,
        fits: Fits,
        permit: Permit,
    ) -> Result<(), Ended> {
        let Some(cleared) = held.and_then(|held| held.release(&permit)) else {
            return Err(Ended::Mismatched);
        };
        match permit.constraints() {
            [] => self.to_server.push_cleared(cleared),
            some => self.to_server.push(fits.fit(cleared.into_inner(), some)),
        }
        self.talk.granted(effect, permit);
        Ok(())
    }

    fn poison(&mut self, poison: Poison) {
        if let Some(instead) = self.talk.refused(poison) {
            self.to_server.push(instead);
        }
    }

    /// The client says no more. What it asked is still answered, for a while.
    fn left(&mut self) -> Result<(), Ended> {
        // What is decided is done: only its record was waited for.
        self.decide(None)?;
        // What it said behind what is given up is given up, too.
        self.talk.closing |= !self.asked.is_empty();
        self.asked.clear();
        self.asked_bytes = 0;
        let now = Instant::now();
        let at = now.checked_add(LEAVES_WITHIN).unwrap_or(now);
        self.leaves_at.get_or_insert(at);
        Ok(())
    }

    fn answered(&mut self) -> Result<(), Ended> {
        self.talk
            .server(&mut self.from_server.bytes, &mut self.to_client)
            .map_err(Ended::Wire)
    }

    fn server_left(&mut self) -> Ended {
        if self.talk.asked_the_unknown() {
            self.reached.ends_on_unknown();
            if let Some(error) = self.talk.next_refusal() {
                self.to_client.push(error);
            }
        }
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
            self.to_client.push(refuse::refusal(&Refused::unasked(
                Refusal::Halted(reason),
                clock::operation_id(clock::now()),
            )));
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

/// The decision about the first that was asked about. `None`: it is made, and
/// its record may be written now.
async fn decided(asked: &mut VecDeque<Asked<'_>>, had_turn: &mut bool) -> Option<Decision> {
    match asked.front_mut().map(|asked| &mut asked.awaited) {
        Some(Awaited::Later(decision)) => Some(decision.as_mut().await),
        Some(Awaited::InLine(_)) if !std::mem::replace(had_turn, true) => {
            journal::one_turn().await;
            None
        }
        Some(Awaited::InLine(_) | Awaited::Refused(_)) => None,
        None => std::future::pending().await,
    }
}
