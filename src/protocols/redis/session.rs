//! One connection: two sockets, one conversation, one gate; the only mover of
//! bytes between them.
//!
//! While the gate decides, the server keeps being read, so that replies owed,
//! messages and invalidations still reach the client, and the client is
//! watched for leaving. Nothing it says is acted on until the decision is made.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::Refusal;
use crate::gate::{Decision, Held, InLine, Now, Permit, Refused, Terms};
use crate::journal;
use crate::net::client_socket::{ClientSocket, Watch};
use crate::net::maybe_tls::MaybeTls;
use crate::process::{Drain, clock};
use crate::protocols::pipe::{Inlet, Outbox};
use crate::session::{Claim, Session};

use super::ahead::Ahead;
use super::commands::Class;
use super::conversation::{Ask, Conversation, Step};
use super::effect::Effect;
use super::refuse::{self, Poison};
use super::reply::ReplyError;
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
    server: &Server,
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
        Ok(server) => {
            // Boxed: what dials must not carry what relays.
            Box::pin(Relay::new(shared, upstream, client, server).run(drain)).await;
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

/// A command that is not decided, or whose decision is not written yet.
struct Asked<'a> {
    awaited: Awaited<'a>,
    held: Held<Bytes>,
    bytes: usize,
    effect: Effect,
    unseen_script: bool,
    stands_alone: bool,
}

impl Asked<'_> {
    /// Whether what follows can be looked at before this is decided.
    fn lets_go_on(&self) -> bool {
        self.stands_alone && !self.awaited.is_later()
    }
}

/// What has to come before a command may leave.
enum Awaited<'a> {
    /// The write that takes its record, and those of what came with it.
    InLine(Box<InLine<'a>>),
    /// It is refused, in its turn.
    Refused(Refused),
    /// Policy, or a person.
    Later(Pin<Box<dyn Future<Output = Decision> + Send + 'a>>),
}

impl Awaited<'_> {
    fn is_later(&self) -> bool {
        matches!(self, Self::Later(_))
    }
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
    /// In order. What follows one that waits for policy or a person is not
    /// looked at.
    asked: VecDeque<Asked<'a>>,
    /// Bytes of those.
    asked_bytes: usize,
    /// Others have had their turn to put records in line.
    had_turn: bool,
    ahead: Ahead,
    session: Option<Session>,
    /// The client is done: until then, what is owed to it is waited for.
    leaves_at: Option<Instant>,
}

impl<'a> Relay<'a> {
    fn new(
        shared: &'a Shared,
        upstream: &'a Upstream,
        client: ClientSocket,
        server: ToServer,
    ) -> Self {
        let settings = &shared.settings;
        Self {
            shared,
            upstream,
            talk: Conversation::new(
                shared.scripts.clone(),
                settings.refusals,
                settings.dangerous,
            ),
            watch: client.watch(),
            from_client: Inlet::default(),
            from_server: Inlet::default(),
            to_client: Outbox::default(),
            to_server: Outbox::of(&server),
            client: tokio::io::split(client),
            server: tokio::io::split(server),
            asked: VecDeque::new(),
            asked_bytes: 0,
            had_turn: false,
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
            if self.talk.has_ended() {
                return Ended::Told;
            }
            let leaves_at = self.leaves_at.unwrap_or_else(Instant::now);
            let leaves = self.leaves_at.is_some();
            if leaves && !self.to_server.has_work() && self.talk.is_idle() && self.asked.is_empty()
            {
                return Ended::Gone("the client left");
            }
            let idle = self.asked.is_empty() && self.talk.is_idle();
            let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
            let asks = self.waits();
            let reads_client = self.reads_client();
            let turn = tokio::select! {
                biased;
                decision = decided(&mut self.asked, &mut self.had_turn) => self.decide(decision),
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
        if self.waits() {
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
        let last = self.asked.back();
        last.is_some_and(|asked| asked.awaited.is_later())
    }

    /// Deals with what the client has said, up to the next question that is
    /// not answered at once. Whether there may be more to deal with now.
    fn advance(&mut self) -> Result<bool, Ended> {
        let mut turns = TURN_COMMANDS_MAX;
        while self.to_server.len().saturating_add(self.asked_bytes) < WAITING_BYTES_MAX {
            let input = &mut self.from_client.bytes;
            let step = match self.asked.back() {
                None => self.talk.client(input),
                Some(last) if self.asked.len() < TURN_COMMANDS_MAX && last.lets_go_on() => {
                    self.talk.client_ahead(input, self.asked.len())
                }
                Some(_) => return Ok(false),
            };
            match step {
                Step::More => return Ok(false),
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
                Step::Ask(ask) => self.ask(*ask),
            }
            turns = turns.saturating_sub(1);
            if turns == 0 {
                return Ok(self.asked.is_empty());
            }
        }
        Ok(false)
    }

    fn ask(&mut self, ask: Ask) {
        let now = clock::now();
        let claim = Claim {
            database_hint: self.talk.claims(),
            ..Claim::default()
        };
        let Ask {
            described,
            database,
            bytes,
            effect,
            stands_alone,
        } = ask;
        let unseen_script = described.unseen_script;
        let terms = terms(described.class, self.shared.settings.hold_within);
        let gate = &self.shared.gate;
        let id = clock::operation_id(now);
        let length = bytes.len();
        let held = Held::new(id, bytes);
        let awaited = match gate.registry().attribute(&claim, now) {
            Some(session) => {
                let operation = described.operation(id, self.upstream, database, &session, now);
                // All threads count who has it, so it is taken anew only where it changed.
                if self
                    .session
                    .as_ref()
                    .is_none_or(|known| !known.is(&session))
                {
                    self.session = Some(session.clone());
                }
                match gate.admit_now(operation, session, &terms) {
                    Now::InLine(line) => Awaited::InLine(Box::new(line)),
                    Now::Refused(refused) => Awaited::Refused(refused),
                    Now::Later(undecided) => Awaited::Later(Box::pin(async move {
                        gate.admit_later(undecided, &terms).await
                    })),
                }
            }
            None => Awaited::Refused(Refused {
                refusal: Refusal::Unattributed,
                event: id,
                policy: None,
                ruling: None,
            }),
        };
        self.asked_bytes = self.asked_bytes.saturating_add(length);
        self.asked.push_back(Asked {
            awaited,
            held,
            bytes: length,
            effect,
            unseen_script,
            stands_alone,
        });
    }

    /// What is first in line is decided. With the write that took its record
    /// went those of all behind it that wait for nothing else.
    fn decide(&mut self, first: Option<Decision>) -> Result<(), Ended> {
        self.had_turn = false;
        if let Some(decision) = first {
            self.next_decided(decision)?;
        }
        while let Some(asked) = self.asked.pop_front_if(|asked| !asked.awaited.is_later()) {
            self.asked_bytes = self.asked_bytes.saturating_sub(asked.bytes);
            let decision = match asked.awaited {
                Awaited::InLine(line) => line.settle(),
                Awaited::Refused(refused) => Decision::Refuse(refused),
                Awaited::Later(_) => return Ok(()),
            };
            self.follow(asked.held, asked.effect, asked.unseen_script, decision)?;
        }
        Ok(())
    }

    fn next_decided(&mut self, decision: Decision) -> Result<(), Ended> {
        let Some(asked) = self.asked.pop_front() else {
            return Ok(());
        };
        self.asked_bytes = self.asked_bytes.saturating_sub(asked.bytes);
        self.follow(asked.held, asked.effect, asked.unseen_script, decision)
    }

    fn follow(
        &mut self,
        held: Held<Bytes>,
        effect: Effect,
        unseen_script: bool,
        decision: Decision,
    ) -> Result<(), Ended> {
        match decision {
            Decision::Proceed(permit) => self.proceed(held, effect, permit),
            Decision::Refuse(refused) => {
                let by_policy = matches!(refused.refusal, Refusal::Blocked(_));
                self.poison(match unseen_script && by_policy {
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

    fn proceed(&mut self, held: Held<Bytes>, effect: Effect, permit: Permit) -> Result<(), Ended> {
        let Some(cleared) = held.release(&permit) else {
            return Err(Ended::Mismatched);
        };
        self.to_server.push_cleared(cleared);
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

/// What Redis brings to a decision about a command of this class.
fn terms(class: Class, hold_within: Duration) -> Terms {
    const READ_ONLY: &str = "read_only";
    match class {
        Class::Read => Terms {
            hold_within,
            applies: |name| name == READ_ONLY,
            contradicts: |_| false,
        },
        Class::Write | Class::Admin | Class::Opaque => Terms {
            hold_within,
            applies: |_| false,
            contradicts: |name| name == READ_ONLY,
        },
    }
}

/// The decision that is first in line. `None`: it is made, and its record may
/// be written now.
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
