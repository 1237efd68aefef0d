//! One session: two sockets, one conversation, one gate; the only mover of
//! bytes between them.
//!
//! While the gate decides, the server keeps being read, as it may end the
//! connection, and the client is watched for leaving. Nothing it says is acted
//! on until the decision is made.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{Operation, OperationId, Protocol, Refusal, Timestamp, TraceId};
use crate::gate::{Decision, Held, Permit, Refused, Repeats, Terms};
use crate::metrics::{Passage, Unaccepted};
use crate::net::client_socket::Watch;
use crate::net::maybe_tls::MaybeTls;
use crate::process::{Drain, clock};
use crate::protocols::pipe::{Inlet, Outbox};
use crate::session::Session;

use super::answer::Form;
use super::conversation::{Ask, Conversation, Kind, Sides, Step};
use super::describe::Place;
use super::kills::Registered;
use super::refuse::{self, Answered};
use super::startup::Started;
use super::statement::Text;
use super::wire::WireError;
use super::{Agent, Server, Shared, Upstream, describe, limits};

/// Most bytes that wait for one side before the other is no longer read.
const WAITING_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a client that are read before they are dealt with: more than
/// the longest text that is understood.
const CLIENT_BYTES_MAX: usize = 2 << 20;
/// The same while nothing is dealt with.
const HELD_BYTES_MAX: usize = 64 << 10;
/// How long the end of a session is waited for after the client has left.
const LEAVES_WITHIN: Duration = Duration::from_millis(250);
/// The same where the server is at an answer, which a client that only stopped sending still
/// reads: the server, too, does what it was asked before it looks who is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for the last words to be taken.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// Most commands dealt with before the sockets get their turn.
const TURN_COMMANDS_MAX: usize = 64;

/// Why a connection ended early.
#[derive(Debug)]
enum Ended {
    /// A socket failed, or its peer left.
    Gone(&'static str),
    /// The client broke the protocol.
    Client(WireError),
    /// The server did.
    Server(WireError),
    /// It was told why.
    Told,
    /// A permit came back for bytes it does not cover: a bug in this program.
    Mismatched,
}

/// Relays until one side ends.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    server: &Server,
    client: Agent,
    started: Started,
    login_until: Instant,
    drain: Drain,
) {
    let relay = Relay::new(shared, server, client, started);
    relay.run(login_until, drain).await;
}

/// What makes two executions of a session the same to policy.
struct Like {
    text: Text,
    form: Form,
    database: Option<Box<str>>,
    user: Option<Box<str>>,
    trace: Option<TraceId>,
}

impl Like {
    fn is(&self, other: &Self) -> bool {
        self.form == other.form
            && self.trace == other.trace
            && self.database == other.database
            && self.user == other.user
            && self.text.is(&other.text)
    }
}

type Deciding = Pin<Box<dyn Future<Output = Decision> + Send>>;

/// A question under way.
struct Asked {
    decision: Deciding,
    held: Held<Bytes>,
    kind: Kind,
    text: Text,
    /// `None`: nothing is like it.
    like: Option<Like>,
    event: OperationId,
}

type ToServer = MaybeTls<TcpStream>;

struct Relay<'a> {
    shared: &'a Shared,
    configured: &'a Server,
    upstream: &'a Upstream,
    talk: Conversation,
    watch: Watch,
    from_client: Inlet,
    from_server: Inlet,
    to_client: Outbox,
    to_server: Outbox,
    client: (ReadHalf<Agent>, WriteHalf<Agent>),
    server: (ReadHalf<ToServer>, WriteHalf<ToServer>),
    asked: Option<Asked>,
    repeats: Repeats<Like>,
    kills: Registered,
    session: Option<Session>,
    /// Somebody has logged in.
    begun: bool,
    /// The client is done: what is owed to it is waited for, for a while.
    left_at: Option<Instant>,
}

impl<'a> Relay<'a> {
    fn new(shared: &'a Shared, configured: &'a Server, client: Agent, started: Started) -> Self {
        let upstream = configured.upstream();
        let Started {
            server,
            talk,
            connection,
            login,
            from_client,
            from_server,
        } = started;
        let mut to_server = Outbox::of(&server);
        to_server.push(login);
        Self {
            shared,
            configured,
            upstream,
            talk,
            watch: client.socket().watch(),
            from_client: Inlet::having(from_client),
            from_server: Inlet::having(from_server),
            to_client: Outbox::of(&client),
            to_server,
            client: tokio::io::split(client),
            server: tokio::io::split(server),
            asked: None,
            repeats: Repeats::default(),
            kills: shared.kills.register(upstream, connection),
            session: None,
            begun: false,
            left_at: None,
        }
    }

    async fn run(mut self, login_until: Instant, drain: Drain) {
        let ended = self.relay(login_until, drain).await;
        // What the client no longer waits for is abandoned, not answered.
        self.asked = None;
        if let Some(who) = self.talk.take_missing_tls() {
            self.configured.misses_tls(who);
        }
        let host = &self.upstream.host;
        match ended {
            Ended::Client(wrong) => {
                self.shared.gate.metrics().malformed(Protocol::Mysql);
                tracing::info!(%host, "a connection for MySQL ended: {wrong}");
                if let Some(number) = self.talk.last_word() {
                    self.to_client
                        .push(refuse::broken(number, &wrong.to_string()));
                }
            }
            Ended::Server(wrong) => {
                self.shared.gate.metrics().malformed(Protocol::Mysql);
                tracing::warn!(%host, "a connection to MySQL ended: {wrong}");
                self.talk.lost();
            }
            Ended::Mismatched => {
                tracing::error!("a permit came back for a command that it does not cover");
            }
            Ended::Gone(why) => {
                tracing::debug!(%host, "a connection for MySQL ended: {why}");
            }
            Ended::Told => {}
        }
        let last = self.to_client.drain(&mut self.client.1);
        drop(tokio::time::timeout(ENDS_WITHIN, last).await);
        drop(tokio::time::timeout(ENDS_WITHIN, self.server.1.shutdown()).await);
    }

    async fn relay(&mut self, mut login_until: Instant, mut drain: Drain) -> Ended {
        let within = self.shared.settings.login_within;
        let mut halts = self.shared.gate.registry().halt_changes();
        loop {
            let more = match self.advance() {
                Ok(more) => more,
                Err(ended) => return ended,
            };
            if self.talk.has_ended() {
                // A change of user that is refused is the end of a session, and no login.
                if self.talk.has_refused_login() && !self.begun {
                    self.unaccepted(Unaccepted::Tls);
                }
                return Ended::Told;
            }
            let leaves_at = self.leaves_at();
            let leaves = self.left_at.is_some();
            let asks = self.asked.is_some();
            let done = self.talk.is_idle() && !self.to_server.has_work() && !more && self.takes();
            if leaves && !asks && done {
                return Ended::Gone("the client left");
            }
            let idle = !asks && self.talk.is_idle();
            // Of the first login: a change of user comes at any time.
            self.begun |= self.talk.is_ready() && !self.talk.owes_login();
            // What comes behind somebody's decision has its own time.
            let is_asked_about = !self.begun && self.talk.is_entering();
            if is_asked_about {
                let now = Instant::now();
                login_until = now.checked_add(within).unwrap_or(now);
            }
            let to_client_takes = self.to_client.len() < WAITING_BYTES_MAX;
            let turn = tokio::select! {
                biased;
                decision = decided(&mut self.asked) => self.decide(decision),
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
                turn = self.from_client.read(&mut self.client.0), if self.reads_client() => {
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
                () = self.kills.killed(), if asks => {
                    self.void("Query execution was interrupted");
                    Ok(())
                }
                changed = halts.changed() => self.halted(changed),
                () = tokio::time::sleep_until(leaves_at), if leaves => {
                    Err(Ended::Gone("the client left"))
                }
                () = tokio::time::sleep_until(login_until), if !self.begun && !is_asked_about => {
                    self.unaccepted(Unaccepted::Slow);
                    if let Some(number) = self.talk.last_word() {
                        self.to_client.push(refuse::slow(number));
                    }
                    Err(Ended::Gone("nobody logged in in time"))
                }
                () = drain.begun(), if idle => {
                    if let Some(number) = self.talk.last_word() {
                        self.to_client.push(refuse::shutting_down(number));
                    }
                    Err(Ended::Told)
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
        self.left_at.is_none() && self.from_client.bytes.len() < max && self.takes()
    }

    /// Whether either side takes what more there would be for it: the client, too, since
    /// some of what it says is answered here. Whoever reads lets the other go on.
    fn takes(&self) -> bool {
        self.to_server.len() < WAITING_BYTES_MAX && self.to_client.len() < WAITING_BYTES_MAX
    }

    /// Deals with what the client has said, up to the next question that is
    /// not answered at once. Whether there may be more to deal with now.
    fn advance(&mut self) -> Result<bool, Ended> {
        let mut turns = TURN_COMMANDS_MAX;
        while self.asked.is_none() && self.takes() {
            let step = self.talk.client(&mut self.from_client.bytes);
            match step.map_err(Ended::Client)? {
                Step::More => return Ok(false),
                Step::Ask(ask) => self.ask(*ask)?,
                Step::Enter => self.enter()?,
                Step::Goodbye(bytes) => {
                    self.to_server.push(bytes);
                    self.from_client.bytes.clear();
                    self.left();
                    return Ok(false);
                }
                step @ (Step::Drop
                | Step::Pass(_, _)
                | Step::Password(_)
                | Step::Own(_)
                | Step::Say(_)) => {
                    self.follow_step(step);
                }
            }
            if self.talk.has_ended() {
                return Ok(false);
            }
            turns = turns.saturating_sub(1);
            if turns == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn follow_step(&mut self, step: Step) {
        match step {
            Step::Pass(bytes, passage) => {
                let passed = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.shared.gate.metrics().passed(passage, passed);
                self.to_server.push(bytes);
            }
            Step::Password(bytes) => {
                let passed = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let passage = Passage::DatabaseLogin;
                self.shared.gate.metrics().passed(passage, passed);
                self.to_server.push_uncopied(bytes);
            }
            Step::Own(bytes) => self.to_server.push(bytes),
            Step::Say(bytes) => self.to_client.push(bytes),
            Step::More | Step::Drop | Step::Goodbye(_) | Step::Ask(_) | Step::Enter => {}
        }
    }

    /// Asks whether the session may begin, and how.
    fn enter(&mut self) -> Result<(), Ended> {
        let now = clock::now();
        let kind = Kind {
            form: Form::Done,
            statement: None,
            kills: None,
            by_name: false,
            stays: None,
        };
        let claim = describe::claim_of_connection(&self.talk, self.watch.callers());
        let Some(session) = self.shared.gate.registry().attribute(&claim, now) else {
            self.refuse(kind, unattributed(now));
            return Ok(());
        };
        self.session = Some(session.clone());
        let trace = claim.trace;
        let place = self.place(self.talk.database());
        let operation = describe::beginning(place, &session, trace, now);
        let terms = limits::terms_of_session(self.shared.settings.hold_within);
        let asked = Asked {
            held: Held::new(operation.id, Bytes::new()),
            event: operation.id,
            decision: self.admit(operation, session, terms),
            kind,
            text: Text::unknown(),
            like: None,
        };
        self.decides(asked)
    }

    fn place<'b>(&'b self, database: Option<&'b str>) -> Place<'b> {
        Place {
            upstream: self.upstream,
            database,
            user: self.talk.user(),
        }
    }

    fn admit(&self, operation: Box<Operation>, session: Session, terms: Terms) -> Deciding {
        let gate = self.shared.gate.clone();
        Box::pin(async move { gate.admit(operation, session, &terms).await })
    }

    /// Follows a decision that is made at once, or waits for it.
    fn decides(&mut self, mut asked: Asked) -> Result<(), Ended> {
        // Before anybody can know of a hold, and so end it.
        self.kills.forget();
        // A local policy has answered by now: nobody needs to be woken for it.
        let now = asked
            .decision
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        match now {
            Poll::Ready(decision) => self.follow(asked, decision),
            Poll::Pending => {
                self.asked = Some(asked);
                Ok(())
            }
        }
    }

    fn ask(&mut self, mut ask: Ask) -> Result<(), Ended> {
        let now = clock::now();
        let connection = describe::claim_of_connection(&self.talk, self.watch.callers());
        let claim = describe::claim(&ask, connection);
        let trace = claim.trace;
        let Some(session) = self.shared.gate.registry().attribute(&claim, now) else {
            self.refuse(ask.kind, unattributed(now));
            return Ok(());
        };
        self.session = Some(session.clone());
        let like = Like {
            text: ask.text.clone(),
            form: ask.kind.form,
            database: ask.database.take(),
            user: self.talk.user().map(Into::into),
            trace,
        };
        let digest = ask.digest.as_ref();
        if let Some(permit) = self
            .repeats
            .again(|last| last.is(&like), &session, digest, now)
        {
            let held = permit.id().map(|event| Held::new(event, ask.bytes));
            return self.go_on(held, ask.kind, ask.text, permit);
        }
        let place = self.place(like.database.as_deref());
        let operation = describe::operation(&ask, place, &session, trace, now);
        let settings = &self.shared.settings;
        let hold_within = match self.talk.in_transaction() {
            true => settings.hold_in_transaction_within,
            false => settings.hold_within,
        };
        let terms = limits::terms(&ask.text, hold_within);
        let event = operation.id;
        let asked = Asked {
            decision: self.admit(operation, session, terms),
            held: Held::new(event, ask.bytes),
            kind: ask.kind,
            text: ask.text,
            like: Some(like),
            event,
        };
        self.decides(asked)
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
                self.refuse(asked.kind, Answered::of(&refused));
                Ok(())
            }
            // Answers of databases are never set aside.
            Decision::Replay(_) => {
                self.refuse(asked.kind, Answered::unasked("its answer was set aside"));
                Ok(())
            }
        }
    }

    fn proceed(&mut self, asked: Asked, permit: Permit) -> Result<(), Ended> {
        if let Some(like) = asked.like {
            self.repeats.admitted(like, Like::is, &permit);
        }
        self.go_on(Some(asked.held), asked.kind, asked.text, permit)
    }

    fn go_on(
        &mut self,
        held: Option<Held<Bytes>>,
        kind: Kind,
        text: Text,
        permit: Permit,
    ) -> Result<(), Ended> {
        let Some(cleared) = held.and_then(|held| held.release(&permit)) else {
            return Err(Ended::Mismatched);
        };
        if self.talk.is_entering() {
            let step = self.talk.entered(permit);
            self.follow_step(step);
            return Ok(());
        }
        if let Some(why) = kind.stays {
            let step = self.talk.stays(kind, why, permit);
            self.follow_step(step);
            return Ok(());
        }
        self.to_server.push_cleared(cleared);
        self.talk.granted(kind, text, permit);
        Ok(())
    }

    fn refuse(&mut self, kind: Kind, answered: Answered) {
        let step = self.talk.refused(kind, answered);
        self.follow_step(step);
    }

    /// Somebody does not want what is held.
    fn void(&mut self, why: &str) {
        if let Some(asked) = self.asked.take() {
            self.refuse(asked.kind, Answered::interrupted(asked.event, why));
        }
    }

    /// The client says no more. What it asked is still answered, for a while, but for what
    /// has to be waited for here: nobody may be there any more who wants that.
    fn left(&mut self) {
        if self.asked.take().is_some() {
            // What it said behind that is given up, too.
            self.from_client.bytes.clear();
        }
        self.left_at.get_or_insert_with(Instant::now);
    }

    /// When nothing more is waited for, where the client has left.
    fn leaves_at(&self) -> Instant {
        let within = match self.talk.owes_answer() {
            true => ANSWERS_WITHIN,
            false => LEAVES_WITHIN,
        };
        let left_at = self.left_at.unwrap_or_else(Instant::now);
        left_at.checked_add(within).unwrap_or(left_at)
    }

    fn answered(&mut self) -> Result<(), Ended> {
        let mut sides = Sides {
            to_client: &mut self.to_client,
            to_server: &mut self.to_server,
        };
        let said = self.talk.server(&mut self.from_server.bytes, &mut sides);
        said.map_err(Ended::Server)?;
        if let Some(connection) = self.talk.take_killed() {
            self.shared.kills.kill(self.upstream, connection);
        }
        Ok(())
    }

    fn unaccepted(&self, cause: Unaccepted) {
        let metrics = self.shared.gate.metrics();
        metrics.unaccepted(Protocol::Mysql, cause);
    }

    fn server_left(&mut self) -> Ended {
        if self.talk.owes_login() {
            self.unaccepted(Unaccepted::UpstreamDown);
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
        let refused = Refused::unasked(Refusal::Halted(reason), clock::operation_id(clock::now()));
        if let Some(number) = self.talk.last_word() {
            self.to_client.push(Answered::of(&refused).packet(number));
        }
        Err(Ended::Told)
    }
}

/// What nobody may do of whom nobody knows whose it is.
fn unattributed(now: Timestamp) -> Answered {
    Answered::of(&Refused::unasked(
        Refusal::Unattributed,
        clock::operation_id(now),
    ))
}

async fn decided(asked: &mut Option<Asked>) -> Decision {
    match asked {
        Some(asked) => asked.decision.as_mut().await,
        None => std::future::pending().await,
    }
}
