//! What is said, and what comes of it. No sockets, no clock, no gate: bytes and
//! decisions in, bytes and questions out.
//!
//! ```text
//! client            conversation         gate        server
//!   |-- COM_PING ---->|-- Pass ----------------------->|
//!   |<----------------------------|-------------- OK --|
//!   |-- COM_QUERY --->|-- Ask ----------->|            |
//!   |                 |<- Permit ---------|            |
//!   |                 |-- Cleared -------------------->|
//!   |<----------------------------|------------ rows --|  the permit is settled
//! ```
//!
//! One command is under way at a time, also with clients that send several ahead:
//! what is behind waits until the answer has come. So a refusal is an answer in
//! its turn, and how the server reads a text is known before it gets one.

mod ahead;
mod client;
mod entering;
mod running;
mod server;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::gate::Permit;
use crate::metrics::Passage;
use crate::protocols::pipe::Outbox;
use crate::protocols::sql::Analyses;

use super::Replication;
use super::answer::{Answer, Form, Status};
use super::capability::Capabilities;
use super::commands::Code;
use super::dynamic::Names;
use super::greeting::{Login, Who};
use super::limits;
use super::reach::MissesTls;
use super::refuse::{self, Answered, Then};
use super::statement::{PROBE, Reading, Statements, Text};
use super::whole_password::{Key, Said};
use super::wire::{HEADER_BYTES, packet};

use ahead::Ahead;
use entering::Entering;
pub(super) use entering::Enters;
use running::Running;

/// Longest packet of a login, bytes, and of what a server says to our own commands.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Most packets of one login.
const ROUNDS_MAX: u8 = 64;

/// What to do with what the client just said.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing until more has come, or been answered.
    More,
    /// Nothing.
    Drop,
    /// Forward without asking.
    Pass(Bytes, Passage),
    /// Forward a password that was received, without a copy.
    Password(Bytes),
    /// Send this of our own to the server.
    Own(Bytes),
    /// Send this to the client.
    Say(Bytes),
    /// Forward, and end the connection.
    Goodbye(Bytes),
    /// Ask the gate.
    Ask(Box<Ask>),
    /// Ask it whether the session may begin.
    Enter,
}

/// What is asked about.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) text: Text,
    /// Where its names are looked for, as far as is known.
    pub(super) database: Option<Box<str>>,
    pub(super) digest: Option<[u8; 32]>,
    /// The `traceparent` among its attributes.
    pub(super) trace: Option<Box<str>>,
    /// What is forwarded once it is permitted: all of it, or its beginning.
    pub(super) bytes: Bytes,
}

/// The command that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) form: Form,
    /// The server's number of the prepared statement that it executes.
    pub(super) statement: Option<u32>,
    /// The connection that it ends, or ends the statement of.
    pub(super) kills: Option<u32>,
    /// Why it does not go on, whatever is decided about it.
    pub(super) stays: Option<&'static str>,
    /// Whether nothing is known of it but the command's name.
    pub(super) by_name: bool,
}

/// Which legs are inside TLS or on this machine, for proofs that depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Legs {
    /// Clients say a password here when they are asked for it.
    pub(super) client_is_secret: bool,
    pub(super) client_tls: bool,
    pub(super) server_tls: bool,
    /// The server is on this machine.
    pub(super) server_is_near: bool,
    /// It has proven who it is.
    pub(super) server_is_proven: bool,
}

impl Legs {
    /// Who misses TLS to the server, where `who` is stopped for want of it.
    fn misses_tls(self, who: &Who) -> Option<MissesTls> {
        let user = who.user.clone().filter(|_| !self.server_tls);
        user.map(MissesTls::User)
    }

    /// Whether a password that the client hides under our key may go on: inside TLS,
    /// to who is sure to be the server.
    ///
    /// # Errors
    ///
    /// With what the client is told where it may not.
    pub(super) fn receives(self) -> Result<(), &'static str> {
        match self.server_tls && (self.server_is_proven || self.server_is_near) {
            true => Ok(()),
            false => Err(
                "a password is received for a server that proves who it is, or is on this machine: set ssl-mode=VERIFY_IDENTITY or VERIFY_CA in --mysql (mysql.whole_password)",
            ),
        }
    }

    /// Whether a password that the client says here may go on, hidden under a key that
    /// nothing proves to be the server's: on this machine nobody else tells one.
    pub(super) fn hides_here(self) -> bool {
        !self.server_tls && self.server_is_near
    }

    /// Why a whole password cannot pass, where one leg hides it and the other does not.
    pub(super) fn apart(self) -> &'static str {
        match (
            self.client_is_secret,
            self.server_is_near,
            self.server_is_proven,
        ) {
            (false, true, _) | (false, _, true) => {
                "the server asks for the whole password (caching_sha2_password), and only one of the legs to and from the sidecar is inside TLS, the server's: let the client connect inside TLS (mysql.agent_tls: offer), or set mysql.whole_password: receive"
            }
            (false, false, false) => {
                "the server asks for the whole password (caching_sha2_password), and only one of the legs to and from the sidecar is inside TLS, the server's: let the client connect inside TLS (mysql.agent_tls: offer), or set both ssl-mode=VERIFY_IDENTITY in --mysql and mysql.whole_password: receive"
            }
            (true, true, _) => {
                "the server asks for the whole password (caching_sha2_password), and only one of the legs to and from the sidecar is inside TLS or at a path, the client's: let the server have TLS (ssl-mode=REQUIRED in --mysql), or set mysql.whole_password: receive"
            }
            (true, false, _) => {
                "the server asks for the whole password (caching_sha2_password), and only one of the legs to and from the sidecar is inside TLS or at a path, the client's: let the server have TLS (ssl-mode=REQUIRED in --mysql)"
            }
        }
    }

    /// Why a proof by `plugin` cannot pass from the client to the server: it would
    /// be a password in clear, or one that only one of the two takes for secret.
    pub(super) fn stops(self, plugin: &[u8]) -> Option<&'static str> {
        match plugin {
            b"mysql_clear_password" | b"dialog" | b"authentication_openid_connect_client"
                if !self.server_tls && !self.server_is_near =>
            {
                Some(
                    "a password would go to the server in clear, and there is no TLS to it: set ssl-mode of --mysql",
                )
            }
            // Its clients trust TLS alone, and no path.
            b"sha256_password" if self.client_tls != self.server_tls => Some(
                "sha256_password needs the whole password, and only one of the legs to and from the sidecar is inside TLS: let both have TLS or neither (mysql.agent_tls, ssl-mode in --mysql)",
            ),
            _ => None,
        }
    }
}

/// What a password that is received was hidden with.
#[derive(Debug)]
pub(super) struct Received {
    /// `None`: none is received.
    pub(super) key: Option<Arc<Key>>,
    /// The server's newest.
    pub(super) nonce: Vec<u8>,
}

/// Whether the client says its password to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hides {
    /// What it says is for the server.
    No,
    /// It may ask for our key first.
    Next,
    /// It did: once is enough.
    Told,
    /// It says it as it is, and it goes on under the server's key.
    Says,
}

/// A login under way.
#[derive(Debug)]
struct Turn {
    /// By how much the server's numbers are ahead of the client's.
    shift: u8,
    /// The number of the client's next packet, where it is its turn.
    expects: Option<u8>,
    /// The number of what it is told next, where it is not.
    owed: u8,
    rounds: u8,
    plugin: Option<Box<str>>,
    hides: Hides,
    /// Until the server has told its key.
    said: Option<Said>,
    who: Who,
    first: bool,
}

/// The answer to a command of the client.
#[derive(Debug)]
struct Answering {
    answer: Answer,
    running: Option<Running>,
    effect: Effect,
    /// Most rows of one result that the client gets, and how many it got.
    limit: Option<u64>,
    rows: u64,
    /// How many it did not get.
    dropped: u64,
    /// Some rows were left out: what follows has other numbers.
    cut: bool,
    /// The number of the client's next packet.
    next: u8,
    upload: Upload,
}

/// The contents of a file that the server asked for.
#[derive(Debug)]
enum Upload {
    No,
    Running(File),
    /// The client was not asked. It is told so instead of the server's answer.
    Denied(u8, Answered),
}

/// A file that the client sends.
#[derive(Debug)]
struct File {
    /// Bytes of its frame that are still to come.
    left: usize,
    /// The number of the next frame.
    next: u8,
    /// Another frame of the same packet follows.
    full: bool,
    /// This frame is the last.
    last: bool,
}

/// What an answer changes here.
#[derive(Debug)]
enum Effect {
    None,
    /// A statement of this text is prepared.
    Prepare(Text),
    /// The session is as new.
    Reset,
    /// This text has run, and where all went well, has killed what this connection does.
    Ran(Text, Option<u32>),
    /// More rows of the statement of this number.
    Fetched(u32),
}

/// A command of ours under way.
#[derive(Debug)]
struct Own {
    answer: Answer,
    row: Option<Bytes>,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// How the server reads texts; then this is said.
    Probe(Bytes),
    /// A refused execution leaves nothing behind; then this is said.
    Reset(u8, Answered),
    /// What policy asks of the session holds; then the login is answered.
    Begins(Box<Entering>, Running),
    /// It holds again.
    Imposes,
}

impl Purpose {
    /// The number of what is said to the client behind it.
    fn owed(&self) -> Option<u8> {
        match self {
            Self::Probe(behind) => behind.get(HEADER_BYTES.saturating_sub(1)).copied(),
            Self::Reset(number, _) => Some(*number),
            Self::Begins(entering, _) => Some(entering.number),
            Self::Imposes => None,
        }
    }
}

#[derive(Debug)]
enum Phase {
    Login(Box<Turn>),
    /// The server has let somebody in.
    Entering(Box<Entering>),
    Idle,
    Answering(Box<Answering>),
    Own(Box<Own>),
}

/// The rest of a client's packet of which the beginning was dealt with.
#[derive(Debug)]
struct Tail {
    left: usize,
    /// Another frame follows.
    full: bool,
    /// The number of the next frame, or of the answer.
    next: u8,
    what: Rest,
}

#[derive(Debug)]
enum Rest {
    Pass(Passage),
    /// It is waited for, and then refused: the command is asked about.
    Waits,
    Drop(Option<u32>, Answered),
}

impl Tail {
    fn is_open(&self) -> bool {
        self.left > 0 || self.full
    }
}

/// The rest of a server's packet.
#[derive(Debug, Default)]
struct Skip {
    left: usize,
    full: bool,
    dropped: bool,
}

/// Where bytes go.
pub(super) struct Sides<'a> {
    pub(super) to_client: &'a mut Outbox,
    pub(super) to_server: &'a mut Outbox,
}

/// One connection, from its login on.
#[derive(Debug)]
pub(super) struct Conversation {
    capabilities: Capabilities,
    legs: Legs,
    received: Received,
    phase: Phase,
    tail: Tail,
    skip: Skip,
    reading: Reading,
    statements: Statements,
    names: Names,
    status: Status,
    who: Who,
    enters: Enters,
    /// What policy asked of the session.
    imposed: Option<Box<str>>,
    /// Most rows of a result, whatever the session sets or a statement says.
    most_rows: Option<u64>,
    /// Values that were sent ahead: what is executed is not all in its packet.
    ahead: Ahead,
    current: Current,
    replication: Replication,
    killed: Option<u32>,
    farewell: bool,
    ended: bool,
    /// Whether that is since we do not let somebody log in so.
    refused_login: bool,
    /// Whose login failed since the server's leg has no TLS.
    misses_tls: Option<MissesTls>,
}

/// Whether the current database is what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Current {
    /// It is.
    Known,
    /// The server has to be asked before anybody is told.
    Doubted,
    /// The server was asked, and has not said it in a way that is understood: what runs there is
    /// not understood either.
    Untold,
}

impl Conversation {
    /// A connection on which `login` is about to be sent to the server, where it
    /// gets a number that is `shift` higher than with the client.
    pub(super) fn new(
        known: Arc<Analyses>,
        login: Login,
        legs: Legs,
        received: Received,
        enters: Enters,
        shift: u8,
    ) -> Self {
        let turn = Turn {
            shift,
            expects: None,
            // Behind its login, and its request for TLS.
            owed: if legs.client_tls { 3 } else { 2 },
            rounds: 0,
            plugin: login.plugin,
            hides: Hides::No,
            said: None,
            who: login.who.clone(),
            first: true,
        };
        Self {
            capabilities: login.capabilities,
            legs,
            received,
            phase: Phase::Login(Box::new(turn)),
            tail: Tail {
                left: 0,
                full: false,
                next: 1,
                what: Rest::Waits,
            },
            skip: Skip::default(),
            reading: Reading::new(known),
            statements: Statements::default(),
            names: Names::default(),
            status: Status::default(),
            who: login.who,
            enters,
            imposed: None,
            most_rows: None,
            ahead: Ahead::default(),
            current: Current::Known,
            replication: Replication::Refuse,
            killed: None,
            farewell: false,
            ended: false,
            refused_login: false,
            misses_tls: None,
        }
    }

    /// The same, where other servers may follow this one as `replication` says.
    pub(super) fn replicating(mut self, replication: Replication) -> Self {
        self.replication = replication;
        self
    }

    /// The same in clear, with a MariaDB on this machine.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn in_clear(login: Login, sessions: super::Sessions, shift: u8) -> Self {
        let legs = Legs {
            client_is_secret: false,
            client_tls: false,
            server_tls: false,
            server_is_near: true,
            server_is_proven: false,
        };
        let received = Received {
            key: None,
            nonce: Vec::new(),
        };
        let enters = Enters {
            sessions,
            server: super::capability::Flavour::Mariadb,
        };
        let known = Arc::new(Analyses::new(1 << 20));
        Self::new(known, login, legs, received, enters, shift)
    }

    /// The current database, as far as is known.
    pub(super) fn database(&self) -> Option<&str> {
        self.who.database.as_deref()
    }

    /// Who has logged in, as they say.
    pub(super) fn user(&self) -> Option<&str> {
        self.who.user.as_deref()
    }

    /// Whom the client claims to be of: a registered context.
    pub(super) fn claims(&self) -> Option<&str> {
        self.who.attribute("program_name")
    }

    /// The `traceparent` among the attributes of the connection.
    pub(super) fn trace(&self) -> Option<&str> {
        self.who.attribute("traceparent")
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.status.in_transaction()
    }

    /// Whether it ended since its login cannot go on between these legs.
    pub(super) fn has_refused_login(&self) -> bool {
        self.refused_login
    }

    /// Whose login has failed since the server's leg is in clear.
    pub(super) fn take_missing_tls(&mut self) -> Option<MissesTls> {
        self.misses_tls.take()
    }

    /// Whether the connection is over once everything has gone out.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether somebody has logged in.
    pub(super) fn is_ready(&self) -> bool {
        !matches!(self.phase, Phase::Login(_))
    }

    /// Whether somebody waits to be let in.
    pub(super) fn owes_login(&self) -> bool {
        match &self.phase {
            Phase::Login(_) | Phase::Entering(_) => !self.ended,
            Phase::Own(own) => match &own.purpose {
                Purpose::Probe(behind) => !behind.is_empty(),
                Purpose::Begins(_, _) => true,
                Purpose::Reset(_, _) | Purpose::Imposes => false,
            },
            Phase::Idle | Phase::Answering(_) => false,
        }
    }

    /// Whether the server is at an answer for which the client has to say no more.
    pub(super) fn owes_answer(&self) -> bool {
        let answers = match &self.phase {
            Phase::Answering(answering) => {
                !matches!(answering.upload, Upload::Running(_)) && !answering.answer.is_endless()
            }
            Phase::Own(_) => !self.owes_login(),
            Phase::Login(_) | Phase::Entering(_) | Phase::Idle => false,
        };
        answers && !self.tail.is_open()
    }

    /// Whether no command is under way.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && !self.tail.is_open() && self.between_packets()
    }

    /// The connection that a statement has just ended, or ended the statement of.
    pub(super) fn take_killed(&mut self) -> Option<u32> {
        self.killed.take()
    }

    /// Whether something can be said to the client now.
    pub(super) fn between_packets(&self) -> bool {
        self.skip.left == 0 && !self.skip.full
    }

    /// The number that a last word to the client has; `None` where none can be
    /// said, or the server has said one.
    pub(super) fn last_word(&self) -> Option<u8> {
        let can = self.between_packets() && !self.farewell;
        // Where nothing is owed, it is the answer to the next command.
        let number = match &self.phase {
            Phase::Answering(answering) => answering.next,
            Phase::Entering(entering) => entering.number,
            Phase::Own(own) => own.purpose.owed().unwrap_or(self.tail.next),
            // What it has to say first has a number of its own.
            Phase::Login(turn) => turn.expects.map_or(turn.owed, |next| next.wrapping_add(1)),
            Phase::Idle => self.tail.next,
        };
        can.then_some(number)
    }

    /// What was asked about may go.
    pub(super) fn granted(&mut self, kind: Kind, text: Text, permit: Permit) {
        let limit = limits::row_limit(&permit, self.most_rows, &text);
        if self.tail.is_open() {
            self.tail.what = Rest::Pass(Passage::RequestTail);
        }
        if let Some(number) = kind.statement {
            self.statements.executes(number, limit);
        }
        self.answers(
            kind.form,
            Effect::Ran(text, kind.kills),
            Some(Running::new(permit)),
        );
        if let Phase::Answering(answering) = &mut self.phase {
            answering.limit = limit;
        }
    }

    /// What was asked about may go, and does not, since `why`.
    pub(super) fn stays(&mut self, kind: Kind, why: &'static str, permit: Permit) -> Step {
        Running::new(permit).stayed(why);
        self.refused(kind, Answered::unasked(why))
    }

    /// What was asked about may not; what to do about that.
    pub(super) fn refused(&mut self, kind: Kind, answered: Answered) -> Step {
        if let Phase::Entering(entering) = &self.phase {
            self.ended = true;
            return Step::Say(answered.packet(entering.number));
        }
        if self.tail.is_open() {
            self.tail.what = Rest::Drop(kind.statement, answered);
            return Step::Drop;
        }
        self.refuse_now(kind.statement, answered)
    }

    fn refuse_now(&mut self, statement: Option<u32>, answered: Answered) -> Step {
        let next = self.tail.next;
        // Values that were sent ahead are gone after an execution that fails.
        if let Some(statement) = statement
            && answered.then == Then::GoOn
        {
            let mut body = vec![Code::STMT_RESET.0];
            body.extend_from_slice(&statement.to_le_bytes());
            self.phase = Phase::Own(Box::new(Own {
                answer: Answer::new(Form::Done, self.capabilities),
                row: None,
                purpose: Purpose::Reset(next, answered),
            }));
            return Step::Own(packet(0, &body));
        }
        self.ended |= answered.then == Then::End;
        Step::Say(answered.packet(next))
    }

    fn says(&mut self, sequence: u8, answered: &Answered, to_client: &mut Outbox) {
        to_client.push(answered.packet(sequence));
        self.ended |= answered.then == Then::End;
    }

    fn answers(&mut self, form: Form, effect: Effect, running: Option<Running>) {
        let limit = match &effect {
            Effect::Fetched(number) => self.statements.limit(*number),
            Effect::None | Effect::Prepare(_) | Effect::Reset | Effect::Ran(_, _) => None,
        };
        self.phase = Phase::Answering(Box::new(Answering {
            answer: Answer::new(form, self.capabilities),
            running,
            effect,
            limit,
            rows: 0,
            dropped: 0,
            cut: false,
            next: self.tail.next,
            upload: Upload::No,
        }));
    }

    /// Asks the server how it reads texts and where, and then says `behind`.
    fn probes(&mut self, behind: Bytes) -> Bytes {
        // Once is enough, whatever it says.
        if self.current == Current::Doubted {
            self.current = Current::Untold;
        }
        self.phase = Phase::Own(Box::new(Own {
            answer: Answer::new(Form::Results, self.capabilities),
            row: None,
            purpose: Purpose::Probe(behind),
        }));
        self.query(PROBE)
    }

    /// The server, or a statement that has run, says that this is the current database.
    fn is_in(&mut self, database: Option<Box<str>>) {
        self.who.database = database;
        self.current = Current::Known;
    }

    /// A query of ours.
    fn query(&self, text: &str) -> Bytes {
        let attributes: &[u8] = match self.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            true => &[0, 1],
            false => &[],
        };
        packet(0, &[&[Code::QUERY.0], attributes, text.as_bytes()].concat())
    }

    /// What is open ends with the connection to the server.
    pub(super) fn lost(&mut self) {
        let running = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Answering(answering) => answering.running,
            Phase::Own(own) => match own.purpose {
                Purpose::Begins(_, running) => Some(running),
                Purpose::Probe(_) | Purpose::Reset(_, _) | Purpose::Imposes => None,
            },
            Phase::Login(_) | Phase::Entering(_) | Phase::Idle => None,
        };
        if let Some(running) = running {
            running.lost();
        }
    }

    /// Takes what is known of a packet's beginning off `input`, and remembers
    /// what is left of it.
    fn begin(&mut self, input: &mut BytesMut, whole: usize, full: bool, what: Rest) -> Bytes {
        let bytes = input.split_to(whole.min(input.len())).freeze();
        self.tail = Tail {
            left: whole.saturating_sub(bytes.len()),
            full,
            next: 1,
            what,
        };
        bytes
    }
}

/// What ends a login that cannot go on, whichever side it fails at.
fn no_login(why: &str, number: u8) -> Bytes {
    tracing::warn!("a login to MySQL ended: {why}");
    refuse::login(number, why)
}

#[cfg(test)]
mod tests {
    use super::super::Sessions;
    use super::*;

    #[test]
    fn my_5_a_password_is_received_for_nobody_but_the_server() {
        for (server_tls, server_is_near, server_is_proven, expected) in [
            (true, false, true, true),
            (true, true, false, true),
            (true, false, false, false),
            (false, true, true, false),
        ] {
            let legs = Legs {
                client_is_secret: false,
                client_tls: false,
                server_tls,
                server_is_near,
                server_is_proven,
            };
            assert_eq!(legs.receives().is_ok(), expected, "{legs:?}");
        }
    }

    #[test]
    fn my_5_my_6_no_password_goes_on_in_clear_or_to_who_does_not_expect_one() {
        // client's TLS, server's TLS, server near           clear  sha256
        for (client_tls, server_tls, server_is_near, expected) in [
            (false, false, false, [true, false]),
            (false, false, true, [false, false]),
            (false, true, false, [false, true]),
            (true, false, false, [true, true]),
            (true, false, true, [false, true]),
            (true, true, false, [false, false]),
        ] {
            let legs = Legs {
                client_is_secret: client_tls,
                client_tls,
                server_tls,
                server_is_near,
                server_is_proven: false,
            };
            let stops = |plugin: &[u8]| legs.stops(plugin).is_some();
            let [clear, sha256] = expected;
            assert_eq!(stops(b"mysql_clear_password"), clear, "{legs:?}");
            assert_eq!(stops(b"dialog"), clear, "{legs:?}");
            let token = stops(b"authentication_openid_connect_client");
            assert_eq!(token, clear, "{legs:?}");
            assert_eq!(stops(b"sha256_password"), sha256, "{legs:?}");
            assert!(!stops(b"caching_sha2_password") && !stops(b""), "{legs:?}");
        }
    }

    #[test]
    fn my_6_a_further_factor_is_stopped_where_its_first_would_be() {
        // Another method, and another factor.
        for kind in [0xfe, 2] {
            for (near, expected) in [(true, false), (false, true)] {
                let login = Login {
                    capabilities: Capabilities::PROTOCOL_41,
                    plugin: None,
                    who: Who {
                        user: Some("bob".into()),
                        ..Who::default()
                    },
                };
                let mut talk = Conversation::in_clear(login, Sessions::Pass, 0);
                talk.legs.server_is_near = near;
                let mut all = (talk, Outbox::default(), Outbox::default());
                let asks = [&[kind][..], b"mysql_clear_password\0"].concat();
                hears(&mut all, &packet(2, &asks));
                let (mut talk, to_client, _) = all;
                assert_eq!(talk.has_refused_login(), expected, "{kind} {near}");
                // Their next login may have TLS.
                let missing = expected.then(|| MissesTls::User("bob".into()));
                assert_eq!(talk.take_missing_tls(), missing, "{kind} {near}");
                assert!(to_client.has_work());
            }
        }
    }

    /// One whose login the server has just taken, under a number that is `shift` higher
    /// than what the client is told it under: 2.
    fn let_in(sessions: Sessions, shift: u8) -> (Conversation, Outbox, Outbox) {
        let login = Login {
            capabilities: Capabilities::PROTOCOL_41,
            plugin: None,
            who: Who::default(),
        };
        let talk = Conversation::in_clear(login, sessions, shift);
        let mut all = (talk, Outbox::default(), Outbox::default());
        hears(&mut all, &packet(2_u8.wrapping_add(shift), &[0; 7]));
        all
    }

    fn hears((talk, to_client, to_server): &mut (Conversation, Outbox, Outbox), said: &[u8]) {
        let mut sides = Sides {
            to_client,
            to_server,
        };
        talk.server(&mut BytesMut::from(said), &mut sides).unwrap();
    }

    #[test]
    fn a_last_word_amid_a_login_has_the_number_of_what_the_client_waits_for() {
        for shift in [0, 1, 0xff] {
            for sessions in [Sessions::Pass, Sessions::Judge] {
                let (talk, _, _) = let_in(sessions, shift);
                assert_eq!(talk.last_word(), Some(2), "{sessions:?}, {shift}");
            }
        }
    }

    #[test]
    fn a_last_word_in_a_login_has_the_number_behind_whoevers_turn_it_is() {
        for (client_tls, first) in [(false, 2), (true, 3)] {
            let login = Login {
                capabilities: Capabilities::PROTOCOL_41,
                plugin: None,
                who: Who::default(),
            };
            let mut talk = Conversation::in_clear(login.clone(), Sessions::Pass, 0);
            let legs = Legs {
                client_tls,
                ..talk.legs
            };
            let received = Received {
                key: None,
                nonce: Vec::new(),
            };
            talk = Conversation::new(
                Arc::new(Analyses::new(1)),
                login,
                legs,
                received,
                talk.enters,
                0,
            );
            let mut all = (talk, Outbox::default(), Outbox::default());
            assert_eq!(all.0.last_word(), Some(first));
            // It has to prove itself anew.
            hears(&mut all, &packet(first, b"\xfeplugin\0nonce"));
            assert_eq!(all.0.last_word(), Some(first + 2));
            let mut proof = BytesMut::from(&packet(first + 1, b"proof")[..]);
            all.0.client(&mut proof).unwrap();
            assert_eq!(all.0.last_word(), Some(first + 2));
            hears(&mut all, &packet(first + 2, b"\xff\x15\x04#28000no"));
            assert_eq!(all.0.last_word(), None);
        }
    }

    #[test]
    fn what_a_server_says_as_it_ends_a_session_before_it_begins_has_the_clients_number() {
        for shift in [0, 1, 0xff] {
            let mut all = let_in(Sessions::Judge, shift);
            hears(&mut all, &packet(0, b"\xff\x86\x07#70100killed"));
            let (talk, to_client, _) = &all;
            assert_eq!(to_client.concat()[3], 2, "{shift}");
            assert_eq!(talk.last_word(), None);
        }
    }
}
